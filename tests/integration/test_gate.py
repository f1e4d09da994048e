"""The disk as a gate: real writes on real file systems, told once, open again by itself."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fakes.disk import SteppingDisk
from topicd.durable import Durable, free_bytes
from topicd.errors import StorageTrouble
from topicd.gate import LOOK_AGAIN_S, StorageGate
from topicd.telemetry.events import Event, Events

LIMIT_S = LOOK_AGAIN_S + 60.0


class Kept:
    """A sink that keeps what it sees."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def see(self, event: Event) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]


class CountingDisk(SteppingDisk):
    """Counts the files that are created, and breaks it when told to."""

    def __init__(self) -> None:
        self.created = 0
        self.error: OSError | None = None

    def step(self, call: str, *paths: Path) -> None:
        del paths
        self.created += call == "create"
        if self.error and call == "create":
            raise self.error


class Rig:
    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self.disk = CountingDisk()
        self.kept = Kept()
        self.gate = StorageGate(
            root=root, durable=Durable(self.disk), events=Events([self.kept]), min_free_bytes=min_free_bytes
        )

    async def opens(self) -> None:
        end = time.monotonic() + LIMIT_S
        while not await self.gate.storage_ready():
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def test_a_disk_that_is_well_is_proved_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for _ in range(5):
        assert await rig.gate.storage_ready()
    assert rig.disk.created == 1
    assert not rig.kept.names
    assert is_empty(tmp_path)


async def test_too_little_space_is_told_once_and_opens_again(tmp_path: Path) -> None:
    free = free_bytes(tmp_path)
    rig = Rig(tmp_path, min_free_bytes=free * 2)
    for _ in range(5):
        assert not await rig.gate.storage_ready()
    assert rig.kept.names == ["storage.trouble"]
    fields = rig.kept.events[0].fields
    assert fields["cause"] == "disk_low"
    assert f"{free * 2:,}" in str(fields["error"])
    rig.gate._min_free_bytes = 0
    await rig.opens()
    assert rig.kept.names == ["storage.trouble", "storage.ok"]
    assert rig.gate.trouble is None


async def test_trouble_that_somebody_had_closes_it_until_a_write_succeeds(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert await rig.gate.storage_ready()
    rig.disk.error = OSError(28, "No space left on device", "x")
    for _ in range(3):
        rig.gate.tell(StorageTrouble("disk_full", "no space left", hint="free some"))
    assert not await rig.gate.storage_ready()
    created = rig.disk.created
    for _ in range(50):
        assert not await rig.gate.storage_ready()
    assert rig.disk.created == created, "it is not tried at every question"
    await until_tried(rig, created)
    assert rig.gate.trouble
    rig.disk.error = None
    await rig.opens()
    assert rig.kept.names == ["storage.trouble", "storage.ok"]


async def until_tried(rig: Rig, created: int) -> None:
    end = time.monotonic() + LIMIT_S
    while rig.disk.created == created:
        assert time.monotonic() < end
        assert not await rig.gate.storage_ready()
        await asyncio.sleep(0.05)


async def test_another_cause_is_told_as_well(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for cause in ("disk_full", "disk_full", "io_error"):
        rig.gate.tell(StorageTrouble(cause, cause))
    assert [event.fields["cause"] for event in rig.kept.events] == ["disk_full", "io_error"]


@pytest.mark.parametrize("number", [5, 28, 30, 122])
async def test_what_blames_the_disk_is_a_pause(tmp_path: Path, number: int) -> None:
    rig = Rig(tmp_path)
    rig.disk.error = OSError(number, os.strerror(number), "x")
    assert not await rig.gate.storage_ready()
    assert rig.gate.trouble
    assert rig.gate.trouble.hint
    assert is_empty(tmp_path)


def gone(root: Path) -> Callable[[], object]:
    root.rename(root.with_name("away"))
    return lambda: root.with_name("away").rename(root)


def a_file(root: Path) -> Callable[[], object]:
    root.rename(root.with_name("away"))
    root.write_text("")

    def mend() -> None:
        root.unlink()
        root.with_name("away").rename(root)

    return mend


@pytest.mark.parametrize("harm", [gone, a_file])
async def test_a_spool_that_goes_away_is_a_pause_too(
    tmp_path: Path, harm: Callable[[Path], Callable[[], object]]
) -> None:
    root = tmp_path / "spool"
    root.mkdir()
    rig = Rig(root)
    mend = harm(root)
    assert not await rig.gate.storage_ready()
    assert rig.kept.names == ["storage.trouble"]
    mend()
    await rig.opens()
    assert rig.kept.names == ["storage.trouble", "storage.ok"]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    there = tmp_path / "mounted"
    there.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", there], timeout=30, check=False).returncode:
        pytest.skip("this root may not mount")
    yield there
    subprocess.run(["umount", "--lazy", there], timeout=30, check=True)


def fill(folder: Path) -> Path:
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return folder / "filler"


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], timeout=30, check=True)


def full(folder: Path) -> Callable[[], object]:
    return fill(folder).unlink


def read_only(folder: Path) -> Callable[[], object]:
    remount(folder, "ro")
    return lambda: remount(folder, "rw")


@pytest.mark.parametrize(("harm", "cause"), [(full, "disk_full"), (read_only, "read_only")])
async def test_a_real_disk_in_trouble_closes_it_and_opens_it(
    mount: Path, harm: Callable[[Path], Callable[[], object]], cause: str
) -> None:
    rig = Rig(mount)
    mend = harm(mount)
    assert not await rig.gate.storage_ready()
    assert rig.gate.trouble
    assert rig.gate.trouble.cause == cause
    mend()
    await rig.opens()
    assert rig.kept.names == ["storage.trouble", "storage.ok"]


async def test_many_that_ask_at_once_get_one_answer(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    questions: list[Awaitable[bool]] = [rig.gate.storage_ready() for _ in range(20)]
    assert all(await asyncio.gather(*questions))
    assert is_empty(tmp_path)
