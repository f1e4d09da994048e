"""Backends that do to the daemon whatever a backend can do, told by a topic's title: `Poison <stage> <kind>`.

Named by import path in a daemon that a test started. Every other topic they serve as the plain fakes do.
"""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

from fakes.backends import Fake, FakeAudio, FakeImage, FakeScript, note, tone
from topicd.backends.base import Picture, PictureRequest, Scene, Script, ScriptRequest, Speech, SpeechRequest
from topicd.backends.embedded.worker import Worker
from topicd.errors import RetryLater, TopicdError

POISON = re.compile(r"Poison (\w+) (\w+)")
TWO_GB = 2_147_483_648
LONG_CHARS = 20_000_000
OTHERS_LIMIT_S = 0.4
WORKER_TIMEOUT_S = 30.0

Way = Callable[[], Awaitable[Any]]


class Odd(BaseException):
    """An exception that no handler of `Exception` sees."""


class Mute(Exception):
    """An exception that cannot be put into words."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Wordless(TopicdError):
    """An error of the tree that lacks what every error of the tree has."""

    def __init__(self) -> None:
        Exception.__init__(self)


class Dying:
    """What a worker process runs, to its end."""

    def abort(self) -> tuple[dict[str, object], bytes]:
        os.abort()

    def flood(self) -> tuple[dict[str, object], bytes]:
        return {}, bytes(TWO_GB // 8)


class Poisoned(Fake):
    """What the three have in common.

    Attributes:
        stage: whose poison it takes.
        in_hand: calls in hand, of all three.
    """

    stage = ""
    in_hand = 0

    def __init__(self) -> None:
        self._worker = Worker(
            "fakes.poison:Dying", {}, name="the dying", idle_s=60, start_timeout_s=60, reply_bytes_max=1_000_000
        )

    async def aclose(self) -> None:
        await self._worker.aclose()

    def way(self, text: str) -> Way | None:
        """Return what is to be done in the place of an answer."""
        found = POISON.search(text)
        if found is None or found[1] != self.stage:
            return None
        if log := os.environ.get("FAKE_LOG"):
            note(Path(log), found[0])
        way: Way = getattr(self, f"do_{found[2]}")
        return way

    async def call(self, what: str) -> None:
        Poisoned.in_hand += 1
        try:
            await super().call(what)
        finally:
            Poisoned.in_hand -= 1

    async def do_forever(self) -> object:
        return await asyncio.Event().wait()

    async def do_stubborn(self) -> object:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue

    async def do_slowly(self) -> object:
        """Let go a second after being told to."""
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return None

    async def do_thread(self) -> object:
        return await asyncio.to_thread(threading.Event().wait)

    async def do_exit(self) -> NoReturn:
        raise SystemExit(3)

    async def do_interrupt(self) -> NoReturn:
        raise KeyboardInterrupt

    async def do_odd(self) -> NoReturn:
        raise Odd

    async def do_leave(self) -> NoReturn:
        raise GeneratorExit

    async def do_cancelled(self) -> NoReturn:
        raise asyncio.CancelledError

    async def do_suicide(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def do_none(self) -> None:
        return None

    async def do_text(self) -> str:
        return "a product"

    async def do_coroutine(self) -> object:
        return self.do_none()

    async def do_long(self) -> NoReturn:
        raise RetryLater("x" * LONG_CHARS, "y" * LONG_CHARS, hint="z" * LONG_CHARS, unit="u" * LONG_CHARS)

    async def do_longbug(self) -> NoReturn:
        raise ValueError("y" * LONG_CHARS)

    async def do_mute(self) -> NoReturn:
        raise Mute

    async def do_wordless(self) -> NoReturn:
        raise Wordless

    async def do_unprintable(self) -> NoReturn:
        raise RetryLater("odd\x1b[31m\n", "a\x1b[31mb\nc\x00d\ud800e\u202e", hint="\x07")

    async def do_never(self) -> NoReturn:
        raise RetryLater("busy", "never again", after_s=float("inf"))

    async def do_whenever(self) -> NoReturn:
        raise RetryLater("busy", "whenever", after_s="soon")  # type: ignore[arg-type]

    async def do_abort(self) -> NoReturn:
        await self._worker.call("abort", {}, timeout_s=WORKER_TIMEOUT_S)
        raise AssertionError("it is dead")

    async def do_flood(self) -> NoReturn:
        await self._worker.call("flood", {}, timeout_s=WORKER_TIMEOUT_S)
        raise AssertionError("it is too large")

    async def do_kill(self) -> NoReturn:
        """Kill the daemon, when it has something else in hand; or alone, when nothing else comes."""
        end = time.monotonic() + OTHERS_LIMIT_S
        while not Poisoned.in_hand and time.monotonic() < end:  # noqa: ASYNC110 - calls of other backends, too
            await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it is dead")


class Scripts(Poisoned, FakeScript):
    """Writes scripts."""

    stage = "scripts"

    async def write(self, request: ScriptRequest) -> Script:
        if way := self.way(request.title):
            answer: Script = await way()
            return answer
        return await super().write(request)

    async def do_huge(self) -> Script:
        return Script("x" * LONG_CHARS, (Scene("A word.", "waves"),))

    async def do_endless(self) -> Script:
        return Script("Sea", (Scene("A word. " * LONG_CHARS, "waves"),))

    async def do_strings(self) -> Script:
        return Script("Sea", ("one", "two"))  # type: ignore[arg-type]

    async def do_inner(self) -> Script:
        return Script(None, (Scene(b"bytes", 7),))  # type: ignore[arg-type]

    async def do_scenes(self) -> Script:
        return Script("Sea", None)  # type: ignore[arg-type]

    async def do_nan(self) -> Script:
        return Script("Sea", (Scene(float("nan"), "waves"),))  # type: ignore[arg-type]

    async def do_surrogate(self) -> Script:
        return Script("Sea \ud800", (Scene("A word \udfff.", "waves"),))


class Audio(Poisoned, FakeAudio):
    """Speaks."""

    stage = "audio"

    async def speak(self, request: SpeechRequest) -> Speech:
        if way := self.way(request.text):
            answer: Speech = await way()
            return answer
        return await super().speak(request)

    async def do_huge(self) -> Speech:
        return Speech(bytes(TWO_GB))

    async def do_inner(self) -> Speech:
        return Speech("RIFF")  # type: ignore[arg-type]

    async def do_cues(self) -> Speech:
        return Speech(tone(5.0), None)  # type: ignore[arg-type]

    async def do_nan(self) -> Speech:
        return Speech(tone(5.0), ((0.0, float("nan"), "a word"),))

    async def do_late(self) -> Speech:
        return Speech(tone(5.0), ((0.0, 1e300, "a word"),))

    async def do_strings(self) -> Speech:
        return Speech(tone(5.0), ("a", "b"))  # type: ignore[arg-type]


class Images(Poisoned, FakeImage):
    """Draws."""

    stage = "images"

    async def draw(self, request: PictureRequest) -> Picture:
        if way := self.way(request.title):
            answer: Picture = await way()
            return answer
        return await super().draw(request)

    async def do_huge(self) -> Picture:
        return Picture(bytes(TWO_GB))

    async def do_inner(self) -> Picture:
        return Picture(None)  # type: ignore[arg-type]

    async def do_strings(self) -> Picture:
        return Picture("PNG")  # type: ignore[arg-type]

    async def do_noise(self) -> Picture:
        return Picture(os.urandom(65_536))


class Sync(FakeScript):
    """Answers without being awaited."""

    def write(self, request: ScriptRequest) -> Script:  # type: ignore[override]
        return Script(request.title, (Scene("A word.", "waves"),))


class Boastful(FakeScript):
    """Says of itself what no manifest can hold."""

    def provenance(self) -> dict[str, str]:
        return {"speed": 1.5}  # type: ignore[dict-item]


class Lingering(FakeAudio):
    """Does not let itself be closed."""

    async def aclose(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
