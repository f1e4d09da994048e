"""Whether a stage's backend is there, as far as the last calls told.

Owns the breaker of one lane: how long it stays open, longer each time, and the two events that say so. Promises that
jobs which found the backend away together count as one look. Never asks the backend: the lane does.
"""

import time
from typing import Final

from topicd.errors import TopicdError, Unavailable, Unusable
from topicd.policy import Policy
from topicd.states import Stage
from topicd.telemetry.events import Events

UNUSABLE_WAIT_FACTOR: Final = 4


class Breaker:
    """A backend that is away is asked less and less often, with one job at a time.

    Attributes:
        trouble: why the backend is taken to be away; None when it is not.
        since_s: since when, seconds since the epoch; None when it is not.
    """

    def __init__(self, stage: Stage, backend: str, *, events: Events, policy: Policy) -> None:
        self.trouble: TopicdError | None = None
        self.since_s: float | None = None
        self._stage = stage
        self._backend = backend
        self._events = events
        self._policy = policy
        self._open_until = 0.0
        self._wait_s = policy.down_first_s
        self._since = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the backend may be asked again."""
        return max(0.0, self._open_until - time.monotonic())

    def away(self, error: Unavailable | Unusable) -> None:
        """Ask nothing for a while, longer each time, and say so."""
        if self.wait_s > 0:
            return
        wait_s = self._wait_s
        if isinstance(error, Unusable):
            wait_s = min(wait_s * UNUSABLE_WAIT_FACTOR, self._policy.down_max_s)
        elif error.after_s is not None:
            wait_s = min(max(wait_s, error.after_s), self._policy.down_max_s)
        self._since = self._since or time.monotonic()
        self.since_s = self.since_s or time.time()
        self._wait_s = min(self._wait_s * 2, self._policy.down_max_s)
        self._open_until = time.monotonic() + wait_s
        self.trouble = error
        next_try = time.time() + wait_s
        self._events.emit(
            "backend.unavailable", stage=self._stage, backend=self._backend, error=error, next_try=next_try
        )

    def answered(self) -> None:
        """The backend is there."""
        if self.trouble is None:
            return
        seconds = round(time.monotonic() - self._since, 3)
        self.trouble, self.since_s = None, None
        self._since, self._wait_s = 0.0, self._policy.down_first_s
        self._events.emit("backend.available", stage=self._stage, backend=self._backend, seconds=seconds)
