"""A job's products: kept whole, known by digest, found again after a crash.

Owns `manifest.json` and every product file of one job. Promises that a product counts only when its entry in
the manifest is on disk and the file matches it, and that an entry made from something else does not count.
Never moves the job: that is the store's.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple

import aiofiles

from topicd import job as files
from topicd.durable import TEMPORARY, Durable
from topicd.errors import Rejected
from topicd.job import Damaged, Manifest, Product, Scenes
from topicd.states import Stage
from topicd.telemetry.events import rfc3339
from topicd.threads import threads
from topicd.topic import too_large, unreadable

READ_BYTES: Final = 1_048_576
LAST_PRODUCTS: Final = {Stage.SCRIPTS: files.SCENES, Stage.AUDIO: files.AUDIO}


def digest(**parts: object) -> str:
    """Return the sha256 of what a product is made from, independent of the order of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def stage_of(path: str) -> Stage:
    """Return the stage that makes a product."""
    if path in {files.SCRIPT, files.SCENES}:
        return Stage.SCRIPTS
    return Stage.IMAGES if path == files.PAGE or path.startswith(f"{Stage.IMAGES}/") else Stage.AUDIO


def read_limited(path: Path, bytes_max: int) -> bytes:
    """Read a regular file of at most `bytes_max` bytes.

    Raises:
        FileNotFoundError: it is not there.
        Damaged: it is larger, or no regular file.
    """
    try:
        with open(path, "rb", opener=_no_follow) as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Damaged(path.name, "it is no regular file")
            return _limited(file.read(bytes_max + 1), path.name, bytes_max)
    except OSError as error:
        if error.errno in {errno.EISDIR, errno.ELOOP, errno.ENXIO}:
            raise Damaged(path.name, "it is no regular file") from error
        raise


class Made(NamedTuple):
    """What the manifest says of a product beside what the file itself tells; see `Product`."""

    made_from: str
    by: Mapping[str, str]
    seconds: float
    at: str


def _hash(path: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0, opener=_no_follow) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        while block := file.read(READ_BYTES):
            found.update(block)
            size += len(block)
    return found.hexdigest(), size


def _no_follow(path: str, flags: int) -> int:
    """Open without following a link or waiting for a pipe: a person may have put anything there."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _limited(data: bytes, name: str, bytes_max: int) -> bytes:
    if len(data) > bytes_max:
        raise Damaged(name, f"larger than {bytes_max} bytes")
    return data


class Workspace:
    """One job's directory as a stage sees it. All methods block; call them from a thread."""

    def __init__(self, path: Path, durable: Durable) -> None:
        self.path: Final = path
        self._durable = durable
        self._manifest: Manifest | None = None

    @property
    def manifest(self) -> Manifest:
        """The products so far.

        Raises:
            Damaged: `manifest.json` is not one.
        """
        if self._manifest is None:
            try:
                data = read_limited(self.path / files.MANIFEST, files.JSON_BYTES_MAX)
                self._manifest = files.decode(Manifest, data, files.MANIFEST)
            except FileNotFoundError:
                self._manifest = Manifest(job=self.path.name)
        return self._manifest

    async def topic(self, bytes_max: int) -> bytes:
        """Return the topic as it was dropped, or as a person has mended it.

        Raises:
            Rejected: it cannot be read, or has more than `bytes_max` bytes.
        """
        path = self.path / files.TOPIC
        try:
            file = await aiofiles.open(path, "rb", opener=_no_follow, executor=threads())
            try:  # not `async with`: that closes in the threads of the loop, which backends may hold for ever
                data = await file.read(bytes_max + 1)
            finally:
                await file.close()
        except PermissionError as error:
            raise unreadable() from error
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:
                raise Damaged(files.TOPIC, "it is no regular file") from error
            raise
        if len(data) > bytes_max:
            raise too_large(path.stat().st_size, bytes_max)
        return data

    def need(self, *paths: str) -> None:
        """Check what an earlier stage should have left: a person may have moved the job past it.

        Raises:
            Rejected: a product is missing, or is not what was made here.
        """
        for path in paths:
            entry = self.manifest.get(path)
            if entry is None or not self._matches(entry):
                raise Rejected(
                    "product_missing",
                    f"{path} is missing or is not what was made here",
                    hint="`topicd retry` makes it again",
                )

    def scenes(self) -> Scenes:
        """Return the script.

        Raises:
            Rejected: there is none, or it is not the one the manifest tells of.
        """
        self.need(files.SCENES)
        return files.decode(Scenes, read_limited(self.path / files.SCENES, files.JSON_BYTES_MAX), files.SCENES)

    def whole(self, path: str, made_from: str) -> bool:
        """Tell whether a product is there, unharmed, and made from just this."""
        entry = self.manifest.get(path)
        return entry is not None and entry.made_from == made_from and self._matches(entry)

    def keep(self, path: str, data: bytes, *, made_from: str, by: Mapping[str, str], seconds: float, at: float) -> None:
        """Put a product on the disk, then its entry in the manifest; both have arrived when this returns.

        Args:
            path: relative to the job's directory.
            data: the product, already checked.
            made_from: see `digest`.
            by: what made it; no secrets.
            seconds: how long it took.
            at: when, seconds since the epoch.
        """
        self._durable.write(self._target(path), data)
        made = Made(made_from, dict(by), round(seconds, 3), rfc3339(at))
        self._record(path, hashlib.sha256(data).hexdigest(), len(data), made)

    def aside(self, path: str) -> Path:
        """Return a temporary name beside a product's, for a worker process to write to; `adopt` puts it in place."""
        target = self._target(path)
        return target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")

    def adopt(
        self, path: str, temporary: Path, *, made_from: str, by: Mapping[str, str], seconds: float, at: float
    ) -> None:
        """Do as `keep` with what a worker process has written to `temporary`."""
        sha256, size = _hash(temporary)
        self._durable.adopt(temporary, self._target(path))
        self._record(path, sha256, size, Made(made_from, dict(by), round(seconds, 3), rfc3339(at)))

    def digest_of(self, path: str) -> str:
        """Return the sha256 that the manifest has of a product; empty when it has none."""
        entry = self.manifest.get(path)
        return entry.sha256 if entry else ""

    def read(self, path: str, bytes_max: int) -> bytes:
        """Return a product's bytes."""
        return read_limited(self.path / path, bytes_max)

    def drop_others(self, folder: str, wanted: Collection[str]) -> None:
        """Remove what an earlier attempt left and this one does not want: a script may have grown shorter."""
        stale = [entry.path for entry in self.manifest.products if entry.path.startswith(f"{folder}/")]
        stale = [path for path in stale if path not in wanted]
        if stale:
            kept = tuple(entry for entry in self.manifest.products if entry.path not in stale)
            self._save(Manifest(self.manifest.job, kept))
        for path in self._folder(folder).glob("*"):
            if f"{folder}/{path.name}" not in wanted and not path.is_dir():
                self._durable.remove(path)

    def sweep(self) -> None:
        """Remove the temporary files of an attempt that died."""
        folders = [self.path]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name.startswith(".") and entry.name.endswith(TEMPORARY):
                        self._durable.remove(Path(entry.path))

    def resume_stage(self) -> Stage:
        """Return the first stage that has something to make: nothing is there of it, or something is harmed.

        Raises:
            Damaged: `manifest.json` is not one.
        """
        if self._is_of_another_topic():
            return Stage.SCRIPTS
        harmed = {stage_of(entry.path) for entry in self.manifest.products if not self._matches(entry)}
        undone = {stage for stage, last in LAST_PRODUCTS.items() if self.manifest.get(last) is None}
        return next((stage for stage in Stage if stage in harmed | undone), Stage.IMAGES)

    def _is_of_another_topic(self) -> bool:
        """Tell whether the topic has been mended since the script was written."""
        try:
            of = self.scenes().topic_sha256
            return of not in {"", _hash(self.path / files.TOPIC)[0]}
        except (OSError, Rejected):
            return False  # what is missing or harmed is made again for that

    def verify(self) -> None:
        """Check every product against the manifest.

        Raises:
            Rejected: one is missing or harmed; it is made again by `topicd retry`.
        """
        self.need(*(entry.path for entry in self.manifest.products))

    def _target(self, path: str) -> Path:
        folder, _, name = path.rpartition("/")
        target = self._folder(folder) / name
        if target.is_dir() and not target.is_symlink():
            raise Damaged(path, "a directory is in its place")
        return target

    def _folder(self, name: str) -> Path:
        """Return a folder of the job, made if it is missing; one that a person linked is not written through."""
        folder = self.path / name
        if name and folder.is_symlink():
            raise Damaged(name, "it is a symbolic link")
        if name and not folder.is_dir():
            if os.path.lexists(folder):
                raise Damaged(name, "it is no directory")
            self._durable.mkdir(folder)
        return folder

    def _record(self, path: str, sha256: str, size: int, made: "Made") -> None:
        entry = Product(path, sha256, size, made.made_from, made.by, made.seconds, made.at)
        self._save(self.manifest.having(entry))

    def _save(self, manifest: Manifest) -> None:
        if not os.path.lexists(
            self.path / files.MANIFEST
        ):  # job.json was not fsynced at the claim; from here on it lasts
            with contextlib.suppress(FileNotFoundError):
                self._durable.sync(self.path / files.JOB)
        self._durable.write(self.path / files.MANIFEST, files.encode(manifest))
        self._manifest = manifest

    def _matches(self, entry: Product) -> bool:
        path = self.path / entry.path
        try:
            if path.parent.is_symlink() or path.lstat().st_size != entry.bytes:
                return False
            return _hash(path) == (entry.sha256, entry.bytes)
        except (OSError, ValueError):  # a path with a NUL is a ValueError
            return False
