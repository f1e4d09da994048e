"""Backends that do what none should: to be named by import path in a daemon that a test started."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from fakes.backends import FakeAudio, FakeImage, note
from topicd.backends.base import Picture, PictureRequest, Speech, SpeechRequest
from topicd.errors import RetryLater, Unavailable


class Stubborn(FakeAudio):
    """Ignores being cancelled, once it has told FAKE_LOG so."""

    async def speak(self, request: SpeechRequest) -> Speech:
        note(Path(os.environ["FAKE_LOG"]), "stubborn")
        for _ in range(600):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
        return await super().speak(request)


class Blocking(FakeAudio):
    """Holds the daemon's event loop up, once: for ever, unless the file FAKE_BLOCKED is there already."""

    async def speak(self, request: SpeechRequest) -> Speech:
        sign = Path(os.environ["FAKE_BLOCKED"])
        if not sign.exists():  # noqa: ASYNC240 - to block is the point
            sign.touch()  # noqa: ASYNC240 - as above
            time.sleep(3600)  # noqa: ASYNC251 - as above
        return await super().speak(request)


class Poison(FakeAudio):
    """Kills the daemon on topics named Poison."""

    async def speak(self, request: SpeechRequest) -> Speech:
        if "Poison" in request.text:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().speak(request)


class Failing(FakeAudio):
    """Fails each time."""

    async def speak(self, request: SpeechRequest) -> Speech:
        raise RetryLater("no_luck", f"no luck with {len(request.text)} characters", hint="try again")


class Away(FakeAudio):
    """Is switched off until the file FAKE_UP is there."""

    async def speak(self, request: SpeechRequest) -> Speech:
        if not await asyncio.to_thread(Path(os.environ["FAKE_UP"]).exists):
            raise Unavailable("refused", "it is switched off", hint="switch it on")
        return await super().speak(request)


class Buggy(FakeImage):
    """Divides by zero."""

    async def draw(self, request: PictureRequest) -> Picture:
        return Picture(bytes(request.width_px // 0))
