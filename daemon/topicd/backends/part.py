"""A file on its way: `X.part` beside `X.part.json`, until it is `X`.

Owns these two, the lock on them, and the order in which they reach the disk. Promises that the recorded offset is never
ahead of what a power cut leaves of the part; that a part is gone on with only as far as it was recorded; that there is
one writer, in whatever process; and that `X` appears whole, on the disk, or not at all. Never speaks to a server, never
judges what the bytes are.
"""

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final, Self

from topicd.durable import TEMPORARY, Durable
from topicd.errors import StorageTrouble

PART: Final = ".part"
RECORD: Final = ".part.json"
_RECORD_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a part.

    Attributes:
        url: where it came from, without user, password and query.
        validator: a strong one, of the file at that address; empty when there is none.
        total: bytes of the whole file; None when not known.
        digest: what the whole file must have, as `sha256:…`; empty when not known.
        synced: bytes that a power cut leaves.
    """

    url: str = ""
    validator: str = ""
    total: int | None = None
    digest: str = ""
    synced: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for what this program never writes."""
        texts: tuple[object, ...] = (self.url, self.validator, self.digest)
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise ValueError("a text is none")
        if not _is_size(self.synced) or not (self.total is None or _is_size(self.total)):
            raise ValueError("a size is none")


class Part:
    """The part of one target, held by this writer until it is closed.

    Attributes:
        target: where the whole file goes.
        record: what the record on the disk says.
        size: bytes that are in the part, on the disk or not.
    """

    def __init__(self, target: Path, fd: int, durable: Durable) -> None:
        self.target: Final = target
        self.record = Record()
        self.size = 0
        self._fd = fd
        self._durable = durable

    @classmethod
    def hold(cls, target: Path, durable: Durable) -> Self | None:
        """Return the part, cut to what its record vouches for; None while another writer has it.

        Raises:
            StorageTrouble: the disk refuses.
        """
        part = cls(target, durable.opened(_part(target)), durable)
        try:
            if not part._lock():
                part.close()
                return None
            part._take_up()
        except BaseException:
            part.close()
            raise
        return part

    @property
    def path(self) -> Path:
        """Return where the bytes are."""
        return _part(self.target)

    def begin(self, url: str, *, validator: str, total: int | None, digest: str) -> None:
        """Throw away what is there, for a file of which this is known.

        The record goes first: what is written before the next checkpoint must not pass for bytes of the file before.
        """
        self._note(Record(url, validator, total, digest))
        self._durable.cut(self._fd, 0)
        self.size = 0

    def learn(self, *, total: int) -> None:
        """Take note of a length that was not known; the next checkpoint records it."""
        self.record = replace(self.record, total=total)

    def append(self, data: bytes) -> None:
        """Write at the end.

        Raises:
            StorageTrouble: the disk refuses; what was written of it is taken back.
        """
        try:
            self._durable.append(self._fd, data)
        except BaseException:
            with contextlib.suppress(OSError, StorageTrouble):
                self._durable.cut(self._fd, self.size)
            raise
        self.size += len(data)

    def checkpoint(self) -> None:
        """Have all that is written survive a power cut, and record that it does."""
        if self.size == self.record.synced:
            return
        size = self.size
        self._durable.sync(self.path)
        self._note(replace(self.record, synced=size))

    def finish(self) -> None:
        """Put the whole file in its place."""
        self._durable.sync(self.path)
        self._durable.rename(self.path, self.target)
        self._durable.remove(_record(self.target))

    def discard(self) -> None:
        """Remove part and record: the record last, since a part without one is worth nothing anyway."""
        self._durable.remove(self.path)
        self._durable.remove(_record(self.target))

    def close(self) -> None:
        """Let go of it. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # Whoever had it may have finished: then this descriptor leads to the finished file, not to a part.
        with contextlib.suppress(FileNotFoundError):
            here, there = os.fstat(self._fd), self.path.lstat()
            return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        return False

    def _take_up(self) -> None:
        _sweep(self.target, self._durable)
        record = _read(_record(self.target))
        has = os.fstat(self._fd).st_size
        self.record = record if record and record.synced <= has else Record()
        self._durable.cut(self._fd, self.record.synced)
        self.size = self.record.synced

    def _note(self, record: Record) -> None:
        self._durable.write(_record(self.target), json.dumps(asdict(record), indent=1).encode() + b"\n")
        self.record = record


def tidy(target: Path, durable: Durable) -> None:
    """Remove what a writer that was killed left beside a finished file."""
    _sweep(target, durable)
    durable.remove(_record(target))


def _sweep(target: Path, durable: Durable) -> None:
    """Remove records that were never put in place."""
    prefix = f".{_record(target).name}."
    for path in target.parent.iterdir():
        if path.name.startswith(prefix) and path.name.endswith(TEMPORARY):
            durable.remove(path)


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART)


def _record(target: Path) -> Path:
    return target.with_name(target.name + RECORD)


def _read(path: Path) -> Record | None:
    """Return a record; None when there is none, or none that this program wrote."""
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_RECORD_BYTES_MAX))
        return Record(**{field.name: said[field.name] for field in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
