"""Outages: a backend that is away costs no job an attempt, and a job that it dies of is not tried for ever."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.backends import Fake
from integration.test_engine import QUICK, Rig, Way, Work
from rig.events import until
from topicd.attempts import DEATHS_KEPT_MAX, DEATHS_UNPROVEN, Deaths
from topicd.backends.base import Probe
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable
from topicd.job import Job
from topicd.policy import Policy
from topicd.states import Stage

SWIFT = replace(QUICK, retry_first_s=0.02, retry_max_s=0.05, down_first_s=0.005, down_max_s=0.06)
RESET = Unavailable("connection_reset", "it closed the connection without an answer")
BAD_GATEWAY = Unavailable("bad_gateway", "it answers HTTP 502")
REFUSED = Unavailable("connect_refused", "it refuses connections")
OUTAGE_S = 10.8
PATIENT_S = 90.0


class Server(Fake):
    """A backend that can be away, and dies of some jobs."""

    def __init__(self, deadly: Collection[str] = (), *, restart_probes: int = 0) -> None:
        self.away: TopicdError | None = None
        self.deadly = set(deadly)
        self.died = RESET
        self.restart_probes = restart_probes
        self.down = 0
        self.asked = self.probed = 0
        self.is_hung = False
        self._lives = 0

    async def probe(self) -> Probe:
        self.probed += 1
        if self.is_hung:
            await asyncio.Event().wait()
        self._answer()
        return await super().probe()

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise self.away
        if self.down:
            self.down -= 1
            raise REFUSED

    async def generate(self, job: Job) -> None:
        self._answer()
        life = self._lives
        await asyncio.sleep(0.01)
        if job.source in self.deadly:
            self._lives += 1
            self.down = self.restart_probes
        if life != self._lives:
            raise self.died


def outage(home: Path, server: Server, *, limit: int = 1, policy: Policy = SWIFT, way: Way | None = None) -> Rig:
    work = Work(way or server.generate)
    work.backend = server
    return Rig(home, {Stage.SCRIPTS: work}, limit=limit, policy=policy)


def attempts(rig: Rig, names: Collection[str]) -> list[Mapping[str, int]]:
    return [rig.job(name).attempts for name in names]


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("died", [RESET, BAD_GATEWAY], ids=["reset", "gateway"])
async def test_a_job_that_the_backend_dies_of_is_put_off_then_fails_and_the_others_are_done(
    tmp_path: Path, died: Unavailable, limit: int
) -> None:
    server = Server({"0.md"})
    server.died = died
    rig = outage(tmp_path, server, limit=limit)
    deadly, *others = rig.claims(8)
    async with rig.running():
        await rig.done(*others)
        await rig.failed(deadly)
    reason = rig.reason(deadly)
    assert reason.cause == "server_died"
    assert died.message in reason.message
    assert reason.hint
    assert rig.job(deadly).attempts["scripts"] == SWIFT.attempts_max
    assert [event.fields["attempt"] for event in rig.kept.of("job.deferred")] == [*range(1, SWIFT.attempts_max)]
    assert attempts(rig, others) == [{}] * len(others), "nobody else is blamed"


async def test_the_others_are_not_held_up_by_it(tmp_path: Path) -> None:
    rig = outage(tmp_path, Server({"0.md"}), policy=replace(SWIFT, retry_first_s=600, retry_max_s=600))
    deadly, *others = rig.claims(8)
    async with rig.running():
        await rig.done(*others)
    assert rig.where(deadly) == ["scripts"]
    assert rig.works[Stage.SCRIPTS].ids.count(deadly) == DEATHS_UNPROVEN + 1


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("restart_probes", [1, 4])
async def test_several_such_jobs_and_a_server_that_starts_slowly(
    tmp_path: Path, limit: int, restart_probes: int
) -> None:
    rig = outage(tmp_path, Server({"1.md", "2.md", "5.md"}, restart_probes=restart_probes), limit=limit)
    names = rig.claims(8)
    deadly = [names[n] for n in (1, 2, 5)]
    others = [name for name in names if name not in deadly]
    async with rig.running():
        await rig.done(*others)
        await rig.failed(*deadly)
    assert {rig.reason(name).cause for name in deadly} == {"server_died"}
    assert attempts(rig, others) == [{}] * len(others)


@pytest.mark.parametrize("limit", [1, 4])
async def test_a_proxy_that_answers_for_a_server_that_is_away_costs_no_attempt(tmp_path: Path, limit: int) -> None:
    server = Server()
    server.away = BAD_GATEWAY
    rig = outage(tmp_path, server, limit=limit, policy=replace(SWIFT, attempts_max=1))
    names = rig.claims(20)
    async with rig.running():
        await rig.told("backend.unavailable", 25)
        assert server.probed, "it is asked before a job is blamed"
        server.away = None
        await rig.done(*names)
    assert attempts(rig, names) == [{}] * 20
    assert not rig.kept.of("job.deferred")
    assert not rig.kept.of("job.failed")


async def test_a_backend_that_does_not_say_what_it_is_blames_no_job(tmp_path: Path) -> None:
    server = Server()
    server.away, server.is_hung = RESET, True
    rig = outage(tmp_path, server, policy=replace(SWIFT, attempts_max=1))
    name = rig.claim()
    async with rig.running():
        await until(lambda: server.probed >= 2, "it is asked")
        lane = rig.engine.lanes[Stage.SCRIPTS]
        await until(lambda: lane.trouble and lane.trouble.cause == "probe_timeout", "and that takes too long")
        server.away, server.is_hung = None, False
        await rig.done(name)
    assert rig.job(name).attempts == {}


@pytest.mark.parametrize("between", [REFUSED, Unusable("no_model", "no such model")], ids=["away", "unusable"])
async def test_what_says_nothing_of_the_job_neither_clears_nor_blames_it(tmp_path: Path, between: TopicdError) -> None:
    errors = iter([RESET, between, RESET, between, RESET])

    async def way(_: Job) -> None:
        await asyncio.sleep(0)
        if error := next(errors, None):
            raise error

    rig = outage(tmp_path, Server(), way=way)
    name = rig.claim()
    async with rig.running():
        await rig.done(name)
    assert [event.fields["error"] for event in rig.kept.of("job.deferred")] == [
        f"the backend answered, and died at this job again: {RESET.message}"
    ]


async def test_an_end_of_another_kind_is_a_new_beginning(tmp_path: Path) -> None:
    errors = iter([RESET, RESET, RetryLater("read_timeout", "it was silent"), RESET, RESET])

    async def way(_: Job) -> None:
        await asyncio.sleep(0)
        if error := next(errors, None):
            raise error

    server = Server()
    rig = outage(tmp_path, server, way=way)
    name = rig.claim()
    async with rig.running():
        await rig.done(name)
    assert [event.fields["cause"] for event in rig.kept.of("job.deferred")] == ["read_timeout"]
    assert server.probed >= 2, "before the third and the last"


def test_what_is_remembered_is_bounded() -> None:
    deaths = Deaths()
    for number in range(3 * DEATHS_KEPT_MAX):
        for _ in range(DEATHS_UNPROVEN):
            assert not deaths.count(f"{number}", RESET)
        deaths.tested.add(f"{number}")
    assert len(deaths._in_a_row) == DEATHS_KEPT_MAX
    assert len(deaths.tested) <= DEATHS_KEPT_MAX
    assert not deaths.is_suspected("0")
    assert deaths.is_suspected(f"{3 * DEATHS_KEPT_MAX - 1}")


@pytest.mark.slow
async def test_an_outage_of_three_hours_a_thousandfold_faster_costs_nothing_and_ends_by_itself(tmp_path: Path) -> None:
    # The defaults, 5 s and 60 s, are a thousandfold of these.
    policy = replace(SWIFT, attempts_max=1, down_first_s=0.005, down_max_s=0.06)
    servers = {stage: Server() for stage in Stage}
    works = {stage: Work(server.generate) for stage, server in servers.items()}
    for stage, server in servers.items():
        works[stage].backend, server.away = server, REFUSED
    rig = Rig(tmp_path, works, limit=2, policy=policy)
    places = [Stage.SCRIPTS] * 20 + [Stage.AUDIO] * 15 + [Stage.IMAGES] * 15
    names = [rig.claim(f"{number}.md", stage) for number, stage in enumerate(places)]
    async with rig.running():
        began = time.monotonic()
        await asyncio.sleep(OUTAGE_S)
        took_s = time.monotonic() - began
        asked = {stage: server.asked for stage, server in servers.items()}
        assert not rig.kept.of("stage.finished")
        for server in servers.values():
            server.away = None
        await until(lambda: all(rig.where(name) == ["output"] for name in names), "all are done", PATIENT_S)
    # Eight more while the wait grows, each with as many jobs as a lane has.
    assert all(4 <= count <= took_s / policy.down_max_s + 2 * 8 for count in asked.values()), asked
    assert {event.fields["attempt"] for event in rig.kept.of("stage.started")} == {1}
    assert attempts(rig, names) == [{}] * 50
    assert not rig.kept.of("job.failed")
    assert not rig.kept.of("job.deferred")
