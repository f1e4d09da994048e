"""When a job is begun, and how many at once; how an attempt ends is in `attempts.py`.

Owns the lanes, one a stage. Promises the oldest first, that a suspect works alone, and that stopping ends all that is
in hand. What is waiting is read from the tree; a lane remembers only what it has in hand. Never does a stage's work,
never touches a file: the store does.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from topicd.attempts import Attempts
from topicd.breaker import Breaker
from topicd.errors import StorageTrouble, TopicdError, Unavailable, Unusable
from topicd.gate import StorageGate, unusable_spool
from topicd.gpu import Gpu
from topicd.job import Job
from topicd.policy import Policy
from topicd.quarantine import Quarantine
from topicd.stages.base import StageWork
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry.events import Events, rfc3339
from topicd.threads import offload

STORAGE_WAIT_S: Final = 2.0


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
        self._work = work
        self._engine = engine
        self._store = store
        self._events = events
        self._gate = gate
        self._gpu = engine.gpu if work.backend.holds_gpu else None
        self._limit = limit
        self._policy = policy
        self._woken = asyncio.Event()
        self._is_hinted = True
        self._is_open = False  # whether nobody waits in the tree, as far as the last look told
        self._is_stopping = False
        self._reserved = 0
        self._handed_over = dict[str, Job]()  # jobs in hand whose attempt is counted and has not begun
        self._next_due_s: float | None = None
        self._in_hand = dict[str, asyncio.Task[None]]()
        self._breaker = Breaker(stage, work.backend.name, events=events, policy=policy)
        self._attempts = Attempts(
            stage,
            work,
            store=store,
            events=events,
            gate=gate,
            policy=policy,
            breaker=self._breaker,
            follower=lambda: engine.lanes[stage.next] if stage.next else None,
        )

    @property
    def trouble(self) -> TopicdError | None:
        """Why the stage waits for its backend; None when it does not."""
        return self._breaker.trouble

    @property
    def since_s(self) -> float | None:
        """Since when it waits, seconds since the epoch; None when it does not."""
        return self._breaker.since_s

    @property
    def why(self) -> str:
        """Why the stage waits and since when, a sentence; empty when it does not."""
        trouble, since_s = self.trouble, self.since_s
        since = f", since {rfc3339(since_s)}" if since_s else ""
        return f"{self.stage} waits: {trouble.words}{since}" if trouble else ""

    def hint(self) -> None:
        """Ask for a look at the stage's directory."""
        self._is_hinted = True
        self._woken.set()

    def expect(self) -> None:
        """Take note that a job waits in the stage's directory."""
        self._is_open = False
        self.hint()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand and not self._reserved

    def reserve(self) -> bool:
        """Keep a place for a job that is on its way here, if it would be begun at once; see `Entrance`."""
        if not (self._is_open and self._engine.quarantine.is_quiet and self._gate.is_known_ready):
            return False
        if self.trouble or len(self._in_hand) + self._reserved >= self._limit:
            return False
        if self._gpu and self._gpu.would_wait(self.stage):
            return False
        self._reserved += 1
        return True

    def unreserve(self) -> None:
        """Give up a place that was kept."""
        self._reserved -= 1
        self.hint()

    async def take_over(self, job: Job) -> None:
        """Work on a job whose attempt is counted, in the place that was kept for it."""
        self._reserved -= 1
        if job.id in self._in_hand:  # a person took it away from here and it is back before its work has noticed
            self.hint()
            return
        self._events.emit("stage.started", job=job.id, stage=self.stage, attempt=job.attempts[self.stage])
        if self._is_stopping:
            await self._attempts.give_back(job)
            return
        self._handed_over[job.id] = job
        self._start(job.id, suspect=False)

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
                self._rest()
        finally:
            self._is_stopping, self._is_open = True, False
            await self._stop()

    async def _fill(self) -> float | None:
        """Begin what may be begun. Returns the seconds until another look is due; None when a hint will tell."""
        try:
            return await self._fill_from_tree()
        except (OSError, StorageTrouble) as error:
            self._is_hinted = True  # the look that was asked for has not been had
            self._gate.tell(unusable_spool(error) if isinstance(error, OSError) else error)
            return STORAGE_WAIT_S

    async def _fill_from_tree(self) -> float | None:
        if self._is_hinted:
            await self._let_go_of_moved()
        if not await self._gate.storage_ready():
            return STORAGE_WAIT_S
        if closed_s := self._breaker.wait_s:
            return closed_s
        # A backend that was away is asked with one job first.
        slots = (1 if self.trouble else self._limit) - len(self._in_hand) - self._reserved
        if slots <= 0:
            self._is_open &= not self._is_hinted and self._due_in_s != 0.0
            return self._due_in_s or None
        if self.trouble or not self._is_open or self._is_hinted or self._due_in_s == 0.0:
            await self._look(slots)
        return self._breaker.wait_s or self._due_in_s

    async def _look(self, slots: int) -> None:
        """Begin what waits, up to so many jobs."""
        hinted, self._is_hinted = self._is_hinted, False
        busy = {*self._in_hand, *self._attempts.stuck_now()}
        ready = await offload(self._store.ready, self.stage, busy, slots, look=hinted)
        if self.trouble and not self._in_hand and not await self._is_worth_asking(with_job=bool(ready.ids)):
            self._is_hinted = True
            return
        for name in ready.ids:
            if self._is_on_its_way(name) or len(self._in_hand) + self._reserved >= self._limit:
                self._is_hinted = True  # it may not arrive, or others took the places meanwhile: look again
            else:
                self._start(name, suspect=name in ready.suspects)
        self._is_open = ready.is_all and not self._is_hinted and not self._is_stopping
        self._next_due_s = ready.next_due_s

    def _is_on_its_way(self, name: str) -> bool:
        """Tell whether a job that a look found is being handed over: its marker is made before it arrives."""
        if name in self._in_hand:
            return True
        return self._reserved > 0 and self._store.is_marked(self.stage, name)

    @property
    def _due_in_s(self) -> float | None:
        """Seconds until the next deferred job may be begun."""
        return None if self._next_due_s is None else max(0.0, self._next_due_s - time.time())

    def _start(self, name: str, *, suspect: bool) -> None:
        task = asyncio.create_task(self._job(name, suspect=suspect), name=f"{self.stage}:{name}")
        self._in_hand[name] = task
        task.add_done_callback(partial(self._put_down, name))

    async def _is_worth_asking(self, *, with_job: bool) -> bool:
        """Ask a backend that was away where no job is left to do it, or would take the GPU for nothing."""
        if with_job and not self._gpu:
            return True
        try:
            await self._attempts.knock()
        except (Unavailable, Unusable) as error:
            self._breaker.away(error)
            return False
        if not with_job:
            self._breaker.answered()
        return True

    async def _let_go_of_moved(self) -> None:
        if self._attempts.in_work:
            gone = await offload(self._store.spool.missing, self.stage, set(self._attempts.in_work))
            for name in self._attempts.in_work & gone:
                self._in_hand[name].cancel()

    def _put_down(self, name: str, _: asyncio.Task[None]) -> None:
        del self._in_hand[name]
        if name in self._attempts.moved_on:
            self._attempts.moved_on.discard(name)
            if self._is_open and not self._is_hinted:
                self._rest()
                return  # nobody waits for its place
        else:
            self._is_hinted = True  # it may still be here, to be begun again
        self._woken.set()

    def _rest(self) -> None:
        """Leave the GPU to others where nothing is to be begun, or waits for a suspect."""
        begins_nothing = self.is_idle or not self._engine.quarantine.is_quiet
        if self._gpu and begins_nothing and not self._woken.is_set():
            self._gpu.rest(self.stage)

    async def _stop(self) -> None:
        tasks = list(self._in_hand.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in self._handed_over.values():
            await self._attempts.give_back(job)

    async def _job(self, name: str, *, suspect: bool) -> None:
        # The GPU last: who has it waits for nobody, ends and passes it on; so those who wait for it leave the
        # quarantine, too, and a suspect comes to be alone. The other way round, one would hold it who may not work.
        async with self._engine.quarantine.turn(suspect=suspect):
            await self._give_back_what_would_wait(name)
            async with self._gpu.turn(self.stage, self._work.backend) if self._gpu else contextlib.nullcontext():
                await self._attempts.make(name, self._handed_over.pop(name, None))

    async def _give_back_what_would_wait(self, name: str) -> None:
        """A job that was handed over while another stage took the GPU is to wait for it with no attempt counted."""
        if self._gpu and name in self._handed_over and self._gpu.would_wait(self.stage):
            await self._attempts.give_back(self._handed_over.pop(name))


class Engine:
    """The three lanes.

    Args:
        gpu: the turns of stages whose backends hold the GPU; None where it has room for all of them.
    """

    def __init__(
        self,
        *,
        store: Store,
        works: Mapping[Stage, StageWork],
        limits: Mapping[Stage, int],
        events: Events,
        gate: StorageGate,
        policy: Policy,
        gpu: Gpu | None = None,
    ) -> None:
        self.quarantine: Final = Quarantine()
        self.gpu: Final = gpu
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
