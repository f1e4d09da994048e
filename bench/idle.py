"""The idle daemon: CPU seconds an hour and resident memory, with the embedded backends set up and nothing to do.

Measures for a minute (--seconds) after the daemon is ready, and again after one job has been done and the workers have
gone, from /proc.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
TOPICD = Path(sys.executable).with_name("topicd")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, at the finest grain there is."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 + threads_s(pid)


def threads_s(pid: int) -> float:
    """Return the CPU seconds of its other threads."""
    others = (path for path in Path(f"/proc/{pid}/task").iterdir() if path.name != str(pid))
    return sum(int((path / "schedstat").read_text().split()[0]) / 1e9 for path in others)


def resident_mb(pid: int) -> float:
    """Return the resident megabytes of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def measure(what: str, pid: int, seconds: float) -> None:
    """Print what a process costs while nothing happens."""
    before = cpu_s(pid)
    time.sleep(seconds)
    a_hour = (cpu_s(pid) - before) * 3600 / seconds
    print(f"{what:<22} {a_hour:.2f} CPU s/h  {resident_mb(pid):.1f} MB resident  {len(children(pid))} workers")


def main() -> None:
    """Measure once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=60.0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TOPICD_HOME": folder, "TOPICD_METRICS_PORT": "0", "TOPICD_WORKER_IDLE_S": "5"}
        with (Path(folder) / "log").open("wb") as log:
            daemon = subprocess.Popen([str(TOPICD), "run"], env=env, stderr=log)
        try:
            wait_for(folder, "daemon.ready")
            measure("after the start", daemon.pid, args.seconds)
            subprocess.run([str(TOPICD), "add", str(TOP / "examples" / "tides.md")], env=env, check=True, stdout=-3)
            wait_for(folder, "job.done")
            time.sleep(7)
            measure("after one job", daemon.pid, args.seconds)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def wait_for(folder: str, event: str, limit_s: float = 180.0) -> None:
    """Wait until the daemon's log has an event."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        lines = (Path(folder) / "log").read_text().splitlines()
        if any(json.loads(line).get("event") == f"topicd.{event}" for line in lines if line.endswith("}")):
            return
        time.sleep(0.1)
    raise SystemExit(f"no {event} within {limit_s:g} s")


if __name__ == "__main__":
    main()
