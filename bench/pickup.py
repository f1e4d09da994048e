"""Pickup latency: files renamed into input/ at a steady pace, while the daemon claims them.

Prints, for each file, from the return of rename(2): until the daemon noticed it (the hint is on its event loop), until
it left input/ (the claim's rename, seen by inotify), and until the daemon had acknowledged it, durable (its log line
read here). The scripts stage is held busy, so that what is measured is intake. BENCH_DIR chooses the file system.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask

TESTS = Path(__file__).resolve().parents[1] / "tests"
LIMIT_S = 120.0


class Seen:
    """When each file left input/."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}

    def on_event(self, event: InotifyEvent) -> None:
        """Note one file."""
        self.at[os.fsdecode(event.name)] = time.perf_counter()

    def on_watch_deleted(self, wd: int) -> None:
        """Nothing to do: the directory outlives the measurement."""

    def on_queue_overflow(self) -> None:
        """Say that the figures are not whole."""
        print("the kernel dropped events; figures are of the rest", file=sys.stderr)


def read_log(
    daemon: "subprocess.Popen[str]", noticed: dict[str, float], accepted: dict[str, float], ready: threading.Event
) -> None:
    """Note when each file was noticed and when it was acknowledged."""
    assert daemon.stderr
    for line in daemon.stderr:
        now = time.perf_counter()
        event = json.loads(line)
        if event.get("event") == "topicd.job.accepted":
            accepted[event["source"]] = now
            noticed[event["source"]] = now - (event["pickup_s"] or 0.0)
        elif event.get("event") == "topicd.daemon.ready":
            ready.set()


def drop(home: Path, count: int, a_second: float) -> dict[str, float]:
    """Rename files into input/ at a pace; return when each rename returned."""
    dropped: dict[str, float] = {}
    begun = time.perf_counter()
    for number in range(count):
        aside = home / "aside"
        aside.write_text(f"# Topic {number}\n\nSome guidance.\n")
        time.sleep(max(0.0, begun + number / a_second - time.perf_counter()))
        aside.rename(home / "input" / f"{number:06}.md")
        dropped[f"{number:06}.md"] = time.perf_counter()
    return dropped


def tell(what: str, dropped: dict[str, float], seen: dict[str, float]) -> None:
    """Print quantiles in milliseconds."""
    taken_ms = sorted((seen[name] - at) * 1e3 for name, at in dropped.items() if name in seen)
    cuts = statistics.quantiles(taken_ms, n=100)
    print(
        f"{what:<14} n={len(taken_ms)}  p50 {cuts[49]:.2f} ms  p90 {cuts[89]:.2f} ms  p99 {cuts[98]:.2f} ms"
        f"  max {taken_ms[-1]:.2f} ms"
    )


def main() -> None:
    """Measure once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--per-second", type=float, default=50.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        home = Path(folder)
        env = {
            **os.environ,
            "TOPICD_HOME": folder,
            "TOPICD_METRICS_PORT": "0",
            "TOPICD_SCRIPT_BACKEND": "fakes.backends:FakeScript",
            "PYTHONPATH": str(TESTS),
            "FAKE_SECONDS": "3600",
            "TOPICD_MIN_FREE_BYTES": "0",
        }
        command = [str(Path(sys.executable).with_name("topicd")), "run"]
        daemon = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        noticed: dict[str, float] = {}
        accepted: dict[str, float] = {}
        ready = threading.Event()
        reader = threading.Thread(target=read_log, args=(daemon, noticed, accepted, ready))
        reader.start()
        try:
            assert ready.wait(LIMIT_S), "the daemon is not ready"
            seen, watch = Seen(), InotifyFD()
            watch.start()
            watch.add_callback(
                os.fsencode(home / "input"), Mask(InotifyConstants.IN_MOVED_FROM), seen, CallbackId(id(seen))
            )
            dropped = drop(home, args.count, args.per_second)
            end = time.monotonic() + LIMIT_S
            while len(accepted) < args.count and time.monotonic() < end:
                time.sleep(0.05)
            watch.stop()
        finally:
            daemon.terminate()
            daemon.wait()
            reader.join()
        tell("noticed", dropped, noticed)
        tell("taken", dropped, seen.at)
        tell("acknowledged", dropped, accepted)


if __name__ == "__main__":
    main()
