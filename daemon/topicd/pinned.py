"""One job's files, held open as they were together at one instant, wherever the job goes meanwhile.

Owns how a directory is read that may move, grow or be removed under the reader. The daemon puts every file of a job in
place whole by rename and never writes to it again, so an open descriptor holds its bytes for good; a move renames the
directory, which a descriptor of it survives. Only a person's editor may write over `topic.md` where it stands, so that
one is read at once, and counts when nobody was writing to it. So: open the directory, read `job.json`, `manifest.json`
and `topic.md` through it, see that the directory still is where it was found, open every other file, and compare what
the manifest lists with what was opened. Where that fails, begin again. What comes out is a state that a crash at that
instant would have left, which is one that the daemon knows how to go on from. Never follows a link, never opens what
may block, changes nothing.
"""

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from topicd import job as files
from topicd.durable import TEMPORARY
from topicd.job import Damaged, Job, Manifest
from topicd.quiet import has_writer
from topicd.spool import DONE, Spool
from topicd.states import Aside, Stage

TRIES_MAX: Final = 6
TRY_AGAIN_S: Final = 0.05
FILES_MAX: Final = 800
DEPTH_MAX: Final = 8
# Jobs move along this order; one that moves the other way is met in another round.
ORDER: Final = (Aside.HELD, Aside.FAILED, *Stage, DONE)
WORDS: Final = (files.JOB, files.MANIFEST)
TOPIC_BYTES_MAX: Final = 1_048_576
"""As large as a topic may be; a larger one is somebody's, and is copied as other files are."""
OWN: Final = (files.TOPIC, files.JOB, files.MANIFEST)
FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Open(NamedTuple):
    """A regular file, open at its start."""

    fd: int
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Pinned:
    """A job at one instant.

    Attributes:
        place: where it was.
        words: `job.json`, `manifest.json` and a topic of a usual size, those that are there.
        files: all other files by relative path.
        unreadable: relative paths that could not be opened.
        harmed: products that are not what the manifest says, and the daemon's own files that a finished job lacks,
            though it was looked at again.
    """

    place: str
    words: Mapping[str, bytes]
    files: Mapping[str, Open]
    unreadable: tuple[str, ...]
    harmed: tuple[str, ...]

    @property
    def job(self) -> Job | None:
        """What `job.json` says; None when it is missing or damaged."""
        with contextlib.suppress(Damaged, KeyError):
            return files.decode(Job, self.words[files.JOB], files.JOB)
        return None

    @property
    def topic_sha256(self) -> str:
        """The digest of the topic; empty when there is none."""
        if files.TOPIC in self.words:
            return hashlib.sha256(self.words[files.TOPIC]).hexdigest()
        return sha256_of(one.fd) if (one := self.files.get(files.TOPIC)) else ""


class TooManyFiles(OSError):
    """A directory holds more files than can be held open."""


def where(spool: Spool, name: str) -> str | None:
    """Return the place that a job is in, the furthest if two; None when it is in none."""
    for _ in range(TRIES_MAX):
        places = [place for place in ORDER if (spool.place(place) / name).is_dir()]
        if places:
            return str(places[-1])
        time.sleep(TRY_AGAIN_S)
    return None


def twins(spool: Spool, name: str) -> list[str]:
    """Return the places of a job that is in more than one, and stays so; empty for any other."""
    found = list[str]()
    for _ in range(TRIES_MAX):
        found = [str(place) for place in ORDER if (spool.place(place) / name).is_dir()]
        if len(found) < 2:  # noqa: PLR2004 - twins
            return []
        time.sleep(TRY_AGAIN_S)
    return found


@contextlib.contextmanager
def pinned(spool: Spool, name: str) -> Iterator[Pinned | None]:
    """Hold a job; None when it is gone.

    Raises:
        OSError: its directory cannot be read, or it has more than `FILES_MAX` files.
    """
    for last in [*[False] * (TRIES_MAX - 1), True]:
        place = where(spool, name)
        if place is None:
            break
        with contextlib.ExitStack() as stack:
            found = None
            with contextlib.suppress(FileNotFoundError):
                found = _pin(spool.place(place) / name, place, stack)
            if found and (last or not found.harmed):
                yield found
                return
        time.sleep(TRY_AGAIN_S)
    yield None


def opened(name: str, *, dir_fd: int | None = None) -> Open | None:
    """Open a regular file; None when it is anything else.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(name, FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        return None
    return Open(fd, found.st_size, found.st_mtime)


def sha256_of(fd: int) -> str:
    """Return the digest of an open file, and leave it at its start."""
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    os.lseek(fd, 0, os.SEEK_SET)
    return found


def _pin(path: Path, place: str, stack: contextlib.ExitStack) -> Pinned | None:
    folder = os.open(path, FLAGS | os.O_DIRECTORY)
    stack.callback(os.close, folder)
    words = {name: data for name in WORDS if (data := _word(name, folder)) is not None}
    topic, is_settled = _topic(folder)
    if topic is not None:
        words[files.TOPIC] = topic
    if not os.path.samestat(path.lstat(), os.fstat(folder)):
        return None  # it moved: what was read may belong to the next place
    held, unreadable = dict[str, Open](), list[str]()
    for relative, name, dir_fd in _names(folder, {*WORDS, *words}):
        try:
            one = opened(name, dir_fd=dir_fd)
        except FileNotFoundError:
            continue
        except PermissionError:
            unreadable.append(relative)
            continue
        if one:
            stack.callback(os.close, one.fd)
            held[relative] = one
        if len(held) > FILES_MAX:
            raise TooManyFiles(errno.EMFILE, f"more than {FILES_MAX} files in a job's directory", str(path))
    lacking = [name for name in OWN if name not in {*words, *held, *unreadable}] if place == DONE else []
    harmed = [*lacking, *_harmed(words, held), *([] if is_settled else [files.TOPIC])]
    return Pinned(place, words, held, tuple(unreadable), tuple(dict.fromkeys(harmed)))


def _word(name: str, folder: int) -> bytes | None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if one := opened(name, dir_fd=folder):
            with os.fdopen(one.fd, "rb") as file:
                data = file.read(files.JSON_BYTES_MAX + 1)
            return data if len(data) <= files.JSON_BYTES_MAX else None
    return None


def _topic(folder: int) -> tuple[bytes | None, bool]:
    """Return the topic, unless it is none that can be read at once, and whether nobody was writing to it."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if one := opened(files.TOPIC, dir_fd=folder):
            with os.fdopen(one.fd, "rb", buffering=0) as file:
                is_written = has_writer(one.fd)
                data = file.read(TOPIC_BYTES_MAX + 1)
                after = os.fstat(one.fd)
            if len(data) <= TOPIC_BYTES_MAX:
                is_whole = (len(data), one.mtime) == (after.st_size, after.st_mtime)
                return data, is_whole and not is_written
    return None, True


def _names(folder: int, read: Container[str]) -> Iterator[tuple[str, str, int]]:
    for directory, subs, names, dir_fd in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        inner = directory.removeprefix(".").removeprefix("/")
        if inner.count("/") >= DEPTH_MAX:
            subs.clear()
        for name in names:
            relative = f"{inner}/{name}" if inner else name
            is_temporary = name.startswith(".") and name.endswith(TEMPORARY)
            if relative not in read and not is_temporary:
                yield relative, name, dir_fd


def _harmed(words: Mapping[str, bytes], held: Mapping[str, Open]) -> Iterator[str]:
    if files.MANIFEST not in words:
        return
    try:
        manifest = files.decode(Manifest, words[files.MANIFEST], files.MANIFEST)
    except Damaged:
        yield files.MANIFEST
        return
    for entry in manifest.products:
        one = held.get(entry.path)
        if one is None or one.size != entry.bytes or not _has(one, entry.sha256):
            yield entry.path


def _has(one: Open, sha256: str) -> bool:
    try:
        return sha256_of(one.fd) == sha256
    except OSError:
        return False  # the disk does not give it back
