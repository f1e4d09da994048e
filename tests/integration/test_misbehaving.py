"""Every backend by HTTP against a server that misbehaves, in one matrix: which error, and that the next call is well.

A backend joins with a row in `CASES`, and with rows in `OTHERWISE` for what it reads differently from its kind.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import pytest

from fakes.a1111_server import picture
from fakes.misbehaving import WAYS, Answer, Misbehaving
from fakes.ollama_server import script_answer
from fakes.piper_server import tone
from fakes.speech_server import speech
from rig.events import until
from topicd.backends.a1111 import A1111
from topicd.backends.base import PictureRequest, ScriptRequest, SpeechRequest
from topicd.backends.circuit import Circuit
from topicd.backends.client import Client
from topicd.backends.ollama import Ollama
from topicd.backends.openai_chat import OpenAIChat
from topicd.backends.openai_images import OpenAIImages
from topicd.backends.openai_speech import OpenAISpeech
from topicd.backends.piper import PiperHTTP
from topicd.errors import CAUSES, Rejected, RetryLater, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
BODY_BYTES_MAX = 100_000
SENT_BYTES_MAX = 20_000_000
"""What a flood may come to: the limit of the body, and what lies in the system's buffers."""
PATIENT: dict[str, Any] = {"read_timeout_s": LIMIT_S, "total_timeout_s": LIMIT_S}
TOPIC = ScriptRequest("Tides", "", "en", 2, "calm", 42)
SPOKEN = SpeechRequest("Hello there.", "en", "", 42)
PICTURED = PictureRequest("a lighthouse", "It stands.", "Tides", False, 64, 40, "oil", 42, 7)  # noqa: FBT003


class Case(NamedTuple):
    """A backend, and one thing that is asked of it.

    Attributes:
        make: the backend.
        ask: what is asked.
        at: the path at which the server misbehaves.
        reads: how the answer there is read: `json`, `lines`, `events` or `sound`.
        answers: the honest ones, of all paths that are asked.
    """

    make: Callable[[Client], Any]
    ask: Callable[[Any], Awaitable[object]]
    at: str
    reads: str
    answers: Mapping[str, Answer]


def as_json(value: object) -> Answer:
    return Answer(json.dumps(value).encode())


def pieces() -> list[str]:
    text = script_answer(2)
    return [text[at : at + 11] for at in range(0, len(text), 11)]


def ollama_lines() -> Answer:
    lines = [{"message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces()]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return Answer(b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, end]), "application/x-ndjson")


def chat_events() -> Answer:
    choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces()]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    said = [json.dumps({"choices": [choice]}).encode() for choice in [*choices, end]]
    return Answer(b"".join(b"data: " + each + b"\n\n" for each in [*said, b"[DONE]"]), "text/event-stream")


OLLAMA = {
    "/api/version": as_json({"version": "0.12.3"}),
    "/api/tags": as_json({"models": [{"name": "tiny:latest"}]}),
    "/api/show": as_json({"capabilities": ["completion"], "model_info": {"llama.context_length": 8192}}),
    "/api/generate": as_json({"done": True, "done_reason": "unload"}),
    "/api/chat": ollama_lines(),
}
CHAT = {"/v1/models": as_json({"data": [{"id": "tiny"}]}), "/v1/chat/completions": chat_events()}
PIPER = {
    "/voices": as_json({"joe": {}}),
    "/info": as_json({"voice": {"name": "joe"}}),
    "/synthesize": Answer(tone(), "audio/wav"),
}
SPEECH = {
    "/v1/models": as_json({"data": [{"id": "kokoro"}]}),
    "/v1/audio/voices": as_json({"voices": ["af_heart"]}),
    "/v1/audio/speech": Answer(speech(), "audio/wav"),
}
PICTURE = base64.b64encode(picture()).decode()
A1111_ANSWERS = {
    "/sdapi/v1/txt2img": as_json({"images": [PICTURE], "info": "{}"}),
    "/sdapi/v1/options": as_json({"sd_model_checkpoint": "base"}),
    "/sdapi/v1/progress": as_json({"progress": 0.5}),
    "/sdapi/v1/interrupt": as_json({}),
    "/sdapi/v1/unload-checkpoint": as_json({}),
}
IMAGES = {
    "/v1/models": as_json({"data": [{"id": "flux"}]}),
    "/v1/images/generations": as_json({"data": [{"b64_json": PICTURE}]}),
}


def ollama(client: Client) -> Ollama:
    return Ollama(client, model="tiny")


def chat(client: Client) -> OpenAIChat:
    return OpenAIChat(client, model="tiny")


def openai_speech(client: Client) -> OpenAISpeech:
    return OpenAISpeech(client, model="kokoro", voice="af_heart")


def images(client: Client) -> OpenAIImages:
    return OpenAIImages(client, model="flux")


# Each answers what a stage asks for.
CASES = {
    "ollama": Case(ollama, lambda backend: backend.write(TOPIC), "/api/chat", "lines", OLLAMA),
    "openai-chat": Case(chat, lambda backend: backend.write(TOPIC), "/v1/chat/completions", "events", CHAT),
    "piper": Case(PiperHTTP, lambda backend: backend.speak(SPOKEN), "/synthesize", "sound", PIPER),
    "openai-speech": Case(openai_speech, lambda backend: backend.speak(SPOKEN), "/v1/audio/speech", "sound", SPEECH),
    "a1111": Case(A1111, lambda backend: backend.draw(PICTURED), "/sdapi/v1/txt2img", "json", A1111_ANSWERS),
    "openai-images": Case(images, lambda backend: backend.draw(PICTURED), "/v1/images/generations", "json", IMAGES),
}
# What is asked of a server beside its work.
PROBES = {
    "ollama probe": Case(ollama, lambda backend: backend.probe(), "/api/tags", "json", OLLAMA),
    "ollama free": Case(ollama, lambda backend: backend.free(), "/api/generate", "lines", OLLAMA),
    "openai-chat probe": Case(chat, lambda backend: backend.probe(), "/v1/models", "json", CHAT),
    "piper probe": Case(PiperHTTP, lambda backend: backend.probe(), "/voices", "json", PIPER),
    "openai-speech probe": Case(openai_speech, lambda backend: backend.probe(), "/v1/audio/voices", "json", SPEECH),
    "a1111 probe": Case(A1111, lambda backend: backend.probe(), "/sdapi/v1/options", "json", A1111_ANSWERS),
    "a1111 free": Case(A1111, lambda backend: backend.free(), "/sdapi/v1/unload-checkpoint", "json", A1111_ANSWERS),
}

Meant = tuple[type[TopicdError], str]
CUT: Meant = (RetryLater, "answer_cut")
UNREAD: Meant = (RetryLater, "bad_answer")
NO_WAV: Meant = (RetryLater, "not_wav")
NO_SOUND: Meant = (RetryLater, "audio_empty")
SLOW: Meant = (RetryLater, "total_timeout")
SILENT: Meant = (RetryLater, "read_timeout")
GONE: Meant = (Unavailable, "connection_reset")
TOO_LARGE: Meant = (Rejected, "answer_too_large")
BROKEN: Meant = (RetryLater, "server_error")

ANYWHERE: dict[str, Meant] = {
    "drips": SLOW,
    "drips its head": SLOW,
    "promises and promises": SLOW,
    "is silent": SILENT,
    "stalls in its head": SILENT,
    "stalls after its head": SILENT,
    "stalls in its answer": SILENT,
    "stalls in a chunk": SILENT,
    "stalls in its refusal": (Unavailable, "busy"),
    "hangs up": GONE,
    "hangs up in its head": GONE,
    "hangs up in its answer": CUT,
    "hangs up in a chunk": CUT,
    "hangs up between chunks": CUT,
    "hangs up in its refusal": BROKEN,
    "speaks something else": GONE,
    "has two lengths": GONE,
    "has a length that is none": GONE,
    "has a length below nothing": GONE,
    "has chunks that are none": CUT,
    "switches to another protocol": GONE,
    "sends round in a circle": (Unusable, "redirected"),
    "has a length without end": TOO_LARGE,
    "answers without end": TOO_LARGE,
    "answers with lines without end": TOO_LARGE,
    "answers with chunks without end": TOO_LARGE,
    "has a head without end": GONE,
    "has a header without end": GONE,
    "has a chunk's head without end": CUT,
    "refuses without end": BROKEN,
}
# Lies that are well-formed look otherwise to each way of reading.
BY_READING: dict[str, dict[str, Meant]] = {
    "has a length that is too short": {
        "json": UNREAD,
        "lines": UNREAD,
        "events": CUT,
        "sound": (RetryLater, "audio_cut"),
    },
    "packs what was to come plain": {"json": UNREAD, "lines": UNREAD, "events": CUT, "sound": NO_WAV},
    "says nothing": {"json": UNREAD, "lines": CUT, "events": CUT, "sound": NO_SOUND},
    "says that there is nothing": {"json": UNREAD, "lines": CUT, "events": CUT, "sound": NO_SOUND},
    "sends a web page": {"json": UNREAD, "lines": UNREAD, "events": CUT, "sound": NO_WAV},
    "sends a list": {"lines": UNREAD, "events": CUT, "sound": NO_WAV},
    "sends what is too deep": {"json": UNREAD, "lines": UNREAD, "events": CUT, "sound": NO_WAV},
    "sends no text": {"json": UNREAD, "lines": UNREAD, "events": CUT, "sound": NO_WAV},
    "calls an error an answer": {"lines": (RetryLater, "stream_error"), "events": CUT, "sound": NO_WAV},
    "has a status that is none": dict.fromkeys(("json", "lines", "events", "sound"), UNREAD),
}
# Where one backend reads it differently from others of its kind.
NO_IMAGE: Meant = (RetryLater, "no_image")
OTHERWISE: dict[tuple[str, str], Meant] = {
    (name, way): NO_IMAGE for name in ("a1111", "openai-images") for way in ("sends a list", "calls an error an answer")
}


def meant(name: str, way: str) -> Meant:
    return OTHERWISE.get((name, way)) or ANYWHERE.get(way) or BY_READING[way][CASES[name].reads]


@contextlib.asynccontextmanager
async def misbehaving(case: Case, way: str, **limits: float) -> AsyncIterator[tuple[Misbehaving, Client, Any]]:
    bounds: dict[str, Any] = {**PATIENT, **(limits or WAYS[way].limits)}
    async with Misbehaving(case.answers, case.at) as server:
        client = Client(
            base_url=server.url,
            verify=True,
            ca_file=None,
            body_bytes_max=BODY_BYTES_MAX,
            tries_max=1,
            circuit=Circuit(first_s=0.0),  # it is asked again at once
            connect_timeout_s=5.0,
            **bounds,
        )
        async with contextlib.aclosing(case.make(client)) as backend:
            server.way = way
            yield server, client, backend


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


def be_patient(client: Client) -> None:
    """Let a client wait as long as one usually does: its short limits were for a server that misbehaves."""
    client._http.timeout = LIMIT_S
    client._total_timeout_s = LIMIT_S


async def check(case: Case, way: str, kind: type[TopicdError], cause: str) -> None:
    """Ask while the server misbehaves: which error, that nothing is left held, and that the next call is well."""
    async with misbehaving(case, way) as (server, client, backend):
        error = await trouble_of(case.ask(backend))
        assert (type(error), error.cause) == (kind, cause), error.message
        assert cause in CAUSES or not isinstance(error, RetryLater | Rejected)
        assert error.message.isprintable()
        assert len(error.message) < 400
        assert error.hint or not isinstance(error, Unusable)
        await until(lambda: not server.held, "the client hangs up", LIMIT_S)
        assert server.sent_bytes < SENT_BYTES_MAX
        assert (client.state().calls, client.state().waiting) == (0, 0)
        server.way = ""
        be_patient(client)
        await asyncio.wait_for(case.ask(backend), LIMIT_S)
        assert server.asked.count(case.at) >= 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
async def test_work(name: str, way: str) -> None:
    await check(CASES[name], way, *meant(name, way))


@pytest.mark.parametrize("way", ANYWHERE)
@pytest.mark.parametrize("name", PROBES)
async def test_question(name: str, way: str) -> None:
    await check(PROBES[name], way, *ANYWHERE[way])


@pytest.mark.parametrize("way", ["is silent", "stalls in its answer", "drips"])
@pytest.mark.parametrize("name", [*CASES, *PROBES])
async def test_cancelled_in_the_middle_it_hangs_up(name: str, way: str) -> None:
    case = {**CASES, **PROBES}[name]
    async with misbehaving(case, way, **PATIENT) as (server, client, backend):
        call = asyncio.ensure_future(case.ask(backend))
        await until(lambda: server.held, "it misbehaves", LIMIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not server.held, "the client hangs up", LIMIT_S)
        assert (client.state().calls, client.state().waiting) == (0, 0)


@pytest.mark.parametrize("name", [*CASES, *PROBES])
async def test_a_server_that_behaves_is_no_trouble(name: str) -> None:
    case = {**CASES, **PROBES}[name]
    async with misbehaving(case, "is silent", **PATIENT) as (server, client, backend):
        server.way = ""
        for _ in range(2):
            await asyncio.wait_for(case.ask(backend), LIMIT_S)
        assert client.state().state == "closed"
