"""The suite for backends that speak."""

from dataclasses import replace
from itertools import pairwise

from conformance.backend import BROKEN_TEXTS, NO_WORDS, TEXTS, BackendSuite
from topicd.backends.base import AudioBackend, Speech, SpeechRequest
from topicd.stages.wav import check_speech, read_wave

PLAIN = SpeechRequest(text="The Moon pulls on the sea. It rises.", language="en", voice="", seed=7)
SENTENCE = "The water rises and falls again along the coast. "
SPEECH_BYTES_MAX = 100_000_000
UNUSUAL = {
    "seed 0": replace(PLAIN, seed=0),
    "largest seed": replace(PLAIN, seed=2**31 - 1),
    "long text": replace(PLAIN, text=SENTENCE * 8),
    "one long word": replace(PLAIN, text="sea" * 40),
    "no end": replace(PLAIN, text="and then the water"),
    "a dialect": replace(PLAIN, language="en-AU"),
    "Brazilian": replace(PLAIN, language="pt-BR", text="A Lua puxa a água do mar."),
    "a voice nobody has": replace(PLAIN, voice="xx_XX-nobody-low"),
    "a voice with a path": replace(PLAIN, voice="../../etc/passwd"),
    "no words": replace(PLAIN, text=NO_WORDS),
    **{name: replace(PLAIN, text=text) for name, text in {**TEXTS, **BROKEN_TEXTS}.items()},
}


class AudioSuite(BackendSuite[AudioBackend, SpeechRequest, Speech]):
    """What every AudioBackend does."""

    protocol = AudioBackend
    plain = PLAIN
    other = replace(PLAIN, text="Twice a day.")
    long = replace(PLAIN, text=SENTENCE * 8)
    unusual = UNUSUAL

    async def ask(self, backend: AudioBackend, request: SpeechRequest) -> Speech:
        return await backend.speak(request)

    def check(self, product: Speech, request: SpeechRequest) -> None:
        assert isinstance(product, Speech)
        check_speech(product, text=request.text, unit="audio/001", bytes_max=SPEECH_BYTES_MAX)
        edges = [edge for start_s, end_s, _ in product.cues for edge in (start_s, end_s)]
        assert all(one <= two for one, two in pairwise([0.0, *edges, read_wave(product.wav).seconds]))
        assert all(words.strip() for _, _, words in product.cues)
