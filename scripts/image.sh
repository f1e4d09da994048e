#!/bin/sh
# Build one target of docker/Dockerfile, with labels that say what it is made from; the rest are words of `docker build`:
#   scripts/image.sh slim --tag topicd:slim
# The times in it are the commit's, so that the same commit gives the same image. SOURCE names the repository's address.
set -eu
cd "$(dirname "$0")/.."
target=${1:?a target of docker/Dockerfile}
shift
exec docker build --file docker/Dockerfile --target "$target" \
    --build-arg VERSION="$(sed -n 's/^__version__ = "\(.*\)"/\1/p' daemon/topicd/__init__.py)" \
    --build-arg REVISION="$(git rev-parse HEAD)" \
    --build-arg SOURCE="${SOURCE:-unknown}" \
    --build-arg CREATED="$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)" \
    --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
    "$@" .
