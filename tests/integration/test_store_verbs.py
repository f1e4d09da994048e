"""Every move of the state table, legal and illegal, and what stands in a job's files after each."""

import errno
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.disk import CrashingDisk
from rig.pipeline import EVERY_UNIT, TOPIC, TROUBLE, House, claim, go_on, product, settle, straight, work
from topicd.durable import INCOMING, Disk
from topicd.errors import StorageTrouble
from topicd.job import Damaged, Job
from topicd.spool import DONE, Found
from topicd.states import MOVES, SPOOL_PLACES, Aside, Stage
from topicd.store import Illegal, Store

PLACES = (*SPOOL_PLACES, DONE)
LEGAL = {
    "hold": {*Stage, Aside.FAILED},
    "release": {Aside.HELD},
    "retry": {*Stage, Aside.FAILED},
}


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "home")
    house.drop()
    return house


@pytest.fixture
def store(house: House) -> Store:
    return house.store(CrashingDisk())


def at(house: House, place: str) -> Found:
    """Put a new job into a place, as a person would with mv."""
    store = house.store(CrashingDisk())
    job = claim(store)
    assert job
    path = house.spool.place(place) / job.id
    (house.spool.place(Stage.SCRIPTS) / job.id).rename(path)
    return Found(place, job.id, path)


def test_every_move_of_the_table_is_a_verb_of_the_store() -> None:
    assert all(callable(getattr(Store, move.verb)) for move in MOVES)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("verb", LEGAL)
def test_a_person_may_do_just_what_the_table_says(house: House, store: Store, verb: str, place: str) -> None:
    found = at(house, place)
    move: Callable[[Found], Found] = getattr(store, verb)
    if place not in LEGAL[verb]:
        with pytest.raises(Illegal):
            move(found)
        assert house.jobs() == [found]
    else:
        moved = move(found)
        stays = verb == "retry" and place != Aside.FAILED
        wanted = place if stays else Aside.HELD if verb == "hold" else Stage.SCRIPTS
        assert (moved.place, moved.id) == (wanted, found.id)
        assert house.jobs() == [moved]
    assert house.topics() == [house.jobs()[0].path / "topic.md"]


@pytest.mark.parametrize("verb", ["give_back", "defer", "finish", "fail"])
def test_a_job_that_was_moved_away_is_no_fault(house: House, store: Store, verb: str) -> None:
    found = at(house, Stage.SCRIPTS)
    job = store.begin(Stage.SCRIPTS, found.id).job
    store.hold(found)
    more = {"defer": (TROUBLE, 0.0), "fail": (TROUBLE,)}.get(verb, ())
    with pytest.raises(FileNotFoundError):
        getattr(store, verb)(Stage.SCRIPTS, job, *more)
    assert [each.place for each in house.jobs()] == [Aside.HELD]


@pytest.mark.parametrize("verb", ["hold", "release", "retry"])
def test_a_job_that_somebody_moved_first_is_told_as_gone(house: House, store: Store, verb: str) -> None:
    found = at(house, {"hold": Stage.AUDIO, "release": Aside.HELD, "retry": Aside.FAILED}[verb])
    shutil.move(found.path, house.spool.place(Stage.IMAGES))
    with pytest.raises(FileNotFoundError):
        getattr(store, verb)(found)
    assert [each.place for each in house.jobs()] == [Stage.IMAGES]


def began(house: House, store: Store, stage: Stage = Stage.SCRIPTS) -> Job:
    return store.begin(stage, at(house, stage).id).job


def in_hand(house: House) -> list[tuple[str, str]]:
    """Return the jobs in hand and the runs that have them, as the tree tells."""
    return [(marker.job, marker.run) for stage in Stage for marker in house.spool.survey(stage).markers]


def saved(house: House) -> Job:
    (found,) = house.jobs()
    return house.spool.read_job(found.path)


def test_begin_counts_before_the_work(house: House, store: Store) -> None:
    job = began(house, store)
    assert saved(house).attempts == {}
    assert job.attempts == {"scripts": 1}
    assert in_hand(house) == [(job.id, store.run)]


def test_give_back_uncounts(house: House, store: Store) -> None:
    store.give_back(Stage.SCRIPTS, began(house, store))
    assert saved(house).attempts == {}
    assert in_hand(house) == []


def test_defer_keeps_the_count_the_time_and_the_error(house: House, store: Store) -> None:
    later = time.time() + 1000
    store.defer(Stage.SCRIPTS, began(house, store), TROUBLE, later)
    job = saved(house)
    assert (job.attempts, job.not_before_s, job.last_error) == ({"scripts": 1}, later, TROUBLE)
    assert in_hand(house) == []
    assert store.ready(Stage.SCRIPTS, (), limit=1) == ([], set(), later, True)


def test_a_wait_of_years_is_a_clock_that_was_wrong(house: House, store: Store) -> None:
    store.defer(Stage.SCRIPTS, began(house, store), TROUBLE, 4e9)
    assert len(store.ready(Stage.SCRIPTS, (), limit=1).ids) == 1


def test_fail_says_why_in_reason_json(house: House, store: Store) -> None:
    store.fail(Stage.SCRIPTS, began(house, store), TROUBLE)
    (found,) = house.jobs()
    assert found.place == Aside.FAILED
    assert json.loads((found.path / "reason.json").read_bytes())["cause"] == TROUBLE.cause
    assert house.spool.read_reason(found.path) == TROUBLE
    assert in_hand(house) == []


def test_retry_begins_at_zero_and_takes_the_reason_away(house: House, store: Store) -> None:
    store.fail(Stage.SCRIPTS, began(house, store), TROUBLE)
    store.retry(house.jobs()[0])
    job = saved(house)
    assert (job.attempts, job.crashes, job.not_before_s) == ({}, {}, 0)
    straight(store, house)
    (found,) = house.jobs()
    assert not (found.path / "reason.json").exists()


def test_a_job_that_went_well_in_the_end_carries_no_reason(house: House, store: Store) -> None:
    store.fail(Stage.SCRIPTS, began(house, store), TROUBLE)
    (found,) = house.jobs()
    found.path.rename(house.spool.place(Stage.SCRIPTS) / found.id)
    straight(store, house)
    (found,) = house.jobs()
    assert found.place == DONE
    assert not (found.path / "reason.json").exists()


def test_retry_leaves_alone_what_is_in_work(house: House, store: Store) -> None:
    began(house, store)
    with store.locked({}), pytest.raises(Illegal) as caught:
        store.retry(house.jobs()[0])
    assert caught.value.cause == "in_work"
    assert store.retry(house.jobs()[0]).place == Stage.SCRIPTS


def upto(house: House, store: Store, stage: Stage) -> Job:
    """Bring the job to a stage, whose first unit alone is made, and begin it there."""
    claim(store)
    (name,) = store.spool.ids(Stage.SCRIPTS)
    for each in Stage:
        job = store.begin(each, name).job
        work(store, each, job, house, units_max=1 if each is stage else None)
        if each is stage:
            return job
        store.finish(each, job)
    raise AssertionError


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("aside", [Aside.FAILED, Aside.HELD])
def test_what_was_put_aside_half_made_goes_on_where_it_was(
    house: House, store: Store, stage: Stage, aside: Aside
) -> None:
    job = upto(house, store, stage)
    if aside is Aside.FAILED:
        store.fail(stage, job, TROUBLE)
        moved = store.retry(house.jobs()[0])
    else:
        moved = store.release(store.hold(house.jobs()[0]))
    assert moved.place == stage
    straight(store, house)
    assert house.made == list(EVERY_UNIT)


@pytest.mark.parametrize(
    ("unit", "stage"), [("scenes.json", Stage.SCRIPTS), ("audio/001.wav", Stage.AUDIO), ("audio.wav", Stage.AUDIO)]
)
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"x")], ids=["gone", "harmed"])
def test_retry_makes_a_harmed_product_again(
    house: House, store: Store, unit: str, stage: Stage, harm: Callable[[Path], object]
) -> None:
    job = upto(house, store, Stage.IMAGES)
    store.fail(Stage.IMAGES, job, TROUBLE)
    (found,) = house.jobs()
    harm(found.path / unit)
    assert store.retry(found).place == stage
    straight(store, house)
    (found,) = house.jobs()
    assert found.place == DONE
    assert (found.path / unit).read_bytes() == product(unit)


@pytest.mark.parametrize("data", [b"{}\n", b"[", b"[]", b'{"id": 1}', b"\xff" * 99, b"[" * 99_999])
def test_retry_of_a_damaged_job_lets_it_go_on_and_keeps_the_damaged_file(
    house: House, store: Store, data: bytes
) -> None:
    found = at(house, Aside.FAILED)
    (found.path / "job.json").write_bytes(data)
    with pytest.raises(Damaged):
        house.spool.read_job(found.path)
    moved = store.retry(found)
    assert moved.place == Stage.SCRIPTS
    assert (moved.path / "job.json.damaged").read_bytes() == data
    straight(store, house)
    assert [each.place for each in house.jobs()] == [DONE]


def test_a_damaged_job_is_put_aside_as_it_was_found(house: House, store: Store) -> None:
    found = at(house, Stage.AUDIO)
    (found.path / "job.json").write_bytes(b"[")
    with pytest.raises(Damaged):
        store.begin(Stage.AUDIO, found.id)
    store.fail_damaged(Stage.AUDIO, found.id, TROUBLE)
    (found,) = house.jobs()
    assert found.place == Aside.FAILED
    assert (found.path / "job.json").read_bytes() == b"["
    assert house.spool.read_reason(found.path) == TROUBLE


def test_a_job_without_job_json_is_no_rubbish(house: House, store: Store) -> None:
    found = at(house, Stage.SCRIPTS)
    (found.path / "job.json").unlink()
    assert store.recover() == []
    assert store.ready(Stage.SCRIPTS, (), limit=1).ids == [found.id]
    straight(store, house)
    assert (house.spool.place(DONE) / found.id / "topic.md").read_bytes() == TOPIC


def test_recovery_keeps_what_it_does_not_know(house: House, store: Store) -> None:
    unknown = house.spool.place(Stage.SCRIPTS) / "notes"
    unknown.mkdir()
    (unknown / "mine.txt").write_bytes(b"mine")
    (house.spool.output / "mine").mkdir()
    (house.spool.output / ".hidden").write_bytes(b"mine")
    assert store.recover() == []
    assert (unknown / "mine.txt").read_bytes() == b"mine"
    assert (house.spool.output / ".hidden").read_bytes() == b"mine"


def test_recovery_does_not_follow_a_link_in_output(house: House, store: Store, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"mine")
    link = house.spool.output / f".{at(house, Stage.IMAGES).id}{INCOMING}"
    link.symlink_to(precious)
    settle(store, house)
    assert not link.is_symlink()
    assert (precious / "file").read_bytes() == b"mine"


def test_a_second_recovery_finds_nothing(house: House, store: Store) -> None:
    found = at(house, Stage.IMAGES)
    (house.spool.place(Stage.SCRIPTS) / "20010909-014640-000000-sea").mkdir()
    (house.spool.output / f".{found.id}{INCOMING}").mkdir()
    assert len(store.recover()) == 2
    assert store.recover() == []


def test_what_may_be_the_only_copy_of_a_job_is_left_at_every_start(house: House, store: Store) -> None:
    copy = house.spool.output / f".20010909-014640-000000-sea{INCOMING}"
    copy.mkdir()
    assert ["the only copy" in line for line in store.recover()] == [True]
    assert copy.is_dir()


def test_a_copy_of_a_finished_job_put_back_to_be_made_again_is_left_alone(house: House, store: Store) -> None:
    straight(store, house)
    (found,) = house.jobs()
    copy = house.spool.place(Stage.IMAGES) / found.id
    shutil.copytree(found.path, copy)
    store.recover()
    assert (copy / "topic.md").read_bytes() == TOPIC


def test_a_held_job_is_not_counted_a_crash_after_a_restart(house: House, store: Store) -> None:
    began(house, store)
    store.hold(house.jobs()[0])
    after = house.store(CrashingDisk())
    after.release(house.jobs()[0])
    begun = after.begin(Stage.SCRIPTS, house.jobs()[0].id)
    assert not begun.crashed
    assert begun.job.crashes == {}


@pytest.mark.parametrize("when", ["in the same run", "after a restart"])
def test_a_death_is_counted_once(house: House, store: Store, when: str) -> None:
    job = began(house, store)
    after = house.store(CrashingDisk())
    after.recover()
    begun = after.begin(Stage.SCRIPTS, job.id)
    assert begun.crashed
    after.give_back(Stage.SCRIPTS, begun.job)
    if when == "after a restart":
        after = house.store(CrashingDisk())
        after.recover()
    begun = after.begin(Stage.SCRIPTS, job.id)
    assert not begun.crashed
    assert begun.job.crashes == {"scripts": 1}


def test_what_is_put_aside_goes_on_to_the_end(house: House, store: Store) -> None:
    store.fail(Stage.SCRIPTS, began(house, store), TROUBLE)
    go_on(store, house)
    assert [found.place for found in house.jobs()] == [DONE]


def test_a_begin_that_fails_after_a_death_was_counted_counts_it_once(house: House) -> None:
    found = at(house, Stage.SCRIPTS)
    dead = house.store()
    dead.recover()
    dead.begin(Stage.SCRIPTS, found.id)
    disk = RefusingDisk(house.spool.place(Stage.SCRIPTS))
    store = house.store(disk)
    store.recover()
    disk.refusals = 2
    for _ in range(2):
        with pytest.raises(StorageTrouble):
            store.begin(Stage.SCRIPTS, found.id)
    assert store.begin(Stage.SCRIPTS, found.id).job.crashes == {Stage.SCRIPTS: 1}


def test_a_published_job_that_a_person_brings_back_is_not_taken_for_a_leftover(house: House, store: Store) -> None:
    found = at(house, Stage.IMAGES)
    copy = house.spool.output / found.id
    shutil.copytree(found.path, copy)
    (copy / "manifest.json").write_bytes(b"{}\n")
    store.moves.published.add(found.id)  # as after a publish across file systems whose source could not be removed
    with pytest.raises(FileNotFoundError):
        store.begin(Stage.IMAGES, found.id)
    copy.rename(found.path)
    store.begin(Stage.IMAGES, found.id)
    assert (found.path / "topic.md").is_file()


class RefusingDisk(Disk):
    """Refuses to fsync one directory, some times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refusals = 0

    def fsync(self, fd: int) -> None:
        """Fail, while there are refusals left."""
        if self.refusals and self.folder.samefile(f"/proc/self/fd/{fd}"):
            self.refusals -= 1
            raise OSError(errno.EIO, "Input/output error")
        super().fsync(fd)
