"""The tree on disk, read: where things are, which jobs wait where, what a job's files say.

Owns the paths and every look at them. Promises that it changes nothing, and that a directory which vanishes between two
looks (a person moved it) is simply not there. The moves are in `store.py`.
"""

import contextlib
import os
import re
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from topicd import job as files
from topicd.errors import TopicdError
from topicd.job import Damaged, Job, Trouble
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.telemetry.events import rfc3339
from topicd.workspace import read_limited

DONE: Final = "output"
WINDOW_JOBS: Final = 1_000
"""How many of a stage's waiting jobs are known at once."""
HIDDEN_NAMES_MAX: Final = 1_000
_LAST: Final = "\U0010ffff"
"""No file name sorts after it."""
_MARKER: Final = re.compile(r"\.(?P<job>.+)\.(?P<run>[0-9a-f]{16})\.begun")


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


class Marker(NamedTuple):
    """The sign that a job is in hand: an empty file in the stage's directory.

    Attributes:
        path: of the file.
        job: whose it is.
        run: the run of the daemon that has it in hand, or had when it died.
    """

    path: Path
    job: str
    run: str


class Survey(NamedTuple):
    """What one look at a directory of jobs tells.

    Attributes:
        jobs: how many are there.
        oldest: up to as many jobs as were asked for, the oldest first.
        newest: up to as many as were asked for, the newest first.
        markers: those of jobs in hand.
        hidden: other names that begin with a dot, up to `HIDDEN_NAMES_MAX`.
    """

    jobs: int
    oldest: list[str]
    newest: list[str]
    markers: list[Marker]
    hidden: list[str]


class Spool:
    """The directories of one home."""

    def __init__(self, *, home: Path, input_dir: Path, output_dir: Path) -> None:
        self.home = home
        self.input = input_dir
        self.output = output_dir
        self.root = home / "spool"
        self.cache = home / "cache"
        self.prompts = home / "prompts"
        self.lock_file = self.root / ".lock"
        self._places: dict[str, Path] = {str(place): self.root / place for place in SPOOL_PLACES}

    def place(self, place: str) -> Path:
        """Return the directory of a stage, `failed`, `held` or `output`."""
        return self.output if place == DONE else self._places[place]

    def each(self, place: str) -> Iterator[str]:
        """Yield the jobs in a place, in no order; none when the place is not there yet."""
        try:
            with os.scandir(self.place(place)) as entries:
                for entry in entries:
                    if entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
                        yield entry.name
        except FileNotFoundError:
            return

    def ids(self, place: str) -> list[str]:
        """Return the jobs in a place, oldest first."""
        return sorted(self.each(place))

    def survey(self, place: str, *, oldest: int = 0, newest: int = 0, skip: Container[str] = ()) -> Survey:
        """Look once at a directory of jobs, however many are there; those in `skip` are only counted."""
        seen = Survey(0, [], [], [], [])
        low, high, jobs = _LAST if oldest else "", "" if newest else _LAST, 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.place(place)) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    _note_hidden(seen, entry)
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    continue
                jobs += 1
                if low <= name <= high or name in skip:
                    continue
                if name < low:
                    low = _note(seen.oldest, name, oldest, low)
                if name > high:
                    high = _note(seen.newest, name, newest, high, is_newest=True)
        return seen._replace(
            jobs=jobs, oldest=sorted(seen.oldest)[:oldest], newest=sorted(seen.newest, reverse=True)[:newest]
        )

    def marker(self, stage: str, job: str, run: str) -> Path:
        """Return the path of the sign that a run of the daemon has a job in hand."""
        return self._places[stage] / f".{job}.{run}.begun"

    def missing(self, place: str, names: Collection[str]) -> set[str]:
        """Return those of the jobs that are not in a place."""
        return {name for name in names if not os.path.lexists(self.place(place) / name)}

    def has_work(self) -> bool:
        """Tell whether any stage holds a job; a folder without a topic is none."""
        return any(self.is_claimed(self.place(stage) / name) for stage in Stage for name in self.each(stage))

    def counts(self) -> Mapping[str, int]:
        """Return how many jobs are in each place, `output` included."""
        return {str(place): sum(1 for _ in self.each(place)) for place in (*SPOOL_PLACES, DONE)}

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
        hint = f"`topicd status` names what is open, failed or held; what is done is in {self.output}/"
        raise NoSuchJob("no_such_job", f"no job matches {text!r}", hint=hint)

    def read_job(self, path: Path) -> Job:
        """Return a job from its directory.

        A job whose `job.json` is missing or torn, but whose topic is there, is rebuilt from what the tree tells: it is
        not fsynced at the claim, for only the source's exact name is told nowhere else.

        Raises:
            FileNotFoundError: there is no job in that directory, or no such directory.
            Damaged: `job.json` is not one.
        """
        try:
            data = read_limited(path / files.JOB, files.JSON_BYTES_MAX)
        except FileNotFoundError:
            data = b""
        if files.is_torn(data):
            return self._rebuilt(path)
        job = files.decode(Job, data, files.JOB)
        if job.id != path.name:
            raise Damaged(files.JOB, f"it is of the job {job.id}")
        return job

    def has_job_file(self, path: Path) -> bool:
        """Tell whether a job's `job.json` is there; what a power cut left of one does not count."""
        try:
            return not files.is_torn(read_limited(path / files.JOB, files.JSON_BYTES_MAX))
        except (OSError, Damaged):
            return False

    def read_reason(self, path: Path) -> Trouble | None:
        """Return why a job failed; None when nothing says so."""
        try:
            return files.decode(Trouble, read_limited(path / files.REASON, files.JSON_BYTES_MAX), files.REASON)
        except (OSError, Damaged):
            return None

    def is_claimed(self, path: Path) -> bool:
        """Tell a job (S2) from a claim that has not happened (S1)."""
        return os.path.lexists(f"{path}/{files.TOPIC}")

    def _rebuilt(self, path: Path) -> Job:
        stat = (path / files.TOPIC).stat()
        at = files.time_of(path.name) or stat.st_ctime
        return Job(path.name, files.TOPIC, sha256="", bytes=stat.st_size, accepted=rfc3339(at), accepted_s=at)


def _note(names: list[str], name: str, limit: int, edge: str, *, is_newest: bool = False) -> str:
    """Note one of the foremost names; return the edge beyond which a name is none of them."""
    names.append(name)
    if len(names) < 2 * limit:
        return edge
    names.sort(reverse=is_newest)  # directories often come in runs, which a sort likes
    del names[limit:]
    return names[-1]


def _note_hidden(seen: Survey, entry: os.DirEntry[str]) -> None:
    if match := _MARKER.fullmatch(entry.name):
        seen.markers.append(Marker(Path(entry.path), match["job"], match["run"]))
    elif len(seen.hidden) < HIDDEN_NAMES_MAX:
        seen.hidden.append(entry.name)


def retryable(place: str) -> bool:
    """Tell whether `retry` may move a job from there."""
    return place == Aside.FAILED or place in list(Stage)
