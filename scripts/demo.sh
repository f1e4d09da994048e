#!/bin/sh
# Start a daemon on a home of its own, drop examples/tides.md, show its way, print the finished folder.
set -eu
cd "$(dirname "$0")/.."
export TOPICD_HOME="$PWD/.demo" TOPICD_METRICS_PORT=0 TOPICD_LOG_LEVEL=info
mkdir -p "$TOPICD_HOME"
log=$TOPICD_HOME/daemon.log

: >"$log"
.venv/bin/topicd run 2>>"$log" &
daemon=$!
stop() {
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
}
trap stop EXIT
trap 'exit 130' INT TERM

until grep -q daemon.ready "$log"; do
    kill -0 "$daemon" 2>/dev/null || { tail -n 5 "$log"; exit 1; }
    sleep 0.1
done
echo "topicd is running (log: .demo/daemon.log); dropping examples/tides.md into .demo/input/"
folder=$(.venv/bin/topicd add examples/tides.md --wait) || { tail -n 5 "$log"; exit 1; }
echo "done: $folder"
(cd "$folder" && find . -type f ! -name '.*' -printf '  %-22P %9s bytes\n' | sort)
echo "open $folder/index.html in a browser"
