"""The client with its circuit, its places, its rate and its secrets, against a real local server."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from fakes.serving import RawServer, Serving, reset
from rig.events import until
from topicd.backends.base import SpeechRequest
from topicd.backends.circuit import Circuit
from topicd.backends.client import Client
from topicd.backends.limits import Rate
from topicd.backends.openai_speech import OpenAISpeech
from topicd.errors import TopicdError, Unavailable

LIMIT_S = 20.0
FIRST_S = 5.0
EVENT_STREAM = b'data: {"at": 1}\n\ndata: {"at": 2}\n\n'
ANSWERS = {
    "json": b'{"well": true}',
    "lines": b'{"at": 1}\n{"at": 2}\n',
    "events": EVENT_STREAM,
    "done": EVENT_STREAM + b"data: [DONE]\n\n",
    "broken": b"<html>",
    "broken_lines": b'{"at": 1}\n<html>\n',
}


class Server(Serving):
    """Answers each path with the answer of that name, as soon as it may.

    Attributes:
        status: of each answer.
        headers: of each answer.
        said: what it answers instead; None for the answer of the path's name.
        heads: the headers of each request.
        under_way: how many requests wait for their answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.said: bytes | None = None
        self.heads: list[dict[str, str]] = []
        self.under_way = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        for method in ("GET", "POST"):
            self.route(method, "/{name}", self._answer)
            self.route(method, "/{folder}/{name}", self._answer)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.heads.append(dict(request.headers))
        self.under_way += 1
        try:
            await self.may_answer.wait()
        finally:
            self.under_way -= 1
        body = ANSWERS[request.match_info["name"]] if self.said is None else self.said
        return web.Response(status=self.status, headers=self.headers, body=body)


@dataclass
class Bench:
    """A server, a client, and the clock of its circuit, which is set by hand."""

    server: Server
    client: Client
    now_s: float = 1000.0

    def time_is_up(self) -> None:
        self.now_s += self.client.circuit.wait_s

    async def goes_away(self) -> None:
        """Have the circuit opened, then the server well again."""
        self.server.status = 503
        assert (await trouble_of(self.client.get_json("/json"))).cause == "busy"
        self.server.status = 200

    @contextlib.asynccontextmanager
    async def taken(self, calls: int = 1) -> AsyncIterator[list[asyncio.Task[Any]]]:
        """Have pieces of work under way for the length of a block; they end well."""
        self.server.may_answer.clear()
        tasks = [asyncio.create_task(self.client.post_json("/json", {})) for _ in range(calls)]
        await until(lambda: self.client.state().calls + self.client.state().waiting == calls, "they came", LIMIT_S)
        await until(lambda: self.server.under_way == self.client.state().calls, "the server has them", LIMIT_S)
        try:
            yield tasks
        finally:
            self.server.may_answer.set()
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LIMIT_S)


def client_of(url: str, **changed: Any) -> Client:
    usual: dict[str, Any] = {
        "verify": True,
        "ca_file": None,
        "connect_timeout_s": 5.0,
        "read_timeout_s": 10.0,
        "total_timeout_s": LIMIT_S,
        "body_bytes_max": 1_000_000,
        "tries_max": 1,
        "backoff_s": 0.01,
    }
    return Client(base_url=url, **{**usual, **changed})


@contextlib.asynccontextmanager
async def serving(at: str = "", **changed: Any) -> AsyncIterator[Bench]:
    async with Server() as server:
        circuit = Circuit(first_s=FIRST_S, max_s=60.0, clock=lambda: bench.now_s)
        url = server.url.replace("http://", f"http://{at}")
        bench = Bench(server, client_of(url, **{"circuit": circuit, **changed}))
        async with contextlib.aclosing(bench.client):
            yield bench


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


async def lines(client: Client, path: str = "/lines", *, is_work: bool = True) -> list[Any]:
    return [line async for line in client.post_lines(path, {}, is_work=is_work)]


async def first_line(client: Client) -> Any:
    async with contextlib.aclosing(client.post_lines("/lines", {})) as found:
        return await anext(found)


async def events(client: Client, path: str = "/events") -> list[Any]:
    return [event async for event in client.post_events(path, {})]


Call = Callable[[Client], Awaitable[object]]
QUESTIONS: dict[str, Call] = {
    "get_json": lambda client: client.get_json("/json"),
    "question by post_json": lambda client: client.post_json("/json", {}, is_work=False),
    "question by post_lines": lambda client: lines(client, is_work=False),
}
WORK: dict[str, Call] = {
    "post_json": lambda client: client.post_json("/json", {}),
    "post_bytes": lambda client: client.post_bytes("/json", {}),
    "post_lines": lines,
    "post_events": events,
    "post_events up to DONE": lambda client: events(client, "/done"),
    "post_lines up to the first": first_line,
}
CALLS = {**QUESTIONS, **WORK}


class TestCircuit:
    @pytest.mark.parametrize("name", CALLS)
    async def test_a_server_that_is_left_alone_gets_no_request(self, name: str) -> None:
        async with serving() as bench:
            bench.server.status = 503
            first = await trouble_of(CALLS[name](bench.client))
            assert (type(first), first.cause) == (Unavailable, "busy")
            for call in CALLS.values():
                bench.now_s += 0.1
                error = await trouble_of(call(bench.client))
                assert isinstance(error, Unavailable)
                assert error.cause == "busy"
                assert error.message == f"{bench.client.server} is left alone for now: {first.message}"
                assert error.after_s == pytest.approx(FIRST_S - (bench.now_s - 1000))
            assert len(bench.server.asked) == 1

    async def test_nor_a_connection(self) -> None:
        async with RawServer(reset) as server:
            async with contextlib.aclosing(client_of(f"http://127.0.0.1:{server.port}")) as client:
                for _ in range(5):
                    assert (await trouble_of(client.post_json("/", {}))).cause == "connection_reset"
            assert server.connections == 1

    @pytest.mark.parametrize("name", CALLS)
    async def test_one_that_is_answered_when_its_time_is_up_closes_it(self, name: str) -> None:
        async with serving() as bench:
            await bench.goes_away()
            bench.time_is_up()
            await CALLS[name](bench.client)
            assert bench.client.state().state == "closed"
            async with bench.taken(5):
                assert bench.client.state().calls == 5

    @pytest.mark.parametrize("name", QUESTIONS)
    async def test_while_one_asks_all_others_are_refused(self, name: str) -> None:
        async with serving() as bench:
            await bench.goes_away()
            bench.time_is_up()
            bench.server.may_answer.clear()
            trial = asyncio.ensure_future(QUESTIONS[name](bench.client))
            await until(lambda: bench.server.under_way, "it is asked", LIMIT_S)
            for call in CALLS.values():
                assert type(await trouble_of(call(bench.client))) is Unavailable
            assert len(bench.server.asked) == 2
            bench.server.may_answer.set()
            await asyncio.wait_for(trial, LIMIT_S)
            await asyncio.gather(*(call(bench.client) for call in CALLS.values()))

    async def test_one_that_is_cancelled_leaves_it_to_the_next(self) -> None:
        async with serving() as bench:
            await bench.goes_away()
            bench.time_is_up()
            async with bench.taken() as (trial,):
                trial.cancel()
                await asyncio.wait([trial])
            assert bench.client.state().state == "open"
            await bench.client.get_json("/json")
            assert bench.client.state().state == "closed"

    @pytest.mark.parametrize(
        ("status", "headers", "state"),
        [
            (502, {}, "open"),
            (503, {}, "open"),
            (429, {"Retry-After": "9"}, "open"),
            (429, {}, "closed"),
            (400, {}, "closed"),
            (401, {}, "closed"),
            (404, {}, "closed"),
            (500, {}, "closed"),
            (504, {}, "closed"),
        ],
    )
    async def test_what_opens_it(self, status: int, headers: dict[str, str], state: str) -> None:
        async with serving() as bench:
            bench.server.status, bench.server.headers = status, headers
            await trouble_of(bench.client.post_json("/json", {}))
            assert bench.client.state().state == state

    @pytest.mark.parametrize("path", ["/broken", "/broken_lines"])
    async def test_an_answer_that_cannot_be_read_does_not(self, path: str) -> None:
        async with serving() as bench:
            for call in (bench.client.get_json(path), lines(bench.client, path)):
                assert (await trouble_of(call)).cause == "bad_answer"
            assert bench.client.state().state == "closed"

    async def test_the_tries_of_one_call_count_once(self) -> None:
        async with serving(tries_max=3) as bench:
            bench.server.status = 503
            await trouble_of(bench.client.get_json("/json"))
            assert len(bench.server.asked) == 3
            assert bench.client.circuit.wait_s == FIRST_S

    async def test_the_server_may_name_its_time(self) -> None:
        async with serving() as bench:
            bench.server.headers = {"Retry-After": "40"}
            await bench.goes_away()
            assert bench.client.circuit.wait_s == 40


class TestPlaces:
    @pytest.mark.parametrize("name", QUESTIONS)
    async def test_questions_pass_while_the_one_place_is_taken(self, name: str) -> None:
        async with serving(calls_max=1) as bench, bench.taken():
            question = asyncio.ensure_future(QUESTIONS[name](bench.client))
            await until(lambda: bench.server.under_way == 2, "both are there", LIMIT_S)
            assert (bench.client.state().calls, bench.client.state().waiting) == (1, 0)
            bench.server.may_answer.set()
            await asyncio.wait_for(question, LIMIT_S)

    @pytest.mark.parametrize("name", WORK)
    async def test_work_waits_for_it(self, name: str) -> None:
        async with serving(calls_max=1) as bench:
            async with bench.taken():
                call = asyncio.ensure_future(WORK[name](bench.client))
                await until(lambda: bench.client.state().waiting == 1, "it waits", LIMIT_S)
                assert len(bench.server.asked) == 1
            await asyncio.wait_for(call, LIMIT_S)
            assert len(bench.server.asked) == 2

    async def test_no_more_at_once_than_there_are(self) -> None:
        async with serving(calls_max=3) as bench, bench.taken(7):
            assert bench.server.under_way == 3
            assert (bench.client.state().calls, bench.client.state().waiting) == (3, 4)

    @pytest.mark.parametrize("status", [200, 400, 500, 503])
    @pytest.mark.parametrize("name", WORK)
    async def test_it_is_given_back(self, name: str, status: int) -> None:
        async with serving(calls_max=1) as bench:
            bench.server.status = status
            for _ in range(2):  # what the circuit refuses takes it, too
                with contextlib.suppress(TopicdError):
                    await WORK[name](bench.client)
            bench.server.status = 200
            bench.time_is_up()
            await asyncio.wait_for(bench.client.post_json("/json", {}), LIMIT_S)
            assert (bench.client.state().calls, bench.client.state().waiting) == (0, 0)

    async def test_it_is_given_back_by_one_that_is_cancelled(self) -> None:
        async with serving(calls_max=1) as bench:
            async with bench.taken(2) as (first, second):
                first.cancel()
                await asyncio.wait([first])
            assert second.result() == {"well": True}

    async def test_a_backend_says_what_it_is_while_it_is_taken(self) -> None:
        async with serving(calls_max=1) as bench:
            bench.server.said = b"<html>"
            async with bench.client._limits.place():
                await asyncio.wait_for(OpenAISpeech(bench.client, prefix="").probe(), LIMIT_S)

    async def test_a_stream_holds_it_until_it_is_closed(self) -> None:
        async with serving(calls_max=1) as bench:
            async with contextlib.aclosing(bench.client.post_lines("/lines", {})) as found:
                assert await anext(found) == {"at": 1}
                assert bench.client.state().calls == 1
            assert bench.client.state().calls == 0

    async def test_the_time_of_a_call_begins_when_it_has_its_place(self) -> None:
        async with serving(calls_max=1, total_timeout_s=3.0) as bench:
            async with bench.client._limits.place():
                call = asyncio.create_task(bench.client.post_json("/json", {}))
                await asyncio.sleep(3.1)
                assert not call.done()
            assert await call == {"well": True}


class TestRate:
    async def test_what_is_over_it_reaches_no_server_and_opens_nothing(self) -> None:
        async with serving(rate=Rate(2, 3600.0)) as bench:
            for _ in range(2):
                await bench.client.post_json("/json", {})
            for call in WORK.values():
                error = await trouble_of(call(bench.client))
                assert isinstance(error, Unavailable)
                assert error.cause == "own_rate_limit"
                assert 3500 < (error.after_s or 0) <= 3600
            assert len(bench.server.asked) == 2
            assert bench.client.state().state == "closed"

    async def test_questions_do_not_count(self) -> None:
        async with serving(rate=Rate(1, 3600.0)) as bench:
            for call in QUESTIONS.values():
                await call(bench.client)
            await bench.client.post_json("/json", {})
            for call in QUESTIONS.values():
                await call(bench.client)
            assert (await trouble_of(bench.client.post_json("/json", {}))).cause == "own_rate_limit"

    async def test_a_wait_that_is_short_is_waited(self) -> None:
        async with serving(rate=Rate(1, 0.2)) as bench:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            for _ in range(3):
                await bench.client.post_json("/json", {})
            assert loop.time() - began_s >= 0.39

    async def test_what_the_circuit_refuses_does_not_count(self) -> None:
        async with serving(rate=Rate(2, 3600.0)) as bench:
            await bench.goes_away()
            for _ in range(5):
                assert "left alone" in (await trouble_of(bench.client.post_json("/json", {}))).message
            bench.time_is_up()
            await bench.client.post_json("/json", {})


class TestHeaders:
    @pytest.mark.parametrize("name", CALLS)
    async def test_further_ones_are_sent(self, name: str) -> None:
        async with serving(headers={"Authorization": "Bearer hunter2", "X-Title": "Tides"}) as bench:
            await CALLS[name](bench.client)
        (head,) = bench.server.heads
        assert (head["Authorization"], head["X-Title"]) == ("Bearer hunter2", "Tides")
        assert head["Accept-Encoding"] == "identity"

    async def test_user_and_password_of_the_address_are_sent_beside_them(self) -> None:
        async with serving(at="me:hun%40ter2@", headers={"X-Title": "Tides"}) as bench:
            await bench.client.get_json("/json")
        (head,) = bench.server.heads
        assert base64.b64decode(head["Authorization"].removeprefix("Basic ")) == b"me:hun@ter2"
        assert head["X-Title"] == "Tides"


def bearer(secret: str) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {secret}"}}


def token(secret: str) -> dict[str, Any]:
    return {"headers": {"X-Api-Key": secret}}


def password(secret: str) -> dict[str, Any]:
    return {"at": f"me:{secret}@"}


GIVEN = {"bearer": bearer, "token": token, "password": password}
SECRET = "hunter2"  # noqa: S105 - of a server that lives as long as its test
REFUSALS: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "error": ("application/json", lambda words: json.dumps({"error": words}).encode()),
    "message": ("application/json", lambda words: json.dumps({"error": {"message": words}}).encode()),
    "detail": ("application/json", lambda words: json.dumps({"detail": [{"msg": words}]}).encode()),
    "plain": ("text/plain", str.encode),
    "html": ("text/html", lambda words: f"<h1>{words}</h1>".encode()),
}


def shown(error: TopicdError) -> str:
    return f"{error.message} {error.hint} {error!r}"


@pytest.mark.parametrize("given", GIVEN)
async def test_a_secret_that_an_answer_repeats_is_in_no_value(given: str) -> None:
    words = {"headers": {"you sent": SECRET}, SECRET: [f"a{SECRET}b", {"x": f"Bearer {SECRET}"}]}
    async with serving(**GIVEN[given](SECRET)) as bench:
        bench.server.said = json.dumps(words).encode()
        found = [await bench.client.get_json("/json"), await bench.client.post_json("/json", {})]
        found += await lines(bench.client)
        bench.server.said = b"data: " + json.dumps(words).encode() + b"\n\n"
        found += await events(bench.client)
    assert len(found) == 4
    assert SECRET not in json.dumps(found)
    assert all("***" in value["headers"]["you sent"] for value in found), "the rest is there"


@pytest.mark.parametrize("given", GIVEN)
class TestSecrets:
    @pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
    @pytest.mark.parametrize("form", REFUSALS)
    async def test_one_that_a_refusal_repeats_is_in_no_message(self, given: str, form: str, status: int) -> None:
        kind, said = REFUSALS[form]
        async with serving(**GIVEN[given](SECRET)) as bench:
            bench.server.status, bench.server.headers = status, {"Content-Type": kind}
            bench.server.said = said(f"no such key {SECRET}, Bearer {SECRET}, {SECRET}{SECRET}")
            for call in CALLS.values():
                assert SECRET not in shown(await trouble_of(call(bench.client)))
                bench.time_is_up()
            assert SECRET not in bench.client.state().trouble

    async def test_one_that_stands_at_the_seam_of_two_chunks_is_in_no_value(self, given: str) -> None:
        async def in_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"key": "hun')
            await writer.drain()
            await asyncio.sleep(0.02)  # so that the rest comes by itself; if it does not, nothing is lost
            writer.write(b'ter2"}\n')
            await writer.drain()

        made = GIVEN[given](SECRET)
        async with RawServer(in_two) as server:
            url = f"http://{made.pop('at', '')}127.0.0.1:{server.port}"
            async with contextlib.aclosing(client_of(url, **made)) as client:
                assert [await client.get_json("/"), *await lines(client, "/")] == [{"key": "***"}] * 2

    async def test_one_that_comes_instead_of_a_sound_is_in_no_message(self, given: str) -> None:
        async with serving(**GIVEN[given](SECRET)) as bench:
            bench.server.said = json.dumps({"error": f"no such key {SECRET}"}).encode()
            backend = OpenAISpeech(bench.client, prefix="")
            error = await trouble_of(backend.speak(SpeechRequest("Hello.", "en", "", 1)))
        assert error.cause == "not_wav"
        assert SECRET not in shown(error)


@pytest.mark.parametrize(
    ("written", "secret"), [("hun%22ter2", 'hun"ter2'), ("h%C3%BCnter2", "hünter2"), ("hun%2Fter2", "hun/ter2")]
)
async def test_a_secret_that_json_escapes_is_found_too(written: str, secret: str) -> None:
    async with serving(**password(written)) as bench:
        bench.server.said = json.dumps({"error": secret}).replace("/", "\\/").encode()
        assert secret not in (await bench.client.get_json("/json"))["error"]
        bench.server.status = 400
        assert secret not in shown(await trouble_of(bench.client.get_json("/json")))


async def test_a_password_in_the_form_in_which_it_is_sent_is_found_too() -> None:
    sent = base64.b64encode(f"me:{SECRET}".encode()).decode()
    async with serving(**password(SECRET)) as bench:
        bench.server.said = json.dumps({"error": f"cannot read {sent}"}).encode()
        assert sent not in (await bench.client.get_json("/json"))["error"]
        bench.server.status = 400
        assert sent not in shown(await trouble_of(bench.client.get_json("/json")))


async def test_a_header_that_is_no_secret_is_left_in_an_answer() -> None:
    async with serving(headers={"X-Title": "My Tides"}) as bench:
        bench.server.said = json.dumps({"narration": "The Tides rise."}).encode()
        assert await bench.client.get_json("/json") == {"narration": "The Tides rise."}


class TestState:
    async def test_closed_open_half_open_and_closed_again(self) -> None:
        async with serving() as bench:
            client = bench.client
            at_rest = client.state()
            assert at_rest.server == bench.server.url.removeprefix("http://")
            assert (at_rest.state, at_rest.since_s, at_rest.trouble) == ("closed", None, "")
            before_s = time.time()
            await bench.goes_away()
            gone = client.state()
            assert (gone.state, gone.trouble) == ("open", f"{client.server} answers HTTP 503.")
            assert gone.since_s is not None
            assert before_s <= gone.since_s <= time.time()
            bench.time_is_up()
            assert client.state() == gone, "until one asks"
            async with bench.taken():
                trying = client.state()
                assert (trying.state, trying.since_s, trying.trouble) == ("half-open", gone.since_s, gone.trouble)
                assert trying.calls == 1
            assert client.state() == at_rest

    async def test_it_asks_nobody(self) -> None:
        async with serving() as bench:
            for _ in range(3):
                bench.client.state()
            assert not bench.server.asked

    async def test_calls_and_who_waits(self) -> None:
        async with serving(calls_max=2) as bench:
            async with bench.taken(5):
                assert (bench.client.state().calls, bench.client.state().waiting) == (2, 3)
            assert (bench.client.state().calls, bench.client.state().waiting) == (0, 0)

    async def test_who_waits_for_the_rate(self) -> None:
        async with serving(rate=Rate(1, 15.0)) as bench:
            await bench.client.post_json("/json", {})
            call = asyncio.create_task(bench.client.post_json("/json", {}))
            await until(lambda: bench.client.state().waiting == 1, "it waits", LIMIT_S)
            assert bench.client.state().calls == 0
            call.cancel()
            await asyncio.wait([call])
            assert bench.client.state().waiting == 0

    async def test_what_it_is_busy_with_and_no_password(self) -> None:
        async with serving(**password(SECRET)) as bench:
            state = bench.client.state("pulling llama3.2: 34 %")
        assert state.note == "pulling llama3.2: 34 %"
        assert SECRET not in repr(state)
