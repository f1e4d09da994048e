"""A double of servers with OpenAI's `/v1/audio/speech`, Kokoro-FastAPI first, with the faults of the real ones.

Streams unless told not to, under a header whose length lies; labels everything audio/wav; refuses an unknown voice, or
answers in another one, as some do; refuses an unknown model, each kind in its own way.
"""

import asyncio
import io
import struct
import wave
from typing import Any

from aiohttp import web

from fakes.serving import Serving

RATE_HZ = 24000
STREAMED_BYTES = 0xFFFFFFFF
FLOOD_BYTES = 65536


def speech(frames: int = 2400, sample: bytes = b"\x01\x10") -> bytes:
    """Return an honest WAV of so many frames."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(sample * frames)
    return buffer.getvalue()


def lying(honest: bytes, size: int = STREAMED_BYTES) -> bytes:
    """Return a WAV as it is streamed: both lengths in its header say `size`."""
    said = struct.pack("<I", size)
    return honest[:4] + said + honest[8:40] + said + honest[44:]


ANSWERS = {
    "empty": b"",
    "no_frames": speech(0),
    "silence": speech(sample=b"\0\0"),
    "mp3": b"\xff\xf3\x84\xc4" + bytes(400),
    "ogg": b"OggS\0\x02" + bytes(400),
    "json": b'{"error": "CUDA out of memory"}',
}


class SpeechServer(Serving):
    """Answers every text with `wav`.

    Attributes:
        fault: none (empty), a key of `ANSWERS`, or one of `lying`, `busy`, `stalled`, `cut`, `flood`, `other_voice`,
            `refuses_stream`, `voice_404`, `broken`.
        wav: the bytes of the answer.
        voices: what `/v1/audio/voices` lists, as names or as objects; the first is the default.
        models: what `/v1/models` lists.
    """

    def __init__(
        self,
        *,
        voices: tuple[Any, ...] = ("af_heart", "af_bella"),
        models: tuple[str, ...] = ("kokoro", "tts-1"),
        lists: bool = True,
        prefix: str = "/v1",
    ) -> None:
        super().__init__()
        self.fault = ""
        self.wav = speech()
        self.voices, self.models = voices, models
        self.route("POST", f"{prefix}/audio/speech", self._speech)
        if lists:
            self.route("GET", f"{prefix}/audio/voices", self._voices)
            self.route("GET", f"{prefix}/models", self._models)

    async def _voices(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"voices": list(self.voices)})

    async def _models(self, _: web.Request) -> web.StreamResponse:
        data = [{"id": name, "object": "model", "created": 1686935002, "owned_by": "kokoro"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused is not None:
            return refused
        if self.fault in {"stalled", "cut", "flood"}:
            return await self._broken(request)
        data = ANSWERS.get(self.fault, self.wav)
        is_streamed = self.fault == "lying" or (self.fault == "" and body.get("stream", True))
        return web.Response(body=lying(data) if is_streamed else data, content_type="audio/wav")

    def _refusal(self, body: dict[str, Any]) -> web.Response | None:
        if self.fault == "busy":
            return _refused(503, "Model is loading", **{"Retry-After": "7"})
        if self.fault == "broken":
            return _refused(500, "failed to load model")
        if "input" not in body:
            return _refused(422, [{"type": "missing", "loc": ["body", "input"], "msg": "Field required"}])
        if self.fault == "refuses_stream" and "stream" in body:
            extra = {"type": "extra_forbidden", "loc": ["body", "stream"], "msg": "Extra inputs are not permitted"}
            return _refused(422, [extra])
        return self._missing(body)

    def _missing(self, body: dict[str, Any]) -> web.Response | None:
        names = [voice["id"] if isinstance(voice, dict) else voice for voice in self.voices]
        parts = [part.partition("(")[0] for part in body.get("voice", names[0]).split("+")]
        if body.get("model", self.models[0]) not in self.models:
            return _refused(404, f"Model '{body['model']}' is not installed")
        if self.fault != "other_voice" and not set(parts) <= set(names):
            return _refused(404 if self.fault == "voice_404" else 400, f"Voice '{body['voice']}' not found")
        return None

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "audio/wav"})
        await response.prepare(request)
        await response.write(lying(self.wav))
        if self.fault == "stalled":
            await asyncio.Event().wait()
        while self.fault == "flood":
            await response.write(bytes(FLOOD_BYTES))
        if request.transport is not None:
            request.transport.close()
        return response


def _refused(status: int, detail: Any, **headers: str) -> web.Response:
    return web.json_response({"detail": detail}, status=status, headers=headers)
