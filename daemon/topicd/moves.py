"""What is done to a job, in steps: claim, begin, give back, defer, finish, fail.

Owns the order in which a move changes the disk, and the markers that tell which jobs are in hand. Promises what
`states.MOVES` says of each verb once its last step is done, and that a death between any two steps leaves a state that
recovery knows. Each verb is `durable.Steps`: whoever takes it through them, alone or in a group, does the fsyncs that
it asks for. Raises FileNotFoundError when a job is not where the caller believed. Only the store uses it.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from topicd import job as files
from topicd.claims import Claims
from topicd.durable import Durable, Steps
from topicd.errors import StorageTrouble
from topicd.job import Job, Trouble
from topicd.spool import DONE, Marker, Spool
from topicd.states import Aside, Stage
from topicd.workspace import Workspace


class Begun(NamedTuple):
    """A job whose attempt is counted, and whether the one before it took its daemon down."""

    job: Job
    crashed: bool


class Moves:
    """The verbs on one home.

    Args:
        spool: where things are.
        durable: how they are changed.
        clock: seconds since the epoch.
        run: this run of the daemon, 16 hexadecimal digits.
    """

    def __init__(self, spool: Spool, durable: Durable, *, clock: Callable[[], float], run: str) -> None:
        self.claims = Claims(spool, durable, clock)
        self.died = dict[tuple[str, str], list[Marker]]()
        self.published = set[str]()
        self._spool = spool
        self._durable = durable
        self._run = run

    def claim(
        self, source: Path, *, sha256: str, size: int, inode: int | None = None, begin: bool = False
    ) -> Steps[Job]:
        """Turn a file in `input/` into a job, with `begin` one whose first attempt is counted; see `Claims.claim`."""
        job = yield from self.claims.claim(
            source, sha256=sha256, size=size, inode=inode, marker=self._run if begin else ""
        )
        return job.begin(Stage.SCRIPTS) if begin else job

    def begin(self, stage: Stage, name: str) -> Steps[Begun]:
        """Count an attempt, and a crash if the one before it never ended, before the work starts.

        The attempt's marker is what counts it: if this run dies, the next one finds it.
        """
        path = self._spool.place(stage) / name
        if name in self.published:
            self._remove_published(name, path)
        job = self._spool.read_job(path)
        left = self.died.get((stage, name), [])
        if left:
            job = job.crash(stage)
        if left or not (job.sha256 or self._spool.has_job_file(path)):
            yield from self._save(path, job)
            self._forget_death(stage, name, left)
        if left or job.attempts.get(stage):
            Workspace(path, self._durable).sweep()
        if not self._clear_reason(path):
            self._durable.remove(path / files.REASON)
        self._mark(stage, name)
        yield (path.parent,)
        return Begun(job.begin(stage), crashed=bool(left))

    def give_back(self, stage: Stage, job: Job) -> Steps[None]:
        """End an attempt that was not the job's to lose, uncounted."""
        path = self._spool.place(stage) / job.id
        self._unmark(stage, job.id)
        yield (path.parent,)
        path.lstat()

    def let_go(self, stage: Stage, name: str) -> Steps[None]:
        """Take away the marker of an attempt at a job that somebody has moved."""
        self._unmark(stage, name)
        yield (self._spool.place(stage),)

    def defer(self, stage: Stage, job: Job, trouble: Trouble, not_before_s: float) -> Steps[None]:
        """Leave a job where it is, for another attempt later."""
        path = self._spool.place(stage) / job.id
        yield from self._save(path, replace(job, not_before_s=not_before_s, last_error=trouble))
        self._unmark(stage, job.id)
        yield (path.parent,)

    def finish(self, stage: Stage, job: Job, *, begin: bool = False) -> Steps[Path]:
        """Move a job on: to the next stage, or to `output/` after the last. Returns its new directory.

        With `begin` the first attempt at the next stage is counted with the same fsync.
        """
        path, after = self._spool.place(stage) / job.id, stage.next
        target = self._spool.place(after or DONE) / job.id
        if job.last_error:
            yield from self._save(path, job.pass_on(stage))
        if after is None:
            Workspace(path, self._durable).sweep()
            yield from self._publish(path, target)
            if os.path.lexists(path):  # across file systems, when the source could not be removed
                self.published.add(job.id)
                return target
        else:
            if begin:
                self._pass_marker(job.id, stage, after)
            try:
                self._durable.rename_only(path, target)
            except BaseException:
                if begin:
                    self._pass_marker(job.id, after, stage)
                raise
            yield (target.parent,)
            if begin:
                return target
        self._unmark_moved(stage, job.id)
        return target

    def fail(self, stage: Stage, job: Job, trouble: Trouble) -> Steps[None]:
        """Put a job aside for a person, with the reason."""
        path = self._spool.place(stage) / job.id
        self._clear_reason(path)
        told = {files.REASON: files.encode(trouble), files.JOB: files.encode(replace(job, last_error=trouble))}
        yield from self._durable.writing(path, told)
        yield from self._to_failed(stage, job.id)

    def fail_damaged(self, stage: Stage, name: str, trouble: Trouble) -> Steps[None]:
        """Put a job aside whose own `job.json` cannot be read; that file stays as it was found."""
        path = self._spool.place(stage) / name
        self._clear_reason(path)
        yield from self._durable.writing(path, {files.REASON: files.encode(trouble)})
        yield from self._to_failed(stage, name)

    def _to_failed(self, stage: Stage, name: str) -> Steps[None]:
        target = self._spool.place(Aside.FAILED) / name
        self._durable.rename_only(self._spool.place(stage) / name, target)
        yield (target.parent,)
        self._unmark_moved(stage, name)

    def _remove_published(self, name: str, path: Path) -> None:
        """Remove what a publish across file systems left, unless a person has brought the job back."""
        if os.path.lexists(self._spool.place(DONE) / name / files.MANIFEST):
            self._durable.remove_tree(path)
        self.published.discard(name)

    def _forget_death(self, stage: Stage, name: str, left: list[Marker]) -> None:
        """Once a crash is in `job.json`: a begin that fails after that must not count it again."""
        for marker in left:
            self._drop(marker.path)
        self.died.pop((stage, name), None)

    def _publish(self, path: Path, target: Path) -> Steps[None]:
        if not _is_copy(path, target):
            yield from self._durable.publishing(path, target)
            return
        yield (target.parent,)  # copied across file systems before, and then the disk refused
        self._durable.remove_tree(path)

    def _clear_reason(self, path: Path) -> bool:
        """Keep a directory that somebody put in the place of the reason beside it; tell whether there was one."""
        reason = path / files.REASON
        is_in_the_way = reason.is_dir() and not reason.is_symlink()
        if is_in_the_way:
            self._durable.rename_only(reason, reason.with_name(f"{files.REASON}.damaged"))
        return is_in_the_way

    def _save(self, path: Path, job: Job) -> Steps[None]:
        yield from self._durable.writing(path, {files.JOB: files.encode(job)})

    def _mark(self, stage: str, name: str) -> None:
        with contextlib.suppress(FileExistsError):  # an attempt of this run whose end could not be written
            self._durable.fill(self._spool.marker(stage, name, self._run))

    def _pass_marker(self, name: str, stage: str, after: str) -> None:
        """Let a marker go before its job: where one walks on at once, this is cheaper than a new one."""
        try:
            self._durable.rename_only(
                self._spool.marker(stage, name, self._run), self._spool.marker(after, name, self._run)
            )
        except FileNotFoundError:  # somebody removed it
            self._mark(after, name)

    def _unmark(self, stage: str, name: str) -> None:
        """End an attempt. A power cut may undo this: the job is then taken for a suspect, and runs alone once."""
        self._drop(self._spool.marker(stage, name, self._run))

    def _unmark_moved(self, stage: str, name: str) -> None:
        """End an attempt of a job that has left the stage; a marker that cannot be removed goes at the next start."""
        with contextlib.suppress(StorageTrouble):
            self._unmark(stage, name)

    def _drop(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._durable.unlink(path)


def _is_copy(path: Path, target: Path) -> bool:
    """Tell whether a finished job is in `output/` already, product for product."""
    if not os.path.lexists(target):
        return False
    try:
        return (target / files.MANIFEST).read_bytes() == (path / files.MANIFEST).read_bytes()
    except OSError:
        return False
