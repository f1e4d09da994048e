"""Whether one job is what the states allow: its files, its products, its rights, and that it is in one place.

Owns the checks of a job's directory, for `fsck.py`. Promises to change nothing, to read a product in blocks, never to
follow a link, and that a job which moves away under the look yields nothing worse than a finding that a second look
does not confirm. Never decides what is put right.
"""

import contextlib
import glob
import grp
import hashlib
import os
import pwd
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topicd import job as files
from topicd.durable import TEMPORARY
from topicd.errors import TopicdError
from topicd.findings import Finding
from topicd.job import Damaged, Manifest, Product, Scenes
from topicd.layout import same_file_system
from topicd.spool import DONE, Found, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.workspace import Workspace, read_limited, stage_of

ID: Final = re.compile(r"\d{8}-\d{6}-\d{6}-[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
PLACES: Final = (*SPOOL_PLACES, DONE)
FIXED: Final = (
    "script.md",
    "scenes.json",
    "captions.vtt",
    "captions.srt",
    "audio.wav",
    "images/title.png",
    "index.html",
)
OWN: Final = (files.TOPIC, files.JOB, files.MANIFEST)

Folders = list[tuple[Path, list[os.DirEntry[str]]]]


class Soundness:
    """Checks jobs of one home."""

    def __init__(self, spool: Spool, store: Store, *, is_quick: bool) -> None:
        self._spool = spool
        self._store = store
        self._is_quick = is_quick
        self._user = User.owning(spool.root)
        self._is_output_apart = not same_file_system(spool.place(Stage.IMAGES), spool.output, store.run)

    def job(self, place: str, name: str) -> Iterator[Finding]:
        """Yield what is wrong with the directory of that name in a place."""
        path = self._spool.place(place) / name
        is_topicless = place != DONE and not self._spool.is_claimed(path)
        if not is_topicless and not ID.fullmatch(name):
            yield self.found("id_malformed" if place != DONE else "foreign_output", path)
            if place == DONE:
                return
        yield from self._twice(place, name)
        folders = list(_scanned(path))
        if place != DONE:
            yield from self._rights(path, folders)
        if is_topicless:
            yield self.found(*self._topicless(place, path))
            return
        yield from self._words(place, path)
        yield from self._temporaries(place, path, folders)
        yield from self._products(place, path)

    def found(self, slug: str, path: Path, what: str = "") -> Finding:
        """Return a finding at a path, which is told relative to the home where it is inside."""
        return Finding(
            slug, str(path.relative_to(self._spool.home) if path.is_relative_to(self._spool.home) else path), what
        )

    def may_use(self, path: Path) -> Iterator[Finding]:
        """Yield when the daemon's user cannot work in a directory."""
        if not self._user.may(path.lstat(), 0o7):
            yield self.found("rights", path, f"uid {self._user.uid} cannot read, write and search it")

    def _rights(self, path: Path, folders: Folders) -> Iterator[Finding]:
        for folder, entries in folders:
            yield from self.may_use(folder)
            for entry in entries if folder == path else ():
                if entry.name == files.JOB and not self._user.may(entry.stat(follow_symlinks=False), 0o4):
                    yield self.found("rights", Path(entry), f"uid {self._user.uid} cannot read it")

    def _twice(self, place: str, name: str) -> Iterator[Finding]:
        """Yield when the job is in a later place, too; so each pair is told once."""
        for other in PLACES[PLACES.index(place) + 1 :]:
            if not os.path.lexists(self._spool.place(other) / name):
                continue
            is_publish = (place, other) == (Stage.IMAGES, DONE) and self._is_output_apart and self._was_in_hand(name)
            slug = "publish_unfinished" if is_publish else "job_twice"
            yield self.found(slug, self._spool.place(place) / name, f"and in {other}/")

    def _was_in_hand(self, name: str) -> bool:
        """Tell whether a job that is published still bears the mark of its last attempt, by which a start knows it."""
        marks = self._spool.place(Stage.IMAGES).glob(f".{glob.escape(name)}.*.begun")
        return (self._spool.output / name / files.MANIFEST).is_file() and any(marks)

    def _topicless(self, place: str, path: Path) -> tuple[str, Path]:
        kept = {entry.name for entry in path.iterdir() if not entry.name.endswith(TEMPORARY)}
        return ("claim_undone" if place == Stage.SCRIPTS and kept <= {files.JOB} else "topic_missing", path)

    def _words(self, place: str, path: Path) -> Iterator[Finding]:
        """Check `job.json` and `reason.json`."""
        reason = self._spool.read_reason(path) if place == Aside.FAILED else None
        if place == Aside.FAILED and reason is None:
            yield self.found("reason_missing", path)
        try:
            job = self._spool.read_job(path)
        except Damaged as error:
            is_told = reason is not None and reason.cause == error.cause
            yield self.found("kept_damaged" if is_told else "job_json_damaged", path / files.JOB, error.message)
            return
        except FileNotFoundError:
            return  # output/: told with what else is missing
        if place != DONE and (job.source, job.sha256) == (files.TOPIC, ""):
            yield self.found("job_json_lost", path)
        if place == Stage.SCRIPTS and job.source_left is not None:
            with contextlib.suppress(OSError):
                source = self._spool.input / job.source
                left = source.lstat()
                if (left.st_dev, left.st_ino, left.st_mtime_ns) == tuple(job.source_left):
                    yield self.found("claim_unfinished", source, f"it is the job {path.name}")

    def _temporaries(self, place: str, path: Path, folders: Folders) -> Iterator[Finding]:
        left = [Path(entry) for _, entries in folders for entry in entries if _is_temporary(entry.name)]
        if left and not (place in list(Stage) and self._store.in_work(Found(place, path.name, path))):
            slug = "temporary_published" if place == DONE else "temporary_left"
            yield from (self.found(slug, each) for each in left)

    def _products(self, place: str, path: Path) -> Iterator[Finding]:
        try:
            manifest = Workspace(path, self._store.durable).manifest
        except Damaged as error:
            yield self.found("manifest_damaged", path / files.MANIFEST, error.message)
            return
        strange = [entry.path for entry in manifest.products if not is_inside(entry.path)]
        if strange or manifest.job != path.name:
            yield self.found(
                "manifest_alien", path / files.MANIFEST, f"of {manifest.job!r}" if not strange else strange[0]
            )
            return
        harmed = {entry.path: why for entry in manifest.products if (why := self._harm(path / entry.path, entry))}
        for name, why in harmed.items():
            yield self.found(self._slug(place, name), path / name, why)
        if place == DONE and (lacking := [*_lacking(path, manifest)]):
            yield self.found("not_whole", path, f"it lacks {', '.join(lacking[:5])}" + (" …" if lacking[5:] else ""))

    def _slug(self, place: str, product: str) -> str:
        """Say what a harmed product means where the job is: only what a later stage needs is a fault before the end."""
        if place == DONE:
            return "product_harmed"
        order = list(Stage)
        if place in order and order.index(stage_of(product)) < order.index(Stage(place)):
            return "product_lost"
        return "product_remade"

    def _harm(self, path: Path, entry: Product) -> str:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return "missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        with os.fdopen(fd, "rb", buffering=0) as file:
            size = os.fstat(fd).st_size
            if not stat.S_ISREG(os.fstat(fd).st_mode) or path.parent.is_symlink():
                return "no regular file"
            if size != entry.bytes:
                return f"{size:,} bytes instead of {entry.bytes:,}"
            is_same = self._is_quick or hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
            return "" if is_same else "its bytes are not those that were made"


class User:
    """The user that a daemon runs as, and what it may do by mode bits."""

    def __init__(self, uid: int, gids: frozenset[int]) -> None:
        self.uid: Final = uid
        self._gids: Final = gids

    @classmethod
    def owning(cls, path: Path) -> "User":
        """Return the owner of a path."""
        found = path.stat()
        gids = {found.st_gid}
        with contextlib.suppress(KeyError, OSError):
            entry = pwd.getpwuid(found.st_uid)
            gids |= {entry.pw_gid, *(each.gr_gid for each in grp.getgrall() if entry.pw_name in each.gr_mem)}
        return cls(found.st_uid, frozenset(gids))

    def may(self, found: os.stat_result, wanted: int) -> bool:
        """Tell whether the mode bits grant it all of `wanted` (4 read, 2 write, 1 search)."""
        if self.uid == 0:
            return True
        shift = 6 if found.st_uid == self.uid else 3 if found.st_gid in self._gids else 0
        return (found.st_mode >> shift) & wanted == wanted


def _scanned(path: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Yield a job's directory and those in it, with their entries."""
    with os.scandir(path) as entries:
        top = list(entries)
    yield path, top
    for each in top:
        if each.is_dir(follow_symlinks=False):
            with os.scandir(each) as entries:
                yield Path(each), list(entries)


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY)


def is_inside(path: str) -> bool:
    """Tell whether a product's path stays within the job's directory."""
    parts = path.split("/")
    return "\0" not in path and not {"", ".", ".."} & {*parts}


def _lacking(path: Path, manifest: Manifest) -> Iterator[str]:
    yield from (name for name in OWN if not (path / name).is_file())
    wanted = [*FIXED]
    with contextlib.suppress(OSError, TopicdError):
        data = read_limited(path / files.SCENES, files.JSON_BYTES_MAX)
        count = len(files.decode(Scenes, data, files.SCENES).scenes)
        wanted += [name for n in range(1, count + 1) for name in (f"audio/{n:03}.wav", f"images/{n:03}.png")]
    has_manifest = (path / files.MANIFEST).is_file()
    for name in wanted:
        if manifest.get(name) is None and (has_manifest or not (path / name).is_file()):
            yield name
