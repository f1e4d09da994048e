"""A poison job: real processes die by SIGKILL in the work, again and again; it is counted, and it comes to an end."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.backends import FakeScript
from rig.events import LIMIT_S
from rig.pipeline import TOPIC, UNITS, House, claim, product, work
from topicd.backends.base import Backend
from topicd.durable import Durable
from topicd.engine import Engine
from topicd.errors import Rejected
from topicd.gate import StorageGate
from topicd.job import Job
from topicd.policy import Policy
from topicd.spool import DONE
from topicd.states import Aside, Stage
from topicd.telemetry.events import Event, Events
from topicd.workspace import Workspace

CRASHES_MAX = 3
POISONED = """
import os, pathlib, signal, sys
from topicd.backends.base import Backend
from topicd.durable import Durable
from topicd.spool import Spool
from topicd.states import Stage
from topicd.store import Store

home, stage, kept = pathlib.Path(sys.argv[1]), Stage(sys.argv[2]), sys.argv[3:]
store = Store(Spool(home=home, input_dir=home / "input", output_dir=home / "output"), Durable())
store.open()
store.recover()
(name,) = store.ready(stage, (), limit=1).ids
store.begin(stage, name)
for unit in kept:
    store.workspace(stage, name).keep(unit, unit.encode() * 40, made_from=unit, by={}, seconds=0, at=0)
os.kill(os.getpid(), signal.SIGKILL)
"""
POLICY = Policy(
    attempts_max=3, crashes_max=CRASHES_MAX, retry_first_s=0.05, retry_max_s=0.1, down_first_s=0.05, down_max_s=0.1
)


class Kept:
    """Keeps events, and tells when one of a kind has come."""

    def __init__(self, *awaited: str) -> None:
        self.names = list[str]()
        self.awaited = awaited
        self.come = asyncio.Event()

    def see(self, event: Event) -> None:
        self.names.append(event.name)
        if event.name in self.awaited:
            self.come.set()


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "home")
    house.drop()
    return house


def die_in_work(house: House, stage: Stage, *kept: str) -> Job:
    """Let a process begin the job, keep some units, and die. Returns what it left."""
    ended = subprocess.run(
        [sys.executable, "-c", POISONED, str(house.home), stage, *kept], timeout=30, check=False, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (found,) = house.jobs()
    return house.spool.read_job(found.path)


class Making:
    """A stage that makes its units, or refuses every job."""

    def __init__(self, stage: Stage, house: House, *, refuses: bool) -> None:
        self.backend: Backend = FakeScript()
        self._stage = stage
        self._house = house
        self._refuses = refuses

    async def run(self, job: Job, space: Workspace) -> None:
        await asyncio.sleep(0)
        if self._refuses:
            raise Rejected("refused", "never")
        work(self._house.store(), self._stage, job, self._house)
        space.verify()


async def run_engine(house: House, *awaited: str, rest_s: float = 0.0, refuses: bool = False) -> Kept:
    """Run an engine on the house until an event has come, and for a while after it."""
    kept = Kept(*awaited)
    events, store = Events([kept]), house.store()
    store.recover()
    works = {stage: Making(stage, house, refuses=refuses) for stage in Stage}
    gate = StorageGate(root=house.spool.root, durable=Durable(), events=events, min_free_bytes=0)
    engine = Engine(store=store, works=works, limits=dict.fromkeys(Stage, 2), events=events, gate=gate, policy=POLICY)
    task = asyncio.create_task(engine.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            await kept.come.wait()
        await asyncio.sleep(rest_s)
    finally:
        task.cancel()
        await asyncio.wait([task])
    return kept


def test_each_death_in_the_work_is_counted_and_costs_no_attempt(house: House) -> None:
    claim(house.store())
    for deaths in range(3):
        job = die_in_work(house, Stage.SCRIPTS)
        assert job.crashes.get("scripts", 0) == deaths
        assert job.attempts == {}
        assert house.topics() == [house.jobs()[0].path / "topic.md"]


async def test_after_the_last_death_allowed_the_job_fails_and_is_not_begun_again(house: House) -> None:
    claim(house.store())
    for _ in range(CRASHES_MAX):
        die_in_work(house, Stage.SCRIPTS)
    kept = await run_engine(house, "job.failed", "stage.started")
    assert "stage.started" not in kept.names
    (found,) = house.jobs()
    assert found.place == Aside.FAILED
    reason = house.spool.read_reason(found.path)
    assert reason
    assert reason.cause == "crash_loop"
    assert house.spool.read_job(found.path).crashes == {"scripts": CRASHES_MAX}
    assert (found.path / "topic.md").read_bytes() == TOPIC


async def test_one_death_less_and_the_job_goes_on_to_its_end(house: House) -> None:
    claim(house.store())
    for _ in range(CRASHES_MAX - 1):
        die_in_work(house, Stage.SCRIPTS)
    kept = await run_engine(house, "job.done", "job.failed")
    assert kept.names.count("job.crashed") == 1
    (found,) = house.jobs()
    assert found.place == DONE
    assert house.spool.read_job(found.path).crashes == {"scripts": CRASHES_MAX - 1}


def test_a_unit_kept_before_a_death_is_whole_after_it(house: House) -> None:
    claim(house.store())
    first, second = UNITS[Stage.SCRIPTS]
    die_in_work(house, Stage.SCRIPTS, first)
    assert house.whole() == {first}
    die_in_work(house, Stage.SCRIPTS, second)
    assert house.whole() == {first, second}
    assert (house.jobs()[0].path / first).read_bytes() == product(first)


async def test_a_retry_of_a_crash_loop_begins_at_zero(house: House) -> None:
    claim(house.store())
    for _ in range(CRASHES_MAX):
        die_in_work(house, Stage.SCRIPTS)
    await run_engine(house, "job.failed")
    house.store().retry(house.jobs()[0])
    kept = await run_engine(house, "job.done", "job.failed")
    assert "job.crashed" not in kept.names
    assert [found.place for found in house.jobs()] == [DONE]


async def test_a_clean_stop_counts_nothing(house: House) -> None:
    claim(house.store())
    kept = await run_engine(house, "stage.started")
    (found,) = house.jobs()
    job = house.spool.read_job(found.path)
    assert "job.given_back" in kept.names or found.place != Stage.SCRIPTS
    assert not house.spool.survey(found.place).markers
    assert job.crashes == {}


@pytest.mark.parametrize("place", [DONE, Aside.FAILED])
async def test_a_job_whose_next_place_is_taken_is_not_begun_again_at_once(house: House, place: str) -> None:
    """A person's copy stands where the job is to go (`cp -r`)."""
    job = claim(house.store())
    assert job
    taken = house.spool.place(place) / job.id
    taken.mkdir()
    (taken / "mine").write_bytes(b"mine")
    kept = await run_engine(house, "job.failed", "job.damaged", rest_s=1.0, refuses=place == Aside.FAILED)
    assert "job.done" not in kept.names
    assert (taken / "mine").read_bytes() == b"mine"
    (found,) = [found for found in house.jobs() if found.path != taken]
    assert found.path.is_dir()
    assert kept.names.count("stage.started") < 5
