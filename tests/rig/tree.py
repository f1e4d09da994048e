"""Finished and failed jobs as they lie in a home, made without a daemon.

Owns their shape. Promises what the store itself would have written, as far as a reader can tell.
"""

import io
import json
from functools import cache, partial
from pathlib import Path

from PIL import Image

from fakes.backends import tone
from topicd.durable import Durable
from topicd.job import Job, Scenes, SceneText, Trouble, encode
from topicd.workspace import Workspace

AT = "2026-11-27T10:00:00.000Z"
AT_S = 1_795_773_600.0


def finished(
    folder: Path, name: str, *, title: str = "Tides", words: str = "The sea rises.", sound_s: float = 0
) -> Path:
    """Lay a finished job into a folder of jobs; with sound it has pictures and captions, too."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "job.json").write_bytes(encode(_job(name, f"{title}.md", None)))
    (path / "topic.md").write_text(f"# {title}\n")
    keep = partial(Workspace(path, Durable()).keep, made_from="x", by={"backend": title}, seconds=1.0, at=AT_S)
    keep("scenes.json", encode(Scenes(title, "en", "", "", 1, (SceneText(words, words),))))
    keep("script.md", f"# {title}\n\n{words}\n".encode())
    if sound_s:
        keep("audio.wav", _sound(sound_s))
        keep("timeline.json", json.dumps({"script": "", "starts_s": [0.0], "cues": [[0.0, sound_s, words]]}).encode())
        keep("captions.vtt", f"WEBVTT\n\n00:00.000 --> 00:{sound_s:06.3f}\n{words}\n".encode())
        for image in ("images/title.png", "images/001.png"):
            keep(image, _picture())
    return path


def failed(folder: Path, name: str, message: str, *, source: str = "tides.md") -> Path:
    """Lay a failed job into a folder of jobs."""
    path = folder / name
    path.mkdir(parents=True)
    trouble = Trouble(AT, "scripts", "script", "script_empty", message, hint=f"hint: {message}")
    (path / "job.json").write_bytes(encode(_job(name, source, trouble)))
    (path / "reason.json").write_bytes(encode(trouble))
    (path / "topic.md").write_bytes(source.encode(errors="surrogateescape"))
    return path


def _job(name: str, source: str, error: Trouble | None) -> Job:
    return Job(name, source, "0" * 64, 1, AT, AT_S, last_error=error)


_sound = cache(tone)


def _picture() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 36), (20, 90, 120)).save(data, "PNG")
    return data.getvalue()
