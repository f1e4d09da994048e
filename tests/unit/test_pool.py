"""Several servers as one backend: who gets a call, who is passed over, and what is told when none is left."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence

import pytest

from fakes.backends import Fake, FakeAudio, FakeImage, FakeScript
from topicd.backends.base import (
    AudioBackend,
    Frees,
    HasServers,
    ImageBackend,
    PictureRequest,
    Probe,
    ScriptBackend,
    ScriptRequest,
    ServerState,
    Speech,
    SpeechRequest,
)
from topicd.backends.circuit import NOT_THE_SERVERS, TRYING_AFTER_S, Circuit
from topicd.backends.pool import OPENS_FOR, AudioPool, ImagePool, ScriptPool
from topicd.errors import Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable

LIMIT_S = 20.0
FIRST_S = 5.0
MAX_S = 60.0
SPOKEN = SpeechRequest("Hello there.", "en", "", 42)
AWAY = Unavailable("connect_refused", "it refuses connections", hint="check that it runs")
LACKING = Unusable("model_missing", "it lacks the model", hint="pull it")
OPENING = pytest.mark.parametrize("trouble", [AWAY, LACKING], ids=["Unavailable", "Unusable"])


class Member(Fake):
    """Speaks its own name, as soon as it may.

    Attributes:
        trouble: what it raises instead, when it is asked for anything.
        asked: how many calls it got.
        under_way: how many wait for its answer.
        freed: how often it was asked to free the GPU.
        closed: how often it was closed.
    """

    def __init__(self, server: str, *, calls_max: int = 1, holds_gpu: bool = False) -> None:
        self.name = "fake-speech"
        self.server = server
        self.calls_max = calls_max
        self.holds_gpu = holds_gpu
        self.trouble: Exception | None = None
        self.asked = self.under_way = self.freed = self.closed = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def provenance(self) -> Mapping[str, str]:
        return {"model": "tiny"}

    async def speak(self, request: SpeechRequest) -> Speech:
        assert request is SPOKEN
        self.asked += 1
        self.under_way += 1
        try:
            await self.may_answer.wait()
        finally:
            self.under_way -= 1
        self._fail()
        return Speech(self.server.encode())

    async def probe(self) -> Probe:
        self._fail()
        return Probe(f"tiny at {self.server}", {"at": self.server})

    async def free(self) -> None:
        self.freed += 1
        self._fail()

    def servers(self) -> Sequence[ServerState]:
        return [ServerState(self.server, "closed", calls=self.under_way, note="at ease")]

    async def aclose(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.trouble:
            raise self.trouble


class Bench:
    """A pool, its members, the clock of its circuits, which is set by hand, and what they told."""

    def __init__(self, *members: Member) -> None:
        self.now_s = 1000.0
        self.told: list[tuple[str, TopicdError | None]] = []
        self.members = members or (Member("a:1"), Member("b:2"))
        self.circuits = [self._circuit(member.server) for member in self.members]
        self.pool = AudioPool(self.members, self.circuits, [member.server for member in self.members])

    def _circuit(self, server: str) -> Circuit:
        return Circuit(
            first_s=FIRST_S,
            max_s=MAX_S,
            clock=lambda: self.now_s,
            changed=lambda trouble: self.told.append((server, trouble)),
            opens_for=OPENS_FOR,
        )

    @property
    def asked(self) -> list[int]:
        return [member.asked for member in self.members]

    @property
    def under_way(self) -> list[int]:
        return [member.under_way for member in self.members]

    @property
    def states(self) -> list[str]:
        return [state.state for state in self.pool.servers()]

    async def ask(self) -> str:
        """Have something spoken; return the server that did it."""
        return (await asyncio.wait_for(self.pool.speak(SPOKEN), LIMIT_S)).wav.decode()

    async def trouble(self) -> TopicdError:
        return await trouble_of(self.pool.speak(SPOKEN))

    async def begin(self) -> asyncio.Task[str]:
        """Have a call begin, and go as far as it can."""
        task = asyncio.create_task(self.ask())
        await settled()
        return task

    @contextlib.asynccontextmanager
    async def held(self, *members: Member) -> AsyncIterator[None]:
        """Have members keep their answers back for the length of a block; all, unless some are named."""
        for member in members or self.members:
            member.may_answer.clear()
        try:
            yield
        finally:
            for member in members or self.members:
                member.may_answer.set()


async def settled(ticks: int = 20) -> None:
    """Let every task go as far as it can without any time passing."""
    for _ in range(ticks):
        await asyncio.sleep(0)


async def trouble_of(call: Awaitable[object]) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        await asyncio.wait_for(call, LIMIT_S)
    return caught.value


async def test_two_calls_at_once_are_one_on_each() -> None:
    bench = Bench()
    async with bench.held():
        calls = [await bench.begin() for _ in range(2)]
        assert bench.under_way == [1, 1]
    assert await asyncio.gather(*calls) == ["a:1", "b:2"]


class TestRoom:
    async def test_the_member_with_the_most_room_gets_the_call(self) -> None:
        bench = Bench(Member("small:1", calls_max=2), Member("large:2", calls_max=4))
        async with bench.held():
            calls, seen = [], []
            for _ in range(6):
                calls.append(await bench.begin())
                seen.append(bench.under_way)
        await asyncio.gather(*calls)
        assert seen == [[1, 0], [1, 1], [1, 2], [2, 2], [2, 3], [2, 4]]

    async def test_what_is_more_than_they_take_is_shared_out_too(self) -> None:
        bench = Bench()
        async with bench.held():
            calls = [await bench.begin() for _ in range(6)]
            assert bench.under_way == [3, 3], "each lets its own wait for a place"
        await asyncio.gather(*calls)

    async def test_the_one_that_is_done_gets_the_next(self) -> None:
        bench = Bench()
        slow, quick = bench.members
        async with bench.held(slow):
            call = await bench.begin()
            for _ in range(5):
                assert await bench.ask() == quick.server
        assert await call == slow.server

    @pytest.mark.parametrize("error", [ZeroDivisionError(), RetryLater("read_timeout", "it was silent")], ids=repr)
    async def test_an_error_gives_the_room_back(self, error: Exception) -> None:
        bench = Bench()
        bench.members[0].trouble = error
        for _ in range(3):
            with pytest.raises(type(error)):
                await bench.ask()
        assert bench.asked == [3, 0]

    async def test_a_cancelled_call_gives_it_back_and_opens_nothing(self) -> None:
        bench = Bench()
        async with bench.held():
            for _ in range(3):
                call = await bench.begin()
                assert bench.under_way == [1, 0]
                call.cancel()
                await asyncio.wait([call])
        assert bench.states == ["closed", "closed"]
        assert bench.told == []


@OPENING
async def test_one_that_is_away_is_passed_over_until_its_time_is_up(trouble: TopicdError) -> None:
    bench = Bench()
    bench.members[0].trouble = trouble
    await bench.ask()
    bench.now_s += FIRST_S - 0.001
    assert await asyncio.gather(*(bench.ask() for _ in range(10))) == ["b:2"] * 10
    assert bench.asked == [1, 11]


@OPENING
async def test_another_one_does_the_call(trouble: TopicdError) -> None:
    bench = Bench()
    bench.members[0].trouble = trouble
    assert await bench.ask() == "b:2"
    assert bench.asked == [1, 1]
    assert bench.told == [("a:1", trouble)]


@OPENING
class TestAway:
    async def test_then_it_gets_one_call_that_tries_and_the_others_do_the_work(self, trouble: TopicdError) -> None:
        bench = Bench(Member("a:1"), Member("b:2"), Member("c:3"))
        away = bench.members[0]
        away.trouble = trouble
        await bench.ask()
        bench.now_s += FIRST_S
        async with bench.held(away):
            trial = await bench.begin()
            assert bench.under_way == [1, 0, 0]
            assert bench.states == ["half-open", "closed", "closed"]
            bench.now_s += 1000
            done = await asyncio.gather(*(bench.ask() for _ in range(6)))
            assert away.server not in done
            assert away.asked == 2
        assert await trial == "b:2", "the call that tried is not lost"
        assert bench.told == [("a:1", trouble)]

    async def test_the_time_doubles_while_it_stays_away(self, trouble: TopicdError) -> None:
        bench = Bench()
        bench.members[0].trouble = trouble
        waits = []
        for _ in range(6):
            assert await bench.ask() == "b:2"
            waits.append(bench.circuits[0].wait_s)
            bench.now_s += bench.circuits[0].wait_s
        assert waits == [5, 10, 20, 40, 60, 60]

    async def test_one_that_is_back_gets_its_share_again(self, trouble: TopicdError) -> None:
        bench = Bench()
        bench.members[0].trouble = trouble
        await bench.ask()
        bench.members[0].trouble = None
        bench.now_s += FIRST_S
        assert await bench.ask() == "a:1"
        async with bench.held():
            calls = [await bench.begin() for _ in range(4)]
            assert bench.under_way == [2, 2]
        await asyncio.gather(*calls)
        assert bench.told == [("a:1", trouble), ("a:1", None)]

    @pytest.mark.parametrize("error", [RetryLater("bad_answer", "it answers oddly"), Rejected("bad_request", "no")])
    async def test_any_answer_brings_it_back(self, trouble: TopicdError, error: TopicdError) -> None:
        bench = Bench()
        bench.members[0].trouble = trouble
        await bench.ask()
        bench.members[0].trouble = error
        bench.now_s += FIRST_S
        assert await bench.trouble() is error
        assert bench.states == ["closed", "closed"]

    async def test_a_trial_that_is_cancelled_leaves_it_to_the_next(self, trouble: TopicdError) -> None:
        bench = Bench()
        away = bench.members[0]
        away.trouble = trouble
        await bench.ask()
        away.trouble = None
        bench.now_s += FIRST_S
        async with bench.held(away):
            trial = await bench.begin()
            trial.cancel()
            await asyncio.wait([trial])
        assert bench.states == ["open", "closed"]
        assert await bench.ask() == "a:1"

    async def test_what_was_under_way_on_it_is_done_by_the_other_and_counts_once(self, trouble: TopicdError) -> None:
        bench = Bench(Member("a:1", calls_max=5), Member("b:2", calls_max=5))
        away = bench.members[0]
        async with bench.held():
            calls = [await bench.begin() for _ in range(10)]
            assert bench.under_way == [5, 5]
            away.trouble = trouble
        assert await asyncio.gather(*calls) == ["b:2"] * 10
        assert bench.told == [("a:1", trouble)]
        assert bench.circuits[0].wait_s == FIRST_S


async def test_a_member_whose_own_rate_is_used_up_is_not_away() -> None:
    bench = Bench()
    bench.members[0].trouble = Unavailable(NOT_THE_SERVERS, "it has had its calls", after_s=30.0)
    assert [await bench.ask() for _ in range(3)] == ["b:2"] * 3
    assert (bench.asked, bench.told) == ([3, 3], [])


async def test_one_that_is_back_is_tried_though_another_has_as_much_room() -> None:
    bench = Bench()
    bench.members[1].trouble = AWAY
    async with bench.held(bench.members[0]):
        calls = [await bench.begin() for _ in range(2)]
    await asyncio.gather(*calls)
    bench.members[1].trouble = None
    bench.now_s += FIRST_S
    assert await bench.ask() == "b:2"
    assert bench.states == ["closed", "closed"]


class TestAllAway:
    async def test_it_is_told_with_the_least_wait(self) -> None:
        bench = Bench(Member("a:1"), Member("b:2"), Member("c:3"))
        for member, after_s in zip(bench.members, (30.0, 12.0, None), strict=True):
            member.trouble = Unavailable("busy", f"{member.server} is busy", hint="wait", after_s=after_s)
        error = await bench.trouble()
        assert isinstance(error, Unavailable)
        assert (error.cause, error.hint, error.after_s) == ("busy", "wait", 12.0)
        assert error.message == "a:1 is busy; b:2 is busy; c:3 is busy"
        assert [circuit.wait_s for circuit in bench.circuits] == [30, 12, 5]

    async def test_then_nobody_is_asked_until_the_first_time_is_up(self) -> None:
        bench = Bench()
        for member, after_s in zip(bench.members, (30.0, 12.0), strict=True):
            member.trouble = Unavailable("busy", f"{member.server} is busy", after_s=after_s)
        await bench.trouble()
        bench.now_s += 2
        error = await bench.trouble()
        assert isinstance(error, Unavailable)
        assert (error.cause, error.after_s) == ("busy", 10.0)
        assert bench.asked == [1, 1]
        bench.members[1].trouble = None
        bench.now_s += 10
        assert await bench.ask() == "b:2"
        assert bench.asked == [1, 2]

    async def test_while_one_tries_others_are_told_to_come_back_soon(self) -> None:
        bench = Bench()
        for member in bench.members:
            member.trouble = AWAY
        await bench.trouble()
        bench.members[0].trouble = None
        bench.circuits[1]._open_until += 100
        bench.now_s += FIRST_S
        async with bench.held():
            trial = await bench.begin()
            error = await bench.trouble()
            assert isinstance(error, Unavailable)
            assert error.after_s == TRYING_AFTER_S
        assert await trial == "a:1"

    async def test_where_no_time_is_known_none_is_told(self) -> None:
        bench = Bench()
        for member in bench.members:
            member.trouble = AWAY
        error = await bench.trouble()
        assert isinstance(error, Unavailable)
        assert error.after_s is None
        assert error.message == AWAY.message, "what is the same is said once"

    @pytest.mark.parametrize("order", [(AWAY, LACKING), (LACKING, AWAY)], ids=["away first", "unusable first"])
    async def test_some_away_and_the_others_unusable_is_away(self, order: Sequence[TopicdError]) -> None:
        bench = Bench()
        for member, trouble in zip(bench.members, order, strict=True):
            member.trouble = trouble
        error = await bench.trouble()
        assert (type(error), error.cause, error.hint) == (Unavailable, AWAY.cause, AWAY.hint)
        assert error.message == "; ".join(trouble.message for trouble in order)

    async def test_while_they_are_left_alone_for_it_unusable_is_still_what_they_are(self) -> None:
        bench = Bench()
        for member in bench.members:
            member.trouble = LACKING
        assert [await bench.trouble() for _ in range(3)] == [LACKING] * 3
        bench.now_s += FIRST_S
        assert tuple(await asyncio.gather(bench.trouble(), bench.trouble())) == (LACKING, LACKING)

    async def test_all_unusable_is_unusable(self) -> None:
        bench = Bench()
        for member in bench.members:
            member.trouble = LACKING
        assert await bench.trouble() is LACKING


@pytest.mark.parametrize(
    "error",
    [
        RetryLater("read_timeout", "it was silent", after_s=3.0),
        Rejected("bad_request", "it refuses this"),
        StorageTrouble("disk_full", "the disk is full"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
async def test_any_other_trouble_is_the_calls_own_and_tried_on_nobody_else(error: Exception) -> None:
    bench = Bench()
    bench.members[0].trouble = error
    with pytest.raises(type(error)) as caught:
        await bench.ask()
    assert caught.value is error
    assert bench.asked == [1, 0]
    assert bench.states == ["closed", "closed"]
    assert bench.told == []


class TestWhatItIs:
    def test_it_takes_as_many_calls_as_its_members_together(self) -> None:
        assert Bench(Member("a:1", calls_max=2), Member("b:2", calls_max=3), Member("c:3")).pool.calls_max == 6

    @pytest.mark.parametrize("held", [(False, False), (False, True), (True, True)])
    def test_it_holds_the_gpu_if_one_does(self, held: tuple[bool, bool]) -> None:
        members = [Member(f"{at}:1", holds_gpu=each) for at, each in enumerate(held)]
        assert Bench(*members).pool.holds_gpu is any(held)

    def test_it_goes_by_its_members_name_and_settings(self) -> None:
        bench = Bench()
        assert bench.pool.name == "fake-speech"
        assert bench.pool.provenance() == {"model": "tiny"}
        assert bench.pool.members == list(bench.members)

    def test_there_is_a_circuit_for_each(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            AudioPool([Member("a:1"), Member("b:2")], [Circuit()], ["a:1", "b:2"])

    async def test_it_closes_them(self) -> None:
        bench = Bench()
        for times in (1, 2):
            await bench.pool.aclose()
            assert [member.closed for member in bench.members] == [times, times]


class TestServers:
    def test_at_rest_it_is_what_the_members_tell(self) -> None:
        bench = Bench()
        assert bench.pool.servers() == [state for member in bench.members for state in member.servers()]

    @OPENING
    async def test_one_that_is_passed_over_is_shown_by_the_pools_circuit(self, trouble: TopicdError) -> None:
        bench = Bench()
        away, other = bench.members
        away.trouble = trouble
        await bench.ask()
        since_s = bench.circuits[0].since_s
        told = ServerState("a:1", "open", since_s=since_s, trouble=trouble.message, note="at ease")
        assert since_s is not None
        assert bench.pool.servers() == [told, *other.servers()]
        bench.now_s += FIRST_S
        async with bench.held():
            trial = await bench.begin()
            assert (bench.states, bench.pool.servers()[0].calls) == (["half-open", "closed"], 1)
            away.trouble = None
        await trial
        assert bench.pool.servers() == [*away.servers(), *other.servers()]

    async def test_a_member_without_servers_is_left_out(self) -> None:
        assert AudioPool([FakeAudio(), FakeAudio()], [Circuit(), Circuit()], ["a", "b"]).servers() == []


class TestFree:
    async def test_all_are_asked(self) -> None:
        bench = Bench()
        await bench.pool.free()
        assert [member.freed for member in bench.members] == [1, 1]

    @pytest.mark.parametrize("error", [LACKING, RetryLater("server_error", "it cannot"), ZeroDivisionError()], ids=repr)
    @pytest.mark.parametrize("at", [0, 1])
    async def test_one_that_does_not_is_told_and_the_others_are_asked_all_the_same(
        self, at: int, error: Exception
    ) -> None:
        bench = Bench()
        bench.members[at].trouble = error
        with pytest.raises(type(error)) as caught:
            await bench.pool.free()
        assert caught.value is error
        assert [member.freed for member in bench.members] == [1, 1]

    async def test_one_that_is_away_holds_nothing_that_it_could_be_asked_for(self) -> None:
        bench = Bench()
        bench.members[0].trouble = AWAY
        await bench.pool.free()
        assert [member.freed for member in bench.members] == [1, 1]

    async def test_a_member_that_cannot_is_left_alone(self) -> None:
        able = Member("b:2")
        await AudioPool([FakeAudio(), able], [Circuit(), Circuit()], ["a:1", "b:2"]).free()
        assert able.freed == 1


class TestProbe:
    async def test_it_tells_what_all_say(self) -> None:
        probe = await Bench().pool.probe()
        assert probe.summary == "tiny at a:1 (2 of 2 servers)"
        assert probe.details == {"at": "a:1", "members": [{"at": "a:1"}, {"at": "b:2"}]}

    @OPENING
    async def test_one_that_works_is_enough(self, trouble: TopicdError) -> None:
        bench = Bench()
        bench.members[0].trouble = trouble
        probe = await bench.pool.probe()
        assert probe.summary == "tiny at b:2 (1 of 2 servers)"
        assert probe.details == {"at": "b:2", "members": [{"at": "b:2"}]}

    async def test_none_that_answers(self) -> None:
        bench = Bench()
        for member, after_s in zip(bench.members, (30.0, 12.0), strict=True):
            member.trouble = Unavailable("busy", f"{member.server} is busy", after_s=after_s)
        error = await trouble_of(bench.pool.probe())
        assert isinstance(error, Unavailable)
        assert (error.cause, error.after_s) == ("busy", 12.0)

    async def test_none_that_can_be_used(self) -> None:
        bench = Bench()
        for member in bench.members:
            member.trouble = LACKING
        assert await trouble_of(bench.pool.probe()) is LACKING

    async def test_a_bug_is_no_answer(self) -> None:
        bench = Bench()
        bench.members[0].trouble = ZeroDivisionError()
        with pytest.raises(ZeroDivisionError):
            await bench.pool.probe()

    async def test_one_that_is_passed_over_is_asked_all_the_same(self) -> None:
        bench = Bench()
        bench.members[0].trouble = AWAY
        await bench.ask()
        bench.members[0].trouble = None
        assert (await bench.pool.probe()).summary == "tiny at a:1 (2 of 2 servers)"


class Silent(FakeScript, FakeImage):
    """Is away, whichever stage asks."""

    async def call(self, what: str) -> None:
        raise Unavailable("connect_refused", f"it refuses {what}")


class TestStages:
    """Each has its own pool, which differs by one method."""

    async def test_scripts(self) -> None:
        pool = ScriptPool([Silent(), FakeScript()], [Circuit(), Circuit()], ["a:1", "b:2"])
        assert isinstance(pool, ScriptBackend)
        script = await pool.write(ScriptRequest("Tides", "", "en", 2, "", 1))
        assert (script.title, len(script.scenes)) == ("Tides", 2)

    async def test_audio(self) -> None:
        pool = Bench().pool
        assert isinstance(pool, AudioBackend)
        assert (await pool.speak(SPOKEN)).wav == b"a:1"

    async def test_images(self) -> None:
        pool = ImagePool([Silent(), FakeImage()], [Circuit(), Circuit()], ["a:1", "b:2"])
        assert isinstance(pool, ImageBackend)
        asked = PictureRequest("a lighthouse", "", "Tides", False, 64, 64, "", 1, 1)  # noqa: FBT003
        assert (await pool.draw(asked)).data.startswith(b"\x89PNG")

    def test_each_tells_its_servers_and_frees(self) -> None:
        pool = Bench().pool
        assert isinstance(pool, HasServers)
        assert isinstance(pool, Frees)
