"""Who is in work together: many jobs, or one suspect alone.

Owns the answer to "which job killed the daemon?". All that were in work when it died are counted a crash; from then
on each of them is run alone, so that the next death is counted against the guilty one only and the others finish.
Promises that a suspect waiting for its turn is not overtaken for ever. Never reads a job: it is told who is suspect.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Quarantine:
    """A lock that many hold together, or one suspect alone."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._together = 0
        self._suspects_waiting = 0
        self._alone = False

    @property
    def is_quiet(self) -> bool:
        """Whether no suspect is in work or waits: a turn among the others would be had at once."""
        return not self._alone and not self._suspects_waiting

    @contextlib.asynccontextmanager
    async def turn(self, *, suspect: bool) -> AsyncIterator[None]:
        """Wait for a turn, and hold it for the length of a block."""
        await (self._enter_alone() if suspect else self._enter_together())
        try:
            yield
        finally:
            if suspect:
                self._alone = False
            else:
                self._together -= 1
            self._changed.set()

    async def _enter_together(self) -> None:
        while not self.is_quiet:
            await self._change()
        self._together += 1

    async def _enter_alone(self) -> None:
        self._suspects_waiting += 1
        try:
            while self._alone or self._together:
                await self._change()
        finally:
            self._suspects_waiting -= 1
            self._changed.set()
        self._alone = True

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
