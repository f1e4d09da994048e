"""Traces of a real daemon, taken by a real receiver: one a job, whatever happens to the daemon or to the receiver."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from fakes.ollama_server import OllamaServer, script_answer
from fakes.otlp_receiver import OtlpReceiver, Span, otlp_receiver
from rig.afield import afield
from rig.daemon import FAKES, QUICK, TESTS, Home, load, running, until
from topicd import __version__

TOPIC = "---\nscenes: 2\n---\n# Tides of the Zuiderzee\n\nThe Moon pulls on the sea.\n"
OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "100", "TOPICD_LOG_LEVEL": "debug"}
STOP_S_MAX = 12.0
NAMES = {"accept", "stage", "unit", "call", "done"}


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, receiver: OtlpReceiver) -> Home:
    return Home(tmp_path, {**FAKES, **QUICK, "TOPICD_TRACES_URL": receiver.url, **OFTEN})


def tree(spans: list[Span]) -> dict[str, Span]:
    """Return the spans by id, having seen that they are one tree of one trace."""
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    assert len({span.trace for span in spans}) == 1
    assert [span.name for span in spans if not span.parent] == ["accept"]
    assert [span for span in spans if span.parent and span.parent not in by_id] == []
    return by_id


def units(receiver: OtlpReceiver) -> list[Span]:
    return [span for span in [*receiver.spans] if span.name == "unit"]


def test_a_job_is_one_trace_from_drop_to_done(home: Home, receiver: OtlpReceiver) -> None:
    with running(home) as daemon:
        home.drop("tides.md", TOPIC)
        done = daemon.event("job.done")
        assert daemon.stop() == 0
        lines = daemon.events()
    spans = tree(receiver.spans)
    job = load(home.only("output") / "job.json")
    assert {line["trace_id"] for line in lines if "job" in line} == {job["trace_id"]} == {done["trace_id"]}
    assert {span.trace for span in receiver.spans} == {job["trace_id"]}
    assert {span.name for span in receiver.spans} == NAMES
    stages = [span for span in receiver.spans if span.name == "stage"]
    assert {str(span.attributes["topicd.stage"]) for span in stages} == {"scripts", "audio", "images"}
    calls = [span for span in receiver.spans if span.name == "call"]
    assert len(calls) == 1 + 2 + 3
    asked = {line["span_id"] for line in lines if line["event"] == "topicd.backend.asked"}
    assert {span.id for span in calls} == asked
    for span in receiver.spans:
        assert not span.is_error
        assert span.resource["service.name"] == "topicd"
        assert span.resource["service.version"] == __version__
        if span.parent and span.name in {"unit", "call"}:
            assert spans[span.parent].start_ns <= span.start_ns + 2_000_000, "a child begins within its parent"
        assert "Zuiderzee" not in str(span.attributes)


def test_the_trace_goes_on_after_a_kill(home: Home, receiver: OtlpReceiver) -> None:
    home.hold_calls("part 2.")
    with running(home) as daemon:
        home.drop("tides.md", TOPIC)
        # Spans come in their order: with this one all before it are there.
        until(lambda: "audio/001" in [span.attributes.get("topicd.unit") for span in units(receiver)], "a unit's span")
        assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    home.let_calls_go()
    with running(home) as daemon:
        daemon.event("job.done")
        assert daemon.stop() == 0
    ids = {span.id for span in receiver.spans}
    assert len({span.trace for span in receiver.spans}) == 1
    assert [span.name for span in receiver.spans if not span.parent] == ["accept"]
    assert len([span for span in receiver.spans if span.name == "done"]) == 1
    lost = {span.parent for span in receiver.spans if span.parent and span.parent not in ids}
    assert len(lost) == 1, "of the attempt that was cut off, its own span"


def test_a_server_is_told_and_a_failure_is_an_error(home: Home, receiver: OtlpReceiver) -> None:
    told = list[str]()

    @web.middleware
    async def heard(request: web.Request, handler: object) -> web.StreamResponse:
        if request.path == "/api/chat":
            told.append(request.headers.get("traceparent", ""))
        answer: web.StreamResponse = await handler(request)  # type: ignore[operator]
        return answer

    server = OllamaServer()
    server.fault = "error_line"
    server.app.middlewares.append(heard)
    home.env |= {"TOPICD_SCRIPT_BACKEND": "ollama", "OLLAMA_MODEL": "tiny", "TOPICD_ATTEMPTS_MAX": "1"}
    with afield() as servers:
        servers.up(server)
        with running(home, OLLAMA_BASE_URL=server.url) as daemon:
            home.drop("tides.md", TOPIC)
            failed = daemon.event("job.failed")
            assert daemon.stop() == 0
    tree(receiver.spans)
    (call,) = [span for span in receiver.spans if span.name == "call"]
    assert {*told} == {f"00-{call.trace}-{call.id}-01"}
    wrong = {span.name: span.attributes["error.type"] for span in receiver.spans if span.is_error}
    assert wrong.keys() == {"call", "unit", "stage", "failed"}
    assert wrong["failed"] == failed["cause"]


@pytest.mark.parametrize("trouble", ["silent", "refuses", "away"])
def test_a_receiver_in_trouble_costs_neither_work_nor_the_end(home: Home, receiver: OtlpReceiver, trouble: str) -> None:
    receiver.status = 503 if trouble == "refuses" else 200
    if trouble == "silent":
        receiver.is_silent.set()
    url = "http://127.0.0.1:9" if trouble == "away" else receiver.url
    with running(home, TOPICD_TRACES_URL=url) as daemon:
        home.drop("tides.md", TOPIC)
        daemon.event("job.done")
        lost = daemon.event("traces.lost") if trouble == "away" else {"level": "warning"}
        assert lost["level"] == "warning"
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < STOP_S_MAX
        assert not [line for line in daemon.events() if line["event"] == "log"], "no library speaks"
    assert receiver.spans == []


def test_off_nothing_is_sent_loaded_or_told(tmp_path: Path, receiver: OtlpReceiver) -> None:
    told = list[str]()

    @web.middleware
    async def heard(request: web.Request, handler: object) -> web.StreamResponse:
        told.extend(name for name in request.headers if name.lower() == "traceparent")
        answer: web.StreamResponse = await handler(request)  # type: ignore[operator]
        return answer

    server = OllamaServer(answers=(script_answer(2),))
    server.app.middlewares.append(heard)
    home = Home(tmp_path, {**FAKES, **QUICK, "TOPICD_SCRIPT_BACKEND": "ollama", "OLLAMA_MODEL": "tiny"})
    with afield() as servers:
        servers.up(server)
        with running(home, OLLAMA_BASE_URL=server.url) as daemon:
            home.drop("tides.md", TOPIC)
            done = daemon.event("job.done")
            maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
            assert daemon.stop() == 0
    assert server.bodies("/api/chat")
    assert (told, receiver.requests) == ([], 0)
    assert done["trace_id"] == load(home.only("output") / "job.json")["trace_id"], "the log can be joined all the same"
    assert "google/_upb" not in maps
    asked = "import sys, topicd.app; sys.exit(any('opentelemetry' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, receiver: OtlpReceiver) -> None:
    home = Home(tmp_path, {**FAKES, **QUICK, "TOPICD_TRACES_URL": receiver.url})
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ModuleNotFoundError('opentelemetry')\n")
    done = home.topicd("run", env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(TESTS)])})
    assert done.returncode == 78
    assert "pip install 'topicd[otel]'" in done.stdout + done.stderr
