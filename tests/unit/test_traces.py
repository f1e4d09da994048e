"""Spans from events: each has its parent, its time and its error, whatever the attempt comes to."""

import re
from collections.abc import Iterator

import pytest

from topicd.errors import Rejected, RetryLater
from topicd.telemetry import tracing
from topicd.telemetry.events import Events
from topicd.telemetry.traces import ATTEMPTS_MAX, Span, TraceSink

JOB = "20261127-100000-000000-tides"
SECOND_NS = 1_000_000_000


class Told:
    """Spans, by name, and a clock."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.now_ns = 1_000 * SECOND_NS
        self.emit = Events([TraceSink(self.spans.append, clock_ns=lambda: self.now_ns)]).emit

    def only(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def begin(self, job: str = JOB, stage: str = "audio", attempt: int = 1) -> None:
        self.emit("stage.started", job=job, stage=stage, attempt=attempt)

    def ask(self, outcome: str = "ok", seconds: float = 2.0, span_id: str = "a" * 16) -> None:
        self.emit(
            "backend.asked",
            job=JOB,
            stage="audio",
            unit="scene 1",
            backend="piper",
            outcome=outcome,
            seconds=seconds,
            span_id=span_id,
        )

    def make(self, seconds: float = 2.5) -> None:
        self.emit("unit.finished", job=JOB, stage="audio", unit="scene 1", n=1, of=1, seconds=seconds, backend="piper")


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    ids = {span.id for span in made.spans} | {tracing.root_id(JOB)}
    assert len({span.id for span in made.spans}) == len(made.spans)
    for span in made.spans:
        assert span.trace == tracing.trace_id(str(span.attributes["topicd.job"]))
        assert span.parent in ids or not span.parent or span.attributes["topicd.job"] != JOB
        assert span.start_ns <= span.end_ns


def test_a_trace_has_one_id_for_ever_and_another_job_has_another() -> None:
    assert tracing.trace_id(JOB) == "75074ab57f5a9991da6aa75acdbd36bf"
    assert re.fullmatch("[0-9a-f]{32}", tracing.trace_id(JOB))
    assert tracing.trace_id(JOB) != tracing.trace_id(f"{JOB}-2")
    assert tracing.root_id(JOB) == tracing.root_id(JOB) != tracing.trace_id(JOB)[:16]


def test_a_call_is_told_to_servers_only_if_it_is_recorded() -> None:
    assert tracing.headers() == {}
    with tracing.calling(JOB, is_sent=False):
        assert tracing.headers() == {}
    with tracing.calling(JOB, is_sent=True) as span:
        assert tracing.headers() == {"traceparent": f"00-{tracing.trace_id(JOB)}-{span}-01"}
    assert tracing.headers() == {}


def test_events_of_a_job_know_its_trace_and_others_none() -> None:
    assert tracing.known({"job": JOB, "stage": "audio"}) == {"trace_id": tracing.trace_id(JOB)}
    assert tracing.known({"mode": "poll"}) == {}


def test_the_drop_is_the_top_and_begins_when_the_file_came(told: Told) -> None:
    told.emit("job.accepted", job=JOB, source="tides.md", bytes=12, pickup_s=0.25)
    top = told.only("accept")
    assert (top.id, top.parent) == (tracing.root_id(JOB), "")
    assert top.end_ns - top.start_ns == SECOND_NS // 4
    assert "tides.md" not in str(top)


def test_a_call_is_under_its_unit_under_its_stage_under_the_top(told: Told) -> None:
    told.begin(attempt=2)
    told.now_ns += 3 * SECOND_NS
    told.ask()
    told.make()
    told.emit("stage.finished", job=JOB, stage="audio", seconds=3.0)
    call, unit, stage = told.only("call"), told.only("unit"), told.only("stage")
    assert (call.id, call.parent, unit.parent, stage.parent) == ("a" * 16, unit.id, stage.id, tracing.root_id(JOB))
    assert (call.is_call, unit.is_call) == (True, False)
    assert call.attributes == {
        "topicd.job": JOB,
        "topicd.stage": "audio",
        "topicd.unit": "scene 1",
        "topicd.backend": "piper",
    }
    assert (stage.end_ns - stage.start_ns) == 3 * SECOND_NS
    assert (unit.end_ns - unit.start_ns) == 5 * SECOND_NS // 2
    assert stage.attributes["topicd.attempt"] == 2
    assert not call.error + unit.error + stage.error


@pytest.mark.parametrize("event", ["job.deferred", "job.failed"])
def test_what_went_wrong_is_told_on_the_call_the_unit_and_the_attempt(told: Told, event: str) -> None:
    told.begin()
    told.ask("timeout")
    more = {"next_try": 5.0} if event == "job.deferred" else {}
    told.emit(event, job=JOB, stage="audio", error=RetryLater("busy", "Zebras."), attempt=1, **more)
    assert [told.only(name).error for name in ("call", "unit", "stage")] == ["timeout", "busy", "busy"]
    assert "Zebras" not in str(told.spans), "a server's words may be a topic's"


def test_the_end_has_the_whole_time(told: Told) -> None:
    told.emit("job.done", job=JOB, seconds=60.0, output="/o")
    assert told.only("done").end_ns - told.only("done").start_ns == 60 * SECOND_NS
    told.emit("job.failed", job=JOB, stage="audio", error=Rejected("bad_request", "No."), attempt=1)
    assert told.only("failed").error == "bad_request"


@pytest.mark.parametrize("event", ["job.given_back", "job.moved_away"])
def test_an_attempt_that_is_given_back_is_no_error(told: Told, event: str) -> None:
    told.begin()
    told.ask("cancelled")
    told.emit(event, job=JOB, stage="audio")
    assert (told.only("stage").error, told.only("unit").error) == ("", "")
    assert told.only("call").error == "cancelled"
    assert told.only("stage").attributes["topicd.outcome"] == event


def test_nothing_is_kept_of_what_is_over_and_what_is_kept_has_an_end(told: Told) -> None:
    for number in range(ATTEMPTS_MAX + 1):
        told.begin(f"j{number}")
    told.emit("stage.finished", job="j0", stage="audio", seconds=1.0)
    assert told.spans == [], "the oldest was let go of"
    told.emit("stage.finished", job=f"j{ATTEMPTS_MAX}", stage="audio", seconds=1.0)
    assert told.only("stage").attributes["topicd.job"] == f"j{ATTEMPTS_MAX}"
    told.emit("stage.finished", job=f"j{ATTEMPTS_MAX}", stage="audio", seconds=1.0)
    assert len(told.spans) == 1
