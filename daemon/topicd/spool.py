"""The tree on disk, read: where things are, which jobs wait where, what a job's files say.

Owns the paths and every look at them. Promises that it changes nothing, and that a directory which vanishes between two
looks (a person moved it) is simply not there. The moves are in `store.py`.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from topicd import job as files
from topicd.errors import TopicdError
from topicd.job import Damaged, Job, Trouble
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.telemetry.events import rfc3339
from topicd.workspace import read_limited

DONE = "output"


class NoSuchJob(TopicdError):
    """No job, or more than one, goes by the name a person gave."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a job is.

    Attributes:
        place: a stage, `failed`, `held` or `output`.
        id: the job's.
        path: its directory.
    """

    place: str
    id: str
    path: Path


class Spool:
    """The directories of one home."""

    def __init__(self, *, home: Path, input_dir: Path, output_dir: Path) -> None:
        self.home = home
        self.input = input_dir
        self.output = output_dir
        self.root = home / "spool"
        self.cache = home / "cache"
        self.lock_file = self.root / ".lock"

    def place(self, place: str) -> Path:
        """Return the directory of a stage, `failed`, `held` or `output`."""
        return self.output if place == DONE else self.root / place

    def ids(self, place: str) -> list[str]:
        """Return the jobs in a place, oldest first; empty when the place is not there yet."""
        try:
            with os.scandir(self.place(place)) as entries:
                return sorted(
                    entry.name for entry in entries if entry.name[0] != "." and entry.is_dir(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []

    def missing(self, place: str, names: Collection[str]) -> set[str]:
        """Return those of the jobs that are not in a place."""
        return {name for name in names if not os.path.lexists(self.place(place) / name)}

    def has_work(self) -> bool:
        """Tell whether any stage holds a job; a folder without a topic is none."""
        return any(self.is_claimed(self.place(stage) / name) for stage in Stage for name in self.ids(stage))

    def counts(self) -> Mapping[str, int]:
        """Return how many jobs are in each place, `output` included."""
        return {str(place): len(self.ids(place)) for place in (*SPOOL_PLACES, DONE)}

    def find(self, text: str) -> Found:
        """Return the one job whose id is, begins with, or contains `text`; an exact id wins.

        Raises:
            NoSuchJob: none, or several (which are then named).
        """
        every = [
            Found(place, name, self.place(place) / name) for place in (*SPOOL_PLACES, DONE) for name in self.ids(place)
        ]
        for fits in (str.__eq__, str.startswith, str.__contains__):
            hits = [found for found in every if fits(found.id, text)]
            if len(hits) == 1:
                return hits[0]
            if hits:
                names = "\n".join(f"  {hit.id}  ({hit.place})" for hit in hits[:10])
                raise NoSuchJob("ambiguous", f"several jobs match {text!r}:\n{names}", hint="give more of the id")
        raise NoSuchJob("no_such_job", f"no job matches {text!r}", hint="`topicd status` lists them")

    def read_job(self, path: Path) -> Job:
        """Return a job from its directory.

        A job whose `job.json` is missing, but whose topic is there, is rebuilt from what the tree tells.

        Raises:
            FileNotFoundError: there is no job in that directory, or no such directory.
            Damaged: `job.json` is not one.
        """
        try:
            job = files.decode(Job, read_limited(path / files.JOB, files.JSON_BYTES_MAX), files.JOB)
        except FileNotFoundError:
            stat = (path / files.TOPIC).stat()
            return Job(
                id=path.name,
                source=files.TOPIC,
                sha256="",
                bytes=stat.st_size,
                accepted=rfc3339(stat.st_ctime),
                accepted_s=stat.st_ctime,
            )
        if job.id != path.name:
            raise Damaged(files.JOB, f"it is of the job {job.id}")
        return job

    def read_reason(self, path: Path) -> Trouble | None:
        """Return why a job failed; None when nothing says so."""
        try:
            return files.decode(Trouble, read_limited(path / files.REASON, files.JSON_BYTES_MAX), files.REASON)
        except (OSError, Damaged):
            return None

    def is_claimed(self, path: Path) -> bool:
        """Tell a job (S2) from a claim that has not happened (S1)."""
        return os.path.lexists(path / files.TOPIC)

    def unclaimed(self) -> Iterator[Path]:
        """Yield the directories in `scripts/` that hold no topic (S1)."""
        folder = self.place(Stage.SCRIPTS)
        for name in self.ids(Stage.SCRIPTS):
            if not self.is_claimed(folder / name):
                yield folder / name

    def oldest(self, place: str) -> Path | None:
        """Return the directory of the oldest job in a place."""
        names = self.ids(place)
        return self.place(place) / names[0] if names else None


def retryable(place: str) -> bool:
    """Tell whether `retry` may move a job from there."""
    return place == Aside.FAILED or place in list(Stage)
