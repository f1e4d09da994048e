"""The demo: seconds from topic to folder, peak memory of the daemon and of each worker, with warm disk caches."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
TOPICD = Path(sys.executable).with_name("topicd")


def peak_mb(pid: int) -> float:
    """Return the peak resident megabytes of a process."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def label(pid: int) -> str:
    """Return what a process of ours is."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    target = next((word.decode() for word in words if b":" in word and b"topicd" in word), "")
    return target.rpartition(":")[2] or "daemon"


def main() -> None:
    """Run one job and print what it took."""
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "TOPICD_HOME": folder, "TOPICD_METRICS_PORT": "0"}
        (Path(folder) / "input").mkdir()
        (Path(folder) / "input" / "tides.md").write_bytes((TOP / "examples" / "tides.md").read_bytes())
        began = time.monotonic()
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            daemon = subprocess.Popen([str(TOPICD), "run", "--once"], env=env, stderr=log)
            while daemon.poll() is None:
                note(daemon.pid, peaks)
                time.sleep(0.05)
        seconds = time.monotonic() - began
        events = [json.loads(line) for line in log_path.read_text().splitlines()]
        stages = {each["stage"]: each["seconds"] for each in events if each["event"] == "topicd.stage.finished"}
    print(f"topic to folder, start and end of the daemon included: {seconds:.1f} s")
    print("  " + ", ".join(f"{stage} {stage_s:.1f} s" for stage, stage_s in stages.items()))
    print("peak resident: " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in peaks.items()))


def note(pid: int, peaks: dict[str, float]) -> None:
    """Note the peaks of a daemon and its workers, as far as they are there."""
    try:
        for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
            peaks[label(each)] = max(peaks.get(label(each), 0.0), peak_mb(each))
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    main()
