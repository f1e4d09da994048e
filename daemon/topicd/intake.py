"""From `input/` to jobs: every hint is answered by one whole scan.

Owns the decision whether a file is ready: a topic's name, a regular file, nobody writing to it, quiet. Promises
that a link, a directory, a FIFO or a device is never followed or opened, that a file still being written is not
taken, and that what cannot be read as a topic ends in `failed/` with its cause and its bytes untouched. Never
remembers what it has taken: the claim renames the file away, so what is in `input/` is what is left to do.
"""

import asyncio
import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from topicd.durable import Steps
from topicd.errors import Rejected, StorageTrouble, TopicdError
from topicd.gate import StorageGate
from topicd.handover import Entrance
from topicd.job import Job, Trouble
from topicd.quiet import Quiet, has_writer
from topicd.spool import Spool
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry.events import Events
from topicd.threads import offload, whole
from topicd.topic import is_topic_name, parse, too_large, unreadable

TROUBLE_WAIT_S: Final = 5.0
WRITER_LOOK_S: Final = 0.1
BATCH_MAX: Final = 256
MOVED_IN_MAX: Final = 4096
NAMES_SAID_MAX: Final = 100
_Key = TypeVar("_Key", bound=tuple[str, str])

_KINDS: Final = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class Ignored(NamedTuple):
    """Something in `input/` that will stay there, and why."""

    name: str
    kind: str


class Taken(NamedTuple):
    """A job that was claimed, and why it is refused all the same; None when it is not."""

    job: Job
    refused: Rejected | None


@dataclass(slots=True)
class Haul:
    """What one scan brought; when it is cut, the next goes on behind what could not be taken (`left`, and why)."""

    ready: list[str] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    left: dict[str, Ignored | None] = field(default_factory=dict)
    troubles: list[tuple[str, TopicdError]] = field(default_factory=list)
    wait_s: float | None = None
    is_cut: bool = False
    news: int = 0

    def look_again_in(self, wait_s: float | None) -> None:
        """Note when another look is due; the earliest counts."""
        if wait_s is not None:
            self.wait_s = wait_s if self.wait_s is None else min(wait_s, self.wait_s)


def look(folder: Path) -> tuple[list[tuple[str, os.stat_result]], list[Ignored]]:
    """Scan `input/`: the regular files that may be topics, with their lstat, and what is ignored with a reason."""
    topics, ignored = list[tuple[str, os.stat_result]](), list[Ignored]()
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                kind = _KINDS.get(stat.S_IFMT(found.st_mode), "")
                if kind and not entry.name.startswith("."):
                    ignored.append(Ignored(entry.name, kind))
                elif not kind and is_topic_name(entry.name):
                    topics.append((entry.name, found))
                elif not kind and not entry.name.startswith("."):
                    ignored.append(Ignored(entry.name, "not a .md or .txt file"))
    return topics, ignored


class Intake:
    """Takes topics from `input/` as they become ready."""

    def __init__(
        self,
        *,
        spool: Spool,
        store: Store,
        events: Events,
        gate: StorageGate,
        first: Entrance,
        settle_s: float,
        topic_bytes_max: int,
        scenes_max: int,
    ) -> None:
        self._spool = spool
        self._store = store
        self._events = events
        self._gate = gate
        self._first = first
        self._quiet = Quiet(settle_s)
        self._settle_s = settle_s
        self._topic_bytes_max = topic_bytes_max
        self._scenes_max = scenes_max
        self._woken = asyncio.Event()
        self._moved_in = dict[str, float]()
        self._met: set[str] | None = None  # what was in input/ at the last scan; None before the first
        self._is_rescan = False
        self._has_heard = False
        self._before = Haul()
        self._said = set[Ignored]()
        self._troubled = set[tuple[str, str]]()
        self.idle = asyncio.Event()

    def rescan(self) -> None:
        """Take note that the next hint comes from the clock, not from a file event."""
        self._is_rescan = True

    def hint(self, moved_in: str | None = None) -> None:
        """Ask for a scan. A name that arrived whole by rename need not be quiet first; the scan decides all else."""
        if moved_in is not None and len(self._moved_in) < MOVED_IN_MAX:
            self._moved_in[moved_in] = time.perf_counter()
        self._has_heard |= not self._is_rescan
        self._is_rescan = False
        self.idle.clear()
        self._woken.set()

    async def run(self) -> None:
        """Scan at each hint, and again when a file that was not quiet should be; until cancelled."""
        wait_s: float | None = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            self._woken.clear()
            wait_s = await self._scan()
            if wait_s is None and not self._woken.is_set():
                self.idle.set()

    async def _scan(self) -> float | None:
        """Take what is ready. Returns the seconds until another look is due, None when nothing is left to wait for."""
        if not await self._gate.storage_ready():
            return TROUBLE_WAIT_S
        moved_in, self._moved_in = self._moved_in, {}
        has_heard, self._has_heard = self._has_heard, False
        try:
            haul = await offload(self._look, moved_in)
        except StorageTrouble as error:
            self._moved_in = {**moved_in, **self._moved_in}
            self._gate.tell(error)
            return TROUBLE_WAIT_S
        if not has_heard and haul.news:
            self._events.emit("intake.rescanned", found=haul.news)
        await whole(asyncio.gather(*(self._take_one(name, haul, moved_in.get(name)) for name in haul.ready)))
        if haul.is_cut:
            self._moved_in = {**moved_in, **self._moved_in}
            self._before = haul
            return haul.wait_s
        self._before = Haul()
        ignored = [*haul.ignored, *filter(None, haul.left.values())]
        self._tell("intake.ignored", self._said, {each: each._asdict() for each in ignored})
        troubles = {(name, error.message): {"name": name, "error": error} for name, error in haul.troubles}
        self._tell("intake.trouble", self._troubled, troubles)
        return haul.wait_s

    def _look(self, moved_in: Collection[str]) -> "Haul":
        """Scan once, and choose up to a batch of what is quiet and was not met since the last scan that was whole."""
        haul = Haul(left=self._before.left, troubles=self._before.troubles)
        if None in haul.left.values():
            haul.look_again_in(TROUBLE_WAIT_S)
        try:
            topics, haul.ignored = look(self._spool.input)
        except OSError as error:
            haul.troubles.append(("", _intake_trouble(error)))
            haul.look_again_in(TROUBLE_WAIT_S)
            return haul
        names = {name for name, _ in topics}
        haul.news = len(names - self._met) if self._met is not None else 0
        self._met = names
        self._quiet.forget_others(names)
        for name, found in sorted(topics, key=lambda entry: (entry[1].st_ctime_ns, entry[0])):
            if name in haul.left:
                continue
            wait_s = 0.0 if name in moved_in else self._quiet.wait_s(name, found)
            if wait_s:
                haul.look_again_in(wait_s)
                continue
            haul.ready.append(name)
            if len(haul.ready) >= BATCH_MAX:
                haul.look_again_in(0.0)
                haul.is_cut = True
                break
        return haul

    async def _take_one(self, name: str, haul: "Haul", moved_in_at: float | None) -> None:
        """Take one file, and note in the haul what else there is to say or to do about it."""
        begin = self._first.reserve()
        try:
            taken = await self._carry_out(self._take(self._spool.input / name, begin=begin))
        except FileNotFoundError:
            taken = None  # someone was faster
        except Rejected as error:
            haul.left[name] = Ignored(name, error.message)
            taken = None
        except (OSError, TopicdError) as error:
            self._note_trouble(name, haul, error)
            taken = None
        else:
            if taken is None:
                haul.look_again_in(max(self._settle_s, WRITER_LOOK_S))
        if taken is None:
            haul.left.setdefault(name)
        if taken is not None:
            await self._settle(taken, moved_in_at, begun=begin)
        elif begin:
            self._first.unreserve()

    async def _carry_out(self, steps: Steps["Taken | None"]) -> "Taken | None":
        if self._store.is_input_apart:  # a copy takes its time; nobody shall wait behind it
            return await offload(self._store.durable.carry_out, steps)
        return await self._store.commit(steps)

    def _note_trouble(self, name: str, haul: "Haul", error: OSError | TopicdError) -> None:
        haul.look_again_in(TROUBLE_WAIT_S)
        is_of_input = self._store.is_input_apart and isinstance(error, StorageTrouble) and error.cause == "read_only"
        if isinstance(error, StorageTrouble) and not is_of_input:
            self._gate.tell(error)
        else:
            haul.troubles.append((name, error if isinstance(error, TopicdError) else _intake_trouble(error)))

    def _take(self, path: Path, *, begin: bool) -> Steps["Taken | None"]:
        """Claim a file; None when somebody is still writing to it.

        Raises:
            FileNotFoundError: it is gone.
            TopicdError: the disk is in trouble.
            OSError: the directory does not let us.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            found = path.lstat()
            if self._store.is_input_apart:
                # It can be neither read nor renamed over; it stays, is told once, and is nothing to wait for.
                raise unreadable() from error
            job = yield from self._claim(path, found, "", begin=begin)
            return Taken(job, unreadable())
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            return None  # it was a file at the look; the next look tells what it is now
        with os.fdopen(fd, "rb") as file:
            if has_writer(fd):
                return None
            data = file.read(self._topic_bytes_max + 1)
            if len(data) > self._topic_bytes_max:
                job = yield from self._claim(path, found, "", begin=begin)
                return Taken(job, too_large(found.st_size, self._topic_bytes_max))
            job = yield from self._claim(path, found, hashlib.sha256(data).hexdigest(), begin=begin)
        try:
            parse(data, scenes_max=self._scenes_max)
        except Rejected as error:
            return Taken(job, error)
        return Taken(job, None)

    def _claim(self, path: Path, found: os.stat_result, sha256: str, *, begin: bool) -> Steps[Job]:
        return self._store.moves.claim(path, sha256=sha256, size=found.st_size, inode=found.st_ino, begin=begin)

    async def _settle(self, taken: "Taken", moved_in_at: float | None, *, begun: bool) -> None:
        """Tell of a claim that is on the disk, and pass the job on."""
        job, refused = taken
        pickup_s = None if moved_in_at is None else round(time.perf_counter() - moved_in_at, 6)
        self._events.emit("job.accepted", job=job.id, source=job.source, bytes=job.bytes, pickup_s=pickup_s)
        if refused is None:
            if begun:
                await self._first.take_over(job)
            else:
                self._first.expect()
            return
        trouble = Trouble.of(refused, stage=Stage.SCRIPTS, at=time.time())
        try:
            await self._store.commit(self._store.moves.fail(Stage.SCRIPTS, job.give_back(Stage.SCRIPTS), trouble))
        except FileNotFoundError:
            return  # a person was faster
        except StorageTrouble as error:
            self._gate.tell(error)
            self._first.expect()  # the scripts stage will find the same fault and put it aside
            return
        finally:
            if begun:
                self._first.unreserve()
        self._events.emit("job.failed", job=job.id, stage=Stage.SCRIPTS, error=refused, attempt=0)

    def _tell(self, event: str, said: set[_Key], now: Mapping[_Key, Mapping[str, Any]]) -> None:
        """Tell of each once while it stays, up to a number."""
        said.intersection_update(now)
        for key, fields in now.items():
            if key not in said and len(said) < NAMES_SAID_MAX:
                said.add(key)
                self._events.emit(event, **fields)


def _intake_trouble(error: OSError) -> StorageTrouble:
    return StorageTrouble(
        "input_trouble",
        f"cannot take from input/: {error.strerror}",
        hint="the daemon's user must be able to read, write and search input/; it is tried again by itself",
    )
