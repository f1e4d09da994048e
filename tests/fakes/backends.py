"""Fast backends for tests: real classes behind the same Protocols, held to the same conformance suite.

What they do is told by environment variables, so that they also serve inside a daemon that a test started as a process:
`FAKE_SECONDS` (how long a call takes), `FAKE_LOG` (a file that gets a line for each call), `FAKE_HOLD` (a file: as long
as it is there, calls whose line has its text in it wait).
"""

import asyncio
import io
import math
import os
import struct
import wave
import zlib
from collections.abc import Mapping
from pathlib import Path

from topicd.backends.base import (
    Picture,
    PictureRequest,
    Probe,
    Scene,
    Script,
    ScriptRequest,
    Speech,
    SpeechRequest,
)

RATE_HZ = 8000
LOOK_S = 0.02


class Fake:
    """What the three have in common."""

    name = "fake"
    calls_max = 64
    holds_gpu = False

    def provenance(self) -> Mapping[str, str]:
        return {"model": os.environ.get("FAKE_MODEL", "none")}

    async def probe(self) -> Probe:
        return Probe("a fake")

    async def aclose(self) -> None:
        return None

    async def call(self, what: str) -> None:
        """Note the call, take the time it is told to take, and wait while it is held."""
        if log := os.environ.get("FAKE_LOG"):
            await asyncio.to_thread(note, Path(log), what)
        await asyncio.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        while _is_held(what):  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(LOOK_S)


def note(log: Path, line: str) -> None:
    """Add a line to a file."""
    with log.open("a") as file:
        file.write(f"{line}\n")


def _is_held(what: str) -> bool:
    try:
        return Path(os.environ["FAKE_HOLD"]).read_text() in what
    except (KeyError, FileNotFoundError):
        return False


class FakeScript(Fake):
    """Writes one sentence a scene."""

    async def write(self, request: ScriptRequest) -> Script:
        await self.call("script")
        scenes = [Scene(f"{request.title}, part {n}.", f"part {n}") for n in range(1, request.scenes + 1)]
        return Script(request.title, tuple(scenes))


class FakeAudio(Fake):
    """Speaks by a tone, 0.05 s a character."""

    async def speak(self, request: SpeechRequest) -> Speech:
        await self.call(f"audio {request.text}")
        return Speech(tone(0.05 * len(request.text)))


class FakeImage(Fake):
    """Draws two colours."""

    async def draw(self, request: PictureRequest) -> Picture:
        await self.call(f"image {request.prompt}")
        return Picture(png(request.width_px, request.height_px, request.seed))


def tone(seconds: float, rate_hz: int = RATE_HZ, peak: int = 8000) -> bytes:
    """Return a WAV file of a 440 Hz tone."""
    out = io.BytesIO()
    samples = (int(peak * math.sin(2 * math.pi * 440 * n / rate_hz)) for n in range(int(seconds * rate_hz)))
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return out.getvalue()


def png(width_px: int, height_px: int, seed: int) -> bytes:
    """Return a PNG file whose left half has another colour than its right."""
    row = b"\0" + (bytes([seed & 255, 40, 90]) * (width_px // 2)) + bytes([200, 180, 20]) * (width_px - width_px // 2)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    body = zlib.compress(row * height_px, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
