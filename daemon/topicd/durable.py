"""Durable files: what is acknowledged is on the disk.

Owns the order of system calls in which files and directories are written, renamed and synchronised, and is the
only module that calls fsync. Promises that a function here returns only when a power cut can no longer take
back what it did, and that a reader sees the old file or the new one, never a torn one. A failed fsync is never
tried again on the same file: the kernel may have dropped the pages and said so once (Rebello et al., USENIX
ATC 2020), so the temporary file is thrown away and the error raised. Never decides what a file means.

A rename is one transaction on the file systems topicd is for, so it has arrived once the directory it went into was
fsynced; a directory's own entry arrives before anything is moved into it. What is done to a job is written as `Steps`,
so that many jobs can share the fsyncs (`commit.py`).

The calls that change the disk go through `Disk`, the one seam where a test can watch or break them.
"""

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from topicd.errors import StorageTrouble

TEMPORARY: Final = ".tmp"
INCOMING: Final = ".incoming"
COPY_BYTES: Final = 1_048_576

_STORAGE_CAUSES: Final = {
    errno.ENOSPC: ("disk_full", "free some space"),
    errno.EDQUOT: ("disk_full", "raise the quota or free some space"),
    errno.EROFS: ("read_only", "mount the file system writable"),
    errno.EMFILE: ("too_many_open_files", "raise the limit of open files (ulimit -n, LimitNOFILE=)"),
    errno.ENFILE: ("too_many_open_files", "the whole system has run out of open files"),
    errno.ENOMEM: ("out_of_memory", "give the daemon more memory"),
    errno.EAGAIN: ("too_many_processes", "raise the limit of processes (TasksMax=, pids_limit)"),
    errno.EIO: ("io_error", "look at the kernel's log: the disk may be failing"),
}

R = TypeVar("R")
Steps: TypeAlias = Generator[tuple[Path, ...], None, R]
"""Work that yields the files and directories to be fsynced before it goes on, and returns its result."""


def _no_follow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


class Disk:
    """The system calls that change the disk; a test's stand-in counts, cuts or breaks them."""

    def create(self, path: Path) -> int:
        """Create a file that must not exist and return its descriptor, open for writing (O_CREAT, O_EXCL)."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of the data and return how many bytes."""
        return os.write(fd, data)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file to a size in bytes."""
        os.ftruncate(fd, size)

    def fsync(self, fd: int) -> None:
        """Put a file's data, or a directory's entries, on the disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close; an error here is an error of an earlier write (close(2))."""
        os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, atomically for readers."""
        os.rename(source, target)  # noqa: PTH104 - one call, whatever is at the target

    def mkdir(self, path: Path) -> None:
        """Make one directory."""
        path.mkdir()

    def unlink(self, path: Path) -> None:
        """Remove one file."""
        path.unlink()

    def rmdir(self, path: Path) -> None:
        """Remove one empty directory."""
        path.rmdir()


class TimedDisk(Disk):
    """The same, and says how many seconds each fsync took.

    Args:
        told: may be called from any thread.
    """

    def __init__(self, told: Callable[[float], None]) -> None:
        self._told = told

    def fsync(self, fd: int) -> None:
        """Put a file's data, or a directory's entries, on the disk."""
        began = time.perf_counter()
        try:
            super().fsync(fd)
        finally:
            self._told(time.perf_counter() - began)


def is_storage_trouble(error: OSError) -> bool:
    """Tell whether an error blames the disk or a shortage: full, read-only, failing, no more descriptors."""
    return error.errno in _STORAGE_CAUSES


class told:  # noqa: N801 - used as a function; a generator would cost more, at every system call
    """Turn an errno that blames the disk into `StorageTrouble`; let every other OSError through. See `told_of`."""

    def __init__(self, where: Path | None = None) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and is_storage_trouble(error):
            raise told_of(error, self._where) from error


def told_of(error: OSError, where: Path | None = None) -> StorageTrouble:
    """Return the trouble that an error of the disk, or a shortage in this process, is; `where` if it names no file."""
    cause, hint = _STORAGE_CAUSES[error.errno or 0]
    where = where.parent if where and where.name.endswith(TEMPORARY) else where
    return StorageTrouble(cause, f"{error.strerror}: {error.filename or where or 'the spool'}", hint=hint)


class Durable:
    """Writes, renames and removals that have reached the disk when they return."""

    def __init__(self, disk: Disk | None = None) -> None:
        self._disk = disk or Disk()

    def carry_out(self, steps: Steps[R]) -> R:
        """Take work through its steps, alone."""
        try:
            wanted = next(steps)
            while True:
                try:
                    self.sync(*wanted)
                except BaseException as error:  # noqa: BLE001 - the work decides what its failure means
                    wanted = steps.throw(error)
                else:
                    wanted = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def write(self, path: Path, data: bytes) -> None:
        """Put a file in place: temporary file, fsync, rename, fsync of the directory.

        Raises:
            StorageTrouble: the disk is full, read-only or failing; nothing is left behind.
            OSError: anything else, such as a directory that is gone.
        """
        self.carry_out(self.writing(path.parent, {path.name: data}))

    def writing(self, folder: Path, files: Mapping[str, bytes]) -> Steps[None]:
        """Do as `write`, in steps, with any number of files of one directory."""
        temporaries = {name: folder / f".{name}.{secrets.token_hex(4)}{TEMPORARY}" for name in files}
        with told():
            try:
                for name, data in files.items():
                    self.fill(temporaries[name], data)
                yield tuple(temporaries.values())
                for name, temporary in temporaries.items():
                    self._disk.rename(temporary, folder / name)
            except BaseException:
                for temporary in temporaries.values():
                    self._discard(temporary)
                raise
        yield (folder,)

    def fill(self, path: Path, data: bytes = b"") -> None:
        """Write a new file, and leave every fsync to the caller."""
        with told(path):
            fd = self._disk.create(path)
            try:
                self._write_all(fd, data)
            finally:
                self._disk.close(fd)

    def opened(self, path: Path) -> int:
        """Open a file that grows by `append`, and make it where it is not there; the caller closes it."""
        with told():
            try:
                return self._disk.create(path)
            except FileExistsError:
                return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    def append(self, fd: int, data: bytes) -> None:
        """Write all of it where the file's position is, and leave the fsync to the caller."""
        with told():
            self._write_all(fd, data)

    def cut(self, fd: int, size: int) -> None:
        """Cut a file and go on at its new end; leave the fsync to the caller."""
        with told():
            self._disk.truncate(fd, size)
            os.lseek(fd, size, os.SEEK_SET)

    def adopt(self, temporary: Path, target: Path) -> None:
        """Put a file in place that another process wrote beside it: fsync, rename, fsync of the directory."""
        try:
            self.sync(temporary)
            self.rename_only(temporary, target)
        except BaseException:
            self._discard(temporary)
            raise
        self.sync(target.parent)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or directory within a file system, and fsync the directory it went into."""
        self.rename_only(source, target)
        self.sync(target.parent)

    def rename_only(self, source: Path, target: Path) -> None:
        """Rename, and leave the fsync to the caller."""
        with told():
            self._disk.rename(source, target)

    def mkdir(self, path: Path) -> None:
        """Make one directory whose entry is on the disk."""
        with told():
            self._disk.mkdir(path)
        self.sync(path.parent)

    def mkdir_only(self, path: Path) -> None:
        """Make one directory, and leave the fsync of its parent to the caller."""
        with told():
            self._disk.mkdir(path)

    def sync(self, *paths: Path) -> None:
        """Put files' data or directories' entries on the disk."""
        for path in paths:
            with told(path):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    self._disk.fsync(fd)
                finally:
                    os.close(fd)

    def copy_file(self, source: Path, target: Path) -> None:
        """Copy a file's bytes to a new file on another file system, fsynced; the entry is the caller's to sync."""
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")
        with told():
            try:
                self._copy(source, temporary)
                self._disk.rename(temporary, target)
            except BaseException:
                self._discard(temporary)
                raise

    def publishing(self, source: Path, target: Path) -> Steps[None]:
        """Move a finished directory, across file systems if it must be; it appears whole, or not at all.

        On one file system it is a rename. Across two (EXDEV; two bind mounts of one disk count) it is copied to
        `.NAME.incoming` beside the target, fsynced, renamed, and only then removed at its source.
        """
        try:
            self.rename_only(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            yield (target.parent,)
            return
        incoming = target.with_name(f".{target.name}{INCOMING}")
        self.remove_tree(incoming)
        with told():
            self._copy_tree(source, incoming)
            self._disk.rename(incoming, target)
        yield (target.parent,)
        with contextlib.suppress(OSError, StorageTrouble):  # it is published; what is left goes at the next look
            self.remove_tree(source)

    def unlink(self, path: Path) -> None:
        """Remove a file, and leave the fsync of its directory to the caller."""
        with told():
            self._disk.unlink(path)

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there, and make that last."""
        with told(), contextlib.suppress(FileNotFoundError):
            self._disk.unlink(path)
            self.sync(path.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it, if it is there. Symbolic links in it are removed, not followed."""
        if path.is_symlink():
            self.remove(path)
        if not path.is_dir():
            return
        with told():
            for folder, directories, files in os.walk(path, topdown=False):
                for name in files:
                    self._disk.unlink(Path(folder, name))
                for name in directories:
                    entry = Path(folder, name)
                    (self._disk.unlink if entry.is_symlink() else self._disk.rmdir)(entry)
            self._disk.rmdir(path)
        self.sync(path.parent)

    def _write_all(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._disk.write(fd, rest) :]

    def _copy(self, source: Path, target: Path) -> None:
        fd = self._disk.create(target)
        try:
            with open(source, "rb", buffering=0, opener=_no_follow) as file:
                while block := file.read(COPY_BYTES):
                    self._write_all(fd, block)
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)

    def _copy_tree(self, source: Path, target: Path) -> None:
        self._disk.mkdir(target)
        with os.scandir(source) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.is_dir(follow_symlinks=False):
                    self._copy_tree(Path(entry), target / entry.name)
                elif entry.is_file(follow_symlinks=False):
                    self._copy(Path(entry), target / entry.name)
        self.sync(target)

    def _discard(self, temporary: Path) -> None:
        with contextlib.suppress(OSError):
            self._disk.unlink(temporary)


def free_bytes(path: Path) -> int:
    """Return the bytes that an unprivileged process may still write there."""
    return shutil.disk_usage(path).free
