"""`topicd backup`: the home as one archive, made while the daemon works.

Owns the roster of what belongs into it, the archive and its rotation. Promises that every job and topic that was there
when it began, and that nobody removed meanwhile, is in it exactly once, and each job as it was at one instant (see
`pinned.py`); that an archive in place is whole and has its checksum beside it; and that nothing older is removed
before. Never follows a link, never writes to the home, never holds anything up.

Why exactly once. A job is known by its id and is taken at most once an id. The roster is read along the way that jobs
go (aside, then stage by stage to output/), so one that moves on is met where it is or further on; one that a person
moves back behind a reading is met by the next: the roster is read until several readings in a row bring nothing new. A
topic in input/ becomes a job by a claim, a rename. So topics are noted first, then the roster is read, then the jobs
are taken, then those topics that still are in input/. A topic that was claimed before the roster was read is in it as
a job, and not in input/ any more. One that is still in input/ afterwards is taken there, and its later job is not in
the roster. One that was claimed between the two has a new id at the second reading, and is taken then: it is told from
jobs that are newer than the backup by its source, and from topics that were taken in input/ by source and digest. A
claim across file systems has both for a moment; `source_left` in its job.json says so, and the topic is passed over.
"""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from topicd import __version__, archive
from topicd.durable import TEMPORARY, Durable, told
from topicd.errors import Unusable
from topicd.home import check_spool
from topicd.intake import look
from topicd.layout import same_file_system
from topicd.lock import Taken
from topicd.packer import Packer
from topicd.pinned import ORDER, Pinned, opened, pinned, sha256_of, twins
from topicd.quiet import has_writer
from topicd.spool import DONE, Spool
from topicd.states import Stage
from topicd.telemetry.events import rfc3339

ROSTER_LOOKS_MAX: Final = 12
ROSTER_QUIET_LOOKS: Final = 3
"""Readings in a row that bring nothing new. A job in nobody's hand stays; one that is moved back is missed by one."""
PART: Final = ".part"


@dataclass(slots=True)
class Summary:
    """What a backup holds, and what it does not.

    Attributes:
        path: the archive.
        jobs: how many jobs.
        topics: how many topics from input/.
        missing: what could not be taken, one line each; such a backup removes no older one.
        removed: jobs that were there at first and that a person removed meanwhile.
        harmed: job → products that are not what its manifest says, and what a finished one lacks; taken as it is.
        rotated: older archives of this home that were removed afterwards.
        others: archives in the directory that do not name this home; left alone.
    """

    path: Path
    jobs: int = 0
    topics: int = 0
    missing: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    harmed: dict[str, list[str]] = field(default_factory=dict)
    rotated: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def backup(
    spool: Spool,
    folder: Path,
    durable: Durable,
    *,
    settings_text: str,
    has_cache: bool,
    keep: int | None,
    min_free_bytes: int,
) -> Summary:
    """Make one archive in a directory that is there.

    Args:
        spool: the tree.
        folder: where the archive goes; not within input/, spool/ or output/.
        durable: puts it there.
        settings_text: what `settings.env` in the archive says.
        has_cache: whether voices and models in cache/ are taken, too.
        keep: how many archives of this home to keep, this one included, ≥ 1; None keeps all.
        min_free_bytes: the backup ends before it leaves less than this free, for the daemon would pause.

    Raises:
        Unusable: the directory or the spool is not there, or the archive would lie in the daemon's way.
        Taken: another backup goes to that directory now.
        StorageTrouble: the disk is full; nothing is left behind and nothing older was removed.
    """
    _check_places(spool, folder)
    with _alone(folder), told(folder):
        _sweep(folder)
        path = _free_name(folder)
        temporary = folder / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}"
        try:
            with _create(temporary) as file:
                packer = Packer(file, folder, min_free_bytes)
                with contextlib.closing(packer):
                    summary = _Backup(spool, packer, Summary(path)).run(settings_text, has_cache=has_cache)
            beside = archive.sum_text(packer.sha256, path.name, spool.home)
            durable.write(path.with_name(path.name + archive.SUM), beside.encode())
            durable.adopt(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if keep is not None and not summary.missing:
            _rotate(folder, keep, spool.home, summary)
    return summary


class _Backup:
    """One run."""

    def __init__(self, spool: Spool, packer: Packer, summary: Summary) -> None:
        self._spool = spool
        self._packer = packer
        self._summary = summary
        self._begun_s = time.time()
        self._sources_left = set[tuple[int, int, int]]()
        self._taken_in_input = set[tuple[str, str]]()

    def run(self, settings_text: str, *, has_cache: bool) -> Summary:
        self._places()
        topics = self._topics()
        roster = self._roster(set())
        for name in sorted(roster):
            self._job(name)
        for name in sorted(topics):
            self._topic(name)
        for name in sorted(self._roster(roster)):
            self._late_job(name, topics)
        self._places()  # one may have been unmounted meanwhile
        self._files(archive.PROMPTS, self._spool.prompts)
        if has_cache:
            self._files(archive.CACHE, self._spool.cache)
        self._packer.put(archive.SETTINGS, settings_text.encode())
        self._packer.put(archive.ABOUT, self._about())
        return self._summary

    def _places(self) -> None:
        """Note each place that is not there: what it should hold would be lacking in silence."""
        for name, path in ((archive.INPUT, self._spool.input), *((each, self._spool.place(each)) for each in ORDER)):
            line = f"{name}/: there is no directory {path}"
            if not path.is_dir() and line not in self._summary.missing:
                self._summary.missing.append(line)

    def _topics(self) -> set[str]:
        try:
            return {name for name, _ in look(self._spool.input)[0]}
        except FileNotFoundError:
            return set()
        except OSError as error:
            self._summary.missing.append(f"input/: {error.strerror}")
            return set()

    def _roster(self, known: set[str]) -> set[str]:
        """Return the jobs that are there, without those known. Read until nothing new has come for some readings."""
        found, quiet = set[str](), 0
        for _ in range(ROSTER_LOOKS_MAX):
            new = self._reading(known | found)
            found |= new
            quiet = 0 if new else quiet + 1
            if quiet == ROSTER_QUIET_LOOKS:
                break
        return found

    def _reading(self, known: set[str]) -> set[str]:
        """Return the jobs that one look at each place finds, without those known."""
        found = set[str]()
        for place in ORDER:
            folder = self._spool.place(place)
            names = {name for name in self._spool.each(place) if name not in known}
            found |= {name for name in names if place != Stage.SCRIPTS or self._spool.is_claimed(folder / name)}
        return found

    def _job(self, name: str) -> None:
        with self._job_trouble(name), pinned(self._spool, name) as job:
            if job is None:
                self._summary.removed.append(name)
            else:
                self._take(name, job)

    def _late_job(self, name: str, topics: set[str]) -> None:
        """Take a job that appeared after the roster was read, if its topic was there before."""
        with self._job_trouble(name), pinned(self._spool, name) as job:
            sha256 = job and job.topic_sha256
            if not job or not sha256:
                return
            source = said.source if (said := job.job) else ""
            if source in topics and (source, sha256) not in self._taken_in_input:
                self._take(name, job)

    @contextlib.contextmanager
    def _job_trouble(self, name: str) -> Iterator[None]:
        """Note a job that cannot be read. Trouble without a file's name is the archive's own, and ends the backup."""
        self._packer.room()
        try:
            yield
        except OSError as error:
            if error.filename is None:
                raise
            self._summary.missing.append(f"{name}: {error.strerror}")

    def _take(self, name: str, job: Pinned) -> None:
        top = f"{archive.prefix(job.place)}/{name}"
        for word, data in job.words.items():
            self._packer.put(f"{top}/{word}", data)
        cut = [path for path, one in job.files.items() if not self._packer.copy(f"{top}/{path}", one)]
        self._summary.missing += [f"{job.place}/{name}/{path}: cannot be read" for path in (*job.unreadable, *cut)]
        self._summary.missing += self._others(name, job)
        if job.harmed:
            self._summary.harmed[name] = list(job.harmed)
        if (said := job.job) and said.source_left:
            self._sources_left.add(said.source_left)
        self._summary.jobs += 1

    def _others(self, name: str, job: Pinned) -> list[str]:
        """Tell of other directories of that job, but of what a publish across file systems has still to remove."""
        others = [place for place in twins(self._spool, name) if place != job.place]
        images = self._spool.place(Stage.IMAGES)
        if others == [Stage.IMAGES] and job.place == DONE and not job.harmed:
            others = others if same_file_system(images, self._spool.output, secrets.token_hex(4)) else []
        return [f"{each}/{name}: the job is in {job.place}/, too; that one was taken" for each in others]

    def _topic(self, name: str) -> None:
        """Take a topic that still is in `input/`."""
        path = self._spool.input / name
        try:
            one = opened(str(path))
        except FileNotFoundError:
            return  # claimed, or taken away
        except OSError as error:
            self._summary.missing.append(f"input/{name}: {error.strerror}")
            return
        if one is None:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, one.fd)
            before = os.fstat(one.fd)
            if (before.st_dev, before.st_ino, before.st_mtime_ns) in self._sources_left:
                return
            sha256 = sha256_of(one.fd)
            if has_writer(one.fd) or _changed(before, os.fstat(one.fd)):
                self._summary.missing.append(f"input/{name}: somebody is writing to it")
            else:
                self._packer.copy(f"{archive.INPUT}/{name}", one)
                self._taken_in_input.add((name, sha256))
                self._summary.topics += 1

    def _files(self, top: str, root: Path) -> None:
        if not root.is_dir():
            return
        for folder, _, names, dir_fd in os.fwalk(root, follow_symlinks=False):
            inner = Path(folder).relative_to(root)
            for name in sorted(each for each in names if not each.endswith((PART, TEMPORARY))):
                self._packer.room()
                with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
                    if one := opened(name, dir_fd=dir_fd):
                        stack.callback(os.close, one.fd)
                        self._packer.copy(str(top / inner / name), one)

    def _about(self) -> bytes:
        about = {
            "format": archive.FORMAT,
            "version": __version__,
            "begun": rfc3339(self._begun_s),
            "ended": rfc3339(time.time()),
            "home": str(self._spool.home.absolute()),
            "jobs": self._summary.jobs,
            "topics": self._summary.topics,
            "missing": self._summary.missing,
            "harmed": self._summary.harmed,
        }
        return (json.dumps(about, indent=1) + "\n").encode()


def _check_places(spool: Spool, folder: Path) -> None:
    if not folder.is_dir():
        raise Unusable("no_directory", f"there is no directory {folder}", hint="make it, or mount what should be there")
    check_spool(spool)
    for busy in (spool.input, spool.root, spool.output):
        if folder.resolve().is_relative_to(busy.resolve()):
            raise Unusable(
                "backup_in_the_way", f"{folder} lies in {busy}", hint="keep backups elsewhere, best on another disk"
            )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Taken("backup_taken", f"another backup goes to {folder} now", hint="wait for it to end") from error
        yield
    finally:
        os.close(fd)


def _sweep(folder: Path) -> None:
    """Remove what a backup that was killed left: an archive half made, a checksum without its archive."""
    for path in folder.iterdir():
        is_lone = archive.SUM_NAME.fullmatch(path.name) and not path.with_suffix("").exists()
        if is_lone or archive.TEMPORARY_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _free_name(folder: Path) -> Path:
    """Return a name that sorts after every archive there: rotation goes by name, and the clock may be set back."""
    newest = max((path.name for path in folder.iterdir() if archive.NAME.fullmatch(path.name)), default="")
    return folder / archive.name_at(max(time.time(), archive.seconds_of(newest) + 1 if newest else 0))


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def _rotate(folder: Path, keep: int, home: Path, summary: Summary) -> None:
    names = sorted(path.name for path in folder.iterdir() if archive.NAME.fullmatch(path.name) and path.is_file())
    own = [name for name in names if archive.is_of(folder / name, home)]
    summary.others = [name for name in names if name not in own]
    for name in own[:-keep]:
        for path in (folder / name, folder / f"{name}{archive.SUM}"):
            path.unlink(missing_ok=True)
        summary.rotated.append(name)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
