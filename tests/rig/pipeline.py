"""Whole pipelines over a store, cut anywhere and run again to their end, and what must be true then.

A pipeline here does what the engine and a person do, in one thread and without backends, so that hundreds of deaths
fit into seconds. What makes a product is a function of its name: made twice, it is the same.
"""

import contextlib
import errno
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.disk import Crash, CrashingDisk, PowerDisk
from fakes.power import RecordingDisk
from topicd.durable import Disk, Durable
from topicd.job import REASON, Job, Trouble
from topicd.spool import DONE, Found, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.workspace import Workspace

TOPIC = b"# Why the sea is salty\n\nFor children.\n"
TROUBLE = Trouble(at="2026-01-01T00:00:00.000Z", stage="audio", unit="audio/001", cause="timeout", message="late")
UNITS = {
    Stage.SCRIPTS: ("script.md", "scenes.json"),
    Stage.AUDIO: ("audio/001.wav", "audio.wav"),
    Stage.IMAGES: ("images/title.png", "index.html"),
}
EVERY_UNIT = tuple(itertools.chain.from_iterable(UNITS.values()))
ADOPTED = "audio.wav"
ROUNDS_MAX = 20


def product(unit: str) -> bytes:
    """Return the bytes of a unit."""
    return unit.encode() * 40


@dataclass(slots=True)
class House:
    """One home with one topic in its `input/`.

    Attributes:
        home: its directory.
        far: where input/ and output/ are, when they are on another file system.
        made: the units made since the house was built, in order.
    """

    home: Path
    far: Path | None = None
    made: list[str] = field(default_factory=list)

    @property
    def spool(self) -> Spool:
        """The tree."""
        beside = self.far or self.home
        return Spool(home=self.home, input_dir=beside / "input", output_dir=beside / "output")

    @property
    def topic(self) -> Path:
        """The file that is dropped."""
        return self.spool.input / "sea.md"

    def store(self, disk: Disk | None = None) -> Store:
        """Return a new daemon's store on it, not opened: that would try every directory, hundreds of times."""
        return Store(self.spool, Durable(disk))

    def drop(self) -> None:
        """Put the topic into `input/`."""
        spool = self.spool
        for path in (spool.input, spool.output, spool.cache, *map(spool.place, SPOOL_PLACES)):
            path.mkdir(parents=True)
        self.topic.write_bytes(TOPIC)

    def topics(self) -> list[Path]:
        """Return every file with the topic's bytes, wherever."""
        return [path for path in self.files() if path.read_bytes() == TOPIC]

    def files(self) -> list[Path]:
        """Return every file of the house."""
        return [path for root in self.roots for path in root.rglob("*") if path.is_file() and not path.is_symlink()]

    @property
    def roots(self) -> list[Path]:
        """The directories that all of it is in."""
        return [self.home, *([self.far] if self.far else [])]

    def jobs(self) -> list[Found]:
        """Return every job, wherever."""
        spool, places = self.spool, (*Stage, *Aside, DONE)
        return [Found(place, name, spool.place(place) / name) for place in places for name in spool.ids(place)]

    def whole(self) -> set[str]:
        """Return the units that are whole now."""
        return set().union(*(whole_units(found.path) for found in self.jobs()))

    def remove(self) -> None:
        """Take it all away."""
        shutil.rmtree(self.home)
        if self.far:
            shutil.rmtree(self.far)


Pipeline = Callable[[Store, House], None]


def claim(store: Store) -> Job | None:
    """Claim what is in `input/`, if anything is."""
    jobs = [store.claim(path, sha256="", size=path.stat().st_size) for path in store.spool.input.glob("*.md")]
    return jobs[0] if jobs else None


def work(store: Store, stage: Stage, job: Job, house: House, units_max: int | None = None) -> None:
    """Make what is not whole."""
    space = store.workspace(stage, job.id)
    for unit in UNITS[stage][:units_max]:
        if not space.whole(unit, unit):
            house.made.append(unit)
            if unit == ADOPTED:
                adopt(store, space, unit)
            else:
                space.keep(unit, product(unit), made_from=unit, by={}, seconds=0.0, at=0.0)


def adopt(store: Store, space: Workspace, unit: str) -> None:
    """Let another process write a unit, fsyncing nothing, and take it over."""
    temporary = space.aside(unit)
    temporary.write_bytes(product(unit))
    disk = store.durable._disk
    if isinstance(disk, PowerDisk | RecordingDisk):
        disk.unsynced(temporary)
    space.adopt(unit, temporary, made_from=unit, by={}, seconds=0.0, at=0.0)


def straight(store: Store, house: House) -> None:
    """Run until nothing is left in input/ and the stages."""
    for _ in range(ROUNDS_MAX):
        claim(store)
        if not any(_turn(store, stage, house) for stage in Stage):
            return
    raise AssertionError("it does not come to an end")


def ends(store: Store, house: House) -> None:
    """Claim and publish, the two moves that may cross file systems; what is between them is done on a healthy disk."""
    job = claim(store)
    assert job
    healthy = house.store(CrashingDisk())
    for stage in Stage:
        door = healthy if stage.next else store
        began = door.begin(stage, job.id).job
        work(healthy, stage, began, house)
        door.finish(stage, began)


def detour(store: Store, house: House) -> None:
    """Go through every verb that the straight path has not."""
    job = claim(store)
    assert job
    began = store.begin(Stage.SCRIPTS, job.id).job
    store.defer(Stage.SCRIPTS, began, TROUBLE, 0.0)
    store.give_back(Stage.SCRIPTS, store.begin(Stage.SCRIPTS, job.id).job)
    began = store.begin(Stage.SCRIPTS, job.id).job
    work(store, Stage.SCRIPTS, began, house)
    store.finish(Stage.SCRIPTS, began)
    store.fail(Stage.AUDIO, store.begin(Stage.AUDIO, job.id).job, TROUBLE)
    store.hold(store.spool.find(job.id))
    store.release(store.spool.find(job.id))
    began = store.begin(Stage.AUDIO, job.id).job
    work(store, Stage.AUDIO, began, house, units_max=1)
    store.fail(Stage.AUDIO, began, TROUBLE)
    store.retry(store.spool.find(job.id))


def lost_race(store: Store, house: House) -> None:
    """Find that the file is gone by the time of the claim, and go on."""
    gone = house.spool.input / "gone.md"
    with pytest.raises(FileNotFoundError):
        store.claim(gone, sha256="", size=0)


def settle(store: Store, house: House) -> None:
    """Start anew after a death, as the daemon and a person would, and run to the end."""
    store.recover()
    go_on(store, house)


def go_on(store: Store, house: House) -> None:
    """Let everything that was put aside go on, and run to the end."""
    for found in house.jobs():
        if found.place == Aside.FAILED:
            store.retry(found)
        elif found.place == Aside.HELD:
            store.release(found)
    straight(store, house)


def check_instant(house: House) -> None:
    """Check what must be true at every instant: the topic is in one place; two only across file systems (S5 to S7)."""
    places = house.topics()
    assert places, "the topic is lost"
    assert len(places) == 1 or house.far, f"the topic is in {len(places)} places: {places}"


def check_end(house: House) -> None:
    """Check what must be true at the end: one job, in output/, whole, and nothing else left anywhere."""
    (found,) = house.jobs()
    assert found.place == DONE
    assert house.topics() == [found.path / "topic.md"]
    space = Workspace(found.path, Durable())
    space.verify()
    assert sorted(entry.path for entry in space.manifest.products) == sorted(EVERY_UNIT)
    assert all((found.path / unit).read_bytes() == product(unit) for unit in EVERY_UNIT)
    extra = {path.relative_to(found.path).as_posix() for path in house.files() if path.is_relative_to(found.path)}
    assert extra - {REASON} == {*EVERY_UNIT, "topic.md", "job.json", "manifest.json"}
    assert [path for path in house.files() if not path.is_relative_to(found.path)] == []


def check_made(house: House, whole_before: set[str], made_before: int) -> None:
    """Check that nothing was made again that was whole at the death, and at most one unit was made twice."""
    again = set(house.made[made_before:])
    assert not again & whole_before, f"made again although whole: {again & whole_before}"
    twice = [unit for unit, times in Counter(house.made).items() if times > 1]
    assert len(twice) <= 1, f"made twice: {twice}"


def houses(root: Path, far: Path | None = None) -> Iterator[House]:
    """Yield new houses with the topic dropped, one after another; each is taken away before the next."""
    for number in itertools.count():
        house = House(root / f"{number}", far and far / f"{number}")
        house.drop()
        yield house
        house.remove()


def crash_points(pipeline: Pipeline, house: House) -> list[tuple[int, bool]]:
    """Run a pipeline without a death, and return every point where it can die: which call, and whether torn."""
    disk = CrashingDisk()
    pipeline(house.store(disk), house)
    go_on(house.store(CrashingDisk()), house)
    check_end(house)
    points = [(at, False) for at in range(1, len(disk.calls) + 1)]
    return points + [(at, True) for at, call in enumerate(disk.calls, 1) if call == "write"]


def die(pipeline: Pipeline, house: House, disk: CrashingDisk) -> bool:
    """Run a pipeline on a disk that dies; tell whether it did. (A death at its start counts, too.)"""
    try:
        pipeline(house.store(disk), house)
    except Crash:
        return True
    return False


def survive(pipeline: Pipeline, house: House, disk: CrashingDisk) -> None:
    """Run a pipeline to its death, start anew, and check everything."""
    assert die(pipeline, house, disk), "it was to die"
    check_instant(house)
    whole, made = house.whole(), len(house.made)
    settle(house.store(CrashingDisk()), house)
    check_end(house)
    check_made(house, whole, made)


def other_file_system(near: Path, candidates: tuple[str, ...] = ("/dev/shm", "/run", "/var/tmp")) -> Path | None:  # noqa: S108 - looked at, not trusted
    """Return a directory that a real rename from `near` cannot reach (EXDEV); None when the machine has none."""
    probe = near / "probe"
    for candidate in map(Path, candidates):
        target = candidate / f"topicd-test-{os.getpid()}-{near.name}"
        probe.touch()
        try:
            probe.rename(target)
            target.unlink()
        except OSError as error:
            if error.errno == errno.EXDEV:
                target.mkdir(exist_ok=True)
                return target
    return None


def _turn(store: Store, stage: Stage, house: House) -> bool:
    names = store.ready(stage, (), limit=9).ids
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # it turned out to be published already (S6)
            job = store.begin(stage, name).job
            work(store, stage, job, house)
            store.finish(stage, job)
    return bool(names)


def whole_units(path: Path) -> set[str]:
    """Return the units of one job that are whole."""
    space = Workspace(path, Durable())
    return {unit for unit in EVERY_UNIT if space.whole(unit, unit)}
