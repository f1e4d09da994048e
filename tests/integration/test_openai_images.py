"""OpenAI's images API against a double: what is asked, what is asked again with less, and what each fault means."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import pytest

from fakes.backends import png
from fakes.images_server import CLOUD_SIZES, ONE_SIZE, ImagesServer
from rig.events import until
from rig.pictures import LIGHTHOUSE
from topicd.backends.base import ImageBackend, PictureRequest
from topicd.backends.client import Client
from topicd.backends.openai_images import OpenAIImages
from topicd.backends.picturing import PromptTemplates
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
DRAW = "/v1/images/generations"
WIDE = LIGHTHOUSE
TALL = replace(WIDE, width_px=720, height_px=1280)
SQUARE = replace(WIDE, width_px=512, height_px=512)


def client_of(url: str, **changed: Any) -> Client:
    usual: dict[str, Any] = {
        "verify": True,
        "ca_file": None,
        "connect_timeout_s": 5.0,
        "read_timeout_s": 10.0,
        "total_timeout_s": LIMIT_S,
        "body_bytes_max": 10_000_000,
        "tries_max": 1,
    }
    return Client(base_url=url, **{**usual, **changed})


@contextlib.asynccontextmanager
async def drawing(
    server: ImagesServer | None = None, *, fault: str = "", **changed: Any
) -> AsyncIterator[tuple[ImagesServer, OpenAIImages]]:
    async with server or ImagesServer() as running:
        running.fault = fault
        async with contextlib.aclosing(OpenAIImages(client_of(running.url), **changed)) as backend:
            yield running, backend


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


def sizes(server: ImagesServer) -> list[str]:
    return [body["size"] for body in server.bodies(DRAW)]


class TestRequest:
    async def test_it_is_an_image_backend(self) -> None:
        async with drawing(model="flux", calls_max=3, holds_gpu=True) as (_, backend):
            assert isinstance(backend, ImageBackend)
            assert (backend.name, backend.calls_max, backend.holds_gpu) == ("openai-images", 3, True)
            assert backend.provenance() == {"server": "openai-images", "model": "flux", "prompt": ""}

    async def test_picture_and_what_was_asked(self) -> None:
        async with drawing(model="flux") as (server, backend):
            drawn = await backend.draw(replace(WIDE, width_px=1281))
        assert drawn.data.startswith(b"\x89PNG")
        size = {"size": "1288x720", "response_format": "b64_json"}
        assert server.bodies(DRAW) == [{"model": "flux", "prompt": "a lighthouse, oil", "n": 1, **size}]

    async def test_without_a_model_the_server_chooses(self) -> None:
        async with drawing() as (server, backend):
            await backend.draw(WIDE)
        assert "model" not in server.bodies(DRAW)[0]

    async def test_template_of_the_owner(self) -> None:
        templates = PromptTemplates("<lora:mine:0.5> $prompt, 4k", "blurry")
        async with drawing(templates=templates) as (server, backend):
            await backend.draw(replace(WIDE, prompt="a <lora:evil:1>cat"))
            assert backend.provenance()["prompt"] == templates.positive
        assert server.bodies(DRAW)[0]["prompt"] == "<lora:mine:0.5> a cat, 4k"

    @pytest.mark.parametrize("prefix", ["", "/api/v3", "/api/v3/"])
    async def test_another_prefix(self, prefix: str) -> None:
        async with drawing(ImagesServer(prefix=prefix.rstrip("/")), prefix=prefix) as (_, backend):
            assert (await backend.draw(WIDE)).data

    async def test_nothing_left_of_the_prompt(self) -> None:
        async with drawing() as (server, backend):
            error = await trouble_of(backend.draw(replace(WIDE, prompt="<lora:evil:1>")))
        assert (type(error), error.cause, server.asked) == (Rejected, "prompt_empty", [])


class TestWithLess:
    @pytest.mark.parametrize(
        ("sizes_known", "fields", "request_", "asked"),
        [
            (frozenset(), {"size"}, WIDE, ["1280x720", "1280x720"]),
            (CLOUD_SIZES, {"size"}, WIDE, ["1280x720", "1280x720", "1536x1024"]),
            (CLOUD_SIZES, {"size"}, TALL, ["720x1280", "720x1280", "1024x1536"]),
            (CLOUD_SIZES, {"size"}, SQUARE, ["512x512", "512x512", "1024x1024"]),
            (ONE_SIZE, {"size", "response_format"}, WIDE, ["1280x720", "1280x720", "1536x1024", "1024x1024"]),
            (ONE_SIZE, {"size"}, WIDE, ["1280x720", "1280x720", "1536x1024", "1024x1024", "1024x1024"]),
        ],
        ids=["no format", "cloud, wide", "cloud, tall", "cloud, square", "one size", "one size, no format"],
    )
    async def test_what_it_refuses_is_left_out_and_stays_out(
        self, sizes_known: frozenset[str], fields: set[str], request_: PictureRequest, asked: list[str]
    ) -> None:
        server = ImagesServer(sizes=sizes_known, fields=frozenset(fields))
        async with drawing(server) as (_, backend):
            for _ in range(3):
                assert (await backend.draw(request_)).data
        assert sizes(server) == [*asked, asked[-1], asked[-1]]

    async def test_it_ends_where_everything_is_refused(self) -> None:
        async with drawing(ImagesServer(fields=frozenset())) as (server, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (Rejected, "bad_request")
        assert len(server.bodies(DRAW)) == 5

    async def test_what_the_policy_refuses_is_not_asked_for_again(self) -> None:
        async with drawing(fault="policy") as (server, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (Rejected, "picture_refused")
        assert "safety system" in error.message
        assert error.hint
        assert len(server.bodies(DRAW)) == 1


class TestAnswer:
    @pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
    async def test_base64_plain_or_as_an_address(self, before: str) -> None:
        image = png(64, 64, 1)
        async with drawing() as (server, backend):
            server.data = [{"b64_json": before + base64.b64encode(image).decode(), "url": None}]
            assert (await backend.draw(WIDE)).data == image

    @pytest.mark.parametrize(
        ("data", "cause"),
        [
            ([], "no_image"),
            ({}, "no_image"),
            ("x", "no_image"),
            ([None], "no_image"),
            ([{}], "no_image"),
            ([{"b64_json": None}], "no_image"),
            ([{"b64_json": ""}], "no_image"),
            ([{"b64_json": 7}], "no_image"),
            ([{"b64_json": "*not base64*"}], "not_image"),
            ([{"b64_json": base64.b64encode(b"GIF89a").decode()}], "not_image"),
        ],
    )
    async def test_bad_answer(self, data: object, cause: str) -> None:
        async with drawing() as (server, backend):
            server.data = data
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (RetryLater, cause)

    async def test_a_picture_past_its_limit(self) -> None:
        async with drawing(picture_bytes_max=100) as (_, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (Rejected, "answer_too_large")

    async def test_an_address_is_not_followed(self) -> None:
        async with drawing(fault="by_url") as (_, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (Unusable, "image_by_url")
        assert "b64_json" in error.hint

    async def test_out_of_memory_keeps_the_servers_words(self) -> None:
        async with drawing(fault="oom") as (_, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (RetryLater, "server_error")
        assert "CUDA out of memory" in error.message


class TestModel:
    @pytest.mark.parametrize("fault", ["", "model_404", "model_400", "model_500"])
    async def test_a_missing_one_says_which_are_there(self, fault: str) -> None:
        async with drawing(fault=fault, model="nothing") as (_, backend):
            for call in (backend.draw(WIDE), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "model_missing")
                assert "flux" in error.message

    async def test_where_none_are_listed_the_servers_words_tell(self) -> None:
        async with drawing(ImagesServer(lists=False), model="nothing") as (_, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (Unusable, "model_missing")
        assert "does not exist" in error.message

    async def test_one_that_is_there_is_not_to_blame(self) -> None:
        async with drawing(fault="model_500", model="flux") as (_, backend):
            error = await trouble_of(backend.draw(WIDE))
        assert (type(error), error.cause) == (RetryLater, "server_error")


class TestProbe:
    @pytest.mark.parametrize("lists", [True, False])
    async def test_it_says_what_it_is(self, lists: bool) -> None:  # noqa: FBT001 - a parameter of the test
        async with drawing(ImagesServer(lists=lists), model="flux") as (server, backend):
            probe = await backend.probe()
        assert probe.summary == "OpenAI images, flux"
        assert probe.details["models"] == (["flux"] if lists else [])
        assert server.bodies(DRAW) == ([] if lists else [{}]), "nothing is drawn for it"

    async def test_a_server_without_the_route(self) -> None:
        async with drawing(ImagesServer(lists=False, routed=False)) as (_, backend):
            for call in (backend.draw(WIDE), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "not_images")
                assert DRAW in error.message

    async def test_a_server_that_is_away(self) -> None:
        async with ImagesServer() as server:
            pass
        async with contextlib.aclosing(OpenAIImages(client_of(server.url))) as backend:
            error = await trouble_of(backend.probe())
        assert (type(error), error.cause) == (Unavailable, "connect_refused")


async def test_a_cancelled_call_is_hung_up_on_and_the_next_is_well() -> None:
    async with drawing() as (server, backend):
        server.may_draw.clear()
        call = asyncio.create_task(backend.draw(WIDE))
        await until(lambda: server.bodies(DRAW), "it is asked", LIMIT_S)
        call.cancel()
        await asyncio.wait({call}, timeout=LIMIT_S)
        assert call.cancelled()
        assert backend.servers()[0].calls == 0
        server.may_draw.set()
        assert (await backend.draw(WIDE)).data
