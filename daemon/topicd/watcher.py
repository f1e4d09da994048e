"""Hints: reasons to look at a directory, from inotify, from a clock, or both.

Owns the rescan timer and the health of the watches. A hint says which directory to look at, never what is
in it: hints wake, scans decide. Promises that every directory is hinted at least once a rescan, and at once
when its events were lost (overflow, a directory renamed, deleted, replaced or unmounted); that one event
tells when events stop and one when they come again. Never changes a directory's content, never makes a
directory, and never raises for what the kernel refuses: it falls back to the clock and tries again, less
and less often.

Events: `watcher.started` {mode}; `watcher.trouble` {error, mode}, once for each trouble, where `error` is a
`TopicdError`; `watcher.restarted` {reason} after `reader_died`, `unmounted`, `directory_gone`,
`directory_replaced` (also: moved away and back), or after the trouble that has this cause: `watch_limit`,
`instance_limit`, `directory_unreadable`, `watch_failed`, `no_events`, `remote_file_system`.
"""

import asyncio
import contextlib
import os
import random
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

from topicd.errors import StorageTrouble, TopicdError, Unusable
from topicd.inotify import Batch, Reader

_SELF_TEST_S: Final = 2.0
# Lets `rm -r` and `mkdir` by one hand be one replacement; bounds how often the watches are made anew.
_SETTLE_S: Final = 0.05
_RETRY_RESCANS_MAX: Final = 64
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_REMOTE: Final = frozenset(
    ("9p", "ceph", "cifs", "fakeowner", "fuse", "nfs", "nfs4", "prl_fs", "smb3", "vboxsf", "virtiofs")
)
_POLL_HINT: Final = "Topics are found at intervals instead; set the watch mode to poll to make this the rule."

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


class Watcher:
    """Wakes whoever scans: at events, and at least once every rescan.

    `wake(kind, moved_name)` runs on the event loop. `moved_name` is the name of a file that arrived whole, by
    rename, with nothing seen to happen to it since; else None. It may shorten the wait for a quiet file and
    replaces no scan.

    Args:
        watched: the directories, which need not exist yet.
        mode: `events`; `poll`, the clock only; `auto`, events unless a directory lies on a remote file system
            or a self-test shows that none come.
        wake: called with a hint; may raise without harm to other hints.
        rescan_s: seconds between rescans while events come, varied by a tenth.
        poll_s: seconds between rescans while they do not, or while a directory is gone.
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
    ) -> None:
        self._watched = tuple(watched)
        self._wanted = mode
        self._wake = wake
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

    @property
    def mode(self) -> Literal["events", "poll"]:
        """What brings hints now."""
        return "events" if self._reader else "poll"

    @property
    def up(self) -> bool:
        """Whether it is started, every directory is there, and hints come, by event or by clock."""
        there = bool(self._identities) and None not in self._identities.values()
        return there and (self._reader is None or self._reader.alive)

    @property
    def trouble(self) -> str:
        """What is wrong, in one sentence; empty when well."""
        return self._error.message if self._error else ""

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
                for watched in self._watched:
                    self._hint(watched.kind, None)
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
        # In a thread: on a network file system that hangs, the rest of the daemon must not hang with it.
        identities = await asyncio.to_thread(_identify, self._watched)
        ailment = self._ailment(identities)
        if ailment:
            await self._rebuild(identities, self._outage or ailment)

    def _ailment(self, identities: _Identities) -> str:
        if self._reader and not self._reader.alive:
            return "reader_died"
        if self._reader and self._reader.doubted == "unmounted":
            return "unmounted"
        if identities != self._identities:
            gone = None in {*identities.values(), *self._identities.values()}
            return "directory_gone" if gone else "directory_replaced"
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
            self._events.emit("watcher.restarted", reason=reason)

    def _open(self, identities: _Identities) -> TopicdError | None:
        # The identities are from before the watch: a directory swapped in between differs at the next check.
        self._identities = identities
        gone = _gone(identities)
        refused = None if self._wanted == "poll" else self._listen()
        return gone or refused

    def _listen(self) -> TopicdError | None:
        there = [watched for watched in self._watched if self._identities[watched.path]]
        remote = _remote([watched.path for watched in there]) if self._wanted == "auto" else None
        if remote:
            return remote
        try:
            self._reader = Reader(self._deliver)
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
            return Unusable("no_events", f"No file events come for {deaf}.", hint=_POLL_HINT)
        return None

    def _settle(self, error: TopicdError | None) -> None:
        if error and error.message != self.trouble:
            self._events.emit("watcher.trouble", error=error, mode=self.mode)
        self._error = error
        self._retry_at = asyncio.get_running_loop().time() + self._retry_s
        doubled_s = min(2 * self._retry_s, _RETRY_RESCANS_MAX * self._rescan_s)
        self._retry_s = doubled_s if error else self._rescan_s

    def _deliver(self, batch: Batch) -> None:
        self._heard.update(batch)
        self._news.set()
        if self._reader and self._reader.doubted:
            self._alarm.set()
        for kind, names in batch.items():
            for name in names:
                self._hint(kind, name)

    def _hint(self, kind: str, moved_name: str | None) -> None:
        # One callback each: a hint that raises is reported by the loop and spoils no other.
        asyncio.get_running_loop().call_soon(self._wake, kind, moved_name)

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


def _gone(identities: _Identities) -> TopicdError | None:
    gone = [str(path) for path, identity in identities.items() if identity is None]
    if not gone:
        return None
    message = f"Not there, or not a directory: {', '.join(gone)}."
    return StorageTrouble("directory_gone", message, hint=f"Make it again: mkdir {' '.join(gone)}")


def _remote(paths: Sequence[Path]) -> TopicdError | None:
    """Say when a change made by another machine would give no event here; no self-test can show that."""
    try:
        mountinfo = _MOUNTINFO.read_text(errors="replace")
        types = {path: _file_system(path.stat().st_dev, mountinfo) for path in paths}
    except OSError:
        return None
    for path, name in types.items():
        if name.partition(".")[0] in _REMOTE:
            message = f"{path} is on {name}, where changes made elsewhere give no events."
            return Unusable("remote_file_system", message, hint=_POLL_HINT)
    return None


def _file_system(device: int, mountinfo: str) -> str:
    """Return the type of the file system with that device number (`ext4`, `fuse.sshfs`), or nothing."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            return source.split()[0]
    return ""
