"""Stand-ins for `durable.Disk`: they die, fail, watch, or lose power at a chosen call.

Each does the real thing on real files until its moment comes.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from topicd.durable import Disk

Identity = tuple[int, int]


class Crash(BaseException):
    """The process is dead. No handler of `Exception` sees it, as none sees a SIGKILL."""


class SteppingDisk(Disk):
    """Announces each call before it happens; closing changes nothing and is not announced."""

    def step(self, call: str, *paths: Path) -> None:
        """Take note of a call, or raise instead of it."""
        raise NotImplementedError

    def create(self, path: Path) -> int:
        self.step("create", path)
        return super().create(path)

    def write(self, fd: int, data: memoryview) -> int:
        self.step("write", _path(fd))
        return super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self.step("fsync", _path(fd))

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename", source, target)
        super().rename(source, target)

    def mkdir(self, path: Path) -> None:
        self.step("mkdir", path)
        super().mkdir(path)

    def unlink(self, path: Path) -> None:
        self.step("unlink", path)
        super().unlink(path)

    def rmdir(self, path: Path) -> None:
        self.step("rmdir", path)
        super().rmdir(path)


class CrashingDisk(SteppingDisk):
    """Dies before its n-th call, or, torn, in the middle of that write; a dead process makes no further call.

    It does not really fsync: what a killed process has written, the kernel keeps.

    Args:
        at: which call, counted from 1; 0 for none.
        torn: whether half of the buffer is written first, where that call is a write.
    """

    def __init__(self, at: int = 0, *, torn: bool = False) -> None:
        self.at = at
        self.torn = torn
        self.calls = list[str]()
        self.dead = False

    def step(self, call: str, *paths: Path) -> None:  # noqa: ARG002 - the paths are for its heirs
        if self.dead:
            raise Crash
        self.calls.append(call)
        if len(self.calls) == self.at:
            self.dead = True
            self.die()
            raise Crash

    def die(self) -> None:
        """What else happens at the moment of death."""

    def write(self, fd: int, data: memoryview) -> int:
        try:
            return super().write(fd, data)
        except Crash:
            if self.torn and len(self.calls) == self.at:
                os.write(fd, data[: len(data) // 2])
            raise


class FailingDisk(SteppingDisk):
    """Answers its n-th call with an error, once, and works before and after; it does not really fsync.

    Args:
        at: which call, counted from 1 among those of the kind; 0 for none.
        error: the errno.
        call: which kind of call; empty for any.
    """

    def __init__(self, at: int, error: int, call: str = "") -> None:
        self.at = at
        self.error = error
        self.call = call
        self.seen = 0
        self.failed: tuple[str, Identity] | None = None
        self.after = list[tuple[str, Identity | None]]()

    def step(self, call: str, *paths: Path) -> None:
        if self.failed:
            self.after.append((call, identity(paths[0])))
        if self.call in ("", call):
            self.seen += 1
            if self.seen == self.at:
                self.failed = (call, identity(paths[0]) or (0, 0))
                raise OSError(self.error, os.strerror(self.error), str(paths[0]))


class Call(NamedTuple):
    """One call as it was made.

    Attributes:
        name: of the method.
        path: what it was about; a rename's source.
        target: a rename's target.
        file: device and inode of what it was about.
        parents: device and inode of the directories whose entries it changed.
        into: of the one that must be fsynced for it to last: where a rename went, else the only one.
    """

    name: str
    path: Path
    target: Path | None
    file: Identity | None
    parents: frozenset[Identity]
    into: Identity | None


class TracingDisk(SteppingDisk):
    """Records every call, and really does it."""

    def __init__(self) -> None:
        self.calls = list[Call]()

    def step(self, call: str, *paths: Path) -> None:
        parents = [] if call in ("write", "fsync") else [_identity_of(each.parent) for each in paths]
        target, into = paths[1] if paths[1:] else None, parents[-1] if parents else None
        self.calls.append(Call(call, paths[0], target, identity(paths[0]), frozenset(parents), into))

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        os.fsync(fd)


@dataclass(slots=True)
class _Change:
    """A change of directory entries that a power cut may undo."""

    parents: frozenset[Identity]
    undo: Callable[[], None]
    durable: bool = False


@dataclass(slots=True)
class _Directory:
    """A directory by descriptor: it stays the same when it is renamed."""

    fds: dict[Identity, int] = field(default_factory=dict)

    def of(self, path: Path) -> int:
        """Return a descriptor of a directory."""
        key = _identity_of(path)
        if key not in self.fds:
            self.fds[key] = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        return self.fds[key]


class PowerDisk(CrashingDisk):
    """Loses power at its n-th call: all that was not fsynced is gone, as far as a journalling file system allows.

    An entry lasts once its directory was fsynced after it; a rename, which is one transaction, once either of its
    directories was. A file's bytes last once the file was fsynced; else it is empty. This is the loss of everything
    that may be lost, not of every subset of it.
    """

    def __init__(self, at: int = 0) -> None:
        super().__init__(at)
        self._changes = list[_Change]()
        self._directories = _Directory()
        self._unsynced = dict[Identity, int]()

    def unsynced(self, path: Path) -> None:
        """Tell it of a file that somebody else wrote and did not fsync."""
        fd = os.open(path, os.O_WRONLY)
        self._unsynced[_identity_of(path)] = fd

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._note(path, undo=lambda parent: os.unlink(path.name, dir_fd=parent))
        self._unsynced[_identity_of(path)] = os.dup(fd)
        return fd

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        found = os.fstat(fd)
        key = (found.st_dev, found.st_ino)
        if stat.S_ISDIR(found.st_mode):
            for change in self._changes:
                change.durable = change.durable or key in change.parents
        elif key in self._unsynced:
            os.close(self._unsynced.pop(key))

    def rename(self, source: Path, target: Path) -> None:
        old = target.read_bytes() if target.is_file() else None
        # Named while both parents are sure to be there: the rename may move one of them.
        there, here = self._directories.of(target.parent), self._directories.of(source.parent)
        parents = frozenset((_identity_of(source.parent), _identity_of(target.parent)))
        super().rename(source, target)

        def undo() -> None:
            os.rename(target.name, source.name, src_dir_fd=there, dst_dir_fd=here)
            if old is not None:
                _write(target.name, old, there)

        self._changes.append(_Change(parents, undo))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._note(path, undo=lambda parent: shutil.rmtree(path.name, dir_fd=parent))

    def unlink(self, path: Path) -> None:
        data = path.read_bytes() if path.is_file() else b""
        super().unlink(path)
        self._note(path, undo=lambda parent: _write(path.name, data, parent))

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._note(path, undo=lambda parent: os.mkdir(path.name, dir_fd=parent))

    def die(self) -> None:
        for change in reversed(self._changes):
            if not change.durable:
                with contextlib.suppress(FileNotFoundError):  # its directory was lost before it
                    change.undo()
        for fd in self._unsynced.values():
            os.ftruncate(fd, 0)
        self.close_all()

    def cut(self) -> None:
        """Lose power now."""
        self.dead = True
        self.die()

    def close_all(self) -> None:
        """Give the descriptors back."""
        for fd in (*self._unsynced.values(), *self._directories.fds.values()):
            os.close(fd)
        self._unsynced.clear()
        self._directories.fds.clear()

    def _note(self, path: Path, undo: Callable[[int], object]) -> None:
        parent = self._directories.of(path.parent)

        def undone() -> None:
            undo(parent)

        self._changes.append(_Change(frozenset((_identity_of(path.parent),)), undone))


def identity(path: Path) -> Identity | None:
    """Return a file's device and inode; None when it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return _identity_of(path)
    return None


def _identity_of(path: Path) -> Identity:
    found = path.lstat()
    return found.st_dev, found.st_ino


def _path(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _write(name: str, data: bytes, parent: int) -> None:
    fd = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644, dir_fd=parent)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
