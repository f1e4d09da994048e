"""The gate and the store on real disks that fall ill: what closes it, what opens it, and what is said of it.

Full and read-only disks under each verb of the store are in `test_store_mounts`; running daemons in tests/acceptance.
"""

import asyncio
import errno
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fakes.disk import Crash, FailingDisk, SteppingDisk
from rig.disks import bound, ext4, full, need_root, read_only, tmpfs, without_inodes
from rig.events import until
from rig.pipeline import House, check_end, ends, settle
from topicd.durable import Disk, Durable, told_of
from topicd.errors import StorageTrouble
from topicd.gate import CALM_S, FREE_INODES_MIN, FRESH_S, LOOK_AGAIN_MAX_S, LOOK_AGAIN_S, StorageGate
from topicd.spool import DONE
from topicd.states import Stage
from topicd.telemetry.events import Event, Events

FULL = StorageTrouble("disk_full", "no space left", hint="free some")
WAIT_S = 20.0


class Kept:
    """A sink that keeps the names and causes of what it sees."""

    def __init__(self) -> None:
        self.told = list[str]()

    def see(self, event: Event) -> None:
        self.told.append(str(event.fields.get("cause", event.name)))


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Rig:
    """A gate whose time a test makes."""

    def __init__(
        self, root: Path, *, disk: Disk | None = None, output: Path | None = None, hang_s: float = WAIT_S
    ) -> None:
        self.clock = Clock()
        self.kept = Kept()
        self.gate = StorageGate(
            root=root,
            durable=Durable(disk),
            events=Events([self.kept]),
            min_free_bytes=0,
            output=output,
            hang_s=hang_s,
            clock=self.clock,
        )

    async def after(self, seconds: float) -> bool:
        """Ask, so many seconds later."""
        self.clock.now_s += seconds
        return await self.gate.storage_ready()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Where a small file system may be mounted."""
    need_root()
    return tmp_path / "small"


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


Harm = Callable[[Path], AbstractContextManager[object]]


@pytest.mark.parametrize(
    ("harm", "cause"), [(full, "disk_full"), (without_inodes, "disk_full"), (read_only, "read_only")]
)
@pytest.mark.parametrize("kind", [tmpfs, ext4])
async def test_an_ill_disk_closes_it_once_and_a_cured_one_opens_it(
    small: Path, tmp_path: Path, kind: Callable[..., AbstractContextManager[Path]], harm: Harm, cause: str
) -> None:
    with kind(small, tmp_path / "image") if kind is ext4 else kind(small):
        rig = Rig(small)
        assert await rig.after(0)
        with harm(small):
            rig.gate.tell(StorageTrouble(cause, "met by somebody"))
            for _ in range(5):
                assert not await rig.after(LOOK_AGAIN_S)
        assert await rig.after(LOOK_AGAIN_S)
    assert rig.kept.told == [cause, "storage.ok"]


async def test_a_disk_that_became_read_only_is_noticed_before_anybody_writes(small: Path) -> None:
    with tmpfs(small):
        rig = Rig(small)
        assert await rig.after(0)
        with read_only(small):
            assert not await rig.after(FRESH_S)
        assert await rig.after(LOOK_AGAIN_S)
    assert rig.kept.told == ["read_only", "storage.ok"]


async def test_few_inodes_are_noticed_before_they_run_out(small: Path) -> None:
    with tmpfs(small, inodes=FREE_INODES_MIN + 20):
        rig = Rig(small)
        assert await rig.after(0)
        for number in range(40):
            (small / f"{number}").touch()
        assert not await rig.after(FRESH_S)
        assert rig.gate.trouble
        assert "inodes" in rig.gate.trouble.message
        for number in range(40):
            (small / f"{number}").unlink()
        assert await rig.after(LOOK_AGAIN_S)


@pytest.mark.parametrize("harm", [full, without_inodes, read_only])
async def test_an_ill_output_on_its_own_disk_closes_it(small: Path, tmp_path: Path, harm: Harm) -> None:
    with tmpfs(small):
        (tmp_path / "spool").mkdir()
        rig = Rig(tmp_path / "spool", output=small)
        with harm(small):
            assert not await rig.after(0)
        assert await rig.after(LOOK_AGAIN_S)
        assert is_empty(small)
        assert is_empty(tmp_path / "spool")
    assert rig.kept.told[1:] == ["storage.ok"]


async def test_another_directory_in_its_place_is_not_written_to(small: Path) -> None:
    with tmpfs(small):
        rig = Rig(small)
        assert await rig.after(0)
        with tmpfs(small) as other:
            for _ in range(3):
                assert not await rig.after(LOOK_AGAIN_S)
            assert is_empty(other)
        assert await rig.after(LOOK_AGAIN_S)
    assert rig.kept.told == ["spool_replaced", "storage.ok"]


async def test_a_disk_that_fails_again_and_again_is_told_twice_and_tried_ever_more_rarely(tmp_path: Path) -> None:
    rig, waits_s = Rig(tmp_path), list[float]()
    assert await rig.after(0)
    for _ in range(10):
        rig.gate.tell(FULL)
        waits_s.append(0.0)
        while not await rig.after(LOOK_AGAIN_S):
            waits_s[-1] += LOOK_AGAIN_S
        assert waits_s[-1] < LOOK_AGAIN_MAX_S
    assert waits_s == sorted(waits_s)
    assert waits_s[-1] >= LOOK_AGAIN_MAX_S - 2 * LOOK_AGAIN_S
    assert rig.kept.told == ["disk_full", "storage.ok", "disk_full"]
    assert rig.gate.trouble, "after a relapse it is not said to be well at once"
    assert await rig.after(CALM_S)
    assert rig.kept.told[3:] == ["storage.ok"]
    assert rig.gate.trouble is None


async def test_trouble_long_after_the_last_is_new(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert await rig.after(0)
    for _ in range(3):
        rig.gate.tell(FULL)
        assert await rig.after(LOOK_AGAIN_S)
        await rig.after(CALM_S)
    assert rig.kept.told == ["disk_full", "storage.ok"] * 3


@pytest.mark.parametrize("fsync", [1, 2, 3])
async def test_a_proof_that_fails_leaves_nothing(tmp_path: Path, fsync: int) -> None:
    rig = Rig(tmp_path, disk=FailingDisk(fsync, errno.EIO, "fsync"))
    assert not await rig.after(0)
    assert is_empty(tmp_path)
    assert await rig.after(LOOK_AGAIN_S)
    assert rig.kept.told == ["io_error", "storage.ok"]


class HangingDisk(SteppingDisk):
    """Hangs in fsync while told to, and counts the files that are made."""

    def __init__(self) -> None:
        self.created = 0
        self.go = threading.Event()
        self.go.set()

    def step(self, call: str, *paths: Path) -> None:
        del paths
        self.created += call == "create"
        if call == "fsync":
            assert self.go.wait(WAIT_S)


async def test_a_disk_that_does_not_answer_closes_it_and_leaves_the_loop_alive(tmp_path: Path) -> None:
    disk = HangingDisk()
    rig = Rig(tmp_path, disk=disk, hang_s=0.1)
    disk.go.clear()
    asked = [asyncio.create_task(rig.gate.storage_ready()) for _ in range(5)]
    assert await asyncio.gather(*asked) == [False] * 5
    assert rig.kept.told == ["disk_hangs"]
    await until(lambda: disk.created, "the look's thread has come to the disk", WAIT_S)
    assert disk.created == 1, "one look for all who ask"
    disk.go.set()
    async with asyncio.timeout(WAIT_S):
        while not await rig.after(LOOK_AGAIN_S):  # noqa: ASYNC110 - the gate answers, it sets no event
            await asyncio.sleep(0.01)
    assert rig.kept.told == ["disk_hangs", "storage.ok"]
    assert is_empty(tmp_path)


async def test_trouble_met_during_a_look_is_not_undone_by_it(tmp_path: Path) -> None:
    disk = HangingDisk()
    rig = Rig(tmp_path, disk=disk)
    disk.go.clear()
    asked = asyncio.create_task(rig.gate.storage_ready())
    await asyncio.sleep(0)
    rig.gate.tell(FULL)
    disk.go.set()
    assert not await asked
    assert rig.gate.trouble
    assert rig.gate.trouble.message == FULL.message


async def test_what_the_daemon_does_about_a_disk_is_told_by_its_gate_only(tmp_path: Path) -> None:
    gate = Rig(tmp_path).gate
    gate.tell(told_of(OSError(errno.ENOSPC, "No space left on device")))
    assert gate.trouble
    assert gate.trouble.hint == "free some space; work goes on by itself"
    gate.tell(told_of(OSError(errno.EMFILE, "Too many open files")))
    assert "by itself" not in gate.trouble.hint


def test_a_read_only_home_can_be_opened(small: Path) -> None:
    with tmpfs(small):
        house = House(small)
        house.drop()
        with read_only(small):
            house.store().open()


@pytest.mark.parametrize("harm", [without_inodes, read_only])
def test_what_is_apart_is_known_on_an_ill_disk_too(small: Path, tmp_path: Path, harm: Harm) -> None:
    with tmpfs(small), bound(tmp_path / "elsewhere", tmp_path / "far"):
        house = House(small, tmp_path / "far")
        house.drop()
        with harm(small):
            store = house.store()
            assert store.is_input_apart
            assert store.is_output_apart


def test_a_published_job_is_known_on_a_disk_without_inodes(small: Path, tmp_path: Path) -> None:
    with tmpfs(small), bound(tmp_path / "elsewhere", tmp_path / "far"):
        house = House(small, tmp_path / "far")
        house.drop()
        leave_published(house)
        with without_inodes(small):
            house.store().recover()
            assert [found.place for found in house.jobs()] == [DONE]
        settle(house.store(), house)
        check_end(house)


class DyingDisk(SteppingDisk):
    """Dies when the first file of a published job is to be removed from the spool."""

    def step(self, call: str, *paths: Path) -> None:
        is_of_a_job = paths[0].parent.parent.name == Stage.IMAGES and paths[0].name != "reason.json"
        if call == "unlink" and is_of_a_job:
            raise Crash


def leave_published(house: House) -> None:
    """Publish a job by copy, and die before its source is removed (S6)."""
    with pytest.raises(Crash):
        ends(house.store(DyingDisk()), house)
    assert sorted(found.place for found in house.jobs()) == [Stage.IMAGES, DONE]
