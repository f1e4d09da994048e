"""OpenAI's chat API under the suite of its Protocol, with a server that holds to a schema and ones that cannot."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from conformance.backend import Repeats
from conformance.scripts import ScriptSuite
from fakes.ollama_server import script_answer
from fakes.openai_server import OpenAIServer
from topicd.backends.base import Script, ScriptBackend, ScriptRequest
from topicd.backends.client import Client
from topicd.backends.openai_chat import OpenAIChat

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
CALL_TIMEOUT_S = 60.0
SCENES = re.compile(r'"minItems": (\d+)')


def client_of(url: str) -> Client:
    """Return a client that has a password to hide."""
    return Client(
        base_url=url.replace("://", f"://someone:{SECRET}@"),
        verify=True,
        ca_file=None,
        connect_timeout_s=5.0,
        read_timeout_s=CALL_TIMEOUT_S,
        total_timeout_s=CALL_TIMEOUT_S,
        body_bytes_max=100_000_000,
        tries_max=1,
    )


class WritingServer(OpenAIServer):
    """Answers with as many scenes as the schema in the prompt asks for."""

    def _events(self, body: dict[str, Any], text: str) -> Iterator[bytes]:
        prompt = body["messages"][0]["content"]
        (scenes,) = SCENES.findall(prompt)[-1:]
        return super()._events(body, text or script_answer(int(scenes), prompt[:40]))


@pytest.mark.parametrize(
    ("lists", "fault"),
    [(True, ""), (True, "refuses_schema"), (False, "refuses_format")],
    ids=["schema", "object", "prompt alone"],
)
class TestOpenAIChat(ScriptSuite, Repeats[ScriptBackend, ScriptRequest, Script]):
    secret = SECRET

    @pytest.fixture
    async def backend(self, lists: bool, fault: str) -> AsyncIterator[ScriptBackend]:  # noqa: FBT001 - a parameter
        async with WritingServer(lists=lists) as server:
            server.fault = fault
            async with contextlib.aclosing(OpenAIChat(client_of(server.url), model="tiny")) as made:
                yield made
