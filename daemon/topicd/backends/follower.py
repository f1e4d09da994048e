"""A thread behind a download: it hashes what has been written, and has it survive a power cut.

Owns the digest of a part and when its checkpoints happen. Promises that the digest is of the bytes in the file, read
back, those of an earlier run included; and that who writes never waits for the disk's cache to be flushed. What goes
wrong in the thread is raised where its work is asked for. Never writes to the part.
"""

import hashlib
import os
import threading
import time
from types import TracebackType
from typing import Final, Self

from topicd.backends.part import Part
from topicd.errors import RetryLater

_BLOCK_BYTES: Final = 1_048_576
_NO_SECURITY: Final = frozenset({"md5"})  # Piper's catalogue has nothing better


class Follower:
    """Follows one part from its first byte, until it is left.

    Args:
        part: what is written by the thread that makes this; nobody else touches it meanwhile.
        algorithm: `sha256`, or another name of hashlib's.
        checkpoint_bytes: of new data, after which there is a checkpoint.
        checkpoint_s: after the last one, when there is one if anything is new.
    """

    def __init__(
        self,
        part: Part,
        algorithm: str,
        *,
        checkpoint_bytes: int,
        checkpoint_s: float,
    ) -> None:
        self._part = part
        self._algorithm = algorithm
        self._checkpoint_bytes = checkpoint_bytes
        self._checkpoint_s = checkpoint_s
        self._news = threading.Condition()
        self._written = part.size
        self._hashed = 0
        self._kept_at = time.monotonic()
        self._ends = False
        self._wants_checkpoint = False
        self._error: Exception | None = None
        self._hash = new_hash(self._algorithm)
        self._thread = threading.Thread(target=self._run, name="download-follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._news:
            self._ends = True
            self._news.notify_all()
        self._thread.join()

    def grown(self) -> None:
        """Tell that the part has grown.

        Raises:
            StorageTrouble: the disk refused a checkpoint.
        """
        with self._news:
            self._raise()
            self._written = self._part.size
            if self._is_wanted():  # a thread that is woken for nothing costs more than the bytes do
                self._news.notify_all()

    def checkpoint(self) -> None:
        """Return when all that is written is hashed, and survives a power cut.

        Raises:
            StorageTrouble: the disk refuses.
        """
        with self._news:
            self._written = self._part.size
            self._wants_checkpoint = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._wants_checkpoint)
            self._raise()

    def begin(self) -> None:
        """Forget what was hashed; the part is empty. To be called when a checkpoint has returned or raised."""
        with self._news:
            self._hash, self._hashed, self._written = new_hash(self._algorithm), 0, self._part.size

    def digest(self) -> str:
        """Return the digest, as `sha256:…`, of what the last checkpoint covered."""
        with self._news:
            return f"{self._algorithm}:{self._hash.hexdigest()}"

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def _run(self) -> None:
        block = memoryview(bytearray(_BLOCK_BYTES))
        fd = os.open(self._part.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            while self._turn(fd, block):
                pass
        finally:
            os.close(fd)

    def _turn(self, fd: int, block: memoryview) -> bool:
        """Wait for something to do, and do it; tell whether there may be more."""
        with self._news:
            self._news.wait_for(self._is_wanted)
            if self._ends:
                return False
            written, wanted = self._written, self._wants_checkpoint
        try:
            self._hash_until(written, fd, block)
            if wanted or self._is_due():
                self._part.checkpoint()
                self._kept_at = time.monotonic()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that writes
            self._error = error
        if wanted:
            with self._news:
                self._wants_checkpoint = False
                self._news.notify_all()
        return True

    def _is_wanted(self) -> bool:
        return self._ends or self._wants_checkpoint or self._written - self._hashed >= _BLOCK_BYTES

    def _hash_until(self, end: int, fd: int, block: memoryview) -> None:
        while self._hashed < end and not self._ends:
            count = os.preadv(fd, [block[: min(len(block), end - self._hashed)]], self._hashed)
            if not count:
                name = self._part.path.name
                raise RetryLater("part_changed", f"{name} has become shorter than what was written to it.")
            self._hash.update(block[:count])
            self._hashed += count

    def _is_due(self) -> bool:
        new = self._part.size - self._part.record.synced
        return new >= self._checkpoint_bytes or (new > 0 and time.monotonic() - self._kept_at >= self._checkpoint_s)


def new_hash(algorithm: str) -> "hashlib._Hash":
    """Return a hash that has seen nothing; `algorithm` is `sha256`, or another name of hashlib's."""
    return hashlib.new(algorithm, usedforsecurity=algorithm not in _NO_SECURITY)
