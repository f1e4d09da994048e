#!/bin/sh
# Fetch a Stable Diffusion checkpoint to where the stable-diffusion service of compose finds it:
# scripts/download_sd_model.sh [NAME] [--quiet]. NAME is one of `topicd fetch models`, sd-1.5 unless given; SD_MODELS_DIR
# names another folder. An interrupted one goes on where it was.
set -eu
here=$(dirname "$0")/..
topicd=$here/.venv/bin/topicd
[ -x "$topicd" ] || topicd=$(command -v topicd) || { echo "download_sd_model.sh: topicd is not installed" >&2; exit 127; }
case "${1:-}" in
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    "" | -*) set -- sd-1.5 "$@" ;;
esac
exec "$topicd" fetch model --to "${SD_MODELS_DIR:-$here/data/models}" "$@"
