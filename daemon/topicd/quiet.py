"""Whether a file in `input/` may be taken: nobody writes to it, and it has been left alone long enough.

Owns the two signs that a file is whole, a lease and quiet time. Promises that neither changes the file or waits for
anybody. Never decides what is done with the file: intake does.
"""

import contextlib
import fcntl
import os
import signal
import time
from dataclasses import dataclass, field


def has_writer(fd: int) -> bool:
    """Tell whether any process has the file open for writing, as far as the kernel lets us know.

    A read lease is granted only on a file that nobody has open for writing (fcntl(2), "Leases"). It takes the
    file's owner or CAP_LEASE, and a file system that knows leases; where it is refused for that, the answer is
    no, and quiet time decides alone.
    """
    with contextlib.suppress(OSError):
        # An open for writing breaks the lease with a signal, by default SIGIO, which kills; SIGURG is ignored
        # by default.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@dataclass(slots=True)
class Quiet:
    """Which files have been left alone long enough. What it holds only shortens a wait; losing it loses nothing.

    Attributes:
        settle_s: seconds without a change after which a file is quiet.
    """

    settle_s: float
    _seen: dict[str, tuple[tuple[int, int, int], float]] = field(default_factory=dict)

    def wait_s(self, name: str, found: os.stat_result) -> float:
        """Return the seconds still to wait; 0 when the file is quiet."""
        print_ = (found.st_ino, found.st_size, found.st_ctime_ns)
        # The change time cannot be set by a program, unlike the modification time that `cp -p` brings along.
        age = time.time() - found.st_ctime_ns / 1e9
        if age >= self.settle_s:
            return 0.0
        before, since = self._seen.get(name, (None, 0.0))
        if before != print_:
            since = time.monotonic()
            self._seen[name] = (print_, since)
        waited = max(time.monotonic() - since, age)
        return max(0.0, self.settle_s - waited)

    def forget_others(self, names: set[str]) -> None:
        """Drop what is no longer in `input/`."""
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
