"""One fault that repeats: shown a few times, then counted.

Owns what counts as the same fault, and for how long. Promises that what is not shown is told as a number, once its
minute is over and anything else happens, and that memory is bounded however many faults there are. Never drops what is
no fault.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from topicd.telemetry.events import Event

WINDOW_S: Final = 60.0
SHOWN_MAX: Final = 5
JOBS_SHOWN_MAX: Final = 100
"""A fault of a job is told for each job, as many as a person may read: reason.json tells of all of them."""
FAULTS_MAX: Final = 1_000

_SAME: Final = ("cause", "reason", "stage", "name")


@dataclass(slots=True)
class _Seen:
    fault: tuple[object, ...]
    since_s: float
    count: int = 0
    held: int = 0


class Repeats:
    """Counts each fault's occurrences in its current minute. May be used from any thread.

    Attributes:
        due_s: when the next minute is over in which something was held back, as the caller's clock tells; infinite
            when none is.
    """

    def __init__(self) -> None:
        self.due_s = math.inf
        self._lock = threading.Lock()
        self._seen: dict[tuple[object, ...], _Seen] = {}

    def admit(self, event: Event, now_s: float) -> Event | None:
        """Return what to show of a fault: the event, without its traceback from the sixth on, or nothing."""
        fault = (event.name, *map(event.fields.get, _SAME))
        has_job = "job" in event.fields
        with self._lock:
            seen = self._of(fault, now_s)
            seen.count += 1
            if seen.count > (JOBS_SHOWN_MAX if has_job else SHOWN_MAX):
                seen.held += 1
                self.due_s = min(self.due_s, seen.since_s + WINDOW_S)
                return None
        if seen.count > SHOWN_MAX and "traceback" in event.fields:
            return event._replace(fields={name: value for name, value in event.fields.items() if name != "traceback"})
        return event

    def over(self, now_s: float) -> list[Event]:
        """Return what to tell of the faults whose minute is over; an infinite `now_s` ends every minute."""
        with self._lock:
            over = [seen for seen in self._seen.values() if seen.held and now_s - seen.since_s >= WINDOW_S]
            for seen in over:
                del self._seen[seen.fault]
            self.due_s = min((seen.since_s + WINDOW_S for seen in self._seen.values() if seen.held), default=math.inf)
        return list(_summaries(over))

    def _of(self, fault: tuple[object, ...], now_s: float) -> _Seen:
        seen = self._seen.get(fault)
        if seen is None or now_s - seen.since_s >= WINDOW_S:
            if seen is None and len(self._seen) >= FAULTS_MAX:
                del self._seen[next(iter(self._seen))]
            seen = self._seen[fault] = _Seen(fault, now_s)
        return seen


def _summaries(over: list[_Seen]) -> Iterator[Event]:
    for seen in over:
        name, cause, reason, stage, _ = seen.fault
        fields = {"of": f"topicd.{name}", "count": seen.held, "cause": cause or reason, "stage": stage}
        yield Event("log.repeated", fields)
