"""A scrape of a spool with many jobs: how long it takes, and how long the daemon's loop stands still meanwhile.

The jobs wait in scripts/ before a backend that is busy with one. What is printed: the seconds of each scrape, and of
requests to /healthz, which are answered on the loop alone, made at the same time and without any scrape.
"""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.backlog import TESTS, fill

UP_S = 120.0
SIZES = (10, 1_000, 100_000)


def got(connection: http.client.HTTPConnection, path: str) -> float:
    """Ask once; return the seconds."""
    begun = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    return time.perf_counter() - begun


@contextlib.contextmanager
def daemon(home: Path) -> Iterator[http.client.HTTPConnection]:
    """Run one on a home; yield a way to ask it."""
    env = {
        **os.environ,
        "TOPICD_HOME": str(home),
        "TOPICD_METRICS_PORT": "0",
        "TOPICD_LOG_FORMAT": "json",
        "TOPICD_MIN_FREE_BYTES": "0",
        "TOPICD_SCRIPT_BACKEND": "fakes.backends:FakeScript",
        "TOPICD_AUDIO_BACKEND": "fakes.backends:FakeAudio",
        "TOPICD_IMAGE_BACKEND": "fakes.backends:FakeImage",
        "PYTHONPATH": str(TESTS),
        "FAKE_SECONDS": "3600",
    }
    command = [str(Path(sys.executable).with_name("topicd")), "run"]
    process = subprocess.Popen(command, env=env, cwd=home, stderr=subprocess.DEVNULL)
    try:
        yield http.client.HTTPConnection("127.0.0.1", _port(home, process), timeout=UP_S)
    finally:
        process.terminate()
        process.wait()


def _port(home: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + UP_S
    while time.monotonic() < end:
        assert process.poll() is None
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            return int(json.loads((home / "spool" / ".lock").read_text())["port"])
        time.sleep(0.1)
    raise AssertionError("it does not listen")


def beside(connection: http.client.HTTPConnection, scrapes: int) -> tuple[list[float], list[float]]:
    """Scrape while another asks /healthz all the time; return the seconds of both."""
    other = http.client.HTTPConnection(connection.host, connection.port, timeout=UP_S)
    is_over = threading.Event()
    health: list[float] = []

    def ask() -> None:
        while not is_over.is_set():
            health.append(got(other, "/healthz"))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        return [got(connection, "/metrics") for _ in range(scrapes)], health
    finally:
        is_over.set()
        thread.join()


def told(seconds: list[float]) -> str:
    """Return the median and the worst, milliseconds."""
    return f"{1000 * statistics.median(seconds):7.1f} {1000 * max(seconds):7.1f}"


def main() -> None:
    """Measure each number of jobs, growing one home."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scrapes", type=int, default=50)
    args = options.parse_args()
    print("  jobs     scrape alone    scrape, /healthz  /healthz, scraped  /healthz alone   (ms: median, worst)")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        home, made = Path(folder), 0
        for size in SIZES:
            fill(home, made, size)
            made = size
            with daemon(home) as connection:
                got(connection, "/metrics")
                alone = [got(connection, "/metrics") for _ in range(args.scrapes)]
                quiet = [got(connection, "/healthz") for _ in range(10 * args.scrapes)]
                scraped, health = beside(connection, args.scrapes)
            print(f"{size:>7}  {told(alone)}  {told(scraped)}  {told(health)}  {told(quiet)}", flush=True)


if __name__ == "__main__":
    main()
