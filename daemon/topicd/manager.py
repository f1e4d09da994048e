"""What the service manager is told of the daemon's life: that it starts, is ready, is alive, is at work, stops.

Owns when that is told, and the words of the status. Promises that the watchdog is fed by the event loop that does the
work, and only while every part of the work is under way; that a long start is not taken for a hang; that the status is
sent when it changed, at most every `STATUS_EACH_S`, and that nothing is looked at where nothing happens. Does nothing
where no service manager listens. Never feeds from a thread, and never tells a manager what is not so.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from topicd.spool import Spool
from topicd.states import Aside, Stage
from topicd.telemetry import sdnotify
from topicd.telemetry.events import Event
from topicd.threads import offload

STATUS_EACH_S: Final = 3.0
LOOK_SHARE: Final = 0.05
"""Most of the time that the looks for a status may take: a million jobs are counted more rarely."""
EXTEND_EACH_S: Final = 15.0
EXTENDED_S: Final = 60.0
US_PER_S: Final = 1_000_000
CHANGES: Final = ("job.", "stage.", "backend.", "storage.", "watcher.")


class ServiceManager:
    """The daemon's word to systemd; also a sink of events, which tells it when a status may have changed.

    Args:
        work: says in one sentence what is in the spool; may wait for the disk.
        trouble: says why jobs are not taken or wait, a sentence each; none where all is well.
    """

    def __init__(self, *, work: Callable[[], str], trouble: Callable[[], Sequence[str]]) -> None:
        self._work = work
        self._trouble = trouble
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_changed = asyncio.Event()

    def starting(self) -> None:
        """Ask for patience until the daemon is ready."""
        if sdnotify.is_managed():
            self._do(self._extend())

    def ready(self, parts: Sequence[asyncio.Task[None]]) -> None:
        """Tell that topics are taken, and from now on that this is still so.

        Args:
            parts: the tasks that together do the work; the watchdog is no longer fed when one of them has ended.
        """
        if not sdnotify.is_managed():
            return
        sdnotify.notify(ready=1, status=self._with_trouble("ready"))
        self._loop = asyncio.get_running_loop()
        self._is_changed.set()
        self._do(self._feed(parts), self._tell())

    def stopping(self, limit_s: float) -> None:
        """Tell that the daemon ends, and how long that may take in seconds."""
        self._loop = None
        self._do()
        sdnotify.notify(stopping=1, status="stopping", extend_timeout_usec=int(limit_s * US_PER_S))

    def see(self, event: Event) -> None:
        """Take note that the status may have changed."""
        if self._loop and event.name.startswith(CHANGES):
            self._loop.call_soon_threadsafe(self._is_changed.set)

    def _do(self, *works: Coroutine[Any, Any, None]) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = [asyncio.create_task(work) for work in works]

    async def _extend(self) -> None:
        while True:
            sdnotify.notify(extend_timeout_usec=int(EXTENDED_S * US_PER_S), status=self._with_trouble("starting"))
            await asyncio.sleep(EXTEND_EACH_S)

    async def _feed(self, parts: Sequence[asyncio.Task[None]]) -> None:
        wanted_s = sdnotify.watchdog_s()
        while wanted_s and not any(part.done() for part in parts):
            sdnotify.notify(watchdog=1)
            await asyncio.sleep(wanted_s / 2)

    async def _tell(self) -> None:
        said, pause_s = "", STATUS_EACH_S
        while True:
            await self._is_changed.wait()
            await asyncio.sleep(pause_s)
            self._is_changed.clear()
            began_s = time.monotonic()
            status = self._with_trouble(await offload(self._count))
            pause_s = max(STATUS_EACH_S, (time.monotonic() - began_s) / LOOK_SHARE)
            if status != said and sdnotify.notify(status=status):
                said = status

    def _count(self) -> str:
        try:
            return self._work()
        except OSError as error:
            return f"the spool cannot be read: {error.strerror}"

    def _with_trouble(self, words: str) -> str:
        return "; ".join([words, *self._trouble()])


def counted(spool: Spool, run: str) -> str:
    """Return how many jobs this run of the daemon works on, how many wait, and how many are aside, in words."""
    surveys = [spool.survey(stage) for stage in Stage]
    working = sum(marker.run == run for survey in surveys for marker in survey.markers)
    waiting = max(0, sum(survey.jobs for survey in surveys) - working)
    aside = ((spool.survey(place).jobs, place) for place in Aside)
    return ", ".join(
        [f"{working} working", f"{waiting} waiting", *(f"{jobs} {place}" for jobs, place in aside if jobs)]
    )
