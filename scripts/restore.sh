#!/bin/sh
# Restore a backup into the empty home that TOPICD_HOME names: scripts/restore.sh ARCHIVE. Overwrites nothing.
set -eu
topicd=$(dirname "$0")/../.venv/bin/topicd
[ -x "$topicd" ] || topicd=$(command -v topicd) || { echo "restore.sh: topicd is not installed" >&2; exit 127; }
exec "$topicd" restore "$@"
