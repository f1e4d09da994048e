"""The form of a line of the log: an event or a library's record, as JSON or for a terminal.

Owns how a value is written. Promises one line whatever characters a file name holds, that every line of JSON is an
object that any parser takes, and that events, of which there may be thousands a second, take the short way: no
`LogRecord` is made for them. Never decides what is written, or where to.
"""

import copy
import json
import logging
import math
import time
import traceback
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

from pydantic_core import PydanticSerializationError, to_json
from pythonjsonlogger.json import JsonFormatter

from topicd.telemetry.events import EVENTS, TRACEBACK_CHARS_MAX, Event, rfc3339

STRING_CHARS_MAX: Final = TRACEBACK_CHARS_MAX
ITEMS_MAX: Final = 100
DEPTH_MAX: Final = 5
INTEGER_MAX: Final = 2**63

_PREFIX: Final = "topicd."
_FULL_NAMES: Final = {name: f"{_PREFIX}{name}" for name in EVENTS}
_COLOURS: Final = {"error": "\x1b[31m", "critical": "\x1b[31m", "warning": "\x1b[33m", "debug": "\x1b[2m"}
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_PLAIN_TYPES: Final = frozenset({str, int, float, bool, type(None)})


class Line(NamedTuple):
    """What a line says.

    Attributes:
        at_s: when it happened, seconds since the epoch.
        level: in small letters.
        event: the event's full name; `log` for a library's record.
        message: one sentence.
        fields: the event's and its context's; of a library's record `logger`, and `traceback` if there is one.
    """

    at_s: float
    level: str
    event: str
    message: str
    fields: Mapping[str, object]

    @classmethod
    def of(cls, event: Event, at_s: float) -> "Line":
        """Return the line of an event."""
        fields = {**event.fields, **event.context} if event.context else event.fields
        return cls(at_s, event.level, _FULL_NAMES[event.name], event.message, fields)

    @classmethod
    def of_record(cls, record: logging.LogRecord) -> "Line":
        """Return the line of a library's record."""
        fields = {"logger": record.name}
        if record.exc_info:
            fields["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return cls(record.created, record.levelname.lower(), "log", settled(record).getMessage(), fields)


class Form(Protocol):
    """One way to write a line."""

    def write_event(self, event: Event, at_s: float) -> str:
        """Return an event as text, without the line's end."""
        ...

    def write(self, line: Line) -> str:
        """Return any line likewise."""
        ...

    def format(self, record: logging.LogRecord) -> str:
        """Return a library's record likewise."""
        ...


class Json(JsonFormatter):
    """`time`, `level`, `event`, `message`, then the event's fields, or `logger` for a library's record."""

    def __init__(self) -> None:
        super().__init__(json_serializer=_encoded)
        self._ms = -1
        self._ms_text = ""

    def write_event(self, event: Event, at_s: float) -> str:
        """Return an event as one JSON object; by the short way, if its values are plain."""
        name, fields, context = event
        spec = EVENTS[name]
        message = spec.sentence(fields)
        data: dict[str, object] = {"time": self._time(at_s), "level": spec.level, "event": _FULL_NAMES[name]}
        data["message"] = message
        data.update(fields)
        data.update(context)
        if isinstance(stage := fields.get("stage"), str):
            data["stage"] = str(stage)  # an enumeration's member would take as long as all else together
        try:
            text = to_json(data, inf_nan_mode="strings") if _PLAIN_TYPES.issuperset(map(type, data.values())) else b""
        except PydanticSerializationError:  # a lone surrogate
            text = b""
        if text and text.isascii() and len(text) <= STRING_CHARS_MAX:
            return text.decode()
        return self._written(data)

    def write(self, line: Line) -> str:
        """Return any line likewise."""
        return self._written(self._head(line))

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one JSON object."""
        return super().format(settled(record))

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        """Fill in all keys, each with a value that JSON can hold."""
        del message_dict
        log_data.update((key, _safe(value)) for key, value in self._head(Line.of_record(record)).items())

    def _head(self, line: Line) -> dict[str, object]:
        time_ = self._time(line.at_s)
        return {"time": time_, "level": line.level, "event": line.event, "message": line.message, **line.fields}

    def _written(self, data: Mapping[str, object]) -> str:
        return _encoded({key: _safe(value) for key, value in data.items()})

    def _time(self, at_s: float) -> str:
        """Return RFC 3339 in UTC with milliseconds; its text is kept, as many events share one."""
        ms = int(at_s * 1000)
        if ms != self._ms:
            self._ms_text, self._ms = rfc3339(ms / 1000), ms
        return self._ms_text


class Text:
    """`15:04:05 info    job.accepted  tides: accepted …`, the traceback, if any, below it."""

    def __init__(self, *, has_colour: bool) -> None:
        self._has_colour = has_colour

    def write_event(self, event: Event, at_s: float) -> str:
        """Return an event as one line."""
        return self.write(Line.of(event, at_s))

    def write(self, line: Line) -> str:
        """Return it as one line, with indented lines for a traceback only."""
        name = _visible(str(line.fields.get("logger", line.event)).removeprefix(_PREFIX))
        at = self._in(_DIM, time.strftime("%H:%M:%S", time.localtime(line.at_s)))
        level = self._in(_COLOURS.get(line.level, ""), f"{line.level:<7}")
        hint = line.fields.get("hint")
        aside = f" | {_visible(str(hint))}" if hint else ""
        rows = str(line.fields.get("traceback", "")).splitlines()
        first = f"{at} {level} {name:<15} {_visible(line.message)}{aside}"
        return "\n".join([first, *(f"    {_visible(row)}" for row in rows)])

    def format(self, record: logging.LogRecord) -> str:
        """Return the record likewise."""
        return self.write(Line.of_record(record))

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._has_colour and colour else text


def settled(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy whose message is a string: a library's broken arguments must not cost the line."""
    copied = copy.copy(record)
    try:
        copied.msg = record.getMessage()
    except Exception:  # noqa: BLE001 - any object may be formatted here, and its fault is not the log's
        copied.msg = f"{record.msg!s} (its arguments do not fit)"
    copied.args = None
    return copied


def _encoded(data: object, **_: Any) -> str:
    """Return JSON of plain ASCII, with no space between, as the short way writes it."""
    return json.dumps(data, separators=(",", ":"))


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
