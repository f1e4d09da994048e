"""What waits in a stage, read in windows: all of it is given, the oldest first, none later than need be."""

import shutil
from pathlib import Path

import pytest

from topicd.backlog import Backlog
from topicd.job import Job, encode
from topicd.spool import WINDOW_JOBS, Spool
from topicd.states import Stage

NAME = "20260101-000000-000000-sea"


class Waiting:
    """A stage's directory, and a clock that is put forward."""

    def __init__(self, home: Path) -> None:
        self.spool = Spool(home=home, input_dir=home / "input", output_dir=home / "output")
        self.now = 1e9
        self.folder = self.spool.place(Stage.AUDIO)
        self.folder.mkdir(parents=True)
        self.backlog = Backlog(self.spool, Stage.AUDIO, clock=lambda: self.now, died={}, published=set())

    def put(self, name: str, not_before_s: float | None = None) -> str:
        """Put a job there; without a time, one whose job.json a power cut took."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        (path / "topic.md").touch()
        if not_before_s is not None:
            job = Job(name, "sea.md", "", 0, "", 1e9, attempts={"audio": 1}, not_before_s=not_before_s)
            (path / "new").write_bytes(encode(job))
            (path / "new").rename(path / "job.json")
        return name

    def take(self, limit: int = 9, *, look: bool = False) -> list[str]:
        return self.backlog.take((), limit, look=look).ids


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


def test_more_jobs_than_a_window_holds_are_all_given_oldest_first(waiting: Waiting) -> None:
    names = [waiting.put(f"20260101-000000-{number:06}-sea") for number in reversed(range(WINDOW_JOBS + 10))]
    given = list[str]()
    for _ in range(9):
        ready = waiting.backlog.take((), WINDOW_JOBS // 3, look=False)
        given += ready.ids
        for name in ready.ids:
            shutil.rmtree(waiting.folder / name)
        if ready.is_all:
            break
    assert given == sorted(names)


def test_a_window_of_deferred_jobs_is_not_in_the_way_of_those_behind_it(waiting: Waiting) -> None:
    for number in range(WINDOW_JOBS + 10):
        waiting.put(f"20250101-000000-{number:06}-sea", waiting.now + 10)
    waiting.put(NAME)
    assert waiting.take(look=True) == [NAME]


def test_a_job_that_comes_is_given_at_the_next_look(waiting: Waiting) -> None:
    assert waiting.take(look=True) == []
    waiting.put(NAME)
    assert waiting.take(look=False) == []
    assert waiting.take(look=True) == [NAME]


def test_a_deferred_job_is_given_once_its_time_has_come(waiting: Waiting) -> None:
    waiting.put(NAME, waiting.now + 10)
    assert waiting.take(look=True) == []
    waiting.now += 9
    assert waiting.take() == []
    waiting.now += 1
    assert waiting.take() == [NAME]


def test_a_deferred_job_that_is_changed_is_looked_at_again(waiting: Waiting) -> None:
    waiting.put(NAME, waiting.now + 10)
    assert waiting.take(look=True) == []
    waiting.put(NAME, 0.0)
    assert waiting.take(look=True) == [NAME]
