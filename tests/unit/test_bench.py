import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0
RIVAL = """
import sys
from pathlib import Path
from bench.rivals import SqliteTable, topics
table = SqliteTable(workers=2, counts_attempts=True)
table.prepare(Path(sys.argv[1]), topics(20))
if sys.argv[2] != "nothing":
    table.run(4)
if sys.argv[2] == "one undone":
    table._connect().execute("UPDATE job SET state = 'images' WHERE id = 7")
table.check()
"""
STRACE = """
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    1.234567         567      2178           fsync
 10.00    0.100000         100        22         2 fdatasync
------ ----------- ----------- --------- --------- ----------------
100.00    1.334567         607      2200         2 total
"""


def python(*args: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("TOPICD_")}
    return subprocess.run(
        [sys.executable, *args], cwd=TOP, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def one(name: str, folder: Path, *, jobs: int, in_flight: int) -> dict[str, Any]:
    options = ["--folder", str(folder), "--jobs", str(jobs), "--in-flight", str(in_flight)]
    done = python("-m", "bench.spool_one", name, *options)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(("jobs", "in_flight"), [(3, 1), (24, 8)])
def test_the_spool_benchmark_takes_every_job_through_the_real_engine(tmp_path: Path, jobs: int, in_flight: int) -> None:
    said = one("topicd", tmp_path, jobs=jobs, in_flight=in_flight)
    assert said["jobs"] == jobs
    assert said["fsyncs"] >= jobs
    assert said["seconds"] > 0
    assert len(list((tmp_path / "output").iterdir())) == jobs


def test_a_run_without_jobs_costs_no_fsync_of_a_job(tmp_path: Path) -> None:
    assert one("topicd-telemetry", tmp_path, jobs=0, in_flight=4)["fsyncs"] == 0


@pytest.mark.parametrize(("what", "is_right"), [("all", True), ("nothing", False), ("one undone", False)])
def test_a_rival_that_has_not_done_the_work_is_found_out(tmp_path: Path, what: str, is_right: bool) -> None:  # noqa: FBT001 - a parameter of the test
    done = python("-c", RIVAL, str(tmp_path), what)
    assert (done.returncode == 0) is is_right
    assert ("AssertionError" in done.stderr) is not is_right


def test_the_calls_in_a_summary_of_strace_are_summed() -> None:
    done = python("-c", "import sys; from bench.spool import calls; print(calls(sys.argv[1]))", STRACE)
    assert done.stdout.strip() == "2200", done.stderr
