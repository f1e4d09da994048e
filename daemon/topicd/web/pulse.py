"""What has happened lately, and the word that something has.

Owns counts a minute of the last hour, how long the last units of each stage took, and who is to be told of a change.
Promises a bounded memory and that nobody is woken who does not listen. Never says how many jobs there are: the tree
does.
"""

import contextlib
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from topicd.telemetry.events import Event

MINUTES: Final = 60
MINUTE_S: Final = 60.0
UNITS_KEPT: Final = 32
_UNIT: Final = "unit.finished"
_COUNTED: Final[Mapping[str, str]] = {
    "job.accepted": "accepted",
    "job.done": "done",
    "job.failed": "failed",
    _UNIT: "units",
}


@dataclass(frozen=True, slots=True)
class Lately:
    """The last hour, or what there is of it since the start.

    Attributes:
        accepted: jobs accepted.
        done: jobs finished.
        failed: jobs given up.
        units: units made in each of the last 60 minutes, the oldest first; the last is the minute that runs.
        is_whole: whether it is an hour, and not less since the start.
    """

    accepted: int
    done: int
    failed: int
    units: tuple[int, ...]
    is_whole: bool


class Pulse:
    """Sees every event; see `topicd.telemetry.events.Sink`.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._minute()
        self._lock = threading.Lock()
        self._minutes: deque[tuple[int, Counter[str]]] = deque(maxlen=MINUTES)
        self._seconds: dict[str, deque[float]] = {}
        self._listeners = set[Callable[[], None]]()

    def see(self, event: Event) -> None:
        """Count it, and tell who listens; from any thread."""
        with self._lock:
            if counted := _COUNTED.get(event.name):
                self._count(counted)
            if event.name == _UNIT:
                self._note(str(event.fields["stage"]), event.fields["seconds"])
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have a listener called at each event, from any thread, for the length of a block."""
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def lately(self) -> Lately:
        """Return the last hour."""
        now = self._minute()
        with self._lock:
            minutes = {minute: Counter(counts) for minute, counts in self._minutes if minute > now - MINUTES}
        total = sum(minutes.values(), Counter())
        units = tuple(minutes.get(minute, Counter())["units"] for minute in range(now - MINUTES + 1, now + 1))
        is_whole = now - self._began >= MINUTES
        return Lately(total["accepted"], total["done"], total["failed"], units, is_whole)

    def unit_s(self, stage: str) -> float | None:
        """Return how long a unit of a stage usually takes, seconds: the median of the last; None before the first."""
        with self._lock:
            seconds = self._seconds.get(stage)
            return statistics.median(seconds) if seconds else None

    def _count(self, counted: str) -> None:
        minute = self._minute()
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, Counter()))
        self._minutes[-1][1][counted] += 1

    def _note(self, stage: str, seconds: object) -> None:
        if isinstance(seconds, int | float):
            self._seconds.setdefault(stage, deque(maxlen=UNITS_KEPT)).append(float(seconds))

    def _minute(self) -> int:
        return int(self._clock() // MINUTE_S)
