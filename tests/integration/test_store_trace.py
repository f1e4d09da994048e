"""The order of disk calls: when a verb returns, its work has reached the disk; an error of the disk costs nothing."""

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.disk import Call, CrashingDisk, FailingDisk, TracingDisk
from rig.pipeline import (
    ADOPTED,
    TROUBLE,
    House,
    Pipeline,
    check_end,
    check_instant,
    claim,
    detour,
    ends,
    go_on,
    houses,
    other_file_system,
    settle,
    straight,
    work,
)
from topicd.durable import TEMPORARY
from topicd.errors import StorageTrouble
from topicd.job import JOB
from topicd.states import Stage
from topicd.store import Store

Verb = Callable[[Store, House], object]


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    path = other_file_system(tmp_path)
    if path is None:
        pytest.skip("no second file system that can be written: nothing gives EXDEV here")
    yield path
    shutil.rmtree(path)


def unsynced(calls: list[Call]) -> list[str]:
    """Return what a list of calls leaves to a power cut, or puts in place before it is on the disk."""
    faults = list[str]()
    for at, call in enumerate(calls):
        later = {each.file for each in calls[at:] if each.name == "fsync"}
        if call.name in ("rename", "mkdir") and call.into not in later:
            faults.append(f"{call.name} of {call.path.name}: where it went is not fsynced after it")
        if call.name == "rename" and call.path.name.endswith(TEMPORARY) and not _is_synced(calls[:at], call):
            faults.append(f"{call.path.name} is renamed before its bytes are fsynced")
    return faults


def _is_synced(before: list[Call], rename: Call) -> bool:
    own = [call.name for call in before if call.file == rename.file and call.name in ("write", "fsync")]
    return own[-1:] == ["fsync"]


def _began(store: Store, stage: Stage) -> str:
    (name,) = store.spool.ids(stage)
    store.begin(stage, name)
    return name


def _finish(stage: Stage) -> Verb:
    def verb(store: Store, house: House) -> object:
        (name,) = store.spool.ids(stage)
        return store.finish(stage, house.spool.read_job(store.spool.place(stage) / name))

    return verb


def _work(stage: Stage) -> Verb:
    def verb(store: Store, house: House) -> object:
        (name,) = store.spool.ids(stage)
        work(store, stage, house.spool.read_job(store.spool.place(stage) / name), house)
        return None

    return verb


def _begin(stage: Stage) -> Verb:
    return lambda store, _: _began(store, stage)


def _of_job(verb: str, *more: object) -> Verb:
    def run(store: Store, house: House) -> object:
        (name,) = store.spool.ids(Stage.SCRIPTS)
        job = house.spool.read_job(store.spool.place(Stage.SCRIPTS) / name)
        return getattr(store, verb)(Stage.SCRIPTS, job, *more)

    return run


def _of_found(verb: str) -> Verb:
    return lambda store, house: getattr(store, verb)(house.jobs()[0])


VERBS: tuple[tuple[str, Verb], ...] = (
    ("claim", lambda store, _: claim(store)),
    ("begin", _begin(Stage.SCRIPTS)),
    ("defer", _of_job("defer", TROUBLE, 0.0)),
    ("begin", _begin(Stage.SCRIPTS)),
    ("give_back", _of_job("give_back")),
    ("begin", _begin(Stage.SCRIPTS)),
    ("fail", _of_job("fail", TROUBLE)),
    ("hold", _of_found("hold")),
    ("release", _of_found("release")),
    ("begin", _begin(Stage.SCRIPTS)),
    ("fail", _of_job("fail", TROUBLE)),
    ("retry", _of_found("retry")),
    ("keep", _work(Stage.SCRIPTS)),
    ("finish", _finish(Stage.SCRIPTS)),
    ("keep", _work(Stage.AUDIO)),
    ("finish", _finish(Stage.AUDIO)),
    ("keep", _work(Stage.IMAGES)),
    ("finish", _finish(Stage.IMAGES)),
)


def _trace(house: House) -> list[tuple[str, list[Call]]]:
    traces, disk = [], TracingDisk()
    store = house.store(disk)
    for name, verb in VERBS:
        disk.calls = []
        verb(store, house)
        traces.append((name, disk.calls))
    return traces


def test_every_verb_returns_with_its_renames_on_the_disk(tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.drop()
    traces = _trace(house)
    assert [(name, fault) for name, calls in traces for fault in unsynced(calls)] == []
    assert all(any(call.name in ("rename", "create", "unlink") for call in calls) for _, calls in traces)
    check_end(house)


def test_every_verb_does_so_between_two_file_systems(tmp_path: Path, far: Path) -> None:
    house = House(tmp_path / "home", far)
    house.drop()
    assert [(name, fault) for name, calls in _trace(house) for fault in unsynced(calls)] == []
    check_end(house)


def test_what_is_copied_to_another_file_system_is_fsynced_before_it_has_its_name(tmp_path: Path, far: Path) -> None:
    house = House(tmp_path / "home", far)
    house.drop()
    name, calls = _trace(house)[-1]
    assert name == "finish"
    (published,) = [at for at, call in enumerate(calls) if call.name == "rename" and ".incoming" in call.path.name]
    written = {call.file for call in calls[:published] if call.name == "write" and ".incoming" in str(call.path)}
    assert len(written) >= 7
    assert written <= {call.file for call in calls[:published] if call.name == "fsync"}
    removed = [at for at, call in enumerate(calls) if call.name in ("unlink", "rmdir") and at > published]
    synced = [at for at, call in enumerate(calls) if call.name == "fsync" and call.file in calls[published].parents]
    assert published < max(at for at in synced if at < removed[0])


@pytest.mark.parametrize("verb", ["defer", "fail", "retry"])
def test_job_json_is_replaced_and_never_written_in_place(verb: str, tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.drop()
    for _, calls in [each for each in _trace(house) if each[0] == verb]:
        placed = [call for call in calls if call.name == "rename" and call.target and call.target.name == JOB]
        assert placed
        assert not [call for call in calls if call.name in ("write", "create", "unlink") and call.path.name == JOB]


def test_a_trace_without_a_directory_sync_is_seen(tmp_path: Path) -> None:
    disk = TracingDisk()
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    disk.rename(tmp_path / "file", tmp_path / "there" / "file")
    house = House(tmp_path)
    house.store(disk).durable.sync(tmp_path)
    assert unsynced(disk.calls) == ["rename of file: where it went is not fsynced after it"]
    house.store(disk).durable.sync(tmp_path / "there")
    assert unsynced(disk.calls) == []


def _faults(pipeline: Pipeline, house: House, call: str) -> int:
    disk = FailingDisk(0, errno.EIO, call)
    pipeline(house.store(disk), house)
    return disk.seen


@pytest.mark.parametrize("pipeline", [straight, detour])
def test_a_failed_fsync_is_not_tried_again_on_the_same_file(pipeline: Pipeline, tmp_path: Path) -> None:
    supply = houses(tmp_path)
    for at, house in zip(range(1, _faults(pipeline, next(supply), "fsync") + 1), supply, strict=False):
        disk = FailingDisk(at, errno.EIO, "fsync")
        with pytest.raises(StorageTrouble) as caught:
            pipeline(house.store(disk), house)
        assert caught.value.cause == "io_error"
        check_instant(house)
        assert disk.failed
        left = [path for path in house.files() if path.name.endswith(TEMPORARY)]
        assert [path for path in left if not path.name.startswith(f".{ADOPTED}.")] == []
        where = house.home.rglob("*")
        if disk.failed[1] not in {(path.lstat().st_dev, path.lstat().st_ino) for path in where}:  # a temporary file
            assert {call for call, _ in disk.after[:2]} == {"unlink"} or disk.after[0] == ("unlink", disk.failed[1])
            assert ("fsync", disk.failed[1]) not in disk.after


def test_a_failed_fsync_leaves_the_old_file_in_place(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(b"old")
    durable = House(tmp_path).store(FailingDisk(1, errno.EIO, "fsync")).durable
    with pytest.raises(StorageTrouble):
        durable.write(path, b"new")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"job.json": b"old"}
    durable.write(path, b"new")
    assert path.read_bytes() == b"new"


def _is_told(pipeline: Pipeline, store: Store, house: House) -> bool:
    try:
        pipeline(store, house)
    except StorageTrouble as error:
        return error.cause == "disk_full"
    return False


def every_fault(pipeline: Pipeline, after: Pipeline, root: Path, far: Path | None = None) -> tuple[int, int]:
    """Let each call of a pipeline fail once, go on, and check the end. Returns how many did, and were told."""
    supply, told = houses(root, far), 0
    points = _faults(pipeline, next(supply), "")
    for at, house in zip(range(1, points + 1), supply, strict=False):
        try:
            store = house.store(FailingDisk(at, errno.ENOSPC))
            told += _is_told(pipeline, store, house)
            check_instant(house)
            after(store, house)
            house.store(CrashingDisk()).recover()  # a marker that could not be removed
            check_end(house)
        except BaseException as error:
            error.add_note(f"disk full at call {at} of {points}")
            raise
    return points, told


@pytest.mark.parametrize("pipeline", [straight, detour])
def test_a_full_disk_at_any_call_costs_nothing_and_needs_no_restart(pipeline: Pipeline, tmp_path: Path) -> None:
    points, told = every_fault(pipeline, go_on, tmp_path)
    assert points == told + len(Stage) > 60, "a marker that cannot be removed goes at the next start"


def test_a_full_disk_at_any_call_between_two_file_systems(tmp_path: Path, far: Path) -> None:
    points, told = every_fault(ends, settle, tmp_path, far)
    assert points > told > 50
