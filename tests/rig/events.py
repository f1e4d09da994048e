"""What tests of parts that run on an event loop share: a sink that keeps what it sees, and a wait with a limit."""

import asyncio
import os
import time
from collections.abc import Callable

from topicd.telemetry.events import Event

# Of a wait that ends well it costs nothing; whoever plants faults, which make waits that do not, has less patience.
LIMIT_S = float(os.environ.get("WAIT_LIMIT_S", "90"))


class Kept:
    """A sink that keeps what it sees."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def see(self, event: Event) -> None:
        self.events.append(event)

    def of(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]


async def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(0.005)
