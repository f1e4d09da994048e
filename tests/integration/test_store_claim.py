"""Claims by many at once, of files with any name, by a clock that may stand still."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fakes.disk import Crash, CrashingDisk
from rig.pipeline import TOPIC, TROUBLE, House, claim, other_file_system, straight
from topicd.durable import Durable
from topicd.states import Stage
from topicd.store import Store

FILES = 200
RACER = """
import pathlib, sys
from topicd.durable import Disk, Durable
from topicd.spool import Spool
from topicd.store import Store

class Unsynced(Disk):
    def fsync(self, fd):
        pass

home = pathlib.Path(sys.argv[1])
store = Store(Spool(home=home, input_dir=home / "input", output_dir=home / "output"), Durable(Unsynced()))
print("ready", flush=True)
sys.stdin.readline()
for path in sorted((home / "input").iterdir()):
    try:
        store.claim(path, sha256="", size=1)
    except FileNotFoundError:
        pass
"""
NAMES = (
    b"new\nline.md",
    b"..md",
    b"...md",
    b"-rf.md",
    b"--help.md",
    b"a" * 252 + b".md",
    "\N{WATER WAVE}.md".encode(),
    b"caf\xe9.md",
    b"\xff\xfe.md",
    b"a b\t$(touch x);'\".md",
    b"job.json.md",
    "ὕδωρ.md".encode(),
    b"%s%n.md",
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "home")
    house.drop()
    house.topic.unlink()
    return house


def fill(house: House) -> dict[str, bytes]:
    topics = {f"{number:03}.md": f"topic {number}".encode() for number in range(FILES)}
    for name, data in topics.items():
        (house.spool.input / name).write_bytes(data)
    return topics


def claimed(house: House) -> dict[str, bytes]:
    """Return what was claimed, by the source's name; a name claimed twice is an error."""
    jobs = [house.spool.read_job(found.path) for found in house.jobs()]
    assert len({job.source for job in jobs}) == len(jobs)
    folder = house.spool.place(Stage.SCRIPTS)
    return {job.source: (folder / job.id / "topic.md").read_bytes() for job in jobs}


def test_threads_that_race_claim_each_file_once(house: House) -> None:
    topics = fill(house)
    start = threading.Barrier(2)

    def race() -> None:
        store = house.store(CrashingDisk())
        start.wait()
        for name in topics:
            try:
                store.claim(house.spool.input / name, sha256="", size=1)
            except FileNotFoundError:
                continue

    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert claimed(house) == topics
    assert not house.store().recover()


def test_processes_that_race_claim_each_file_once(house: House) -> None:
    topics = fill(house)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(house.home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.communicate("go\n", timeout=30)
        assert [racer.returncode for racer in racers] == [0, 0]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert claimed(house) == topics


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_file_of_any_name_is_claimed_and_kept_byte_for_byte(house: House, name: bytes) -> None:
    path = house.spool.input / os.fsdecode(name)
    path.write_bytes(TOPIC)
    store = house.store()
    job = store.claim(path, sha256="", size=len(TOPIC))
    assert os.fsencode(job.source) == name
    assert os.listdir(house.spool.input) == []  # noqa: PTH208 - a name as the system gives it
    folder = house.spool.place(Stage.SCRIPTS) / job.id
    assert (folder / "topic.md").read_bytes() == TOPIC
    assert job.id.isascii()
    assert job.id[0].isdigit()
    assert len(job.id) < 80
    assert os.fsencode(store.begin(Stage.SCRIPTS, job.id).job.source) == name
    straight(store, house)
    (found,) = house.jobs()
    assert os.fsencode(house.spool.read_job(found.path).source) == name


def ids(house: House, times_s: Sequence[float], names: Sequence[str] = ("same.md",)) -> list[str]:
    clock = iter(times_s)
    store = Store(house.spool, Durable(CrashingDisk()), clock=lambda: next(clock))
    found = []
    for _, name in zip(times_s, itertools.cycle(names), strict=False):
        path = house.spool.input / name
        path.write_bytes(TOPIC)
        found.append(store.claim(path, sha256="", size=1).id)
    return found


@pytest.mark.parametrize(
    "times_s",
    [[1e9] * 20, [1e9 - step for step in range(20)], [1e9 + step * 1e-7 for step in range(20)], [0.0, 4e9, 1e9, 1e9]],
    ids=["stands still", "goes back", "creeps", "jumps"],
)
@pytest.mark.parametrize("names", [["same.md"], ["z.md", "a.md"]], ids=["one name", "two names"])
def test_ids_sort_by_acceptance_whatever_the_clock_does(house: House, times_s: list[float], names: list[str]) -> None:
    found = ids(house, times_s, names)
    assert found == sorted(set(found))
    assert house.spool.ids(Stage.SCRIPTS) == found


@pytest.mark.parametrize("place", [*Stage, "output"])
def test_ids_do_not_collide_after_a_restart_on_a_clock_that_stands_still(house: House, place: str) -> None:
    (first,) = ids(house, [1e9])
    (house.spool.place(Stage.SCRIPTS) / first).rename(house.spool.place(place) / first)
    (second,) = ids(house, [1e9])
    assert second > first


def test_a_claim_of_what_is_gone_leaves_nothing(house: House) -> None:
    with pytest.raises(FileNotFoundError):
        house.store().claim(house.spool.input / "gone.md", sha256="", size=0)
    assert house.files() == []
    assert house.jobs() == []


def test_a_claim_says_what_it_was_told(house: House) -> None:
    house.topic.write_bytes(TOPIC)
    store = Store(house.spool, Durable(), clock=lambda: 1e9)
    job = store.claim(house.topic, sha256="ab", size=7)
    assert (job.source, job.sha256, job.bytes, job.accepted_s) == ("sea.md", "ab", 7, 1e9)
    assert job.accepted == "2001-09-09T01:46:40.000Z"
    assert job.id == "20010909-014640-000000-sea"
    assert house.spool.read_job(house.spool.place(Stage.SCRIPTS) / job.id) == job


def test_ready_gives_the_oldest_first_and_says_when_the_next_is_due(house: House) -> None:
    now = [1e9]
    store = Store(house.spool, Durable(CrashingDisk()), clock=lambda: now[0])
    for name in ("a.md", "b.md", "c.md"):
        (house.spool.input / name).write_bytes(TOPIC)
        store.claim(house.spool.input / name, sha256="", size=1)
    a, b, c = house.spool.ids(Stage.SCRIPTS)
    began = store.begin(Stage.SCRIPTS, a).job
    trouble_at = 1e9 + 60
    store.defer(Stage.SCRIPTS, began, TROUBLE, trouble_at)
    assert store.ready(Stage.SCRIPTS, (), limit=9).ids == [b, c]
    assert store.ready(Stage.SCRIPTS, (b,), limit=9).next_due_s == trouble_at
    assert store.ready(Stage.SCRIPTS, (b,), limit=1).ids == [c]
    now[0] = trouble_at
    assert store.ready(Stage.SCRIPTS, (), limit=9).ids == [a, b, c]


def test_a_claim_that_has_not_happened_is_no_job(house: House) -> None:
    (house.spool.place(Stage.SCRIPTS) / "20010909-014640-000000-sea").mkdir()
    assert house.store().ready(Stage.SCRIPTS, (), limit=9).ids == []
    assert claim(house.store()) is None


class Meddling(CrashingDisk):
    """Puts another file in the source's place once its copy is there; or dies then, before the source is removed."""

    def __init__(self, source: Path, *, dies: bool) -> None:
        super().__init__()
        self.source = source
        self.dies = dies

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.name == "topic.md" and not self.dies:
            put_another(self.source)

    def unlink(self, path: Path) -> None:
        self.dead |= path == self.source and self.dies
        super().unlink(path)


def put_another(path: Path) -> None:
    path.with_name("new").write_bytes(b"another")
    path.with_name("new").rename(path)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[House]:
    far = other_file_system(tmp_path)
    if far is None:
        pytest.skip("no second file system that can be written: nothing gives EXDEV here")
    house = House(tmp_path / "home", far / "house")
    house.drop()
    yield house
    shutil.rmtree(far)


@pytest.mark.parametrize("when", ["at once", "after a death"])
def test_a_file_in_the_place_of_one_that_was_copied_is_another_topic(apart: House, when: str) -> None:
    dies = when == "after a death"
    with pytest.raises(Crash if dies else FileNotFoundError):
        claim(apart.store(Meddling(apart.topic, dies=dies)))
    if dies:
        put_another(apart.topic)
    apart.store(CrashingDisk()).recover()
    assert apart.topic.read_bytes() == b"another"
    assert len(apart.topics()) == dies, "what was replaced before it was a job is gone; what was a job is one still"
