"""The log as journald gets it: a real datagram socket in journald's place."""

import io
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from topicd.errors import Rejected
from topicd.telemetry import journal, logs
from topicd.telemetry.advice import message_id
from topicd.telemetry.events import Events
from topicd.telemetry.journal import Datagrams, JournalHandler, is_journal
from topicd.telemetry.lines import Text


class Journald:
    """Listens where journald would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(5)

    def entry(self) -> dict[str, str]:
        """Return the next entry, read as the protocol says."""
        data, told = self._socket.recv(1 << 20), dict[str, str]()
        while data:
            line, _, data = data.partition(b"\n")
            name, is_plain, value = line.partition(b"=")
            if not is_plain:
                size = int.from_bytes(data[:8], "little")
                value, data = data[8 : 8 + size], data[9 + size :]
            told[name.decode()] = value.decode()
        return told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def rescue() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(journald: Journald, rescue: io.StringIO) -> Iterator[JournalHandler]:
    made = JournalHandler(logs.LineHandler(rescue, Text(has_colour=False)), Datagrams(journald.path))
    root, own = logging.getLogger(), logging.getLogger("topicd")
    before, level = root.handlers[:], own.level
    root.handlers.clear()
    logs.use(made)
    own.setLevel("DEBUG")
    yield made
    root.handlers[:] = before
    made.close()
    own.setLevel(level)


def test_an_event_has_its_fields(journald: Journald, handler: JournalHandler) -> None:
    del handler
    error = Rejected("script_empty", "Nothing came.", hint="ask again", unit="script")
    Events([logs.LogSink()]).emit("job.failed", job="j1", stage="scripts", error=error, attempt=2)
    told = journald.entry()
    assert told == {
        "MESSAGE": "j1: scripts failed: Nothing came. (attempt 2)",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "topicd",
        "MESSAGE_ID": message_id("topicd.job.failed"),
        "TOPICD_EVENT": "topicd.job.failed",
        "TOPICD_JOB": "j1",
        "TOPICD_STAGE": "scripts",
        "TOPICD_ERROR": "Nothing came.",
        "TOPICD_CAUSE": "script_empty",
        "TOPICD_ERROR_CLASS": "Rejected",
        "TOPICD_HINT": "ask again",
        "TOPICD_UNIT": "script",
        "TOPICD_ATTEMPT": "2",
    }


def test_whatever_a_name_holds_is_one_entry(journald: Journald, handler: JournalHandler) -> None:
    del handler
    name = "a\nPRIORITY=0\n\udcff"
    Events([logs.LogSink()]).emit("intake.ignored", name=name, kind="a\ndirectory")
    told = journald.entry()
    assert told["TOPICD_NAME"] == "a\nPRIORITY=0\n\\udcff"
    assert told["PRIORITY"] == "4"


def test_a_librarys_record_and_its_traceback_are_told(journald: Journald, handler: JournalHandler) -> None:
    del handler
    try:
        int("of a library")
    except ValueError:
        logging.getLogger("library").exception("it %s", "broke")
    told = journald.entry()
    assert (told["MESSAGE"], told["TOPICD_LOGGER"], told["PRIORITY"]) == ("it broke", "library", "3")
    assert told["TOPICD_TRACEBACK"].endswith("'of a library'\n")


def test_what_is_too_long_is_cut(journald: Journald, handler: JournalHandler) -> None:
    del handler
    logging.getLogger("library").warning("x" * 1_000_000)
    assert len(journald.entry()["MESSAGE"]) == journal.FIELD_BYTES_MAX - len("MESSAGE=")


def test_without_journald_it_goes_to_standard_error(
    journald: Journald, handler: JournalHandler, rescue: io.StringIO
) -> None:
    del handler
    journald.close()
    logging.getLogger("library").warning("still told")
    assert "still told" in rescue.getvalue()


def test_the_journal_is_known_by_its_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "err").open("w") as stream:
        assert not is_journal(stream)
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(stream)
    assert not is_journal(io.StringIO())
