"""Power lost after every call, in every way that a file system may take it: what was acknowledged is still there.

POWER_SEEDS=n tries n seeds of everything (`make soak`); POWER_SEED=n tries just this one again. `-rP` shows how many
states were checked.
"""

import os
import random
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from fakes.power import Cut, Platter, RecordingDisk, Tree, frozen, lay
from rig.pipeline import House, detour, go_on, other_file_system, straight
from rig.power import (
    TOPICS,
    Chronicle,
    Crowd,
    Fact,
    QuickDisk,
    Wanderer,
    Witness,
    check_cut,
    check_recovered,
    check_settled,
    jobs_as_they_are,
)
from topicd.store import Store

SEEDS = (
    [int(os.environ["POWER_SEED"])] if "POWER_SEED" in os.environ else range(int(os.environ.get("POWER_SEEDS", "1")))
)
MOMENT_CUTS = 6
AGAIN_CUTS = 3
TURNS = 20
ROUNDS = 10
STATES_AIMED = 400
"""About how many states of one run are checked, spread over all its moments: the more it does, the fewer of each."""
AGAIN = 0.002
MEMORY = Path("/dev/shm")  # noqa: S108 - quick, and all in it is taken away

Run: TypeAlias = Callable[[House, RecordingDisk, Chronicle], None]


@dataclass(slots=True)
class Ground:
    """Where houses stand, and how many states were seen.

    Attributes:
        near: a directory.
        far: one on another file system, when there is to be one.
        cuts: outcomes of power cuts that were drawn.
        states: those of them that differed, each checked.
    """

    near: Path
    far: Path | None
    cuts: int = 0
    states: int = 0
    built: int = 0

    def house(self) -> House:
        """Return a new house, of which nothing is on the disk yet."""
        self.built += 1
        return House(self.near / f"{self.built}" / "home", self.far and self.far / f"{self.built}" / "far")

    def remove(self, house: House) -> None:
        """Take a house away."""
        for root in house.roots:
            shutil.rmtree(root.parent)


@pytest.fixture
def near(tmp_path: Path) -> Iterator[Path]:
    path = MEMORY / f"topicd-power-{os.getpid()}-{tmp_path.name}"
    if not os.access(MEMORY, os.W_OK):
        path = tmp_path / "near"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["together", "apart"])
def ground(request: pytest.FixtureRequest, near: Path, tmp_path: Path) -> Iterator[Ground]:
    """Home on one file system, or input/ and output/ on another than the spool."""
    far = None
    if request.param == "apart":
        far = other_file_system(near, (str(tmp_path), "/var/tmp", "/run"))  # noqa: S108 - looked at, not trusted
        if far is None:
            pytest.skip("no second file system that can be written: nothing gives EXDEV here")
    ground = Ground(near, far)
    yield ground
    sys.stdout.write(f"{request.node.name}: {ground.states} states of {ground.cuts} power cuts\n")
    if far:
        shutil.rmtree(far)


@dataclass(slots=True)
class Trial:
    """One run of a pipeline, and the states that power cuts in it leave.

    Attributes:
        ground: where.
        house: the one house it runs in.
        seed: decides everything that is drawn.
        topics: those that are on the disk for good before the run.
        dropped: how many there are at most.
        known: what was promised before the run.
        settled: trees that came to their end; what was promised meanwhile does not change how.
    """

    ground: Ground
    house: House
    seed: str
    topics: Collection[bytes]
    dropped: int
    known: Mapping[str, Fact] = field(default_factory=dict)
    settled: set[object] = field(default_factory=set)

    def explore(self, run: Run, cuts_max: int, *, again: float = 0.0) -> None:
        """Run it, cut the power after each call, and check what is left; `again`: how often the mending is cut, too."""
        rng, disk = random.Random(self.seed), RecordingDisk()
        for root in self.house.roots:
            disk.watch(root)
        told = Chronicle(disk)
        for name, fact in self.known.items():
            told.promise(name, fact)
        run(self.house, disk, told)
        platter, seen = disk.platter(), set[object]()
        share = STATES_AIMED / (len(disk.operations) * cuts_max / 2)
        for at in range(len(disk.operations) + 1):
            if at:
                platter.apply(disk.operations[at - 1])
            for cut in platter.cuts(rng, cuts_max):
                self.ground.cuts += 1
                state = State(self, disk=disk, platter=platter, cut=cut, at=at, facts=told.at(at))
                is_new = state.key not in seen
                seen.add(state.key)
                if is_new and rng.random() < share:
                    state.check(is_cut_again=rng.random() < again)


@dataclass(slots=True)
class State:
    """What one power cut leaves: after how many operations, which of them survived, and what had been promised."""

    trial: Trial
    disk: RecordingDisk
    platter: Platter
    cut: Cut
    at: int
    facts: Mapping[str, Fact]
    trees: list[Tree] = field(init=False)
    tree: object = field(init=False)

    def __post_init__(self) -> None:
        self.trees = [self.platter.tree(root, self.cut) for root in self.disk.roots.values()]
        self.tree = tuple(map(frozen, self.trees))

    @property
    def key(self) -> object:
        """What makes it another state than those seen."""
        return self.tree, tuple((name, id(fact)) for name, fact in self.facts.items())

    def check(self, *, is_cut_again: bool) -> None:
        """Build it and check everything; `is_cut_again`: once more with power cuts during the mending."""
        house = self._built()
        self.trial.ground.states += 1
        try:
            self._check_in(house)
            if is_cut_again:
                self._cut_again()
        except BaseException as error:
            error.add_note(self.told())
            raise
        self.trial.ground.remove(house)

    def _check_in(self, house: House) -> None:
        trial, store = self.trial, house.store(QuickDisk())
        check_cut(house, self.facts, trial.topics)
        store.recover()
        check_recovered(house, store, self.facts, trial.topics)
        if self.tree not in trial.settled:
            go_on(store, house)
            check_settled(house, self.facts, trial.topics, trial.dropped)
            trial.settled.add(self.tree)

    def told(self) -> str:
        """Return all that is needed to see it again."""
        story = self.platter.told(self.cut, self.disk.operations[: self.at])
        return f"seed {self.trial.seed}, power lost after operation {self.at}:\n{story}\npromised: {self.facts}"

    def _built(self) -> House:
        house = self.trial.ground.house()
        for tree, root in zip(self.trees, house.roots, strict=True):
            lay(tree, root, self.disk.kept)
        return house

    def _cut_again(self) -> None:
        trial, house = self.trial, self._built()
        known = jobs_as_they_are(house, self.facts)
        topics = {path.read_bytes() for path in house.files() if path.suffix == ".md"} & set(TOPICS.values())
        again = Trial(trial.ground, house, f"{trial.seed}+{self.at}", topics, trial.dropped, known)
        again.explore(_mend_on_record, AGAIN_CUTS)
        trial.ground.remove(house)


def _mend_on_record(house: House, disk: RecordingDisk, told: Chronicle) -> None:
    store = Witness(house, disk, told)
    store.recover()
    go_on(store, house)


def _through(pipeline: Callable[[Store, House], None]) -> Run:
    return lambda house, disk, told: pipeline(Witness(house, disk, told), house)


def _wander(rng: random.Random) -> Run:
    return lambda house, disk, told: Wanderer(house, disk, told, rng).wander(TURNS)


def _crowd(rng: random.Random) -> Run:
    def run(house: House, disk: RecordingDisk, told: Chronicle) -> None:
        crowd = Crowd(house, disk, told, rng)
        for _ in range(ROUNDS):
            crowd.round()

    return run


def _after_a_drop(run: Run, names: Collection[str], house: House, disk: RecordingDisk, told: Chronicle) -> None:
    for name in names:
        (house.spool.input / name).write_bytes(TOPICS[name])
        disk.unsynced(house.spool.input / name)
    run(house, disk, told)


def cut_everywhere(ground: Ground, seed: str, run: Run, count: int, *, is_synced: bool = True) -> None:
    """Build a house with some topics in it, and cut the power after every call of a run."""
    house, names = ground.house(), list(TOPICS)[:count]
    house.drop()
    house.topic.unlink()
    if is_synced:
        for name in names:
            (house.spool.input / name).write_bytes(TOPICS[name])
    else:
        run = partial(_after_a_drop, run, names)
    topics = [TOPICS[name] for name in names] if is_synced else []
    # What is left of a source that was never synced is another file than the one that was copied.
    most = count if is_synced or not house.far else 2 * count
    Trial(ground, house, seed, topics, most).explore(run, MOMENT_CUTS, again=AGAIN if is_synced else 0.0)
    ground.remove(house)


@pytest.mark.parametrize("pipeline", [straight, detour])
def test_a_power_cut_takes_back_nothing_that_was_acknowledged(
    ground: Ground, pipeline: Callable[[Store, House], None]
) -> None:
    for seed in SEEDS:
        cut_everywhere(ground, f"{pipeline.__name__}-{seed}", _through(pipeline), 1)
    assert ground.states > 10 * len(SEEDS)


def test_a_topic_that_its_author_did_not_sync_is_whole_once_it_is_a_job(ground: Ground) -> None:
    for seed in SEEDS:
        cut_everywhere(ground, f"unsynced-{seed}", _through(straight), 1, is_synced=False)
    assert ground.states > 10 * len(SEEDS)


def test_whatever_engine_and_people_do_no_power_cut_loses_it(ground: Ground) -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        cut_everywhere(ground, f"wander-{seed}", _wander(rng), rng.randint(1, len(TOPICS)))
    assert ground.states > 10 * len(SEEDS)


def test_jobs_that_share_their_fsyncs_lose_nothing_either(ground: Ground) -> None:
    for seed in SEEDS:
        cut_everywhere(ground, f"crowd-{seed}", _crowd(random.Random(seed)), len(TOPICS))
    assert ground.states > 10 * len(SEEDS)
