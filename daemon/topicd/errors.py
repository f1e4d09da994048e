"""The error tree: each class is named by what will be done about it.

Owns the six kinds of trouble and the words in which they reach a person. Promises that a cause is a short
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

    @property
    def words(self) -> str:
        """The message, and the hint in brackets where there is one."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


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


class Awaited(TopicdError):
    """Something that this job needs is on its way. No attempt is spent; the job waits, and others go on.

    Args:
        after_s: seconds until it is worth looking again.
    """

    def __init__(self, cause: str, message: str, *, hint: str = "", unit: str = "", after_s: float = 5.0) -> None:
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

    A wrong setting, home or port ends the daemon at its start with exit code 78; in the work the stage waits until
    a person has mended it.
    """


class StorageTrouble(TopicdError):
    """The disk is full, read-only or failing. A pause, never a failure of a job."""


CAUSES: Final = frozenset(
    [
        "answer_cut",
        "answer_short",
        "answer_too_large",
        "audio_cut",
        "audio_empty",
        "audio_formats_differ",
        "audio_of_another_script",
        "audio_too_large",
        "audio_unfit",
        "backend_misbehaved",
        "bad_answer",
        "bad_request",
        "bug",
        "crash_loop",
        "digest_mismatch",
        "file_changed",
        "front_matter_broken",
        "front_matter_unknown",
        "front_matter_value",
        "gateway_timeout",
        "image_too_large",
        "image_unfit",
        "job_damaged",
        "language_unsupported",
        "move_refused",
        "no_image",
        "not_image",
        "not_wav",
        "nothing_to_speak",
        "page_part_damaged",
        "page_part_missing",
        "page_too_large",
        "part_changed",
        "picture_refused",
        "picture_size",
        "product_missing",
        "prompt_empty",
        "rate_limited",
        "read_timeout",
        "request_failed",
        "request_timeout",
        "request_too_large",
        "script_cut",
        "script_empty",
        "script_invalid",
        "script_refused",
        "script_unfit",
        "server_died",
        "server_error",
        "stream_error",
        "text_empty",
        "text_too_long",
        "timeout",
        "too_early",
        "topic_empty",
        "topic_not_text",
        "topic_not_utf8",
        "topic_too_large",
        "topic_too_long",
        "topic_unreadable",
        "total_timeout",
        "voice_language",
        "voice_missing",
        "voice_unknown",
        "voice_unreadable",
        "voices_full",
        "worker_crashed",
        "worker_error",
        "worker_reply",
        "worker_timeout",
    ]
)
"""What a job can fail of, as labels of a metric; a test holds them to the code. Any other is counted as `other`."""
