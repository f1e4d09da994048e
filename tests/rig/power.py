"""What a store has promised, and whether a disk after a power cut still keeps it.

Owns a store that takes note of each verb's return (`Witness`), and the checks of a state: at once, after recovery, and
at the end. A promise holds from the return of a verb to the beginning of the next one; between these a job may
be in either place. Never moves a job on its own account.
"""

import contextlib
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from fakes.power import RecordingDisk
from rig.pipeline import EVERY_UNIT, TOPIC, TROUBLE, House, product, whole_units, work
from topicd.durable import Disk, Durable, Steps
from topicd.job import REASON, Job, Trouble, decode
from topicd.moves import Begun
from topicd.spool import DONE, Found
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.workspace import Workspace

R = TypeVar("R")
Act: TypeAlias = Callable[[], object]
# The last name makes a job.json of more than one sector.
TOPICS = {"sea.md": TOPIC, "moon.md": b"# Why the moon has phases\n", f"{'wind' * 60}.md": b"# Where wind comes from\n"}
PLACES = (*SPOOL_PLACES, DONE)


class QuickDisk(Disk):
    """A healthy disk that is not waited for."""

    def fsync(self, fd: int) -> None:
        """Leave it to the kernel."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is promised of one job.

    Attributes:
        topic: the bytes of its topic.
        places: where it may be.
        begun: the stage whose attempt is in hand for sure.
        crashes: stage → crashes counted for sure.
        errors: stage → attempts that ended in an error, counted for sure.
        kept: the units kept.
        last: the trouble of its last verb, until the next.
    """

    topic: bytes
    places: frozenset[str]
    begun: Stage | None = None
    crashes: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    last: Trouble | None = None


class Chronicle:
    """The facts about every job, by the number of operations done when they came to be."""

    def __init__(self, disk: RecordingDisk) -> None:
        self._disk = disk
        self._facts = dict[str, list[tuple[int, Fact]]]()

    def now(self, name: str) -> Fact:
        """Return what is known of a job now."""
        return self._facts[name][-1][1]

    def at(self, operations: int) -> dict[str, Fact]:
        """Return what was known after so many operations."""
        known = {name: [fact for at, fact in facts if at <= operations] for name, facts in self._facts.items()}
        return {name: facts[-1] for name, facts in known.items() if facts}

    def promise(self, name: str, fact: Fact) -> None:
        """Take note of what a verb promised by its return."""
        self._facts.setdefault(name, []).append((len(self._disk.operations), fact))

    def doubt(self, name: str, fact: Fact) -> None:
        """Take note of what a verb that begins may change, from its first operation on."""
        self._facts[name].append((len(self._disk.operations) + 1, fact))


class Witness(Store):
    """A store whose verbs' promises are noted."""

    def __init__(self, house: House, disk: RecordingDisk, told: Chronicle) -> None:
        super().__init__(house.spool, Durable(disk))
        self.told = told

    def claim(self, source: Path, **said: Any) -> Job:
        topic = source.read_bytes()
        job = super().claim(source, **said)
        self.told.promise(job.id, Fact(topic, frozenset({Stage.SCRIPTS})))
        return job

    def begin(self, stage: Stage, name: str) -> Begun:
        with self.beginning(stage, name) as jobs:
            begun = super().begin(stage, name)
            jobs.append(begun.job)
        return begun

    def give_back(self, stage: Stage, job: Job) -> None:
        with self.verb(job.id):
            super().give_back(stage, job)

    def defer(self, stage: Stage, job: Job, trouble: Trouble, not_before_s: float) -> None:
        with self.verb(job.id, trouble=trouble):
            super().defer(stage, job, trouble, not_before_s)

    def finish(self, stage: Stage, job: Job, *rest: Any, **more: Any) -> Path:
        with self.verb(job.id, {stage.next or DONE}):
            return super().finish(stage, job, *rest, **more)

    def fail(self, stage: Stage, job: Job, trouble: Trouble) -> None:
        with self.verb(job.id, {Aside.FAILED}, trouble=trouble):
            super().fail(stage, job, trouble)

    def hold(self, found: Found) -> Found:
        with self.verb(found.id, {Aside.HELD}):
            return super().hold(found)

    def release(self, found: Found) -> Found:
        with self.verb(found.id, list(Stage)):
            return super().release(found)

    def retry(self, found: Found) -> Found:
        with self.verb(found.id, set(Stage) if found.place == Aside.FAILED else (), anew=True):
            return super().retry(found)

    def moved_by_hand(self, found: Found, place: str) -> None:
        """Do as a person's `mv`, after which nobody fsyncs anything."""
        before = self.told.now(found.id)
        self.told.doubt(found.id, replace(before, places=before.places | {place}, begun=None, last=None))
        self.durable._disk.rename(found.path, self.spool.place(place) / found.id)

    def workspace(self, stage: Stage, name: str) -> Workspace:
        return WitnessedSpace(self, super().workspace(stage, name).path)

    @contextlib.contextmanager
    def beginning(self, stage: Stage, name: str) -> Iterator[list[Job]]:
        """Take note of an attempt; the job it began is to be put into the list."""
        before, jobs = self.told.now(name), list[Job]()
        self.told.doubt(name, replace(before, last=None))
        yield jobs
        crashes = {**before.crashes, stage: jobs[0].crashes.get(stage, 0)}
        self.told.promise(name, replace(before, begun=stage, crashes=crashes, last=None))

    @contextlib.contextmanager
    def verb(
        self,
        name: str,
        to: Collection[str] = (),
        *,
        trouble: Trouble | None = None,
        anew: bool = False,
        begins: Stage | None = None,
    ) -> Iterator[None]:
        """Take note of a verb that ends an attempt or moves a job: in doubt from its beginning, sure at its return.

        Args:
            name: the job's.
            to: where it may be afterwards; empty when it stays.
            trouble: what is kept of an attempt that ended in an error.
            anew: whether attempts and crashes are forgotten.
            begins: the stage whose attempt begins with it.
        """
        before = self.told.now(name)
        errors = dict(before.errors)
        if anew:
            before, errors = replace(before, crashes={}, errors={}), {}
        self.told.doubt(name, replace(before, places=before.places | set(to), begun=None, last=None))
        yield
        if trouble and before.begun:
            errors[before.begun] = errors.get(before.begun, 0) + 1
        places = frozenset(to) or before.places
        self.told.promise(name, replace(before, places=places, begun=begins, errors=errors, last=trouble))


class WitnessedSpace(Workspace):
    """A job's products, whose keeping is noted."""

    def __init__(self, store: Witness, path: Path) -> None:
        super().__init__(path, store.durable)
        self._told = store.told

    def keep(self, path: str, data: bytes, **said: Any) -> None:
        super().keep(path, data, **said)
        self._note(path)

    def adopt(self, path: str, temporary: Path, **said: Any) -> None:
        super().adopt(path, temporary, **said)
        self._note(path)

    def _note(self, unit: str) -> None:
        fact = self._told.now(self.path.name)
        self._told.promise(self.path.name, replace(fact, kept=fact.kept | {unit}))


def drop_more(house: House, count: int) -> None:
    """Drop all topics but the first, which the house drops itself."""
    for name, topic in list(TOPICS.items())[1:count]:
        (house.spool.input / name).write_bytes(topic)


class Wanderer:
    """Does what an engine, a restart and people may do, at random: any verb that is allowed at the moment, and `mv`."""

    def __init__(self, house: House, disk: RecordingDisk, told: Chronicle, rng: random.Random) -> None:
        self.house = house
        self.rng = rng
        self.in_hand = dict[str, Job]()
        self._new_store = partial(Witness, house, disk, told)
        self.store = self._new_store()

    def wander(self, turns: int) -> None:
        """Do so many things, or fewer if nothing is left to do."""
        for _ in range(turns):
            acts = [*self._claims(), *chain.from_iterable(map(self._acts, self.house.jobs()))]
            if not acts:
                return
            self.rng.choice(acts)()

    def _claims(self) -> list[Act]:
        return [
            partial(self.store.claim, path, sha256="", size=1) for path in sorted(self.house.spool.input.glob("*.md"))
        ]

    def _acts(self, found: Found) -> list[Act]:
        if found.place == Aside.FAILED:
            resume = Workspace(found.path, Durable()).resume_stage()
            by_hand = partial(self.store.moved_by_hand, found, resume)
            return [partial(self.store.retry, found), partial(self.store.hold, found), by_hand]
        if found.place == Aside.HELD:
            return [partial(self.store.release, found)]
        if found.place == DONE:
            return []
        stage = Stage(found.place)
        if found.id not in self.in_hand:
            begin = partial(self._begin, stage, found.id)
            return [begin, begin, begin, partial(self._hold, found), partial(self.store.retry, found)]
        job = self.in_hand[found.id]
        ends = [
            partial(self.store.defer, stage, job, TROUBLE, 0.0),
            partial(self.store.give_back, stage, job),
            partial(self.store.fail, stage, job, TROUBLE),
        ]
        finish = partial(self._finish, stage, job)
        return [finish] * 4 + [partial(self._end, stage, job, end) for end in ends] + [self._restart]

    def _begin(self, stage: Stage, name: str) -> None:
        self.in_hand[name] = self.store.begin(stage, name).job

    def _hold(self, found: Found) -> None:
        self.in_hand.pop(found.id, None)
        self.store.hold(found)

    def _finish(self, stage: Stage, job: Job) -> None:
        work(self.store, stage, job, self.house)
        self.store.finish(stage, self.in_hand.pop(job.id))

    def _end(self, stage: Stage, job: Job, end: Act) -> None:
        work(self.store, stage, job, self.house, units_max=self.rng.randint(0, 2))
        del self.in_hand[job.id]
        end()

    def _restart(self) -> None:
        """Die without a word, and start anew: what the kernel holds is still there."""
        self.in_hand.clear()
        self.store = self._new_store()
        self.store.recover()


class Crowd(Wanderer):
    """Takes all jobs on at once, each with a verb of its own, and lets them share their fsyncs."""

    def round(self) -> None:
        """Let each job, and each topic, do one thing or wait."""
        works = [*map(self._claim, sorted(self.house.spool.input.glob("*.md"))), *map(self._next, self.house.jobs())]
        together([steps for steps in works if self.rng.random() < 0.8], self.store.durable, self.rng)

    def _claim(self, path: Path) -> Steps[None]:
        topic, is_begun = path.read_bytes(), self.rng.random() < 0.5
        job = yield from self.store.moves.claim(path, sha256="", size=1, begin=is_begun)
        self.store.told.promise(job.id, Fact(topic, frozenset({Stage.SCRIPTS}), Stage.SCRIPTS if is_begun else None))
        if is_begun:
            self.in_hand[job.id] = job

    def _next(self, found: Found) -> Steps[None]:
        if found.place in list(Stage):
            stage = Stage(found.place)
            yield from self._work(stage, found.id) if found.id in self.in_hand else self._start(stage, found.id)
        elif found.place == Aside.FAILED:
            self.store.retry(found)

    def _start(self, stage: Stage, name: str) -> Steps[None]:
        with self.store.beginning(stage, name) as begun:
            begun.append((yield from self.store.moves.begin(stage, name)).job)
        (self.in_hand[name],) = begun

    def _work(self, stage: Stage, name: str) -> Steps[None]:
        job = self.in_hand.pop(name)
        work(self.store, stage, job, self.house)
        if self.rng.random() < 0.7:
            begins = stage.next if self.rng.random() < 0.5 else None
            with self.store.verb(name, {stage.next or DONE}, begins=begins):
                yield from self.store.moves.finish(stage, job, begin=begins is not None)
            if begins:
                self.in_hand[name] = job.begin(begins)
            return
        ends = {
            "defer": (partial(self.store.moves.defer, stage, job, TROUBLE, 0.0), (), TROUBLE),
            "give_back": (partial(self.store.moves.give_back, stage, job), (), None),
            "fail": (partial(self.store.moves.fail, stage, job, TROUBLE), (Aside.FAILED,), TROUBLE),
        }
        steps, to, trouble = ends[self.rng.choice(sorted(ends))]
        with self.store.verb(name, to, trouble=trouble):
            yield from steps()


def together(works: Sequence[Steps[R]], durable: Durable, rng: random.Random) -> list[R]:
    """Take many works through their steps, any number of them at a time sharing their fsyncs, in any order.

    Returns:
        What they return, in the order of `works`.
    """
    waiting = dict(enumerate(works))
    done = dict[int, R]()
    while waiting:
        group = rng.sample(sorted(waiting), rng.randint(1, len(waiting)))
        wanted = list[Path]()
        for number in group:
            try:
                wanted += next(waiting[number])
            except StopIteration as end:
                del waiting[number]
                done[number] = end.value
        paths = list(dict.fromkeys(wanted))
        rng.shuffle(paths)
        durable.sync(*paths)
    return [done[number] for number in sorted(done)]


def check_cut(house: House, facts: Mapping[str, Fact], topics: Collection[bytes]) -> None:
    """Check a state as the power cut left it, before anything is mended.

    Args:
        house: the state.
        facts: what was promised.
        topics: those that were on the disk for good before the daemon saw them.
    """
    copies = [path.read_bytes() for path in house.files() if path.suffix == ".md"]
    acknowledged = [fact.topic for fact in facts.values()]
    for topic in {*topics, *acknowledged}:
        count = copies.count(topic)
        assert count, "a topic is lost"
        assert count == 1 or house.far, f"a topic is in {count} places"
    for path in house.spool.input.glob("*.md"):
        assert path.read_bytes() not in acknowledged, "a topic is in input/ though its claim was acknowledged"
    for name, fact in facts.items():
        _check_job(house, name, fact)


def _check_job(house: House, name: str, fact: Fact) -> None:
    where = {place for place in PLACES if (house.spool.place(place) / name).is_dir()}
    assert where, "a job is lost"
    if house.far and DONE in where:
        where -= {Stage.IMAGES}  # S6
    assert len(where) == 1, f"a job is in several places: {where}"
    (place,) = where
    assert place in fact.places, f"a job is in {place}/, not in {sorted(fact.places)}"
    path = house.spool.place(place) / name
    assert (path / "topic.md").read_bytes() == fact.topic, "a job's topic is torn"
    whole = whole_units(path)
    assert whole >= fact.kept, f"units kept and lost: {fact.kept - whole}"
    if place == DONE:
        assert whole == set(EVERY_UNIT), "a job in output/ is not whole"


def check_recovered(house: House, store: Store, facts: Mapping[str, Fact], topics: Collection[bytes]) -> None:
    """Check a state after recovery: no half-way state is left, what was counted is counted."""
    copies = [path.read_bytes() for path in house.files() if path.suffix == ".md"]
    for topic in {*topics, *(fact.topic for fact in facts.values())}:
        assert copies.count(topic) == 1, f"a topic is in {copies.count(topic)} places after recovery"
    assert all((found.path / "topic.md").exists() for found in house.jobs()), "a claim that did not happen is left"
    for name, fact in facts.items():
        (found,) = [found for found in house.jobs() if found.id == name]
        _check_counts(store, found, fact)


def _check_counts(store: Store, found: Found, fact: Fact) -> None:
    job = store.spool.read_job(found.path)
    for stage, errors in fact.errors.items():
        assert job.attempts.get(stage, 0) >= errors, f"attempts forgotten at {stage}: {job.attempts}"
    if fact.last:
        assert job.last_error == fact.last
        if fact.places == {Aside.FAILED}:
            assert store.spool.read_reason(found.path) == fact.last
    if found.place not in list(Stage):
        return
    stage = Stage(found.place)
    in_hand = fact.begun == stage
    if in_hand:
        assert found.id in store.ready(stage, (), limit=9).suspects, "a job in work at the cut is not suspected"
    begun = store.begin(stage, found.id)
    least = fact.crashes.get(stage, 0) + in_hand
    assert begun.job.crashes.get(stage, 0) >= least, f"crashes forgotten: {begun.job.crashes}, at least {least}"
    store.give_back(stage, begun.job)


def check_settled(house: House, facts: Mapping[str, Fact], topics: Collection[bytes], dropped: int) -> None:
    """Check the end: each job once, in output/, whole; no other file or directory anywhere."""
    jobs = house.jobs()
    assert {found.place for found in jobs} <= {DONE}, "not all jobs came to their end"
    assert {found.id for found in jobs} >= set(facts)
    assert len(jobs) <= dropped
    ended = [(found.path / "topic.md").read_bytes() for found in jobs]
    for topic in {*topics, *(fact.topic for fact in facts.values())}:
        assert ended.count(topic) == 1, f"a topic came to {ended.count(topic)} ends"
    for found in jobs:
        space = Workspace(found.path, Durable())
        space.verify()
        assert all((found.path / unit).read_bytes() == product(unit) for unit in EVERY_UNIT)
        names = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if not path.is_dir()}
        extra = names - {REASON, *EVERY_UNIT, "topic.md", "job.json", "manifest.json"}
        assert not extra, f"left in a job: {extra}"
        decode(Job, (found.path / "job.json").read_bytes(), "job.json")
    left = _left_behind(house)
    assert not left, f"left behind: {left}"


def _left_behind(house: House) -> list[str]:
    """Return what is in the tree and is neither one of its places nor in a job."""
    spool = house.spool
    places = {str(path) for path in (spool.root, spool.input, spool.output, spool.cache, *map(spool.place, PLACES))}
    jobs, left = {str(found.path) for found in house.jobs()}, list[str]()
    for root in house.roots:
        for folder, folders, files in os.walk(root):
            left += [path for name in files if (path := f"{folder}/{name}")]
            left += [path for name in folders if (path := f"{folder}/{name}") not in places | jobs]
            folders[:] = [name for name in folders if f"{folder}/{name}" not in jobs]
    return left


def jobs_as_they_are(house: House, facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return what is promised of every job once the machine is up again: all that is there is there for good."""
    known = dict[str, Fact]()
    for found in house.jobs():  # output/ comes last, and is where a job in two places is
        topic = found.path / "topic.md"
        if topic.exists():
            fact = facts.get(found.id) or Fact(topic.read_bytes(), frozenset())
            known[found.id] = replace(fact, places=frozenset({found.place}), kept=frozenset(whole_units(found.path)))
    return known
