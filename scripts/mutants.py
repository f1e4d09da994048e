#!/usr/bin/env python3
"""Plant every fault of tests/rig/faults.py and see that the test named for it fails. Prints a table.

Usage: mutants.py [WORD…], each a part of a fault's name; without, all of them. Fails when a fault survives, does not
fit, or when a test that should catch one does not pass without it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from rig.faults import FAULTS, Fault
from rig.trial import copy, places, plant, sources, try_out, verdict

SOUND_S = 480


class Row(NamedTuple):
    """What came of one fault."""

    name: str
    verdict: str
    seconds: float
    caught_by: str


def sound(tests: Sequence[str]) -> Row:
    """Run the tests on a package without a fault: one that fails anyhow would prove nothing."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="topicd-mutants-", ignore_cleanup_errors=True) as root:
        copy(Path(root))
        code, said = try_out(tests, Path(root), SOUND_S)
    last = said.strip().rpartition("\n")[2]
    told = "pass" if code == 0 and "skipped" not in last else f"no verdict: {last}"
    if told != "pass":
        sys.stderr.write(said)
    return Row("(none)", told, time.monotonic() - begun, f"all {len(tests)} of them")


def one(fault: Fault) -> Row:
    """Try one fault."""
    begun = time.monotonic()
    if len(found := places(fault, sources())) != 1:
        return Row(fault.name, f"fits {len(found)} times", 0.0, fault.caught_by)
    with tempfile.TemporaryDirectory(prefix="topicd-mutants-", ignore_cleanup_errors=True) as root:
        plant(fault, Path(root))
        told = verdict(*try_out([fault.caught_by], Path(root)))
    return Row(fault.name, told, time.monotonic() - begun, fault.caught_by)


def main() -> int:
    """Try what is asked for, two at a time."""
    words = sys.argv[1:]
    wanted = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    begun, bad = time.monotonic(), 0
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        trials = [pool.submit(sound, sorted({fault.caught_by for fault in wanted}))]
        trials += [pool.submit(one, fault) for fault in wanted]
        for trial in trials[1:] + trials[:1]:
            row = trial.result()
            bad += row.verdict not in {"caught", "pass"}
            print(f"{row.verdict:<10} {row.seconds:5.1f} s  {row.name:<75} {row.caught_by}", flush=True)  # noqa: T201
    print(f"{len(wanted)} faults, {bad} of them a hole in the tests, {time.monotonic() - begun:.0f} s")  # noqa: T201
    return 1 if bad or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
