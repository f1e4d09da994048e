"""One contestant of the spool benchmark in a process of its own, so that nothing of another is in its time.

Prints one line of JSON: the jobs, the seconds they took, the CPU seconds, and the fsyncs it counted itself, if it does.
"""

import argparse
import json
import resource
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from bench.rivals import Contestant, Huey, PersistQueue, SqliteTable, topics
from bench.spool_engine import Topicd

WORKERS: Final = 4
CONTESTANTS: Final[Mapping[str, Callable[[], Contestant]]] = {
    "sqlite": SqliteTable,
    "sqlite-writers": partial(SqliteTable, workers=WORKERS),
    "sqlite-attempts": partial(SqliteTable, counts_attempts=True),
    "sqlite-grouped": partial(SqliteTable, counts_attempts=True, grouped=True),
    "persist-queue": PersistQueue,
    "persist-queue-workers": partial(PersistQueue, workers=WORKERS),
    "huey": Huey,
    "huey-workers": partial(Huey, workers=WORKERS),
    "topicd": Topicd,
    "topicd-log": partial(Topicd, with_log=True),
    "topicd-telemetry": partial(Topicd, with_log=True, with_metrics=True),
}


def cpu_s() -> float:
    """Return the CPU seconds of this process so far, in user and kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run it once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=CONTESTANTS)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--jobs", type=int, required=True)
    options.add_argument("--in-flight", type=int, required=True)
    args = options.parse_args()
    contestant = CONTESTANTS[args.name]()
    contestant.prepare(args.folder, topics(args.jobs))
    subprocess.run(["sync", "-f", args.folder], check=True)
    cpu, begun = cpu_s(), time.perf_counter()
    contestant.run(args.in_flight)
    seconds, cpu = time.perf_counter() - begun, cpu_s() - cpu
    contestant.check()
    print(json.dumps({"jobs": args.jobs, "seconds": seconds, "cpu_s": cpu, "fsyncs": contestant.fsyncs}))


if __name__ == "__main__":
    main()
