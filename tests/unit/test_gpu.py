"""Turns at the GPU: who has it, when it passes on, that nobody waits for ever, and that cancelling leaves no trace."""

import asyncio
import contextlib
import random
from collections.abc import Callable

import pytest

from fakes.backends import Fake
from rig.events import Kept, until
from topicd.errors import Unavailable
from topicd.gpu import Gpu
from topicd.states import Stage
from topicd.telemetry.events import Events

A, B, C = Stage.SCRIPTS, Stage.AUDIO, Stage.IMAGES
LONG_S = 1000.0
LIMIT_S = 10.0


class Freeing(Fake):
    """A backend whose memory is freed when it is told to be, or in an instant."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.asked = self.freed = 0

    async def free(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        await self.may_end.wait()
        if self.error:
            raise self.error
        self.freed += 1


class Room:
    """Tasks that take turns, and who has one at each instant."""

    def __init__(
        self,
        *,
        batch_jobs_max: int = 3,
        batch_s_max: float = LONG_S,
        free_s_max: float = LIMIT_S,
        between_jobs_s_max: float = 0.0,
    ) -> None:
        self.kept = Kept()
        self.gpu = Gpu(
            events=Events([self.kept]),
            batch_jobs_max=batch_jobs_max,
            batch_s_max=batch_s_max,
            free_s_max=free_s_max,
            between_jobs_s_max=between_jobs_s_max,
        )
        self.backends: dict[Stage, Fake] = {stage: Freeing() for stage in Stage}
        self.inside: list[str] = []
        self.began: list[str] = []
        self._leave = dict[str, asyncio.Event]()
        self.tasks = dict[str, asyncio.Task[None]]()

    def freeing(self, stage: Stage) -> Freeing:
        backend = self.backends[stage]
        assert isinstance(backend, Freeing)
        return backend

    async def enters(self, stage: Stage, *names: str) -> None:
        for name in names:
            self._leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._stay(stage, name))
            await settled()

    async def leaves(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await settled()

    async def gives_up(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.tasks[name]
        await settled()

    async def _stay(self, stage: Stage, name: str) -> None:
        async with self.gpu.turn(stage, self.backends[stage]):
            self.inside.append(name)
            self.began.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self) -> None:
        """Let all go, and see that nothing is left behind."""
        for event in self._leave.values():
            event.set()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert not self.inside
        assert not self.gpu._waiting
        assert not self.gpu._inside
        assert not self.gpu._is_passing


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(30):
        await asyncio.sleep(0)


def passed(room: Room) -> list[tuple[object, object]]:
    return [(event.fields["before"], event.fields["stage"]) for event in room.kept.of("gpu.passed")]


async def test_nobodys_gpu_is_had_without_a_wait_and_the_jobs_of_a_stage_share_it() -> None:
    room = Room()
    assert not room.gpu.would_wait(A)
    async with room.gpu.turn(A, room.backends[A]):
        assert asyncio.current_task()
    await room.enters(A, "a1", "a2", "a3", "a4", "a5")
    assert len(room.inside) == 5
    assert not room.gpu.would_wait(A)
    assert room.gpu.would_wait(B)
    await room.end()
    assert not room.freeing(A).asked
    assert not room.kept.events


async def test_the_stage_that_had_it_last_takes_it_again_without_freeing_and_another_frees_it() -> None:
    room = Room()
    for name in ("a1", "a2"):
        await room.enters(A, name)
        await room.leaves(name)
    assert not room.freeing(A).asked
    assert room.gpu.would_wait(B), "its memory is to be freed first"
    await room.enters(B, "b1")
    assert room.inside == ["b1"]
    assert room.freeing(A).freed == 1
    assert passed(room) == [(A, B)]
    await room.leaves("b1")
    await room.enters(A, "a3")
    assert room.freeing(B).freed == 1
    await room.end()


async def test_another_stage_waits_for_all_in_hand() -> None:
    room = Room()
    await room.enters(A, "a1", "a2")
    await room.enters(B, "b1")
    await room.leaves("a1")
    assert room.inside == ["a2"]
    assert not room.freeing(A).asked
    await room.leaves("a2")
    assert room.inside == ["b1"]
    await room.end()


async def test_a_batch_is_counted_from_when_another_waits() -> None:
    room = Room(batch_jobs_max=2)
    await room.enters(A, "a1", "a2", "a3", "a4")
    await room.enters(B, "b1")
    await room.enters(A, "a5", "a6", "a7")
    assert room.inside == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert room.gpu.would_wait(A)
    await room.leaves(*room.inside)
    assert room.inside == ["b1"]
    await room.leaves("b1")
    assert room.inside == ["a7"]
    await room.end()


async def test_a_batch_ends_by_its_time_too() -> None:
    room = Room(batch_s_max=0.0)
    await room.enters(A, "a1")
    await room.enters(B, "b1")
    await room.enters(A, "a2")
    assert room.inside == ["a1"]
    await room.leaves("a1")
    assert room.inside == ["b1"]
    await room.end()


async def test_between_two_jobs_a_stage_keeps_it_for_the_rest_of_its_batch() -> None:
    room = Room(batch_jobs_max=2, between_jobs_s_max=LONG_S)
    await room.enters(A, "a1")
    await room.enters(B, "b1")
    for before, after in (("a1", "a2"), ("a2", "a3")):
        await room.leaves(before)
        assert room.inside == []
        await room.enters(A, after)
        assert room.inside == [after]
    await room.leaves("a3")
    assert room.inside == ["b1"], "the batch is used up"
    await room.end()


async def test_a_stage_that_does_not_come_with_another_job_loses_it() -> None:
    room = Room(between_jobs_s_max=0.05)
    await room.enters(A, "a1")
    await room.enters(B, "b1")
    await room.leaves("a1")
    await until(lambda: room.inside == ["b1"], "its time is up", LIMIT_S)
    await room.end()


async def test_a_stage_that_says_it_has_no_more_leaves_it_at_once() -> None:
    room = Room(between_jobs_s_max=LONG_S)
    await room.enters(A, "a1", "a2")
    await room.enters(B, "b1")
    await room.leaves("a1")
    room.gpu.rest(A)
    await settled()
    assert room.inside == ["a2"], "it has one in hand"
    await room.leaves("a2")
    room.gpu.rest(C)
    await settled()
    assert room.inside == [], "it was another who spoke"
    room.gpu.rest(A)
    await settled()
    assert room.inside == ["b1"]
    await room.end()


async def test_an_idle_gpu_is_not_kept_for_the_stage_that_had_it() -> None:
    room = Room(between_jobs_s_max=LONG_S)
    await room.enters(A, "a1")
    await room.enters(B, "b1")
    await room.leaves("a1")
    await room.gives_up("b1")
    await room.enters(C, "c1")
    assert room.inside == ["c1"]
    await room.end()


async def test_stages_have_it_in_the_order_in_which_they_came_and_none_is_left_out() -> None:
    room = Room(batch_jobs_max=1)
    await room.enters(A, "a1")
    await room.enters(B, "b1", "b2", "b3")
    await room.enters(C, "c1", "c2")
    await room.enters(A, "a2", "a3", "a4")
    while room.inside:
        await room.leaves(*room.inside)
    assert [name[0] for name in room.began] == list("aabcabcab")
    await room.end()


async def test_who_waits_comes_in_together_up_to_a_batch() -> None:
    room = Room(batch_jobs_max=2)
    await room.enters(A, "a1")
    await room.enters(B, "b1", "b2", "b3")
    await room.enters(C, "c1")
    await room.leaves("a1")
    assert room.inside == ["b1", "b2"]
    await room.leaves("b1", "b2")
    assert room.inside == ["c1"]
    await room.leaves("c1")
    assert room.inside == ["b3"]
    await room.end()


@pytest.mark.parametrize("error", [Unavailable("refused", "it is off"), RuntimeError("a bug")])
async def test_an_error_while_freeing_is_told_and_does_not_block(error: Exception) -> None:
    room = Room()
    room.freeing(A).error = error
    await room.enters(A, "a1")
    await room.leaves("a1")
    await room.enters(B, "b1")
    assert room.inside == ["b1"]
    [told] = room.kept.of("gpu.not_freed")
    assert told.fields["before"] == A
    assert str(error) in str(told.fields["error"])
    assert not passed(room), "nobody says that it was freed"
    await room.end()


async def test_freeing_has_a_limit() -> None:
    room = Room(free_s_max=0.02)
    room.freeing(A).may_end.clear()
    await room.enters(A, "a1")
    await room.leaves("a1")
    await room.enters(B, "b1")
    await until(lambda: room.inside == ["b1"], "it goes on", LIMIT_S)
    [told] = room.kept.of("gpu.not_freed")
    assert told.fields["cause"] == "free_timeout"
    await room.end()


async def test_a_backend_that_cannot_free_is_not_asked_to() -> None:
    room = Room()
    room.backends[A] = Fake()
    await room.enters(A, "a1")
    await room.leaves("a1")
    await room.enters(B, "b1")
    assert room.inside == ["b1"]
    assert not room.kept.of("gpu.not_freed")
    await room.end()


async def test_nobody_enters_while_it_is_freed() -> None:
    room = Room()
    room.freeing(A).may_end.clear()
    await room.enters(A, "a1")
    await room.leaves("a1")
    await room.enters(B, "b1", "b2")
    assert all(map(room.gpu.would_wait, Stage))
    await room.enters(A, "a2")
    await room.enters(C, "c1")
    assert room.inside == []
    room.freeing(A).may_end.set()
    await settled()
    assert room.inside == ["b1", "b2"]
    assert room.freeing(A).asked == 1
    await room.end()


async def test_one_that_is_cancelled_while_it_frees_leaves_it_to_the_next() -> None:
    room = Room()
    room.freeing(A).may_end.clear()
    await room.enters(A, "a1")
    await room.leaves("a1")
    await room.enters(B, "b1", "b2")
    await room.gives_up("b1")
    assert room.freeing(A).asked == 2
    room.freeing(A).may_end.set()
    await settled()
    assert room.inside == ["b2"]
    await room.end()


async def test_if_all_who_wait_give_up_the_stage_goes_on_as_if_nobody_had_come() -> None:
    room = Room(batch_jobs_max=1)
    await room.enters(A, "a1")
    await room.enters(B, "b1")
    await room.enters(A, "a2", "a3", "a4")
    assert room.inside == ["a1", "a2"]
    await room.gives_up("b1")
    assert room.inside == ["a1", "a2", "a3", "a4"]
    await room.enters(C, "c1")
    await room.enters(A, "a5", "a6")
    assert room.inside == ["a1", "a2", "a3", "a4", "a5"], "a whole batch of its own"
    await room.leaves(*room.inside)
    assert room.inside == ["c1"]
    assert room.gpu._next == A
    await room.end()


async def test_an_error_inside_gives_the_turn_back() -> None:
    room = Room()
    for stage in (A, B, A):
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(LIMIT_S), room.gpu.turn(stage, room.backends[stage]):
                raise ZeroDivisionError
    await room.end()


async def ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("after", range(16))
@pytest.mark.parametrize("many", [1, 2])
async def test_cancelled_at_any_instant_it_leaves_no_trace(after: int, many: int) -> None:
    room = Room(batch_jobs_max=1)
    await room.enters(A, "a1")
    victims = [asyncio.create_task(turn(room, B)) for _ in range(many)]
    other = asyncio.create_task(turn(room, C))
    await ticks(2)
    room._leave["a1"].set()
    await ticks(after)
    for victim in victims:
        victim.cancel()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*victims, return_exceptions=True)
        await other
        await asyncio.gather(*(turn(room, stage) for stage in Stage))
    await room.end()


async def turn(room: Room, stage: Stage) -> None:
    async with room.gpu.turn(stage, room.backends[stage]):
        await asyncio.sleep(0)


class Watched(Room):
    """A room where each who is inside says of which stage it is."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(batch_jobs_max=rng.randint(1, 4), between_jobs_s_max=rng.choice([0.0, 0.001]))
        self.rng = rng
        self.now: list[Stage] = []
        self.done = 0
        for stage in Stage:
            self.backends[stage] = self._backend()

    def _backend(self) -> Fake:
        kinds: list[Callable[[], Fake]] = [Fake, Freeing, lambda: Freeing(RuntimeError("a bug"))]
        return self.rng.choice(kinds)()

    async def job(self, stage: Stage) -> None:
        await ticks(self.rng.randint(0, 40))
        async with self.gpu.turn(stage, self.backends[stage]):
            self.now.append(stage)
            assert len(set(self.now)) == 1, "one stage at a time"
            assert not self.gpu._is_passing
            try:
                await ticks(self.rng.randint(0, 6))
            finally:
                self.now.remove(stage)
        self.done += 1


@pytest.mark.parametrize("seed", range(60))
async def test_whatever_the_order_one_stage_is_inside_and_all_get_their_turn(seed: int) -> None:
    rng = random.Random(seed)
    room = Watched(rng)
    tasks = [asyncio.create_task(room.job(rng.choice(list(Stage)))) for _ in range(40)]
    victims = rng.sample(tasks, rng.randint(0, 15))
    for victim in victims:
        await ticks(rng.randint(0, 8))
        victim.cancel()
    async with asyncio.timeout(LIMIT_S):
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [each for each in ended if each is not None and not isinstance(each, asyncio.CancelledError)]
    assert not errors
    assert room.done == ended.count(None) >= len(tasks) - len(victims)
    await room.end()


@pytest.mark.parametrize("seed", range(10))
async def test_a_stage_with_work_without_end_holds_nobody_up(seed: int) -> None:
    rng = random.Random(seed)
    room = Watched(rng)

    async def busy() -> None:
        while True:
            await room.job(A)

    endless = [asyncio.create_task(busy()) for _ in range(3)]
    async with asyncio.timeout(LIMIT_S):
        for _ in range(5):
            await asyncio.gather(room.job(B), room.job(C))
    for task in endless:
        task.cancel()
    ended = await asyncio.gather(*endless, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
    await room.end()
