"""Backends that draw by HTTP under the suite of their Protocol: doubles, and a real server where one is named.

`TOPICD_TEST_SD_URL` names any server with the AUTOMATIC1111 API; whatever it is, the whole suite runs on it.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from conformance.backend import Repeats
from conformance.images import ImageSuite
from fakes.a1111_server import A1111Server
from fakes.backends import png
from fakes.images_server import CLOUD_SIZES, ImagesServer
from topicd.backends.a1111 import A1111
from topicd.backends.base import ImageBackend, Picture, PictureRequest
from topicd.backends.client import Client
from topicd.backends.openai_images import OpenAIImages

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
CALL_TIMEOUT_S = 60.0
STEPS = 4
"""Few, for a real server: what is drawn is not looked at."""
REAL_URL = os.environ.get("TOPICD_TEST_SD_URL", "")

ImageRepeats = Repeats[ImageBackend, PictureRequest, Picture]


def client_of(url: str, password: str = "") -> Client:
    return Client(
        base_url=url.replace("://", f"://someone:{password}@") if password else url,
        verify=True,
        ca_file=None,
        connect_timeout_s=5.0,
        read_timeout_s=CALL_TIMEOUT_S,
        total_timeout_s=CALL_TIMEOUT_S,
        body_bytes_max=100_000_000,
        tries_max=1,
    )


class DrawingA1111(A1111Server):
    """Draws in the size and with the seed that is asked for."""

    def _drawn(self, body: dict[str, Any]) -> dict[str, Any]:
        self.image = png(body["width"], body["height"], body["seed"])
        return super()._drawn(body)


@pytest.mark.parametrize("is_web_ui", [True, False], ids=["web UI", "stable-diffusion.cpp"])
class TestA1111(ImageSuite, ImageRepeats):
    secret = SECRET

    @pytest.fixture
    async def backend(self, is_web_ui: bool) -> AsyncIterator[ImageBackend]:  # noqa: FBT001 - a parameter of the test
        server = DrawingA1111(is_web_ui=is_web_ui)
        async with server, contextlib.aclosing(A1111(client_of(server.url, SECRET), model="base")) as made:
            yield made


@pytest.mark.parametrize("sizes", [frozenset(), CLOUD_SIZES], ids=["any size", "few sizes"])
class TestOpenAIImages(ImageSuite, ImageRepeats):
    secret = SECRET

    @pytest.fixture
    async def backend(self, sizes: frozenset[str]) -> AsyncIterator[ImageBackend]:
        server = ImagesServer(sizes=sizes)
        async with server, contextlib.aclosing(OpenAIImages(client_of(server.url, SECRET))) as made:
            yield made


if REAL_URL:  # not a skip: without a server named by hand there is nothing to test

    class TestRealServer(ImageSuite):
        """The server that is named; whether it repeats itself is its own affair."""

        @pytest.fixture
        async def backend(self) -> AsyncIterator[ImageBackend]:
            async with contextlib.aclosing(A1111(client_of(REAL_URL), steps=STEPS)) as made:
                yield made
