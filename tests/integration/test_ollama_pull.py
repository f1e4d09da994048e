"""What Ollama does beside chatting: it pulls a model that is missing, says what a model can do, and unloads it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fakes.ollama_server import LAYER_BYTES, NOT_PULLED, OllamaServer, script_answer
from topicd.backends.base import Frees, ScriptRequest
from topicd.backends.client import Client
from topicd.backends.ollama import Ollama
from topicd.backends.pull import ASK_AFTER_S, STALLS_MAX
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
TOPIC = ScriptRequest("Tides", "", "en", 2, "calm", 42)
THIRD = 680_000_000


@contextlib.asynccontextmanager
async def missing(
    *plan: tuple[int, str], options: dict[str, Any] | None = None, **changed: Any
) -> AsyncIterator[tuple[OllamaServer, Ollama]]:
    """Serve no model but by a pull."""
    usual: dict[str, Any] = {"verify": True, "ca_file": None, "connect_timeout_s": 5.0, "read_timeout_s": LIMIT_S}
    bounds: dict[str, Any] = {"total_timeout_s": LIMIT_S, "body_bytes_max": 100_000, "tries_max": 1}
    async with OllamaServer(models=(), answers=(script_answer(2),)) as server:
        server.plan = list(plan) or server.plan
        client = Client(base_url=server.url, **{**usual, **bounds, **changed})
        told = {"model": "tiny", "pull": True, "pull_pause_s": 0.01, **(options or {})}
        async with contextlib.aclosing(Ollama(client, **told)) as backend:
            yield server, backend


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is words, not an event
            await asyncio.sleep(0.01)


async def over(backend: Ollama) -> None:
    """Begin a pull, and wait for its end."""
    assert (await trouble_of(backend.write(TOPIC))).cause == "model_pulling"
    await until(lambda: not backend.note())


class TestPull:
    async def test_the_stage_waits_and_is_told_how_far_it_is(self) -> None:
        async with missing((THIRD, "hang")) as (server, backend):
            assert backend.note() == ""
            first = await trouble_of(backend.write(TOPIC))
            assert isinstance(first, Unavailable)
            assert (first.cause, first.after_s) == ("model_pulling", ASK_AFTER_S)
            await until(lambda: backend.note() == "pulling tiny: 34 % of 2.0 GB")
            for call in (backend.write(TOPIC), backend.probe()):
                again = await trouble_of(call)
                assert (again.cause, again.message) == ("model_pulling", "Ollama pulls tiny: 34 % of 2.0 GB")
            assert server.bodies("/api/pull") == [{"model": "tiny"}]
            assert len(server.bodies("/api/chat")) == 1, "a server that pulls is not asked for work"

    async def test_many_calls_begin_one_pull(self) -> None:
        async with missing((THIRD, "hang")) as (server, backend):
            calls = [trouble_of(backend.write(TOPIC)) for _ in range(5)]
            assert {error.cause for error in await asyncio.gather(*calls)} == {"model_pulling"}
            await until(lambda: "34 %" in backend.note())
            assert len(server.bodies("/api/pull")) == 1

    async def test_a_probe_begins_it_too(self) -> None:
        async with missing() as (_, backend):
            assert (await trouble_of(backend.probe())).cause == "model_pulling"
            await until(lambda: not backend.note())
            assert (await backend.probe()).summary == "Ollama 0.12.3, tiny"

    async def test_work_goes_on_when_the_model_is_there(self) -> None:
        async with missing() as (_, backend):
            await over(backend)
            assert len((await backend.write(TOPIC)).scenes) == 2

    async def test_without_leave_nothing_is_pulled(self) -> None:
        async with missing(options={"pull": False}) as (server, backend):
            error = await trouble_of(backend.write(TOPIC))
            assert (type(error), error.cause) == (Unusable, "model_missing")
            assert not server.bodies("/api/pull")

    async def test_closing_stops_it(self) -> None:
        async with missing((THIRD, "hang")) as (server, backend):
            await trouble_of(backend.write(TOPIC))
            await until(lambda: "34 %" in backend.note())
            await backend.aclose()
            await asyncio.wait_for(server.pull_cancelled.wait(), LIMIT_S)
            assert backend.note() == ""


class TestFailedPull:
    async def test_it_is_told_in_ollamas_words_and_left_alone_for_a_while(self) -> None:
        async with missing((0, "error")) as (server, backend):
            await over(backend)
            for _ in range(2):
                error = await trouble_of(backend.write(TOPIC))
                assert (type(error), error.cause) == (Unusable, "pull_failed")
                assert error.message == f"Ollama cannot pull tiny: {NOT_PULLED}"
                assert error.hint
            assert len(server.bodies("/api/pull")) == 1

    async def test_it_is_told_once_and_then_tried_again(self) -> None:
        async with missing((0, "error"), (LAYER_BYTES, "success"), options={"pull_again_after_s": 0.0}) as (_, backend):
            await over(backend)
            assert (await trouble_of(backend.write(TOPIC))).cause == "pull_failed"
            await over(backend)
            assert len((await backend.write(TOPIC)).scenes) == 2

    async def test_a_model_that_a_person_pulled_meanwhile_is_used(self) -> None:
        async with missing((0, "error")) as (server, backend):
            await over(backend)
            server.models = ("tiny:latest",)
            assert len((await backend.write(TOPIC)).scenes) == 2

    async def test_a_success_that_brings_nothing_is_not_repeated_for_ever(self) -> None:
        async with missing((LAYER_BYTES, "lie")) as (server, backend):
            await over(backend)
            assert (await trouble_of(backend.write(TOPIC))).cause == "pull_failed"
            assert len(server.bodies("/api/pull")) == 1


class TestEndingStream:
    async def test_it_is_taken_up_again_while_it_grows(self) -> None:
        plan = ((10, "hang"), (20, "hang"), (LAYER_BYTES, "success"))
        async with missing(*plan, total_timeout_s=0.5) as (server, backend):
            await over(backend)
            assert len(server.bodies("/api/pull")) == 3
            assert len((await backend.write(TOPIC)).scenes) == 2

    async def test_hours_of_progress_outgrow_one_answer(self) -> None:
        async with missing((10, "flood"), (LAYER_BYTES, "success"), body_bytes_max=20_000) as (_, backend):
            await over(backend)
            assert len((await backend.write(TOPIC)).scenes) == 2

    async def test_it_is_given_up_when_nothing_comes(self) -> None:
        async with missing((10, "cut")) as (server, backend):
            await over(backend)
            assert (await trouble_of(backend.write(TOPIC))).cause == "pull_failed"
            assert len(server.bodies("/api/pull")) == 1 + STALLS_MAX

    async def test_growth_forgives_what_was_before(self) -> None:
        stalls = [(10, "cut")] * STALLS_MAX
        async with missing(*stalls, (20, "cut"), *stalls[1:], (LAYER_BYTES, "success")) as (_, backend):
            await over(backend)
            assert len((await backend.write(TOPIC)).scenes) == 2


class TestModel:
    async def test_a_probe_tells_what_it_can_do(self) -> None:
        async with missing() as (server, backend):
            server.models = ("tiny:latest",)
            details = (await backend.probe()).details
        assert (details["capabilities"], details["context_length"]) == (["completion", "tools"], 131072)

    async def test_a_server_that_does_not_say(self) -> None:
        async with missing() as (server, backend):
            server.models, server.capabilities = ("tiny:latest",), None
            assert set((await backend.probe()).details) == {"version", "models"}

    async def test_a_model_that_does_not_write(self) -> None:
        async with missing() as (server, backend):
            server.models, server.capabilities = ("tiny:latest",), ["embedding"]
            error = await trouble_of(backend.probe())
        assert (type(error), error.cause) == (Unusable, "model_unfit")


class TestFree:
    async def test_the_model_is_unloaded(self) -> None:
        async with missing() as (server, backend):
            server.models = ("tiny:latest",)
            assert isinstance(backend, Frees)
            await backend.free()
            assert server.unloaded == ["tiny"]
            assert server.bodies("/api/generate") == [{"model": "tiny", "keep_alive": 0}]

    async def test_a_model_that_is_not_there_need_not_be(self) -> None:
        async with missing() as (_, backend):
            await backend.free()

    async def test_a_server_that_does_not(self) -> None:
        async with missing() as (server, backend):
            server.models, server.fault = ("tiny:latest",), "error_line"
            error = await trouble_of(backend.free())
        assert (type(error), error.cause) == (RetryLater, "stream_error")
