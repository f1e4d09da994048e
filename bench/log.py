"""What the log costs: the spool benchmark with every event written as JSON to nowhere, beside the same without.

Each round is one run of either, in a process of its own, in turn; what is printed is the median of the rounds' ratios,
of CPU seconds and of wall seconds. Each job has seven events at info level. BENCH_DIR chooses the file system.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
LIMIT_S = 300.0


def run(name: str, jobs: int) -> dict[str, Any]:
    """Run one of them, and return what it printed."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        command = [sys.executable, "-m", "bench.spool_one", name, "--folder", folder]
        command += ["--jobs", str(jobs), "--in-flight", "256"]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--jobs", type=int, default=4000)
    args = options.parse_args()
    pairs = []
    for number in range(args.rounds):
        names = ("topicd", "topicd-log") if number % 2 else ("topicd-log", "topicd")
        both = {name: run(name, args.jobs) for name in names}
        pairs.append((both["topicd"], both["topicd-log"]))
    for key, text in (("cpu_s", "CPU seconds"), ("seconds", "wall seconds")):
        ratios = sorted(log[key] / none[key] for none, log in pairs)
        none, log = (statistics.median(each[at][key] for each in pairs) for at in (0, 1))
        print(
            f"{text:<13} without {none:.2f}  with {log:.2f}  ratio {statistics.median(ratios):.3f}"
            f"  (quarters {ratios[len(ratios) // 4]:.3f}, {ratios[3 * len(ratios) // 4]:.3f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
