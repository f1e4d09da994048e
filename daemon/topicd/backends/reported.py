"""Downloads that say how they go: one event when each begins, goes on, advances and ends.

Owns how often. Promises that every byte that came is told of once, in whichever event. Never changes what is fetched.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Final

from topicd.backends.download import Downloads
from topicd.backends.files import File, Progress
from topicd.errors import TopicdError
from topicd.telemetry.events import Events

TELL_S: Final = 10.0


class ReportedDownloads:
    """`Downloads`, with events.

    Args:
        downloads: what fetches.
        events: who is told.
        tell_s: between two events of one download's advance.
    """

    def __init__(self, downloads: Downloads, events: Events, *, tell_s: float = TELL_S) -> None:
        self._downloads = downloads
        self._events = events
        self._tell_s = tell_s

    async def fetch(self, file: File, progress: Progress | None = None) -> Path:
        """Return the path of the whole, verified file, as `Downloads.fetch` does."""
        if file.target.exists():
            return await self._downloads.fetch(file, progress)
        teller = _Teller(file.target.name, progress or Progress(), self._events)
        ticking = asyncio.create_task(self._tick(teller))
        try:
            path = await self._downloads.fetch(file, teller.told)
        except TopicdError as error:
            teller.end("download.failed", error=error)
            raise
        except asyncio.CancelledError:
            teller.end("download.stopped")
            raise
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
        teller.end("download.finished", seconds=round(time.monotonic() - teller.begun_s, 3))
        return path

    async def _tick(self, teller: "_Teller") -> None:
        while True:
            await asyncio.sleep(self._tell_s)
            teller.advance()


class _Teller:
    """What has been told of one download."""

    def __init__(self, name: str, told: Progress, events: Events) -> None:
        self.told = told
        self.begun_s = time.monotonic()
        self._name = name
        self._events = events
        self._received, self._resumed = told.received, told.resumed
        self._looked_s = self.begun_s
        events.emit("download.started", file=name)

    def advance(self) -> None:
        """Tell what came since the last time."""
        told, now_s = self.told, time.monotonic()
        self._tell_resumed()
        count = self._new_bytes()
        rate = round(count / max(now_s - self._looked_s, 0.001))
        self._looked_s = now_s
        self._events.emit(
            "download.progress",
            file=self._name,
            have=told.have,
            total=told.total,
            bytes=count,
            rate=rate,
            note=told.note,
        )

    def end(self, event: str, **fields: object) -> None:
        """Tell how it ended."""
        self._tell_resumed()
        self._events.emit(event, file=self._name, bytes=self._new_bytes(), **fields)

    def _tell_resumed(self) -> None:
        while self._resumed < self.told.resumed:
            self._resumed += 1
            self._events.emit("download.resumed", file=self._name, have=self.told.have)

    def _new_bytes(self) -> int:
        count = self.told.received - self._received
        self._received += count
        return count
