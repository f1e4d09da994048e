"""The circuit breaker of one server: whether it is asked at all, as far as the last calls told.

Owns the table below and the clock in it. Promises that an open circuit lets no call through until its time is up, that
then one call tries while all others are refused, and that the wait doubles while the server stays away. Small and our
own, because the libraries for it count failures of a function; what counts here is what `classify` made of an answer, a
server may name its time (`Retry-After`), and `status` must say since when. A call that our own rate kept from beginning
tells nothing of the server and leaves all as it was. Never asks the server.

| state | what happens | next |
|---|---|---|
| closed | an answer, of any kind | closed |
| closed | Unavailable | open |
| open | a call before its time | open; the call is refused |
| open | a call when its time is up | half-open; this call tries |
| half-open | another call | half-open; that call is refused |
| half-open | an answer, of any kind | closed |
| half-open | Unavailable | open, for twice as long |
| half-open | the call that tries is cancelled | open; the next call tries |
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from topicd.errors import TopicdError, Unavailable

FIRST_S: Final = 5.0
MAX_S: Final = 60.0
NOT_THE_SERVERS: Final = "own_rate_limit"
TRYING_AFTER_S: Final = 1.0
"""When to ask again where another call is trying just now."""


class State(StrEnum):
    """Of a circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Circuit:
    """One server's.

    Args:
        first_s: how long it is left alone at first.
        max_s: how long at most.
        clock: monotonic seconds.
        changed: called with the trouble when the circuit opens, with None when it closes again.
        opens_for: what opens it; anything else is an answer.

    Attributes:
        trouble: why it is not closed; None while it is.
        since_s: since when it is not, seconds since the epoch; None while it is.
    """

    def __init__(
        self,
        *,
        first_s: float = FIRST_S,
        max_s: float = MAX_S,
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[TopicdError | None], None] = lambda _: None,
        opens_for: tuple[type[TopicdError], ...] = (Unavailable,),
    ) -> None:
        self.trouble: TopicdError | None = None
        self.since_s: float | None = None
        self._first_s = first_s
        self._max_s = max_s
        self._clock = clock
        self._changed = changed
        self._opens_for = opens_for
        self._wait_s = first_s
        self._open_until = 0.0
        self._is_trying = False

    @property
    def state(self) -> State:
        """Return where it stands."""
        if self.trouble is None:
            return State.CLOSED
        return State.HALF_OPEN if self._is_trying else State.OPEN

    @property
    def wait_s(self) -> float:
        """Seconds until a call may go through; 0 when one may now."""
        if self.trouble is None:
            return 0.0
        left_s = max(0.0, self._open_until - self._clock())
        return max(left_s, TRYING_AFTER_S) if self._is_trying else left_s

    def check(self, server: str) -> None:
        """Do nothing if a call may go through.

        Raises:
            Unavailable: the server is left alone for now.
        """
        if self.trouble and self.wait_s > 0:
            raise Unavailable(
                self.trouble.cause,
                f"{server} is left alone for now: {self.trouble.message}",
                hint=self.trouble.hint,
                after_s=self.wait_s,
            )

    @contextmanager
    def call(self, server: str) -> Iterator[None]:
        """Let one call through, and learn from how it ends.

        Raises:
            Unavailable: the server is left alone for now.
        """
        self.check(server)
        is_trial = self._is_trying = self.trouble is not None
        try:
            yield
        except TopicdError as error:
            if error.cause == NOT_THE_SERVERS:
                raise
            if isinstance(error, self._opens_for):
                self._away(error, is_trial=is_trial)
            else:
                self._answered()
            raise
        except GeneratorExit:  # whoever reads a stream has heard enough
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if is_trial:
                self._is_trying = False

    def _away(self, error: TopicdError, *, is_trial: bool) -> None:
        if self.trouble and not is_trial:
            return  # what was under way when it went away counts once
        asked_s = getattr(error, "after_s", None) or 0.0
        self._open_until = self._clock() + min(max(self._wait_s, asked_s), self._max_s)
        self._wait_s = min(self._wait_s * 2, self._max_s)
        was_closed, self.trouble = self.trouble is None, error
        if was_closed:
            self.since_s = time.time()
            self._changed(error)

    def _answered(self) -> None:
        if self.trouble is not None:
            self.trouble, self.since_s, self._wait_s = None, None, self._first_s
            self._changed(None)
