"""What the voice worker runs: one Piper voice in onnxruntime, on one thread.

Owns the synthesis parameters and the pause between sentences. Promises the same bytes for the same text, and
cues that count samples. Imported in worker processes only.
"""

import io
import json
import wave
from pathlib import Path
from typing import Final

import onnxruntime  # type: ignore[import-untyped]
from piper import PiperVoice, SynthesisConfig
from piper.config import PiperConfig

from topicd.backends.embedded import prose
from topicd.errors import Rejected, Unusable

PAUSE_S: Final = 0.25

_SAMPLE_BYTES: Final = 2
# Noise is drawn from a generator that cannot be seeded: without it the same text gives the same bytes.
_SYNTHESIS: Final = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)


class Voice:
    """A loaded voice.

    Args:
        voice_file: path of an ONNX voice; its settings are beside it in `<voice_file>.json`.

    Raises:
        Unusable: the two files are not a voice (`voice_unreadable`).
    """

    def __init__(self, voice_file: str) -> None:
        try:
            settings = json.loads(Path(f"{voice_file}.json").read_text(encoding="utf-8"))
            config = PiperConfig.from_dict(settings)
            self._voice = PiperVoice(session=_session(voice_file), config=config)
        except Exception as error:
            # onnxruntime raises a class of its own for each way in which a file is bad.
            raise Unusable(
                "voice_unreadable",
                f"{Path(voice_file).name} cannot be loaded: {type(error).__name__}: {error}"[:300],
                hint="Name a Piper voice, NAME.onnx with NAME.onnx.json beside it, in TOPICD_VOICE_FILE.",
            ) from error
        self._language = str(settings.get("language", {}).get("code") or config.espeak_voice)
        self._rate_hz = config.sample_rate

    def speak(self, *, text: str, language: str) -> tuple[dict[str, object], bytes]:
        """Return the cues as [start_s, end_s, words] and a WAV. An empty language is any.

        Raises:
            Rejected: another language than the voice's (`voice_language`), or no speech came of it
                (`nothing_to_speak`).
        """
        if language and _family(language) != _family(self._language):
            raise Rejected(
                "voice_language",
                f"The installed voice speaks {self._language}, not {language[:20]}.",
                hint="Name a voice of that language in TOPICD_VOICE_FILE, or use a Piper server.",
            )
        pcm = bytearray()
        cues: list[list[object]] = []
        for sentence in prose.sentences(text):
            samples = self._pcm(sentence)
            if samples and pcm:
                pcm += bytes(int(PAUSE_S * self._rate_hz) * _SAMPLE_BYTES)
            if samples:
                start = len(pcm)
                pcm += samples
                cues.append([self._seconds(start), self._seconds(len(pcm)), sentence])
        if not pcm:
            raise Rejected(
                "nothing_to_speak", "The narration has no words that can be spoken.", hint="Give the scene words."
            )
        return {"cues": cues, "language": self._language}, self._wav(bytes(pcm))

    def _pcm(self, sentence: str) -> bytes:
        if not any(character.isalnum() for character in sentence):
            return b""
        # Double brackets would be read as phonemes.
        words = sentence.replace("[", " ").replace("]", " ")
        return b"".join(chunk.audio_int16_bytes for chunk in self._voice.synthesize(words, _SYNTHESIS))

    def _seconds(self, pcm_bytes: int) -> float:
        return pcm_bytes / _SAMPLE_BYTES / self._rate_hz

    def _wav(self, pcm: bytes) -> bytes:
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(_SAMPLE_BYTES)
            writer.setframerate(self._rate_hz)
            writer.writeframes(pcm)
        return file.getvalue()


def _session(voice_file: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(voice_file, options, providers=["CPUExecutionProvider"])


def _family(language: str) -> str:
    return language.lower().replace("_", "-").split("-")[0]
