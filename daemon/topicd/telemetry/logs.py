"""The log: one line an event, JSON for machines, text for a terminal, fields for journald.

Owns the root logger's handler and the form of a line. Promises that a line is one line whatever characters a
file name holds, that every JSON line is an object that any parser takes, that libraries' warnings and
Python's come in the same form, and that one fault repeated does not flood. Never decides what is worth an
event.
"""

import copy
import logging
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from topicd.telemetry.events import TRACEBACK_CHARS_MAX, Event, rfc3339
from topicd.telemetry.journal import JournalHandler, is_journal

Format = Literal["auto", "json", "text", "journal"]

STRING_CHARS_MAX: Final = TRACEBACK_CHARS_MAX
ITEMS_MAX: Final = 100
DEPTH_MAX: Final = 5
INTEGER_MAX: Final = 2**63
REPEAT_WINDOW_S: Final = 60.0
REPEATS_MAX: Final = 5
FAULTS_MAX: Final = 1_000

_PREFIX: Final = "topicd."
_EVENT: Final = "topicd_event"
_COLOURS: Final = {"error": "\x1b[31m", "critical": "\x1b[31m", "warning": "\x1b[33m", "debug": "\x1b[2m"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"


def configure(*, format: Format, level: str, stream: TextIO | None = None) -> None:  # noqa: A002 - the setting's name
    """Send this process's log to one stream; calling it again replaces what it set before.

    Args:
        format: `auto` is the journal where the stream leads there, text on a terminal, else JSON.
        level: `debug`, `info`, `warning` or `error`; of libraries, warnings and worse are shown at most.
        stream: where to, standard error unless told.

    Raises:
        ValueError: the level has no such name.
    """
    stream = stream or sys.stderr
    own = logging.getLogger("topicd")
    own.setLevel(level.upper())
    root = logging.getLogger()
    root.setLevel(max(own.level, logging.WARNING))
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler | JournalHandler)]:
        root.removeHandler(old)
        if isinstance(old, JournalHandler):
            old.close()
    root.addHandler(_handler(format, stream))
    logging.captureWarnings(capture=True)


class LogSink:
    """Writes each event to the log; of one fault, only the first few in a while.

    Of the events that are warnings or worse and tell of no single job, those with the same name, cause, reason
    and stage are one fault: beyond `REPEATS_MAX` in `REPEAT_WINDOW_S` they are counted, and the next one let
    through says how many were not (`suppressed`).

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = logging.getLogger("topicd")
        self._repeats = _Repeats(clock)

    def see(self, event: Event) -> None:
        """Write one event."""
        severity = logging.getLevelNamesMapping()[event.level.upper()]
        # A fault of one job is told for each job: without it nobody learns which one failed.
        suppressed = self._repeats.admit(event) if severity >= logging.WARNING and "job" not in event.fields else 0
        if suppressed is None:
            return
        if suppressed:
            event = replace(event, fields={**event.fields, "suppressed": suppressed})
        self._log.log(severity, "%s", event.message, extra={_EVENT: event})


class _Repeats:
    """Counts each fault's occurrences in its current window."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def admit(self, event: Event) -> int | None:
        """Return how many like it were held back before this one, or None to hold this one back too."""
        fault = (event.name, *(event.fields.get(field) for field in ("cause", "reason", "stage", "name")))
        now_s = self._clock()
        with self._lock:
            since_s, count = self._seen.get(fault, (now_s, 0))
            if now_s - since_s >= REPEAT_WINDOW_S:
                self._note(fault, now_s, 1)
                return max(0, count - REPEATS_MAX)
            self._note(fault, since_s, count + 1)
        return 0 if count < REPEATS_MAX else None

    def _note(self, fault: tuple[object, ...], since_s: float, count: int) -> None:
        if fault not in self._seen and len(self._seen) >= FAULTS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[fault] = (since_s, count)


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure` sets, so that it can find it again."""

    def __init__(self, stream: TextIO, formatter: logging.Formatter) -> None:
        super().__init__(stream)
        self.setFormatter(formatter)


def _handler(wanted: Format, stream: TextIO) -> logging.Handler:
    own = _Handler(stream, _formatter(wanted, stream))
    if wanted == "journal" or (wanted == "auto" and is_journal(stream)):
        return JournalHandler(_shaped, own)
    return own


def _shaped(record: logging.LogRecord) -> tuple[Mapping[str, object], Mapping[str, object]]:
    record = _settled(record)
    told = _fields(record)
    if record.exc_info and "traceback" not in told:
        told = {**told, "traceback": "".join(traceback.format_exception(*record.exc_info))}
    return _head(record), told


def _formatter(wanted: Format, stream: TextIO) -> logging.Formatter:
    is_terminal = stream.isatty()
    if wanted == "json" or (wanted == "auto" and not is_terminal):
        return _Json()
    return _Text(has_colour=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


class _Json(JsonFormatter):
    """`time`, `level`, `event`, `message`, then the event's fields, or `logger` for a library's record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object on one line."""
        return super().format(_settled(record))

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        """Fill in all keys, each with a value that JSON can hold."""
        said = {**_head(record), **_fields(record)}
        if "exc_info" in message_dict:
            said["traceback"] = message_dict["exc_info"]
        log_data.update((key, _safe(value)) for key, value in said.items())


class _Text(logging.Formatter):
    """`15:04:05 info    job.accepted  tides: accepted …`, the traceback, if any, below it."""

    def __init__(self, *, has_colour: bool) -> None:
        super().__init__()
        self._has_colour = has_colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, with indented lines for a traceback only."""
        record = _settled(record)
        head, fields = _head(record), _fields(record)
        event = _visible(str(head.get("logger", head["event"])).removeprefix(_PREFIX))
        at = self._in(_DIM, time.strftime("%H:%M:%S", time.localtime(record.created)))
        level = self._in(_COLOURS.get(str(head["level"]), ""), f"{head['level']:<7}")
        line = f"{at} {level} {event:<15} {_visible(record.getMessage())}{_aside(fields)}"
        trace = fields.get("traceback") or (self.formatException(record.exc_info) if record.exc_info else "")
        return "\n".join([line, *(f"    {_visible(row)}" for row in str(trace).splitlines())])

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._has_colour and colour else text


def _head(record: logging.LogRecord) -> dict[str, object]:
    head: dict[str, object] = {"time": rfc3339(record.created), "level": record.levelname.lower()}
    event = getattr(record, _EVENT, None)
    head["event"] = f"{_PREFIX}{event.name}" if event else "log"
    head["message"] = record.getMessage()
    return head if event else {**head, "logger": record.name}


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    event = getattr(record, _EVENT, None)
    return event.fields if event else {}


def _settled(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy whose message is a string: a library's broken arguments must not cost the line."""
    settled = copy.copy(record)
    try:
        settled.msg = record.getMessage()
    except Exception:  # noqa: BLE001 - any object may be formatted here, and its fault is not the log's
        settled.msg = f"{record.msg!s} (its arguments do not fit)"
    settled.args = None
    return settled


def _aside(fields: Mapping[str, object]) -> str:
    hint, suppressed = fields.get("hint"), fields.get("suppressed")
    told = f" | {_visible(str(hint))}" if hint else ""
    return told + (f" ({suppressed} more like it not shown)" if suppressed else "")


def _visible(text: str) -> str:
    """Return the text with all that is not printable escaped: a file name may hold a terminal's commands."""
    cut = text[:STRING_CHARS_MAX]
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def _safe(value: object, depth: int = 0) -> object:
    """Return the value as JSON can hold it, cut to size."""
    if value is None or (isinstance(value, int) and abs(value) < INTEGER_MAX):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping) and depth < DEPTH_MAX:
        return {_string(key): _safe(item, depth + 1) for key, item in islice(value.items(), ITEMS_MAX)}
    if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH_MAX:
        return [_safe(item, depth + 1) for item in islice(value, ITEMS_MAX)]
    return _string(value)


def _string(value: object) -> str:
    """Return its text, without lone surrogates: not every JSON parser takes them."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - any object may be logged here, and its fault is not the log's
        text = f"<{type(value).__name__}>"
    return text[:STRING_CHARS_MAX].encode("utf-8", "backslashreplace").decode("utf-8")
