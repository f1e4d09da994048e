"""The disk as a gate: work goes on only while there is space and the spool takes writes.

Owns the decision that storage is in trouble, says so once, and says so once when it is well again. Promises
that a full or read-only disk is a pause: it opens again by itself. Never blames a job.
"""

import secrets
import time
from pathlib import Path
from typing import Final

from topicd.durable import Durable, free_bytes, offload
from topicd.errors import StorageTrouble
from topicd.layout import PROBE
from topicd.telemetry.events import Events

LOOK_AGAIN_S: Final = 2.0


def unusable_spool(error: OSError) -> StorageTrouble:
    """Return the trouble of a spool that is gone, or that the daemon's user may not use."""
    return StorageTrouble(
        "spool_trouble",
        f"the spool cannot be used: {error.strerror}: {error.filename}",
        hint="is its file system mounted, and may the daemon's user write there? Work goes on by itself",
    )


class StorageGate:
    """Asked before each claim and each attempt; told of each trouble on the way."""

    def __init__(self, *, root: Path, durable: Durable, events: Events, min_free_bytes: int) -> None:
        self._root = root
        self._durable = durable
        self._events = events
        self._min_free_bytes = min_free_bytes
        self._next_look = 0.0
        self._is_proved = False
        self.trouble: StorageTrouble | None = None

    async def storage_ready(self) -> bool:
        """Return whether work may begin. While in trouble, looks again every two seconds at most, by a real write."""
        if self.trouble and time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_AGAIN_S
        try:
            self._check_free()
            if self.trouble or not self._is_proved:
                await offload(self._write)
                self._is_proved = True
        except StorageTrouble as error:
            self.tell(error)
            return False
        except OSError as error:
            self.tell(unusable_spool(error))
            return False
        if self.trouble:
            self.trouble = None
            self._events.emit("storage.ok")
        return True

    def tell(self, error: StorageTrouble) -> None:
        """Close the gate because of what happened to somebody."""
        if self.trouble is None or self.trouble.cause != error.cause:
            self._events.emit("storage.trouble", error=error)
        self.trouble = error

    def _check_free(self) -> None:
        free = free_bytes(self._root)
        if free < self._min_free_bytes:
            raise StorageTrouble(
                "disk_low",
                f"{free:,} bytes are free in {self._root.absolute()}; work needs {self._min_free_bytes:,}",
                hint="free some space, or lower TOPICD_MIN_FREE_BYTES; work goes on by itself",
            )

    def _write(self) -> None:
        probe = self._root / f"{PROBE}-{secrets.token_hex(4)}"
        self._durable.write(probe, b"topicd\n")
        self._durable.remove(probe)
