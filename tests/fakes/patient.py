"""Backends that wait in the middle of a call until a test lets them go: to be named by import path.

`PATIENT` is a directory: a call of a kind (`script`, `audio`, `image`) makes the file KIND.waiting there and waits for
KIND.go; once that is there, no call of the kind waits any more.
"""

import asyncio
import os
from pathlib import Path

from fakes.backends import FakeAudio, FakeImage, FakeScript
from topicd.backends.base import Picture, PictureRequest, Script, ScriptRequest, Speech, SpeechRequest

LOOK_S = 0.02
BACKENDS = {
    "TOPICD_SCRIPT_BACKEND": "fakes.patient:PatientScript",
    "TOPICD_AUDIO_BACKEND": "fakes.patient:PatientAudio",
    "TOPICD_IMAGE_BACKEND": "fakes.patient:PatientImage",
}


async def let_go(kind: str) -> None:
    """Wait until the test lets calls of this kind go."""
    folder = Path(os.environ["PATIENT"])
    await asyncio.to_thread((folder / f"{kind}.waiting").touch)
    while not await asyncio.to_thread((folder / f"{kind}.go").exists):  # noqa: ASYNC110 - told by another process
        await asyncio.sleep(LOOK_S)


class PatientScript(FakeScript):
    async def write(self, request: ScriptRequest) -> Script:
        await let_go("script")
        return await super().write(request)


class PatientAudio(FakeAudio):
    async def speak(self, request: SpeechRequest) -> Speech:
        await let_go("audio")
        return await super().speak(request)


class PatientImage(FakeImage):
    async def draw(self, request: PictureRequest) -> Picture:
        await let_go("image")
        return await super().draw(request)
