"""When to try again, when to stop trying, and the words for it.

Owns the numbers and the refusals that come from the engine itself. Pure: decisions in, waits and errors out.
"""

import random
from dataclasses import dataclass
from typing import Final

from topicd.errors import Rejected, RetryLater, Unavailable

JITTER: Final = 0.1
AWAIT_S_MIN: Final = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """When to try again, and when to stop trying. Times in seconds."""

    attempts_max: int
    crashes_max: int
    retry_first_s: float
    retry_max_s: float
    down_first_s: float
    down_max_s: float

    def retry_in_s(self, attempts: int, asked_s: float | None) -> float:
        """Return the wait after the given number of attempts: doubling, jittered, no less than a server asked for."""
        wait_s: float = min(self.retry_first_s * 2.0 ** min(attempts - 1, 30), self.retry_max_s)
        return max(wait_s * random.uniform(1, 1 + JITTER), asked_s or 0.0)  # noqa: S311 - spreads load, guards nothing

    def await_in_s(self, after_s: float) -> float:
        """Return the wait for something that is on its way, which is not asked after all the time."""
        return max(AWAIT_S_MIN, min(after_s, self.retry_max_s))


def crash_loop(crashes: int) -> Rejected:
    """Return the refusal of a job that takes the daemon down with it."""
    return Rejected(
        "crash_loop",
        f"the daemon died {crashes} times while this job was in work",
        hint="look at the log before each death; mend the cause, then `topicd retry`",
    )


def server_died(error: Unavailable) -> RetryLater:
    """Return what is said of a job at which the backend dies, though it answers before."""
    return RetryLater(
        "server_died",
        f"the backend answered, and died at this job again: {error.message}",
        hint="look at the log of its server; it may lack memory for what this job asks. `topicd retry` tries again",
        unit=error.unit,
    )


def silent(seconds: float) -> Unavailable:
    """Return what is said of a backend that does not say what it is."""
    return Unavailable(
        "probe_timeout",
        f"no answer within {seconds:g} s to the question what it is",
        hint="look at the log of its server",
    )


def move_refused(error: Exception) -> Rejected:
    """Return the refusal of a job that the file system does not let us move or write."""
    return Rejected(
        "move_refused",
        f"the job cannot be moved or written: {error}",
        hint="look at what is in the way in output/ or the spool, and at the rights of the daemon's user",
    )


def bug(error: Exception) -> Rejected:
    """Return the refusal of a job that met an error nobody foresaw."""
    return Rejected(
        "bug",
        f"an error nobody foresaw: {type(error).__name__}: {error}",
        hint="the log has the traceback; please report it. `topicd retry` tries again",
    )
