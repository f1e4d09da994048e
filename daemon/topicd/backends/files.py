"""What a download is given, how long it is tried, and what it tells of itself.

Owns the values, and the count of attempts in vain. Promises that no server is asked for ever: bytes that come count
only beyond what was ever there. Pure: no I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from topicd.backends.part import PART, RECORD
from topicd.backends.transfer import plain
from topicd.errors import TopicdError, Unusable

PROGRESS_BYTES_MIN: Final = 65_536
_DIGESTS: Final = {"sha256": 64, "md5": 32}


@dataclass(frozen=True, slots=True)
class File:
    """A file that is wanted.

    Attributes:
        target: where it goes; its directory is there.
        urls: where it is to be had, the best first.
        digest: what it must have, as `sha256:…` or `md5:…`; empty when nobody knows.
        size: its bytes; None when nobody knows.
        secret: headers for the origins of `urls` alone, such as a token's.
    """

    target: Path
    urls: Sequence[str]
    digest: str = ""
    size: int | None = None
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Raise for what cannot be asked for.

        Raises:
            Unusable: an address or the digest is none, or the target has the name of another one's part.
        """
        algorithm, _, value = self.digest.partition(":")
        is_hex = len(value) == _DIGESTS.get(algorithm, -1) and set(value) <= set("0123456789abcdef")
        if self.digest and not is_hex:
            raise Unusable("bad_digest", "a digest is none.", hint="write it as sha256:, and 64 digits of 0-9a-f")
        if self.target.name.endswith((PART, RECORD)):
            message = f"{self.target.name} is a name for a file on its way."
            raise Unusable("bad_name", message, hint=f"give it one that does not end in {PART} or {RECORD}")
        for url in self.urls:
            plain(url)

    @property
    def algorithm(self) -> str:
        """Return the name of the digest's algorithm, sha256 where none is given."""
        return self.digest.partition(":")[0] or "sha256"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a download may take.

    Attributes:
        connect_s: for one connection.
        stall_s: silence that ends an attempt.
        total_s: for the whole download, waits and pauses included.
        bytes_max: of one file.
        tries_max: attempts in a row, over all mirrors, that bring it no further.
        anew_max: beginnings from nothing after the first.
        wait_s: before the first try after a failure; it doubles up to `wait_s_max`.
        wait_s_max: the longest such wait.
        free_bytes_min: what stays free on the disk.
        pause_s: between two looks whether a full disk has space again.
        checkpoint_bytes: of new data, after which what is there is made to survive a power cut.
        checkpoint_s: after which it is anyway, if anything is new.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    total_s: float = 86_400.0
    bytes_max: int = 68_719_476_736
    tries_max: int = 8
    anew_max: int = 5
    wait_s: float = 1.0
    wait_s_max: float = 60.0
    free_bytes_min: int = 268_435_456
    pause_s: float = 5.0
    checkpoint_bytes: int = 67_108_864
    checkpoint_s: float = 10.0


@dataclass(slots=True)
class Progress:
    """What a download tells of itself; written in its thread, read from any.

    Attributes:
        have: bytes that are there.
        total: bytes of the whole; None when not known.
        resumed: times that it went on with bytes that were there.
        received: bytes that came over the network.
        note: what it waits for, for a person; empty while it receives.
        digest: of the whole file, once it is there.
    """

    have: int = 0
    total: int | None = None
    resumed: int = 0
    received: int = 0
    note: str = ""
    digest: str = ""


class Patience:
    """How often it is tried still; received bytes count as progress only beyond what was ever there."""

    def __init__(self, limits: Limits, have: int) -> None:
        self._limits = limits
        self._vain = 0
        self._anew = 0
        self._best = have

    def failed(self, have: int, error: TopicdError, mirrors: int) -> float:
        """Return the seconds to wait after a failure; raise it when it was the last."""
        if have >= self._best + PROGRESS_BYTES_MIN:
            self._best, self._vain = have, 0
            return 0.0
        self._vain += 1
        if self._vain >= self._limits.tries_max:
            raise error
        asked_s = getattr(error, "after_s", None) or 0.0
        rounds = (self._vain - 1) // mirrors
        own_s = 0.0 if self._vain % mirrors else self._limits.wait_s * 2.0**rounds
        return min(max(asked_s, own_s), self._limits.wait_s_max)

    def words(self, error: TopicdError, wait_s: float) -> str:
        """Return what is waited for after a failure, and which try comes then."""
        if not wait_s:
            return error.message
        tries = f"{self._vain + 1} of {self._limits.tries_max}"
        return f"{error.message.rstrip('.')}; trying again in {round(wait_s, 1):g} s ({tries})"

    def anew(self, error: TopicdError) -> None:
        """Take note that what was there is thrown away; raise when that was the last time."""
        self._anew += 1
        if self._anew > self._limits.anew_max:
            raise error
