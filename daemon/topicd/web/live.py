"""The overview, sent to whoever watches: server-sent events.

Owns the one task that looks, while anybody watches and no longer. Promises that an idle daemon that nobody watches is
not woken, that all watchers share one look, and that their number is bounded. Never decides what is shown.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

WATCHERS_MAX: Final = 16
LOOK_S: Final = 1.0
ALIVE_S: Final = 15.0

State = dict[str, Any]


class Live:
    """Looks once for all who watch.

    Args:
        look: returns the present state.
        look_s: between two looks.
    """

    def __init__(self, look: Callable[[], Awaitable[State]], *, look_s: float = LOOK_S) -> None:
        self._look = look
        self._look_s = look_s
        self._watchers = set[asyncio.Queue[State]]()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody more may watch."""
        return len(self._watchers) >= WATCHERS_MAX

    async def states(self, *, alive_s: float = ALIVE_S) -> AsyncGenerator[State | None, None]:
        """Yield each new state, the present one first; None when there was none for `alive_s`."""
        news: asyncio.Queue[State] = asyncio.Queue(1)
        self._watchers.add(news)
        try:
            self._task = self._task or asyncio.create_task(self._run())
            while True:
                try:
                    async with asyncio.timeout(alive_s):
                        state = await news.get()
                except TimeoutError:
                    yield None
                else:
                    yield state
        finally:
            self._watchers.discard(news)
            if not self._watchers:
                await self.aclose()

    async def aclose(self) -> None:
        """Stop looking. Safe to call twice."""
        task, self._task = self._task, None
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        told = dict[asyncio.Queue[State], State]()
        while True:
            state = await self._look()
            for watcher in tuple(self._watchers):
                if told.get(watcher) != state:
                    told[watcher] = state
                    if watcher.full():
                        watcher.get_nowait()  # it is slow: it gets the newest only
                    watcher.put_nowait(state)
            told = {watcher: state for watcher, state in told.items() if watcher in self._watchers}
            await asyncio.sleep(self._look_s)
