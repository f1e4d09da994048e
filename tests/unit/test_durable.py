"""Durable files one call at a time: the old or the new, never a torn one, and nothing left behind."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from fakes.disk import Crash, CrashingDisk, FailingDisk, TracingDisk
from topicd.durable import TEMPORARY, Disk, Durable, free_bytes, told
from topicd.errors import StorageTrouble
from topicd.threads import offload


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class ShortWrites(Disk):
    """Writes seven bytes at a time, as a disk may."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:7])


class FailingClose(Disk):
    """Closes, and says that an earlier write has failed."""

    def close(self, fd: int) -> None:
        super().close(fd)
        raise OSError(errno.EIO, "late")


def publish(durable: Durable, source: Path, target: Path) -> None:
    durable.carry_out(durable.publishing(source, target))


class OtherFileSystem(Disk):
    """Refuses to rename a directory, as between two file systems."""

    def rename(self, source: Path, target: Path) -> None:
        if source.is_dir() and not source.name.startswith("."):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().rename(source, target)


@pytest.mark.parametrize("data", [b"", b"new", b"x" * 3_000_001])
def test_write_puts_all_bytes_in_place(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(b"old")
    Durable().write(tmp_path / "file", data)
    assert tree(tmp_path) == {"file": data}


def test_short_writes_are_gone_on_with(tmp_path: Path) -> None:
    Durable(ShortWrites()).write(tmp_path / "file", bytes(range(200)))
    assert tree(tmp_path) == {"file": bytes(range(200))}


def test_the_order_of_a_write(tmp_path: Path) -> None:
    disk = TracingDisk()
    Durable(disk).write(tmp_path / "file", b"new")
    assert [call.name for call in disk.calls] == ["create", "write", "fsync", "rename", "fsync"]
    assert disk.calls[1].file == disk.calls[2].file == disk.calls[3].file
    assert disk.calls[0].path.parent == tmp_path
    assert disk.calls[0].path.name.endswith(TEMPORARY)
    assert disk.calls[4].path == tmp_path


@pytest.mark.parametrize("call", ["create", "write", "fsync", "rename"])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EROFS, "read_only"),
        (errno.EIO, "io_error"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, call: str, error: int, cause: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageTrouble) as caught:
        Durable(FailingDisk(1, error, call)).write(tmp_path / "file", b"new")
    assert caught.value.cause == cause
    assert caught.value.hint
    assert tree(tmp_path) == {"file": b"old"}


def test_a_close_that_fails_is_a_write_that_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageTrouble):
        Durable(FailingClose()).write(tmp_path / "file", b"new")
    assert tree(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("error", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOENT, errno.EXDEV])
def test_an_error_that_does_not_blame_the_disk_stays_what_it_is(tmp_path: Path, error: int) -> None:
    with pytest.raises(OSError, match=os.strerror(error)):
        Durable(FailingDisk(1, error)).write(tmp_path / "file", b"new")
    assert tree(tmp_path) == {}


def test_told_names_the_file_when_it_is_known() -> None:
    with pytest.raises(StorageTrouble, match=r"here\.txt"), told():
        raise OSError(errno.ENOSPC, "full", "here.txt")
    with pytest.raises(StorageTrouble, match="the spool"), told():
        raise OSError(errno.ENOSPC, "full")


def test_a_death_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    disk = CrashingDisk(2, torn=True)
    with pytest.raises(Crash):
        Durable(disk).write(tmp_path / "file", b"0123456789")
    left = tree(tmp_path)
    assert left.pop("file") == b"old"
    assert list(left.values()) == [b"01234"]
    assert all(name.endswith(TEMPORARY) for name in left)


def test_a_write_does_not_follow_a_link_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "file").symlink_to(tmp_path / "precious")
    Durable().write(tmp_path / "file", b"new")
    assert tree(tmp_path) == {"precious": b"mine", "file": b"new"}
    assert not (tmp_path / "file").is_symlink()


def test_remove_takes_what_is_there_and_no_offence_at_what_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    Durable().remove(tmp_path / "file")
    Durable().remove(tmp_path / "file")
    assert tree(tmp_path) == {}


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A directory full of links to what is not its own, beside what must stay."""
    precious = tmp_path / "precious"
    (precious / "inner").mkdir(parents=True)
    (precious / "inner" / "file").write_bytes(b"mine")
    job = tmp_path / "job"
    (job / "audio").mkdir(parents=True)
    (job / "audio" / "001.wav").write_bytes(b"wav")
    (job / "audio" / "link").symlink_to(precious / "inner" / "file")
    (job / "folder").symlink_to(precious)
    (job / "nowhere").symlink_to("gone")
    os.mkfifo(job / "pipe")
    return job


def test_remove_tree_does_not_follow_links(linked: Path) -> None:
    Durable().remove_tree(linked)
    assert tree(linked.parent) == {"precious/inner/file": b"mine"}
    assert not linked.exists()


def test_remove_tree_of_a_link_removes_the_link(linked: Path) -> None:
    (linked.parent / "link").symlink_to(linked.parent / "precious")
    Durable().remove_tree(linked.parent / "link")
    assert not (linked.parent / "link").is_symlink()
    assert (linked.parent / "precious" / "inner" / "file").read_bytes() == b"mine"


def test_remove_tree_of_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    Durable().remove_tree(tmp_path / "gone")


def test_publish_to_another_file_system_leaves_links_and_pipes_out(linked: Path) -> None:
    target = linked.parent / "output"
    target.mkdir()
    publish(Durable(OtherFileSystem()), linked, target / "job")
    assert tree(target) == {"job/audio/001.wav": b"wav"}
    assert [path.name for path in (target / "job").iterdir()] == ["audio"]
    assert (linked.parent / "precious" / "inner" / "file").read_bytes() == b"mine"
    assert not linked.exists()


def test_publish_begins_anew_over_what_an_earlier_one_left(linked: Path) -> None:
    target = linked.parent / "output"
    (target / ".job.incoming").mkdir(parents=True)
    (target / ".job.incoming" / "torn").write_bytes(b"x")
    publish(Durable(OtherFileSystem()), linked, target / "job")
    assert tree(target) == {"job/audio/001.wav": b"wav"}


def test_publish_on_one_file_system_is_one_rename(linked: Path) -> None:
    disk = TracingDisk()
    before = linked.stat().st_ino
    publish(Durable(disk), linked, linked.parent / "done")
    assert [call.name for call in disk.calls if call.name != "fsync"] == ["rename"]
    assert (linked.parent / "done").stat().st_ino == before


def test_copy_file_copies_bytes_and_leaves_the_source(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 2_500_000)
    Durable().copy_file(tmp_path / "source", tmp_path / "target")
    assert tree(tmp_path) == {"source": b"x" * 2_500_000, "target": b"x" * 2_500_000}


def test_a_copy_of_what_is_gone_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Durable().copy_file(tmp_path / "source", tmp_path / "target")
    assert tree(tmp_path) == {}


def test_what_another_process_wrote_is_fsynced_before_it_has_its_name(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"new")
    (tmp_path / "file").write_bytes(b"old")
    disk = TracingDisk()
    Durable(disk).adopt(tmp_path / ".file.tmp", tmp_path / "file")
    assert [call.name for call in disk.calls] == ["fsync", "rename", "fsync"]
    assert disk.calls[0].file == disk.calls[1].file
    assert disk.calls[2].path == tmp_path
    assert tree(tmp_path) == {"file": b"new"}


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_what_cannot_be_taken_over_leaves_the_old_file(tmp_path: Path, call: str) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"new")
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(StorageTrouble):
        Durable(FailingDisk(1, errno.EIO, call)).adopt(tmp_path / ".file.tmp", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_what_cannot_be_taken_over_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / ".file.tmp").write_bytes(b"new")
    with pytest.raises(StorageTrouble):
        Durable(FailingDisk(1, errno.EIO, "fsync")).adopt(tmp_path / ".file.tmp", tmp_path / "file")
    assert tree(tmp_path) == {}


def test_sync_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        Durable().sync(tmp_path / "link")


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert abs(free_bytes(tmp_path) - found.f_bavail * found.f_frsize) < 1_000_000_000


class Work:
    """Blocking work that a test lets end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = False

    def run(self) -> str:
        self.begun.set()
        assert self.may_end.wait(10)
        self.ended = True
        return "done"


async def _cancelled(work: Work, times: int) -> asyncio.Task[str]:
    task = asyncio.create_task(offload(work.run))
    assert await asyncio.to_thread(work.begun.wait, 10)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return task


async def test_offloaded_work_gives_its_value_and_its_error() -> None:
    assert await offload(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await offload(divmod, 7, 0)


@pytest.mark.parametrize(
    "times",
    [1, 3],
)
async def test_cancelling_waits_for_the_end_of_the_work(times: int) -> None:
    work = Work()
    task = await _cancelled(work, times)
    before = task.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not before
    assert work.ended


async def test_an_error_of_cancelled_work_is_not_told_as_lost() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def fails() -> None:
        begun.set()
        assert may_end.wait(10)
        raise RuntimeError

    told_of = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told_of.append(context))
    task = asyncio.create_task(offload(fails))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told_of == []
