"""What is told of the tree: when a job was last finished, which jobs have an age."""

import os
import time
from pathlib import Path

import pytest

from topicd.job import MANIFEST
from topicd.showing import DONE_LOOKED_AT, counts, last_done_s
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage

IDS = [f"20260101-{number:06}-000000-tides" for number in range(DONE_LOOKED_AT + 1)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(home=tmp_path, input_dir=tmp_path / "input", output_dir=tmp_path / "output")
    for place in (*SPOOL_PLACES, DONE):
        made.place(place).mkdir(parents=True)
    return made


def finish(spool: Spool, name: str, at_s: float) -> None:
    path = spool.place(DONE) / name / MANIFEST
    path.parent.mkdir()
    path.touch()
    os.utime(path, (at_s, at_s))


def test_the_last_success_is_the_latest_of_the_newest(spool: Spool) -> None:
    for at, name in enumerate(IDS):
        finish(spool, name, 1000.0 + at)
    os.utime(spool.place(DONE) / IDS[5] / MANIFEST, (5000.0, 5000.0))
    assert last_done_s(spool) == 5000


def test_no_more_than_the_newest_are_looked_at(spool: Spool) -> None:
    finish(spool, IDS[0], 5000.0)
    for name in IDS[1:]:
        finish(spool, name, 1000.0)
    assert last_done_s(spool) == 1000


def test_what_is_no_finished_job_tells_no_time(spool: Spool) -> None:
    assert last_done_s(spool) == 0
    (spool.place(DONE) / IDS[0]).mkdir()
    (spool.place(DONE) / "notes.txt").touch()
    assert last_done_s(spool) == 0
    finish(spool, IDS[1], 1000.0)
    assert last_done_s(spool) == 1000


def test_a_directory_that_cannot_be_read_stops_no_start(spool: Spool) -> None:
    spool.place(DONE).rmdir()
    assert last_done_s(spool) == 0
    spool.place(DONE).touch()
    assert last_done_s(spool) == 0


def test_a_clock_that_was_wrong_makes_no_success_to_come(spool: Spool) -> None:
    finish(spool, IDS[0], time.time() + 9999)
    assert last_done_s(spool) <= time.time()


def test_only_jobs_of_a_stage_have_an_age(spool: Spool) -> None:
    for place in (Stage.AUDIO, *Aside):
        path = spool.place(place) / IDS[0]
        path.mkdir()
        (path / "topic.md").touch()
    found = counts(spool, "run")
    assert {place: number for place, number in found.jobs.items() if number} == {"audio": 1, "failed": 1, "held": 1}
    assert found.oldest_s.keys() == {"audio"}
