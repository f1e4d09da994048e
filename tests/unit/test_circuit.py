"""The circuit breaker of one server: each row of its table, when it is asked again, and what is told."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from topicd.backends import circuit as module
from topicd.backends.circuit import NOT_THE_SERVERS, TRYING_AFTER_S, Circuit, State
from topicd.errors import Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable

SERVER = "gpu:1"
FIRST_S = 5.0
MAX_S = 60.0
AWAY = Unavailable("connect_refused", "it refuses connections", hint="check that it runs")
AWAY_TOO = Unavailable("connection_reset", "it closed the connection")
ANSWERS: dict[str, TopicdError | None] = {
    "well": None,
    "later": RetryLater("read_timeout", "it was silent"),
    "rejected": Rejected("bad_request", "it refuses this"),
    "unusable": Unusable("unauthorized", "it wants a password"),
    "storage": StorageTrouble("disk_full", "the disk is full"),
}


class Call:
    """One call, from when it is let through until it is said how it ends."""

    def __init__(self, circuit: Circuit) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(circuit.call(SERVER))

    def end(self, error: BaseException | None = None) -> None:
        if error is None:
            self._stack.close()
            return
        with pytest.raises(type(error)) as caught, self._stack:
            raise error
        assert caught.value is error


class Bench:
    """A circuit whose clock is set by hand, and what it told."""

    def __init__(self, **changed: float) -> None:
        self.now_s = 1000.0
        self.told: list[TopicdError | None] = []
        self._calls: list[Call] = []  # one that nobody held would end by itself
        self.circuit = Circuit(
            first_s=changed.get("first_s", FIRST_S),
            max_s=changed.get("max_s", MAX_S),
            clock=lambda: self.now_s,
            changed=self.told.append,
            opens_for=(Unavailable,),
        )

    def begin(self) -> Call:
        self._calls.append(Call(self.circuit))
        return self._calls[-1]

    def ask(self, error: BaseException | None = None) -> None:
        """Make one call that ends at once."""
        self.begin().end(error)

    def refused(self) -> Unavailable:
        """Make a call that must not get through."""
        with pytest.raises(Unavailable) as caught:
            self.begin()
        return caught.value

    def time_is_up(self) -> None:
        self.now_s += self.circuit.wait_s
        assert self.circuit.wait_s == 0

    def trial(self) -> Call:
        self.ask(AWAY)
        self.time_is_up()
        return self.begin()

    def waits(self, times: int) -> list[float]:
        """Fail so often in a row, each time as soon as a call is let through; return the waits."""
        found = []
        for _ in range(times):
            self.time_is_up()
            self.ask(AWAY)
            found.append(self.circuit.wait_s)
        return found


def at(state: State) -> tuple[Bench, Call | None]:
    """Return a circuit in a state, with the call that tries if there is one."""
    bench = Bench()
    if state == State.HALF_OPEN:
        return bench, bench.trial()
    if state == State.OPEN:
        bench.ask(AWAY)
    return bench, None


def ends(error: BaseException | None = None) -> Callable[[Bench, Call | None], None]:
    """Return what ends the call that tries, or one that is made for it."""

    def happens(bench: Bench, trial: Call | None) -> None:
        (trial or bench.begin()).end(error)

    return happens


def too_early(bench: Bench, _: Call | None) -> None:
    bench.now_s += FIRST_S - 0.001
    bench.refused()


def in_time(bench: Bench, _: Call | None) -> None:
    bench.now_s += FIRST_S
    bench.begin()


def another(bench: Bench, _: Call | None) -> None:
    bench.refused()


ANSWER, TIME_IS_UP, CANCELLED = (
    "an answer, of any kind",
    "a call when its time is up",
    "the call that tries is cancelled",
)
ROWS: dict[tuple[State, str], tuple[Callable[[Bench, Call | None], None], State]] = {
    (State.CLOSED, ANSWER): (ends(), State.CLOSED),
    (State.CLOSED, "Unavailable"): (ends(AWAY), State.OPEN),
    (State.OPEN, "a call before its time"): (too_early, State.OPEN),
    (State.OPEN, TIME_IS_UP): (in_time, State.HALF_OPEN),
    (State.HALF_OPEN, "another call"): (another, State.HALF_OPEN),
    (State.HALF_OPEN, ANSWER): (ends(), State.CLOSED),
    (State.HALF_OPEN, "Unavailable"): (ends(AWAY_TOO), State.OPEN),
    (State.HALF_OPEN, CANCELLED): (ends(asyncio.CancelledError()), State.OPEN),
}


@pytest.mark.parametrize(("state", "event"), ROWS)
def test_each_row_of_the_table(state: State, event: str) -> None:
    happens, after = ROWS[state, event]
    bench, trial = at(state)
    assert bench.circuit.state == state
    before = bench.told.copy()
    bench.told.clear()
    happens(bench, trial)
    assert bench.circuit.state == after
    assert before == ([] if state == State.CLOSED else [AWAY])
    opens, closes = state == State.CLOSED != after, after == State.CLOSED != state
    assert bench.told == ([AWAY] if opens else [None] if closes else [])
    assert (bench.circuit.trouble is None) is (bench.circuit.since_s is None) is (after == State.CLOSED)


def test_the_rows_are_those_of_the_contract() -> None:
    lines = [line for line in (module.__doc__ or "").splitlines() if line.startswith("| ")][1:]
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert {(state, event): after.partition(";")[0].partition(",")[0] for state, event, after in told} == {
        (str(state), event): str(after) for (state, event), (_, after) in ROWS.items()
    }


@pytest.mark.parametrize("error", ANSWERS.values(), ids=ANSWERS)
class TestAnswer:
    def test_it_opens_nothing(self, error: TopicdError | None) -> None:
        bench = Bench()
        bench.ask(error)
        assert (bench.circuit.state, bench.circuit.wait_s, bench.told) == (State.CLOSED, 0, [])

    def test_it_closes_what_is_half_open(self, error: TopicdError | None) -> None:
        bench = Bench()
        bench.trial().end(error)
        assert (bench.circuit.state, bench.circuit.wait_s, bench.told) == (State.CLOSED, 0, [AWAY, None])

    def test_it_makes_the_next_outage_a_first_one(self, error: TopicdError | None) -> None:
        bench = Bench()
        assert bench.waits(3) == [5, 10, 20]
        bench.time_is_up()
        bench.ask(error)
        assert bench.waits(2) == [5, 10]

    def test_of_a_call_that_was_under_way_it_closes_too(self, error: TopicdError | None) -> None:
        bench = Bench()
        early = bench.begin()
        bench.ask(AWAY)
        early.end(error)
        assert (bench.circuit.state, bench.told) == (State.CLOSED, [AWAY, None])


def test_what_opens_it_can_be_chosen() -> None:
    circuit = Circuit(first_s=0.0, opens_for=(Unavailable, Unusable))
    for error in (AWAY, ANSWERS["unusable"]):
        Call(circuit).end(error)
        assert circuit.trouble is error
        Call(circuit).end(ANSWERS["later"])
        assert circuit.trouble is None


OWN_RATE = Unavailable(NOT_THE_SERVERS, "it has had the calls that it may have", after_s=30.0)


class TestOwnRate:
    """A call that our own rate kept from beginning tells nothing of the server."""

    def test_it_opens_nothing(self) -> None:
        bench = Bench()
        bench.ask(OWN_RATE)
        assert (bench.circuit.state, bench.told) == (State.CLOSED, [])

    def test_it_closes_nothing_and_the_next_call_tries(self) -> None:
        bench = Bench()
        bench.trial().end(OWN_RATE)
        assert (bench.circuit.state, bench.circuit.wait_s, bench.told) == (State.OPEN, 0, [AWAY])
        assert bench.circuit.trouble is AWAY


class TestManyAtOnce:
    def test_they_count_once(self) -> None:
        bench = Bench()
        calls = [bench.begin() for _ in range(10)]
        for call in calls:
            call.end(AWAY)
            bench.now_s += 0.1
        assert bench.told == [AWAY]
        assert bench.circuit.wait_s == pytest.approx(FIRST_S - 1.0), "counted from the first"
        assert bench.waits(2) == [10, 20], "and doubled once"

    def test_they_close_it_once(self) -> None:
        bench = Bench()
        calls = [bench.begin() for _ in range(10)]
        bench.ask(AWAY)
        for call in calls:
            call.end()
        assert bench.told == [AWAY, None]

    def test_while_one_tries_the_time_that_is_up_lets_nobody_else_through(self) -> None:
        bench = Bench()
        trial = bench.trial()
        bench.now_s += 1000
        for _ in range(10):
            assert bench.refused().after_s == TRYING_AFTER_S
        trial.end()
        for call in [bench.begin() for _ in range(10)]:
            call.end()

    def test_one_that_was_under_way_and_fails_while_another_tries_counts_with_the_first(self) -> None:
        bench = Bench()
        early = bench.begin()
        trial = bench.trial()
        early.end(AWAY)
        trial.end(AWAY)
        assert bench.circuit.wait_s == 2 * FIRST_S


class TestWait:
    def test_it_doubles_up_to_its_bound(self) -> None:
        assert Bench().waits(6) == [5, 10, 20, 40, 60, 60]

    def test_it_is_bounded_from_the_beginning(self) -> None:
        assert Bench(first_s=90.0).waits(2) == [60, 60]

    @pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 5), (0.0, 5), (3.0, 5), (30.0, 30), (600.0, 60)])
    def test_the_server_may_name_it(self, asked_s: float | None, wait_s: float) -> None:
        bench = Bench()
        bench.ask(Unavailable("busy", "it is busy", after_s=asked_s))
        assert bench.circuit.wait_s == wait_s
        assert bench.waits(1) == [10], "what it names does not double"

    def test_it_is_told_to_whoever_is_refused(self) -> None:
        bench = Bench()
        bench.ask(AWAY)
        bench.now_s += 2
        error = bench.refused()
        assert (error.cause, error.hint, error.after_s) == (AWAY.cause, AWAY.hint, 3.0)
        assert error.message == "gpu:1 is left alone for now: it refuses connections"

    def test_whoever_is_refused_does_not_lengthen_it(self) -> None:
        bench = Bench()
        bench.ask(AWAY)
        for _ in range(10):
            bench.refused()
        assert bench.circuit.wait_s == FIRST_S
        assert bench.told == [AWAY]

    def test_while_one_tries_the_rest_of_it_is_not_told_as_none(self) -> None:
        bench = Bench()
        bench.trial()
        assert bench.circuit.wait_s == TRYING_AFTER_S


class TestTrial:
    @pytest.mark.parametrize("end", [asyncio.CancelledError(), KeyboardInterrupt(), ZeroDivisionError()], ids=repr)
    def test_one_that_tells_nothing_leaves_it_to_the_next(self, end: BaseException) -> None:
        bench = Bench()
        for _ in range(3):
            bench.time_is_up()
            bench.ask(AWAY)
        bench.time_is_up()
        bench.ask(end)
        assert (bench.circuit.state, bench.circuit.wait_s) == (State.OPEN, 0), "the next call tries"
        trial = bench.begin()
        assert bench.circuit.state == State.HALF_OPEN
        bench.refused()
        trial.end(AWAY)
        assert bench.circuit.wait_s == 40, "as if there had been one trial"
        assert bench.told == [AWAY]

    def test_a_cancelled_call_opens_nothing(self) -> None:
        bench = Bench()
        bench.ask(asyncio.CancelledError())
        assert (bench.circuit.state, bench.told) == (State.CLOSED, [])

    def test_it_is_told_by_the_newest_trouble(self) -> None:
        bench = Bench()
        bench.trial().end(AWAY_TOO)
        assert bench.circuit.trouble is AWAY_TOO
        assert bench.told == [AWAY], "it has not been closed meanwhile"

    def test_since_when_is_the_beginning_of_the_outage(self) -> None:
        before_s = time.time()
        bench = Bench()
        bench.ask(AWAY)
        since_s = bench.circuit.since_s
        assert since_s is not None
        assert before_s <= since_s <= time.time()
        bench.waits(4)
        assert bench.circuit.since_s == since_s
        bench.time_is_up()
        bench.ask()
        assert bench.circuit.since_s is None
