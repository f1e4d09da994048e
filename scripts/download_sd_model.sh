#!/bin/sh
# Fetch a Stable Diffusion checkpoint to where the stable-diffusion service of compose finds it:
# scripts/download_sd_model.sh [NAME] [--quiet]. NAME is one of `topicd fetch models`, sd-1.5 unless given; SD_MODELS_DIR
# names another folder. An interrupted one goes on where it was. Without topicd on this machine, compose's daemon fetches.
set -eu
here=$(dirname "$0")/..
topicd=$here/.venv/bin/topicd
[ -x "$topicd" ] || topicd=$(command -v topicd) || topicd=
case "${1:-}" in
    -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
    "" | -*) set -- sd-1.5 "$@" ;;
esac
if [ -z "$topicd" ]; then
    command -v docker >/dev/null || { echo "download_sd_model.sh: neither topicd nor docker is installed" >&2; exit 127; }
    cd "$here"
    # Without its servers, which may be waiting for this very model.
    docker compose run --rm folders
    exec docker compose run --rm --no-deps daemon fetch model --to /data/models "$@"
fi
exec "$topicd" fetch model --to "${SD_MODELS_DIR:-$here/data/models}" "$@"
