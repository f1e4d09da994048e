"""Death at every disk call: the next start brings the job to its end, and nothing is lost or doubled."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.disk import Crash, CrashingDisk, PowerDisk
from rig.pipeline import (
    TROUBLE,
    UNITS,
    House,
    Pipeline,
    check_end,
    check_instant,
    check_made,
    claim,
    crash_points,
    detour,
    die,
    ends,
    houses,
    lost_race,
    other_file_system,
    settle,
    straight,
    survive,
    work,
)
from topicd.states import Aside, Stage

CRASHES_MAX = 400


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    path = other_file_system(tmp_path)
    if path is None:
        pytest.skip("no second file system that can be written: nothing gives EXDEV here")
    yield path
    shutil.rmtree(path)


def every_death(pipeline: Pipeline, root: Path, far: Path | None = None) -> int:
    supply = houses(root, far)
    points = crash_points(pipeline, next(supply))
    assert len(points) < CRASHES_MAX
    for (at, torn), house in zip(points, supply, strict=False):
        try:
            survive(pipeline, house, CrashingDisk(at, torn=torn))
        except BaseException as error:
            error.add_note(f"died at call {at} of {len(points)}{', torn' if torn else ''}")
            raise
    return len(points)


@pytest.mark.parametrize("pipeline", [straight, detour, lost_race])
def test_a_death_anywhere_costs_at_most_the_unit_in_hand(pipeline: Pipeline, tmp_path: Path) -> None:
    assert every_death(pipeline, tmp_path) > 3


def test_a_death_anywhere_between_two_file_systems(tmp_path: Path, far: Path) -> None:
    assert every_death(ends, tmp_path, far) > 60


def test_a_death_during_recovery_is_a_death_like_any_other(tmp_path: Path, far: Path) -> None:
    supply = houses(tmp_path, far)
    points = crash_points(ends, next(supply))
    cut_short = 0
    for (at, torn), house in zip(points, supply, strict=False):
        assert die(ends, house, CrashingDisk(at, torn=torn))
        whole, made, again = house.whole(), len(house.made), 0
        while True:
            again += 1
            try:
                house.store(CrashingDisk(again)).recover()
            except Crash:
                cut_short += 1
                check_instant(house)
                continue
            break
        settle(house.store(CrashingDisk()), house)
        check_end(house)
        check_made(house, whole, made)
    assert cut_short > 30


@pytest.mark.parametrize("pipeline", [straight, detour])
def test_a_power_cut_anywhere_costs_at_most_the_unit_in_hand(pipeline: Pipeline, tmp_path: Path) -> None:
    supply = houses(tmp_path)
    points = [at for at, torn in crash_points(pipeline, next(supply)) if not torn]
    for at, house in zip(points, supply, strict=False):
        try:
            survive(pipeline, house, PowerDisk(at))
        except BaseException as error:
            error.add_note(f"power lost at call {at} of {len(points)}")
            raise


def _begun(house: House, stage: Stage, disk: CrashingDisk) -> None:
    store = house.store(disk)
    job = claim(store)
    assert job
    for each in Stage:
        began = store.begin(each, job.id).job
        if each is stage:
            return
        work(store, each, began, house)
        store.finish(each, began)


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[tuple[House, PowerDisk]]:
    house = House(tmp_path / "home")
    house.drop()
    disk = PowerDisk()
    disk.unsynced(house.topic)
    yield house, disk
    disk.close_all()


def test_what_was_claimed_survives_a_power_cut(cut: tuple[House, PowerDisk]) -> None:
    house, disk = cut
    job = claim(house.store(disk))
    disk.cut()
    (found,) = house.jobs()
    assert job
    assert (found.place, found.id) == (Stage.SCRIPTS, job.id)
    assert house.topics() == [found.path / "topic.md"]
    assert house.spool.read_job(found.path).accepted_s == pytest.approx(job.accepted_s, abs=1e-3)


def test_an_attempt_that_was_begun_survives_a_power_cut(cut: tuple[House, PowerDisk]) -> None:
    house, disk = cut
    _begun(house, Stage.SCRIPTS, disk)
    disk.cut()
    (found,) = house.jobs()
    store = house.store(CrashingDisk())
    store.recover()
    assert store.begin(Stage.SCRIPTS, found.id).job.crashes == {"scripts": 1}


def test_a_unit_that_was_kept_survives_a_power_cut(cut: tuple[House, PowerDisk]) -> None:
    house, disk = cut
    _begun(house, Stage.AUDIO, disk)
    (found,) = house.jobs()
    unit = UNITS[Stage.AUDIO][0]
    house.store(disk).workspace(Stage.AUDIO, found.id).keep(unit, b"wav", made_from=unit, by={}, seconds=1, at=1)
    disk.cut()
    assert unit in house.whole()


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_that_was_finished_survives_a_power_cut(cut: tuple[House, PowerDisk], stage: Stage) -> None:
    house, disk = cut
    _begun(house, stage, disk)
    (found,) = house.jobs()
    store = house.store(disk)
    work(store, stage, house.spool.read_job(found.path), house)
    target = store.finish(stage, house.spool.read_job(found.path))
    disk.cut()
    assert [each.path for each in house.jobs()] == [target]
    assert house.whole() >= set(UNITS[stage])
    if stage.next is None:
        assert target.parent == house.spool.output
        house.store(CrashingDisk()).recover()
        check_end(house)


def test_a_failure_that_was_told_survives_a_power_cut(cut: tuple[House, PowerDisk]) -> None:
    house, disk = cut
    _begun(house, Stage.SCRIPTS, disk)
    (found,) = house.jobs()
    store = house.store(disk)
    store.fail(Stage.SCRIPTS, house.spool.read_job(found.path), TROUBLE)
    disk.cut()
    (found,) = house.jobs()
    assert found.place == Aside.FAILED
    assert house.spool.read_reason(found.path) == TROUBLE


def test_the_power_model_takes_away_what_was_not_synced(tmp_path: Path) -> None:
    disk = PowerDisk()
    (tmp_path / "old").write_bytes(b"old")
    with (tmp_path / "written").open("wb") as kept:
        os.close(disk.create(tmp_path / "new"))
        disk.rename(tmp_path / "old", tmp_path / "written")
        disk.mkdir(tmp_path / "folder")
        kept.write(b"x")
    disk.cut()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old", "written": b"x"[:0]}


def test_what_a_person_puts_back_is_left_until_a_start_takes_it_for_a_leftover(tmp_path: Path, far: Path) -> None:
    house = House(tmp_path / "home", far / "house")
    house.drop()
    store = house.store(CrashingDisk())
    straight(store, house)
    (found,) = house.jobs()
    shutil.copytree(found.path, house.spool.place(Stage.IMAGES) / found.id)
    store.begin(Stage.IMAGES, found.id)
    assert len(house.jobs()) == 2, "mv across file systems copies first: what it is still copying is not ours to remove"
    house.store(CrashingDisk()).recover()
    assert house.jobs() == [found]
    check_end(house)
