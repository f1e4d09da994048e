#!/bin/sh
# Back up the home that TOPICD_HOME names: scripts/backup.sh DIR [--keep N] [--cache] [--secrets]. For cron and timers:
# prints the archive's path; ends with another code than 0 when anything could not be taken.
set -eu
topicd=$(dirname "$0")/../.venv/bin/topicd
[ -x "$topicd" ] || topicd=$(command -v topicd) || { echo "backup.sh: topicd is not installed" >&2; exit 127; }
exec "$topicd" backup "$@"
