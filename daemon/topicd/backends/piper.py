"""Speech from a Piper HTTP server.

Owns the translation between our values and the server's two generations of routes. Promises a RIFF WAVE file
whose header tells the truth, PCM 16 bit with at least one frame, in the voice that was asked for: the server
itself would answer in another voice and say nothing. Never judges how the speech sounds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from topicd.backends.base import Probe, ServerState, Speech, SpeechRequest
from topicd.backends.client import Client, Json
from topicd.backends.riff import true_wav
from topicd.errors import Rejected, TopicdError, Unusable

_ROUTES: Final = ("/synthesize", "/")
_NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed"})
_NAMES_SHOWN_MAX: Final = 12


class PiperHTTP:
    """An `AudioBackend` on a Piper HTTP server."""

    name = "piper"
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
        calls_max: int = 1,
    ) -> None:
        """Prepare, without asking the server. What is None or empty is left to the server.

        Args:
            client: the server; this backend closes it.
            voice: as `/voices` names it.
            speaker_id: within a voice of several speakers.
            length_scale: 1 is the voice's own pace, more is slower.
            noise_scale: variation of sound; with both noises 0 the same text gives the same speech.
            noise_w_scale: variation of rhythm.
            calls_max: how many calls at once; Piper's own server works them off one by one.
        """
        self.calls_max = calls_max
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

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state()]

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
        return Speech(true_wav(await self._synthesize(body), of="Piper"))

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
