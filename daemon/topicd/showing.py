"""What the page and the metrics show of the tree and of the daemon itself.

Owns how the report is put together for the page, and what is counted for a scrape. Promises that each look costs one
scan of each directory and the files of the few jobs that are shown, however many there are, that the daemon is not
asked over its own port, and that a job which moves away while it is read is no error. Each may wait for the disk: not
for the event loop.
"""

import contextlib
import json
import math
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Final

from topicd import __version__, readiness
from topicd import job as files
from topicd.durable import free_bytes
from topicd.errors import TopicdError
from topicd.job import Scenes, time_of
from topicd.report import Report, scenes_of
from topicd.spool import DONE, Found, Spool
from topicd.stages.audio import TIMELINE
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.telemetry.events import rfc3339
from topicd.telemetry.present import TreeState
from topicd.topic import parse
from topicd.web import Health
from topicd.web.pulse import Pulse
from topicd.workspace import Workspace, read_limited, stage_of

ROWS_MAX: Final = 8
"""How many jobs of a stage are shown: those in work, then the oldest."""
ASIDE_MAX: Final = 10
"""How many failures are shown, and how many held jobs: the newest."""
TOPIC_BYTES_MAX: Final = 65_536
"""A longer topic is called by its file's name: its heading is not worth the reading."""
DONE_LOOKED_AT: Final = 100
PICTURES: Final = ("images/title.png", "images/001.png")

Json = dict[str, Any]


def counts(spool: Spool, run: str) -> TreeState:
    """Return what the directories say, for a scrape; `run` is the daemon's own, whose jobs are in work."""
    now = time.time()
    seen = {str(place): spool.survey(place, oldest=1) for place in (*SPOOL_PLACES, DONE)}
    in_work = {str(stage): sum(each.run == run for each in seen[stage].markers) for stage in Stage}
    jobs = {"done" if place == DONE else place: survey.jobs for place, survey in seen.items()}
    oldest = dict[str, float]()
    for stage in Stage:
        with contextlib.suppress(Exception):  # a job that moves or is damaged has no age to tell
            for name in seen[stage].oldest:
                oldest[str(stage)] = max(0.0, now - spool.read_job(spool.place(stage) / name).accepted_s)
    return TreeState(jobs=jobs, in_work=in_work, oldest_s=oldest, free_bytes=free_bytes(spool.root))


def last_done_s(spool: Spool) -> float:
    """Return when a job was last finished, seconds since the epoch; 0 when none is there, or it cannot be told.

    Looks at the newest only: one that was accepted before all of these and finished after them is not known.
    """
    latest = 0.0
    with contextlib.suppress(OSError):
        for name in spool.survey(DONE, newest=DONE_LOOKED_AT).newest:
            with contextlib.suppress(OSError):
                latest = max(latest, (spool.place(DONE) / name / files.MANIFEST).stat().st_mtime)
    return min(latest, time.time())


class Showing:
    """Reads the home for the page.

    Args:
        spool: the tree.
        store: who has it.
        ready: what `/readyz` says.
        pulse: what has happened lately.
        makers: the name of each stage's backend.
        command: how a person calls topicd for this home.
    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        ready: Callable[[], Health],
        pulse: Pulse,
        makers: Mapping[Stage, str],
        *,
        command: str = "topicd",
    ) -> None:
        self._spool = spool
        self._store = store
        self._ready = ready
        self._pulse = pulse
        self._makers = makers
        self._command = command
        self._report = Report(spool, store)

    def overview(self) -> Json:
        """Return what waits, runs and failed, and what it stands on."""
        health = self._ready()
        holder = self._store.holder()
        failed, held = (self._spool.survey(place, newest=ASIDE_MAX) for place in (Aside.FAILED, Aside.HELD))
        return {
            "version": __version__,
            "input_dir": str(self._spool.input.absolute()),
            "ready": {"ok": health.ok, "why": list(health.why)},
            **{key: health.more.get(key, []) for key in ("warnings", "servers", "downloads", "waits")},
            "watcher": health.more.get("watcher"),
            "lanes": {str(stage): self._lane(stage, holder) for stage in Stage},
            "counts": {
                str(Aside.FAILED): failed.jobs,
                str(Aside.HELD): held.jobs,
                DONE: self._spool.survey(DONE).jobs,
            },
            "failed": [self._failure(name) for name in failed.newest],
            "held": [self._held(name) for name in held.newest],
            "input": self._report.input(),
            "free_bytes": self._report.free_bytes(),
            "lately": asdict(self._pulse.lately()),
        }

    def job(self, name: str) -> Json | None:
        """Return all of a job by its exact id, a plain name; None when there is none."""
        found = self._at(name)
        if found is None:
            return None
        try:
            told = self._report.show(found, readiness.Told())
        except (OSError, TopicdError):
            return None
        told = {"damaged": "", "last_error": None, "attempts": {}, "crashes": {}, "state": "damaged", **told}
        products = [{**each, "stage": str(stage_of(each["path"]))} for each in told["products"]]
        told |= self._story(found.path) | {"products": products, "files": {each["path"] for each in products}}
        told["title"] = self._title(found.path, told.get("source", ""))
        return told | {"stage": _stage(told), "home": str(self._spool.home.absolute()), "command": self._command}

    def gallery(self, page: int, per_page: int) -> Json:
        """Return a page of the finished jobs, the newest first: `page`, `pages`, `count`, and `jobs`."""
        names = self._spool.ids(DONE)[::-1]
        pages = max(1, math.ceil(len(names) / per_page))
        page = min(max(page, 1), pages)
        shown = names[(page - 1) * per_page : page * per_page]
        return {"page": page, "pages": pages, "count": len(names), "jobs": [self._finished(name) for name in shown]}

    def folder(self, name: str) -> Path | None:
        """Return the directory of a job; None when there is none."""
        found = self._at(name)
        return found.path if found else None

    def _at(self, name: str) -> Found | None:
        for place in (*SPOOL_PLACES, DONE):
            path = self._spool.place(place) / name
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(path.lstat().st_mode):
                    return Found(place, name, path)
        return None

    def _lane(self, stage: Stage, holder: Mapping[str, object]) -> Json:
        survey = self._spool.survey(stage, oldest=ROWS_MAX)
        working = sorted(marker.job for marker in survey.markers if marker.run == holder.get("run"))
        names = list(dict.fromkeys((*working, *survey.oldest)))[:ROWS_MAX]
        rows = [self._row(Found(stage, name, self._spool.place(stage) / name), holder) for name in names]
        return {
            "jobs": survey.jobs,
            "working": len(working),
            "maker": self._makers.get(stage, ""),
            "rows": [row for row in rows if row],
        }

    def _row(self, found: Found, holder: Mapping[str, object]) -> Json | None:
        row = self._report.line(found, holder)
        if row["state"] == "damaged" and not found.path.is_dir():
            return None  # it has moved on
        unit_s = self._pulse.unit_s(found.place)
        if row["seconds_left"] is None and row["state"] == "working" and unit_s and row["of"]:
            row["seconds_left"] = round((row["of"] - row["n"]) * unit_s, 1)
        cause = self._cause(found.path) if row["error"] else ""
        return {**row, "cause": cause, "title": self._title(found.path, row["source"])}

    def _cause(self, path: Path) -> str:
        with contextlib.suppress(OSError, TopicdError):
            if error := self._spool.read_job(path).last_error:
                return error.cause
        return ""

    def _failure(self, name: str) -> Json:
        path, source = self._spool.place(Aside.FAILED) / name, ""
        with contextlib.suppress(OSError, TopicdError):
            source = self._spool.read_job(path).source
        return {**self._report.failure(name), "title": self._title(path, source)}

    def _held(self, name: str) -> Json:
        path, source, accepted = self._spool.place(Aside.HELD) / name, "", ""
        with contextlib.suppress(OSError, TopicdError):
            job = self._spool.read_job(path)
            source, accepted = job.source, job.accepted
        return {"job": name, "source": source, "accepted": accepted, "title": self._title(path, source)}

    def _title(self, path: Path, source: str) -> str:
        """Return what a job is called: its script's title, else its topic's, else its file's name, else its id."""
        with contextlib.suppress(OSError, TopicdError):
            if title := scenes_of(path).title:
                return title
        with contextlib.suppress(OSError):
            topic = path / files.TOPIC
            if title := _heading(topic, topic.lstat().st_mtime_ns):
                return title
        return PurePath(source).stem or path.name

    def _story(self, path: Path) -> Json:
        """Return what a job tells: language, scenes, where each begins, and how long it is."""
        told: Json = {"language": "", "scenes": [], "starts_s": [], "length_s": 0.0}
        with contextlib.suppress(OSError, TopicdError):
            scenes: Scenes = scenes_of(path)
            told["language"] = scenes.language
            told["scenes"] = [asdict(scene) for scene in scenes.scenes]
        with contextlib.suppress(OSError, TopicdError, ValueError, KeyError, TypeError, IndexError):
            timeline = json.loads(read_limited(path / TIMELINE, files.JSON_BYTES_MAX))
            told["starts_s"] = [float(each) for each in timeline["starts_s"]]
            told["length_s"] = float(timeline["cues"][-1][1])
        return told

    def _finished(self, name: str) -> Json:
        path = self._spool.place(DONE) / name
        accepted_s = time_of(name)
        told: Json = {
            "job": name,
            "title": name,
            "language": "",
            "scenes": 0,
            "picture": "",
            "accepted": rfc3339(accepted_s) if accepted_s else "",
        }
        with contextlib.suppress(OSError, TopicdError):
            scenes = scenes_of(path)
            told |= {"title": scenes.title or name, "language": scenes.language, "scenes": len(scenes.scenes)}
        with contextlib.suppress(OSError, TopicdError):
            there = {product.path for product in Workspace(path, self._store.durable).manifest.products}
            told["picture"] = next((each for each in PICTURES if each in there), "")
        return told


@lru_cache(maxsize=128)
def _heading(topic: Path, changed_ns: int) -> str:
    """Return a topic's title, read once for as long as it does not change; empty when it has none."""
    del changed_ns
    with contextlib.suppress(OSError, TopicdError):
        return parse(read_limited(topic, TOPIC_BYTES_MAX), scenes_max=files.COUNT_MAX).title
    return ""


def _stage(told: Json) -> str:
    """Return the stage that a job stands in; empty when it is done."""
    if told["place"] in list(Stage):
        return str(told["place"])
    if told["place"] == DONE:
        return ""
    if told["reason"] and told["reason"]["stage"] in list(Stage):
        return str(told["reason"]["stage"])
    if files.AUDIO in told["files"]:
        return str(Stage.IMAGES)
    return str(Stage.AUDIO if files.SCENES in told["files"] else Stage.SCRIPTS)
