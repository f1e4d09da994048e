"""The log: one line an event, JSON for machines, text for a terminal, fields for journald.

Owns where this process's log goes, and that one fault repeated does not flood it. Promises that events are written in
their order, each before `emit` returns, and that libraries' warnings and Python's come in the same form. Never decides
what is worth an event.
"""

import io
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol, TextIO

from topicd.telemetry.events import EVENTS, Event
from topicd.telemetry.journal import JournalHandler, is_journal
from topicd.telemetry.lines import Form, Json, Line, Text
from topicd.telemetry.repeats import Repeats

Format = Literal["auto", "json", "text", "journal"]

_SEVERITIES: Final = {name: logging.getLevelNamesMapping()[spec.level.upper()] for name, spec in EVENTS.items()}
_LAST: Final = "daemon.stopped"


class Output(Protocol):
    """Where events go. Neither it nor what it writes to may raise into the work that is logged."""

    def tell_event(self, event: Event) -> None:
        """Write an event that happened now."""
        ...


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
    use(_handler(format, stream))
    logging.captureWarnings(capture=True)


def use(handler: "LineHandler | JournalHandler") -> None:
    """Send events and libraries' records to one handler, in the place of the one before."""
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, LineHandler | JournalHandler)]:
        root.removeHandler(old)
        if isinstance(old, JournalHandler):
            old.close()
    root.addHandler(handler)
    _Current.output = handler


class _Current:
    """Where events go now; a process has one log."""

    output: Output | None = None


class LogSink:
    """Writes each event to the log; of one fault, only the first few in a while (`repeats.py`).

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = logging.getLogger("topicd")
        self._clock = clock
        self._repeats = Repeats()

    def see(self, event: Event) -> None:
        """Write one event."""
        severity = _SEVERITIES[event.name]
        if self._repeats.due_s < math.inf:
            self._tell_repeats(math.inf if event.name == _LAST else self._clock())
        if severity < self._own.level:
            return
        shown = self._repeats.admit(event, self._clock()) if severity >= logging.WARNING else event
        if shown and _Current.output:
            _Current.output.tell_event(shown)

    def _tell_repeats(self, now_s: float) -> None:
        if now_s >= self._repeats.due_s and _Current.output:
            for summary in self._repeats.over(now_s):
                _Current.output.tell_event(summary)


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines to a stream."""

    def __init__(self, stream: TextIO, form: Form) -> None:
        super().__init__(stream)
        self._form = form
        self._fd = stream.fileno() if isinstance(stream, io.TextIOWrapper) else None

    def format(self, record: logging.LogRecord) -> str:
        """Return a library's record as a line."""
        return self._form.format(record)

    def tell_event(self, event: Event) -> None:
        """Write an event that happened now."""
        self._write(self._form.write_event(event, time.time()))

    def tell(self, line: Line) -> None:
        """Write a line that the journal did not take."""
        self._write(self._form.write(line))

    def _write(self, text: str) -> None:
        try:
            if self._fd is None:
                self.stream.write(f"{text}\n")
                return
            # One call a line, for files and pipes: what other threads write does not come into its middle.
            data = f"{text}\n".encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(self._fd, data) :]
        except (OSError, ValueError):
            pass  # the other end is closed or full, and there is no other place to tell it


def _handler(wanted: Format, stream: TextIO) -> LineHandler | JournalHandler:
    own = LineHandler(stream, _form(wanted, stream))
    if wanted == "journal" or (wanted == "auto" and is_journal(stream)):
        return JournalHandler(own)
    return own


def _form(wanted: Format, stream: TextIO) -> Form:
    is_terminal = stream.isatty()
    if wanted == "json" or (wanted == "auto" and not is_terminal):
        return Json()
    return Text(has_colour=is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")
