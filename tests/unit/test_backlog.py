"""The jobs waiting in a stage, read in windows: which come when, what is remembered, and that nobody is forgotten."""

from collections.abc import Collection, Container
from dataclasses import replace
from pathlib import Path

import pytest

from topicd.backlog import SCAN_AGE_S, Backlog, Ready
from topicd.job import Job, encode
from topicd.spool import WINDOW_JOBS, Spool, Survey
from topicd.states import Stage

NOW_S = 1_800_000_000.0


class Counting(Spool):
    """A spool that counts how often a whole directory was read."""

    surveys = 0

    def survey(self, place: str, *, oldest: int = 0, newest: int = 0, skip: Container[str] = ()) -> Survey:
        self.surveys += 1
        return super().survey(place, oldest=oldest, newest=newest, skip=skip)


class Waiting:
    """A stage full of jobs, and its backlog."""

    def __init__(self, home: Path) -> None:
        self.spool = Counting(home=home, input_dir=home / "input", output_dir=home / "output")
        self.folder = self.spool.place(Stage.SCRIPTS)
        self.folder.mkdir(parents=True)
        self.now = NOW_S
        self.died = set[tuple[str, str]]()
        self.backlog = Backlog(self.spool, Stage.SCRIPTS, clock=lambda: self.now, died=self.died, published=set[str]())

    def add(self, number: int, *, not_before_s: float = 0.0, crashes: int = 0) -> str:
        name = f"20260101-000000-{number:06}-job"
        job = Job(name, "a.md", "ab", 1, "", 0.0, crashes={"scripts": crashes} if crashes else {})
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "topic.md").touch()
        (self.folder / name / "job.json").write_bytes(encode(replace(job, not_before_s=not_before_s)))
        return name

    def take(self, limit: int = 10, busy: Collection[str] = (), *, look: bool = True) -> Ready:
        return self.backlog.take(busy, limit, look=look)


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


def test_the_oldest_come_first_and_each_once_while_nobody_looks_again(waiting: Waiting) -> None:
    names = [waiting.add(number) for number in (3, 1, 2)]
    assert waiting.take(2) == ([names[1], names[2]], set(), None, False)
    assert waiting.take(2, look=False) == ([names[0]], set(), None, True)
    assert waiting.take(2, look=False).ids == []
    assert waiting.take(2, look=True).ids == [names[1], names[2]], "they are still there, and not busy"


def test_what_is_busy_is_left_out(waiting: Waiting) -> None:
    first, second = waiting.add(1), waiting.add(2)
    assert waiting.take(busy={first}).ids == [second]


def test_more_jobs_than_a_window_holds_are_all_given_oldest_first(waiting: Waiting) -> None:
    names = [waiting.add(number) for number in range(2 * WINDOW_JOBS + 5)]
    taken = list[str]()
    while (ready := waiting.take(50)).ids:
        taken += ready.ids
        for name in ready.ids:
            (waiting.folder / name).rename(waiting.folder.parent / name)
    assert taken == names
    assert waiting.spool.surveys <= 4


def test_a_job_that_comes_is_given_at_the_next_look(waiting: Waiting) -> None:
    assert waiting.take().ids == []
    name = waiting.add(1)
    assert waiting.take(look=False).ids == []
    assert waiting.take().ids == [name]


def test_an_old_scan_is_made_anew_at_a_look_so_that_a_job_put_back_is_not_missed(waiting: Waiting) -> None:
    for number in range(10, 10 + WINDOW_JOBS):
        waiting.add(number)
    waiting.take(1)
    old = waiting.add(1)
    assert old not in waiting.take(1).ids
    waiting.backlog._scanned_at -= SCAN_AGE_S
    assert waiting.take(1).ids == [old]


def test_a_window_of_deferred_jobs_is_not_in_the_way_of_those_behind_it(waiting: Waiting) -> None:
    for number in range(3 * WINDOW_JOBS):
        waiting.add(number, not_before_s=NOW_S + 60)
    ready = waiting.add(9_999_99)
    assert waiting.take(1).ids == [ready]
    assert waiting.take(1, busy={ready}) == ([], set(), NOW_S + 60, True)


def test_a_deferred_job_is_given_once_its_time_has_come(waiting: Waiting) -> None:
    name = waiting.add(1, not_before_s=NOW_S + 5)
    assert waiting.take() == ([], set(), NOW_S + 5, True)
    waiting.now += 4
    assert waiting.take(look=False).ids == []
    waiting.now += 1
    assert waiting.take(look=False) == ([name], set(), None, True)


def test_a_deferred_job_that_is_changed_is_looked_at_again(waiting: Waiting) -> None:
    name = waiting.add(1, not_before_s=NOW_S + 5)
    assert not waiting.take().ids
    (waiting.folder / name / "job.json").unlink()
    waiting.add(1)
    assert waiting.take().ids == [name]


def test_a_deferred_job_that_is_gone_is_forgotten(waiting: Waiting) -> None:
    name = waiting.add(1, not_before_s=NOW_S + 5)
    waiting.take()
    (waiting.folder / name).rename(waiting.folder.parent / name)
    assert waiting.take() == ([], set(), None, True)


def test_suspects_are_those_in_hand_at_a_death_and_those_with_crashes(waiting: Waiting) -> None:
    names = [waiting.add(1), waiting.add(2, crashes=1), waiting.add(3)]
    waiting.died.add((Stage.SCRIPTS, names[2]))
    assert waiting.take().suspects == {names[1], names[2]}


def test_more_junk_than_a_window_is_no_endless_loop(waiting: Waiting) -> None:
    for number in range(WINDOW_JOBS + 10):
        (waiting.folder / f"junk-{number:05}").mkdir()
    assert waiting.take() == ([], set(), None, False)
    assert waiting.spool.surveys <= 3
