"""One daemon a home: a lock that the kernel lets go of when its holder dies.

Owns `spool/.lock` and what the holder says of itself in it: process, run, port. Promises that a file left by a dead
process holds nobody. The file is not durable and need not be: flock(2) is what counts, not the text.
"""

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from topicd.errors import TopicdError

SAID_BYTES_MAX: Final = 4096
TRIES_MAX: Final = 20
TRY_AGAIN_S: Final = 0.05


class Taken(TopicdError):
    """Another daemon works on this home."""


@contextlib.contextmanager
def locked(path: Path, said: Mapping[str, object]) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Hold the home for this process, saying `said`. Gives a function that says more.

    Raises:
        Taken: another process holds it.
    """
    fd = _open(path)

    def say(more: Mapping[str, object]) -> None:
        with contextlib.suppress(OSError):  # a full or read-only disk: the lock itself holds all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"pid": os.getpid(), **said, **more}).encode(), 0)

    try:
        _acquire(fd, path)
        say({})
        yield say
    finally:
        os.close(fd)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _acquire(fd: int, path: Path) -> None:
    for _ in range(TRIES_MAX):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if pid := holder(path).get("pid"):
            raise Taken(
                "home_taken",
                f"another topicd (process {pid}) works on {path.parent.parent.absolute()}",
                hint="stop it first, or give this one a TOPICD_HOME of its own",
            )
        time.sleep(TRY_AGAIN_S)  # somebody who only asks who holds it does so for an instant
    raise Taken("home_taken", f"another topicd works on {path.parent.parent.absolute()}", hint="stop it first")


def holder(path: Path) -> Mapping[str, object]:
    """Return what the holder says of itself (pid, run, version, host, port); empty when nobody holds the home."""
    with contextlib.suppress(OSError, ValueError, RecursionError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            said = json.loads(file.read(SAID_BYTES_MAX) or b"{}")
            return said if isinstance(said, dict) else {}
    return {}
