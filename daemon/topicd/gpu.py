"""Whose turn it is at the GPU: stages whose backends do not fit into its memory together take it in batches.

Owns who has the GPU, who waits for it, and when it passes on. Promises that one stage has it at a time, that its
backend is asked to free it before the next one begins, that stages have it in the order in which they came, and that
none waits for longer than a batch of each of the others. Never begins a job: who waits here has not begun.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from topicd.backends.base import Backend, Frees
from topicd.errors import Unavailable
from topicd.states import Stage
from topicd.telemetry.events import Events

BATCH_JOBS_MAX: Final = 8
BATCH_S_MAX: Final = 600.0
FREE_S_MAX: Final = 30.0
BETWEEN_JOBS_S_MAX: Final = 2.0


class Gpu:
    """A lock that the jobs of one stage hold together, and that passes from stage to stage.

    Args:
        events: who is told that it passed on.
        batch_jobs_max: how many jobs a stage may begin once another stage waits.
        batch_s_max: for how long it may go on beginning jobs then.
        free_s_max: how long a backend may take to free it.
        between_jobs_s_max: how long a stage may take to come with its next job while another waits.
    """

    def __init__(
        self,
        *,
        events: Events,
        batch_jobs_max: int = BATCH_JOBS_MAX,
        batch_s_max: float = BATCH_S_MAX,
        free_s_max: float = FREE_S_MAX,
        between_jobs_s_max: float = BETWEEN_JOBS_S_MAX,
    ) -> None:
        self._events = events
        self._batch_jobs_max = batch_jobs_max
        self._batch_s_max = batch_s_max
        self._free_s_max = free_s_max
        self._between_jobs_s_max = between_jobs_s_max
        self._owner: Stage | None = None  # who has it, or had it last: its backend may still fill the memory
        self._backend: Backend | None = None
        self._inside = 0
        self._waiting = dict[Stage, int]()  # how many jobs of each stage, in the order of their turns
        self._is_passing = False
        self._batch_left = batch_jobs_max
        self._batch_until = 0.0
        self._kept_until = 0.0
        self._changed = asyncio.Event()

    def would_wait(self, stage: Stage) -> bool:
        """Tell whether a job of a stage would have to wait for its turn, were it only for the memory to be freed."""
        return self._owner is not None and not self._may_go_on(stage)

    def rest(self, stage: Stage) -> None:
        """Take note that a stage has no job to come with for now; else those who wait find out by a limit."""
        if stage == self._owner and self._kept_until:
            self._kept_until = 0.0
            self._changed.set()

    @contextlib.asynccontextmanager
    async def turn(self, stage: Stage, backend: Backend) -> AsyncIterator[None]:
        """Wait until a stage has the GPU, and hold it for the length of a block."""
        if not self._may_go_on(stage):
            await self._wait(stage, backend)
        self._inside += 1
        if self._next is not None:
            self._batch_left -= 1
        try:
            yield
        finally:
            self._leave()

    @property
    def _next(self) -> Stage | None:
        """Who waits for whoever has it."""
        return next((stage for stage in self._waiting if stage != self._owner), None)

    @property
    def _is_batch_open(self) -> bool:
        return self._batch_left > 0 and time.monotonic() < self._batch_until

    def _open_batch(self) -> None:
        self._batch_left = self._batch_jobs_max
        self._batch_until = time.monotonic() + self._batch_s_max
        self._kept_until = 0.0

    def _may_go_on(self, stage: Stage) -> bool:
        """Tell whether a job may begin because its stage has the GPU."""
        return stage == self._owner and not self._is_passing and (self._next is None or self._is_batch_open)

    def _may_take(self, stage: Stage) -> bool:
        """Tell whether a stage may take the GPU, which is another's or nobody's."""
        is_free = not (self._inside or self._is_passing or time.monotonic() < self._kept_until)
        return is_free and stage == self._next

    async def _wait(self, stage: Stage, backend: Backend) -> None:
        if self._next is None and stage != self._owner:
            self._open_batch()
        self._waiting[stage] = self._waiting.get(stage, 0) + 1
        try:
            while not self._may_go_on(stage):
                if self._may_take(stage):
                    await self._pass_to(stage, backend)
                    break  # whoever took it begins, however short a batch is
                await self._change()
        finally:
            self._waiting[stage] -= 1
            if not self._waiting[stage]:
                del self._waiting[stage]
            self._changed.set()

    async def _pass_to(self, stage: Stage, backend: Backend) -> None:
        # In the task of the one who waits: if that is cancelled the next one asks again, and nothing is left running.
        self._is_passing = True
        try:
            is_freed = await self._free()
        finally:
            self._is_passing = False
            self._changed.set()
        before, self._owner, self._backend = self._owner, stage, backend
        self._waiting[stage] = self._waiting.pop(stage)  # what does not fit into the batch waits behind the others
        self._open_batch()
        if before and is_freed:
            self._events.emit("gpu.passed", stage=stage, before=before)

    async def _free(self) -> bool:
        """Have the memory freed; an error does not hold up the next one, whose server may cope."""
        if not isinstance(self._backend, Frees):
            return True
        error: Exception
        try:
            async with asyncio.timeout(self._free_s_max):
                await self._backend.free()
        except TimeoutError:
            error = Unavailable("free_timeout", f"no answer within {self._free_s_max:g} s")
        except Exception as other:  # noqa: BLE001 - whatever it is, it is told
            error = other
        else:
            return True
        self._events.emit("gpu.not_freed", before=self._owner, error=error)
        return False

    def _leave(self) -> None:
        self._inside -= 1
        # Between two jobs a lane looks into its directory. Passing on just then would make each batch one of one job.
        is_kept = not self._inside and self._next is not None and self._is_batch_open
        self._kept_until = time.monotonic() + self._between_jobs_s_max if is_kept else 0.0
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        kept_s = self._kept_until - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(kept_s if kept_s > 0 else None):
                await self._changed.wait()
