"""What the stages do themselves that costs processor time: join the audio, check a picture, bind the page.

Owns the work; runs in a worker process, so that the daemon's loop stays responsive and its memory small, and a picture
that crashes its decoder takes the worker only. Promises to write where it is told and nowhere else; the files it writes
are temporary until the stage adopts them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topicd.backends.base import Picture
from topicd.stages.captions import Cue
from topicd.stages.images import checked_png
from topicd.stages.page import PageScene, build_page
from topicd.stages.wav import join, read_wave


class Press:
    """The methods a stage calls through a worker. Each takes JSON and returns (JSON, no bytes)."""

    def picture(self, *, path: str, width_px: int, height_px: int, unit: str) -> tuple[dict[str, Any], bytes]:
        """Check a picture and leave it as PNG in its place."""
        file = Path(path)
        data = file.read_bytes()
        png = checked_png(Picture(data), width_px, height_px, unit)
        if png is not data:
            file.write_bytes(png)
        return {}, b""

    def join(self, *, paths: Sequence[str], pause_s: float, target: str) -> tuple[dict[str, Any], bytes]:
        """Join scenes' audio; tells where each starts and how long it lasts, in seconds."""
        waves = [read_wave(Path(path).read_bytes()) for path in paths]
        Path(target).write_bytes(join(waves, pause_s))
        starts_s, at_s = list[float](), 0.0
        for wave in waves:
            starts_s.append(at_s)
            at_s += wave.seconds + wave.round_s(pause_s)
        return {"starts_s": starts_s, "durations_s": [wave.seconds for wave in waves]}, b""

    def page(
        self, *, target: str, scenes: Sequence[dict[str, Any]], cues: Sequence[Sequence[Any]], **words: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Bind the page; `scenes` are PageScenes and `words` the other arguments of `build_page`, as JSON."""
        for path in ("title_picture", "audio"):
            words[path] = Path(words[path])
        pages = [PageScene(**{**scene, "picture": Path(scene["picture"])}) for scene in scenes]
        Path(target).write_bytes(build_page(scenes=pages, cues=[Cue(*cue) for cue in cues], **words))
        return {}, b""
