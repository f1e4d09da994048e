"""Hints: reasons to look at a directory, from inotify, from a clock, or both.

Owns the rescan timer and the health of the watches. A hint says which directory to look at, never what is
in it: hints wake, scans decide. Promises that every directory is hinted at least once a rescan, and at once
when its events were lost (overflow, a directory renamed, deleted, replaced or unmounted); that one event
tells when events stop and one when they come again. Never changes a directory's content, never makes a
directory, and never raises for what the kernel refuses: it falls back to the clock and tries again, less
and less often.

Events: `watcher.started` {mode}; `watcher.trouble` {error, mode}, once for each trouble, where `error` is a
`TopicdError`; `watcher.restarted` {reason} after `reader_died`, `unmounted`, `directory_gone`,
`directory_replaced` (also: moved away and back), or after the trouble that has this cause: `directory_hangs`,
`watch_limit`, `instance_limit`, `directory_unreadable`, `watch_failed`, `no_events`, `remote_file_system`;
`watcher.overflowed`, once each time that the kernel dropped events; `watcher.wake_failed` {directory, error}
when a hint raises, once until a rescan's hint to that directory does not.

A reader that dies is replaced at once; one that dies again before it was well for a rescan is trouble too.
"""

import asyncio
import contextlib
import os
import random
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from topicd.errors import StorageTrouble, TopicdError, Unusable
from topicd.inotify import POLL_HINT, Batch, Reader, remote_trouble

_SELF_TEST_S: Final = 2.0
# Lets `rm -r` and `mkdir` by one hand be one replacement; bounds how often the watches are made anew.
_SETTLE_S: Final = 0.05
_RETRY_RESCANS_MAX: Final = 64
_LOOK_S: Final = 5.0

_Identity = tuple[int, int]
_Identities = Mapping[Path, _Identity | None]


class Watched(NamedTuple):
    """A directory to watch.

    Attributes:
        path: the directory; a symbolic link to one is followed.
        kind: `input`, or the name of a stage; each kind once.
    """

    path: Path
    kind: str


class Events(Protocol):
    """Where events go."""

    def emit(self, name: str, /, **fields: Any) -> None:
        """Tell of one event."""


class State(NamedTuple):
    """What a watcher tells of itself.

    Attributes:
        mode: what brings hints now.
        up: whether every directory is there and answers, and hints come and are taken.
        trouble: what is wrong, in one sentence; empty when well.
        hint: what a person can do about it; may be empty.
        restarts: times it began to watch anew.
        overflows: times the kernel dropped events.
        wake_failures: times that hints began to raise.
        cause: the trouble's cause; empty when well.
    """

    mode: Literal["events", "poll"]
    up: bool
    trouble: str
    hint: str
    restarts: int
    overflows: int
    wake_failures: int
    cause: str


class Watcher:
    """Wakes whoever scans: at events, and at least once every rescan.

    `wake(kind, moved_name)` runs on the event loop. `moved_name` is the name of a file that arrived whole, by
    rename, with nothing seen to happen to it since; else None. It may shorten the wait for a quiet file and
    replaces no scan.

    Args:
        watched: the directories, which need not exist yet.
        mode: `events`; `poll`, the clock only; `auto`, events unless a directory lies on a remote file system
            or a self-test shows that none come.
        wake: called with a hint; may raise without harm to other hints, and is then called again at the next
            rescan.
        rescan_s: seconds between rescans while events come, varied by a tenth.
        poll_s: seconds between rescans while they do not, a directory is gone, or `wake` raises.
        events: where to tell of starts, restarts and trouble.
    """

    def __init__(
        self,
        *,
        watched: Sequence[Watched],
        mode: Literal["auto", "events", "poll"],
        wake: Callable[[str, str | None], None],
        rescan_s: float,
        poll_s: float,
        events: Events,
        rescans: Callable[[], None] = lambda: None,
    ) -> None:
        self._watched = tuple(watched)
        self._wanted = mode
        self._wake = wake
        self._rescans = rescans
        self._rescan_s = rescan_s
        self._poll_s = poll_s
        self._events = events
        self._reader: Reader | None = None
        self._identities: _Identities = {}
        self._error: TopicdError | None = None
        self._outage = ""
        self._retry_s = rescan_s
        self._retry_at = 0.0
        self._alarm = asyncio.Event()
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._looking: asyncio.Future[_Identities] | None = None
        self._threads = ThreadPoolExecutor(1, "watch")  # not the loop's: backends may hold all of those
        self._refused: set[str] = set()
        self._restarts = self._overflows = self._wake_failures = 0

    @property
    def mode(self) -> Literal["events", "poll"]:
        """What brings hints now."""
        return "events" if self._reader else "poll"

    @property
    def up(self) -> bool:
        """Whether it is started, every directory is there, and hints come, by event or by clock, and are taken."""
        there = bool(self._identities) and None not in self._identities.values() and not self._hangs
        return there and not self._refused and (self._reader is None or self._reader.alive)

    @property
    def trouble(self) -> TopicdError | None:
        """What is wrong; None when well."""
        if self._error or not self._refused:
            return self._error
        message = f"A bug: no scan of {', '.join(sorted(self._refused))} could be asked for."
        return TopicdError("bug", message, hint="The log has the error; it is tried again at every rescan.")

    @property
    def state(self) -> State:
        """Everything about it at this moment."""
        trouble, counts = self.trouble or TopicdError("", ""), (self._restarts, self._overflows, self._wake_failures)
        return State(self.mode, self.up, trouble.message, trouble.hint, *counts, trouble.cause)

    @property
    def _hangs(self) -> bool:
        return self._error is not None and self._error.cause == "directory_hangs"

    def start(self) -> None:
        """Schedule the watches, on the running loop and before the first scan; `run` is what ends them."""
        error = self._open(_identify(self._watched))
        self._events.emit("watcher.started", mode=self.mode)
        self._settle(error)

    async def run(self) -> None:
        """Give hints until cancelled, healing on the way. Call `start` first."""
        try:
            if self._error is None:
                self._settle(await self._self_test())
            while True:
                await self._pause()
                await self._check()
                self._rescans()
                self._refused -= {watched.kind for watched in self._watched if self._hint(watched.kind, None)}
        finally:
            self._close()
            self._identities = {}

    async def _pause(self) -> None:
        period_s = self._rescan_s if self._reader and self.up else self._poll_s
        jitter = random.uniform(0.9, 1.1)  # noqa: S311 - no secret: it keeps daemons on one disk out of step
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(period_s * jitter):
                await self._alarm.wait()
                await asyncio.sleep(_SETTLE_S)
        self._alarm.clear()

    async def _check(self) -> None:
        identities = await self._look()
        if identities is None:
            if not self._hangs:
                self._settle(_hanging())
            return
        ailment = self._ailment(identities)
        if ailment == "reader_died" and self._restarts and asyncio.get_running_loop().time() < self._retry_at:
            self._close()
            self._settle(StorageTrouble("reader_died", "The kernel's file events cannot be read.", hint=POLL_HINT))
        elif ailment:
            await self._rebuild(identities, self._outage or ailment)
        elif self._error is None:
            self._retry_s = self._rescan_s

    async def _look(self) -> _Identities | None:
        """Return who the directories are; None when that is not to be had. What hangs, hangs in one thread."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().run_in_executor(self._threads, _identify, self._watched)
            await asyncio.wait([self._looking], timeout=_LOOK_S)
        if not self._looking.done():
            return None
        looked, self._looking = self._looking, None
        return looked.result()

    def _ailment(self, identities: _Identities) -> str:
        if self._reader and not self._reader.alive:
            return "reader_died"
        if self._reader and self._reader.doubted == "unmounted":
            return "unmounted"
        if identities != self._identities:
            gone = None in {*identities.values(), *self._identities.values()}
            return "directory_gone" if gone else "directory_replaced"
        if self._hangs:
            return "directory_hangs"
        if self._reader:
            return self._reader.doubted
        due = self._wanted != "poll" and asyncio.get_running_loop().time() >= self._retry_at
        return self._error.cause if self._error and due else ""

    async def _rebuild(self, identities: _Identities, reason: str) -> None:
        self._outage = reason
        self._close()
        error = self._open(identities) or await self._self_test()
        self._settle(error)
        if error is None:
            self._outage = ""
            self._restarts += 1
            self._events.emit("watcher.restarted", reason=reason)

    def _open(self, identities: _Identities) -> TopicdError | None:
        # The identities are from before the watch: a directory swapped in between differs at the next check.
        self._identities = identities
        gone = _gone(identities)
        refused = None if self._wanted == "poll" else self._listen()
        return gone or refused

    def _listen(self) -> TopicdError | None:
        there = [watched for watched in self._watched if self._identities[watched.path]]
        remote = remote_trouble([watched.path for watched in there]) if self._wanted == "auto" else None
        if remote:
            return remote
        try:
            self._reader = Reader(self._deliver, self._overflowed)
            for watched in there:
                self._reader.watch(watched.path, watched.kind)
        except TopicdError as error:
            self._close()
            return error
        return None

    async def _self_test(self) -> TopicdError | None:
        """Touch each directory and wait for its event; a probe file could be left behind by a crash."""
        if self._wanted != "auto" or self._reader is None:
            return None
        self._heard.clear()
        touched = {watched.kind for watched in self._watched if _touch(watched.path)}
        try:
            async with asyncio.timeout(_SELF_TEST_S):
                while not touched <= self._heard:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._close()
            deaf = ", ".join(sorted(touched - self._heard))
            return Unusable("no_events", f"No file events come for {deaf}.", hint=POLL_HINT)
        return None

    def _settle(self, error: TopicdError | None) -> None:
        if error and (self._error is None or error.message != self._error.message):
            self._events.emit("watcher.trouble", error=error, mode=self.mode)
        self._error = error
        self._retry_at = asyncio.get_running_loop().time() + self._retry_s
        if error:
            self._retry_s = min(2 * self._retry_s, _RETRY_RESCANS_MAX * self._rescan_s)

    def _deliver(self, batch: Batch) -> None:
        self._heard.update(batch)
        self._news.set()
        if self._reader and self._reader.doubted:
            self._alarm.set()
        for kind, names in batch.items():
            for name in names:
                self._hint(kind, name)

    def _overflowed(self) -> None:
        self._overflows += 1
        self._events.emit("watcher.overflowed")

    def _hint(self, kind: str, moved_name: str | None) -> bool:
        try:
            self._wake(kind, moved_name)
        except Exception as error:  # noqa: BLE001 - a bug of whoever is woken must not end the watch
            if kind not in self._refused:
                self._refused.add(kind)
                self._wake_failures += 1
                self._events.emit("watcher.wake_failed", directory=kind, error=error)
            return False
        return True

    def _close(self) -> None:
        if self._reader:
            self._reader.close()
            self._reader = None


def _identify(watched: Sequence[Watched]) -> _Identities:
    return {each.path: _identity(each.path) for each in watched}


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


def _touch(path: Path) -> bool:
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _hanging() -> TopicdError:
    message = f"A directory's file system has not answered for {_LOOK_S:g} s."
    return StorageTrouble("directory_hangs", message, hint="Is the server that it is mounted from up?")


def _gone(identities: _Identities) -> TopicdError | None:
    gone = [str(path) for path, identity in identities.items() if identity is None]
    if not gone:
        return None
    message = f"Not there, or not a directory: {', '.join(gone)}."
    return StorageTrouble("directory_gone", message, hint=f"Make it again: mkdir {' '.join(gone)}")
