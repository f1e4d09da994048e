"""The disk as a gate: work goes on only while there is space and the spool takes writes.

Owns the decision that storage is in trouble, says so once, and says so once when it is well again. Promises
that a full, read-only, absent or hanging disk is a pause: it opens again by itself, and a disk that fails again soon
after is tried ever more rarely and not told of anew. The spool must be the directory that it was at the first look:
what is mounted or put in its place is not the one that this daemon has locked. Never blames a job or blocks the loop.
"""

import asyncio
import contextlib
import math
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from topicd.durable import Durable
from topicd.errors import StorageTrouble
from topicd.layout import PROBE
from topicd.telemetry.events import Events
from topicd.threads import offload

FRESH_S: Final = 1.0
HANDED_OVER_S: Final = 4.0
"""How much longer a good look is good enough for a job that walks straight on."""
LOOK_AGAIN_S: Final = 2.0
LOOK_AGAIN_MAX_S: Final = 60.0
CALM_S: Final = 300.0
HANG_S: Final = 10.0
FREE_INODES_MIN: Final = 64
PROBE_BYTES: Final = 16_384
GOES_ON: Final = "work goes on by itself"


def unusable_spool(error: OSError) -> StorageTrouble:
    """Return the trouble of a spool that is gone, or that the daemon's user may not use."""
    return StorageTrouble(
        "spool_trouble",
        f"the spool cannot be used: {error.strerror}: {error.filename}",
        hint="is its file system mounted, and may the daemon's user write there? Work goes on by itself",
    )


class StorageGate:
    """Asked before each claim and each attempt; told of each trouble on the way.

    Args:
        root: the spool.
        durable: writes the proofs.
        events: hears of trouble and of its end.
        min_free_bytes: what must be free in every directory looked at.
        output: where finished jobs go, to be looked at too; it may be another file system.
        hang_s: seconds after which a disk that does not answer is in trouble.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        root: Path,
        durable: Durable,
        events: Events,
        min_free_bytes: int,
        output: Path | None = None,
        hang_s: float = HANG_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._paths = (root, output) if output else (root,)
        self._durable = durable
        self._events = events
        self._min_free_bytes = min_free_bytes
        self._hang_s = hang_s
        self._clock = clock
        self._identity: tuple[int, int] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._is_open = False
        self._fresh_until = -math.inf
        self._next_look = -math.inf
        self._wait_s = LOOK_AGAIN_S
        self._opened_at = -math.inf
        self._is_relapse = False
        self._said = set[str]()
        self.trouble: StorageTrouble | None = None

    @property
    def is_known_ready(self) -> bool:
        """Whether the last look was good, and not long ago."""
        return self._is_open and self._clock() < self._fresh_until + HANDED_OVER_S

    async def storage_ready(self) -> bool:
        """Return whether work may begin. While in trouble, looks again after a wait, by a real write."""
        now = self._clock()
        if self._looking is None and now < (self._fresh_until if self._is_open else self._next_look):
            return self._is_open
        self._next_look = now + self._wait_s
        before = self.trouble
        try:
            await self._look()
        except StorageTrouble as error:
            self.tell(error)
        except OSError as error:
            self.tell(unusable_spool(error))
        else:
            if self.trouble is before:  # else somebody met trouble after this look had begun
                self._open()
        return self._is_open

    def tell(self, error: StorageTrouble) -> None:
        """Close the gate because of what happened to somebody."""
        error = _going_on(error)
        now = self._clock()
        if self._is_open:
            self._is_relapse = now - self._opened_at < CALM_S
            self._wait_s = min(self._wait_s * 2, LOOK_AGAIN_MAX_S) if self._is_relapse else LOOK_AGAIN_S
            self._next_look = now + self._wait_s
            self._is_open = False
        if error.cause not in self._said:
            self._said.add(error.cause)
            self._events.emit("storage.trouble", error=error)
        self.trouble = error

    def _open(self) -> None:
        """Let work begin. After a relapse it stays said that the disk is in trouble until there has been calm."""
        now = self._clock()
        self._fresh_until = now + FRESH_S
        if self.trouble and not self._is_open:
            self._opened_at = now
        self._is_open = True
        if self.trouble and not (self._is_relapse and now - self._opened_at < CALM_S):
            self.trouble = None
            self._said.clear()
            self._events.emit("storage.ok")

    async def _look(self) -> None:
        """Look in a thread, one look at a time for all who ask; a disk that does not answer is in trouble."""
        looking = self._looking
        if looking is None:
            looking = self._looking = asyncio.create_task(offload(self._check, prove=not self._is_open))
            looking.add_done_callback(self._looked)
        done, _ = await asyncio.wait([looking], timeout=self._hang_s)
        if not done:
            raise StorageTrouble(
                "disk_hangs",
                f"{self._root.absolute()} has not answered for {self._hang_s:g} s",
                hint=f"look at the kernel's log, and at the server if it is a network's; {GOES_ON}",
            )
        looking.result()

    def _looked(self, looking: "asyncio.Task[None]") -> None:
        self._looking = None
        if not looking.cancelled():
            looking.exception()  # looked at, so that asyncio does not log it as lost when all who waited were cancelled

    def _check(self, *, prove: bool) -> None:
        found = self._root.stat()
        self._check_identity((found.st_dev, found.st_ino))
        for path in self._paths:
            self._check_space(path)
            if prove:
                self._prove(path / f"{PROBE}-{secrets.token_hex(4)}")
        self._identity = (found.st_dev, found.st_ino)

    def _prove(self, probe: Path) -> None:
        try:
            self._durable.write(probe, bytes(PROBE_BYTES))
        except BaseException:
            with contextlib.suppress(OSError, StorageTrouble):
                self._durable.remove(probe)  # it is in place when only the directory could not be synchronised
            raise
        self._durable.remove(probe)

    def _check_identity(self, found: tuple[int, int]) -> None:
        if self._identity not in {None, found}:
            raise StorageTrouble(
                "spool_replaced",
                f"{self._root.absolute()} is not the directory that this daemon began with",
                hint="is its file system mounted? Work goes on when it is back; to work on this one, restart topicd",
            )

    def _check_space(self, path: Path) -> None:
        found = os.statvfs(path)
        if found.f_flag & os.ST_RDONLY:
            raise StorageTrouble(
                "read_only",
                f"{path.absolute()} is mounted read-only",
                hint=f"mount the file system writable; {GOES_ON}",
            )
        if (free := found.f_bavail * found.f_frsize) < self._min_free_bytes:
            raise StorageTrouble(
                "disk_low",
                f"{free:,} bytes are free in {path.absolute()}; work needs {self._min_free_bytes:,}",
                hint=f"free some space, or lower TOPICD_MIN_FREE_BYTES; {GOES_ON}",
            )
        if found.f_files and found.f_favail < FREE_INODES_MIN:  # file systems without a table of inodes tell 0 of 0
            raise StorageTrouble(
                "disk_full",
                f"{found.f_favail} inodes are free in {path.absolute()}; work needs {FREE_INODES_MIN}",
                hint=f"remove some files; {GOES_ON}",
            )


def _going_on(error: StorageTrouble) -> StorageTrouble:
    """Say of trouble that was met elsewhere what only a daemon does about it."""
    if error.cause not in {"disk_full", "read_only"} or GOES_ON in error.hint:
        return error
    return StorageTrouble(error.cause, error.message, hint=f"{error.hint}; {GOES_ON}", unit=error.unit)
