"""Speech from a Piper HTTP server.

Owns the translation between our values and the server's two generations of routes, and the WAV that comes
back. Promises a RIFF WAVE file whose header tells the truth, PCM 16 bit with at least one frame, in the voice
that was asked for: the server itself would answer in another voice and say nothing. Never judges how the
speech sounds.
"""

import io
import struct
import wave
from collections.abc import Iterator, Mapping
from typing import Final

from topicd.backends.base import Probe, Speech, SpeechRequest
from topicd.backends.client import Client, Json
from topicd.errors import Rejected, RetryLater, TopicdError, Unusable

_ROUTES: Final = ("/synthesize", "/")
_NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed"})
_NAMES_SHOWN_MAX: Final = 12

_HEADER_BYTES: Final = 12
_CHUNK_BYTES: Final = 8
_FORMAT_BYTES_MIN: Final = 16
_FORMATS: Final = frozenset({0x0001, 0xFFFE})
_SAMPLE_BITS: Final = 16
# Streams whose length is unknown write 0, 0xFFFFFFFF, or something just below 2 or 4 GiB.
_STREAMED_BYTES_MIN: Final = 0x7FFFF000


class PiperHTTP:
    """An `AudioBackend` on a Piper HTTP server."""

    name = "piper"
    calls_max = 1
    holds_gpu = False

    def __init__(
        self,
        client: Client,
        *,
        voice: str = "",
        speaker_id: int | None = None,
        length_scale: float | None = None,
        noise_scale: float | None = None,
        noise_w_scale: float | None = None,
    ) -> None:
        """Prepare, without asking the server. What is None or empty is left to the server.

        Args:
            client: the server; this backend closes it.
            voice: as `/voices` names it.
            speaker_id: within a voice of several speakers.
            length_scale: 1 is the voice's own pace, more is slower.
            noise_scale: variation of sound; with both noises 0 the same text gives the same speech.
            noise_w_scale: variation of rhythm.
        """
        self._client = client
        self._voice = voice
        self._route = _ROUTES[0]
        given = {
            "speaker_id": speaker_id,
            "length_scale": length_scale,
            "noise_scale": noise_scale,
            "noise_w_scale": noise_w_scale,
        }
        self._parameters = {key: value for key, value in given.items() if value is not None}

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, voice and parameters."""
        parameters = {key: str(value) for key, value in self._parameters.items()}
        return {"server": "piper", "voice": self._voice, **parameters}

    async def probe(self) -> Probe:
        """Ask for the voices, and for the server's own voice where it tells.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it is no Piper server, or lacks the voice.
        """
        voices = await self._voices()
        self._check_voice("", voices)
        own = await self._own_voice()
        voice = self._voice or own or "its own voice"
        return Probe(f"Piper, {voice}", {"voices": sorted(voices), "own_voice": own})

    async def speak(self, request: SpeechRequest) -> Speech:
        """Return the speech.

        Raises:
            RetryLater: the server failed, or what it sent is no whole WAV.
            Unavailable: the server is away or busy.
            Rejected: there is nothing to say, or the topic's voice is not there.
            Unusable: the voice that is set is not there, or the server is none of Piper.
        """
        if not any(char.isalnum() for char in request.text):
            raise Rejected("text_empty", "there is nothing to say in this text.", hint="give the scene words")
        voice = request.voice or self._voice
        if voice:
            self._check_voice(request.voice, await self._voices())
        body = {"text": request.text, **({"voice": voice} if voice else {}), **self._parameters}
        return Speech(_true_wav(await self._synthesize(body)))

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    async def _synthesize(self, body: Mapping[str, Json]) -> bytes:
        """Try the route that answered last, then the other: 1.5 moved it, and a server may be replaced."""
        for route in sorted(_ROUTES, key=lambda route: route != self._route):
            try:
                data = await self._client.post_bytes(route, body)
            except TopicdError as error:
                if error.cause not in _NO_ROUTE:
                    raise
            else:
                self._route = route
                return data
        raise self._not_piper()

    async def _own_voice(self) -> str:
        """Return the server's default voice; empty before Piper 1.5, which has no `/info`."""
        try:
            info = await self._client.get_json("/info")
        except TopicdError as error:
            if error.cause not in _NO_ROUTE:
                raise
            return ""
        voice = info.get("voice") if isinstance(info, dict) else None
        return str(voice.get("name", "")) if isinstance(voice, dict) else ""

    def _check_voice(self, asked: str, voices: frozenset[str]) -> None:
        voice = asked or self._voice
        if not voice or voice in voices:
            return
        kind = Rejected if asked and asked != self._voice else Unusable
        shown = ", ".join(sorted(voices)[:_NAMES_SHOWN_MAX]) or "none"
        message = f"Piper has no voice {voice[:100]!r}; it has: {shown}."
        raise kind("voice_missing", message, hint="name one of these, or download the voice to the server")

    async def _voices(self) -> frozenset[str]:
        try:
            voices = await self._client.get_json("/voices")
        except TopicdError as error:
            raise (self._not_piper() if error.cause in _NO_ROUTE else error) from error
        if not isinstance(voices, dict):
            raise self._not_piper()
        return frozenset(voices)

    def _not_piper(self) -> Unusable:
        hint = "check the address, and that it is piper.http_server of piper-tts 1.3 or later"
        return Unusable("not_piper", f"{self._client.server} does not answer as Piper does.", hint=hint)


def _true_wav(data: bytes) -> bytes:
    """Return the same sound under a header written anew.

    Raises:
        RetryLater: it is no WAV, holds no sound, or is cut.
        Unusable: it is not PCM 16 bit.
    """
    if data[:4] != b"RIFF" or data[8:_HEADER_BYTES] != b"WAVE":
        raise RetryLater("not_wav", "Piper's answer is not a WAV file.", hint="check the address")
    chunks = dict(_chunks(data))
    channels, rate_hz = _format(chunks.get(b"fmt ", b""))
    frames = chunks.get(b"data", b"")
    frames = frames[: len(frames) - len(frames) % (2 * channels)]
    if not frames:
        raise RetryLater("audio_empty", "Piper's WAV holds no sound.")
    return _wav(frames, channels=channels, rate_hz=rate_hz)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = _HEADER_BYTES
    while at + _CHUNK_BYTES <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        at += _CHUNK_BYTES
        if kind == b"data":
            yield kind, _sound(data[at:], size)
            return
        yield kind, data[at : at + size]
        at += size + size % 2


def _sound(rest: bytes, declared_bytes: int) -> bytes:
    if declared_bytes == 0 or declared_bytes >= _STREAMED_BYTES_MIN:
        return rest
    if declared_bytes > len(rest):
        raise RetryLater("audio_cut", "Piper's WAV ends before its sound does.")
    return rest[:declared_bytes]


def _format(fmt: bytes) -> tuple[int, int]:
    if len(fmt) < _FORMAT_BYTES_MIN:
        raise RetryLater("not_wav", "Piper's WAV says nothing of its format.")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag not in _FORMATS or bits != _SAMPLE_BITS or not channels or not rate_hz:
        raise Unusable("wav_format", f"Piper's WAV is not PCM 16 bit (format {tag}, {bits} bit).")
    return channels, rate_hz


def _wav(frames: bytes, *, channels: int, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(_SAMPLE_BITS // 8)
        writer.setframerate(rate_hz)
        writer.writeframes(frames)
    return buffer.getvalue()
