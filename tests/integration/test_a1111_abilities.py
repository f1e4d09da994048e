"""What servers with the AUTOMATIC1111 API differ in: progress, interruption, memory, samplers; and the templates."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from fakes.a1111_server import A1111Server
from rig.events import until
from rig.pictures import LIGHTHOUSE
from topicd.backends.a1111 import A1111
from topicd.backends.base import Frees
from topicd.backends.client import Client
from topicd.backends.picturing import PromptTemplates
from topicd.errors import TopicdError, Unusable

LIMIT_S = 20.0
PROGRESS_S = 0.01
DRAW = "/sdapi/v1/txt2img"
INTERRUPT = "/sdapi/v1/interrupt"


def client_of(url: str, calls_max: int) -> Client:
    return Client(
        base_url=url,
        verify=True,
        ca_file=None,
        connect_timeout_s=5.0,
        read_timeout_s=10.0,
        total_timeout_s=LIMIT_S,
        body_bytes_max=1_000_000,
        tries_max=1,
        calls_max=calls_max,
    )


@contextlib.asynccontextmanager
async def drawing(
    server: A1111Server | None = None, *, calls_max: int = 1, **changed: Any
) -> AsyncIterator[tuple[A1111Server, A1111]]:
    async with server or A1111Server() as running:
        backend = A1111(client_of(running.url, calls_max), progress_s=PROGRESS_S, calls_max=calls_max, **changed)
        async with contextlib.aclosing(backend):
            yield running, backend


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


@contextlib.asynccontextmanager
async def calls_under_way(server: A1111Server, backend: A1111, count: int) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Have pictures under way that wait for the server."""
    server.may_draw.clear()
    before = len(server.bodies(DRAW))
    calls = [asyncio.create_task(backend.draw(LIGHTHOUSE)) for _ in range(count)]
    await until(lambda: len(server.bodies(DRAW)) == before + count, "they are asked for", LIMIT_S)
    yield calls
    server.may_draw.set()
    await asyncio.wait(calls, timeout=LIMIT_S)


class TestProgress:
    async def test_it_is_told_while_a_picture_is_drawn(self) -> None:
        async with drawing() as (server, backend), calls_under_way(server, backend, 1) as (call,):
            assert backend.note() == ""
            for progress, told in ((0.25, "drawing: 25 %"), (1, "drawing: 100 %")):
                server.progress = progress
                await until(lambda told=told: backend.note() == told, told, LIMIT_S)  # type: ignore[misc]
                assert [state.note for state in backend.servers()] == [told]
            server.may_draw.set()
            await asyncio.wait_for(call, LIMIT_S)
            assert backend.note() == ""

    @pytest.mark.parametrize("told", [0, -1, 7.5, "half", None])
    async def test_what_is_no_share_is_not_told(self, told: Any) -> None:
        async with drawing() as (server, backend), calls_under_way(server, backend, 1):
            server.progress = told
            asked = len(server.asked)
            await until(lambda: len(server.asked) > asked + 2, "it is asked again", LIMIT_S)
            assert backend.note() == ""

    async def test_a_question_that_fails_is_no_trouble_of_the_picture(self) -> None:
        async with drawing() as (server, backend):
            await backend.draw(LIGHTHOUSE)
            server.progress_status = 500
            async with calls_under_way(server, backend, 1) as (call,):
                asked = len(server.asked)
                await until(lambda: len(server.asked) > asked + 2, "it is asked again", LIMIT_S)
                server.may_draw.set()
                assert (await asyncio.wait_for(call, LIMIT_S)).data

    async def test_the_one_place_is_the_pictures(self) -> None:
        async with drawing(calls_max=1) as (server, backend), calls_under_way(server, backend, 1):
            server.progress = 0.5
            await until(backend.note, "a question needs no place", LIMIT_S)
            assert (backend.servers()[0].calls, backend.servers()[0].waiting) == (1, 0)


class TestInterrupt:
    async def test_a_picture_that_is_not_wanted_any_more(self) -> None:
        async with drawing() as (server, backend), calls_under_way(server, backend, 1) as (call,):
            call.cancel()
            await asyncio.wait({call}, timeout=LIMIT_S)
            assert call.cancelled()
            assert server.interrupted == 1
            server.may_draw.set()
            assert (await backend.draw(LIGHTHOUSE)).data

    async def test_beside_another_it_goes_on(self) -> None:
        async with drawing(calls_max=2) as (server, backend), calls_under_way(server, backend, 2) as calls:
            calls[0].cancel()
            await asyncio.wait({calls[0]}, timeout=LIMIT_S)
            assert (calls[0].cancelled(), server.interrupted) == (True, 0)
            server.may_draw.set()
            assert (await calls[1]).data

    async def test_one_that_is_whole_interrupts_nothing(self) -> None:
        async with drawing() as (server, backend):
            await backend.draw(LIGHTHOUSE)
        assert server.interrupted == 0

    async def test_where_it_cannot_be_done_it_is_not_tried(self) -> None:
        server = A1111Server(is_web_ui=False)
        async with drawing(server) as (_, backend), calls_under_way(server, backend, 1) as (call,):
            call.cancel()
            await asyncio.wait({call}, timeout=LIMIT_S)
            assert call.cancelled()
            assert not server.bodies(INTERRUPT)


class TestStableDiffusionCpp:
    """Its server answers what it does not know with its web page, and has one model."""

    async def test_it_draws_without_what_it_does_not_know(self) -> None:
        async with drawing(A1111Server(is_web_ui=False), model="base") as (server, backend):
            assert (await backend.draw(LIGHTHOUSE)).data
        assert "override_settings" not in server.bodies(DRAW)[0]

    async def test_it_is_asked_once_what_it_can(self) -> None:
        async with drawing(A1111Server(is_web_ui=False)) as (server, backend):
            for _ in range(3):
                await backend.draw(LIGHTHOUSE)
        assert [path for _, path, _ in server.asked] == ["/sdapi/v1/progress", DRAW, DRAW, DRAW]
        assert (backend.note(), server.interrupted) == ("", 0)

    async def test_its_probe(self) -> None:
        async with drawing(A1111Server(is_web_ui=False), sampler="Euler a") as (_, backend):
            probe = await backend.probe()
        assert (probe.summary, probe.details["progress"]) == ("AUTOMATIC1111 API, base", False)

    async def test_it_keeps_its_memory(self) -> None:
        async with drawing(A1111Server(is_web_ui=False)) as (server, backend):
            await backend.draw(LIGHTHOUSE)
            await backend.free()
            assert server.holds_memory


class TestFree:
    async def test_it_unloads_its_checkpoint(self) -> None:
        async with drawing() as (server, backend):
            assert isinstance(backend, Frees)
            await backend.draw(LIGHTHOUSE)
            assert server.holds_memory
            await backend.free()
            assert not server.holds_memory


class TestNames:
    @pytest.mark.parametrize("given", [{"model": "nothing"}, {"sampler": "Nobody"}], ids=str)
    async def test_what_is_missing_says_what_is_there(self, given: dict[str, Any]) -> None:
        ((what, _),) = given.items()
        async with drawing(**given) as (_, backend):
            error = await trouble_of(backend.probe())
        assert (type(error), error.cause) == (Unusable, f"{what}_missing")
        assert {"model": "base", "sampler": "Euler a"}[what] in error.message
        assert error.hint

    async def test_probe_tells_all(self) -> None:
        async with drawing(A1111Server(models=("base", "anime")), model="anime", sampler="Euler a") as (_, backend):
            probe = await backend.probe()
        assert probe.summary == "AUTOMATIC1111 API, anime"
        assert probe.details["samplers"] == ["Euler a"]
        assert probe.details["models"] == sorted(
            ["base", "base.safetensors [6ce0161689]", "anime", "anime.safetensors [6ce0161689]"]
        )
        assert (probe.details["loaded_model"], probe.details["progress"]) == ("base", True)


class TestTemplates:
    async def test_they_are_sent_and_kept(self) -> None:
        templates = PromptTemplates("<lora:mine:0.5> $prompt, $style, $title", "blurry, $style")
        async with drawing(templates=templates) as (server, backend):
            await backend.draw(LIGHTHOUSE)
            provenance = backend.provenance()
        (body,) = server.bodies(DRAW)
        assert body["prompt"] == "<lora:mine:0.5> a lighthouse, oil, Tides"
        assert body["negative_prompt"] == "blurry, oil"
        assert (provenance["prompt"], provenance["negative_prompt"]) == (templates.positive, templates.negative)
