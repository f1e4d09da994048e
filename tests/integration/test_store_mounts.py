"""Real file systems in trouble: full, read-only, bound over one another. Without root these are skipped."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rig.pipeline import TROUBLE, House, check_end, check_instant, claim, settle, straight, work
from topicd.errors import StorageTrouble, Unusable
from topicd.spool import DONE
from topicd.states import Aside, Stage
from topicd.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
SPACE = "size=256k"


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, timeout=30)


@contextlib.contextmanager
def mounted(target: Path, *arguments: object) -> Iterator[Path]:
    """Mount something, if this root may mount."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        mount(*arguments, target)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this root may not mount: {error}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", target], check=True, timeout=30)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[House]:
    with mounted(tmp_path / "home", "-t", "tmpfs", "-o", f"{SPACE},nr_inodes=200", "tmpfs") as home:
        house = House(home)
        house.drop()
        yield house


def fill(folder: Path) -> Path:
    """Use up a file system's last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


def fill_inodes(folder: Path) -> Path:
    """Use up a file system's last inode."""
    filler = folder / "filler"
    filler.mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (filler / f"{number}").touch()
    return filler


def clear(filler: Path) -> None:
    if filler.is_dir():
        for path in filler.iterdir():
            path.unlink()
        filler.rmdir()
    else:
        filler.unlink()


def prepare(house: House, stage: Stage = Stage.SCRIPTS) -> tuple[Store, str]:
    store = house.store()
    job = claim(store)
    assert job
    for each in Stage:
        began = store.begin(each, job.id).job
        if each is stage:
            break
        work(store, each, began, house)
        store.finish(each, began)
    return store, job.id


def verb_of(house: House, name: str) -> Callable[[], object]:
    """Bring the house to where a verb is next, and return the verb."""
    if name == "claim":
        store = house.store()
        return lambda: claim(store)
    store, job_id = prepare(house)
    job = house.spool.read_job(house.jobs()[0].path)
    if name == "retry":
        store.fail(Stage.SCRIPTS, job, TROUBLE)
        return lambda: store.retry(house.jobs()[0])
    if name == "begin":
        store.give_back(Stage.SCRIPTS, job)
    if name == "finish":
        work(store, Stage.SCRIPTS, job, house)
    return {
        "begin": lambda: store.begin(Stage.SCRIPTS, job_id),
        "give_back": lambda: store.give_back(Stage.SCRIPTS, job),
        "defer": lambda: store.defer(Stage.SCRIPTS, job, TROUBLE, 0.0),
        "fail": lambda: store.fail(Stage.SCRIPTS, job, TROUBLE),
        "keep": lambda: work(store, Stage.SCRIPTS, job, house),
        "finish": lambda: store.finish(Stage.SCRIPTS, job),
    }[name]


NEEDS_NO_SPACE = ["give_back", "finish"]
VERBS = ["claim", "begin", "give_back", "defer", "fail", "keep", "finish", "retry"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("filling", [fill, fill_inodes])
def test_a_full_disk_stops_a_verb_and_costs_nothing(small: House, verb: str, filling: Callable[[Path], Path]) -> None:
    run = verb_of(small, verb)
    before = {path: path.read_bytes() for path in small.files()}
    filler = filling(small.home)
    if verb in NEEDS_NO_SPACE or (verb == "begin" and filling is fill):
        run()
        clear(filler)
    else:
        with pytest.raises(StorageTrouble) as caught:
            run()
        clear(filler)
        assert caught.value.cause == "disk_full"
        assert {path: path.read_bytes() for path in small.files()} == before
    settle(small.store(), small)
    check_end(small)


@pytest.mark.parametrize("verb", [*VERBS, "hold"])
def test_a_disk_that_became_read_only_stops_a_verb_and_costs_nothing(small: House, verb: str) -> None:
    run = verb_of(small, verb) if verb != "hold" else None
    if run is None:
        store, _ = prepare(small)
        run = lambda: store.hold(small.jobs()[0])  # noqa: E731 - one verb of several
    before = {path: path.read_bytes() for path in small.files()}
    mount("-o", "remount,ro", small.home)
    with pytest.raises(StorageTrouble) as caught:
        run()
    mount("-o", "remount,rw", small.home)
    assert caught.value.cause == "read_only"
    assert {path: path.read_bytes() for path in small.files()} == before
    settle(small.store(), small)
    check_end(small)


def test_two_bind_mounts_of_one_disk_are_two_file_systems(tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.drop()
    with contextlib.ExitStack() as mounts:
        for name in ("input", "output"):
            (tmp_path / name).mkdir()
            mounts.enter_context(mounted(house.home / name, "--bind", tmp_path / name))
        (house.topic).write_bytes(b"# One disk, two mounts\n")
        assert house.spool.input.stat().st_dev == house.spool.root.stat().st_dev
        store = house.store()
        store.open()
        straight(store, house)
        (found,) = house.jobs()
        assert found.place == DONE
        assert list((tmp_path / "output").iterdir()) == [tmp_path / "output" / found.id]
        assert not list((tmp_path / "input").iterdir())
        assert (found.path / "topic.md").read_bytes() == b"# One disk, two mounts\n"


def test_a_spool_in_two_file_systems_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.drop()
    with (
        mounted(house.spool.place(Aside.FAILED), "-t", "tmpfs", "-o", SPACE, "tmpfs"),
        pytest.raises(Unusable, match="another file system"),
    ):
        house.store().open()


def test_an_input_that_became_read_only_gives_no_job_twice(tmp_path: Path) -> None:
    house = House(tmp_path / "home")
    house.drop()
    with mounted(house.spool.input, "-t", "tmpfs", "-o", SPACE, "tmpfs"):
        house.topic.write_bytes(b"# Once\n")
        mount("-o", "remount,ro", house.spool.input)
        store = house.store()
        for _ in range(3):
            with pytest.raises(StorageTrouble):
                claim(store)
        assert house.jobs() == []
        mount("-o", "remount,rw", house.spool.input)
        straight(store, house)
        assert [found.place for found in house.jobs()] == [DONE]


def test_a_full_output_on_another_file_system_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path / "home", tmp_path / "far")
    with mounted(tmp_path / "far", "-t", "tmpfs", "-o", SPACE, "tmpfs"):
        house.drop()
        store, job_id = prepare(house, Stage.IMAGES)
        job = house.spool.read_job(house.jobs()[0].path)
        work(store, Stage.IMAGES, job, house)
        filler = fill(tmp_path / "far")
        with pytest.raises(StorageTrouble):
            store.finish(Stage.IMAGES, job)
        check_instant(house)
        clear(filler)
        assert [(found.place, found.id) for found in house.jobs()] == [(Stage.IMAGES, job_id)]
        settle(store, house)
        check_end(house)
