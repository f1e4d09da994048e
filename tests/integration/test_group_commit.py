"""Group commit: nobody is acknowledged before the fsyncs it asked for, whatever becomes of those of the others."""

import asyncio
import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.disk import SteppingDisk
from topicd.commit import FSYNCS_MAX, GroupCommit
from topicd.durable import Durable, Steps
from topicd.errors import StorageTrouble

LIMIT_S = 20.0
CROWD = 3 * FSYNCS_MAX


class HoldingDisk(SteppingDisk):
    """Fsyncs of a file `first` wait until they are let go; those of a file `bad` fail."""

    def __init__(self) -> None:
        self.synced = list[Path]()
        self.holds = threading.Event()
        self.let_go = threading.Event()

    def step(self, call: str, *paths: Path) -> None:
        if call != "fsync":
            return
        (path,) = paths
        if path.name == "first":
            self.holds.set()
            assert self.let_go.wait(LIMIT_S)
        if path.name == "bad":
            raise OSError(errno.EIO, "Input/output error", str(path))
        self.synced.append(path)


class Crowd:
    """Works that come while an fsync is under way, so that they share the next round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disk = HoldingDisk()
        self.group = GroupCommit(Durable(self.disk))
        self.told = list[str]()

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.touch()
        return path

    def steps(self, *paths: Path) -> Steps[list[Path]]:
        """Ask for some paths. Returns those that were not on the disk when it went on."""
        try:
            yield paths
        except StorageTrouble:
            self.told.append(paths[0].name)
            raise
        return [path for path in paths if path not in self.disk.synced]

    async def run(self, *works: Steps[list[Path]]) -> list[list[Path] | BaseException]:
        first = asyncio.create_task(self.group.carry_out(self.steps(self.path("first"))))
        await until(self.disk.holds.is_set)
        tasks = [asyncio.create_task(self.group.carry_out(steps)) for steps in works]
        for _ in tasks:
            await asyncio.sleep(0)  # each has asked by now
        self.disk.let_go.set()
        async with asyncio.timeout(LIMIT_S):
            assert await first == []
            return await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


@pytest.fixture
def crowd(tmp_path: Path) -> Crowd:
    return Crowd(tmp_path)


async def test_nobody_goes_on_before_the_fsyncs_that_were_asked_for(crowd: Crowd) -> None:
    works = [crowd.steps(crowd.path(f"{number}"), crowd.folder) for number in range(CROWD)]
    assert await crowd.run(*works) == [[]] * CROWD


async def test_what_comes_together_shares_its_fsyncs(crowd: Crowd) -> None:
    own = [crowd.path(f"{number}") for number in range(CROWD)]
    await crowd.run(*[crowd.steps(path, crowd.folder) for path in own])
    assert all(crowd.disk.synced.count(path) == 1 for path in own)
    assert crowd.disk.synced.count(crowd.folder) < CROWD / 2


async def test_a_failed_fsync_is_told_to_all_who_asked_for_it_and_to_nobody_else(crowd: Crowd) -> None:
    bad, names = crowd.path("bad"), ("a", "b", "c")
    a, b, c = map(crowd.path, names)
    said = await crowd.run(crowd.steps(a, bad), crowd.steps(bad, b), crowd.steps(c))
    assert [isinstance(each, StorageTrouble) for each in said] == [True, True, False]
    assert sorted(crowd.told) == ["a", "bad"], "the work itself has been told, to undo what it did"
    assert await crowd.group.carry_out(crowd.steps(c)) == [], "and the next goes on"


def test_work_that_comes_later_is_done_too(crowd: Crowd) -> None:
    done = list[object]()

    async def one_after_another() -> None:
        for number in range(3):
            done.append(await crowd.group.carry_out(crowd.steps(crowd.path(f"{number}"))))

    # In a thread, for nothing in a loop can end the wait for work that is never done.
    thread = threading.Thread(target=lambda: asyncio.run(one_after_another()), daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert done == [[]] * 3


async def test_a_cancelled_caller_gets_the_result_and_then_its_cancellation(crowd: Crowd) -> None:
    got = list[object]()

    async def caller() -> None:
        got.append(await crowd.group.carry_out(crowd.steps(crowd.path("first"))))
        await asyncio.sleep(0)
        got.append("it went on")

    task = asyncio.create_task(caller())
    await until(crowd.disk.holds.is_set)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done(), "it waits for the end of its work"
    crowd.disk.let_go.set()
    await asyncio.wait([task], timeout=LIMIT_S)
    assert task.cancelled()
    assert got == [[]]
