"""A burst: many topics moved into input/ of a running daemon at once, until the last is acknowledged, durable.

Prints, from the first rename: when the last topic was in, how many were accepted a second, when the last was, and the
daemon's resident memory before, at its peak and after. The scripts stage is held busy, so that what is measured is
intake. BENCH_DIR chooses the file system. Ends with 1 when any was not accepted, or twice.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
START_LIMIT_S = 60.0


class Log:
    """What the daemon says, and when; read as it comes."""

    def __init__(self, daemon: "subprocess.Popen[str]") -> None:
        self.accepted: Counter[str] = Counter()
        self.overflows = 0
        self.last_at = 0.0
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(daemon,))
        self._thread.start()

    def _read(self, daemon: "subprocess.Popen[str]") -> None:
        assert daemon.stderr
        for line in daemon.stderr:
            if '"topicd.job.accepted"' in line:
                self.last_at = time.perf_counter()
                self.accepted[json.loads(line)["source"]] += 1
            elif '"topicd.watcher.overflowed"' in line:
                self.overflows += 1
            elif '"topicd.daemon.ready"' in line:
                self.ready.set()

    def join(self) -> None:
        """Wait for the end of the log."""
        self._thread.join()


def resident_mb(pid: int, key: str = "VmRSS") -> float:
    """Return the resident megabytes of a process; `VmHWM` is the peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def prepare(home: Path, count: int) -> list[tuple[str, str]]:
    """Write the topics beside input/; return where each is and where it goes."""
    aside = home / "aside"
    aside.mkdir()
    for number in range(count):
        (aside / f"{number:06}.md").write_text(f"# Topic {number}\n\nSome guidance.\n")
    return [(str(path), str(home / "input" / path.name)) for path in aside.iterdir()]


def burst(home: Path, count: int, pid: int, log: Log, limit_s: float) -> None:
    """Move everything in and print the figures."""
    moves = prepare(home, count)
    before_mb = resident_mb(pid)
    begun = time.perf_counter()
    for source, target in moves:
        os.rename(source, target)  # noqa: PTH104 - as fast as it goes
    moved_s = time.perf_counter() - begun
    while log.accepted.total() < count and time.perf_counter() < begun + limit_s:
        time.sleep(0.05)
    taken_s = log.last_at - begun
    print(f"moved in      {count} topics in {moved_s:.2f} s")
    print(f"accepted      {len(log.accepted)} of {count}, the last after {taken_s:.2f} s, {log.overflows} overflows")
    print(f"rate          {len(log.accepted) / taken_s:.0f} accepted a second")
    peak_mb, after_mb = resident_mb(pid, "VmHWM"), resident_mb(pid)
    print(f"resident      {before_mb:.1f} MB before, {peak_mb:.1f} MB at the peak, {after_mb:.1f} MB after")


def main() -> int:
    """Measure once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--limit-s", type=float, default=600.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        env = {
            **os.environ,
            "TOPICD_HOME": folder,
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
        daemon = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        log = Log(daemon)
        try:
            assert log.ready.wait(START_LIMIT_S), "the daemon is not ready"
            burst(Path(folder), args.count, daemon.pid, log, args.limit_s)
        finally:
            daemon.terminate()
            daemon.wait()
            log.join()
        return int(log.accepted.total() != args.count or len(log.accepted) != args.count)


if __name__ == "__main__":
    sys.exit(main())
