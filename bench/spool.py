"""The spool side by side with a SQLite state table, persist-queue and huey: jobs a second, ratios, fsyncs a job.

Each does the same durable work, in a process of its own, on one file system, in turn, so that what disturbs one
disturbs all; a figure is the median of the rounds, a ratio the median of each round's own. Fsyncs are counted, not
timed: by strace in a run of their own (less what an empty run makes), and for topicd also at its own seam; they are
what carries over to other disks. Then one lone transition of a job, alone and beside a process that writes 200 MB/s to
the same file system.

Runs on the directory BENCH_DIR (else the temporary one) and, where root allows, on a journaled ext4 of its own on a
loop device there. `python -m bench.spool`, in the top directory; `--quick` for a glance; `--all` for every variant.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench.rivals import Missing, package
from bench.spool_disk import NoMount, describe, journaled_ext4

TOP: Final = Path(__file__).resolve().parents[1]
LIMIT_S: Final = 300.0
SYNCS: Final = "fsync,fdatasync,syncfs,sync_file_range"
BASE: Final = "sqlite"
JOBS_MAX: Final = 8_000
JOBS_MIN: Final = 48
TRACED_JOBS_MIN: Final = 100
TRACED_RIVAL_JOBS: Final = 200
COUNTS_DIFFER_MAX: Final = 0.02
NEEDED: Final = {"persist-queue": "persistqueue", "huey": "huey"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a contestant with a number of jobs in flight.

    Attributes:
        is_everyday: whether it is run without `--all`.
    """

    name: str
    in_flight: int
    text: str
    is_everyday: bool = True

    @property
    def is_topicd(self) -> bool:
        """Whether it is the one that the others are rivals of."""
        return self.name.startswith("topicd")


ROWS: Final = (
    Row(BASE, 32, "SQLite table, 4 commits a job"),
    Row("sqlite-attempts", 32, "  attempts counted too, 7 commits"),
    Row("sqlite-writers", 32, "  4 commits, 4 writers"),
    Row("sqlite-grouped", 32, "  7 commits, each for all in flight", is_everyday=False),
    Row("sqlite-grouped", 256, "  7 commits, each for all in flight", is_everyday=False),
    Row("persist-queue", 32, "persist-queue"),
    Row("persist-queue-workers", 32, "  4 threads"),
    Row("huey", 32, "huey"),
    Row("huey-workers", 32, "  4 threads", is_everyday=False),
    Row("topicd", 1, "topicd"),
    Row("topicd", 32, "topicd"),
    Row("topicd", 256, "topicd"),
    Row("topicd-telemetry", 256, "  its log and metrics on"),
)


@dataclass(slots=True)
class Figures:
    """What was measured of one row."""

    a_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    own_fsyncs: list[float] = field(default_factory=list)
    traced_fsyncs: float | None = None
    traced_own: float | None = None

    def add(self, said: Mapping[str, Any]) -> None:
        """Take note of one run."""
        self.a_second.append(said["jobs"] / said["seconds"])
        self.cpu_ms.append(said["cpu_s"] * 1e3 / said["jobs"])
        if said["fsyncs"] is not None:
            self.own_fsyncs.append(said["fsyncs"] / said["jobs"])


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    rounds: int
    rounds_s_max: float
    run_s: float
    samples: int
    every_s: float


def run(row: Row, folder: Path, jobs: int, under: Sequence[str] = ()) -> dict[str, Any]:
    """Run one contestant once, in a fresh directory, and return what it said.

    The directory stays until all is measured: ext4 without a journal is slow to make files for minutes after many were
    removed, for it does not use their inodes again at once and searches past them.
    """
    options = ["--folder", tempfile.mkdtemp(dir=folder), "--jobs", str(jobs), "--in-flight", str(row.in_flight)]
    return said([*under, sys.executable, "-m", "bench.spool_one", row.name, *options])


def said(command: Sequence[str]) -> dict[str, Any]:
    """Run a process and return its one line of JSON."""
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def enough(row: Row, folder: Path, run_s: float) -> int:
    """Return how many jobs last about so many seconds."""
    tried = run(row, folder, max(JOBS_MIN, row.in_flight))
    jobs = int(tried["jobs"] / tried["seconds"] * run_s)
    return max(JOBS_MIN, min(jobs, JOBS_MAX), 2 * row.in_flight)


def can_trace() -> bool:
    """Tell whether strace is there and may trace."""
    if shutil.which("strace"):
        done = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True)
        if done.returncode == 0:
            return True
    print("    strace is not there, or may not trace: fsyncs are those of topicd's own seam")
    return False


def traced(row: Row, folder: Path, jobs: int) -> tuple[float, float | None]:
    """Return the fsyncs a job that strace counts, and those that the contestant counted in that same run."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts"
        under = ["strace", "-f", "--seccomp-bpf", "-c", "-o", str(out), "-e", f"trace={SYNCS}"]
        run(row, folder, 0, under)
        empty = calls(out.read_text())
        told = run(row, folder, jobs, under)
        own = None if told["fsyncs"] is None else told["fsyncs"] / jobs
        return (calls(out.read_text()) - empty) / jobs, own


def calls(summary: str) -> int:
    """Return the calls in a summary of strace."""
    lines = (line.split() for line in summary.splitlines())
    return sum(int(words[3]) for words in lines if words and words[-1] in SYNCS.split(","))


def race(rows: Sequence[Row], folder: Path, size: Size) -> dict[Row, Figures]:
    """Run every row, in turn, some rounds, and count its fsyncs."""
    jobs = {row: enough(row, folder, size.run_s) for row in rows}
    figures = {row: Figures() for row in rows}
    end = time.monotonic() + size.rounds_s_max
    for number in range(size.rounds):
        if number and time.monotonic() > end:
            break
        for row in rows:
            figures[row].add(run(row, folder, jobs[row]))
    if can_trace():
        for row in rows:
            count = max(TRACED_JOBS_MIN, 2 * row.in_flight) if row.is_topicd else TRACED_RIVAL_JOBS
            figures[row].traced_fsyncs, figures[row].traced_own = traced(row, folder, count)
    return figures


def show(figures: Mapping[Row, Figures]) -> None:
    """Print the table, and how it stands with the aims."""
    base = next(each for row, each in figures.items() if row.name == BASE)
    print(f"    {'':<36}in flight  jobs/s  x SQLite  fsyncs/job: strace  own seam   CPU ms/job")
    for row, each in figures.items():
        in_flight = row.in_flight if row.is_topicd or row.name == "sqlite-grouped" else "any"
        own = statistics.median(each.own_fsyncs) if each.own_fsyncs else None
        print(
            f"    {row.text:<36}{in_flight:>9}{statistics.median(each.a_second):>8,.0f}{ratio(each, base):>10.2f}"
            f"{number(each.traced_fsyncs):>20}{number(own):>10}{statistics.median(each.cpu_ms):>13.2f}"
        )
    spread = max(max(each.a_second) / min(each.a_second) for each in figures.values())
    print(f"    {len(base.a_second)} rounds; the fastest and the slowest of one line differ {spread:.2f} x at most")
    for row, each in figures.items():
        if each.traced_own and each.traced_fsyncs and abs(each.traced_fsyncs / each.traced_own - 1) > COUNTS_DIFFER_MAX:
            print(f"    {row.name}, {row.in_flight} in flight: in one run strace and the seam differ: {each}")
    print()
    show_aims(figures)


def ratio(figures: Figures, base: Figures) -> float:
    """Return how many times as fast as another: the median of the rounds, each against its own round."""
    return statistics.median(mine / its for mine, its in zip(figures.a_second, base.a_second, strict=True))


def show_aims(figures: Mapping[Row, Figures]) -> None:
    """Print each aim, what it came to, and whether it is met."""
    mine = {row.in_flight: each for row, each in figures.items() if row.name == "topicd"}
    for in_flight, name, aim in ((256, BASE, 4.5), (32, BASE, 2.5), (256, "persist-queue", 10), (256, "huey", 10)):
        forms = (name, f"{name}-workers", f"{name}-writers")
        ratios = [ratio(mine[in_flight], each) for row, each in figures.items() if row.name in forms]
        if ratios:
            text = f"{in_flight} in flight: x the fastest {name}"
            tell_aim(text, min(ratios), aim, is_met=min(ratios) >= aim, sign="≥")
    for in_flight, most in ((1, 6), (32, 3)):
        fsyncs = mine[in_flight].traced_fsyncs or statistics.median(mine[in_flight].own_fsyncs)
        tell_aim(f"{in_flight} in flight: fsyncs a job", fsyncs, most, is_met=round(fsyncs, 1) <= most, sign="≤")
    print()


def tell_aim(text: str, figure: float, aim: float, *, is_met: bool, sign: str) -> None:
    """Print one aim."""
    print(f"    aim {text:<50}{figure:>7.2f}  ({sign} {aim:g}: {'met' if is_met else 'missed'})")


def number(value: float | None) -> str:
    """Return a figure for the table."""
    return "-" if value is None else f"{value:.2f}"


@contextlib.contextmanager
def download(folder: Path, *options: str) -> Iterator[list[float]]:
    """Have a process write beside the block; yields a list that holds its megabytes a second after it."""
    command = [sys.executable, "-m", "bench.spool_writer", "--folder", str(folder), *options]
    writer = subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True)
    kept: list[float] = []
    try:
        assert writer.stdout
        assert writer.stdout.readline().strip() == "writing", "the writer did not begin"
        yield kept
        writer.terminate()
        kept.append(float(writer.communicate(timeout=LIMIT_S)[0]) / 1e6)
    finally:
        writer.kill()
        writer.wait()


def lone(folder: Path, size: Size) -> dict[str, Any]:
    """Measure lone transitions."""
    options = ["--folder", str(folder), "--samples", str(size.samples), "--every-s", str(size.every_s)]
    return said([sys.executable, "-m", "bench.spool_lone", *options])


def beside(folder: Path, size: Size) -> None:
    """Print lone transitions, alone and beside a download."""
    before = lone(folder, size)
    with download(folder) as plain_kept:
        plain = lone(folder, size)
    subprocess.run(["sync", "-f", folder], check=True)
    with download(folder, "--write-behind") as behind_kept:
        behind = lone(folder, size)
    after = lone(folder, size)
    alone = {verb: before[verb] + after[verb] for verb in before}
    print(f"    {'one lone transition, ms':<26}{'idle':>14}{'beside a download':>26}{'... with write-behind':>26}")
    print(f"    {'':<26}{'p50     p90':>14}{'p50     p90  x idle':>26}{'p50     p90  x idle':>26}")
    for verb, idle_ms in alone.items():
        both = "".join(f"{pair(each):>18}{ratio_of(each, idle_ms):>8}" for each in (plain[verb], behind[verb]))
        print(f"    {verb:<26}{pair(idle_ms):>14}{both}")
    print(
        f"    n = {size.samples}; the download kept {plain_kept[0]:.0f} MB/s, with write-behind {behind_kept[0]:.0f}\n"
    )


def pair(values_ms: Sequence[float]) -> str:
    """Return the median and the 90th percentile."""
    return f"{statistics.median(values_ms):.2f} {statistics.quantiles(values_ms, n=10)[8]:>7.2f}"


def ratio_of(values: Sequence[float], base: Sequence[float]) -> str:
    """Return the ratio of the medians."""
    return f"{statistics.median(values) / statistics.median(base):.2f}"


def present(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose packages are there, and say which are not."""
    missing = set()
    for name, module in NEEDED.items():
        try:
            package(module)
        except Missing as error:
            print(error)
            missing.add(name)
    return [row for row in rows if not any(row.name.startswith(name) for name in missing)]


def measure(rows: Sequence[Row], near: Path, size: Size, parts: Sequence[str]) -> None:
    """Run everything on one file system."""
    with tempfile.TemporaryDirectory(dir=near) as name:
        folder = Path(name)
        load, cores = os.getloadavg()[0], os.cpu_count()
        print(f"On {describe(folder)}; load average {load:.1f} on {cores} cores:\n", flush=True)
        if "race" in parts:
            show(race(rows, folder, size))
        if "lone" in parts:
            beside(folder, size)
        sys.stdout.flush()


def stop(number: int, _frame: FrameType | None) -> None:
    """Let SIGTERM unwind, so that what is mounted is unmounted."""
    raise SystemExit(f"ended by signal {number}")


def main() -> None:
    """Measure on each file system."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="one short round")
    options.add_argument("--all", action="store_true", help="every variant")
    options.add_argument("--on", choices=("both", "journaled", "here"), default="both", help="which file system")
    options.add_argument("--part", choices=("race", "lone"), action="append", help="only this part")
    args = options.parse_args()
    signal.signal(signal.SIGTERM, stop)
    near = Path(os.environ.get("BENCH_DIR") or tempfile.gettempdir())
    size = Size(1, 0.0, 0.4, 10, 0.3) if args.quick else Size(3, 40.0, 0.8, 12, 0.3)
    rows = present([row for row in ROWS if row.is_everyday or args.all])
    parts = args.part or ("race", "lone")
    if args.on != "here":
        try:
            with journaled_ext4(near) as mounted:
                measure(rows, mounted, size, parts)
        except NoMount as error:
            print(f"no journaled file system of its own: {error}\n")
    if args.on != "journaled":
        measure(rows, near, size, parts)


if __name__ == "__main__":
    main()
