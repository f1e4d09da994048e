"""Group commit: many jobs share the fsyncs, and each is acknowledged only when its own have been done.

Owns the one thread in which the daemon moves its jobs (only a copy across file systems is made elsewhere, for it takes
its time), and the threads that fsync for it. Work is taken as far as its next `yield`; what it asks for there is
fsynced with all that others ask for meanwhile, in parallel, each file and each directory once, while the thread goes on
with other work. So rounds grow with the load by themselves, and a lone move waits for nobody. Promises that work ends
whole, whatever becomes of who asked for it, and that a failed fsync is told to everyone who asked for that path. Never
decides what is fsynced, or when.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from topicd.durable import Durable, Steps
from topicd.threads import no_threads

FSYNCS_MAX: Final = 32
"""How many fsyncs are under way at once. A journalling file system commits those that wait together as one."""

R = TypeVar("R")


class _Uncut(asyncio.Future[R]):
    """A future that its waiter cannot cancel: the waiter is cancelled once it is done (Task.cancel says how)."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - as the class it extends
        return False


class _Piece:
    """Work under way, and who waits for it."""

    __slots__ = ("error", "future", "result", "steps", "wanted")

    def __init__(self, steps: Steps[Any], future: "asyncio.Future[Any]") -> None:
        self.steps = steps
        self.future = future
        self.wanted: tuple[Path, ...] = ()
        self.error: BaseException | None = None
        self.result: Any = None

    def go_on(self) -> bool:
        """Work up to the next yield; False when that was the end."""
        error, self.error = self.error, None
        try:
            self.wanted = next(self.steps) if error is None else self.steps.throw(error)
        except StopIteration as end:
            self.result = end.value
            return False
        except BaseException as failure:  # noqa: BLE001 - it is raised where the work is waited for
            self.error = failure
            return False
        return True

    def tell(self) -> None:
        """Let the one who waits go on. On the event loop."""
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class GroupCommit:
    """Takes work through its steps together with whatever else is under way.

    Args:
        durable: how it reaches the disk.
        told: told of each group that shares its fsyncs, how much work was in it; from a thread.
    """

    def __init__(self, durable: Durable, told: Callable[[int], None] = lambda _: None) -> None:
        self._durable = durable
        self._told = told
        self._lock = threading.Lock()
        self._ready = deque[_Piece]()
        self._waiting = deque[_Piece]()
        self._is_working = False
        self._is_syncing = False
        self._has_threads = False
        self._worker = ThreadPoolExecutor(1, "spool")
        self._syncer = ThreadPoolExecutor(1, "sync")
        self._syncers = ThreadPoolExecutor(FSYNCS_MAX, "fsync")

    async def carry_out(self, steps: Steps[R]) -> R:
        """Take work through its steps, and return its result whatever happens to the caller.

        A caller that is cancelled meanwhile gets the result too, and its cancellation at its next `await`: what it does
        between the two is not cut off from what is on the disk. So not under `asyncio.timeout`: its cancellation would
        outlive it.
        """
        future: asyncio.Future[R] = _Uncut(loop=asyncio.get_running_loop())
        with self._lock:
            self._have_threads()
            self._ready.append(_Piece(steps, future))
            self._start_working()
        try:
            return await future
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not future.done() or task is None:
                raise  # the work itself ended so, or the loop is at its end
            task.uncancel()
            task.cancel()
            return future.result()

    def _have_threads(self) -> None:
        """Start the two threads that must be there before any work is taken on.

        Raises:
            StorageTrouble: this process may have no more threads.
        """
        if not self._has_threads:
            try:
                self._worker.submit(int)
                self._syncer.submit(int)
            except RuntimeError as error:
                raise no_threads() from error
            self._has_threads = True

    def _work(self) -> None:
        """Take work on until nothing is left to do."""
        while pieces := self._take_ready():
            going = _go_on(pieces)
            while going and self._is_alone():  # no other thread need be woken
                self._sync(going)
                going = _go_on(going)
            with self._lock:
                self._waiting += going
                self._start_syncing()

    def _sync_rounds(self) -> None:
        """Fsync round by round what the work waits for."""
        while pieces := self._take_waiting():
            self._sync(pieces)
            with self._lock:
                self._ready += pieces
                self._start_working()

    def _take_ready(self) -> list[_Piece]:
        with self._lock:
            pieces = list(self._ready)
            self._ready.clear()
            self._is_working = bool(pieces)
        return pieces

    def _take_waiting(self) -> list[_Piece]:
        with self._lock:
            pieces = list(self._waiting)
            self._waiting.clear()
            self._is_syncing = bool(pieces)
        return pieces

    def _is_alone(self) -> bool:
        with self._lock:
            return not (self._ready or self._is_syncing)

    def _start_working(self) -> None:
        if not self._is_working and self._ready:
            self._is_working = True
            self._worker.submit(self._work)

    def _start_syncing(self) -> None:
        if not self._is_syncing and self._waiting:
            self._is_syncing = True
            self._syncer.submit(self._sync_rounds)

    def _sync(self, pieces: Sequence[_Piece]) -> None:
        """Fsync all that the pieces want, each path once, and note what failed."""
        self._told(len(pieces))
        paths = list(dict.fromkeys(path for piece in pieces for path in piece.wanted))
        failed = dict[Path, BaseException]()
        if len(paths) == 1:
            failed = self._sync_each(paths)
        else:
            shares = [paths[number::FSYNCS_MAX] for number in range(min(FSYNCS_MAX, len(paths)))]
            try:
                for share in self._syncers.map(self._sync_each, shares):
                    failed |= share
            except RuntimeError:  # no more threads; some shares may have been done: nobody is told that his was
                failed = dict.fromkeys(paths, no_threads())
        if failed:
            for piece in pieces:
                piece.error = next((failed[path] for path in piece.wanted if path in failed), None)

    def _sync_each(self, paths: Iterable[Path]) -> dict[Path, BaseException]:
        failed = dict[Path, BaseException]()
        for path in paths:
            try:
                self._durable.sync(path)
            except BaseException as error:  # noqa: BLE001 - told to everyone who asked for this path
                failed[path] = error
        return failed


def _go_on(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Take each piece to its next yield, tell of those that ended, and return the others."""
    ended: list[_Piece] = []
    going: list[_Piece] = []
    for piece in pieces:
        (going if piece.go_on() else ended).append(piece)
    _tell(ended)
    return going


def _tell(ended: Sequence[_Piece]) -> None:
    """Tell all that ended, in one call on each loop."""
    for loop in {piece.future.get_loop() for piece in ended}:
        told = [piece for piece in ended if piece.future.get_loop() is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_tell_each, told)


def _tell_each(pieces: Iterable[_Piece]) -> None:
    for piece in pieces:
        piece.tell()
