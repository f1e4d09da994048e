"""Every decision about a job: when it is begun, how many at once, and what follows from how it ended.

Owns the lanes, one a stage. Promises that an attempt is counted before the work, that a backend or a disk that
is away costs no attempt, that a job which fails does so visibly, and that stopping gives the attempt back. What
is waiting is read from the tree at each look; a lane remembers only what it has in hand. Never does a stage's
work, never touches a file: the store does.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from topicd.durable import is_storage_trouble, offload, told_of, whole
from topicd.errors import Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable
from topicd.gate import StorageGate, unusable_spool
from topicd.job import Damaged, Job, Trouble
from topicd.policy import Policy, bug, crash_loop
from topicd.quarantine import Quarantine
from topicd.spool import DONE
from topicd.stages.base import StageWork
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry.events import Events

STORAGE_WAIT_S: Final = 2.0
UNUSABLE_WAIT_FACTOR: Final = 4


class Lane:
    """One stage's jobs in hand."""

    def __init__(
        self,
        stage: Stage,
        work: StageWork,
        *,
        engine: "Engine",
        store: Store,
        events: Events,
        gate: StorageGate,
        limit: int,
        policy: Policy,
    ) -> None:
        self.stage: Final = stage
        self.trouble: TopicdError | None = None
        self._work = work
        self._engine = engine
        self._store = store
        self._events = events
        self._gate = gate
        self._limit = limit
        self._policy = policy
        self._woken = asyncio.Event()
        self._in_hand = dict[str, asyncio.Task[None]]()
        self._in_work = set[str]()  # those in hand whose end has not begun: only they can be moved away by a person
        self._stuck = dict[str, float]()  # jobs that could be moved nowhere, and when to try again
        self._closed_until = 0.0
        self._down_wait_s = policy.down_first_s
        self._down_since = 0.0

    def hint(self) -> None:
        """Ask for a look at the stage's directory."""
        self._woken.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    async def run(self) -> None:
        """Look at each hint, and when something is due, until cancelled; then stop what is in hand and wait for it."""
        wait_s: float | None = 0.0
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()
                self._woken.clear()
                wait_s = await self._fill()
        finally:
            await self._stop()

    async def _fill(self) -> float | None:
        """Begin what may be begun. Returns the seconds until another look is due; None when a hint will tell."""
        try:
            return await self._fill_from_tree()
        except OSError as error:
            self._gate.tell(unusable_spool(error))
            return STORAGE_WAIT_S

    async def _fill_from_tree(self) -> float | None:
        await self._let_go_of_moved()
        if not await self._gate.storage_ready():
            return STORAGE_WAIT_S
        closed_s = self._closed_until - time.monotonic()
        if closed_s > 0:
            return closed_s
        # A backend that was away is asked with one job first.
        slots = (1 if self.trouble else self._limit) - len(self._in_hand)
        if slots <= 0:
            return None
        self._stuck = {name: until for name, until in self._stuck.items() if until > time.monotonic()}
        ready = await offload(self._store.ready, self.stage, {*self._in_hand, *self._stuck}, slots)
        if self.trouble and not ready.ids and not self._in_hand:
            await self._probe()
        for name in ready.ids:
            task = asyncio.create_task(self._job(name, suspect=name in ready.suspects), name=f"{self.stage}:{name}")
            self._in_hand[name] = task
            task.add_done_callback(partial(self._put_down, name))
        return None if ready.next_due_s is None else max(0.05, ready.next_due_s - time.time())

    async def _probe(self) -> None:
        """Ask a backend that was away when no job is left to ask it with."""
        try:
            async with asyncio.timeout(self._policy.down_max_s):
                await self._work.backend.probe()
        except (Unavailable, Unusable) as error:
            self._backend_away(error)
        except Exception:  # noqa: BLE001 - anything else is an answer
            self._backend_answered()
        else:
            self._backend_answered()

    async def _let_go_of_moved(self) -> None:
        if self._in_work:
            gone = await offload(self._store.spool.missing, self.stage, set(self._in_work))
            for name in self._in_work & gone:
                self._in_hand[name].cancel()

    def _put_down(self, name: str, _: asyncio.Task[None]) -> None:
        del self._in_hand[name]
        self._woken.set()

    async def _stop(self) -> None:
        tasks = list(self._in_hand.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _job(self, name: str, *, suspect: bool) -> None:
        """One attempt at one job, from its count on disk to its end on disk."""
        try:
            async with self._engine.quarantine.turn(suspect=suspect):
                await self._begin_and_attempt(name)
        except FileNotFoundError:
            self._events.emit("job.moved_away", job=name, stage=self.stage)
        except StorageTrouble as error:
            self._gate.tell(error)
        except OSError as error:
            if is_storage_trouble(error):
                self._gate.tell(told_of(error))
            else:
                await self._put_aside(name, error)

    async def _begin_and_attempt(self, name: str) -> None:
        beginning = asyncio.ensure_future(self._begin(name))
        try:
            job = await whole(beginning)
        except asyncio.CancelledError:
            if (begun := beginning.result()) is not None:
                await whole(self._give_back(begun))
            raise
        if job is not None:
            await self._attempt(job)

    async def _put_aside(self, name: str, error: OSError) -> None:
        """A move was refused for a reason that is this job's own, such as a folder of its name in the way."""
        refused = Rejected(
            "move_refused",
            f"the job cannot be moved or written: {error}",
            hint="look at what is in the way in output/ or the spool, and at the rights of the daemon's user",
        )
        try:
            await offload(
                self._store.fail_damaged, self.stage, name, Trouble.of(refused, stage=self.stage, at=time.time())
            )
        except (OSError, StorageTrouble):
            self._stuck[name] = time.monotonic() + self._policy.down_max_s
            self._events.emit("job.damaged", job=name, stage=self.stage, error=refused)
        else:
            self._events.emit("job.failed", job=name, stage=self.stage, error=refused, attempt=None)

    async def _begin(self, name: str) -> Job | None:
        try:
            begun = await offload(self._store.begin, self.stage, name)
        except Damaged as error:
            self._events.emit("job.damaged", job=name, stage=self.stage, error=error)
            trouble = Trouble.of(error, stage=self.stage, at=time.time())
            await offload(self._store.fail_damaged, self.stage, name, trouble)
            return None
        crashes = begun.job.crashes.get(self.stage, 0)
        if begun.crashed:
            self._events.emit("job.crashed", job=name, stage=self.stage, crashes=crashes)
        if crashes >= self._policy.crashes_max:
            await self._fail(begun.job, crash_loop(crashes))
            return None
        self._events.emit("stage.started", job=name, stage=self.stage, attempt=begun.job.attempts[self.stage])
        return begun.job

    async def _attempt(self, job: Job) -> None:
        began = time.monotonic()
        try:
            await self._run(job)
        except asyncio.CancelledError as error:
            if not (task := asyncio.current_task()) or not task.cancelling():
                await whole(self._conclude(job, RuntimeError(f"the work was cancelled by itself: {error!r}")))
                return
            await whole(self._give_back(job))
            raise
        except Exception as error:  # noqa: BLE001 - sorted by class in one place; what has none is a bug, and is told as one
            await whole(self._conclude(job, error))
        else:
            await whole(self._finish(job, time.monotonic() - began))

    async def _run(self, job: Job) -> None:
        self._in_work.add(job.id)
        try:
            await self._work.run(job, self._store.workspace(self.stage, job.id))
        finally:
            self._in_work.discard(job.id)

    async def _finish(self, job: Job, seconds: float) -> None:
        path = await offload(self._store.finish, self.stage, job, seconds)
        self._backend_answered()
        self._events.emit("stage.finished", job=job.id, stage=self.stage, seconds=round(seconds, 3))
        if self.stage.next:
            self._engine.hint(self.stage.next)
        else:
            self._events.emit(
                "job.done", job=job.id, seconds=round(time.time() - job.accepted_s, 3), output=f"{DONE}/{path.name}"
            )

    async def _conclude(self, job: Job, error: Exception) -> None:
        """Do what an error's class says will be done."""
        match error:
            case Rejected():
                await self._fail(job, error)
            case RetryLater():
                self._backend_answered()
                await self._defer(job, error)
            case Unavailable() | Unusable():
                self._backend_away(error)
                await offload(self._store.give_back, self.stage, job)
            case StorageTrouble():
                self._gate.tell(error)
                await offload(self._store.give_back, self.stage, job)
            case OSError() if is_storage_trouble(error):
                self._gate.tell(told_of(error))
                await offload(self._store.workspace(self.stage, job.id).sweep)
                await offload(self._store.give_back, self.stage, job)
            case FileNotFoundError() if await offload(self._store.spool.missing, self.stage, {job.id}):
                raise error
            case _:
                self._events.emit("stage.bug", job=job.id, stage=self.stage, error=error)
                await self._fail(job, bug(error))

    async def _defer(self, job: Job, error: RetryLater) -> None:
        attempts = job.attempts[self.stage]
        if attempts >= self._policy.attempts_max:
            await self._fail(job, error)
            return
        now = time.time()
        at = now + self._policy.retry_in_s(attempts, error.after_s)
        trouble = Trouble.of(error, stage=self.stage, at=now, next_try=at)
        await offload(self._store.defer, self.stage, job, trouble, at)
        self._events.emit("job.deferred", job=job.id, stage=self.stage, error=error, attempt=attempts, next_try=at)

    async def _fail(self, job: Job, error: TopicdError) -> None:
        await offload(self._store.fail, self.stage, job, Trouble.of(error, stage=self.stage, at=time.time()))
        attempt = job.attempts.get(self.stage, 0)
        self._events.emit("job.failed", job=job.id, stage=self.stage, error=error, attempt=attempt)

    async def _give_back(self, job: Job) -> None:
        try:
            await offload(self._store.give_back, self.stage, job)
        except FileNotFoundError:
            self._events.emit("job.moved_away", job=job.id, stage=self.stage)
        except StorageTrouble as error:
            self._gate.tell(error)
        else:
            self._events.emit("job.given_back", job=job.id, stage=self.stage)

    def _backend_away(self, error: Unavailable | Unusable) -> None:
        """Close the lane for a while, longer each time, and say so."""
        if time.monotonic() < self._closed_until:
            return  # jobs that were in hand together count as one look
        wait_s = self._down_wait_s
        if isinstance(error, Unusable):
            wait_s = min(wait_s * UNUSABLE_WAIT_FACTOR, self._policy.down_max_s)
        elif error.after_s is not None:
            wait_s = min(max(wait_s, error.after_s), self._policy.down_max_s)
        self._down_since = self._down_since or time.monotonic()
        self._down_wait_s = min(self._down_wait_s * 2, self._policy.down_max_s)
        self._closed_until = time.monotonic() + wait_s
        self.trouble = error
        next_try = time.time() + wait_s
        self._events.emit(
            "backend.unavailable", stage=self.stage, backend=self._work.backend.name, error=error, next_try=next_try
        )

    def _backend_answered(self) -> None:
        if self.trouble is None:
            return
        seconds = round(time.monotonic() - self._down_since, 3)
        self.trouble, self._down_since, self._down_wait_s = None, 0.0, self._policy.down_first_s
        self._events.emit("backend.available", stage=self.stage, backend=self._work.backend.name, seconds=seconds)


class Engine:
    """The three lanes."""

    def __init__(
        self,
        *,
        store: Store,
        works: Mapping[Stage, StageWork],
        limits: Mapping[Stage, int],
        events: Events,
        gate: StorageGate,
        policy: Policy,
    ) -> None:
        self.quarantine: Final = Quarantine()
        self.lanes: Final = {
            stage: Lane(
                stage, work, engine=self, store=store, events=events, gate=gate, limit=limits[stage], policy=policy
            )
            for stage, work in works.items()
        }

    def hint(self, stage: Stage) -> None:
        """Ask for a look at a stage's directory."""
        self.lanes[stage].hint()

    @property
    def is_idle(self) -> bool:
        """Whether no lane has a job in hand."""
        return all(lane.is_idle for lane in self.lanes.values())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self.lanes.values():
                group.create_task(lane.run(), name=lane.stage)
