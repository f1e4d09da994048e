"""Speech from a server that speaks as OpenAI does: Kokoro-FastAPI, LocalAI, speaches and others.

Owns the translation between our values and `/audio/speech`. Promises a RIFF WAVE file whose header tells the truth,
PCM 16 bit with at least one frame, and in the voice that was asked for where the server lists its voices: some answer
in another voice and say nothing. Never believes a content type; never judges how the speech sounds.
"""

from collections.abc import Mapping, Sequence

from topicd.backends.base import Probe, ServerState, Speech, SpeechRequest
from topicd.backends.client import Client, Json
from topicd.backends.openai import NO_ROUTE, OpenAIServer, shown
from topicd.backends.riff import true_wav
from topicd.errors import Rejected, TopicdError, Unusable


class OpenAISpeech:
    """An `AudioBackend` on a server with OpenAI's `/audio/speech`."""

    name = "openai-speech"

    def __init__(
        self,
        client: Client,
        *,
        model: str = "",
        voice: str = "",
        prefix: str = "/v1",
        calls_max: int = 1,
        holds_gpu: bool = False,
        speed: float | None = None,
    ) -> None:
        """Prepare, without asking the server. What is None or empty is left to the server.

        Args:
            client: the server; this backend closes it.
            model: as `/models` names it.
            voice: as `/audio/voices` names it, or several joined with `+`.
            prefix: what stands before `/audio/speech` in the path; empty when the client's address has it already.
            calls_max: how many calls at once the server takes.
            holds_gpu: whether the server occupies the GPU while it has a model loaded.
            speed: 1 is the voice's own pace, more is faster.
        """
        self.calls_max, self.holds_gpu = calls_max, holds_gpu
        self._client = client
        self._server = OpenAIServer(client, prefix=prefix, route="audio/speech", api="speech", model=model)
        self._model, self._voice, self._speed = model, voice, speed
        self._lists_voices = True
        self._knows_stream = True

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model, voice and parameters."""
        speed = {} if self._speed is None else {"speed": str(self._speed)}
        return {"server": "openai-speech", "model": self._model, "voice": self._voice, **speed}

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state()]

    async def probe(self) -> Probe:
        """Ask for the models and the voices, where the server lists them.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it lists neither and so may be any server, or lacks the model or the voice.
        """
        self._lists_voices = True
        models, voices = await self._server.models(), await self._voices()
        if not models and not voices:
            await self._server.ask_route()
        self._server.check_model(models)
        self._check_voice("", voices)
        voice = self._voice or "its own voice"
        details = {"models": sorted(models), "voices": sorted(voices)}
        return Probe(f"OpenAI speech, {self._model or 'its own model'}, {voice}", details)

    async def speak(self, request: SpeechRequest) -> Speech:
        """Return the speech; the seed has no effect, the API knows none.

        Raises:
            RetryLater: the server failed, or what it sent is no whole WAV.
            Unavailable: the server is away or busy.
            Rejected: there is nothing to say, or the topic's voice is not there.
            Unusable: the model or the voice that is set is not there, or the server knows no such route.
        """
        if not any(char.isalnum() for char in request.text):
            raise Rejected("text_empty", "there is nothing to say in this text.", hint="give the scene words")
        voice = request.voice or self._voice
        if voice:
            self._check_voice(request.voice, await self._voices())
        given = {"model": self._model, "voice": voice, "speed": self._speed}
        body = {key: value for key, value in given.items() if value not in ("", None)}
        try:
            data = await self._sent({**body, "input": request.text, "response_format": "wav"})
        except TopicdError as error:
            meant = await self._meant(error, request.voice)
            if meant is error:
                raise
            raise meant from error
        return Speech(true_wav(data, of="the speech server"))

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    async def _sent(self, body: Mapping[str, Json]) -> bytes:
        """Send it with `stream` off, which Kokoro-FastAPI has on; without the field to a server that refuses it."""
        if not self._knows_stream:
            return await self._client.post_bytes(self._server.route, body)
        try:
            return await self._client.post_bytes(self._server.route, {**body, "stream": False})
        except TopicdError as error:
            # Which field is meant, servers say in too many ways: what a second try tells is certain.
            if error.cause != "bad_request":
                raise
        data = await self._client.post_bytes(self._server.route, body)
        self._knows_stream = False
        return data

    async def _meant(self, error: TopicdError, asked: str) -> TopicdError:
        """Return what an error means: for a missing voice, servers have no status of its own."""
        if error.cause in NO_ROUTE and "voice" in self._server.words(error):
            return self._kind(asked)("voice_missing", error.message, hint="name a voice that the server has")
        return await self._server.meant(error)

    async def _voices(self) -> frozenset[str]:
        """Return the voices; empty when the server does not list them, which is remembered until the next probe."""
        voices = await self._server.names("audio/voices", "voices") if self._lists_voices else frozenset()
        self._lists_voices = bool(voices)
        return voices

    def _check_voice(self, asked: str, voices: frozenset[str]) -> None:
        voice = asked or self._voice
        if not voice or not voices or voice in voices or _parts(voice) <= voices:
            return
        message = f"the speech server has no voice {voice[:100]!r}; it has: {shown(voices)}."
        raise self._kind(asked)("voice_missing", message, hint="name one of these, or add the voice to the server")

    def _kind(self, asked: str) -> type[TopicdError]:
        """Return whose fault a missing voice is: the topic's, or the settings'."""
        return Rejected if asked and asked != self._voice else Unusable


def _parts(voice: str) -> frozenset[str]:
    """Return the voices of a mixture, `one(2)+other(1)`."""
    return frozenset(part.partition("(")[0] for part in voice.split("+"))
