"""The log as journald takes it: each event's fields as fields of its own.

Owns the native protocol (systemd.io, "Native Journal Protocol"): by systemd-python where it is installed, else by one
datagram of our own. Promises never to raise into the work that is logged: what journald does not take goes to standard
error, and so does, without the library, what it would have to be waited for. Never decides what is worth an event.
"""

import contextlib
import importlib
import logging
import os
import socket
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final, Protocol, TextIO

from topicd.telemetry.advice import message_id
from topicd.telemetry.events import Event
from topicd.telemetry.lines import Line

SOCKET: Final = Path("/run/systemd/journal/socket")
FIELD_BYTES_MAX: Final = 32_768
FIELDS_MAX: Final = 60
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

Send = Callable[[list[bytes]], object]


def is_journal(stream: TextIO) -> bool:
    """Tell whether a stream leads to the journal, as JOURNAL_STREAM says (systemd.exec(5))."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def fields(line: Line) -> dict[str, str]:
    """Return a line's journal fields."""
    own = {
        f"TOPICD_{name.upper()}": str(value) for name, value in line.fields.items() if value is not None and value != ""
    }
    return {
        "MESSAGE": line.message,
        "PRIORITY": str(_PRIORITIES.get(line.level, 6)),
        "SYSLOG_IDENTIFIER": "topicd",
        "TOPICD_EVENT": line.event,
        **({} if "logger" in line.fields else {"MESSAGE_ID": message_id(line.event)}),
        **dict(islice(own.items(), FIELDS_MAX)),
    }


class Rescue(Protocol):
    """Where lines go that the journal does not take."""

    def tell(self, line: Line) -> None:
        """Write one line."""
        ...


class JournalHandler(logging.Handler):
    """Sends each line to the journal.

    Args:
        rescue: where lines go that the journal does not take.
        datagrams: journald's socket; None: systemd-python where it is installed, else the socket.
    """

    def __init__(self, rescue: Rescue, datagrams: "Datagrams | None" = None) -> None:
        super().__init__()
        self._rescue = rescue
        self._datagrams = datagrams or Datagrams()
        self._send = self._datagrams.send if datagrams else _library() or self._datagrams.send

    def close(self) -> None:
        """Let go of the socket."""
        self._datagrams.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a library's record."""
        self._tell(Line.of_record(record))

    def tell_event(self, event: Event) -> None:
        """Send an event that happened now."""
        self._tell(Line.of(event, time.time()))

    def _tell(self, line: Line) -> None:
        try:
            self._send(
                [
                    f"{name}={value}".encode("utf-8", "backslashreplace")[:FIELD_BYTES_MAX]
                    for name, value in fields(line).items()
                ]
            )
        except Exception:  # noqa: BLE001 - whatever it is, the line must not be lost, nor its writer disturbed
            self._rescue.tell(line)


class Datagrams:
    """Sends by journald's socket.

    Args:
        path: of the socket.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, told: list[bytes]) -> None:
        """Send one entry.

        Raises:
            OSError: journald does not take it.
        """
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.sendto(b"".join(map(_framed, told)), str(self._path))

    def close(self) -> None:
        """Let go of it; the next entry opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _framed(field: bytes) -> bytes:
    """Return a field as the protocol wants it: a value with a line break has its length before it."""
    if b"\n" not in field:
        return field + b"\n"
    name, _, value = field.partition(b"=")
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def _library() -> Send | None:
    try:
        library = importlib.import_module("systemd.journal")  # an extra, there where it could be built
    except ImportError:
        return None
    return lambda told: library.sendv(*told)
