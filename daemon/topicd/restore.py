"""`topicd restore`: an archive becomes a home again.

Owns the way from an archive to an empty home. Promises that nothing is overwritten, that no daemon starts in between
(the home's lock is held), that the archive is read thrice, first for its checksum, then for the room it needs; that
what it holds is unpacked aside, checked and on the disk before anything is put in place; and that no path in it, and no
link, leads anywhere else.
Attempts in hand are not in a backup: a job that was in work goes on from its last unit. Never changes settings.
"""

import contextlib
import gzip
import json
import os
import secrets
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from topicd import archive
from topicd.archive import BadArchive
from topicd.durable import COPY_BYTES, Durable, free_bytes, told
from topicd.errors import Rejected, StorageTrouble, Unusable
from topicd.layout import PROBE
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES
from topicd.store import Store
from topicd.workspace import Workspace

SETTINGS_HERE: Final = "settings.restored.env"
ABOUT_BYTES_MAX: Final = 67_108_864


@dataclass(slots=True)
class Restored:
    """What a home got back.

    Attributes:
        made: when the backup began, RFC 3339.
        jobs: place → how many.
        topics: how many topics lie in input/ again.
        harmed: jobs whose products are not what their manifest says.
        unforeseen: those of them of which the backup did not know.
        missing: what the backup could not take, as it said itself.
        settings: the file with the settings that were in force.
    """

    made: str
    jobs: dict[str, int]
    topics: int
    harmed: list[str] = field(default_factory=list)
    unforeseen: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    settings: Path | None = None


def restore(spool: Spool, store: Store, path: Path) -> Restored:
    """Unpack an archive into an empty home.

    Raises:
        BadArchive: it is not there, not whole, or not one of ours; the home is as it was.
        Unusable: the home is not empty, or is another user's.
        Taken: a daemon holds the home.
        StorageTrouble: the disk is full; what was unpacked is removed again.
    """
    archive.checked(path)
    _check_owner(spool)
    store.open()
    with store.locked({"restore": True}), told():
        _check_empty(spool, store.durable)
        aside = _Aside(spool, store.durable)
        try:
            _check_room(path, aside)
            about = _unpack(path, aside)
            restored = _verified(about, aside, store)
            aside.sync()
            aside.put_in_place()
        finally:
            aside.remove()
    return restored


class _Aside:
    """Where an archive is unpacked: beside each target, so that one rename puts a thing in place."""

    def __init__(self, spool: Spool, durable: Durable) -> None:
        name = f"{archive.ASIDE}{secrets.token_hex(4)}"
        self._durable = durable
        self._targets = {
            archive.INPUT: spool.input,
            archive.SPOOL: spool.root,
            archive.CACHE: spool.cache,
            archive.PROMPTS: spool.prompts,
            DONE: spool.output,
            "": spool.home,
        }
        self._roots = {top: target / name for top, target in self._targets.items()}
        for root in self._roots.values():
            root.mkdir(parents=True, exist_ok=True)  # two of them may be one directory

    def check_room(self, needed: Mapping[str, int]) -> None:
        """See that top → bytes fit on the file systems.

        Raises:
            StorageTrouble: they do not.
        """
        disks, folders = Counter[int](), dict[int, Path]()
        for top, size in needed.items():
            device = self._roots[top].stat().st_dev
            disks[device] += size
            folders[device] = self._targets[top]
        for device, size in disks.items():
            if size > (free := free_bytes(folders[device])):
                what = f"the archive needs {size:,} bytes in {folders[device]}, and {free:,} are free"
                raise StorageTrouble("disk_full", what, hint="free some space, or name a home on a larger disk")

    def put(self, parts: tuple[str, ...], size: int, mtime: float, source: IO[bytes]) -> None:
        """Write one member's file."""
        top, inner = _split(parts)
        path = self._roots[top].joinpath(*inner)
        path.parent.mkdir(parents=True, exist_ok=True)
        if size > free_bytes(path.parent):
            raise StorageTrouble("disk_full", f"{path}: {size:,} bytes do not fit", hint="free some space")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _mode(parts))
        with os.fdopen(fd, "wb") as file:
            shutil.copyfileobj(source, file, COPY_BYTES)
        with contextlib.suppress(OSError, OverflowError, ValueError):
            os.utime(path, (mtime, mtime))

    def jobs(self) -> Iterator[tuple[str, Path]]:
        """Yield every job that was unpacked, with its place."""
        for place in (*SPOOL_PLACES, DONE):
            for path in _entries(self._folder(place)):
                yield place, path

    def topics(self) -> int:
        """Return how many topics were unpacked."""
        return len(_entries(self._roots[archive.INPUT]))

    def sync(self) -> None:
        """Put all of it on the disk."""
        for root in self._roots.values():
            for folder, _, names in os.walk(root, topdown=False):
                self._durable.sync(*(Path(folder, name) for name in names), Path(folder))

    def put_in_place(self) -> None:
        """Rename everything to where it belongs; nothing that is there is touched.

        Raises:
            Unusable: something is there by now.
        """
        tops = (archive.CACHE, archive.PROMPTS, archive.INPUT)
        moves = [(path, self._targets[top] / path.name) for top in tops for path in self._of(top)]
        moves += [(path, self._targets[""] / SETTINGS_HERE) for path in self._of("")]
        for place in (*SPOOL_PLACES, DONE):
            target = self._targets[DONE] if place == DONE else self._targets[archive.SPOOL] / place
            moves += [(path, target / path.name) for path in _entries(self._folder(place))]
        for _, target in moves:
            if os.path.lexists(target):
                raise Unusable("home_not_empty", f"{target} is there already", hint="restore into an empty home")
        for source, target in moves:
            self._durable.rename_only(source, target)
        self._durable.sync(*{target.parent for _, target in moves})

    def remove(self) -> None:
        """Take away what is left aside."""
        for root in self._roots.values():
            self._durable.remove_tree(root)

    def settings(self) -> Path | None:
        """Return where the settings will lie; None when the archive has none."""
        return self._targets[""] / SETTINGS_HERE if self._of("") else None

    def _folder(self, place: str) -> Path:
        return self._roots[DONE] if place == DONE else self._roots[archive.SPOOL] / place

    def _of(self, top: str) -> list[Path]:
        return _entries(self._roots[top])


def _split(parts: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    return (parts[0], parts[1:]) if len(parts) > 1 else ("", parts)


def _mode(parts: tuple[str, ...]) -> int:
    return 0o600 if parts == (archive.SETTINGS,) else 0o644


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (
        tarfile.TarError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        FileExistsError,
        NotADirectoryError,
        ValueError,
    ) as error:
        what = f"{path} is damaged and cannot be unpacked: {error}"
        raise BadArchive("archive_damaged", what, hint="use another backup") from error


def _check_room(path: Path, aside: _Aside) -> None:
    needed = Counter[str]()
    with _damage(path), tarfile.open(path, "r|gz") as tar:
        while (member := tar.next()) is not None:
            needed[_split(_checked(member))[0]] += member.size
            tar.members = []  # type: ignore[attr-defined]  # as below
    aside.check_room(needed)


def _unpack(path: Path, aside: _Aside) -> dict[str, Any]:
    """Unpack everything aside. Returns what the archive says of itself."""
    about = b""
    with _damage(path):
        with tarfile.open(path, "r|gz") as tar:
            while (member := tar.next()) is not None:
                parts = _checked(member)
                source = tar.extractfile(member)
                assert source is not None, "it is a regular file"  # noqa: S101 - checked above
                if parts == (archive.ABOUT,):
                    about = source.read(ABOUT_BYTES_MAX)
                else:
                    aside.put(parts, member.size, member.mtime, source)
                tar.members = []  # type: ignore[attr-defined]  # it would keep each for a later look
        told = json.loads(about)
        if not isinstance(told, dict) or told.get("format") != archive.FORMAT:
            raise BadArchive("archive_strange", f"{path} is of another kind or of a later topicd")
    return told


def _checked(member: tarfile.TarInfo) -> tuple[str, ...]:
    if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
        raise BadArchive("archive_strange", f"the archive holds {member.name!r}, which is no regular file")
    return archive.parts_of(member.name)


def _verified(about: dict[str, Any], aside: _Aside, store: Store) -> Restored:
    """Compare what was unpacked with what the archive and each manifest say."""
    jobs, harmed = Counter[str](), list[str]()
    for place, path in aside.jobs():
        jobs[place] += 1
        try:
            Workspace(path, store.durable).verify()
        except Rejected:
            harmed.append(path.name)
    topics = aside.topics()
    if (jobs.total(), topics) != (about.get("jobs"), about.get("topics")):
        what = (
            f"it says {about.get('jobs')} jobs and {about.get('topics')} topics, and holds {jobs.total()} and {topics}"
        )
        raise BadArchive("archive_damaged", f"the archive is not whole: {what}", hint="use another backup")
    return Restored(
        made=str(about.get("begun", "")),
        jobs=dict(jobs),
        topics=topics,
        harmed=sorted({*harmed, *map(str, about.get("harmed", {}))}),
        unforeseen=sorted({*harmed} - {*about.get("harmed", {})}),
        missing=[str(line) for line in about.get("missing", [])],
        settings=aside.settings(),
    )


def _check_owner(spool: Spool) -> None:
    owner = next(path for path in (spool.home, *spool.home.absolute().parents) if path.exists()).stat().st_uid
    if os.geteuid() != owner:
        hint = f"run it as that user: sudo -u '#{owner}' topicd restore …"
        raise Unusable("other_user", f"{spool.home.absolute()} belongs to user {owner}", hint=hint)


def _check_empty(spool: Spool, durable: Durable) -> None:
    """See that nothing is there; what a restore that was killed left aside is taken away."""
    own = {*SPOOL_PLACES, spool.lock_file.name, "lost+found"}
    for folder in {spool.home, spool.cache, spool.prompts, spool.input, spool.output, spool.root}:
        for path in folder.glob(f"{archive.ASIDE}*"):
            durable.remove_tree(path)
    for folder in (spool.input, spool.output, spool.root, *map(spool.place, SPOOL_PLACES)):
        for path in folder.iterdir():
            if path.name not in own and not path.name.startswith(PROBE):
                hint = "name an empty home by TOPICD_HOME, or move input/, spool/ and output/ away first"
                raise Unusable("home_not_empty", f"{path} is there: a restore overwrites nothing", hint=hint)
