"""How often, and how many at once, one server may be asked.

Owns the places and the rate, shared by all jobs. Promises first come, first served; that a cancelled caller leaves
nothing taken; that in no stretch of a rate's period more calls begin than it allows; and that nobody waits for the rate
longer than `WAIT_S_MAX`: what would take longer is told as `Unavailable` with the wait, so that the stage waits and no
attempt is spent. The rate is ours, not a library's, because it must tell the wait before it is waited. Never knows what
is asked.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Self

from topicd.errors import Unavailable

WAIT_S_MAX: Final = 20.0
CALLS_MAX: Final = 10_000
_PERIODS_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_RATE: Final = re.compile(r"(?P<calls>[1-9]\d{0,4})\s*/\s*(?P<period>s|min|h|d)")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in a period.

    Attributes:
        calls: 1 … `CALLS_MAX`; as many may come at once.
        period_s: seconds.
    """

    calls: int
    period_s: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `10/min`; the periods are s, min, h and d.

        Raises:
            ValueError: it is none.
        """
        found = _RATE.fullmatch(text.strip())
        if not found or int(found["calls"]) > CALLS_MAX:
            raise ValueError("write a rate as 10/min, with s, min, h or d")
        return cls(int(found["calls"]), _PERIODS_S[found["period"]])


class Limits:
    """One server's.

    Args:
        server: host and port, for the words.
        calls_max: calls at once.
        rate: calls in a period; None for any number.

    Attributes:
        calls: under way.
        waiting: for a place or for the rate.
        waited_s: how long calls have waited for the rate, together.
    """

    def __init__(self, server: str, *, calls_max: int, rate: Rate | None) -> None:
        self.calls = 0
        self.waiting = 0
        self.waited_s = 0.0
        self._server = server
        self._places = asyncio.Semaphore(calls_max)
        self._rate = rate
        self._turn = asyncio.Lock()  # it is fair: whoever comes first, begins first
        self._queued = 0  # for the rate
        self._begun_at = list[float]()  # of the calls within the last period, the earliest first

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and the rate's leave; the place is given up at the end.

        Raises:
            Unavailable: the rate lets nothing through for longer than `WAIT_S_MAX`.
        """
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        try:
            await self._keep_rate()
            self.calls += 1
            try:
                yield
            finally:
                self.calls -= 1
        finally:
            self._places.release()

    async def _keep_rate(self) -> None:
        if self._rate is None:
            return
        wait_s = self._wait_s(self._rate, ahead=self._queued)
        if wait_s > WAIT_S_MAX:
            raise Unavailable(
                "own_rate_limit",
                f"{self._server} has had the {self._rate.calls} calls it may have in {self._rate.period_s:g} s",
                hint="the rate is a setting; work goes on by itself",
                after_s=wait_s,
            )
        self._queued += 1
        self.waiting += 1
        began_s = _now_s()
        try:
            async with self._turn:
                # What counts is when a call begins, which a busy loop may put off: so it is noted only then.
                while (wait_s := self._wait_s(self._rate, ahead=0)) > 0:  # noqa: ASYNC110 - for a time, not for somebody
                    await asyncio.sleep(wait_s)
                self._begun_at.append(_now_s())
        finally:
            self.waited_s += _now_s() - began_s
            self.waiting -= 1
            self._queued -= 1

    def _wait_s(self, rate: Rate, *, ahead: int) -> float:
        """Return how long a call has to wait that has so many others before it."""
        now_s = _now_s()
        self._begun_at = [at_s for at_s in self._begun_at if at_s > now_s - rate.period_s]
        free = rate.calls - len(self._begun_at)
        if ahead < free:
            return 0.0
        begun_at = [*self._begun_at, *(now_s for _ in range(free))]
        periods, place = divmod(ahead - free, rate.calls)
        return begun_at[place] + (periods + 1) * rate.period_s - now_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()
