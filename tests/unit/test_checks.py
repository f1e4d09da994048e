"""What `check` says of a language that is set and of what a backend knows."""

import pytest

from topicd.backends.base import Probe
from topicd.checks import lack
from topicd.settings import Settings
from topicd.states import Stage

VOICE = {"voices": ["en_US-joe-medium"], "own_language": "en_US", "fetches_voices": True}


@pytest.mark.parametrize(
    ("stage", "language", "details", "fault", "hint"),
    [
        (Stage.SCRIPTS, "en-GB", {"languages": ["en"]}, "", ""),
        (Stage.SCRIPTS, "pt-BR", {"languages": ["en"]}, "it writes en, not pt-BR", "topicd fetch models"),
        (Stage.SCRIPTS, "pt-BR", {}, "", ""),
        (Stage.AUDIO, "en", VOICE, "", ""),
        (Stage.AUDIO, "pt", VOICE, "", "topicd fetch voice pt_BR-faber-medium"),
        (Stage.AUDIO, "pt", {**VOICE, "fetches_voices": False}, "no voice 'pt_BR-faber-medium'", "TTS_VOICES"),
        (Stage.AUDIO, "fr", VOICE, "its own voice speaks en_US, and there is none for fr", "--language fr"),
        (Stage.AUDIO, "fr", {"voices": ["a", "b"]}, "", ""),
    ],
)
def test_what_the_language_lacks(
    stage: Stage, language: str, details: dict[str, object], fault: str, hint: str
) -> None:
    settings = Settings.model_construct(language=language, tts_voices={"pt-BR": "pt_BR-faber-medium"}, tts_voice="")
    found, advice = lack(stage, Probe("", details), settings)
    assert fault in found
    assert bool(fault) == bool(found)
    assert hint in advice
