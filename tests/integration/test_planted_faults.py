"""Faults planted on purpose: each one is caught by the tests that are there for it.

A fault is a change of text, made in a copy of the package that only the tests under trial import. The text is looked
for in the whole package and must be there just once: a fault that no longer fits fails here, and is planted anew.
`FAULTS` is plain data: whatever wants to plant these and more can take it from here.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import topicd

PACKAGE = Path(topicd.__file__).parent
TESTS = Path(__file__).resolve().parents[1]
LIMIT_S = 60
QUICKLY = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")


class Fault(NamedTuple):
    """A fault and what must catch it.

    Attributes:
        name: what the faulty program does.
        old: the text that is right, found in the package once.
        new: the text that is wrong.
        caught_by: the test, as pytest names it.
    """

    name: str
    old: str
    new: str
    caught_by: str


CRASH = "integration/test_store_crash.py::"
TRACE = "integration/test_store_trace.py::"
POISON = "integration/test_store_poison.py::"
DEATHS = f"{CRASH}test_a_death_anywhere_costs_at_most_the_unit_in_hand"
RENAMES = f"{TRACE}test_every_verb_returns_with_its_renames_on_the_disk"

FAULTS = (
    Fault(
        "claim by copy and unlink",
        "self._durable.rename_only(source, target)",
        "(self._durable.copy_file(source, target), self._durable.unlink(source))",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "recovery deletes jobs without job.json",
        "        for path in spool.output.glob(",
        "        for path in map(spool.place(Stage.SCRIPTS).joinpath, spool.ids(Stage.SCRIPTS)):\n"
        "            if not (path / files.JOB).exists():\n"
        "                self.durable.remove_tree(path)\n"
        "        for path in spool.output.glob(",
        "integration/test_store_verbs.py::test_a_job_without_job_json_is_no_rubbish",
    ),
    Fault(
        "no recovery",
        "        layout.sweep(spool)\n",
        "        return []\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "attempts not counted before the work",
        "        self._save(path, job)\n        return Begun(",
        "        return Begun(",
        f"{POISON}test_each_death_in_the_work_is_counted_and_costs_no_attempt",
    ),
    Fault(
        "deaths not counted",
        "crashes += self.begun.run != run",
        "crashes += 0",
        f"{POISON}test_after_the_last_death_allowed_the_job_fails_and_is_not_begun_again",
    ),
    Fault(
        "the directory a job came to not synced",
        "self.sync(source.parent, *([target.parent] if target.parent != source.parent else []))",
        "self.sync(source.parent)",
        RENAMES,
    ),
    Fault(
        "the directory a topic came from not synced",
        "self._durable.sync(path, source.parent)",
        "self._durable.sync(path)",
        RENAMES,
    ),
    Fault(
        "a new job's own directory entry not synced",
        "            self._durable.sync(path.parent)\n",
        "",
        f"{CRASH}test_what_was_claimed_survives_a_power_cut",
    ),
    Fault(
        "a file's directory not synced",
        "        self.place(path, data)\n        self.sync(path.parent)\n",
        "        self.place(path, data)\n",
        f"{CRASH}test_an_attempt_that_was_begun_survives_a_power_cut",
    ),
    Fault(
        "a file renamed before its bytes are synced",
        "            self._write_all(fd, data)\n            self._disk.fsync(fd)\n",
        "            self._write_all(fd, data)\n",
        f"{CRASH}test_a_unit_that_was_kept_survives_a_power_cut",
    ),
    Fault(
        "what another process wrote not synced",
        "        self.sync(temporary)\n",
        "",
        f"{CRASH}test_a_stage_that_was_finished_survives_a_power_cut[audio]",
    ),
    Fault(
        "the topic's bytes not synced",
        "            self._durable.sync(target)\n",
        "            pass\n",
        f"{CRASH}test_what_was_claimed_survives_a_power_cut",
    ),
    Fault(
        "job.json written in place, past the disk",
        "        self.durable.write(path / files.JOB, files.encode(job))\n",
        "        (path / files.JOB).write_bytes(files.encode(job))\n",
        f"{TRACE}test_job_json_is_replaced_and_never_written_in_place[begin]",
    ),
    Fault(
        "every file written in place",
        "                self._fill(temporary, data)\n                self._disk.rename(temporary, path)\n",
        "                path.unlink(missing_ok=True)\n                self._fill(path, data)\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a failed fsync tried again",
        "            self._write_all(fd, data)\n            self._disk.fsync(fd)\n",
        "            self._write_all(fd, data)\n"
        "            try:\n                self._disk.fsync(fd)\n"
        "            except OSError:\n                self._disk.fsync(fd)\n",
        f"{TRACE}test_a_failed_fsync_is_not_tried_again_on_the_same_file[straight]",
    ),
    Fault(
        "an entry in the manifest before its product",
        "        self._durable.write(self._target(path), data)\n",
        "        self._target(path)\n",
        f"{DEATHS}[straight]",
    ),
    Fault(
        "a product taken for whole by its size alone",
        "_hash(path) == (entry.sha256, entry.bytes)",
        "_hash(path)[1] == entry.bytes",
        "unit/test_workspace.py::test_what_is_harmed_does_not_count[changed]",
    ),
    Fault(
        "ids as the clock has it",
        "self._last_id_us = max(int(now * 1_000_000), self._last_id_us + 1)",
        "self._last_id_us = int(now * 1_000_000)",
        "integration/test_store_claim.py::test_ids_sort_by_acceptance_whatever_the_clock_does",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    plant(fault, tmp_path)
    trial = try_out(fault.caught_by, tmp_path)
    assert trial.returncode == pytest.ExitCode.TESTS_FAILED, f"not caught: {trial.stdout[-2000:]}"
    assert " failed" in trial.stdout.splitlines()[-1], trial.stdout[-2000:]


def test_without_a_fault_the_copy_passes(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "topicd", ignore=shutil.ignore_patterns("__pycache__"))
    trial = try_out("integration/test_store_verbs.py::test_begin_counts_before_the_work", tmp_path)
    assert trial.returncode == pytest.ExitCode.OK, trial.stdout[-2000:]


def plant(fault: Fault, root: Path) -> None:
    """Put a copy of the package with the fault into a directory."""
    shutil.copytree(PACKAGE, root / "topicd", ignore=shutil.ignore_patterns("__pycache__"))
    texts = {path: path.read_text(encoding="utf-8") for path in (root / "topicd").rglob("*.py")}
    (module,) = [path for path, text in texts.items() for _ in range(text.count(fault.old))]
    module.write_text(texts[module].replace(fault.old, fault.new), encoding="utf-8")


def try_out(test: str, root: Path) -> subprocess.CompletedProcess[str]:
    """Run a test against the package in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", *QUICKLY, str(TESTS / test)],
        env={**os.environ, "PYTHONPATH": str(root), "HYPOTHESIS_STORAGE_DIRECTORY": str(root / "hypothesis")},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
