"""A backlog: how soon a daemon works, and what it holds, with 10 to a million jobs waiting in scripts/.

Makes the jobs (and says how long that took), starts the daemon several times on each number and prints medians with
the page cache warm: seconds from the start of the process until it was ready and until the first job had begun,
durable, and the resident memory then. --max chooses how far to go: a million needs some 3 million inodes and 8 GB.
BENCH_DIR chooses the file system.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1] / "tests"
SIZES = (10, 1_000, 100_000, 1_000_000)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC = b"# A topic\n\nSome guidance.\n"
LINKS_MAX = 50_000  # of one inode on ext4: 65,000


class Start(NamedTuple):
    """What one start cost."""

    ready_s: float
    work_s: float
    resident_mb: float


def make_job(folder: Path, number: int, topic: Path) -> None:
    """Make one waiting job. Its topic is a hard link: what is measured is directories and `job.json`."""
    accepted = FIRST + timedelta(milliseconds=number)
    job = folder / f"{accepted:%Y%m%d-%H%M%S-%f}-a-topic"
    job.mkdir()
    (job / "topic.md").hardlink_to(topic)
    values = {
        "id": job.name,
        "source": f"{number}.md",
        "sha256": hashlib.sha256(TOPIC).hexdigest(),
        "bytes": len(TOPIC),
        "accepted": accepted.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "accepted_s": accepted.timestamp(),
        "attempts": {},
        "crashes": {},
        "not_before_s": 0.0,
        "last_error": None,
        "source_left": None,
    }
    (job / "job.json").write_text(json.dumps(values, indent=1) + "\n")


def fill(home: Path, start: int, end: int) -> None:
    """Make jobs number `start` to `end`."""
    folder = home / "spool" / "scripts"
    folder.mkdir(parents=True, exist_ok=True)
    topic = home / "none"
    for number in range(start, end):
        if number == start or number % LINKS_MAX == 0:
            topic = home / f"topic-{number}"
            topic.write_bytes(TOPIC)
        make_job(folder, number, topic)


def resident_mb(pid: int) -> float:
    """Return the resident megabytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def start(home: Path, env: dict[str, str]) -> Start:
    """Start the daemon, wait for the first job to begin, stop it; the job is given back."""
    begun = time.perf_counter()
    command = [str(Path(sys.executable).with_name("topicd")), "run"]
    daemon = subprocess.Popen(command, env=env, cwd=home, stderr=subprocess.PIPE, text=True)
    ready_s = 0.0
    try:
        assert daemon.stderr
        for line in daemon.stderr:
            if '"topicd.daemon.ready"' in line:
                ready_s = time.perf_counter() - begun
            elif '"topicd.stage.started"' in line:
                return Start(ready_s, time.perf_counter() - begun, resident_mb(daemon.pid))
        raise AssertionError(f"it ended with {daemon.wait()} before the first job had begun")
    finally:
        daemon.terminate()
        daemon.communicate()


def main() -> None:
    """Measure each number of jobs, growing one home."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--max", type=int, default=100_000)
    options.add_argument("--runs", type=int, default=3)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        home, made = Path(folder), 0
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
        for size in (size for size in SIZES if size <= args.max):
            begun = time.perf_counter()
            fill(home, made, size)
            made_s, made = time.perf_counter() - begun, size
            start(home, env)  # warms the cache
            runs = [start(home, env) for _ in range(args.runs)]
            ready_s, work_s, mb = (statistics.median(column) for column in zip(*runs, strict=True))
            print(
                f"{size:>9} waiting  ready {ready_s:.2f} s  first work {work_s:.2f} s  resident {mb:.1f} MB"
                f"  (made in {made_s:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
