"""The engine on a real store: what each kind of error leads to, how many at once, and that it never spins."""

import asyncio
import contextlib
import errno
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from fakes.backends import Fake
from rig.events import Kept, until
from topicd.backlog import Ready
from topicd.durable import Disk, Durable, Steps
from topicd.engine import Engine
from topicd.errors import Awaited, Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable
from topicd.gate import StorageGate
from topicd.job import Job, Trouble
from topicd.policy import Policy
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.telemetry.events import Event, Events
from topicd.workspace import Workspace

LIMIT_S = 20.0
QUICK = Policy(attempts_max=3, crashes_max=3, retry_first_s=0.1, retry_max_s=10, down_first_s=0.1, down_max_s=10)
R = TypeVar("R")
Way = Callable[[Job], Awaitable[None]]


class Work:
    """A stage whose way with a job is the test's."""

    def __init__(self, *ways: Way) -> None:
        self.backend = Fake()
        self.ways = list(ways)
        self.calls: list[tuple[float, str]] = []
        self.now: set[str] = set()
        self.most = 0

    async def run(self, job: Job, space: Workspace) -> None:
        """Go the next way; the last one for ever."""
        assert space.path.name == job.id
        self.calls.append((time.monotonic(), job.id))
        way = self.ways.pop(0) if len(self.ways) > 1 else (self.ways or [good])[0]
        self.now.add(job.id)
        self.most = max(self.most, len(self.now))
        try:
            await way(job)
        finally:
            self.now.discard(job.id)

    @property
    def ids(self) -> list[str]:
        return [name for _, name in self.calls]

    def gaps(self) -> list[float]:
        return [after - before for (before, _), (after, _) in zip(self.calls, self.calls[1:], strict=False)]


async def good(_: Job) -> None:
    await asyncio.sleep(0)


def takes(seconds: float) -> Way:
    async def way(_: Job) -> None:
        await asyncio.sleep(seconds)

    return way


def waits(event: asyncio.Event) -> Way:
    async def way(_: Job) -> None:
        await event.wait()

    return way


class Together:
    """A way that so many go at once: each waits until all of them are in work, however slowly they are begun."""

    def __init__(self, count: int, then: Way) -> None:
        self._count = count
        self._then = then
        self._in_work = 0
        self._all_are = asyncio.Event()

    async def __call__(self, job: Job) -> None:
        self._in_work += 1
        if self._in_work == self._count:
            self._all_are.set()
        await self._all_are.wait()
        await self._then(job)


def raises(error: BaseException) -> Way:
    async def way(_: Job) -> None:
        await asyncio.sleep(0)
        raise error

    return way


class Counting(Store):
    """A store that counts how often it is asked what may be begun."""

    looks = 0

    def ready(self, stage: Stage, busy: Collection[str], limit: int, *, look: bool = True) -> Ready:
        self.looks += 1
        return super().ready(stage, busy, limit, look=look)


class Rig:
    """An engine on a home of its own."""

    def __init__(
        self,
        home: Path,
        works: Mapping[Stage, Work] | None = None,
        *,
        limit: int = 1,
        policy: Policy = QUICK,
        store: Callable[[Spool, Durable], Store] = Counting,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spool = Spool(home=home, input_dir=home / "input", output_dir=home / "output")
        self.store = store(self.spool, Durable())
        self.store.open()
        self.kept = Kept()
        events = Events([self.kept])
        self.gate = StorageGate(
            root=self.spool.root, durable=self.store.durable, events=events, min_free_bytes=0, clock=clock
        )
        self.works = {stage: (works or {}).get(stage, Work()) for stage in Stage}
        self.engine = Engine(
            store=self.store,
            works=self.works,
            limits=dict.fromkeys(Stage, limit),
            events=events,
            gate=self.gate,
            policy=policy,
        )

    def claim(self, name: str = "a.md", stage: Stage = Stage.SCRIPTS) -> str:
        """Make a job, waiting in a stage."""
        (self.spool.input / name).write_text("# Topic\n")
        job = self.store.claim(self.spool.input / name, sha256="", size=8)
        if stage != Stage.SCRIPTS:
            (self.spool.place(Stage.SCRIPTS) / job.id).rename(self.spool.place(stage) / job.id)
        return job.id

    def claims(self, count: int, stage: Stage = Stage.SCRIPTS) -> list[str]:
        return [self.claim(f"{number}.md", stage) for number in range(count)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.store.recover()
        task = asyncio.create_task(self.engine.run())
        try:
            yield
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=LIMIT_S)
            assert task.done(), "it stops when it is told to"

    def where(self, name: str) -> list[str]:
        return [str(place) for place in (*SPOOL_PLACES, DONE) if (self.spool.place(place) / name).is_dir()]

    def marked(self) -> list[str]:
        """Return the jobs that are in hand, as the tree tells."""
        return [marker.job for stage in Stage for marker in self.spool.survey(stage).markers]

    def job(self, name: str) -> Job:
        [place] = self.where(name)
        return self.spool.read_job(self.spool.place(place) / name)

    def reason(self, name: str) -> Trouble:
        reason = self.spool.read_reason(self.spool.place(Aside.FAILED) / name)
        assert reason
        return reason

    async def failed(self, *names: str) -> None:
        await until(lambda: all(self.where(name) == ["failed"] for name in names), f"{names} in failed/")

    async def done(self, *names: str) -> None:
        await until(lambda: all(self.where(name) == ["output"] for name in names), f"{names} done")

    async def told(self, event: str, times: int = 1) -> list[Event]:
        await until(lambda: len(self.kept.of(event)) >= times, f"{event} {times} times")
        return self.kept.of(event)


def die(spool: Spool, stage: Stage, *names: str) -> None:
    """Begin jobs as a daemon does that then dies."""
    dead = Store(spool, Durable())
    dead.recover()
    for name in names:
        dead.begin(stage, name)


async def test_a_job_goes_all_the_way(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.claim()
    async with rig.running():
        await rig.done(name)
        await rig.told("job.done")
    steps = [(event.name, event.fields.get("stage")) for event in rig.kept.events]
    assert steps == [
        *((step, stage) for stage in Stage for step in ("stage.started", "stage.finished")),
        ("job.done", None),
    ]
    assert rig.kept.of("job.done")[0].fields["output"] == f"output/{name}"


async def test_rejected_fails_at_once_and_the_next_goes_on(tmp_path: Path) -> None:
    rejected = Rejected("prompt_refused", "the model refuses", hint="say it otherwise", unit="script")
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(rejected), good)})
    bad, fine = rig.claims(2)
    async with rig.running():
        await rig.failed(bad)
        await rig.done(fine)
    reason = rig.reason(bad)
    assert (reason.stage, reason.unit, reason.cause, reason.message, reason.hint, reason.next_try) == (
        "scripts",
        "script",
        "prompt_refused",
        "the model refuses",
        "say it otherwise",
        "",
    )
    assert rig.works[Stage.SCRIPTS].ids.count(bad) == 1
    assert not rig.marked()


async def test_retry_later_is_tried_again_later_each_time_then_fails(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(RetryLater("no_luck", "no luck", hint="wait")))})
    name = rig.claim()
    async with rig.running():
        await rig.failed(name)
    work = rig.works[Stage.SCRIPTS]
    assert len(work.calls) == QUICK.attempts_max
    assert [gap >= least for gap, least in zip(work.gaps(), (0.1, 0.2), strict=True)] == [True, True]
    assert rig.job(name).attempts["scripts"] == QUICK.attempts_max
    assert (rig.reason(name).cause, rig.reason(name).next_try) == ("no_luck", "")
    assert [event.fields["attempt"] for event in rig.kept.of("job.deferred")] == [1, 2]


async def test_what_is_on_its_way_is_waited_for_without_an_attempt_and_others_go_on(tmp_path: Path) -> None:
    waiting = {"is_on_its_way": True}

    async def way(job: Job) -> None:
        if waiting["is_on_its_way"] and "wants" in job.source:
            raise Awaited("voice_fetching", "it is being fetched", after_s=0.0)
        await good(job)

    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(way)})
    name = rig.claim("wants.md")
    async with rig.running():
        await until(lambda: len(rig.kept.of("job.waiting")) > QUICK.attempts_max, "more looks than attempts")
        other = rig.claim("other.md")
        rig.engine.hint(Stage.SCRIPTS)
        await rig.done(other)
        job = rig.job(name)
        assert job.attempts in ({}, {"scripts": 1}), "at most the one in hand"
        assert job.last_error
        assert (job.last_error.cause, bool(job.last_error.next_try)) == ("voice_fetching", True)
        assert not rig.kept.of("backend.unavailable")
        waiting["is_on_its_way"] = False
        await rig.done(name)
    assert not rig.kept.of("job.deferred")


async def test_the_wait_is_on_disk_with_its_reason_and_holds_after_a_restart(tmp_path: Path) -> None:
    slow = replace(QUICK, retry_first_s=600, retry_max_s=3600)
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(RetryLater("no_luck", "no luck")))}, policy=slow)
    name = rig.claim()
    async with rig.running():
        await rig.told("job.deferred")
    job = rig.job(name)
    assert 590 < job.not_before_s - time.time() <= 660
    assert not rig.marked()
    assert job.last_error
    assert (job.last_error.cause, bool(job.last_error.next_try)) == ("no_luck", True)
    again = Rig(tmp_path, policy=slow)
    other = again.claim("b.md")
    async with again.running():
        await again.done(other)
        assert again.where(name) == ["scripts"], "a deferred job holds nobody up, and is not begun early"
    assert not again.job(name).crashes


async def test_a_server_that_asks_for_more_time_gets_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(RetryLater("busy", "too many requests", after_s=900)))})
    name = rig.claim()
    async with rig.running():
        await rig.told("job.deferred")
    assert rig.job(name).not_before_s - time.time() > 890


@pytest.mark.parametrize(
    ("attempts", "asked_s", "least_s", "most_s"),
    [
        (1, None, 30, 33),
        (2, None, 60, 66),
        (3, None, 120, 132),
        (20, None, 3600, 3960),
        (10_000, None, 3600, 3960),
        (1, 7.0, 30, 33),
        (1, 500.0, 500, 500),
    ],
)
def test_waits_double_are_spread_and_have_a_bound(
    attempts: int, asked_s: float | None, least_s: float, most_s: float
) -> None:
    policy = replace(QUICK, retry_first_s=30, retry_max_s=3600)
    waits_s = [policy.retry_in_s(attempts, asked_s) for _ in range(100)]
    assert least_s <= min(waits_s) <= max(waits_s) <= most_s
    assert len(set(waits_s)) > 1 or asked_s == most_s


@pytest.mark.parametrize("error", [Unavailable("refused", "it is off"), Unusable("no_model", "no such model")])
async def test_a_backend_that_is_away_costs_no_attempt_and_is_asked_less_and_less_often(
    tmp_path: Path, error: TopicdError
) -> None:
    policy = replace(QUICK, attempts_max=1, down_first_s=0.1, down_max_s=0.4)
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(*[raises(error)] * 5, good)}, policy=policy)
    name = rig.claim()
    async with rig.running():
        await rig.told("backend.unavailable", 2)
        await until(lambda: not rig.marked(), "it is given back")
        assert rig.job(name).attempts == {}
        assert rig.engine.lanes[Stage.SCRIPTS].trouble is error
        await rig.told("backend.available")
        await rig.done(name)
    factor = 4 if isinstance(error, Unusable) else 1
    least = [min(0.1 * 2**n * factor, 0.4) for n in range(5)]
    assert all(gap >= wait for gap, wait in zip(rig.works[Stage.SCRIPTS].gaps(), least, strict=True))
    assert rig.engine.lanes[Stage.SCRIPTS].trouble is None
    assert rig.job(name).attempts == {}
    assert not rig.kept.of("job.failed")


async def test_one_stage_that_waits_does_not_hold_up_the_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(Unavailable("refused", "it is off")))})
    stuck, free = rig.claim("a.md"), rig.claim("b.md", Stage.AUDIO)
    async with rig.running():
        await rig.told("backend.unavailable")
        await rig.done(free)
    assert rig.where(stuck) == ["scripts"]


async def test_a_backend_that_was_away_is_asked_with_one_job_then_all_go(tmp_path: Path) -> None:
    up = asyncio.Event()

    async def way(_: Job) -> None:
        await asyncio.sleep(0.02)
        if not up.is_set():
            raise Unavailable("refused", "it is off")

    first_four, last_four = Together(4, way), Together(4, way)

    async def way_of_all(job: Job) -> None:
        if not rig.kept.of("backend.unavailable"):
            await first_four(job)
        else:
            await (last_four if rig.kept.of("backend.available") else way)(job)

    work = Work(way_of_all)
    policy = replace(QUICK, down_first_s=0.1, down_max_s=0.1)
    rig = Rig(tmp_path, {Stage.SCRIPTS: work}, limit=4, policy=policy)
    names = rig.claims(8)
    async with rig.running():
        await rig.told("backend.unavailable")
        assert work.most == 4
        await until(lambda: not work.now, "all four are back")
        work.most = 0
        first = len(work.calls)
        await until(lambda: len(work.calls) >= first + 3, "three more looks")
        assert work.most == 1, "one job asks for all"
        assert set(work.ids[first:]) == {names[0]}, "the oldest"
        up.set()
        await rig.done(*names)
        assert work.most == 4
    assert len(rig.kept.of("backend.available")) == 1


async def test_jobs_that_find_it_away_together_count_as_one_look(tmp_path: Path) -> None:
    policy = replace(QUICK, down_first_s=0.2, down_max_s=1000)
    away = Together(8, raises(Unavailable("refused", "it is off")))
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(away)}, limit=8, policy=policy)
    rig.claims(8)
    async with rig.running():
        work = rig.works[Stage.SCRIPTS]
        await until(lambda: len(work.calls) == 8 and not work.now, "all have found it away")
        # Eight doublings from 0.2 s would be a wait of 25 s.
        await until(lambda: len(work.calls) > 8, "the next look", 20)
        assert work.gaps()[-1] >= 0.2
    assert len(rig.kept.of("backend.unavailable")) <= 2, "and are told once"


async def test_the_time_a_server_names_is_kept_up_to_the_bound(tmp_path: Path) -> None:
    errors = [Unavailable("loading", "it is loading", after_s=after_s) for after_s in (0.4, 3600.0)]
    policy = replace(QUICK, down_first_s=0.05, down_max_s=0.6)
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(*map(raises, errors), good)}, policy=policy)
    name = rig.claim()
    async with rig.running():
        await rig.done(name)
    first, second = rig.works[Stage.SCRIPTS].gaps()
    assert first >= 0.4
    assert second >= 0.6


async def test_storage_trouble_pauses_everything_and_goes_on_by_itself(tmp_path: Path) -> None:
    full = StorageTrouble("disk_full", "no space left", hint="free some")
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(full), good)}, policy=replace(QUICK, attempts_max=1))
    name = rig.claim()
    async with rig.running():
        await rig.told("storage.trouble")
        assert rig.gate.trouble
        other = rig.claim("b.md", Stage.AUDIO)  # before the loop can open the gate again
        rig.engine.hint(Stage.AUDIO)
        await until(lambda: not rig.marked(), "the attempt is given back")
        await rig.told("storage.ok")
        await rig.done(name, other)
    assert len(rig.kept.of("storage.trouble")) == 1
    told = [event.name for event in rig.kept.events]
    assert "stage.started" not in told[told.index("storage.trouble") : told.index("storage.ok")]


class Full(Store):
    """A store on a disk that is full for its first calls of one verb."""

    verb = "finish"
    left = 1

    def _full(self, verb: str) -> None:
        if verb == self.verb and self.left:
            self.left -= 1
            raise StorageTrouble("disk_full", "no space left", hint="free some")

    async def commit(self, steps: Steps[R]) -> R:
        self._full(getattr(steps, "__name__", ""))
        return await super().commit(steps)


@pytest.mark.parametrize(
    ("verb", "ways"),
    [
        ("begin", [good]),
        ("finish", [good]),
        ("defer", [raises(RetryLater("no_luck", "no luck")), good]),
        ("give_back", [raises(Unavailable("refused", "it is off")), good]),
    ],
)
async def test_a_disk_that_is_full_at_a_move_costs_neither_attempt_nor_crash(
    tmp_path: Path, verb: str, ways: list[Way]
) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(*ways)}, store=Full)
    assert isinstance(rig.store, Full)
    rig.store.verb = verb
    name = rig.claim()
    async with rig.running():
        await rig.told("storage.trouble")
        await rig.done(name)
    job = rig.job(name)
    assert not job.crashes
    assert job.attempts.get("scripts", 0) < len(ways)
    assert not rig.kept.of("job.failed")


async def test_a_disk_that_is_full_when_a_job_fails_is_a_pause_and_the_job_fails_later(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(Rejected("no", "no")))}, store=Full)
    assert isinstance(rig.store, Full)
    rig.store.verb = "fail"
    name = rig.claim()
    async with rig.running():
        await rig.told("storage.trouble")
        await rig.failed(name)
    assert rig.reason(name).cause == "no"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "a"), OSError(5, "Input/output error", "a")], ids=["full", "ill"]
)
async def test_a_disk_that_is_full_under_a_stage_is_a_pause(tmp_path: Path, error: OSError) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(error), good)}, policy=replace(QUICK, attempts_max=1))
    name = rig.claim()
    async with rig.running():
        await rig.told("storage.trouble")
        await rig.done(name)
    assert not rig.kept.of("job.failed")


async def test_a_job_that_a_person_moves_away_in_mid_work_is_let_go(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.AUDIO: Work(waits(asyncio.Event()), good)})
    name = rig.claim(stage=Stage.AUDIO)
    other = rig.claim("b.md", Stage.AUDIO)
    async with rig.running():
        await until(lambda: rig.works[Stage.AUDIO].now, "it is in work")
        move(rig, name, Stage.AUDIO, Aside.HELD)
        rig.engine.hint(Stage.AUDIO)
        await rig.told("job.moved_away")
        await rig.done(other)
        assert not rig.works[Stage.AUDIO].now
        move(rig, name, Aside.HELD, Stage.AUDIO)
        rig.engine.hint(Stage.AUDIO)
        await rig.done(name)
    assert not rig.job(name).crashes


def move(rig: Rig, name: str, source: str, target: str) -> None:
    (rig.spool.place(source) / name).rename(rig.spool.place(target) / name)


async def test_a_job_that_is_back_before_its_work_noticed_that_it_was_away_is_in_hand_once(tmp_path: Path) -> None:
    end = asyncio.Event()
    rig = Rig(tmp_path, {Stage.AUDIO: Work(waits(end))}, limit=2)
    name = rig.claim(stage=Stage.AUDIO)
    async with rig.running():
        await until(lambda: rig.works[Stage.AUDIO].now, "it is in work")
        await opened(rig, Stage.AUDIO)
        move(rig, name, Stage.AUDIO, Stage.SCRIPTS)
        rig.engine.hint(Stage.SCRIPTS)
        await until(lambda: rig.kept.of("stage.finished"), "it is back")
        end.set()
        await rig.done(name)
    assert rig.works[Stage.AUDIO].ids == [name]
    assert not rig.marked()


async def test_file_not_found_in_a_job_that_was_moved_away_is_no_fault(tmp_path: Path) -> None:
    async def way(job: Job) -> None:
        move(rig, job.id, Stage.SCRIPTS, Aside.HELD)
        raise FileNotFoundError(2, "No such file or directory", "topic.md")

    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(way)})
    name = rig.claim()
    async with rig.running():
        await rig.told("job.moved_away")
    assert rig.where(name) == ["held"]
    assert not rig.kept.of("stage.bug")


async def test_a_job_that_is_moved_as_its_work_ends_is_no_fault(tmp_path: Path) -> None:
    async def way(job: Job) -> None:
        await asyncio.sleep(0)
        move(rig, job.id, Stage.SCRIPTS, Aside.HELD)

    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(way)})
    name = rig.claim()
    async with rig.running():
        await rig.told("job.moved_away")
    assert rig.where(name) == ["held"]


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        FileNotFoundError(2, "No such file or directory", "scenes.json"),
        PermissionError(13, "Permission denied", "audio"),
        OSError(1, "Operation not permitted"),
        TimeoutError(),
        ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
        RecursionError("too deep"),
        UnicodeError("\udcff"),
        TopicdError("odd", "of no class"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_any_other_error_is_a_bug_told_with_its_traceback_and_the_lane_goes_on(
    tmp_path: Path, error: Exception
) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(error), good)})
    bad, fine = rig.claims(2)
    async with rig.running():
        await rig.failed(bad)
        await rig.done(fine)
    reason = rig.reason(bad)
    assert reason.cause == "bug"
    assert type(error).__name__ in reason.message
    assert len(rig.kept.of("stage.bug")) == 1
    assert len(rig.works[Stage.SCRIPTS].ids) == 2


async def test_a_stage_that_raises_cancelled_by_itself_does_not_spin(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(raises(asyncio.CancelledError()))})
    name = rig.claim()
    async with rig.running():
        await rig.told("stage.started")
        await asyncio.sleep(0.5)
        assert len(rig.works[Stage.SCRIPTS].calls) <= QUICK.attempts_max
    assert rig.where(name)


@pytest.mark.parametrize("stage", Stage)
async def test_a_move_that_is_refused_puts_the_job_aside(tmp_path: Path, stage: Stage) -> None:
    rig = Rig(tmp_path)
    bad = rig.claim("a.md", stage)
    (rig.spool.place(stage.next or DONE) / bad / "in-the-way").mkdir(parents=True)
    async with rig.running():
        await until(lambda: "failed" in rig.where(bad), "it is put aside")
        fine = rig.claim("b.md", stage)
        rig.engine.hint(stage)
        await rig.done(fine)
    assert rig.reason(bad).cause == "move_refused"
    assert str(bad) in rig.reason(bad).message
    assert rig.works[stage].ids.count(bad) == 1
    assert (rig.spool.place(stage.next or DONE) / bad / "in-the-way").is_dir()
    assert len(rig.kept.of("job.failed")) >= 1


async def test_a_job_that_can_neither_go_on_nor_aside_does_not_hold_up_the_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    bad, fine = rig.claims(2)
    for place in (Stage.AUDIO, Aside.FAILED):
        (rig.spool.place(place) / bad / "in-the-way").mkdir(parents=True)
    async with rig.running():
        await rig.done(fine)
        await asyncio.sleep(0.3)
        assert rig.works[Stage.SCRIPTS].ids.count(bad) < 10
    assert (rig.spool.place(Stage.SCRIPTS) / bad / "topic.md").exists()


DAMAGE = {
    "cut": b'{"id": "2026',
    "list": b"[]",
    "binary": b"\x00\xff\xfe",
    "another job's": b'{"id":"x","source":"a","sha256":"","bytes":1,"accepted":"","accepted_s":0.0}',
    "words": b'{"id":"x","source":"a","sha256":"","bytes":1,"accepted":"","accepted_s":0,"attempts":{"a":""}}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_job_is_put_aside_with_the_damaged_file_kept(tmp_path: Path, damage: str) -> None:
    rig = Rig(tmp_path)
    bad, fine = rig.claims(2)
    (rig.spool.place(Stage.SCRIPTS) / bad / "job.json").write_bytes(DAMAGE[damage])
    async with rig.running():
        await rig.failed(bad)
        await rig.done(fine)
    folder = rig.spool.place(Aside.FAILED) / bad
    assert (folder / "job.json").read_bytes() == DAMAGE[damage]
    assert (folder / "topic.md").read_text() == "# Topic\n"
    assert rig.reason(bad).cause == "job_damaged"
    assert "job.json" in rig.reason(bad).message
    assert bad not in rig.works[Stage.SCRIPTS].ids
    assert len(rig.kept.of("job.damaged")) == 1


@pytest.mark.parametrize("put", [Path.mkdir, lambda path: path.symlink_to("/etc/hostname"), os.mkfifo])
async def test_what_is_no_file_in_the_place_of_job_json_is_damage(tmp_path: Path, put: Callable[[Path], None]) -> None:
    rig = Rig(tmp_path)
    bad = rig.claim()
    path = rig.spool.place(Stage.SCRIPTS) / bad / "job.json"
    path.unlink()
    put(path)
    async with rig.running():
        await rig.failed(bad)
    assert rig.reason(bad).cause == "job_damaged"


async def test_a_job_without_its_file_goes_on(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.claim()
    (rig.spool.place(Stage.SCRIPTS) / name / "job.json").unlink()
    async with rig.running():
        await rig.done(name)


async def test_a_job_that_took_the_daemon_down_too_often_is_not_begun_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    guilty, fine = rig.claims(2)
    for _ in range(QUICK.crashes_max):
        die(rig.spool, Stage.SCRIPTS, guilty)
    async with rig.running():
        await rig.failed(guilty)
        await rig.done(fine)
    assert guilty not in rig.works[Stage.SCRIPTS].ids
    assert rig.reason(guilty).cause == "crash_loop"
    assert str(QUICK.crashes_max) in rig.reason(guilty).message
    assert rig.job(guilty).crashes == {"scripts": QUICK.crashes_max}


async def test_one_death_fewer_is_another_chance(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    name = rig.claim()
    for _ in range(QUICK.crashes_max - 1):
        die(rig.spool, Stage.SCRIPTS, name)
    async with rig.running():
        await rig.done(name)
    assert rig.job(name).crashes == {"scripts": QUICK.crashes_max - 1}
    assert rig.kept.of("job.crashed")[0].fields["crashes"] == QUICK.crashes_max - 1


async def test_those_that_were_in_work_at_a_death_are_run_alone(tmp_path: Path) -> None:
    now, together = set[str](), list[set[str]]()

    async def way(job: Job) -> None:
        now.add(job.id)
        together.append(set(now))
        await asyncio.sleep(0.03)
        now.discard(job.id)

    works = {stage: Work(way) for stage in Stage}
    rig = Rig(tmp_path, works, limit=4)
    suspects = [*rig.claims(2), rig.claim("s.md", Stage.IMAGES)]
    others = [rig.claim(f"{stage}-{n}.md", stage) for stage in Stage for n in range(3)]
    die(rig.spool, Stage.SCRIPTS, *suspects[:2])
    die(rig.spool, Stage.IMAGES, suspects[2])
    async with rig.running():
        await rig.done(*suspects, *others)
    first = {name: next(group for group in together if name in group) for name in suspects}
    assert first == {name: {name} for name in suspects}
    assert max(map(len, together)) > 1, "the others work together"


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_than_the_limit_at_once_oldest_first(tmp_path: Path, limit: int) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(Together(limit, takes(0.02)))}, limit=limit)
    names = rig.claims(7)
    async with rig.running():
        await rig.done(*names)
    assert rig.works[Stage.SCRIPTS].most == limit
    # Those that are begun together are begun by as many threads.
    for place, name in enumerate(rig.works[Stage.SCRIPTS].ids):
        assert abs(place - names.index(name)) < limit


async def test_a_slot_that_becomes_free_is_filled_while_others_work_on(tmp_path: Path) -> None:
    forever = asyncio.Event()

    async def way(job: Job) -> None:
        if job.source == "0.md":
            await forever.wait()

    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(way)}, limit=2)
    slow, *others = rig.claims(4)
    async with rig.running():
        await rig.done(*others)
        assert rig.where(slow) == ["scripts"]
        forever.set()
        await rig.done(slow)


async def test_being_stopped_gives_the_attempt_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(waits(asyncio.Event()))}, limit=3)
    names = rig.claims(3)
    async with rig.running():
        await until(lambda: len(rig.works[Stage.SCRIPTS].now) == 3, "all are in work")
        assert sorted(rig.marked()) == names
    assert [rig.job(name).attempts for name in names] == [{}] * 3
    assert not rig.marked()
    assert len(rig.kept.of("job.given_back")) == 3


@pytest.mark.parametrize(
    "state", ["idle", "deferred", "closed", "full", "storage", "damaged input", "a claim in progress"]
)
async def test_a_lane_that_waits_does_not_spin(tmp_path: Path, state: str) -> None:
    long = replace(QUICK, retry_first_s=600, retry_max_s=600, down_first_s=600, down_max_s=600)
    ways: dict[str, Way] = {
        "deferred": raises(RetryLater("no_luck", "no luck")),
        "closed": raises(Unavailable("refused", "it is off")),
        "full": waits(asyncio.Event()),
        "storage": raises(StorageTrouble("disk_full", "no space left")),
    }
    told = {
        "deferred": "job.deferred",
        "closed": "backend.unavailable",
        "full": "stage.started",
        "storage": "storage.trouble",
    }
    # A disk in trouble shall not be looked at again meanwhile.
    clock = (lambda: 0.0) if state == "storage" else time.monotonic
    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(ways.get(state, good))}, policy=long, clock=clock)
    assert isinstance(rig.store, Counting)
    if state in ways:
        rig.claims(2 if state == "full" else 1)
    if state == "a claim in progress":
        (rig.spool.place(Stage.SCRIPTS) / "20260101-000000-000000-a").mkdir()
    async with rig.running():
        if state in told:
            await rig.told(told[state])
        await at_rest(rig.store)
        before = rig.store.looks
        assert before <= 12, "three first looks, and few more"
        cpu_s = time.process_time()
        await asyncio.sleep(0.6)
        cpu_s = time.process_time() - cpu_s
        assert rig.store.looks - before <= 1, state
    assert cpu_s < 0.4, "nothing is done, so nothing is spent"


async def at_rest(store: Counting, rest_s: float = 0.2) -> None:
    """Wait until every lane has had its first look and none has looked for a while."""
    looks, since_s = 0, time.monotonic()

    def rests() -> bool:
        nonlocal looks, since_s
        if store.looks != looks:
            looks, since_s = store.looks, time.monotonic()
        return looks >= len(Stage) and time.monotonic() - since_s > rest_s

    await until(rests, "the lanes are at rest")


async def test_many_hints_are_one_look(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    assert isinstance(rig.store, Counting)
    async with rig.running():
        await at_rest(rig.store)
        before = rig.store.looks
        for _ in range(1000):
            rig.engine.hint(Stage.SCRIPTS)
        await until(lambda: rig.store.looks > before, "a look")  # type: ignore[attr-defined]
        await at_rest(rig.store)
        assert rig.store.looks - before <= 2


class Overtaken(Store):
    """A store with whose first look something happens between the look and its answer."""

    happens: Callable[[], None] | None = None

    def ready(self, stage: Stage, busy: Collection[str], limit: int, *, look: bool = True) -> Ready:
        found = super().ready(stage, busy, limit, look=look)
        if stage == Stage.SCRIPTS and self.happens:
            happens, self.happens = self.happens, None
            happens()
        return found


async def test_a_hint_in_mid_look_is_not_lost(tmp_path: Path) -> None:
    rig = Rig(tmp_path, store=Overtaken)
    assert isinstance(rig.store, Overtaken)
    loop = asyncio.get_running_loop()
    names: list[str] = []

    def happens() -> None:
        names.append(rig.claim())
        asyncio.run_coroutine_threadsafe(hint(), loop).result(LIMIT_S)

    async def hint() -> None:
        rig.engine.hint(Stage.SCRIPTS)

    rig.store.happens = happens
    async with rig.running():
        await until(lambda: names, "the look")
        await rig.done(*names)


async def test_jobs_that_come_while_others_are_in_work_are_all_done(tmp_path: Path) -> None:
    rig = Rig(tmp_path, limit=2)
    async with rig.running():
        for number in range(40):
            rig.claim(f"{number}.md")
            rig.engine.hint(Stage.SCRIPTS)
            await asyncio.sleep(0.001 * (number % 5))
        await until(lambda: len(rig.spool.ids(DONE)) == 40, "all are done")


class HoldingDisk(Disk):
    """Once armed, holds the fsyncs of one stage's directory until they are let go."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.is_armed = False
        self.holds = threading.Event()
        self.let_go = threading.Event()

    def fsync(self, fd: int) -> None:
        if self.is_armed and Path(f"/proc/self/fd/{fd}").readlink().name == self.stage:
            self.holds.set()
            assert self.let_go.wait(LIMIT_S)
        super().fsync(fd)

    def let_go_soon(self) -> None:
        asyncio.get_running_loop().call_later(0.05, self.let_go.set)


async def opened(rig: Rig, stage: Stage) -> None:
    """Wait until a stage would keep a place for a job that comes."""
    lane = rig.engine.lanes[stage]

    def would_keep() -> bool:
        if not lane.reserve():
            return False
        lane._reserved -= 1
        return True

    rig.gate._fresh_until = math.inf  # however slow this machine is
    await until(would_keep, f"{stage} is open")


@pytest.mark.parametrize("state", ["waiting", "suspect", "away", "full"])
async def test_a_place_is_kept_only_where_a_job_would_be_begun_at_once(tmp_path: Path, state: str) -> None:
    rig = Rig(tmp_path)
    async with rig.running(), contextlib.AsyncExitStack() as stack:
        lane = rig.engine.lanes[Stage.AUDIO]
        await rig.gate.storage_ready()
        await opened(rig, Stage.AUDIO)
        match state:
            case "waiting":
                lane.expect()
            case "suspect":
                await stack.enter_async_context(rig.engine.quarantine.turn(suspect=True))
            case "away":
                lane._breaker.away(Unavailable("refused", "it is off"))
            case _:
                assert lane.reserve()
        assert not lane.reserve()


@contextlib.asynccontextmanager
async def handing_over(home: Path) -> AsyncIterator[tuple[Rig, HoldingDisk, str]]:
    """Run an engine whose one job has come from scripts to audio with its next attempt, and is not yet taken over."""
    disk, ends = HoldingDisk(Stage.AUDIO), asyncio.Event()
    rig = Rig(home, {Stage.SCRIPTS: Work(waits(ends))}, limit=2, store=lambda spool, _: Counting(spool, Durable(disk)))
    name = rig.claim()
    async with rig.running():
        await until(lambda: rig.works[Stage.SCRIPTS].now, "it is in work")
        await opened(rig, Stage.AUDIO)
        disk.is_armed = True
        ends.set()
        await until(disk.holds.is_set, "the move")
        assert rig.where(name) == ["audio"]
        assert rig.marked() == [name]
        yield rig, disk, name
        disk.let_go_soon()


async def test_a_job_that_is_seen_on_its_way_is_begun_once(tmp_path: Path) -> None:
    async with handing_over(tmp_path) as (rig, disk, name):
        store = rig.store
        assert isinstance(store, Counting)
        for _ in range(4):  # a look is over when the next one has begun
            before = store.looks
            rig.engine.hint(Stage.AUDIO)
            await until(lambda before=before: store.looks > before, "a look")  # type: ignore[misc]
        assert not rig.engine.lanes[Stage.AUDIO]._in_hand
        disk.let_go.set()
        await rig.done(name)
    assert rig.works[Stage.AUDIO].ids == [name]


async def test_a_job_that_is_handed_over_to_a_lane_that_stops_is_given_back(tmp_path: Path) -> None:
    async with handing_over(tmp_path) as (rig, _, name):
        pass
    assert rig.where(name) == ["audio"]
    assert not rig.marked()
    assert rig.works[Stage.AUDIO].ids == []


async def test_a_job_that_is_handed_over_as_its_lane_stops_is_given_back(tmp_path: Path) -> None:
    async def suspect(rig: Rig) -> None:
        async with rig.engine.quarantine.turn(suspect=True):
            await asyncio.Event().wait()

    async with handing_over(tmp_path) as (rig, disk, name):
        alone = asyncio.create_task(suspect(rig))
        await asyncio.sleep(0)
        disk.let_go.set()
        await rig.told("stage.started", 2)
    alone.cancel()
    assert rig.where(name) == ["audio"]
    assert not rig.marked()
    assert rig.works[Stage.AUDIO].ids == []


async def test_being_stopped_in_the_middle_of_a_begin_gives_it_back(tmp_path: Path) -> None:
    disk = HoldingDisk(Stage.SCRIPTS)
    rig = Rig(tmp_path, store=lambda spool, _: Store(spool, Durable(disk)))
    name = rig.claim()
    disk.is_armed = True
    async with rig.running():
        await until(disk.holds.is_set, "the begin")
        assert rig.marked() == [name]
        disk.let_go_soon()
    assert rig.where(name) == ["scripts"]
    assert rig.job(name).attempts == {}
    assert not rig.marked()


async def test_a_deferred_job_gets_the_place_that_one_handed_over_held_past_its_time(tmp_path: Path) -> None:
    leave = asyncio.Event()
    works = {Stage.AUDIO: Work(raises(RetryLater("no_luck", "no luck")), waits(leave), good)}
    # What is done until its time comes waits for the disk.
    rig = Rig(tmp_path, works, policy=replace(QUICK, retry_first_s=5.0))
    deferred = rig.claim(stage=Stage.AUDIO)
    async with rig.running():
        await rig.told("job.deferred")
        lane = rig.engine.lanes[Stage.AUDIO]
        await until(lambda: lane.is_idle and lane._is_open, "the lane waits for the deferred one only")
        assert await rig.gate.storage_ready()
        assert lane.reserve()
        other = rig.claim("b.md", Stage.AUDIO)
        await lane.take_over(rig.store.begin(Stage.AUDIO, other).job)
        await until(lambda: time.time() > rig.job(deferred).not_before_s + 0.2, "its time comes")
        leave.set()
        await rig.done(deferred, other)


class Failing(Counting):
    """A store whose next looks fail."""

    refusals = 0

    def ready(self, stage: Stage, busy: Collection[str], limit: int, *, look: bool = True) -> Ready:
        if stage == Stage.SCRIPTS and self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().ready(stage, busy, limit, look=look)


async def test_a_hint_outlives_a_look_that_failed(tmp_path: Path) -> None:
    rig = Rig(tmp_path, store=Failing)
    assert isinstance(rig.store, Failing)
    async with rig.running():
        await until(lambda: rig.engine.lanes[Stage.SCRIPTS]._is_open, "the first look")
        name = rig.claim()
        rig.store.refusals = 1
        rig.engine.hint(Stage.SCRIPTS)
        await rig.done(name)


async def test_a_job_moved_away_in_work_is_in_hand_no_more_though_its_work_saw_it_first(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def way(job: Job) -> None:
        await gone.wait()
        raise FileNotFoundError(errno.ENOENT, "gone", job.id)

    rig = Rig(tmp_path, {Stage.SCRIPTS: Work(way)})
    name = rig.claim()
    async with rig.running():
        await until(lambda: rig.works[Stage.SCRIPTS].now, "in work")
        (rig.spool.place(Stage.SCRIPTS) / name).rename(rig.spool.place(Aside.HELD) / name)
        gone.set()
        await rig.told("job.moved_away")
        await until(lambda: not rig.marked(), "its marker is gone")
