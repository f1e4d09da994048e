"""The only door to the spool: claim, begin, give back, defer, finish, fail, hold, release, retry, recover.

Owns every move of a job. Promises what `states.MOVES` says of each verb, on disk when the verb returns. A job
that is not where the caller believed raises FileNotFoundError: a person or another process was faster, and that
is no fault. Never decides which move is right: the engine does, or a person. All methods block; call them from
a thread.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

from topicd import job as files
from topicd import layout, lock
from topicd.claims import Claims
from topicd.durable import INCOMING, Durable
from topicd.errors import TopicdError
from topicd.job import Job, Trouble
from topicd.spool import DONE, Found, Spool, retryable
from topicd.states import Aside, Stage
from topicd.workspace import Workspace

NOT_BEFORE_MAX_S: Final = 8 * 86_400.0


class Illegal(TopicdError):
    """A move that the state table does not have, asked for by a person."""


class Ready(NamedTuple):
    """What a stage may begin.

    Attributes:
        ids: jobs that may be begun now, oldest first.
        suspects: those of them that were in work in this stage when a daemon died.
        next_due_s: when the next deferred job may be begun, seconds since the epoch.
    """

    ids: list[str]
    suspects: set[str]
    next_due_s: float | None


class Begun(NamedTuple):
    """A job whose attempt is counted, and whether the one before it took its daemon down."""

    job: Job
    crashed: bool


class Store:
    """The spool of one home."""

    def __init__(self, spool: Spool, durable: Durable, *, clock: Callable[[], float] = time.time) -> None:
        self.spool: Final = spool
        self.run: Final = secrets.token_hex(8)
        self.durable: Final = durable
        self._clock = clock
        self._published = set[str]()
        self._claims = Claims(spool, durable, clock)

    def open(self) -> None:
        """Make the directories and check that renames inside the spool are possible.

        Raises:
            Unusable: a directory cannot be made or written, or the spool spans file systems.
        """
        layout.make(self.spool, self.durable, self.run)
        self._claims.open()

    def locked(
        self, said: Mapping[str, object]
    ) -> contextlib.AbstractContextManager[Callable[[Mapping[str, object]], None]]:
        """Hold the home for this process; see `lock.locked`."""
        return lock.locked(self.spool.lock_file, {"run": self.run, **said})

    def holder(self) -> Mapping[str, object]:
        """Return what the daemon that holds the home says of itself; empty when none does."""
        return lock.holder(self.spool.lock_file)

    def claim(self, source: Path, *, sha256: str, size: int, inode: int | None = None) -> Job:
        """Turn a file in `input/` into a job; see `Claims.claim`."""
        return self._claims.claim(source, sha256=sha256, size=size, inode=inode)

    def recover(self) -> list[str]:
        """Clean what a death left half done. The ordinary start: it finds nothing after an ordinary stop.

        Returns:
            One line for each thing that was put right. Crashes are counted by `begin`, as the jobs come up.
        """
        spool = self.spool
        layout.sweep(spool)
        done = self._claims.recover(is_input_apart=self.is_input_apart)
        for path in spool.output.glob(f".*{INCOMING}"):
            self.durable.remove_tree(path)
            done.append(f"{path.name}: a publish that was cut short (S5)")
        for name in filter(self._is_published, spool.ids(Stage.IMAGES)):
            self.durable.remove_tree(spool.place(Stage.IMAGES) / name)
            done.append(f"{name}: published, and its source was still there (S6)")
        return done

    def ready(self, stage: Stage, busy: Collection[str], limit: int) -> Ready:
        """Return up to `limit` jobs of a stage that may be begun now."""
        now, ids, suspects, next_due = self._clock(), list[str](), set[str](), None
        folder = self.spool.place(stage)
        for name in self.spool.ids(stage):
            if len(ids) >= limit:
                break
            if name in busy or not (self.spool.is_claimed(folder / name) or name in self._published):
                continue
            due, suspect = self._due(stage, folder / name)
            if now < due < now + NOT_BEFORE_MAX_S:  # beyond that the clock was wrong when it was deferred
                next_due = min(due, next_due or due)
                continue
            ids.append(name)
            if suspect:
                suspects.add(name)
        return Ready(ids, suspects, next_due)

    def begin(self, stage: Stage, name: str) -> Begun:
        """Count an attempt, and a crash if the one before it never ended; both are on disk before the work starts."""
        path = self.spool.place(stage) / name
        if name in self._published:
            self.durable.remove_tree(path)
        before = self.spool.read_job(path)
        job = before.begin(stage, run=self.run, at=self._clock())
        Workspace(path, self.durable).sweep()
        self.durable.remove(path / files.REASON)
        self._save(path, job)
        return Begun(job, crashed=job.crashes.get(stage, 0) > before.crashes.get(stage, 0))

    def give_back(self, stage: Stage, job: Job) -> None:
        """Take back the count of an attempt that was not the job's to lose."""
        self._save(self.spool.place(stage) / job.id, job.give_back(stage))

    def defer(self, stage: Stage, job: Job, trouble: Trouble, not_before_s: float) -> None:
        """Leave a job where it is, for another attempt later."""
        later = replace(job, begun=None, not_before_s=not_before_s, last_error=trouble)
        self._save(self.spool.place(stage) / job.id, later)

    def finish(self, stage: Stage, job: Job, seconds: float) -> Path:
        """Move a job on: to the next stage, or to `output/` after the last. Returns its new directory."""
        path = self.spool.place(stage) / job.id
        done = replace(job, begun=None, last_error=None, seconds={**job.seconds, stage: round(seconds, 3)})
        self._save(path, done)
        after = stage.next
        if after is None:
            Workspace(path, self.durable).sweep()
        target = self.spool.place(after or DONE) / job.id
        if after is None:
            self.durable.publish(path, target)
            if path.exists():  # across file systems, when the source could not be removed
                self._published.add(job.id)
        else:
            self.durable.rename(path, target)
        return target

    def fail(self, stage: Stage, job: Job, trouble: Trouble) -> None:
        """Put a job aside for a person, with the reason."""
        path = self.spool.place(stage) / job.id
        self.durable.place(path / files.REASON, files.encode(trouble))
        self._save(path, replace(job, begun=None, last_error=trouble))
        self.durable.rename(path, self.spool.place(Aside.FAILED) / job.id)

    def fail_damaged(self, stage: Stage, name: str, trouble: Trouble) -> None:
        """Put a job aside whose own `job.json` cannot be read; that file stays as it was found."""
        path = self.spool.place(stage) / name
        self.durable.write(path / files.REASON, files.encode(trouble))
        self.durable.rename(path, self.spool.place(Aside.FAILED) / name)

    def hold(self, found: Found) -> Found:
        """Put a job aside, wherever it waits or works.

        Raises:
            Illegal: it is finished, or held already.
        """
        if found.place not in (*Stage, Aside.FAILED):
            raise Illegal("not_here", f"{found.id} is in {found.place}/: there is nothing to hold")
        held = self._move(found, Aside.HELD)
        self._end_attempt(held.path)
        return held

    def release(self, found: Found) -> Found:
        """Let a held job go on where its files say it was.

        Raises:
            Illegal: it is not held.
        """
        if found.place != Aside.HELD:
            raise Illegal("not_held", f"{found.id} is in {found.place}/, not held")
        self._end_attempt(found.path)
        return self._move(found, self._resume_stage(found.path))

    def retry(self, found: Found) -> Found:
        """Let a failed or waiting job begin anew with no attempts spent; what is whole is kept.

        Raises:
            Illegal: it is finished or held.
        """
        if not retryable(found.place):
            hint = "`topicd release` lets it go on" if found.place == Aside.HELD else ""
            raise Illegal("not_failed", f"{found.id} is in {found.place}/: there is nothing to retry", hint=hint)
        if found.place != Aside.FAILED and self.in_work(found.path):
            raise Illegal("in_work", f"{found.id} is being worked on", hint="`topicd hold` takes it out of work")
        self._mend_job_file(found.path)
        self._save(found.path, self.spool.read_job(found.path).afresh())
        if found.place != Aside.FAILED:
            os.utime(found.path)  # an event in the stage's directory, so that a daemon looks now
            return found
        return self._move(found, self._resume_stage(found.path))

    def in_work(self, path: Path) -> bool:
        """Tell whether a running daemon has a job in hand."""
        with contextlib.suppress(OSError, TopicdError):
            begun = self.spool.read_job(path).begun
            return begun is not None and begun.run == self.holder().get("run")
        return False

    def workspace(self, stage: Stage, name: str) -> Workspace:
        """Return a job's products."""
        return Workspace(self.spool.place(stage) / name, self.durable)

    def _save(self, path: Path, job: Job) -> None:
        self.durable.write(path / files.JOB, files.encode(job))

    @cached_property
    def is_input_apart(self) -> bool:
        """Whether input/ is on another file system than the spool."""
        return not layout.same_file_system(self.spool.input, self.spool.place(Stage.SCRIPTS), self.run)

    @cached_property
    def _is_output_apart(self) -> bool:
        return not layout.same_file_system(self.spool.place(Stage.IMAGES), self.spool.output, self.run)

    def _is_published(self, name: str) -> bool:
        """Tell whether a job is in output/ already (S6), which only a publish across file systems can leave behind."""
        return self._is_output_apart and (self.spool.output / name / files.MANIFEST).is_file()

    def _end_attempt(self, path: Path) -> None:
        """Give back an attempt that a person cut short, so that the next daemon does not take it for a death."""
        with contextlib.suppress(OSError, TopicdError):  # a damaged job is moved as it is
            job = self.spool.read_job(path)
            if job.begun:
                self._save(path, job.give_back(job.begun.stage))

    def _resume_stage(self, path: Path) -> Stage:
        try:
            return Workspace(path, self.durable).resume_stage()
        except files.Damaged:
            return Stage.SCRIPTS

    def _move(self, found: Found, place: str) -> Found:
        target = self.spool.place(place) / found.id
        self.durable.rename(found.path, target)
        return Found(place, found.id, target)

    def _due(self, stage: Stage, path: Path) -> tuple[float, bool]:
        try:
            job = self.spool.read_job(path)
        except (OSError, TopicdError):
            return 0.0, False  # begin says what is wrong with it
        return job.not_before_s, job.is_suspect(stage, self.run)

    def _mend_job_file(self, path: Path) -> None:
        """Keep a damaged `job.json` beside a new one: a person who retries the job wants it to go on."""
        try:
            self.spool.read_job(path)
        except files.Damaged:
            self.durable.rename(path / files.JOB, path / f"{files.JOB}.damaged")
