"""The jobs waiting in a stage, read in windows: a million of them cost one scan of names, and the memory of a thousand.

Owns what is remembered between two looks, all of which the tree can tell again: the names of the oldest jobs, and which
of them wait for their time. Promises the oldest first, and that a change on the disk is seen at the next scan: at every
look while the window holds the whole stage, and else when it is used up or is older than `SCAN_AGE_S`. Changes nothing.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from topicd import job as files
from topicd.errors import TopicdError
from topicd.spool import WINDOW_JOBS, Spool, Survey
from topicd.states import Stage

DEFERRED_JOBS_MAX: Final = 100_000
SCAN_AGE_S: Final = 30.0
NOT_BEFORE_MAX_S: Final = 8 * 86_400.0


class Ready(NamedTuple):
    """What a stage may begin.

    Attributes:
        ids: jobs that may be begun now, oldest first.
        suspects: those of them that were in work in this stage when a daemon died.
        next_due_s: when the next deferred job may be begun, seconds since the epoch.
        is_all: whether nothing else waits in this stage.
    """

    ids: list[str]
    suspects: set[str]
    next_due_s: float | None
    is_all: bool


class _Deferred(NamedTuple):
    """A job that waits for its time, and the `job.json` that said so."""

    inode: int
    mtime_ns: int
    due_s: float


class Backlog:
    """One stage's waiting jobs. For one thread at a time.

    Args:
        spool: where they are.
        stage: which.
        clock: seconds since the epoch.
        died: jobs that were in hand when a daemon died, as (stage, job).
        published: jobs of the last stage whose directory is still to be removed; `begin` does it.
    """

    def __init__(
        self,
        spool: Spool,
        stage: Stage,
        *,
        clock: Callable[[], float],
        died: Collection[tuple[str, str]],
        published: Collection[str],
    ) -> None:
        self._spool = spool
        self._stage = stage
        self._clock = clock
        self._died = died
        self._published = published
        self._window = deque[str]()
        self._is_whole = False
        self._scanned_at = -SCAN_AGE_S
        self._deferred = dict[str, _Deferred]()

    def begin(self, survey: Survey) -> None:
        """Take over what a look at the stage has told already."""
        self._scanned_at = time.monotonic()
        self._window = deque(survey.oldest)
        self._is_whole = len(self._window) < WINDOW_JOBS

    def take(self, busy: Collection[str], limit: int, *, look: bool) -> Ready:
        """Return up to `limit` jobs that may be begun now, and forget them.

        Args:
            busy: jobs not to be returned.
            limit: how many at most.
            look: whether the directory may have changed since the last call.
        """
        if self._needs_scan(look=look):
            self._scan()
        ids, suspects = list[str](), set[str]()
        self._take_due(ids, suspects, busy, limit)
        known = -1
        while not (ids or self._is_whole or known == len(self._deferred)):  # a whole window of deferred jobs
            known = len(self._deferred)
            self._scan()
            self._take_due(ids, suspects, busy, limit)
        return Ready(ids, suspects, self._next_due_s, is_all=self._is_whole and not self._window)

    def _take_due(self, ids: list[str], suspects: set[str], busy: Collection[str], limit: int) -> None:
        while self._window and len(ids) < limit:
            name = self._window.popleft()
            if name not in busy and self._is_due(name, suspects):
                ids.append(name)

    @property
    def _next_due_s(self) -> float | None:
        return min((deferred.due_s for deferred in self._deferred.values()), default=None)

    def _needs_scan(self, *, look: bool) -> bool:
        if look and (self._is_whole or time.monotonic() - self._scanned_at >= SCAN_AGE_S):
            return True
        due_s = self._next_due_s
        return due_s is not None and due_s <= self._clock()

    def _scan(self) -> None:
        """Read all but those known to wait for their time; forget the known that are gone or due."""
        now = self._clock()
        self._deferred = {
            name: deferred
            for name, deferred in self._deferred.items()
            if deferred.due_s > now and deferred == self._read_deferred(name, deferred.due_s)
        }
        self.begin(self._spool.survey(self._stage, oldest=WINDOW_JOBS, skip=self._deferred))

    def _is_due(self, name: str, suspects: set[str]) -> bool:
        """Tell whether a job may be begun now; note it among the suspects, or among the deferred."""
        path = self._spool.place(self._stage) / name
        if not (self._spool.is_claimed(path) or name in self._published):
            return False
        try:
            job = self._spool.read_job(path)
        except (OSError, TopicdError):
            return True  # begin says what is wrong with it
        now = self._clock()
        if now < job.not_before_s < now + NOT_BEFORE_MAX_S:  # beyond that the clock was wrong when it was deferred
            deferred = self._read_deferred(name, job.not_before_s)
            if deferred and len(self._deferred) < DEFERRED_JOBS_MAX:
                self._deferred[name] = deferred
            return False
        if (self._stage, name) in self._died or job.crashes.get(self._stage):
            suspects.add(name)
        return True

    def _read_deferred(self, name: str, due_s: float) -> _Deferred | None:
        try:
            found = os.lstat(self._spool.place(self._stage) / name / files.JOB)
        except OSError:
            return None
        return _Deferred(found.st_ino, found.st_mtime_ns, due_s)
