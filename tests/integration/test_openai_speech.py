"""The backend for OpenAI's speech API, against a double with the habits of the real servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from fakes.ollama_server import OllamaServer
from fakes.speech_server import SpeechServer, lying, speech
from topicd.backends.base import AudioBackend, SpeechRequest
from topicd.backends.client import Client
from topicd.backends.openai_speech import OpenAISpeech
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable
from topicd.stages.wav import check_speech

LIMIT_S = 20.0
SPEECH = "/v1/audio/speech"
VOICES = "/v1/audio/voices"
MODELS = "/v1/models"


def client_of(url: str, **changed: Any) -> Client:
    usual: dict[str, Any] = {
        "verify": True,
        "ca_file": None,
        "connect_timeout_s": 5.0,
        "read_timeout_s": 10.0,
        "total_timeout_s": LIMIT_S,
        "body_bytes_max": 1_000_000,
        "tries_max": 1,
    }
    return Client(base_url=url, **{**usual, **changed})


@contextlib.asynccontextmanager
async def speaking(
    server: SpeechServer | None = None, *, fault: str = "", limits: dict[str, Any] | None = None, **changed: Any
) -> AsyncIterator[tuple[SpeechServer, OpenAISpeech]]:
    async with server or SpeechServer() as running:
        running.fault = fault
        async with contextlib.aclosing(OpenAISpeech(client_of(running.url, **(limits or {})), **changed)) as backend:
            yield running, backend


def spoken(text: str = "Hello there.", voice: str = "") -> SpeechRequest:
    return SpeechRequest(text, "en", voice, 42)


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S + 5)
    return caught.value


def paths(server: SpeechServer) -> list[str]:
    return [path for _, path, _ in server.asked]


class TestRequest:
    async def test_it_is_an_audio_backend(self) -> None:
        async with speaking(model="kokoro", voice="af_bella", speed=1.1, calls_max=2, holds_gpu=True) as (_, backend):
            assert isinstance(backend, AudioBackend)
            assert (backend.name, backend.calls_max, backend.holds_gpu) == ("openai-speech", 2, True)
            expected = {"server": "openai-speech", "model": "kokoro", "voice": "af_bella", "speed": "1.1"}
            assert backend.provenance() == expected

    async def test_it_takes_one_call_and_no_gpu_unless_told(self) -> None:
        async with speaking() as (_, backend):
            assert (backend.calls_max, backend.holds_gpu) == (1, False)

    async def test_speech_and_what_was_asked(self) -> None:
        async with speaking(model="kokoro", voice="af_bella", speed=0.9) as (server, backend):
            assert (await backend.speak(spoken())).wav == speech()
        assert server.bodies(SPEECH) == [
            {
                "model": "kokoro",
                "voice": "af_bella",
                "speed": 0.9,
                "input": "Hello there.",
                "response_format": "wav",
                "stream": False,
            }
        ]

    async def test_what_is_not_set_is_left_to_the_server(self) -> None:
        async with speaking() as (server, backend):
            await backend.speak(spoken())
        assert paths(server) == [SPEECH]
        assert server.bodies(SPEECH) == [{"input": "Hello there.", "response_format": "wav", "stream": False}]

    @pytest.mark.parametrize("prefix", ["", "/api/v3", "/api/v3/"])
    async def test_another_prefix(self, prefix: str) -> None:
        async with speaking(SpeechServer(prefix=prefix.rstrip("/")), prefix=prefix, voice="af_bella") as (_, backend):
            assert (await backend.speak(spoken())).wav == speech()

    @pytest.mark.parametrize("text", ["", " \n", "...", "—"])
    async def test_nothing_to_say(self, text: str) -> None:
        async with speaking() as (server, backend):
            error = await trouble_of(backend.speak(spoken(text)))
        assert (type(error), error.cause, server.asked) == (Rejected, "text_empty", [])

    async def test_the_field_a_server_refuses_is_dropped_and_stays_dropped(self) -> None:
        async with speaking(fault="refuses_stream") as (server, backend):
            for _ in range(2):
                assert (await backend.speak(spoken())).wav == speech()
        assert ["stream" in body for body in server.bodies(SPEECH)] == [True, False, False]

    async def test_a_refusal_for_another_reason_keeps_the_field(self) -> None:
        async with speaking(SpeechServer(lists=False), voice="nobody") as (server, backend):
            error = await trouble_of(backend.speak(spoken()))
            await backend.speak(spoken(voice="af_bella"))
        assert (type(error), error.cause) == (Rejected, "bad_request")
        assert "Voice 'nobody' not found" in error.message
        assert ["stream" in body for body in server.bodies(SPEECH)] == [True, False, True]


class TestAnswer:
    async def test_a_lying_header_is_mended(self) -> None:
        async with speaking(fault="lying") as (_, backend):
            assert (await backend.speak(spoken())).wav == speech()

    @pytest.mark.parametrize(
        ("fault", "kind", "cause", "said"),
        [
            ("empty", RetryLater, "audio_empty", "empty"),
            ("no_frames", RetryLater, "audio_empty", "no sound"),
            ("mp3", RetryLater, "not_wav", "MP3"),
            ("ogg", RetryLater, "not_wav", "Ogg"),
            ("json", RetryLater, "not_wav", "CUDA out of memory"),
            ("cut", RetryLater, "answer_cut", "broke off"),
            ("flood", Rejected, "answer_too_large", "limit"),
            ("busy", Unavailable, "busy", "Model is loading"),
            ("broken", RetryLater, "server_error", "failed to load model"),
        ],
    )
    async def test_trouble(self, fault: str, kind: type[TopicdError], cause: str, said: str) -> None:
        async with speaking(fault=fault) as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (kind, cause)
        assert said in error.message
        assert error.hint or cause not in {"not_wav", "server_error"}

    async def test_a_stalled_answer_meets_the_time_limit(self) -> None:
        async with speaking(fault="stalled", limits={"read_timeout_s": 0.3}) as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (RetryLater, "read_timeout")

    async def test_a_stalled_answer_can_be_cancelled(self) -> None:
        async with speaking(fault="stalled") as (_, backend):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(backend.speak(spoken()), 0.3)

    async def test_silence_passes_here_and_is_caught_by_the_stage(self) -> None:
        async with speaking(fault="silence") as (_, backend):
            silent = await backend.speak(spoken())
        with pytest.raises(RetryLater, match="silent"):
            check_speech(silent, text="Hi", unit="audio/001", bytes_max=1_000_000)

    async def test_another_format_is_a_matter_of_the_set_up(self) -> None:
        server = SpeechServer()
        server.wav = speech()[:20] + b"\x03\0" + speech()[22:34] + b"\x20\0" + speech()[36:]
        async with speaking(server) as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (Unusable, "wav_format")
        assert "float, 32 bit" in error.message


class TestVoice:
    @pytest.mark.parametrize("voices", [("one", "two"), ({"id": "one"}, {"id": "two", "name": "Two"})])
    async def test_names_and_objects(self, voices: tuple[Any, ...]) -> None:
        async with speaking(SpeechServer(voices=voices), voice="two") as (server, backend):
            assert (await backend.speak(spoken())).wav == speech()
            assert (await trouble_of(backend.speak(spoken(voice="Two")))).cause == "voice_missing"
        assert [body["voice"] for body in server.bodies(SPEECH)] == ["two"]

    async def test_an_unknown_voice_is_not_answered_in_another(self) -> None:
        async with speaking(fault="other_voice", voice="af_bella") as (server, backend):
            asked = await trouble_of(backend.speak(spoken(voice="nobody")))
            assert not server.bodies(SPEECH)
        async with speaking(fault="other_voice", voice="nobody") as (_, backend):
            configured = await trouble_of(backend.speak(spoken()))
            both = await trouble_of(backend.speak(spoken(voice="nobody")))
            probed = await trouble_of(backend.probe())
        assert [type(error) for error in (asked, configured, both, probed)] == [Rejected, Unusable, Unusable, Unusable]
        assert {error.cause for error in (asked, configured, both, probed)} == {"voice_missing"}
        assert "af_bella, af_heart" in asked.message

    async def test_a_mixture_needs_all_its_voices(self) -> None:
        async with speaking() as (_, backend):
            assert (await backend.speak(spoken(voice="af_bella(2)+af_heart(1)"))).wav == speech()
            error = await trouble_of(backend.speak(spoken(voice="af_bella+nobody")))
        assert (type(error), error.cause) == (Rejected, "voice_missing")

    async def test_a_server_that_lists_no_voices_is_asked_for_them_once(self) -> None:
        server = SpeechServer(voices=("af_bella",))
        async with speaking(server, voice="af_bella", fault="other_voice") as (_, backend):
            server.voices = ({"id": ""},)
            for _ in range(2):
                assert (await backend.speak(spoken())).wav == speech()
        assert paths(server) == [VOICES, SPEECH, SPEECH]

    async def test_a_server_without_a_list_of_voices_is_not_checked(self) -> None:
        async with speaking(SpeechServer(lists=False), voice="af_bella") as (_, backend):
            for _ in range(2):
                assert (await backend.speak(spoken())).wav == speech()
            assert not backend._lists_voices

    @pytest.mark.parametrize(("asked", "kind"), [("nobody", Rejected), ("", Unusable)])
    async def test_a_voice_that_only_the_speech_itself_misses(self, asked: str, kind: type[TopicdError]) -> None:
        async with speaking(SpeechServer(lists=False), fault="voice_404", voice="none") as (_, backend):
            error = await trouble_of(backend.speak(spoken(voice=asked)))
        assert (type(error), error.cause) == (kind, "voice_missing")


class TestModel:
    @pytest.mark.parametrize("lists", [True, False])
    async def test_missing(self, lists: bool) -> None:  # noqa: FBT001 - a parameter of the test
        async with speaking(SpeechServer(lists=lists), model="whisper") as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (Unusable, "model_missing")
        assert "whisper" in error.message
        assert ("kokoro" in error.message) is lists

    async def test_missing_and_told_by_a_server_error(self) -> None:
        async with speaking(model="whisper", fault="broken") as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (Unusable, "model_missing")

    async def test_a_server_error_with_the_model_there_stays_one(self) -> None:
        async with speaking(model="kokoro", fault="broken") as (_, backend):
            error = await trouble_of(backend.speak(spoken()))
        assert (type(error), error.cause) == (RetryLater, "server_error")


class TestProbe:
    @pytest.mark.parametrize(
        ("lists", "changed", "summary"),
        [
            (True, {"model": "kokoro", "voice": "af_bella"}, "OpenAI speech, kokoro, af_bella"),
            (True, {}, "OpenAI speech, its own model, its own voice"),
            (False, {"model": "any", "voice": "any"}, "OpenAI speech, any, any"),
        ],
    )
    async def test_summary(self, lists: bool, changed: dict[str, Any], summary: str) -> None:  # noqa: FBT001 - as above
        async with speaking(SpeechServer(lists=lists), **changed) as (_, backend):
            assert (await backend.probe()).summary == summary

    async def test_missing_model(self) -> None:
        async with speaking(model="whisper") as (_, backend):
            error = await trouble_of(backend.probe())
        assert (type(error), error.cause) == (Unusable, "model_missing")
        assert "kokoro, tts-1" in error.message

    async def test_voices_are_asked_for_anew(self) -> None:
        async with speaking(voice="af_bella") as (server, backend):
            backend._lists_voices = False
            await backend.probe()
            await backend.speak(spoken())
        assert paths(server) == [MODELS, VOICES, VOICES, SPEECH]

    async def test_another_server_at_its_address(self) -> None:
        async with OllamaServer() as server, contextlib.aclosing(OpenAISpeech(client_of(server.url))) as backend:
            for call in (backend.speak(spoken()), backend.probe()):
                error = await trouble_of(call)
                assert (type(error), error.cause) == (Unusable, "not_speech")
                assert SPEECH in error.message


def test_the_double_lies_as_streams_do() -> None:
    assert lying(speech())[40:44] == b"\xff" * 4
