"""Group commit: what is acknowledged has been fsynced, work shares its fsyncs, and one that fails is told to all."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from topicd.commit import GroupCommit
from topicd.durable import Disk, Durable, Steps
from topicd.errors import StorageTrouble

LIMIT_S = 20.0


class Gate(Disk):
    """A disk whose fsyncs wait until they are let through, and are noted."""

    def __init__(self) -> None:
        self.synced = list[str]()
        self.open = threading.Event()
        self.entered = threading.Event()
        self.fails: Callable[[str], bool] = lambda _: False

    def fsync(self, fd: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        self.entered.set()
        assert self.open.wait(LIMIT_S)
        self.synced.append(name)
        if self.fails(name):
            raise OSError(5, os.strerror(5), name)


def asking(*paths: Path) -> Steps[int]:
    yield paths
    return len(paths)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.mkdir()
    return paths


async def entered(disk: Gate) -> None:
    assert await asyncio.to_thread(disk.entered.wait, LIMIT_S)


async def test_nothing_is_acknowledged_before_its_fsync(folders: list[Path]) -> None:
    disk = Gate()
    group = GroupCommit(Durable(disk))
    task = asyncio.create_task(group.carry_out(asking(folders[0])))
    await entered(disk)
    await asyncio.sleep(0.05)
    assert not task.done()
    disk.open.set()
    assert await task == 1
    assert disk.synced == ["a"]


async def test_what_arrives_meanwhile_shares_the_next_round(folders: list[Path]) -> None:
    disk = Gate()
    group = GroupCommit(Durable(disk))
    first = asyncio.create_task(group.carry_out(asking(folders[0])))
    await entered(disk)
    others = [asyncio.create_task(group.carry_out(asking(*folders[:2]))) for _ in range(50)]
    await asyncio.sleep(0.05)
    disk.open.set()
    await asyncio.gather(first, *others)
    assert disk.synced.count("a") <= 3, "the first alone, then all the others together"
    assert disk.synced.count("b") <= 2


async def test_a_failed_fsync_is_told_to_all_who_asked_for_that_path_and_to_nobody_else(folders: list[Path]) -> None:
    disk = Gate()
    disk.fails = lambda name: name == "b"
    group = GroupCommit(Durable(disk))
    first = asyncio.create_task(group.carry_out(asking(folders[0])))
    await entered(disk)
    asked = [(folders[1],), (folders[0], folders[1]), (folders[2],), (folders[0],)]
    others = [asyncio.create_task(group.carry_out(asking(*paths))) for paths in asked]
    await asyncio.sleep(0.05)
    disk.open.set()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [isinstance(result, StorageTrouble) for result in results] == [False, True, True, False, False]


async def test_work_that_raises_spoils_nobody_elses(folders: list[Path]) -> None:
    def raising() -> Steps[None]:
        yield (folders[0],)
        raise ZeroDivisionError

    disk = Gate()
    disk.open.set()
    group = GroupCommit(Durable(disk))
    works = [group.carry_out(raising()), *(group.carry_out(asking(folders[0])) for _ in range(9))]
    results = await asyncio.gather(*works, return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1:] == [1] * 9


async def test_a_cancelled_caller_has_the_result_and_is_cancelled_at_its_next_wait(folders: list[Path]) -> None:
    disk = Gate()
    group = GroupCommit(Durable(disk))
    told = list[int]()

    async def caller() -> None:
        told.append(await group.carry_out(asking(folders[0])))
        await asyncio.sleep(LIMIT_S)

    task = asyncio.create_task(caller())
    await entered(disk)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done(), "it waits for the end of what it began"
    disk.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == [1]


async def test_steps_are_taken_in_their_order_however_many_go_together(tmp_path: Path) -> None:
    disk = Gate()
    disk.open.set()
    group = GroupCommit(Durable(disk))
    seen = dict[int, list[int]]()

    def climbing(number: int) -> Steps[int]:
        for step in range(5):
            seen.setdefault(number, []).append(step)
            yield (tmp_path,)
        return number

    results = await asyncio.gather(*(group.carry_out(climbing(number)) for number in range(100)))
    assert results == list(range(100))
    assert set(map(tuple, seen.values())) == {(0, 1, 2, 3, 4)}
    assert len(disk.synced) < 250, "a hundred share what would be five hundred"
