"""OpenAI's speech API under the suite of its Protocol, with a server that lists its voices and one that does not."""

import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from conformance.audio import AudioSuite
from conformance.backend import Repeats
from fakes.speech_server import RATE_HZ, SpeechServer, speech
from topicd.backends.base import AudioBackend, Speech, SpeechRequest
from topicd.backends.client import Client
from topicd.backends.openai_speech import OpenAISpeech

SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
CALL_TIMEOUT_S = 60.0
CHARS_PER_S = 15.0


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


class SpeakingServer(SpeechServer):
    """Answers with a tone as long as the text would last."""

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        text = (await request.json()).get("input", "")
        self.wav = speech(int(RATE_HZ * max(0.1, len(text) / CHARS_PER_S)))
        return await super()._speech(request)


@pytest.mark.parametrize(
    ("lists", "fault"),
    [(True, ""), (True, "lying"), (True, "refuses_stream"), (False, "other_voice")],
    ids=["whole", "streamed", "strict", "without lists"],
)
class TestOpenAISpeech(AudioSuite, Repeats[AudioBackend, SpeechRequest, Speech]):
    secret = SECRET

    @pytest.fixture
    async def backend(self, lists: bool, fault: str) -> AsyncIterator[AudioBackend]:  # noqa: FBT001 - a parameter
        async with SpeakingServer(lists=lists) as server:
            server.fault = fault
            async with contextlib.aclosing(OpenAISpeech(client_of(server.url), model="kokoro")) as made:
                yield made
