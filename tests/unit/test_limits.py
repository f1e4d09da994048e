"""Places and rates, on a loop whose clock jumps to what is due next: seconds cost nothing, and times are exact."""

import asyncio
import contextlib
import functools
import random
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from topicd.backends.limits import CALLS_MAX, WAIT_S_MAX, Limits, Rate
from topicd.errors import Unavailable

SERVER = "gpu:1"
MANY = 64
HOUR_S = 3600.0


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: where nothing is to be read, the time of the next timer has come."""

    now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits for ever"
            self.now_s += max(0.0, timeout)
        return found


class Loop(asyncio.SelectorEventLoop):
    """An event loop by such a clock."""

    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def stand_still(self, time_s: float) -> None:
        self._jumping.now_s += time_s


def stand_still(time_s: float) -> None:
    """Let time pass in which the running loop does nothing, as when a computer sleeps."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.stand_still(time_s)


def timed(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on such a loop."""

    @functools.wraps(test)
    def on_loop(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(test(*args, **kwargs))

    return on_loop


class Door:
    """Callers of one server: who is inside, and when each came in."""

    def __init__(self, *, calls_max: int = MANY, rate: Rate | None = None) -> None:
        self.limits = Limits(SERVER, calls_max=calls_max, rate=rate)
        self.inside: list[str] = []
        self.came: list[tuple[str, float]] = []
        self.most = 0
        self.tasks = dict[str, asyncio.Task[None]]()
        self._leave = dict[str, asyncio.Event]()
        self._began_s = asyncio.get_running_loop().time()

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time() - self._began_s

    @property
    def numbers(self) -> tuple[int, int]:
        return self.limits.calls, self.limits.waiting

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.came]

    def times(self) -> Sequence[float]:
        return [round(at_s, 6) for _, at_s in self.came]

    async def enters(self, *names: str) -> None:
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(name))
        await settled()

    async def leaves(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await settled()

    async def gives_up(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await settled()

    async def call(self, name: str = "x") -> None:
        """Make a call that takes no time."""
        async with self.limits.place():
            self._count(name)

    async def refused(self) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            await self.call()
        assert caught.value.cause == "own_rate_limit"
        return caught.value

    async def end(self) -> None:
        """Let all go, and see that nothing is left taken."""
        for event in self._leave.values():
            event.set()
        ended = await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert not [each for each in ended if each and not isinstance(each, asyncio.CancelledError)]
        assert self.numbers == (0, 0)

    async def _stay(self, name: str) -> None:
        async with self.limits.place():
            self._count(name)
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)

    def _count(self, name: str) -> None:
        self.came.append((name, self.now_s))


async def settled(ticks: int = 20) -> None:
    """Let every task go as far as it can without any time passing."""
    for _ in range(ticks):
        await asyncio.sleep(0)


class TestRate:
    @pytest.mark.parametrize(
        ("text", "calls", "period_s"),
        [
            ("10/min", 10, 60),
            ("1/s", 1, 1),
            (" 5 / h\n", 5, 3600),
            ("200/d", 200, 86_400),
            (f"{CALLS_MAX}/s", CALLS_MAX, 1),
        ],
    )
    def test_is_read(self, text: str, calls: int, period_s: float) -> None:
        assert Rate.parse(text) == Rate(calls, period_s)

    @pytest.mark.parametrize(
        "text",
        [
            *("", "10", "/min", "10/", "0/min", "-1/min", "1.5/min", "1e3/s", "010/min", "10/minute", "10/MIN", "10/w"),
            *("10001/s", "100000/s", "10/min/s", "10/min 5/s", "ten/min", "10\\min", "10 per min", "10/\0s"),
        ],
    )
    def test_anything_else_is_told(self, text: str) -> None:
        with pytest.raises(ValueError, match="10/min"):
            Rate.parse(text)


@timed
async def test_an_error_inside_gives_the_place_up() -> None:
    door = Door(calls_max=1)
    for _ in range(3):
        async with asyncio.timeout(1):
            with pytest.raises(ZeroDivisionError):
                async with door.limits.place():
                    raise ZeroDivisionError
    assert door.numbers == (0, 0)


class TestPlaces:
    @timed
    async def test_no_more_at_once_than_there_are(self) -> None:
        door = Door(calls_max=3)
        await door.enters(*"abcde")
        assert door.inside == ["a", "b", "c"]
        assert door.numbers == (3, 2)
        await door.end()
        assert (len(door.came), door.most) == (5, 3)

    @timed
    async def test_first_come_first_served(self) -> None:
        door = Door(calls_max=1)
        await door.enters(*"abcdef")
        for name in "abcdef":
            assert door.inside == [name]
            await door.leaves(name)
        await door.end()

    @timed
    async def test_nobody_overtakes_who_waits(self) -> None:
        door = Door(calls_max=1)
        await door.enters("a", "b")
        door._leave["a"].set()
        await door.enters("c")
        assert door.inside == ["b"]
        await door.end()
        assert door.names == ["a", "b", "c"]

    @timed
    async def test_one_that_is_cancelled_while_it_waits_is_passed_over(self) -> None:
        door = Door(calls_max=1)
        await door.enters(*"abcd")
        assert door.numbers == (1, 3)
        await door.gives_up("b", "c")
        assert door.numbers == (1, 1)
        await door.leaves("a")
        assert door.inside == ["d"]
        await door.end()

    @timed
    async def test_one_that_is_cancelled_inside_gives_its_place_up(self) -> None:
        door = Door(calls_max=1)
        await door.enters("a", "b")
        await door.gives_up("a")
        assert door.inside == ["b"]
        await door.end()

    @pytest.mark.parametrize("after", range(12))
    @pytest.mark.parametrize("many", [1, 2])
    @pytest.mark.parametrize("rate", [None, Rate(2, 0.001)], ids=["no rate", "rate"])
    @timed
    async def test_cancelled_at_any_instant_it_leaves_nothing_taken(
        self, after: int, many: int, rate: Rate | None
    ) -> None:
        door = Door(calls_max=2, rate=rate)
        await door.enters("a1", "a2")
        victims = [asyncio.create_task(door.call()) for _ in range(many)]
        other = asyncio.create_task(door.call("other"))
        await settled(2)
        door._leave["a1"].set()
        await settled(after)
        for victim in victims:
            victim.cancel()
        door._leave["a2"].set()
        await asyncio.gather(*victims, return_exceptions=True)
        await other
        await door.enters("b1", "b2")
        await asyncio.sleep(1)
        assert door.inside == ["b1", "b2"], "all places are there"
        await door.end()

    @pytest.mark.parametrize("seed", range(40))
    @timed
    async def test_whatever_the_order_no_more_come_in_and_no_place_is_lost(self, seed: int) -> None:
        rng = random.Random(seed)
        door = Door(calls_max=rng.randint(1, 4), rate=rng.choice([None, Rate(5, 0.5)]))

        async def caller() -> None:
            await asyncio.sleep(rng.random() / 10)
            with contextlib.suppress(ZeroDivisionError):
                async with door.limits.place():
                    door.inside.append("x")
                    door.most = max(door.most, len(door.inside))
                    try:
                        await asyncio.sleep(rng.choice([0, 0.01, 0.1]))
                        if rng.random() < 0.1:
                            raise ZeroDivisionError
                    finally:
                        door.inside.pop()

        tasks = [asyncio.create_task(caller()) for _ in range(30)]
        for victim in rng.sample(tasks, 10):
            await asyncio.sleep(rng.choice([0, 0.01]))
            victim.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert door.numbers == (0, 0)
        await asyncio.sleep(1)
        await door.enters(*(f"{number}" for number in range(5)))
        places = door.limits._places._value + len(door.inside)
        assert door.most <= len(door.inside) == places
        await door.end()


async def breaches(seed: int, *, cancelled: int = 0) -> list[tuple[float, float]]:
    """Let many come at random; return each stretch, shorter than a period, in which more came in than it allows."""
    rng = random.Random(seed)
    rate = Rate(rng.randint(1, 5), rng.choice([0.5, 1.0, 7.0]))
    door = Door(rate=rate)

    async def caller() -> None:
        await asyncio.sleep(rng.uniform(0, 20))
        with contextlib.suppress(Unavailable):
            await door.call()

    tasks = [asyncio.create_task(caller()) for _ in range(60)]
    for victim in rng.sample(tasks, cancelled):
        await asyncio.sleep(1)
        victim.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    times = sorted(door.times())
    assert len(times) > rate.calls
    stretches = zip(times, times[rate.calls :], strict=False)
    return [(first, last) for first, last in stretches if last - first < rate.period_s - 1e-3]


@timed
async def test_so_many_at_once_then_none_until_the_period_is_over() -> None:
    door = Door(rate=Rate(3, 3.0))
    await asyncio.gather(*(door.call(f"{number}") for number in range(8)))
    assert door.times() == [0, 0, 0, 3, 3, 3, 6, 6]
    assert sorted(door.names) == door.names[:3] + sorted(door.names[3:6]) + sorted(door.names[6:]), (
        "who came first is in the first"
    )


class TestPace:
    @timed
    async def test_who_comes_at_that_pace_never_waits(self) -> None:
        door = Door(rate=Rate(2, 1.0))
        for _ in range(10):
            await door.call()
            await asyncio.sleep(0.5)
        assert door.times() == [number / 2 for number in range(10)]

    @timed
    async def test_quiet_brings_all_of_them_back_and_no_more(self) -> None:
        door = Door(rate=Rate(3, 3.0))
        await asyncio.gather(*(door.call() for _ in range(3)))
        await asyncio.sleep(HOUR_S)
        began = len(door.came)
        await asyncio.gather(*(door.call() for _ in range(5)))
        assert [at_s - HOUR_S for at_s in door.times()[began:]] == [0, 0, 0, 3, 3]

    @timed
    async def test_each_makes_room_for_one_when_its_own_period_is_over(self) -> None:
        door = Door(rate=Rate(2, 4.0))
        await door.call()
        await asyncio.sleep(3)
        await asyncio.gather(*(door.call() for _ in range(5)))
        assert door.times() == [0, 3, 4, 7, 8, 11]

    @timed
    async def test_no_burst_stands_at_the_seam_of_two_periods(self) -> None:
        door = Door(rate=Rate(2, 4.0))
        await asyncio.sleep(3.9)
        await asyncio.gather(door.call(), door.call())
        await asyncio.sleep(0.2)
        await door.call()
        assert door.times() == [3.9, 3.9, 7.9]

    @pytest.mark.parametrize("seed", range(20))
    @timed
    async def test_whenever_they_come_it_is_kept(self, seed: int) -> None:
        assert await breaches(seed) == []

    @timed
    async def test_whoever_is_cancelled_it_is_kept(self) -> None:
        assert [await breaches(seed, cancelled=20) for seed in range(20)] == [[]] * 20

    @timed
    async def test_first_come_first_served(self) -> None:
        door = Door(rate=Rate(1, 4.0))
        await door.enters(*"abcdef")
        await asyncio.sleep(HOUR_S)
        assert (door.names, door.times()) == ([*"abcdef"], [0, 4, 8, 12, 16, 20])
        await door.end()

    @timed
    async def test_nobody_overtakes_who_waits(self) -> None:
        door = Door(rate=Rate(1, 4.0))
        await door.enters("a", "b")
        await asyncio.sleep(3.9)
        await door.enters("c")
        await asyncio.sleep(HOUR_S)
        assert (door.names, door.times()) == (["a", "b", "c"], [0, 4, 8])
        await door.end()

    @timed
    async def test_without_one_nobody_waits(self) -> None:
        door = Door()
        await asyncio.gather(*(door.call() for _ in range(10 * MANY)))
        assert set(door.times()) == {0}

    @timed
    async def test_one_that_is_cancelled_while_it_waits_for_its_time_leaves_it_to_the_next(self) -> None:
        door = Door(rate=Rate(1, 10.0))
        await door.enters("a", "b")
        await door.gives_up("b")
        await door.enters("c")
        await asyncio.sleep(HOUR_S)
        assert door.times() == [0, 10]
        await door.end()

    @timed
    async def test_one_that_is_cancelled_before_others_that_wait_lets_them_move_up(self) -> None:
        door = Door(rate=Rate(1, 5.0))
        await door.enters("a", "b", "c")
        await door.gives_up("b")
        await door.enters("d")
        await asyncio.sleep(HOUR_S)
        assert (door.names, door.times()) == (["a", "c", "d"], [0, 5, 10])
        await door.end()

    @timed
    async def test_a_loop_that_stood_still_wakes_them_late_and_it_is_kept(self) -> None:
        door = Door(rate=Rate(1, 4.0))
        await door.enters("a", "b", "c")
        await asyncio.sleep(1)
        stand_still(10.0)
        await asyncio.sleep(HOUR_S)
        assert (door.names, door.times()) == (["a", "b", "c"], [0, 11, 15])
        await door.end()


class TestTooLong:
    @timed
    async def test_a_wait_up_to_the_bound_is_waited(self) -> None:
        door = Door(rate=Rate(1, WAIT_S_MAX))
        await door.call()
        await door.call()
        assert door.times() == [0, WAIT_S_MAX]

    @timed
    async def test_a_longer_one_is_told_at_once_with_its_length(self) -> None:
        door = Door(rate=Rate(2, 60.0))
        await door.call()
        await door.call()
        error = await door.refused()
        assert door.now_s == 0
        assert error.after_s == pytest.approx(60)
        assert "gpu:1" in error.message
        assert "2 calls" in error.message
        assert "60 s" in error.message
        assert error.hint

    @timed
    async def test_it_is_told_and_takes_nothing(self) -> None:
        door = Door(calls_max=1, rate=Rate(1, 60.0))
        await door.call()
        for _ in range(10):
            assert (await door.refused()).after_s == pytest.approx(60 - door.now_s)
            assert door.numbers == (0, 0)
            await asyncio.sleep(1)
        await asyncio.sleep(30)
        await door.call()
        assert door.times() == [0, 60]

    @timed
    async def test_who_comes_back_when_he_was_told_to_is_let_in_at_once(self) -> None:
        door = Door(rate=Rate(1, 60.0))
        await door.call()
        await asyncio.sleep((await door.refused()).after_s or 0.0)
        await door.call()
        assert door.times() == [0, 60]

    @timed
    async def test_of_many_at_once_those_wait_whose_time_comes_soon(self) -> None:
        door = Door(rate=Rate(2, 20.0))
        ended = await asyncio.gather(*(door.call() for _ in range(6)), return_exceptions=True)
        assert door.times() == [0, 0, 20, 20]
        assert [each.after_s for each in ended if isinstance(each, Unavailable)] == [40, 40]


class TestNumbers:
    @timed
    async def test_who_waits_for_a_place_and_who_for_the_rate(self) -> None:
        door = Door(calls_max=3, rate=Rate(2, 10.0))
        assert door.numbers == (0, 0)
        await door.enters("a", "b")
        assert door.numbers == (2, 0)
        await door.enters("c", "d", "e")
        assert door.inside == ["a", "b"]
        assert door.numbers == (2, 3), "one waits for the rate, two for its place"
        await asyncio.sleep(10)
        await settled()
        assert door.inside == ["a", "b", "c"]
        assert door.numbers == (3, 2)
        await door.leaves("a", "b")
        assert door.inside == ["c", "d"]
        assert door.numbers == (2, 1), "for the rate"
        await door.gives_up("e")
        assert door.numbers == (2, 0)
        await door.end()

    @timed
    async def test_a_place_that_is_free_is_not_waited_for(self) -> None:
        door = Door(calls_max=1)
        seen = []
        async with door.limits.place():
            seen.append(door.numbers)
        assert seen == [(1, 0)]
        assert door.numbers == (0, 0)
