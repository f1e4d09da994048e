"""The engine with a GPU that two stages share: neither is refused, and it passes on far less often than jobs end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.backends import Fake
from integration.test_engine import QUICK, Rig, Way, Work, die, opened, waits
from rig.events import until
from topicd.backends.base import Probe
from topicd.engine import Engine
from topicd.errors import RetryLater, TopicdError, Unavailable
from topicd.gpu import Gpu
from topicd.job import Job
from topicd.policy import Policy
from topicd.states import Stage
from topicd.telemetry.events import Events

AWAY = Unavailable("connect_refused", "it is off")


class Memory:
    """Of a GPU: room for what one backend loads."""

    def __init__(self) -> None:
        self.held_by: Fake | None = None
        self.loads = self.refusals = 0


class Greedy(Fake):
    """A backend that keeps the memory once it has loaded, and cannot load while another keeps it."""

    holds_gpu = True

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.away: TopicdError | None = None

    async def probe(self) -> Probe:
        if self.away:
            raise self.away
        return await super().probe()

    async def free(self) -> None:
        await asyncio.sleep(0)
        if self.memory.held_by is self:
            self.memory.held_by = None

    async def generate(self, _: Job) -> None:
        if self.away:
            raise self.away
        if self.memory.held_by not in (None, self):
            self.memory.refusals += 1
            raise RetryLater("server_error", "out of memory")
        self.memory.loads += self.memory.held_by is None
        self.memory.held_by = self
        await asyncio.sleep(0.002)


class GpuRig(Rig):
    """An engine whose stages `scripts` and `images` hold the GPU."""

    def __init__(
        self,
        home: Path,
        ways: Mapping[Stage, Way] | None = None,
        *,
        limit: int = 1,
        policy: Policy = QUICK,
        with_turns: bool = True,
        between_jobs_s_max: float = 1000.0,  # lanes say when they have no more
    ) -> None:
        self.memory = Memory()
        self.backends = {stage: Greedy(self.memory) for stage in (Stage.SCRIPTS, Stage.IMAGES)}
        works = {stage: Work((ways or {}).get(stage, backend.generate)) for stage, backend in self.backends.items()}
        for stage, backend in self.backends.items():
            works[stage].backend = backend
        super().__init__(home, works, limit=limit, policy=policy)
        events = Events([self.kept])
        self.gpu = Gpu(events=events, between_jobs_s_max=between_jobs_s_max)
        self.engine = Engine(
            store=self.store,
            works=self.works,
            limits=dict.fromkeys(Stage, limit),
            events=events,
            gate=self.gate,
            policy=policy,
            gpu=self.gpu if with_turns else None,
        )

    @contextlib.asynccontextmanager
    async def hold(self, stage: Stage) -> AsyncIterator[None]:
        """Have the GPU as the last job of a stage has it."""
        async with self.gpu.turn(stage, self.backends[stage]):
            yield
        self.gpu.rest(stage)


@pytest.mark.parametrize("limit", [1, 3])
async def test_two_stages_share_it_without_a_refusal_and_in_batches(tmp_path: Path, limit: int) -> None:
    rig = GpuRig(tmp_path, limit=limit)
    names = rig.claims(30)
    async with rig.running():
        await rig.done(*names)
    assert not rig.memory.refusals
    assert not rig.kept.of("job.deferred")
    assert not rig.kept.of("gpu.not_freed")
    assert rig.memory.loads <= 12
    assert len(rig.kept.of("gpu.passed")) == rig.memory.loads - 1
    assert all(rig.works[stage].most <= limit for stage in Stage)


async def test_without_turns_they_refuse_each_other(tmp_path: Path) -> None:
    rig = GpuRig(tmp_path, with_turns=False)
    rig.claims(5)
    async with rig.running():
        await rig.told("job.deferred")
    assert rig.memory.refusals


async def test_a_job_that_waits_for_it_has_not_begun(tmp_path: Path) -> None:
    rig = GpuRig(tmp_path)
    name = rig.claim()
    async with rig.running():
        async with rig.hold(Stage.IMAGES):
            await until(lambda: rig.gpu._waiting, "it waits")
            assert not rig.marked()
            assert not rig.kept.of("stage.started")
        await rig.done(name)


async def test_being_stopped_while_a_job_waits_for_it_leaves_no_trace(tmp_path: Path) -> None:
    rig = GpuRig(tmp_path, limit=2)
    names = rig.claims(2)
    async with rig.hold(Stage.IMAGES):
        async with rig.running():
            await until(lambda: rig.gpu._waiting, "they wait")
        assert not rig.gpu._waiting
    assert [rig.where(name) for name in names] == [["scripts"], ["scripts"]]
    assert not rig.marked()
    assert not rig.kept.of("job.given_back")


async def test_no_place_is_kept_where_a_job_would_wait_for_it(tmp_path: Path) -> None:
    rig = GpuRig(tmp_path)
    async with rig.running():
        lane = rig.engine.lanes[Stage.IMAGES]
        await rig.gate.storage_ready()
        await opened(rig, Stage.IMAGES)
        async with rig.hold(Stage.SCRIPTS):
            assert not lane.reserve()
        assert not lane.reserve(), "the memory is to be freed first"
        async with rig.hold(Stage.IMAGES):
            assert lane.reserve()


async def test_one_that_loses_it_on_its_way_waits_for_it_uncounted(tmp_path: Path) -> None:
    rig = GpuRig(tmp_path)
    async with rig.running():
        lane = rig.engine.lanes[Stage.IMAGES]
        await rig.gate.storage_ready()
        for stage in (Stage.SCRIPTS, Stage.IMAGES):  # where the job is claimed, and where it goes
            await opened(rig, stage)
        assert lane.reserve()
        name = rig.claim(stage=Stage.IMAGES)
        job = rig.store.begin(Stage.IMAGES, name).job
        async with rig.hold(Stage.SCRIPTS):
            await lane.take_over(job)
            await rig.told("job.given_back")
            assert not rig.marked()
            assert rig.where(name) == ["images"]
        await rig.done(name)
    assert rig.works[Stage.IMAGES].ids == [name]
    assert not rig.job(name).crashes


async def test_a_stage_whose_backend_is_away_leaves_it_to_the_other(tmp_path: Path) -> None:
    policy = replace(QUICK, down_first_s=0.01, down_max_s=0.02)
    rig = GpuRig(tmp_path, policy=policy)
    images = rig.backends[Stage.IMAGES]
    images.away = AWAY
    waiting = [rig.claim(f"i{number}.md", Stage.IMAGES) for number in range(5)]
    async with rig.running():
        await rig.told("backend.unavailable", 5)
        names = rig.claims(20)
        rig.engine.hint(Stage.SCRIPTS)
        await until(lambda: len(rig.works[Stage.SCRIPTS].ids) == 20, "the other goes on")
        await rig.told("backend.unavailable", 10)
        assert len(rig.works[Stage.IMAGES].ids) <= 1, "it is asked what it is, without the GPU"
        assert len(rig.kept.of("gpu.passed")) <= 1
        images.away = None
        await rig.done(*waiting, *names)
    assert not rig.memory.refusals


async def test_a_stage_whose_backend_only_says_that_it_is_there_does_not_starve_the_other(tmp_path: Path) -> None:
    async def away(_: Job) -> None:
        await asyncio.sleep(0)
        raise AWAY

    rig = GpuRig(tmp_path, {Stage.IMAGES: away}, policy=replace(QUICK, down_first_s=0.01, down_max_s=0.04))
    rig.claim("i.md", Stage.IMAGES)
    async with rig.running():
        names = rig.claims(20)
        rig.engine.hint(Stage.SCRIPTS)
        await until(lambda: len(rig.works[Stage.SCRIPTS].ids) == 20, "the other goes on")
    assert not rig.memory.refusals
    assert len(set(rig.works[Stage.SCRIPTS].ids)) == len(names)


@pytest.mark.parametrize("limit", [1, 4])
async def test_suspects_have_it_too_and_alone(tmp_path: Path, limit: int) -> None:
    # A suspect that comes just between two jobs of another stage is a case for the limit.
    rig = GpuRig(tmp_path, limit=limit, between_jobs_s_max=0.5)
    scripts, images = rig.claims(6), [rig.claim(f"i{number}.md", Stage.IMAGES) for number in range(6)]
    die(rig.spool, Stage.SCRIPTS, scripts[0], scripts[3])
    die(rig.spool, Stage.IMAGES, images[1], images[5])
    async with rig.running():
        await rig.done(*scripts, *images)
    assert not rig.memory.refusals
    assert not rig.kept.of("job.failed")


async def test_a_suspect_is_not_held_up_by_those_that_wait_for_it(tmp_path: Path) -> None:
    ends = asyncio.Event()
    rig = GpuRig(tmp_path, {Stage.SCRIPTS: waits(ends)})
    name, other = rig.claim(), rig.claim("i.md", Stage.IMAGES)
    suspect = rig.claim("s.md", Stage.AUDIO)
    die(rig.spool, Stage.AUDIO, suspect)
    async with rig.running():
        ends.set()
        await rig.done(name, other, suspect)
    assert not rig.memory.refusals
