"""The log: one line whatever the names hold, JSON that any parser takes, no flood."""

import io
import json
import logging
import math
import os
import pty
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicd.errors import Rejected, Unavailable
from topicd.states import Stage
from topicd.telemetry.events import Event, Events
from topicd.telemetry.lines import STRING_CHARS_MAX, Json, Line
from topicd.telemetry.logs import LogSink, configure
from topicd.telemetry.repeats import FAULTS_MAX, JOBS_SHOWN_MAX, SHOWN_MAX

NASTY = "a\nb\r\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u2028\x85\x7f\udcff.md"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.fixture(autouse=True)
def root_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("topicd")
    before = (root.handlers[:], root.level, own.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])
    logging.captureWarnings(capture=False)


def parsed(line: str) -> dict[str, Any]:
    """Parse as strictly as the strictest reader: no NaN, no lone surrogate, no doubled key."""

    def no_constant(name: str) -> None:
        raise ValueError(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    value = json.loads(line, parse_constant=no_constant, object_pairs_hook=unique)
    assert isinstance(value, dict)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def json_lines(say: Callable[[], object], *, level: str = "debug") -> list[dict[str, Any]]:
    stream = io.StringIO()
    logging.getLogger().handlers.clear()  # pytest's own would raise where ours must not
    configure(format="json", level=level, stream=stream)
    say()
    return [parsed(line) for line in stream.getvalue().split("\n")[:-1]]


def text_of(say: Callable[[], object], stream: io.StringIO | None = None, *, level: str = "debug") -> str:
    stream = stream or io.StringIO()
    logging.getLogger().handlers.clear()
    configure(format="text", level=level, stream=stream)
    say()
    return stream.getvalue()


def emit(name: str, /, **fields: object) -> None:
    Events([LogSink()]).emit(name, **fields)


def test_a_json_line_has_its_keys_in_order() -> None:
    [line] = json_lines(lambda: emit("job.accepted", job="j1", source="tides.md", bytes=12, pickup_s=0.00042))
    assert list(line) == ["time", "level", "event", "message", "job", "source", "bytes", "pickup_s"]
    assert line["level"] == "info"
    assert line["event"] == "topicd.job.accepted"
    assert line["message"] == "j1: accepted from tides.md"
    assert line["pickup_s"] == 0.00042
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    age_s = datetime.now().astimezone() - datetime.fromisoformat(line["time"])
    assert abs(age_s.total_seconds()) < 60


@given(name=st.text() | st.just(NASTY))
def test_any_name_is_one_json_line_of_plain_ascii(name: str) -> None:
    stream = io.StringIO()
    configure(format="json", level="info", stream=stream)
    emit("intake.ignored", name=name, kind="FIFO")
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert len(written.splitlines()) == 1
    assert written.isascii()
    assert parsed(written)["name"] == name.encode("utf-8", "backslashreplace").decode()


@given(name=st.text() | st.just(NASTY))
def test_any_name_is_one_printable_text_line(name: str) -> None:
    written = text_of(lambda: emit("intake.ignored", name=name, kind="FIFO"))
    assert written.endswith("\n")
    assert written[:-1].isprintable()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (Path("/a/b"), "/a/b"),
        (2**70, str(2**70)),
        pytest.param(10**5000, "<int>", id="an int too long for str"),
        (Unprintable(), "<Unprintable>"),
        (b"\xff", "b'\\xff'"),
        (None, None),
        (True, True),
        ({1: {"x"}}, {"1": ["x"]}),
        ([1, [2, [3, [4, [5, [6]]]]]], [1, [2, [3, [4, "[5, [6]]"]]]]),
        (list(range(500)), list(range(100))),
    ],
)
def test_any_value_can_be_written(value: object, written: object) -> None:
    # Not through emit: the sentence would already fail on a value without words.
    [line] = json_lines(lambda: emit("job.done", job="j", seconds=1.0, output=Shown(value)))
    assert line["output"] == [written]


class Shown(list[object]):
    """A list of one value, with words of its own for the sentence."""

    def __init__(self, value: object) -> None:
        super().__init__([value])

    def __str__(self) -> str:
        return "shown"


def test_a_circle_ends() -> None:
    circle: dict[str, object] = {}
    circle["again"] = circle
    [line] = json_lines(lambda: emit("recovery.removed", what=circle))
    assert line["what"]["again"]["again"]


def test_a_huge_string_is_cut() -> None:
    [line] = json_lines(lambda: emit("recovery.removed", what="x" * (STRING_CHARS_MAX + 1)))
    assert len(line["what"]) == STRING_CHARS_MAX
    assert len(line["message"]) == STRING_CHARS_MAX


def test_a_traceback_is_a_string_in_its_line() -> None:
    [line] = json_lines(lambda: emit("stage.bug", job="j", stage="audio", error=ValueError("two\nlines")))
    assert line["error"] == "ValueError: two\nlines"
    assert line["traceback"].endswith("ValueError: two\nlines\n")


def test_a_traceback_in_text_is_indented_and_escaped() -> None:
    written = text_of(lambda: emit("stage.bug", job="j", stage="audio", error=ValueError("\x1b[2J\nfaked 1")))
    first, *rest = written.splitlines()
    assert "stage.bug" in first
    assert rest
    assert all(row.startswith("    ") and row.isprintable() for row in rest)


def test_text_is_short_and_has_the_hint() -> None:
    error = Rejected("script_empty", "The script is empty.", hint="Say more.")
    written = text_of(lambda: emit("job.failed", job="tides", stage="scripts", error=error, attempt=2))
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d error   job\.failed      "
        r"tides: scripts failed: The script is empty\. \(attempt 2\) \| Say more\.\n",
        written,
    )


@pytest.mark.parametrize(
    ("env", "has_colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_want_it(
    env: Mapping[str, str], *, has_colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[33m" in text_of(trouble, Terminal())) is has_colour
    assert "\x1b" not in text_of(trouble)


def trouble() -> None:
    emit("intake.ignored", name="a", kind="FIFO")


def test_auto_is_text_on_a_terminal_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        configure(format="auto", level="info", stream=stream)
        emit("storage.ok")
    assert parsed(file.getvalue())["event"] == "topicd.storage.ok"
    assert "storage.ok" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("level", "seen"),
    [("debug", ["debug", "info", "error"]), ("info", ["info", "error"]), ("error", ["error"])],
)
def test_the_level_decides(level: str, seen: list[str]) -> None:
    def say() -> None:
        emit("unit.kept", job="j", stage="audio", unit="audio/001")
        emit("storage.ok")
        emit("storage.trouble", error=OSError("full"))

    assert [line["level"] for line in json_lines(say, level=level)] == seen


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        configure(format="json", level="loud", stream=io.StringIO())


def test_configuring_twice_does_not_write_twice() -> None:
    streams = [io.StringIO(), io.StringIO()]
    for stream in streams:
        configure(format="json", level="info", stream=stream)
    emit("storage.ok")
    assert [stream.getvalue().count("\n") for stream in streams] == [0, 1]


def test_a_library_speaks_in_the_same_form_from_warning_on() -> None:
    def say() -> None:
        log = logging.getLogger("httpx")
        log.debug("no")
        log.info("no")
        log.warning("odd %s\n%s", "thing", NASTY)
        try:
            Path(NASTY).stat()
        except OSError:
            log.exception("worse", extra={"event": "x", "fields": 3, "level": "odd"})

    odd, worse = json_lines(say)
    assert odd["message"].startswith("odd thing\n")
    assert (odd["level"], odd["event"], odd["logger"]) == ("warning", "log", "httpx")
    assert (worse["level"], worse["event"]) == ("error", "log")
    assert "FileNotFoundError" in worse["traceback"]
    assert all(row.isprintable() for row in text_of(say).split("\n"))


def test_a_library_cannot_break_a_line_with_wrong_arguments() -> None:
    wrong = "%d of %d"

    def say() -> None:
        logging.getLogger("watchdog").warning(wrong, "x")

    [line] = json_lines(say)
    assert line["message"] == "%d of %d (its arguments do not fit)"
    assert "arguments do not fit" in text_of(say)


def test_python_warnings_come_in_the_same_form() -> None:
    def say() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            configure(format="json", level="info", stream=stream)
            warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
            logging.captureWarnings(capture=False)

    stream = io.StringIO()
    say()
    line = parsed(stream.getvalue())
    assert "DeprecationWarning: old\nways" in line["message"]
    assert line["logger"] == "py.warnings"


def deferred(sink: LogSink, cause: str = "down", stage: str = "audio") -> None:
    Events([sink]).emit(
        "backend.unavailable", stage=stage, backend="x", error=Unavailable(cause, "Away."), next_try=None
    )


def told(lines: list[dict[str, Any]]) -> list[str | int]:
    """Return the events' names; in the place of a summary its count."""
    return [
        line["count"] if line["event"] == "topicd.log.repeated" else line["event"].removeprefix("topicd.")
        for line in lines
    ]


def test_a_repeated_fault_is_counted_and_the_count_told_once_its_minute_is_over() -> None:
    clock = Clock()
    sink = LogSink(clock=clock)

    def say() -> None:
        for _ in range(100):
            deferred(sink)
        clock.now_s += 59.9
        deferred(sink)
        clock.now_s += 0.2
        for _ in range(2):
            deferred(sink)

    lines = json_lines(say)
    assert told(lines) == ["backend.unavailable"] * SHOWN_MAX + [101 - SHOWN_MAX] + ["backend.unavailable"] * 2
    summary = lines[SHOWN_MAX]
    assert (summary["of"], summary["cause"], summary["stage"]) == ("topicd.backend.unavailable", "down", "audio")
    assert summary["level"] == "warning"


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_whatever_happens_next_brings_the_count_along(level: str) -> None:
    clock = Clock()
    sink = LogSink(clock=clock)

    def say() -> None:
        for _ in range(8):
            deferred(sink)
        clock.now_s += 60
        Events([sink]).emit("watcher.rescanned")  # of a level that is not shown itself

    assert told(json_lines(say, level=level))[SHOWN_MAX] == 3


def test_what_was_held_back_is_told_at_the_end() -> None:
    sink = LogSink(clock=Clock())

    def say() -> None:
        for _ in range(8):
            deferred(sink)
        Events([sink]).emit("daemon.stopped", seconds=0.1)

    assert told(json_lines(say))[SHOWN_MAX:] == [3, "daemon.stopped"]


def test_a_fault_of_a_thousand_jobs_does_not_flood() -> None:
    sink = LogSink(clock=Clock())

    def say() -> None:
        for number in range(1_000):
            Events([sink]).emit("stage.bug", job=f"j{number}", stage="audio", error=ValueError(number))
            failed = Rejected("script_empty", "Empty.", hint="Say more.")
            Events([sink]).emit("job.failed", job=f"j{number}", stage="audio", error=failed, attempt=1)
        Events([sink]).emit("daemon.stopped", seconds=0.1)

    lines = json_lines(say)
    bugs = [line for line in lines if line["event"] == "topicd.stage.bug"]
    assert [line["job"] for line in bugs] == [f"j{number}" for number in range(JOBS_SHOWN_MAX)]
    assert ["traceback" in line for line in bugs] == [True] * SHOWN_MAX + [False] * (JOBS_SHOWN_MAX - SHOWN_MAX)
    failures = [line for line in lines if line["event"] == "topicd.job.failed"]
    assert len(failures) == JOBS_SHOWN_MAX
    assert all(line["hint"] == "Say more." for line in failures)
    assert told(lines)[-3:] == [1_000 - JOBS_SHOWN_MAX, 1_000 - JOBS_SHOWN_MAX, "daemon.stopped"]


def test_another_cause_or_stage_is_another_fault() -> None:
    sink = LogSink(clock=Clock())

    def say() -> None:
        for _ in range(6):
            deferred(sink)
        deferred(sink, cause="refused")
        deferred(sink, stage="images")

    assert len(json_lines(say)) == 7


def test_what_is_no_fault_is_never_held_back() -> None:
    sink = LogSink(clock=Clock())

    def say() -> None:
        for n in range(50):
            Events([sink]).emit("job.done", job=f"j{n}", seconds=1.0, output="o")

    assert len(json_lines(say)) == 50


def test_faults_remembered_are_bounded() -> None:
    sink = LogSink(clock=Clock())

    def say() -> None:
        for n in range(FAULTS_MAX + 50):
            deferred(sink, cause=f"cause{n}")

    assert len(json_lines(say)) == FAULTS_MAX + 50
    assert len(sink._repeats._seen) == FAULTS_MAX


def test_what_holds_wherever_it_happened_is_in_the_line() -> None:
    def traced(fields: Mapping[str, object]) -> Mapping[str, str]:
        return {"trace_id": f"of {fields['job']}"} if "job" in fields else {}

    def say() -> None:
        events = Events([LogSink()], context=traced)
        events.emit("job.given_back", job="j1", stage="audio")
        events.emit("storage.ok")

    given_back, ok = json_lines(say)
    assert given_back["trace_id"] == "of j1"
    assert "trace_id" not in ok


PLAIN = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text() | st.just(NASTY)


@given(
    job=PLAIN, stage=PLAIN | st.sampled_from(Stage), seconds=PLAIN | st.floats(allow_nan=False, allow_infinity=False)
)
def test_the_short_way_and_the_long_way_write_the_same(job: object, stage: object, seconds: object) -> None:
    event = Event("stage.finished", {"job": job, "stage": stage, "seconds": seconds})
    form = Json()
    short, long = form.write_event(event, 1.5), form.write(Line.of(event, 1.5))
    rounded = {"seconds": pytest.approx(seconds, abs=1e-6)} if isinstance(seconds, float) else {}
    assert parsed(short) == parsed(long) | rounded
    assert short.isascii()
    if not isinstance(seconds, float):
        assert short == long


def test_a_line_is_whole_in_a_pipe_that_is_nearly_full() -> None:
    ours, theirs = os.pipe()
    read: list[bytes] = []
    with open(theirs, "w") as stream:  # noqa: PTH123 - a descriptor
        configure(format="json", level="info", stream=stream)
        reader = threading.Thread(target=lambda: read.append(Path(f"/dev/fd/{ours}").read_bytes()))
        reader.start()
        for _ in range(20):
            emit("recovery.removed", what="x" * 15_000)
    reader.join(30)
    os.close(ours)
    assert [len(parsed(line)["what"]) for line in read[0].decode().splitlines()] == [15_000] * 20


def test_a_log_whose_reader_is_gone_stops_nobody() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    kept: list[Event] = []
    with open(theirs, "w") as stream:  # noqa: PTH123 - a descriptor
        configure(format="json", level="info", stream=stream)
        Events([LogSink(), Kept(kept)]).emit("storage.ok")
    assert [event.name for event in kept] == ["storage.ok"]


class Kept:
    def __init__(self, events: list[Event]) -> None:
        self.see = events.append


SCRIPT = """
from topicd.telemetry.events import Events
from topicd.telemetry.logs import LogSink, configure
configure(format="auto", level="info")
Events([LogSink()]).emit("intake.ignored", name="a\\x1b[2J\\udcff\\n", kind="FIFO")
"""


def test_a_real_process_writes_json_to_a_pipe() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True, timeout=30)
    assert not done.stdout
    assert parsed(done.stderr.decode("ascii"))["name"] == "a\x1b[2J\\udcff\n"


def test_a_real_process_writes_text_to_a_terminal() -> None:
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    try:
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=theirs, check=True, timeout=30, env=env)
        written = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "intake.ignored" in written
    assert r"a\x1b[2J\udcff\n: FIFO" in written
    assert written.count("\n") == 1
