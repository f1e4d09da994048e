"""Spans, made from events: what a trace shows of a job.

Owns which event begins and ends which span. Promises that every span's parent is sent sooner or later whatever the
attempt comes to, except that the death of the daemon takes the spans in hand with it: the next attempt has its own.
Holds what is in work and nothing else. Never says a word of a topic, never does I/O: `otlp.py` sends.

A trace is a tree: `accept` at the top, under it each attempt at a stage and the job's end, under an attempt its units,
under a unit the calls of its backend.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from topicd.telemetry.events import Event
from topicd.telemetry.tracing import new_span_id, root_id, trace_id

ATTEMPTS_MAX: Final = 4096
_NS: Final = 1_000_000_000
_ENDS: Final = frozenset(
    {"stage.finished", "job.deferred", "job.waiting", "job.failed", "job.damaged", "stage.bug", "job.given_back",
     "job.moved_away"}
)  # fmt: skip


class Span(NamedTuple):
    """One span, ended.

    Attributes:
        name: one of few.
        trace: 32 hexadecimal digits.
        id: 16 hexadecimal digits.
        parent: likewise; empty at the top.
        start_ns: nanoseconds since the epoch.
        end_ns: likewise.
        is_call: whether it is a call of something outside.
        error: what went wrong, a short slug; empty if nothing did.
        attributes: what else is known.
    """

    name: str
    trace: str
    id: str
    parent: str
    start_ns: int
    end_ns: int
    is_call: bool
    error: str
    attributes: Mapping[str, str | int]


@dataclass(slots=True)
class _Unit:
    id: str
    start_ns: int


@dataclass(slots=True)
class _Attempt:
    id: str
    start_ns: int
    number: int
    units: dict[str, _Unit] = field(default_factory=dict)


class TraceSink:
    """Makes spans of events.

    Args:
        send: takes each span; must not wait.
        clock_ns: nanoseconds since the epoch.
    """

    def __init__(self, send: Callable[[Span], None], *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._send = send
        self._clock_ns = clock_ns
        self._attempts: dict[tuple[str, str], _Attempt] = {}

    def see(self, event: Event) -> None:
        """Make what is over by this event into spans."""
        name, fields, _ = event
        match name:
            case "job.accepted":
                self._accepted(fields)
            case "stage.started":
                self._started(fields)
            case "backend.asked":
                self._asked(fields)
            case "unit.finished":
                self._made(fields)
            case _ if name in _ENDS:
                self._ended(name, fields)
        if name in {"job.done", "job.failed"}:
            self._over(name, fields)

    def _accepted(self, fields: Mapping[str, object]) -> None:
        job = str(fields["job"])
        attributes = {"topicd.topic.bytes": _integer(fields["bytes"])}
        self._tell("accept", job, root_id(job), "", self._ago(fields["pickup_s"]), attributes=attributes)

    def _started(self, fields: Mapping[str, object]) -> None:
        if len(self._attempts) >= ATTEMPTS_MAX:
            del self._attempts[next(iter(self._attempts))]
        attempt = _Attempt(new_span_id(), self._clock_ns(), _integer(fields["attempt"]))
        self._attempts[str(fields["job"]), str(fields["stage"])] = attempt

    def _asked(self, fields: Mapping[str, object]) -> None:
        attempt = self._attempt(fields)
        if attempt is None:
            return
        start_ns, unit = self._ago(fields["seconds"]), str(fields["unit"])
        parent = attempt.units.setdefault(unit, _Unit(new_span_id(), start_ns)).id
        outcome = str(fields["outcome"])
        self._tell(
            "call",
            str(fields["job"]),
            str(fields["span_id"]),
            parent,
            start_ns,
            is_call=True,
            error="" if outcome == "ok" else outcome,
            attributes=_named(fields, unit=unit, backend=fields["backend"]),
        )

    def _made(self, fields: Mapping[str, object]) -> None:
        if attempt := self._attempt(fields):
            name = str(fields["unit"])
            start_ns = self._ago(fields["seconds"])
            unit = attempt.units.pop(name, None) or _Unit(new_span_id(), start_ns)
            unit.start_ns = min(unit.start_ns, start_ns)
            self._unit(fields, attempt, name, unit, "")

    def _ended(self, name: str, fields: Mapping[str, object]) -> None:
        attempt = self._attempts.pop((str(fields["job"]), str(fields["stage"])), None)
        if attempt is None:
            return
        error = "" if name in {"stage.finished", "job.given_back", "job.moved_away"} else str(fields["cause"])
        for unit in attempt.units:
            self._unit(fields, attempt, unit, attempt.units[unit], error)
        job = str(fields["job"])
        attributes = {**_named(fields), "topicd.attempt": attempt.number, "topicd.outcome": name}
        self._tell("stage", job, attempt.id, root_id(job), attempt.start_ns, error=error, attributes=attributes)

    def _over(self, name: str, fields: Mapping[str, object]) -> None:
        job = str(fields["job"])
        self._tell(
            name.removeprefix("job."),
            job,
            new_span_id(),
            root_id(job),
            self._ago(fields.get("seconds")),
            error=str(fields.get("cause", "")),
        )

    def _unit(self, fields: Mapping[str, object], attempt: _Attempt, name: str, unit: _Unit, error: str) -> None:
        job, attributes = str(fields["job"]), _named(fields, unit=name)
        self._tell("unit", job, unit.id, attempt.id, unit.start_ns, error=error, attributes=attributes)

    def _tell(
        self,
        name: str,
        job: str,
        span_id: str,
        parent: str,
        start_ns: int,
        *,
        is_call: bool = False,
        error: str = "",
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        about = {"topicd.job": job, **(attributes or {})}
        self._send(Span(name, trace_id(job), span_id, parent, start_ns, self._clock_ns(), is_call, error, about))

    def _attempt(self, fields: Mapping[str, object]) -> _Attempt | None:
        return self._attempts.get((str(fields["job"]), str(fields["stage"])))

    def _ago(self, seconds: object) -> int:
        return self._clock_ns() - (round(seconds * _NS) if isinstance(seconds, int | float) else 0)


def _named(fields: Mapping[str, object], **more: object) -> dict[str, str | int]:
    return {f"topicd.{name}": str(value) for name, value in {"stage": fields["stage"], **more}.items()}


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0
