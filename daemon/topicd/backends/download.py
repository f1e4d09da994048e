"""Files from elsewhere that survive anything: fetched once, resumed by Range, verified, then in their place.

Owns the loop of attempts: mirrors, limits, waits, pauses, and when what is there is whole. Promises that a file under
its final name is whole and has the digest that was asked for; that one writer works on a target, in whatever process,
and that others wait and find it done; that an end by any means costs no more than what came since the last checkpoint;
and that no server keeps it going for ever. Never overwrites a finished file, never blocks the event loop.
"""

import asyncio
import contextlib
import hashlib
import ssl
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Final

from topicd.backends.files import File, Limits, Patience, Progress
from topicd.backends.follower import Follower, new_hash
from topicd.backends.part import Part, tidy
from topicd.backends.ranges import Anew, Append, Complete, Judgement, Useless, Wanted, judge
from topicd.backends.transfer import Answer, Transfer, plain
from topicd.durable import Durable, free_bytes
from topicd.errors import RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable
from topicd.threads import uncut

_LOOK_AGAIN_S: Final = 0.2


class Downloads:
    """Fetches files, a few at once.

    Args:
        tls: which certificates are trusted.
        limits: of each.
        at_once: downloads at the same time; others wait for their turn.
        durable: how files reach the disk.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext,
        limits: Limits | None = None,
        at_once: int = 2,
        durable: Durable | None = None,
    ) -> None:
        self._tls = tls
        self._limits = limits or Limits()
        self._durable = durable or Durable()
        self._turns = asyncio.Semaphore(at_once)
        self._threads = ThreadPoolExecutor(at_once, "download")

    async def fetch(self, file: File, progress: Progress | None = None) -> Path:
        """Return the path of the whole, verified file; fetch what is missing of it.

        Cancelled, it leaves a part that the next call goes on with.

        Raises:
            RetryLater: it has been tried in vain; another time may do better.
            Unavailable: no server with it is reached.
            Unusable: no address has it, or what they have is not what was asked for.
            StorageTrouble: the disk fails. (A full one is waited for.)
        """
        told = progress or Progress()
        told.note = "waits for its turn"
        async with self._turns:
            run = _Run(file, self._tls, self._limits, self._durable, told)
            future = asyncio.get_running_loop().run_in_executor(self._threads, run.run)
            try:
                async with asyncio.timeout(self._limits.total_s):
                    await asyncio.shield(future)
            except TimeoutError as error:
                run.stop()
                with contextlib.suppress(TopicdError):
                    await uncut(future)
                raise RetryLater(
                    "total_timeout", f"{file.target.name} took longer than a download may take."
                ) from error
            except asyncio.CancelledError:
                run.stop()
                with contextlib.suppress(TopicdError):
                    await uncut(future)
                raise
        return file.target

    def close(self) -> None:
        """Let go of the threads, when nothing is fetched any more."""
        self._threads.shutdown(wait=False)


class _Stopped(TopicdError):
    """Nobody waits for it any more."""


class _Run:
    """One download, in a thread from its beginning to its end."""

    def __init__(self, file: File, tls: ssl.SSLContext, limits: Limits, durable: Durable, progress: Progress) -> None:
        self._file = file
        self._limits = limits
        self._durable = durable
        self._told = progress
        self._transfer = Transfer(tls=tls, connect_s=limits.connect_s, stall_s=limits.stall_s)
        self._patience = Patience(limits, 0)
        self._mirrors = deque(file.urls)
        self._was_resumed = False
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have it end soon; what is there is kept."""
        self._stop.set()
        self._transfer.interrupt()

    def run(self) -> None:
        """Return when the file is in its place."""
        if self._is_there():
            tidy(self._file.target, self._durable)
        elif part := self._held():
            with contextlib.closing(part):
                self._work(part)

    def _work(self, part: Part) -> None:
        if self._is_there():
            part.discard()
            return
        self._patience = Patience(self._limits, part.size)
        known = self._limits
        with Follower(
            part, self._file.algorithm, checkpoint_bytes=known.checkpoint_bytes, checkpoint_s=known.checkpoint_s
        ) as follower:
            self._check_record(part, follower)
            self._fill(part, follower)

    def _is_there(self) -> bool:
        target = self._file.target
        if not target.exists():
            return False
        self._told.note = "verifies what is there"
        size = target.stat().st_size
        is_it = target.is_file() and self._file.size in (None, size)
        if is_it and self._file.digest:
            is_it = digest_of(target, self._file.algorithm) == self._file.digest
        if not is_it:
            hint = "move it away, or give the new one another name"
            raise Unusable("another_file", f"{target.name} is there already, and is another file.", hint=hint)
        self._told.have = self._told.total = size
        self._told.note = ""
        return True

    def _held(self) -> Part | None:
        """Wait for the part; None when meanwhile another writer has put the file in its place."""
        while (part := Part.hold(self._file.target, self._durable)) is None:
            if self._is_there():
                return None
            self._told.note = "another process fetches it"
            self._rest(_LOOK_AGAIN_S)
        return part

    def _check_record(self, part: Part, follower: Follower) -> None:
        """Forget a part that cannot be of the file that is wanted now."""
        known = part.record
        has_other_size = None not in (known.total, self._file.size) and known.total != self._file.size
        is_other = has_other_size or known.digest != self._file.digest
        is_ours = self._file.digest or known.url in {plain(url) for url in self._file.urls}
        if part.size and (is_other or not is_ours):
            self._begin(part, follower)
        self._was_resumed = part.size > 0

    def _fill(self, part: Part, follower: Follower) -> None:
        while True:
            self._told.have, self._told.total, self._told.note = part.size, self._total(part), ""
            try:
                if not self._is_whole(part):
                    self._attempt(part, follower)
                self._verify(part, follower)
                part.finish()
            except StorageTrouble as error:
                if error.cause != "disk_full":
                    raise
                self._wait_for_space(part, error)
            except _Stopped:
                raise
            except TopicdError as error:
                if self._stop.is_set():
                    raise _stopped() from error
                self._next(part, error)
            else:
                self._told.total, self._told.note = self._told.have, ""
                return

    def _next(self, part: Part, error: TopicdError) -> None:
        """Turn to the next mirror, after a wait if it is time for one; for good from one that cannot be used."""
        if isinstance(error, RetryLater | Unavailable):
            wait_s = self._patience.failed(part.size, error, len(self._mirrors))
            self._mirrors.rotate(-1)
            self._told.note = self._patience.words(error, wait_s)
            self._rest(wait_s)
            return
        self._mirrors.popleft()
        if not self._mirrors:
            raise Unusable(error.cause, error.message, hint=error.hint) from error

    def _attempt(self, part: Part, follower: Follower) -> None:
        """Ask once; return when all is there, as far as anybody knows its length."""
        wanted = self._wanted(part, self._mirrors[0])
        with self._transfer.open(self._mirrors[0], wanted.headers(), self._file.secret) as answer:
            try:
                self._take(part, follower, answer, judge(wanted, answer.status, answer.headers))
            finally:
                follower.checkpoint()
            self._check_end(part, answer)

    def _wanted(self, part: Part, url: str) -> Wanted:
        """Say what to ask for: without a strong validator of this address, only a digest allows to go on."""
        if not part.size:
            return Wanted()
        validator = part.record.validator if part.record.url == plain(url) else ""
        if validator or self._file.digest:
            return Wanted(part.size, validator, self._total(part))
        return Wanted()

    def _take(self, part: Part, follower: Follower, answer: Answer, judgement: Judgement) -> None:
        """Do with an answer as it was judged."""
        match judgement:
            case Complete():
                part.learn(total=part.size)
            case Useless(why):
                self._begin(part, follower)
                error = RetryLater("file_changed", f"{why}; it begins again.")
                self._patience.anew(error)
                raise error
            case Anew(length, validator):
                if part.size:
                    self._patience.anew(RetryLater("file_changed", "the server begins again and again."))
                self._check_size(length)
                self._begin(part, follower, validator=validator, total=length)
                self._receive(part, follower, answer, length)
            case Append(length, total):
                self._check_size(total)
                self._was_resumed = True
                self._told.resumed += 1
                if total is not None:
                    part.learn(total=total)
                self._receive(part, follower, answer, length)

    def _begin(self, part: Part, follower: Follower, *, validator: str = "", total: int | None = None) -> None:
        with contextlib.suppress(TopicdError):  # the follower may be at what is thrown away
            follower.checkpoint()
        part.begin(plain(self._mirrors[0]), validator=validator, total=total, digest=self._file.digest)
        follower.begin()
        self._was_resumed, self._told.have = False, 0

    def _check_size(self, total: int | None) -> None:
        if total is None:
            return
        if self._file.size not in (None, total):
            message = f"the server's file has {total:,} bytes, and {self._file.size:,} are wanted."
            raise Unusable("another_file", message, hint="look for another address of the file")
        if total > self._limits.bytes_max:
            raise _too_large(self._limits.bytes_max)

    def _check_room(self, part: Part) -> None:
        if (lacking := self._lacking(part)) > 0:
            message = f"{self._file.target.name} needs {lacking:,} bytes more than are free."
            raise StorageTrouble("disk_full", message, hint="free some space")

    def _receive(self, part: Part, follower: Follower, answer: Answer, length: int | None) -> None:
        self._check_room(part)
        end = self._limits.bytes_max if length is None else part.size + length
        for block in answer.blocks():
            if self._stop.is_set():
                raise _stopped()
            if part.size + len(block) > end:
                raise _too_large(self._limits.bytes_max)
            part.append(block)
            follower.grown()
            self._told.have = part.size
            self._told.received += len(block)
        if length is not None and part.size < end:
            raise RetryLater("answer_cut", "the server broke off in the middle of its answer.")

    def _check_end(self, part: Part, answer: Answer) -> None:
        """Raise when more is to come. Without a length, an answer's end is the file's only if it is framed."""
        total = self._total(part)
        if total is None and answer.status == HTTPStatus.OK:
            if answer.is_framed:
                part.learn(total=part.size)
            elif not self._file.digest:
                message = "the server does not say how long the file is, so nobody can tell whether it is whole."
                hint = "give its digest, or look for another address of the file"
                raise Unusable("length_unknown", message, hint=hint)
        elif part.size != total:
            raise RetryLater("answer_short", "the server sent less than was asked for.")

    def _is_whole(self, part: Part) -> bool:
        return part.size > 0 and part.size == self._total(part)

    def _total(self, part: Part) -> int | None:
        return part.record.total if part.record.total is not None else self._file.size

    def _verify(self, part: Part, follower: Follower) -> None:
        """Raise when what is there has another digest; then it is thrown away, unless it may just be short."""
        self._told.note = "verifies"
        follower.checkpoint()
        self._told.digest = follower.digest()
        if self._file.digest in ("", self._told.digest):
            return
        if self._total(part) is None:
            raise RetryLater("answer_cut", "the server broke off, or sent another file.")
        was_resumed = self._was_resumed
        self._begin(part, follower)
        if not was_resumed:
            message = f"the server's file is not the one that is wanted: its digest is {self._told.digest}."
            raise Unusable("digest_mismatch", message, hint="look for another address of the file")
        error = RetryLater("digest_mismatch", "what was put together is not what is wanted; it begins again.")
        self._patience.anew(error)
        raise error

    def _wait_for_space(self, part: Part, error: StorageTrouble) -> None:
        self._told.note = error.message
        self._rest(self._limits.pause_s)
        while self._lacking(part) > 0:
            self._rest(self._limits.pause_s)

    def _lacking(self, part: Part) -> int:
        """Return how many bytes more must be free; the total may not be known yet."""
        rest = (self._total(part) or part.size) - part.size
        return rest + self._limits.free_bytes_min - free_bytes(part.path.parent)

    def _rest(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _stopped()


def digest_of(path: Path, algorithm: str) -> str:
    """Return a file's digest, as `sha256:…`."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, lambda: new_hash(algorithm)).hexdigest()}"


def _stopped() -> TopicdError:
    return _Stopped("stopped", "it was stopped.")


def _too_large(limit: int) -> Unusable:
    hint = "raise the limit if it is meant to be that large"
    return Unusable("file_too_large", f"the file has more than {limit:,} bytes.", hint=hint)
