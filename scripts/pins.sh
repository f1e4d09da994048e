#!/bin/sh
# Print the pinned requirements of the named blocks of constraints.txt: pins.sh base otel embedded
set -eu
cd "$(dirname "$0")/.."
for block; do
    grep -qx "# block: $block" constraints.txt || { echo "pins.sh: no block named $block" >&2; exit 2; }
    awk -v want="# block: $block" '/^# block: /{on = ($0 == want); next} on' constraints.txt
done
