"""Events: exactly the listed fields, one emit for all sinks, and no emit in the daemon that does not fit."""

import ast
import logging
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import topicd
from topicd.errors import Rejected, RetryLater
from topicd.telemetry.events import EVENTS, TRACEBACK_CHARS_MAX, Event, Events, rfc3339

EXPANDED = {"error", "cause", "error_class", "hint", "unit", "traceback"}
HEAD = {"time", "level", "event", "message", "logger", "trace_id"}
SOURCES = Path(topicd.__file__).parent


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def see(self, event: Event) -> None:
        self.events.append(event)


class Broken:
    def see(self, event: Event) -> None:
        raise RuntimeError(event.name)


def emitted(name: str, /, **fields: object) -> Event:
    kept = Kept()
    Events([kept]).emit(name, **fields)
    return kept.events[0]


def test_every_sink_sees_the_same_event() -> None:
    first, second = Kept(), Kept()
    Events([first, second]).emit("job.done", job="j1", seconds=12.345, output="/o/j1")
    assert first.events == second.events
    assert first.events[0].fields == {"job": "j1", "seconds": 12.345, "output": "/o/j1"}
    assert first.events[0].message == "j1: done in 12.3 s: /o/j1"


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        Events([]).emit("job.vanished", job="j1")


@pytest.mark.parametrize(
    "fields",
    [
        {"job": "j1", "stage": "audio", "colour": "red"},
        {"job": "j1"},
        {},
    ],
)
def test_unknown_or_missing_field_is_an_error(fields: Mapping[str, object]) -> None:
    with pytest.raises(TypeError, match="takes the fields"):
        Events([]).emit("job.given_back", **fields)


def test_error_that_is_no_exception_is_an_error() -> None:
    with pytest.raises(TypeError, match="takes an exception"):
        Events([]).emit("storage.trouble", error="disk full")


def test_an_explained_error_gives_its_words_and_no_traceback() -> None:
    error = Rejected("script_empty", "The script is empty.", hint="Say more.", unit="script")
    event = emitted("job.failed", job="j1", stage="scripts", error=error, attempt=2)
    assert dict(event.fields) == {
        "job": "j1",
        "stage": "scripts",
        "error": "The script is empty.",
        "cause": "script_empty",
        "error_class": "Rejected",
        "hint": "Say more.",
        "unit": "script",
        "attempt": 2,
    }
    assert "The script is empty." in event.message


def test_an_error_without_hint_or_unit_has_neither() -> None:
    event = emitted("intake.trouble", name="a.md", error=RetryLater("busy", "Busy."))
    assert event.fields.keys() == {"name", "error", "cause", "error_class"}


def test_any_other_error_gives_a_traceback_that_is_cut_at_its_old_end() -> None:
    error = ValueError("x" * TRACEBACK_CHARS_MAX + "end")
    event = emitted("stage.bug", job="j1", stage="audio", error=error)
    trace = event.fields["traceback"]
    assert isinstance(trace, str)
    assert len(trace) <= TRACEBACK_CHARS_MAX
    assert trace.endswith("end\n")
    assert event.fields["cause"] == "unexpected"
    assert event.fields["error_class"] == "ValueError"


def test_a_traceback_names_the_place_and_the_cause() -> None:
    try:
        int("no number")
    except ValueError as inner:
        outer = RuntimeError("outer")
        outer.__cause__ = inner
    event = emitted("stage.bug", job="j1", stage="audio", error=outer)
    trace = str(event.fields["traceback"])
    assert "no number" in trace
    assert "test_events.py" in trace


@pytest.mark.parametrize(("given", "written"), [(0.0, "1970-01-01T00:00:00.000Z"), (None, None), ("x", "x")])
def test_next_try_is_written_as_rfc3339(given: object, written: object) -> None:
    event = emitted(
        "job.deferred", job="j1", stage="audio", error=RetryLater("busy", "Busy."), attempt=1, next_try=given
    )
    assert event.fields["next_try"] == written


def test_rfc3339_has_milliseconds_and_z() -> None:
    assert rfc3339(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


def test_a_value_may_look_like_a_template() -> None:
    assert emitted("intake.ignored", name="{job} {0} %s", kind="FIFO").message.startswith("{job} {0} %s: ")


def test_a_sink_that_raises_stops_nobody_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    events = Events([Broken(), kept])
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            events.emit("storage.ok")
    assert len(kept.events) == 3
    assert [record.getMessage() for record in caplog.records] == ["Broken cannot take storage.ok; not said again"]


def test_what_else_is_known_comes_with_each_event_and_its_fault_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()

    def known(fields: Mapping[str, object]) -> Mapping[str, str]:
        return {"trace_id": {"j1": "t1"}[str(fields["job"])]}

    events = Events([kept], context=known)
    with caplog.at_level(logging.ERROR):
        for job in ("j1", "j2", "j2"):
            events.emit("job.given_back", job=job, stage="audio")
    assert [dict(event.context) for event in kept.events] == [{"trace_id": "t1"}, {}, {}]
    assert kept.events[0].fields == {"job": "j1", "stage": "audio"}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", EVENTS)
def test_a_sentence_uses_only_fields_that_are_there(name: str) -> None:
    spec = EVENTS[name]
    used = {field for _, field, _, _ in string.Formatter().parse(spec.message) if field}
    assert used <= set(spec.fields)


@pytest.mark.parametrize("name", EVENTS)
def test_no_field_hides_another(name: str) -> None:
    fields = set(EVENTS[name].fields)
    assert len(fields) == len(EVENTS[name].fields)
    assert not fields & HEAD
    if "error" in fields:
        assert not fields & (EXPANDED - {"error"})


def calls(source: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called.lstrip("_") == "emit":
                yield node


def misfits(source: str) -> list[str]:
    found = []
    for call in calls(source):
        name = ast.literal_eval(call.args[0])
        given = {keyword.arg for keyword in call.keywords}
        if name not in EVENTS or (None not in given and given != set(EVENTS[name].fields)):
            found.append(f"line {call.lineno}: {name} {sorted(map(str, given))}")
    return found


def test_misfits_are_seen() -> None:
    assert not misfits("self._events.emit('job.given_back', job=1, stage=2)")
    assert misfits("events.emit('job.given_back', job=1)")
    assert misfits("self._emit('job.vanished')")


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_every_emit_in_the_daemon_fits(path: Path) -> None:
    assert misfits(path.read_text("utf-8")) == []


def test_each_event_is_told_somewhere() -> None:
    listeners = {"events.py", "advice.py", "counting.py", "pulse.py", "manager.py"}
    named = {
        node.value
        for path in SOURCES.rglob("*.py")
        if path.name not in listeners
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
    }
    assert EVENTS.keys() <= named
