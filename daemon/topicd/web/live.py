"""One look at the home for all who watch it, and the word that there is something new.

Owns the one task that looks, while anybody watches and no longer. Promises that an idle daemon that nobody watches is
not woken, that there is one look at a time however many ask, that a change is seen within about a second (one by hand,
of which no event tells, within five), and that watchers are bounded. Never decides what is shown.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, Generic, TypeVar

from topicd.web.pulse import Pulse

WATCHERS_MAX: Final = 16
PACE_S: Final = 1.0
STILL_S: Final = 5.0
ALIVE_S: Final = 15.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Live(Generic[T]):
    """Looks once for all.

    Args:
        look: returns what is to be seen now; two that are equal are no news.
        pulse: tells that something happened.
        pace_s: between two looks at least.
        still_s: between two looks at most.
    """

    def __init__(
        self, look: Callable[[], Awaitable[T]], pulse: Pulse, *, pace_s: float = PACE_S, still_s: float = STILL_S
    ) -> None:
        self._look = look
        self._pulse = pulse
        self._pace_s = pace_s
        self._still_s = still_s
        self._watchers = set[asyncio.Queue[T | None]]()
        self._seen: T | None = None
        self._looking: asyncio.Task[T] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody more may watch."""
        return len(self._watchers) >= WATCHERS_MAX

    async def now(self) -> T:
        """Return what is to be seen: the watchers' last look where there are any, else a look of its own."""
        return await self._fresh() if self._seen is None else self._seen

    async def news(self, *, alive_s: float = ALIVE_S) -> AsyncGenerator[T | None, None]:
        """Yield what is seen at first, then each time that it has changed; None when it has not for `alive_s`."""
        news: asyncio.Queue[T | None] = asyncio.Queue(1)
        self._watchers.add(news)
        try:
            if self._seen is not None:
                news.put_nowait(self._seen)
            self._task = self._task or asyncio.create_task(self._run())
            while True:
                try:
                    async with asyncio.timeout(alive_s):
                        seen = await news.get()
                except TimeoutError:
                    yield None
                else:
                    if seen is None:
                        return
                    yield seen
        finally:
            self._watchers.discard(news)
            if not self._watchers:
                await self.aclose()

    async def aclose(self) -> None:
        """Stop looking; who still watches is told that this was all. Safe to call twice."""
        task, self._task, self._seen = self._task, None, None
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._send(None)

    async def _run(self) -> None:
        loop, changed, said = asyncio.get_running_loop(), asyncio.Event(), False

        def hear() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._pulse.listening(hear):
            while True:
                changed.clear()
                try:
                    self._tell(await self._fresh())
                except Exception:  # noqa: BLE001 - the next look may do better; a watcher has what was seen before
                    if not said:
                        said = True
                        _log.warning("the home cannot be looked at for the page; not said again", exc_info=True)
                await asyncio.sleep(self._pace_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._still_s - self._pace_s):
                        await changed.wait()

    def _tell(self, seen: T) -> None:
        if seen != self._seen:
            self._seen = seen
            self._send(seen)

    def _send(self, seen: T | None) -> None:
        for watcher in self._watchers:
            if watcher.full():
                watcher.get_nowait()  # it is slow: it gets the newest only
            watcher.put_nowait(seen)

    async def _fresh(self) -> T:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._one_look())
        return await asyncio.shield(self._looking)

    async def _one_look(self) -> T:
        return await self._look()
