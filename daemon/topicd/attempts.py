"""One attempt at one job, from its count on disk to its end on disk, and what follows from how it ended.

Owns what an error's class leads to. Promises that an attempt is counted before the work, that a backend or a disk that
is away costs none, that a job at which the backend dies each time is not tried for ever, that a job which fails does so
visibly, and that cancelling gives the attempt back. A job that ends the stage walks straight on into the next lane
where nobody waits before it: its move and its next attempt are one commit. Never does a stage's work, never touches a
file: the store does.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from topicd.breaker import Breaker
from topicd.durable import is_storage_trouble, told_of
from topicd.errors import Awaited, Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable
from topicd.gate import StorageGate
from topicd.handover import Entrance
from topicd.job import Damaged, Job, Trouble
from topicd.policy import Policy, bug, crash_loop, move_refused, server_died, silent
from topicd.spool import DONE
from topicd.stages.base import StageWork
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry.events import Events
from topicd.threads import offload, whole

DIED_CAUSES: Final = frozenset({"bad_gateway", "connection_reset"})
DEATHS_UNPROVEN: Final = 2
DEATHS_KEPT_MAX: Final = 1000


class Deaths:
    """Which jobs the backend died at. That proves nothing: a proxy says the same of a server that is away for hours.

    So from the second time on the backend is asked before. If it answers, and dies with this job alone, the job did it.

    Attributes:
        tested: jobs that began alone after the backend had answered.
    """

    def __init__(self) -> None:
        self._in_a_row = dict[str, int]()
        self.tested = set[str]()

    def is_suspected(self, name: str) -> bool:
        """Tell whether the backend is to be asked before the job is begun."""
        return self._in_a_row.get(name, 0) >= DEATHS_UNPROVEN

    def count(self, name: str, error: Unavailable | Unusable) -> bool:
        """Count how the job ended, and tell whether the backend died of it."""
        if error.cause not in DIED_CAUSES:
            return False
        self._in_a_row[name] = self._in_a_row.pop(name, 0) + 1
        if len(self._in_a_row) > DEATHS_KEPT_MAX:
            self.forget(next(iter(self._in_a_row)))
        return name in self.tested

    def forget(self, name: str) -> None:
        """Take note that the job has ended in another way."""
        self._in_a_row.pop(name, None)
        self.tested.discard(name)


class Attempts:
    """The attempts of one stage.

    Attributes:
        moved_on: jobs that have left the stage; whoever started the attempt takes them out.
        in_work: jobs whose end has not begun: only they can be moved away by a person.
    """

    def __init__(
        self,
        stage: Stage,
        work: StageWork,
        *,
        store: Store,
        events: Events,
        gate: StorageGate,
        policy: Policy,
        breaker: Breaker,
        follower: Callable[[], Entrance | None],
    ) -> None:
        self.stage: Final = stage
        self.moved_on = set[str]()
        self.in_work = set[str]()
        self._stuck = dict[str, float]()  # jobs that could be moved nowhere, and when to try again
        self._work = work
        self._store = store
        self._moves = store.moves
        self._commit = store.commit
        self._events = events
        self._gate = gate
        self._policy = policy
        self._breaker = breaker
        self._deaths = Deaths()
        self._follower = follower

    def stuck_now(self) -> set[str]:
        """Return the jobs to leave alone for now: nothing could be done with them."""
        self._stuck = {name: until for name, until in self._stuck.items() if until > time.monotonic()}
        return set(self._stuck)

    async def make(self, name: str, begun: Job | None) -> None:
        """Make one attempt at a job; `begun` is the job if the attempt is counted already."""
        try:
            if begun:
                await self._attempt(begun)
            else:
                await self._begin_and_attempt(name)
        except FileNotFoundError:
            await self._let_go(name)
        except StorageTrouble as error:
            self._gate.tell(error)
        except OSError as error:
            if is_storage_trouble(error):
                self._gate.tell(told_of(error))
            else:
                await self._put_aside(name, error)
        except Exception as error:  # noqa: BLE001 - else the lane would begin the same job again at once, for ever
            self._events.emit("stage.bug", job=name, stage=self.stage, error=error)
            await self._put_aside(name, error)

    async def _begin_and_attempt(self, name: str) -> None:
        if job := await self._begin(name):
            await self._attempt(job)

    async def _let_go(self, name: str) -> None:
        """Take the sign that a job is in hand away, for the job is elsewhere."""
        self._events.emit("job.moved_away", job=name, stage=self.stage)
        with contextlib.suppress(OSError, TopicdError):
            await self._commit(self._moves.let_go(self.stage, name))

    async def _put_aside(self, name: str, error: Exception) -> None:
        """A move was refused for a reason that is this job's own, such as a folder of its name in the way."""
        refused = move_refused(error)
        try:
            trouble = Trouble.of(refused, stage=self.stage, at=time.time())
            await self._commit(self._moves.fail_damaged(self.stage, name, trouble))
        except Exception:  # noqa: BLE001 - whatever it is, the job stays and is left alone for a while
            self._stuck[name] = time.monotonic() + self._policy.down_max_s
            self._events.emit("job.damaged", job=name, stage=self.stage, error=refused)
        else:
            self._events.emit("job.failed", job=name, stage=self.stage, error=refused, attempt=None)

    async def _begin(self, name: str) -> Job | None:
        try:
            begun = await self._commit(self._moves.begin(self.stage, name))
        except Damaged as error:
            self._events.emit("job.damaged", job=name, stage=self.stage, error=error)
            trouble = Trouble.of(error, stage=self.stage, at=time.time())
            await self._commit(self._moves.fail_damaged(self.stage, name, trouble))
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
            await self.give_back(job)
            raise
        except Exception as error:  # noqa: BLE001 - sorted by class in one place; what has none is a bug, and is told as one
            await whole(self._conclude(job, error))
        else:
            finishing = self._finish(job, time.monotonic() - began)
            await (finishing if self.stage.next else whole(finishing))  # the last one may wait for a copy, too

    async def _run(self, job: Job) -> None:
        self.in_work.add(job.id)
        try:
            await self._ask_before(job.id)
            await self._work.run(job, self._store.workspace(self.stage, job.id))
        finally:
            self.in_work.discard(job.id)

    async def _ask_before(self, name: str) -> None:
        """Learn whether the backend is there before a job that it has died at."""
        self._deaths.tested.discard(name)
        if self._deaths.is_suspected(name):
            await self.knock()
            self._deaths.tested.add(name)
        if len(self.in_work) > 1:
            self._deaths.tested.clear()  # which of them did it could not be told

    async def knock(self) -> None:
        """Ask the backend what it is; raises Unavailable or Unusable when it is away. Anything else is an answer."""
        limit_s = self._policy.down_max_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                await self._work.backend.probe()
        except (Unavailable, Unusable):
            raise
        except Exception as error:
            if limit.expired():
                raise silent(limit_s) from error

    async def _finish(self, job: Job, seconds: float) -> None:
        follower = self._follower()
        goes_on = follower is not None and not job.crashes and follower.reserve()
        try:
            path = await self._move_on(job, begin=goes_on)
        except BaseException:
            if follower and goes_on:
                follower.unreserve()
            raise
        self.moved_on.add(job.id)
        self._deaths.forget(job.id)
        self._breaker.answered()
        self._events.emit("stage.finished", job=job.id, stage=self.stage, seconds=round(seconds, 3))
        if follower is None:
            took_s = round(time.time() - job.accepted_s, 3)
            self._events.emit("job.done", job=job.id, seconds=took_s, output=f"{DONE}/{path.name}")
        elif goes_on:
            await follower.take_over(job.pass_on(self.stage).begin(self.stage.next or ""))
        else:
            follower.expect()

    async def _move_on(self, job: Job, *, begin: bool) -> Path:
        if self.stage.next is None and self._store.is_output_apart:
            # A copy takes its time; nobody shall wait behind it.
            return await offload(self._store.finish, self.stage, job)
        return await self._commit(self._moves.finish(self.stage, job, begin=begin))

    async def _conclude(self, job: Job, error: Exception) -> None:
        """Do what an error's class says will be done."""
        match error:
            case Rejected():
                await self._fail(job, error)
            case RetryLater():
                self._deaths.forget(job.id)
                self._breaker.answered()
                await self._defer(job, error)
            case Awaited():
                self._deaths.forget(job.id)
                self._breaker.answered()
                await self._postpone(job, error)
            case Unavailable() | Unusable():
                await self._found_away(job, error)
            case StorageTrouble():
                self._gate.tell(error)
                await self._commit(self._moves.give_back(self.stage, job))
            case OSError() if is_storage_trouble(error):
                self._gate.tell(told_of(error))
                await offload(self._store.workspace(self.stage, job.id).sweep)
                await self._commit(self._moves.give_back(self.stage, job))
            case FileNotFoundError() if await offload(self._store.spool.missing, self.stage, {job.id}):
                raise error
            case _:
                self._events.emit("stage.bug", job=job.id, stage=self.stage, error=error)
                await self._fail(job, bug(error))

    async def _found_away(self, job: Job, error: Unavailable | Unusable) -> None:
        self._breaker.away(error)
        if self._deaths.count(job.id, error) and isinstance(error, Unavailable):
            await self._defer(job, server_died(error))
        else:
            await self._commit(self._moves.give_back(self.stage, job))

    async def _defer(self, job: Job, error: RetryLater) -> None:
        attempts = job.attempts[self.stage]
        if attempts >= self._policy.attempts_max:
            await self._fail(job, error)
            return
        now = time.time()
        at = now + self._policy.retry_in_s(attempts, error.after_s)
        trouble = Trouble.of(error, stage=self.stage, at=now, next_try=at)
        await self._commit(self._moves.defer(self.stage, job, trouble, at))
        self._events.emit("job.deferred", job=job.id, stage=self.stage, error=error, attempt=attempts, next_try=at)

    async def _postpone(self, job: Job, error: Awaited) -> None:
        """Leave the job for what it waits for, its attempt uncounted."""
        now = time.time()
        at = now + self._policy.await_in_s(error.after_s)
        trouble = Trouble.of(error, stage=self.stage, at=now, next_try=at)
        await self._commit(self._moves.defer(self.stage, job.give_back(self.stage), trouble, at))
        self._events.emit("job.waiting", job=job.id, stage=self.stage, error=error, next_try=at)

    async def _fail(self, job: Job, error: TopicdError) -> None:
        trouble = Trouble.of(error, stage=self.stage, at=time.time())
        await self._commit(self._moves.fail(self.stage, job, trouble))
        self.moved_on.add(job.id)
        self._deaths.forget(job.id)
        attempt = job.attempts.get(self.stage, 0)
        self._events.emit("job.failed", job=job.id, stage=self.stage, error=error, attempt=attempt)

    async def give_back(self, job: Job) -> None:
        """End an attempt that was not the job's to lose."""
        try:
            await self._commit(self._moves.give_back(self.stage, job))
        except FileNotFoundError:
            self._events.emit("job.moved_away", job=job.id, stage=self.stage)
        except StorageTrouble as error:
            self._gate.tell(error)
        else:
            self._events.emit("job.given_back", job=job.id, stage=self.stage)
