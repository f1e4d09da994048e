"""What `status` and `show` tell, as values and as lines for a person.

Owns the shape of `--json`, which is documented in docs/ARCHITECTURE.md and does not change within a major
version. Promises to read only the tree (and, of a running daemon, its `/readyz`), so that it works with the
daemon down and never disagrees with `ls`.
"""

import contextlib
import heapq
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from topicd import __version__, readiness
from topicd import job as files
from topicd.durable import free_bytes
from topicd.errors import TopicdError
from topicd.intake import look
from topicd.job import Job, Scenes, Trouble
from topicd.spool import DONE, Found, Spool
from topicd.states import Aside, Stage
from topicd.store import Store
from topicd.telemetry.events import rfc3339
from topicd.workspace import Workspace, read_limited, stage_of

LISTED_MAX: Final = 20
FETCHING: Final = "voice_fetching"
GB_BYTES: Final = 1_000_000_000
Json = dict[str, Any]


def progress(found: Found, space: Workspace) -> Json:
    """Return how far a job is in its stage: {"unit": …, "n": units whole, "of": units in all}."""
    paths = {product.path for product in space.manifest.products}
    if found.place == Stage.SCRIPTS:
        return {"unit": "script", "n": int(files.SCENES in paths), "of": 1}
    with contextlib.suppress(OSError, TopicdError):
        count = len(scenes_of(found.path).scenes)
        ending, of = (".wav", count) if found.place == Stage.AUDIO else (".png", count + 1)
        folder = f"{Stage.AUDIO if found.place == Stage.AUDIO else Stage.IMAGES}/"
        return {
            "unit": folder[:-1],
            "n": sum(path.startswith(folder) and path.endswith(ending) for path in paths),
            "of": of,
        }
    return {"unit": "", "n": 0, "of": 0}


def _seconds(space: Workspace) -> dict[str, float]:
    """Return how long each stage took for what is there: the files of one unit have one `made_from` and one clock."""
    units = dict[tuple[Stage, str], float]()
    for product in space.manifest.products:
        unit = (stage_of(product.path), product.made_from)
        units[unit] = max(units.get(unit, 0.0), product.seconds)
    stages = {stage for stage, _ in units}
    return {
        stage: round(sum(seconds for (each, _), seconds in units.items() if each == stage), 3)
        for stage in Stage
        if stage in stages
    }


def _left(line: Json, space: Workspace) -> float | None:
    """Return about how long a job's stage takes still, from its finished units; None when nothing tells."""
    if line["state"] != "working" or not line["n"]:
        return None
    n, of = int(line["n"]), int(line["of"])
    return round((of - n) * _seconds(space).get(line["stage"], 0.0) / n, 1)


def scenes_of(path: Path) -> Scenes:
    """Return the script of a job.

    Raises:
        FileNotFoundError: it has none yet.
        Damaged: `scenes.json` is not one.
    """
    return files.decode(Scenes, read_limited(path / files.SCENES, files.JSON_BYTES_MAX), files.SCENES)


class Report:
    """Reads the home for a person or a program."""

    def __init__(self, spool: Spool, store: Store) -> None:
        self._spool = spool
        self._store = store

    def status(self, told: readiness.Told | None = None) -> Json:
        """Return everything `topicd status --json` prints.

        Args:
            told: what the daemon says of itself; None: it is asked.
        """
        holder = self._store.holder()
        told = told or (readiness.ask(holder) if holder else readiness.Told())
        return {
            "version": __version__,
            "home": str(self._spool.home.absolute()),
            "daemon": {**{key: holder[key] for key in ("pid", "host", "port", "version") if key in holder}} or None,
            "ready": told.ready,
            "watcher": told.watcher,
            "servers": told.servers,
            "downloads": told.downloads,
            "warnings": told.warnings,
            "jobs": self._spool.counts(),
            "open": [
                self.line(Found(stage, name, self._spool.place(stage) / name), holder) for stage, name in self._open()
            ],
            "failed": [self.failure(name) for name in self._spool.ids(Aside.FAILED)[-LISTED_MAX:]],
            "held": [self.held(name) for name in self._spool.ids(Aside.HELD)[-LISTED_MAX:]],
            "input": self.input(),
            "free_bytes": self.free_bytes(),
        }

    def show(self, found: Found, told: readiness.Told | None = None) -> Json:
        """Return everything `topicd show JOB --json` prints.

        Args:
            found: the job.
            told: what the daemon says of itself; None: it is asked where the job waits for what is being fetched.
        """
        job = self._job(found)
        reason = self._spool.read_reason(found.path) if found.place == Aside.FAILED else None
        space = Workspace(found.path, self._store.durable)
        shown: Json = {"job": found.id, "place": found.place, "path": str(found.path.absolute())}
        if isinstance(job, Job):
            shown |= {**asdict(job), "job": job.id, "state": self._state(found, job, self._store.holder())}
            shown["not_before"] = rfc3339(job.not_before_s) if job.not_before_s else ""
            for inner in ("id", "not_before_s", "source_left", "accepted_s"):
                del shown[inner]
        else:
            shown["damaged"] = job.message
        shown["downloads"] = told.downloads if told else self._downloads(job)
        shown |= {"reason": asdict(reason) if reason else None, "progress": None, "products": [], "seconds": {}}
        with contextlib.suppress(TopicdError):
            shown["progress"] = progress(found, space) if found.place in list(Stage) else None
            shown["products"] = [asdict(product) for product in space.manifest.products]
            shown["seconds"] = _seconds(space)
        return shown

    def _downloads(self, job: Job | TopicdError) -> list[Json]:
        """Return what is being fetched, if the job waits for such a thing."""
        holder = self._store.holder()
        waits = isinstance(job, Job) and job.last_error is not None and job.last_error.cause == FETCHING
        return readiness.ask(holder).downloads if holder and waits else []

    def _open(self) -> list[tuple[Stage, str]]:
        """The jobs nearest their end first: those are in work."""
        oldest = {stage: heapq.nsmallest(LISTED_MAX, self._spool.each(stage)) for stage in reversed(Stage)}
        return [(stage, name) for stage, names in oldest.items() for name in names][:LISTED_MAX]

    def _job(self, found: Found) -> Job | TopicdError:
        try:
            return self._spool.read_job(found.path)
        except TopicdError as error:
            return error
        except OSError as error:
            return TopicdError("job_gone", f"cannot be read: {error.strerror}")

    def line(self, found: Found, holder: Mapping[str, object]) -> Json:
        """Return what `status` says of an open job; `holder` is who has the home."""
        job = self._job(found)
        line: Json = {
            "job": found.id,
            "stage": found.place,
            "state": "damaged",
            "source": "",
            "unit": "",
            "n": 0,
            "of": 0,
            "error": None,
            "hint": "",
            "next_try": "",
            "seconds_left": None,
        }
        if isinstance(job, Job):
            line |= {"source": job.source, "state": self._state(found, job, holder), "error": None}
            if job.last_error:
                line |= {key: getattr(job.last_error, key) for key in ("hint", "next_try")}
                line["error"] = job.last_error.message
        with contextlib.suppress(TopicdError):
            space = Workspace(found.path, self._store.durable)
            line |= progress(found, space)
            line["seconds_left"] = _left(line, space)
        return line

    def _state(self, found: Found, job: Job, holder: Mapping[str, object]) -> str:
        if found.place not in list(Stage):
            return {DONE: "done"}.get(found.place, found.place)
        run = holder.get("run")
        if isinstance(run, str) and os.path.lexists(self._spool.marker(found.place, found.id, run)):
            return "working"
        return "deferred" if job.not_before_s > time.time() else "waiting"

    def failure(self, name: str) -> Json:
        """Return why a job in failed/ is there."""
        path = self._spool.place(Aside.FAILED) / name
        reason = self._spool.read_reason(path)
        reason = reason or Trouble("", "", "", "reason_missing", "reason.json is missing", "look at the job's folder")
        return {"job": name, **asdict(reason)}

    def held(self, name: str) -> Json:
        """Return what `status` says of a job in held/."""
        job = self._job(Found(Aside.HELD, name, self._spool.place(Aside.HELD) / name))
        return {"job": name, "source": job.source if isinstance(job, Job) else ""}

    def free_bytes(self) -> int | None:
        """Return what is free on the home's file system; None when there is no home yet."""
        try:
            return free_bytes(self._spool.home)
        except OSError:
            return None

    def input(self) -> Json:
        """Return what waits in input/, and what is left alone there."""
        try:
            topics, ignored = look(self._spool.input)
        except OSError as error:
            return {"waiting": 0, "ignored": [], "error": error.strerror}
        return {"waiting": len(topics), "ignored": [entry._asdict() for entry in ignored[:LISTED_MAX]], "error": ""}


def status_text(told: Json) -> Iterator[str]:
    """Yield the lines of `status`."""
    daemon = told["daemon"]
    yield f"home    {told['home']}"
    yield (
        f"daemon  running, process {daemon['pid']}, {readiness.address(daemon)}" if daemon else "daemon  not running"
    )
    known = (told["watcher"] or {}).get("trouble")
    yield from (f"        ! {why}" for why in (told["ready"] or {}).get("why", []) if why != known)
    yield from (f"        warning: {words}" for words in told["warnings"])
    if told["watcher"]:
        yield from _watcher_text(told["watcher"])
    yield from map(_server_text, told["servers"])
    yield from map(_download_text, told["downloads"])
    yield "jobs    " + ", ".join(
        f"{count} {'done' if place == DONE else place}" for place, count in told["jobs"].items()
    )
    yield f"input   {told['input']['waiting']} waiting" + (
        f"; {told['input']['error']}" if told["input"]["error"] else ""
    )
    yield from (f"        {each['name']}: {each['kind']}, left alone" for each in told["input"]["ignored"])
    if told["free_bytes"] is not None:
        yield f"disk    {_size(told['free_bytes'])} free"
    for job in told["open"]:
        count = f"  {job['n']} of {job['of']}" if job.get("of") else ""
        yield f"{job['stage']:<8}{job['job']}  {job['state']}{count}"
        if job["error"]:
            yield f"        {job['error']}" + (f"  (next try {job['next_try']})" if job["next_try"] else "")
    for failure in told["failed"]:
        yield f"failed  {failure['job']}  {failure.get('stage', '')} {failure.get('unit', '')}"
        yield f"        {failure['message']}"
        yield f"        hint: {failure['hint']}"
    for held in told["held"]:
        yield f"held    {held['job']}" + (f"  (from {held['source']})" if held["source"] else "")


def _watcher_text(watcher: Json) -> Iterator[str]:
    yield (
        f"watcher {'by ' + watcher['mode'] if watcher['up'] else 'DOWN'}; since the start: {watcher['restarts']} "
        f"restarts, {watcher['overflows']} overflows, {watcher['wake_failures']} failed wakes"
    )
    if watcher["trouble"]:
        yield f"        ! {watcher['trouble']}"
        yield from ([f"        hint: {watcher['hint']}"] if watcher["hint"] else [])


def _server_text(server: Json) -> str:
    known = f"server  {server['server']} for {server['stage']}: "
    if server["since"]:
        known += f"{server['state']} since {server['since']}: {server['trouble']}"
    else:
        known += f"well, {server['calls']} under way, {server['waiting']} waiting"
    return known + (f"; {server['note']}" if server["note"] else "")


def _download_text(download: Json) -> str:
    total, have = download["total"], download["have"]
    share = f"{100 * have // total} % of {_size(total)}" if total else _size(have)
    return f"fetches {download['name']}: {share}, {_size(download['rate'])}/s" + (
        f"; {download['note']}" if download["note"] else ""
    )


def show_text(told: Json) -> Iterator[str]:
    """Yield the lines of `show`."""
    yield f"job       {told['job']}"
    yield f"place     {told['place']}/  ({told.get('state', 'damaged')})"
    yield f"path      {told['path']}"
    if "damaged" in told:
        yield f"damaged   {told['damaged']}"
    for key in ("source", "accepted", "not_before"):
        if told.get(key):
            yield f"{key.replace('_', ' '):<9} {told[key]}"
    for key in ("attempts", "crashes", "seconds"):
        if told.get(key):
            yield f"{key:<10}" + ", ".join(f"{stage} {count}" for stage, count in told[key].items())
    if told.get("progress"):
        yield f"units     {told['progress']['n']} of {told['progress']['of']}"
    for key in ("reason", "last_error"):
        trouble = told.get(key)
        if trouble:
            yield f"error     {trouble['stage']} {trouble['unit']}: {trouble['message']}"
            yield f"hint      {trouble['hint']}"
            yield from ([f"next try  {trouble['next_try']}"] if trouble["next_try"] else [])
            break
    yield from map(_download_text, told["downloads"])
    for product in told.get("products", []):
        yield f"          {product['path']:<20}{product['bytes']:>12,} bytes  {product['seconds']:>8.1f} s"


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= GB_BYTES else f"{size_bytes / 1e6:.1f} MB"
