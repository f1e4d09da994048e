"""Many together or one alone: who may work with whom, in what order, and that nobody waits for ever."""

import asyncio
import contextlib
import itertools

import pytest

from topicd.quarantine import Quarantine


class Ward:
    """Tasks that take turns, and who has one at each instant."""

    def __init__(self) -> None:
        self.quarantine = Quarantine()
        self.inside: list[str] = []
        self.seen: list[tuple[str, ...]] = []
        self._leave = dict[str, asyncio.Event]()
        self._tasks = dict[str, asyncio.Task[None]]()

    async def enters(self, name: str) -> None:
        """Start a task that asks for a turn; names in capitals are suspects."""
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._stay(name))
        await settled()

    async def leaves(self, *names: str) -> None:
        for name in names:
            self._leave[name].set()
        await settled()

    async def gives_up(self, name: str) -> None:
        self._tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tasks[name]
        await settled()

    async def _stay(self, name: str) -> None:
        async with self.quarantine.turn(suspect=name.isupper()):
            self.inside.append(name)
            self.seen.append(tuple(self.inside))
            try:
                await self._leave[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self) -> None:
        for event in self._leave.values():
            event.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_those_above_suspicion_work_together() -> None:
    ward = Ward()
    for name in "abc":
        await ward.enters(name)
    assert ward.inside == ["a", "b", "c"]
    await ward.end()


async def test_a_suspect_waits_for_all_and_is_alone() -> None:
    ward = Ward()
    for name in ("a", "b", "S", "c"):
        await ward.enters(name)
    assert ward.inside == ["a", "b"], "c does not overtake the suspect"
    await ward.leaves("a")
    assert ward.inside == ["b"]
    await ward.leaves("b")
    assert ward.inside == ["S"]
    await ward.enters("d")
    assert ward.inside == ["S"]
    await ward.leaves("S")
    assert ward.inside == ["c", "d"]
    await ward.end()


async def test_suspects_go_one_by_one_before_the_others() -> None:
    ward = Ward()
    for name in ("S", "a", "T", "U"):
        await ward.enters(name)
    order = []
    for _ in range(3):
        assert len(ward.inside) == 1
        order += ward.inside
        await ward.leaves(*ward.inside)
    assert sorted(order) == ["S", "T", "U"]
    assert ward.inside == ["a"]
    await ward.end()


@pytest.mark.parametrize("where", ["waiting", "inside"])
@pytest.mark.parametrize("name", ["S", "b"])
async def test_one_that_is_cancelled_leaves_nothing_locked(name: str, where: str) -> None:
    ward = Ward()
    before = "" if where == "inside" else ("a" if name == "S" else "T")
    for each in (*before, name):
        await ward.enters(each)
    assert (name in ward.inside) == (where == "inside")
    await ward.gives_up(name)
    await ward.enters("c")
    await ward.enters("U")
    await ward.leaves(*before)
    await ward.leaves("c")
    assert ward.inside == ["U"]
    await ward.leaves("U")
    await ward.enters("d")
    assert ward.inside == ["d"]
    await ward.end()


async def test_a_waiting_suspect_that_gives_up_lets_the_others_in_at_once() -> None:
    ward = Ward()
    for name in ("a", "S", "b"):
        await ward.enters(name)
    assert ward.inside == ["a"]
    await ward.gives_up("S")
    assert ward.inside == ["a", "b"]
    await ward.end()


async def test_an_error_inside_gives_the_turn_back() -> None:
    quarantine = Quarantine()
    for suspect in (True, False, True):
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(5), quarantine.turn(suspect=suspect):
                raise ZeroDivisionError


@pytest.mark.parametrize("order", [*itertools.permutations("abST")], ids="".join)
async def test_in_any_order_a_suspect_is_never_with_another_and_all_get_their_turn(order: tuple[str, ...]) -> None:
    ward = Ward()
    for name in order:
        await ward.enters(name)
    for _ in order:
        await ward.leaves(*ward.inside[:1])
    assert all(len(group) == 1 for group in ward.seen if any(name.isupper() for name in group))
    assert {name for group in ward.seen for name in group} == set(order)
    assert not ward.inside
    await ward.end()
