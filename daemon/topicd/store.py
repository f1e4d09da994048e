"""The only door to the spool: claim, begin, give back, defer, finish, fail, hold, release, retry, recover.

Owns every move of a job: what the daemon does is in `moves`, in steps that many jobs take together through `commit`;
what a person does is here. Promises what `states.MOVES` says of each verb, on disk when the verb returns. A job that is
not where the caller believed raises FileNotFoundError: a person or another process was faster, and that is no fault.
Never decides which move is right: the engine does, or a person. All but `commit` block; call them from a thread.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from topicd import job as files
from topicd import layout, lock
from topicd.backlog import Backlog, Ready
from topicd.commit import GroupCommit
from topicd.durable import INCOMING, Durable, Steps
from topicd.errors import TopicdError
from topicd.job import Job, Trouble
from topicd.moves import Begun, Moves
from topicd.spool import DONE, Found, Marker, Spool, retryable
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.workspace import Workspace

R = TypeVar("R")


class Illegal(TopicdError):
    """A move that the state table does not have, asked for by a person."""


class Store:
    """The spool of one home."""

    def __init__(
        self,
        spool: Spool,
        durable: Durable,
        *,
        clock: Callable[[], float] = time.time,
        grouped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.spool: Final = spool
        self.run: Final = secrets.token_hex(8)
        self.durable: Final = durable
        self.moves = Moves(spool, durable, clock=clock, run=self.run)
        self._group = GroupCommit(durable, grouped)
        self.jobs_found = 0
        self._backlogs = {
            stage: Backlog(spool, stage, clock=clock, died=self.moves.died, published=self.moves.published)
            for stage in Stage
        }

    def open(self) -> None:
        """Make the directories and check that renames inside the spool are possible.

        Raises:
            Unusable: a directory cannot be made or written, or the spool spans file systems.
        """
        layout.make(self.spool, self.durable, self.run)

    def locked(
        self, said: Mapping[str, object]
    ) -> contextlib.AbstractContextManager[Callable[[Mapping[str, object]], None]]:
        """Hold the home for this process; see `lock.locked`."""
        return lock.locked(self.spool.lock_file, {"run": self.run, **said})

    def holder(self) -> Mapping[str, object]:
        """Return what the daemon that holds the home says of itself; empty when none does."""
        return lock.holder(self.spool.lock_file)

    def recover(self) -> list[str]:
        """Clean what a death left half done. The ordinary start: it finds nothing after an ordinary stop.

        It costs a scan of the names in each stage, however many jobs wait: what was in hand has a marker, and what was
        being claimed is among the newest.

        Returns:
            One line for each thing that was put right, or left for a person. Crashes are counted by `begin`, as the
            jobs come up.
        """
        spool = self.spool
        surveys = layout.sweep(spool)
        self.jobs_found = sum(survey.jobs for survey in surveys.values())
        newest = surveys[Stage.SCRIPTS].newest
        last = max((name for survey in surveys.values() for name in survey.newest[:1]), default="")
        done = self.moves.claims.recover(newest, last, is_input_apart=self.is_input_apart)
        done += [self._recover_incoming(path) for path in spool.output.glob(f".*{INCOMING}")]
        for stage, survey in surveys.items():
            self._backlogs[stage].begin(survey)
            for marker in survey.markers:
                done += self._recover_marked(stage, marker)
        return done

    def ready(self, stage: Stage, busy: Collection[str], limit: int, *, look: bool = True) -> Ready:
        """Return up to `limit` jobs of a stage that may be begun now; see `Backlog.take`."""
        return self._backlogs[stage].take(busy, limit, look=look)

    async def commit(self, steps: Steps[R]) -> R:
        """Take one of the `moves` through its steps, together with whatever else is under way."""
        return await self._group.carry_out(steps)

    def claim(self, source: Path, *, sha256: str, size: int, inode: int | None = None) -> Job:
        """Take `Moves.claim` through its steps, alone. The daemon's moves go through `commit`."""
        return self.durable.carry_out(self.moves.claim(source, sha256=sha256, size=size, inode=inode))

    def begin(self, stage: Stage, name: str) -> Begun:
        """Take `Moves.begin` through its steps, alone."""
        return self.durable.carry_out(self.moves.begin(stage, name))

    def give_back(self, stage: Stage, job: Job) -> None:
        """Take `Moves.give_back` through its steps, alone."""
        self.durable.carry_out(self.moves.give_back(stage, job))

    def defer(self, stage: Stage, job: Job, trouble: Trouble, not_before_s: float) -> None:
        """Take `Moves.defer` through its steps, alone."""
        self.durable.carry_out(self.moves.defer(stage, job, trouble, not_before_s))

    def finish(self, stage: Stage, job: Job) -> Path:
        """Take `Moves.finish` through its steps, alone."""
        return self.durable.carry_out(self.moves.finish(stage, job))

    def fail(self, stage: Stage, job: Job, trouble: Trouble) -> None:
        """Take `Moves.fail` through its steps, alone."""
        self.durable.carry_out(self.moves.fail(stage, job, trouble))

    def fail_damaged(self, stage: Stage, name: str, trouble: Trouble) -> None:
        """Take `Moves.fail_damaged` through its steps, alone."""
        self.durable.carry_out(self.moves.fail_damaged(stage, name, trouble))

    def hold(self, found: Found) -> Found:
        """Put a job aside, wherever it waits or works.

        Raises:
            Illegal: it is finished, or held already.
        """
        if found.place not in (*Stage, Aside.FAILED):
            raise Illegal("not_here", f"{found.id} is in {found.place}/: there is nothing to hold")
        return self._move(found, Aside.HELD)

    def release(self, found: Found) -> Found:
        """Let a held job go on where its files say it was.

        Raises:
            Illegal: it is not held.
        """
        if found.place != Aside.HELD:
            raise Illegal("not_held", f"{found.id} is in {found.place}/, not held")
        return self._move(found, self._resume_stage(found.path))

    def retry(self, found: Found) -> Found:
        """Let a failed or waiting job begin anew with no attempts spent; what is whole is kept.

        Raises:
            Illegal: it is finished or held.
        """
        if not retryable(found.place):
            hint = "`topicd release` lets it go on" if found.place == Aside.HELD else ""
            raise Illegal("not_failed", f"{found.id} is in {found.place}/: there is nothing to retry", hint=hint)
        if found.place != Aside.FAILED and self.in_work(found):
            raise Illegal("in_work", f"{found.id} is being worked on", hint="`topicd hold` takes it out of work")
        self._mend_job_file(found.path)
        self._save(found.path, self.spool.read_job(found.path).afresh())
        if found.place != Aside.FAILED:
            os.utime(found.path)  # an event in the stage's directory, so that a daemon looks now
            return found
        return self._move(found, self._resume_stage(found.path))

    def in_work(self, found: Found) -> bool:
        """Tell whether a running daemon has a job in hand."""
        run = self.holder().get("run")
        return isinstance(run, str) and os.path.lexists(self.spool.marker(found.place, found.id, run))

    def is_marked(self, stage: Stage, name: str) -> bool:
        """Tell whether this run of the daemon has a job in hand."""
        return os.path.lexists(self.spool.marker(stage, name, self.run))

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
    def is_output_apart(self) -> bool:
        """Whether output/ is on another file system than the spool: a publish copies, and takes its time."""
        return not layout.same_file_system(self.spool.place(Stage.IMAGES), self.spool.output, self.run)

    def _is_published(self, name: str) -> bool:
        """Tell whether a job is in output/ already (S6), which only a publish across file systems can leave behind."""
        return self.is_output_apart and (self.spool.output / name / files.MANIFEST).is_file()

    def _recover_incoming(self, path: Path) -> str:
        """Remove what a publish across file systems left half copied, unless it may be the only copy."""
        name = path.name[1 : -len(INCOMING)]
        if not any((self.spool.place(place) / name).is_dir() for place in (*SPOOL_PLACES, DONE)):
            return f"left as it is: {path.name}, whose job is nowhere else: it may be the only copy"
        self.durable.remove_tree(path)
        return f"{path.name}: a publish that was cut short (S5)"

    def _recover_marked(self, stage: Stage, marker: Marker) -> Iterator[str]:
        """Deal with a job that was in hand when its daemon died, or with what is left of the sign that it was."""
        if marker.run == self.run:
            return
        path = self.spool.place(stage) / marker.job
        if stage.next is None and path.is_dir() and self._is_published(marker.job):
            self.durable.remove_tree(path)
            yield f"{marker.job}: published, and its source was still there (S6)"
        if path.is_dir():
            markers = self.moves.died.setdefault((stage, marker.job), [])
            markers += [marker] if marker not in markers else []
        else:
            self.durable.unlink(marker.path)

    def _resume_stage(self, path: Path) -> Stage:
        try:
            return Workspace(path, self.durable).resume_stage()
        except files.Damaged:
            return Stage.SCRIPTS

    def _move(self, found: Found, place: str) -> Found:
        target = self.spool.place(place) / found.id
        self.durable.rename(found.path, target)
        return Found(place, found.id, target)

    def _mend_job_file(self, path: Path) -> None:
        """Keep a damaged `job.json` beside a new one: a person who retries the job wants it to go on."""
        try:
            self.spool.read_job(path)
        except files.Damaged:
            self.durable.rename(path / files.JOB, path / f"{files.JOB}.damaged")
