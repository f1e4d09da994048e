"""A double of piper.http_server in both generations, with the faults of the real one.

The WAV is labelled text/html, an unknown voice is answered in the default voice, bad input is a 500 in HTML,
and the route is `/synthesize` in the new generation, `/` in the old.
"""

import io
import wave

from aiohttp import web

from fakes.serving import Serving

RATE_HZ = 22050


def tone(frames: int = 2205) -> bytes:
    """Return an honest WAV of so many frames."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(b"\x01\x10" * frames)
    return buffer.getvalue()


class PiperServer(Serving):
    """Answers every text with `wav`.

    Attributes:
        voices: what `/voices` lists; the first is the default.
        wav: the bytes of the answer.
    """

    def __init__(self, *, old: bool = False, voices: tuple[str, ...] = ("en_US-joe-medium",)) -> None:
        super().__init__()
        self.voices = voices
        self.wav = tone()
        self.route("GET", "/voices", self._voices)
        if old:
            self.route("POST", "/", self._synthesize)
        else:
            self.route("GET", "/", self._page)
            self.route("GET", "/info", self._info)
            self.route("POST", "/synthesize", self._synthesize)

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="<!doctype html><title>Piper</title>", content_type="text/html")

    async def _info(self, _: web.Request) -> web.StreamResponse:
        voice = {"name": self.voices[0], "language": "en-us", "num_speakers": 1}
        return web.json_response({"voice": voice, "last": None})

    async def _voices(self, _: web.Request) -> web.StreamResponse:
        config = {"audio": {"sample_rate": RATE_HZ}, "num_speakers": 1}
        return web.json_response(dict.fromkeys(self.voices, config))

    async def _synthesize(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("text", "").strip():
            page = "<!doctype html><title>500 Internal Server Error</title>"
            return web.Response(status=500, text=page, content_type="text/html")
        return web.Response(body=self.wav, content_type="text/html")
