"""The error tree: each class is named by what will be done about it.

Owns the five kinds of trouble and the words in which they reach a person. Promises that a cause is a short
slug fit for a metric label, a message one sentence, a hint something a person can do. Never decides anything: the
engine does that, in one place, by class.
"""

from typing import Final


class TopicdError(Exception):
    """Trouble with words for a person.

    Args:
        cause: short slug, stable, low in number: a metric label and a key in `reason.json`.
        message: one sentence that says what happened.
        hint: what a person can do about it; empty when there is nothing to do.
        unit: where it happened (`script`, `audio/003`, `images/title`); empty for the stage itself.
    """

    def __init__(self, cause: str, message: str, *, hint: str = "", unit: str = "") -> None:
        super().__init__(message)
        self.cause: Final = cause
        self.message: Final = message
        self.hint: Final = hint
        self.unit = unit


class RetryLater(TopicdError):
    """This attempt failed; another may do better. The attempt is spent and the job waits, longer each time.

    Args:
        after_s: seconds that a server asked for (`Retry-After`); the wait is at least that.
    """

    def __init__(
        self, cause: str, message: str, *, hint: str = "", unit: str = "", after_s: float | None = None
    ) -> None:
        super().__init__(cause, message, hint=hint, unit=unit)
        self.after_s: Final = after_s


class Unavailable(TopicdError):
    """What does the work is away. No attempt is spent; the stage waits and everything resumes by itself.

    Args:
        after_s: seconds to wait before asking again, when known.
    """

    def __init__(
        self, cause: str, message: str, *, hint: str = "", unit: str = "", after_s: float | None = None
    ) -> None:
        super().__init__(cause, message, hint=hint, unit=unit)
        self.after_s: Final = after_s


class Rejected(TopicdError):
    """This job cannot succeed as it is. It goes to `failed/` at once, for a person."""


class Unusable(TopicdError):
    """Our own set-up is wrong: a missing package, model or voice, a refused password. No job is blamed.

    At the start it ends the daemon with exit code 78; later the stage waits until a person has mended it.
    """


class StorageTrouble(TopicdError):
    """The disk is full, read-only or failing. A pause, never a failure of a job."""


CAUSES: Final = ("bug", "crash_loop", "timeout")
