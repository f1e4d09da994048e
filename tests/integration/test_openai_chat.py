"""Scripts by OpenAI's chat API, against servers that behave and servers that do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from fakes.ollama_server import script_answer
from fakes.openai_server import ERRORS, OpenAIServer
from fakes.piper_server import PiperServer
from topicd.backends.base import ScriptBackend, ScriptRequest
from topicd.backends.client import Client
from topicd.backends.openai_chat import OpenAIChat
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
FORMS = {"refuses_schema": ["json_schema", "json_object"], "refuses_format": ["json_schema", "json_object", ""]}


def client_of(url: str, **changed: Any) -> Client:
    usual: dict[str, Any] = {
        "verify": True,
        "ca_file": None,
        "connect_timeout_s": 5.0,
        "read_timeout_s": 10.0,
        "total_timeout_s": LIMIT_S,
        "body_bytes_max": 100_000,
        "tries_max": 1,
    }
    return Client(base_url=url, **{**usual, **changed})


@contextlib.asynccontextmanager
async def chat(
    *answers: str, fault: str = "", lists: bool = True, options: dict[str, Any] | None = None, **changed: Any
) -> AsyncIterator[tuple[OpenAIServer, OpenAIChat]]:
    server = OpenAIServer(answers=answers or (script_answer(2),), lists=lists)
    server.fault = fault
    async with server:
        backend = OpenAIChat(client_of(server.url, **changed), **{"model": "tiny", **(options or {})})
        async with contextlib.aclosing(backend):
            yield server, backend


def topic(scenes: int = 2, language: str = "en") -> ScriptRequest:
    return ScriptRequest("Tides", "about the $moon", language, scenes, "calm", 42)


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


def forms_of(server: OpenAIServer) -> list[str]:
    return [body.get("response_format", {}).get("type", "") for body in server.bodies("/v1/chat/completions")]


async def test_is_a_script_backend() -> None:
    async with chat(options={"calls_max": 4, "holds_gpu": True}) as (_, backend):
        assert isinstance(backend, ScriptBackend)
        assert (backend.name, backend.calls_max, backend.holds_gpu) == ("openai-chat", 4, True)
        assert backend.provenance()["model"] == "tiny"


async def test_script_and_what_was_asked() -> None:
    async with chat(options={"temperature": 0.1, "max_tokens": 99}) as (server, backend):
        script = await backend.write(topic())
    assert [scene.narration for scene in script.scenes] == ["Sentence number 1.", "Sentence number 2."]
    (body,) = server.bodies("/v1/chat/completions")
    told = {key: body[key] for key in ("model", "stream", "seed", "temperature", "max_tokens")}
    assert told == {"model": "tiny", "stream": True, "seed": 42, "temperature": 0.1, "max_tokens": 99}
    held = body["response_format"]["json_schema"]
    assert (body["response_format"]["type"], held["name"], held["strict"]) == ("json_schema", "script", True)
    scenes = held["schema"]["properties"]["scenes"]
    assert scenes["items"]["additionalProperties"] is held["schema"]["additionalProperties"] is False
    assert "about the $moon" in body["messages"][0]["content"]


async def test_prompt_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "EN.txt").write_text("Sing of $title.")
    async with chat(options={"prompts_dir": tmp_path}) as (server, backend):
        await backend.write(topic())
    assert server.bodies("/v1/chat/completions")[0]["messages"][0]["content"] == "Sing of Tides."


async def test_a_server_with_just_one_model_is_not_told_which() -> None:
    async with chat(options={"model": ""}) as (server, backend):
        assert (await backend.probe()).summary == "OpenAI chat, its own model"
        await backend.write(topic())
    assert "model" not in server.bodies("/v1/chat/completions")[0]


async def test_address_that_has_the_prefix_already() -> None:
    async with OpenAIServer(answers=(script_answer(2),), prefix="/api/v1") as server:
        backend = OpenAIChat(client_of(f"{server.url}/api/v1/"), model="tiny", prefix="")
        async with contextlib.aclosing(backend):
            await backend.probe()
            assert len((await backend.write(topic())).scenes) == 2


@pytest.mark.parametrize("fault", ["thinks", "no_done"])
async def test_what_is_no_trouble(fault: str) -> None:
    async with chat(fault=fault) as (server, backend):
        assert len((await backend.write(topic())).scenes) == 2
        assert len(server.bodies("/v1/chat/completions")) == 1


async def test_wrong_answer_is_asked_for_again_with_its_error() -> None:
    async with chat("no", script_answer(3), script_answer(2)) as (server, backend):
        await backend.write(topic())
    third = server.bodies("/v1/chat/completions")[2]["messages"]
    assert [message["role"] for message in third] == ["user", "assistant", "user"]
    assert "there are 3 scenes where 2 are asked for" in third[-1]["content"]


@pytest.mark.parametrize("fault", FORMS)
async def test_a_looser_form_of_answer_is_found_and_remembered(fault: str) -> None:
    async with chat(fault=fault) as (server, backend):
        await backend.write(topic())
        assert forms_of(server) == FORMS[fault]
        await backend.write(topic())
        assert forms_of(server) == [*FORMS[fault], FORMS[fault][-1]]


async def test_a_refusal_of_every_form_is_told_and_not_remembered() -> None:
    async with chat(fault="refuses_all") as (server, backend):
        error = await trouble_of(backend.write(topic()))
        assert (type(error), error.cause) == (Rejected, "bad_request")
        server.fault = ""
        await backend.write(topic())
    assert forms_of(server) == ["json_schema", "json_object", "", "json_schema"]


@pytest.mark.parametrize(
    ("answer", "fault", "kind", "cause"),
    [
        ('{"title": "x", "scenes": [{"narration"', "", RetryLater, "script_invalid"),
        ("", "", RetryLater, "script_empty"),
        ("", "thinks", RetryLater, "script_empty"),
        ("<think>only thought</think> \n", "", RetryLater, "script_empty"),
        (script_answer(2), "length", RetryLater, "script_cut"),
        (script_answer(2), "cut", RetryLater, "answer_cut"),
        (script_answer(2), "closed", RetryLater, "answer_cut"),
        (script_answer(2), "not_json", RetryLater, "bad_answer"),
        (script_answer(2), "array_event", RetryLater, "bad_answer"),
        (script_answer(2), "broken", RetryLater, "server_error"),
        (script_answer(2), "content_filter", Rejected, "script_refused"),
        ("", "refusal", Rejected, "script_refused"),
        (script_answer(2), "flood", Rejected, "answer_too_large"),
        (script_answer(2), "busy", Unavailable, "busy"),
        (script_answer(2), "unauthorized", Unusable, "unauthorized"),
    ],
)
async def test_trouble(answer: str, fault: str, kind: type[TopicdError], cause: str) -> None:
    async with chat(answer, fault=fault) as (_, backend):
        error = await trouble_of(backend.write(topic()))
    assert (type(error), error.cause) == (kind, cause)


@pytest.mark.parametrize("fault", ERRORS)
async def test_error_in_the_stream_keeps_the_servers_words(fault: str) -> None:
    async with chat(fault=fault) as (_, backend):
        error = await trouble_of(backend.write(topic()))
    assert (type(error), error.cause) == (RetryLater, "stream_error")
    assert error.message.endswith("broke off: CUDA error out of memory")


async def test_refusal_keeps_the_models_words() -> None:
    async with chat("", fault="refusal") as (_, backend):
        error = await trouble_of(backend.write(topic()))
    assert error.message == "the model refuses: I cannot help with that."


async def test_the_wait_that_a_server_asks_for() -> None:
    async with chat(fault="limited") as (_, backend):
        error = await trouble_of(backend.write(topic()))
    assert isinstance(error, Unavailable)
    assert (error.cause, error.after_s) == ("rate_limited", 7.0)


async def test_stream_that_falls_silent() -> None:
    async with chat(fault="silent", read_timeout_s=0.2) as (_, backend):
        error = await trouble_of(backend.write(topic()))
    assert (type(error), error.cause) == (RetryLater, "read_timeout")


async def test_slow_stream_meets_the_total_time() -> None:
    async with chat(total_timeout_s=0.5) as (server, backend):
        server.pieces_gap_s = 0.1
        error = await trouble_of(backend.write(topic()))
    assert (type(error), error.cause) == (RetryLater, "total_timeout")


async def test_cancelling_stops_the_servers_work() -> None:
    async with chat(fault="silent") as (server, backend):
        call = asyncio.create_task(backend.write(topic()))
        await asyncio.wait_for(server.started.wait(), LIMIT_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(server.cancelled.wait(), LIMIT_S)


async def test_missing_model_names_those_there() -> None:
    async with chat() as (server, backend):
        server.models = ("llama", "qwen")
        for call in (backend.write(topic()), backend.probe()):
            error = await trouble_of(call)
            assert (type(error), error.cause) == (Unusable, "model_missing")
            assert "llama, qwen" in error.message


async def test_missing_model_where_none_are_listed() -> None:
    async with chat(lists=False) as (server, backend):
        server.models = ("llama",)
        error = await trouble_of(backend.write(topic()))
    assert (type(error), error.cause) == (Unusable, "model_missing")
    assert "The model `tiny` does not exist" in error.message


@pytest.mark.parametrize("lists", [True, False])
async def test_probe(lists: bool) -> None:  # noqa: FBT001 - a parameter of the test
    async with chat(lists=lists) as (_, backend):
        probe = await backend.probe()
    assert (probe.summary, probe.details["models"]) == ("OpenAI chat, tiny", ["tiny"] if lists else [])


async def test_a_tag_that_is_understood_is_not_missed() -> None:
    async with chat() as (server, backend):
        server.models = ("tiny:latest",)
        assert (await backend.probe()).summary == "OpenAI chat, tiny"


async def test_another_server_at_its_address() -> None:
    async with PiperServer() as server:
        backend = OpenAIChat(client_of(server.url), model="tiny")
        async with contextlib.aclosing(backend):
            for call in (backend.write(topic()), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "not_chat")
