"""Speech from a server that speaks as OpenAI does: Kokoro-FastAPI, LocalAI, speaches and others.

Owns the translation between our values and `/audio/speech`. Promises a RIFF WAVE file whose header tells the truth,
PCM 16 bit with at least one frame, and in the voice that was asked for where the server lists its voices: some answer
in another voice and say nothing. Never believes a content type; never judges how the speech sounds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from topicd.backends.base import Probe, ServerState, Speech, SpeechRequest
from topicd.backends.client import Client, Json
from topicd.backends.riff import true_wav
from topicd.errors import Rejected, TopicdError, Unusable

_NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed"})
# A server with a web page answers paths that it does not know with that page.
_NO_LIST: Final = _NO_ROUTE | {"bad_answer"}
_NAMES_SHOWN_MAX: Final = 12


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
        self._client, self._prefix = client, prefix.rstrip("/")
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
        models, voices = await self._names("models"), await self._voices()
        if not models and not voices:
            await self._ask_route()
        self._check_model(models)
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
        path = f"{self._prefix}/audio/speech"
        if not self._knows_stream:
            return await self._client.post_bytes(path, body)
        try:
            return await self._client.post_bytes(path, {**body, "stream": False})
        except TopicdError as error:
            # Which field is meant, servers say in too many ways: what a second try tells is certain.
            if error.cause != "bad_request":
                raise
        data = await self._client.post_bytes(path, body)
        self._knows_stream = False
        return data

    async def _meant(self, error: TopicdError, asked: str) -> TopicdError:
        """Return what an error means: for a model or a voice that is missing, servers have answers of every kind."""
        if error.cause not in {*_NO_ROUTE, "bad_request", "server_error"}:
            return error
        try:
            self._check_model(await self._names("models") if self._model else frozenset())
        except TopicdError as found:
            return found if found.cause == "model_missing" else error
        return self._no_route(error, asked) if error.cause in _NO_ROUTE else error

    async def _ask_route(self) -> None:
        """Tell by an empty request whether the route is there: where it is, the request is refused as a bad one."""
        try:
            await self._client.post_bytes(f"{self._prefix}/audio/speech", {}, is_work=False)
        except TopicdError as error:
            if error.cause in _NO_ROUTE:
                raise self._no_route(error, "") from error
            if error.cause not in {"bad_request", "server_error"}:
                raise

    async def _voices(self) -> frozenset[str]:
        """Return the voices; empty when the server does not list them, which is remembered until the next probe."""
        voices = await self._names("audio/voices", "voices") if self._lists_voices else frozenset()
        self._lists_voices = bool(voices)
        return voices

    async def _names(self, path: str, key: str = "data") -> frozenset[str]:
        try:
            listed = await self._client.get_json(f"{self._prefix}/{path}")
        except TopicdError as error:
            if error.cause not in _NO_LIST:
                raise
            return frozenset()
        return frozenset(_named(listed.get(key) if isinstance(listed, dict) else listed))

    def _check_model(self, models: frozenset[str]) -> None:
        if not self._model or not models or self._model in models:
            return
        message = f"the speech server has no model {self._model[:100]!r}; it has: {_shown(models)}."
        raise Unusable("model_missing", message, hint="name one of these, or download the model to the server")

    def _check_voice(self, asked: str, voices: frozenset[str]) -> None:
        voice = asked or self._voice
        if not voice or not voices or voice in voices or _parts(voice) <= voices:
            return
        kind = Rejected if asked and asked != self._voice else Unusable
        message = f"the speech server has no voice {voice[:100]!r}; it has: {_shown(voices)}."
        raise kind("voice_missing", message, hint="name one of these, or add the voice to the server")

    def _no_route(self, error: TopicdError, asked: str) -> TopicdError:
        """Return what is not found: the server's own words tell, when it has any."""
        words = error.message.replace(self._client.server, "").lower()
        if "voice" in words:
            kind = Rejected if asked and asked != self._voice else Unusable
            return kind("voice_missing", error.message, hint="name a voice that the server has")
        if "model" in words:
            return Unusable("model_missing", error.message, hint="name a model that the server has")
        hint = "check the address: it must be a server with OpenAI's speech API"
        return Unusable("not_speech", f"{self._prefix}/audio/speech is not there: {error.message}", hint=hint)


def _named(listed: Json) -> Iterator[str]:
    """Yield the names in a list of names, or of objects with an id or a name."""
    for item in listed if isinstance(listed, list) else ():
        name = item.get("id") or item.get("name") if isinstance(item, dict) else item
        if isinstance(name, str):
            yield name


def _parts(voice: str) -> frozenset[str]:
    """Return the voices of a mixture, `one(2)+other(1)`."""
    return frozenset(part.partition("(")[0] for part in voice.split("+"))


def _shown(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)[:_NAMES_SHOWN_MAX])
