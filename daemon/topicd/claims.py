"""From a file in `input/` to a job: the claim, and what a death in the middle of one leaves.

Owns the states S0, S1 and S7, and the ids. Promises that the topic is in one place at every instant where a rename can
bring it over, and that recovery knows the half-way states where only a copy can. Only the store uses it.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from stat import S_ISREG
from typing import Final

from topicd import job as files
from topicd.durable import TEMPORARY, Durable, Steps
from topicd.errors import TopicdError
from topicd.job import Job
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES, Stage
from topicd.telemetry.events import rfc3339
from topicd.telemetry.tracing import trace_id
from topicd.topic import source_slug

ELSEWHERE: Final = tuple(place for place in (*SPOOL_PLACES, DONE) if place != Stage.SCRIPTS)


class Claims:
    """Claims topics for one home."""

    def __init__(self, spool: Spool, durable: Durable, clock: Callable[[], float]) -> None:
        self._spool = spool
        self._durable = durable
        self._clock = clock
        self._last_id_us = 0

    def recover(self, newest: Sequence[str], last: str, *, is_input_apart: bool) -> list[str]:
        """Undo claims that did not happen (S1), finish those that did (S7); ids ascend though the clock was set back.

        Args:
            newest: the newest jobs in `scripts/`; what was being claimed at a death is among them.
            last: the newest job of any stage.
            is_input_apart: whether a claim copies.

        Returns:
            One line for each thing that was put right.
        """
        self._last_id_us = max(int((files.time_of(last) or 0) * 1_000_000), self._last_id_us)
        folder = self._spool.place(Stage.SCRIPTS)
        unclaimed = [folder / name for name in newest if not self._spool.is_claimed(folder / name)]
        done = [f"{path.name}: a claim that did not happen (S1)" for path in unclaimed if self._undo(path)]
        if is_input_apart:
            done += [f"{job}: claimed, its source was still there (S7)" for job in filter(self._finish, newest)]
        return done

    def claim(self, source: Path, *, sha256: str, size: int, inode: int | None, marker: str) -> Steps[Job]:
        """Turn a file in `input/` into a job.

        Args:
            source: the file.
            sha256: of its bytes; empty when they were not read.
            size: in bytes.
            inode: of the file that was read, if it was: another may have been put in its place since.
            marker: the run that has the job in hand from the start; empty when none has.

        Raises:
            FileNotFoundError: the file was gone: someone was faster.
            StorageTrouble: the disk is full, read-only or failing; the topic is still in `input/`.
            PermissionError: `input/` does not let us take files away.
        """
        now = self._clock()
        path = self._new_directory(now, source.name)
        job = Job(
            id=path.name,
            source=source.name,
            sha256=sha256,
            bytes=size,
            accepted=rfc3339(now),
            accepted_s=now,
            trace_id=trace_id(path.name),
        )
        marked = self._spool.marker(Stage.SCRIPTS, job.id, marker) if marker else None
        try:
            self._durable.fill(path / files.JOB, files.encode(job))
            if marked:
                self._durable.fill(marked)
            yield (path.parent,)
            yield from self._take(source, path, job, inode)
        except BaseException:
            with contextlib.suppress(OSError, TopicdError):
                if marked:
                    self._durable.unlink(marked)
            with contextlib.suppress(OSError, TopicdError):
                if not self._spool.is_claimed(path):
                    self._durable.remove_tree(path)
            raise
        return job

    def _new_directory(self, now: float, source: str) -> Path:
        self._last_id_us = max(int(now * 1_000_000), self._last_id_us + 1)
        while True:
            seconds, micros = divmod(self._last_id_us, 1_000_000)
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
            name = f"{stamp}-{micros:06d}-{source_slug(source)}"
            if not any(os.path.lexists(f"{self._spool.place(place)}/{name}") for place in ELSEWHERE):
                with contextlib.suppress(FileExistsError):
                    path = self._spool.place(Stage.SCRIPTS) / name
                    self._durable.mkdir_only(path)
                    return path
            self._last_id_us += 1

    def _take(self, source: Path, path: Path, job: Job, inode: int | None) -> Steps[None]:
        target = path / files.TOPIC
        try:
            self._durable.rename_only(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            yield from self._take_by_copy(source, path, job)
            return
        found = target.lstat()
        if inode not in {None, found.st_ino}:
            yield from self._durable.writing(
                path, {files.JOB: files.encode(replace(job, sha256="", bytes=found.st_size))}
            )
        try:
            yield (target, path)
        except PermissionError:  # an unreadable topic is taken all the same, and then refused
            yield (path,)

    def _take_by_copy(self, source: Path, path: Path, job: Job) -> Steps[None]:
        """Claim across file systems; `source_left` lets recovery finish what a death before the removal left (S7)."""
        stat = source.lstat()
        if not S_ISREG(stat.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it is no file any more", source)
        yield from self._durable.writing(path, {files.JOB: files.encode(replace(job, source_left=_identity(stat)))})
        topic = path / files.TOPIC  # only now: no cut may leave it here without the word that its source is left
        try:
            self._durable.copy_file(source, topic)
            yield (path,)
            _check_same(source, stat)
            self._durable.unlink(source)
        except BaseException as error:
            # A copy whose source stays would be claimed again at every scan; one whose source is gone is the topic.
            if isinstance(error, FileNotFoundError) or os.path.lexists(source):
                with contextlib.suppress(FileNotFoundError):
                    self._durable.unlink(topic)
            raise
        yield (source.parent,)
        yield from self._durable.writing(path, {files.JOB: files.encode(job)})  # nothing is left any more

    def _undo(self, path: Path) -> bool:
        """Remove an empty claim; a directory that holds anything else, or may not be read, is somebody's and stays."""
        try:
            if not {entry.name for entry in path.iterdir() if not entry.name.endswith(TEMPORARY)} <= {files.JOB}:
                return False
            self._durable.remove_tree(path)
        except OSError:
            return False
        return True

    def _finish(self, name: str) -> bool:
        """Remove the source that a claim by copy left, if it is still the file that was copied."""
        try:
            job = self._spool.read_job(self._spool.place(Stage.SCRIPTS) / name)
            source = self._spool.input / job.source
            if job.source_left is None or _identity(source.lstat()) != tuple(job.source_left):
                return False
        except (OSError, TopicdError):
            return False
        self._durable.remove(source)
        return True


def _check_same(source: Path, stat: os.stat_result) -> None:
    if _identity(source.lstat()) != _identity(stat):
        raise FileNotFoundError(errno.ENOENT, "another file was put in its place", source)


def _identity(stat: os.stat_result) -> tuple[int, int, int]:
    return (stat.st_dev, stat.st_ino, stat.st_mtime_ns)
