"""The images stage: `scenes.json` → `images/title.png`, `images/001.png` …, then `index.html`.

Owns what a picture must be to count, and the finishing of a job. Promises that one picture is one unit, and
that a job leaves this stage only when every product in its manifest has been read back and is what was made.
"""

import io
import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from topicd import job as files
from topicd.backends.base import ImageBackend, Picture, PictureRequest
from topicd.backends.embedded.worker import Worker
from topicd.errors import Rejected, RetryLater
from topicd.job import Job, Scenes
from topicd.stages.audio import TIMELINE
from topicd.stages.base import PRESS_TIMEOUT_S, SEED_MASK, Units, aside, made_by
from topicd.states import Stage
from topicd.telemetry.events import Events
from topicd.threads import offload
from topicd.workspace import Workspace, digest

FOLDER: Final = "images"
PICTURE_BYTES_MAX: Final = 67_108_864
SIDE_SHARE_MIN: Final = 2
"""A side may be half as long as asked for, and is then scaled up; less would be seen."""


class ImagesStage:
    """Asks for each picture, keeps it, then finishes the folder."""

    def __init__(
        self,
        backend: ImageBackend,
        press: Worker,
        *,
        events: Events,
        timeout_s: float,
        width_px: int,
        height_px: int,
        notes: Mapping[str, str],
    ) -> None:
        self.backend = backend
        self._press = press
        self._events = events
        self._timeout_s = timeout_s
        self._width_px = width_px
        self._height_px = height_px
        self._notes = notes

    async def run(self, job: Job, space: Workspace) -> None:
        """Make the pictures that are not whole, then the page."""
        await offload(space.need, TIMELINE, files.AUDIO)
        scenes = await offload(space.scenes)
        await offload(_need_audio_of_this_script, space)
        by = made_by(self.backend)
        requests = {name(number): self._request(number, scenes) for number in range(len(scenes.scenes) + 1)}
        units = Units(self._events, job, Stage.IMAGES, self.backend.name, of=len(requests))
        for path, request in requests.items():
            await self._unit(path, request, by, space, units)
        await offload(space.drop_others, FOLDER, set(requests))
        await self._finish(job, scenes, space)

    async def _unit(
        self, path: str, request: PictureRequest, by: Mapping[str, str], space: Workspace, units: Units
    ) -> None:
        unit = path.removesuffix(".png")
        made_from = digest(request=asdict(request), by=by)
        if await offload(space.whole, path, made_from):
            units.kept(unit)
            return
        units.begin()
        picture = await units.ask(self.backend.draw, request, Picture, unit=unit, timeout_s=self._timeout_s)
        check_size(picture, unit)
        async with aside(space, path) as file:
            await offload(file.write_bytes, picture.data)
            payload = {"path": str(file), "width_px": request.width_px, "height_px": request.height_px, "unit": unit}
            await self._press.call("picture", payload, timeout_s=PRESS_TIMEOUT_S)
            await offload(space.adopt, path, file, made_from=made_from, by=by, seconds=units.seconds, at=time.time())
        units.finished(unit)

    def _request(self, number: int, scenes: Scenes) -> PictureRequest:
        scene = scenes.scenes[number - 1] if number else None
        return PictureRequest(
            prompt=scene.picture if scene else scenes.title,
            narration=scene.narration if scene else "",
            title=scenes.title,
            is_title=scene is None,
            width_px=self._width_px,
            height_px=self._height_px,
            style=scenes.style,
            seed=(scenes.seed + number) & SEED_MASK,
            job_seed=scenes.seed,
        )

    async def _finish(self, job: Job, scenes: Scenes, space: Workspace) -> None:
        made_from = digest(
            job=job.id,
            notes=dict(self._notes),
            parts=[(entry.path, entry.sha256) for entry in space.manifest.products if entry.path != files.PAGE],
        )
        if not await offload(space.whole, files.PAGE, made_from):
            begun = time.monotonic()
            payload = await offload(self._page, job, scenes, space)
            async with aside(space, files.PAGE) as target:
                await self._press.call("page", {"target": str(target), **payload}, timeout_s=PRESS_TIMEOUT_S)
                seconds, at = time.monotonic() - begun, time.time()
                await offload(space.adopt, files.PAGE, target, made_from=made_from, by={}, seconds=seconds, at=at)
        await offload(space.verify)

    def _page(self, job: Job, scenes: Scenes, space: Workspace) -> dict[str, Any]:
        timeline = json.loads(space.read(TIMELINE, files.JSON_BYTES_MAX))
        return {
            "title": scenes.title,
            "language": scenes.language,
            "job": job.id,
            "made": job.accepted[:10],
            "scenes": [
                {
                    "picture": str(space.path / name(number)),
                    "narration": scene.narration,
                    "start_s": start_s,
                    "alt": scene.picture,
                }
                for number, (scene, start_s) in enumerate(zip(scenes.scenes, timeline["starts_s"], strict=True), 1)
            ],
            "title_picture": str(space.path / name(0)),
            "audio": str(space.path / files.AUDIO),
            "cues": timeline["cues"],
            "notes": [self._notes[maker] for maker in makers(space) if maker in self._notes],
        }


def _need_audio_of_this_script(space: Workspace) -> None:
    """Check that the audio tells the script that is there: a person may have moved the job past the audio stage.

    Raises:
        Rejected: it tells another one.
    """
    timeline = json.loads(space.read(TIMELINE, files.JSON_BYTES_MAX))
    if timeline.get("script") != space.digest_of(files.SCENES):
        raise Rejected(
            "audio_of_another_script",
            "the audio does not tell the script that is there",
            hint="move the job to spool/audio/: its audio is made again",
        )


def name(number: int) -> str:
    """Return a picture's path: 0 is the title, then the scenes from 1."""
    return f"{FOLDER}/{number:03}.png" if number else f"{FOLDER}/title.png"


def makers(space: Workspace) -> list[str]:
    """Return the names of the backends that made a job's products, in order of the path."""
    return list(dict.fromkeys(entry.by["backend"] for entry in space.manifest.products if "backend" in entry.by))


def check_size(picture: Picture, unit: str) -> None:
    """Check a picture's bytes before they are written anywhere.

    Raises:
        Rejected: they are more than any picture should have.
        RetryLater: they are no bytes.
    """
    if not isinstance(picture.data, bytes):
        raise _unfit(f"its data are {type(picture.data).__name__}", unit)
    if len(picture.data) > PICTURE_BYTES_MAX:
        raise Rejected(
            "image_too_large",
            f"the picture has {len(picture.data):,} bytes; the most is {PICTURE_BYTES_MAX:,}",
            hint="let the backend compress its pictures",
            unit=unit,
        )


def checked_png(picture: Picture, width_px: int, height_px: int, unit: str) -> bytes:
    """Check a picture before it counts, and return it as PNG of just this size.

    Servers round sizes, and some draw but a few: a picture of another size is scaled to cover, and cut at its edges.

    Raises:
        RetryLater: it does not decode, is much smaller than asked for, or is all one colour.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415 - memory that the daemon need not hold: workers run this

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(picture.data), formats=("PNG", "JPEG", "WEBP")) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.width * SIDE_SHARE_MIN < width_px or image.height * SIDE_SHARE_MIN < height_px:
                raise _unfit(f"it is {image.width}×{image.height}, not {width_px}×{height_px}", unit)  # noqa: RUF001 - a size
            image.load()
            if len(image.convert("RGB").getcolors(1) or ()) == 1:
                raise _unfit("it is all one colour", unit)
            if image.format == "PNG" and image.size == (width_px, height_px):
                return picture.data
            out = io.BytesIO()
            ImageOps.fit(image.convert("RGB"), (width_px, height_px)).save(out, "PNG")
            return out.getvalue()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise _unfit(f"it does not decode: {error}", unit) from error


def _unfit(why: str, unit: str) -> RetryLater:
    return RetryLater(
        "image_unfit", f"the picture is not fit to use: {why}", hint="another attempt may do better", unit=unit
    )
