"""Backup and restore: each job once and whole whatever moves meanwhile, and no archive that harms a home."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from dotenv import dotenv_values

from rig.daemon import Home
from rig.pipeline import House, other_file_system
from topicd import archive, oncall
from topicd import backup as backups
from topicd.archive import BadArchive, parts_of
from topicd.backup import Summary, backup
from topicd.durable import Disk, Durable
from topicd.errors import StorageTrouble, Unusable
from topicd.lock import Taken
from topicd.packer import Packer
from topicd.pinned import FILES_MAX, ORDER, pinned
from topicd.restore import _Aside, restore
from topicd.settings import Settings
from topicd.spool import DONE, Spool
from topicd.states import Aside, Stage
from topicd.store import Store
from topicd.workspace import Workspace

# Every day every third of the instants; all of them with INSTANTS=all.
STEP = 1 if os.environ.get("INSTANTS") == "all" else 3
PRODUCTS = {Stage.SCRIPTS: ("script.md",), Stage.AUDIO: ("audio/001.wav",), Stage.IMAGES: ("images/001.png",)}


class Unsynced(Disk):
    """Does all but fsync: what these tests are about needs none, and on a busy disk it takes minutes."""

    def fsync(self, fd: int) -> None:
        pass


class Den:
    """A home whose jobs are made and moved by hand, as the daemon and people do."""

    def __init__(self, path: Path, spool: type[Spool] = Spool, *, is_new: bool = True) -> None:
        self.path = path
        self.spool = spool(home=path, input_dir=path / "input", output_dir=path / "output")
        self.store = Store(self.spool, Durable(Unsynced()))
        if is_new:
            self.store.open()

    def drop(self, name: str) -> Path:
        path = self.spool.input / f"{name}.md"
        path.write_text(f"# {name}\n")
        return path

    def claim(self, name: str) -> str:
        path = self.spool.input / f"{name}.md"
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return self.store.claim(path, sha256=sha256, size=path.stat().st_size).id

    def job(self, name: str, place: str = Stage.SCRIPTS) -> str:
        self.drop(name)
        job = self.claim(name)
        for stage in Stage:
            if stage == place:
                return job
            self.make(stage, job)
            self.move(job, stage, stage.next or DONE)
        if place in list(Aside):
            self.move(job, DONE, place)
        return job

    def make(self, stage: Stage, job: str) -> None:
        space = Workspace(self.spool.place(stage) / job, self.store.durable)
        for unit in PRODUCTS[stage]:
            space.keep(unit, unit.encode() * 50, made_from=unit, by={}, seconds=0.0, at=0.0)

    def move(self, job: str, source: str, target: str) -> None:
        self.store.durable.rename(self.spool.place(source) / job, self.spool.place(target) / job)

    def backup(self, folder: Path, **kwargs: object) -> Summary:
        folder.mkdir(exist_ok=True)
        settings: dict[str, object] = {"settings_text": "", "has_cache": False, "keep": None, "min_free_bytes": 0}
        return backup(self.spool, folder, self.store.durable, **{**settings, **kwargs})  # type: ignore[arg-type]

    def files(self) -> dict[str, bytes]:
        """Return everything that a backup should hold."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for top in (self.spool.input, self.spool.root, self.spool.output)
            for path in top.rglob("*")
            if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
        }


@pytest.fixture
def den(tmp_path: Path) -> Den:
    den = Den(tmp_path / "home")
    for place in (*Stage, *Aside, DONE):
        den.job(f"in {place}", place)
    den.drop("waiting")
    return den


def members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [member.name for member in tar.getmembers()]


def topics(path: Path) -> Counter[str]:
    """Return the topics in an archive by their words."""
    with tarfile.open(path) as tar:
        found = [each for each in tar.getmembers() if each.name.endswith("topic.md") or each.name.startswith("input/")]
        return Counter((tar.extractfile(each) or io.BytesIO()).read().decode().strip() for each in found)


def test_a_restored_home_is_the_same_home(den: Den, tmp_path: Path) -> None:
    (den.spool.place(Stage.SCRIPTS) / f".{den.job('begun')}.0123456789abcdef.begun").touch()
    (den.spool.place(Stage.SCRIPTS) / den.job("half made") / ".script.md.0a0b0c0d.tmp").touch()
    summary = den.backup(tmp_path / "b", settings_text="A='b'\n")
    assert (summary.jobs, summary.topics, summary.missing, summary.harmed) == (8, 1, [], {})
    assert summary.path.stat().st_mode & 0o777 == 0o600
    checked = subprocess.run(["sha256sum", "-c", f"{summary.path.name}.sha256"], cwd=tmp_path / "b", check=False)
    assert checked.returncode == 0
    new = Den(tmp_path / "new")
    done = restore(new.spool, new.store, summary.path)
    assert new.files() == den.files()
    assert (sum(done.jobs.values()), done.topics, done.harmed) == (8, 1, [])
    assert done.settings
    assert done.settings.read_text() == "A='b'\n"
    assert done.settings.stat().st_mode & 0o777 == 0o600
    assert not [path for path in new.path.rglob("*") if path.name.startswith((".restore", ".topicd-probe"))]


class Restless(Spool):
    """A spool in which something happens at the nth look at a place."""

    happens_at = 0
    looks = 0
    happening: Callable[[], object] = staticmethod(lambda: None)

    def place(self, place: str) -> Path:
        self.looks += 1
        if self.looks == self.happens_at:
            self.happening()
        return super().place(place)


def claimed(den: Den) -> None:
    den.claim("waiting")


def claimed_and_published(den: Den) -> None:
    job = den.claim("waiting")
    for stage in Stage:
        den.make(stage, job)
        den.move(job, stage, stage.next or DONE)


def moved_on(den: Den) -> None:
    for stage in (Stage.IMAGES, Stage.AUDIO, Stage.SCRIPTS):
        for job in den.spool.ids(stage):
            den.make(stage, job)
            den.move(job, stage, stage.next or DONE)


def moved_back(den: Den) -> None:
    for source, target in ((Aside.FAILED, Stage.AUDIO), (Aside.HELD, Stage.SCRIPTS), (Stage.IMAGES, Stage.SCRIPTS)):
        for job in den.spool.ids(source):
            den.move(job, source, target)


def put_aside(den: Den) -> None:
    for stage, target in ((Stage.SCRIPTS, Aside.FAILED), (Stage.AUDIO, Aside.HELD), (Stage.IMAGES, Aside.HELD)):
        for job in den.spool.ids(stage):
            den.move(job, stage, target)


def another_dropped_and_claimed(den: Den) -> None:
    den.job("newer")


EVENTS = (claimed, claimed_and_published, moved_on, moved_back, put_aside, another_dropped_and_claimed)
WANTED = {"# waiting", "# in scripts", "# in audio", "# in images", "# in failed", "# in held", "# in output"}


def restless(path: Path) -> Den:
    den = Den(path, Restless)
    for place in (*Stage, *Aside, DONE):
        den.job(f"in {place}", place)
    den.drop("waiting")
    return den


def faults(path: Path) -> str:
    """Return what is wrong with an archive of a restless home; empty when nothing is."""
    found = topics(path)
    if lost := WANTED - {*found}:
        return f"lost: {lost}"
    if twice := {title: times for title, times in found.items() if times != 1}:
        return f"twice: {twice}"
    return ""


def attempts(top: Path, event: Callable[[Den], None], run: Callable[[Den], Path], *, step: int = 1) -> Iterator[str]:
    """Make a backup for each instant at which something may happen; yield what is wrong with each."""
    at, is_reached = 0, True
    while is_reached:
        at += step
        den = restless(top / f"home-{at}")
        spool = den.spool
        assert isinstance(spool, Restless)
        spool.looks, spool.happens_at = 0, at
        quiet = Den(den.path, is_new=False)  # what happens does not count its own looks
        spool.happening = partial(event, quiet)
        yield faults(run(den))
        is_reached = spool.looks >= at
        shutil.rmtree(den.path)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_whatever_moves_at_any_instant_each_job_is_in_it_once(tmp_path: Path, event: Callable[[Den], None]) -> None:
    folder, results = tmp_path / "b", list[str]()

    def run(den: Den) -> Path:
        path = den.backup(folder, keep=1).path
        with tarfile.open(path) as tar:
            check_whole(tar)
        return path

    results += attempts(tmp_path, event, run, step=STEP)
    assert [result for result in results if result] == []
    assert len(results) > 40 / STEP
    print(f"{event.__name__}: {len(results)} instants")  # noqa: T201 - a figure


def check_whole(tar: tarfile.TarFile) -> None:
    """Check that every job has each product that its manifest tells of, and those that its place needs."""
    data = {each.name: (tar.extractfile(each) or io.BytesIO()).read() for each in tar.getmembers()}
    for name in data:
        if not name.endswith("topic.md"):
            continue
        top = name.removesuffix("/topic.md")
        products = json.loads(data.get(f"{top}/manifest.json", b'{"products": []}'))["products"]
        for entry in products:
            assert hashlib.sha256(data[f"{top}/{entry['path']}"]).hexdigest() == entry["sha256"]
        place = top.split("/")[-2]
        needed = list(Stage)[: list(Stage).index(Stage(place))] if place in list(Stage) else []
        assert {unit for stage in needed for unit in PRODUCTS[stage]} <= {entry["path"] for entry in products}, top


class Forgetful(backups._Backup):
    """Takes no job that appeared meanwhile."""

    def _late_job(self, name: str, topics: set[str]) -> None:
        pass


class Doubling(backups._Backup):
    """Takes every job that appeared meanwhile."""

    def _late_job(self, name: str, topics: set[str]) -> None:  # noqa: ARG002 - that is the fault
        self._job(name)


class Hasty(backups._Backup):
    """Takes the topics in input/ before it reads what jobs there are."""

    def run(self, settings_text: str, *, has_cache: bool) -> Summary:
        for name in sorted(self._topics()):
            self._topic(name)
        self._taken_in_input.clear()
        return super().run(settings_text, has_cache=has_cache)


class Glancing(backups._Backup):
    """Reads what jobs there are once, against the way they go."""

    def _roster(self, known: set[str]) -> set[str]:
        return {name for place in (DONE, *reversed(Stage), *Aside) for name in self._spool.ids(place)} - known


@pytest.mark.parametrize(
    ("planted", "event"), [(Forgetful, claimed), (Doubling, claimed), (Hasty, claimed), (Glancing, moved_on)]
)
def test_a_planted_fault_is_caught(
    tmp_path: Path, planted: type[backups._Backup], event: Callable[[Den], None]
) -> None:
    def run(den: Den) -> Path:
        path = tmp_path / "planted.tar.gz"
        with path.open("wb") as file, contextlib.closing(Packer(file, tmp_path, 0)) as packer:
            planted(den.spool, packer, Summary(path)).run("", has_cache=False)
        return path

    assert any(attempts(tmp_path, event, run, step=STEP)), "it went unnoticed"


def test_a_topic_claimed_across_file_systems_is_taken_once(den: Den, tmp_path: Path) -> None:
    job = den.job("copied")
    topic = den.spool.place(Stage.SCRIPTS) / job / "topic.md"
    source = den.spool.input / "copied.md"
    shutil.copy(topic, source)
    found = source.stat()
    path = topic.with_name("job.json")
    words = json.loads(path.read_text())
    path.write_text(json.dumps({**words, "source_left": [found.st_dev, found.st_ino, found.st_mtime_ns]}) + "\n")
    assert topics(den.backup(tmp_path / "b").path)["# copied"] == 1


def test_a_job_that_a_person_removes_meanwhile_is_told_and_no_failure(tmp_path: Path) -> None:
    told = Counter[str]()

    def remove(den: Den) -> None:
        for job in den.spool.ids(DONE):
            shutil.rmtree(den.spool.output / job)

    def run(den: Den) -> Path:
        summary = den.backup(tmp_path / "b")
        assert (summary.missing, summary.harmed) == ([], {})
        told["removed" if summary.removed else "taken" if topics(summary.path)["# in output"] else "not there"] += 1
        return summary.path

    assert {*attempts(tmp_path, remove, run, step=STEP)} == {"", "lost: {'# in output'}"}
    assert {*told} == {"removed", "taken", "not there"}


def test_the_newest_is_never_rotated_away_though_the_clock_was_set_back(den: Den, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "topicd-20991231-235959.tar.gz").touch()
    path = den.backup(folder, keep=1).path
    assert path.name == "topicd-21000101-000000.tar.gz"
    assert path.exists()
    assert len({den.backup(folder, keep=1).path for _ in range(3)}) == 3


def test_what_is_harmed_is_taken_as_it_is_and_told(den: Den, tmp_path: Path) -> None:
    (done,) = den.spool.ids(DONE)
    (den.spool.output / done / "script.md").write_text("?")
    summary = den.backup(tmp_path / "b")
    assert summary.harmed == {done: ["script.md"]}
    new = Den(tmp_path / "new")
    result = restore(new.spool, new.store, summary.path)
    assert (result.harmed, result.unforeseen) == ([done], [])


def test_a_product_that_is_replaced_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    den = restless(tmp_path / "home")
    spool = den.spool
    assert isinstance(spool, Restless)
    (done,) = spool.ids(DONE)
    product = spool.output / done / "script.md"
    whole = product.read_bytes()
    product.write_text("?")
    spool.looks, spool.happens_at = 0, len(ORDER) + 2
    spool.happening = partial(product.write_bytes, whole)
    with pinned(spool, done) as job:
        assert job
        assert job.harmed == ()


@pytest.mark.parametrize("new", [b"# Longer than it was before\n", b"# x\n"], ids=["longer", "shorter"])
def test_a_topic_that_is_written_over_meanwhile_is_read_again(tmp_path: Path, new: bytes) -> None:
    den = restless(tmp_path / "home")
    spool = den.spool
    assert isinstance(spool, Restless)
    (held,) = spool.ids(Aside.HELD)
    with (spool.place(Aside.HELD) / held / "topic.md").open("r+b", buffering=0) as file:

        def end() -> None:
            file.write(new[3:])
            file.truncate()
            file.close()

        file.write(new[:3])
        spool.looks, spool.happens_at, spool.happening = 0, len(ORDER) + 2, end
        with pinned(spool, held) as job:
            assert job
            assert (job.words["topic.md"], job.harmed) == (new, ())


def test_a_topic_that_somebody_goes_on_writing_to_is_taken_as_it_is_and_told(den: Den, tmp_path: Path) -> None:
    (held,) = den.spool.ids(Aside.HELD)
    with (den.spool.place(Aside.HELD) / held / "topic.md").open("a"):
        summary = den.backup(tmp_path / "b")
    assert summary.harmed == {held: ["topic.md"]}


class Dodging(Spool):
    """A spool in which somebody moves a job back and forth, behind the readings, while `dodges` last."""

    dodges = 0

    def each(self, place: str) -> Iterator[str]:
        back = {Stage.SCRIPTS: Aside.HELD, Aside.HELD: Stage.SCRIPTS}.get(place)  # type: ignore[call-overload]
        if back and self.dodges:
            self.dodges -= 1
            for name in self.ids_now(place):
                (self.place(place) / name).rename(self.place(back) / name)
        yield from self.ids_now(place)

    def ids_now(self, place: str) -> list[str]:
        return [*super().each(place)]


def test_a_job_that_is_moved_about_behind_the_readings_is_in_it(tmp_path: Path) -> None:
    den = Den(tmp_path / "home", Dodging)
    den.job("elsewhere", Stage.AUDIO)
    den.job("wanted")
    spool = den.spool
    assert isinstance(spool, Dodging)
    spool.dodges = 5
    assert topics(den.backup(tmp_path / "b").path) == {"# elsewhere": 1, "# wanted": 1}


def test_a_job_published_but_not_yet_removed_is_taken_where_it_is_whole(den: Den, tmp_path: Path) -> None:
    (done,) = den.spool.ids(DONE)
    (den.spool.place(Stage.IMAGES) / done).mkdir()
    shutil.copy(den.spool.output / done / "topic.md", den.spool.place(Stage.IMAGES) / done)
    found = [name for name in members(den.backup(tmp_path / "b").path) if done in name]
    assert f"output/{done}/images/001.png" in found
    assert not [name for name in found if name.startswith("spool")]


def test_links_and_pipes_are_left_out_and_hold_nothing_up(den: Den, tmp_path: Path) -> None:
    folder = den.spool.place(Stage.AUDIO) / den.spool.ids(Stage.AUDIO)[0]
    os.mkfifo(folder / "pipe")
    (folder / "secret").symlink_to("/etc/passwd")
    (folder / "etc").symlink_to("/etc")
    os.mkfifo(den.spool.input / "pipe.md")
    (den.spool.input / "link.md").symlink_to("/etc/passwd")
    names = members(den.backup(tmp_path / "b").path)
    assert not [name for name in names if "pipe" in name or "link" in name or "etc" in name or "secret" in name]


def test_a_topic_that_somebody_writes_to_is_missing_and_nothing_older_goes(den: Den, tmp_path: Path) -> None:
    first = den.backup(tmp_path / "b")
    with (den.spool.input / "slow.md").open("w") as file:
        file.write("# half\n")
        file.flush()
        summary = den.backup(tmp_path / "b", keep=1)
    assert summary.missing == ["input/slow.md: somebody is writing to it"]
    assert first.path.exists()
    assert summary.path.exists()
    assert "input/slow.md" not in members(summary.path)


def test_a_job_of_too_many_files_is_missing(den: Den, tmp_path: Path) -> None:
    (done,) = den.spool.ids(DONE)
    for number in range(FILES_MAX + 1):
        (den.spool.output / done / f"{number}").touch()
    assert den.backup(tmp_path / "b").missing == [f"{done}: more than {FILES_MAX} files in a job's directory"]


def test_rotation_removes_only_what_is_a_backup(den: Den, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    others = ["topicd-20260101-000000.tar.gz.old", "my-topicd-20260101-000000.tar.gz", "topicd-1.tar.gz", "notes"]
    old = [f"topicd-2026010{day}-000000.tar.gz" for day in range(1, 5)]
    for name in (*others, *old):
        (folder / name).touch()
    for name in old:
        (folder / f"{name}.sha256").write_text(archive.sum_text("0" * 64, name, den.path))
    path = den.backup(folder, keep=2).path
    wanted = {*others, old[-1], f"{old[-1]}.sha256", path.name, f"{path.name}.sha256"}
    assert {each.name for each in folder.iterdir()} == wanted


def test_what_a_killed_backup_left_is_removed(den: Den, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / ".topicd-20260101-000000.tar.gz.0a0b0c0d.tmp").touch()
    (folder / "topicd-20260101-000000.tar.gz.sha256").touch()
    path = den.backup(folder).path
    assert {each.name for each in folder.iterdir()} == {path.name, f"{path.name}.sha256"}


def test_two_backups_in_one_second_are_two(den: Den, tmp_path: Path) -> None:
    assert len({den.backup(tmp_path / "b").path for _ in range(3)}) == 3


def test_two_backups_at_once_are_one(den: Den, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with backups._alone(tmp_path / "b"), pytest.raises(Taken):
        den.backup(tmp_path / "b")


@pytest.mark.parametrize("where", ["input", "output/x", "spool/held"])
def test_a_backup_does_not_lie_in_the_way(den: Den, where: str) -> None:
    with pytest.raises(Unusable, match="lies in"):
        den.backup(den.path / where)


def test_a_disk_that_fills_up_keeps_the_older_backups(den: Den, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], check=False)
    if done.returncode:
        pytest.skip("this root may not mount")
    try:
        first = den.backup(folder).path
        (den.spool.output / den.spool.ids(DONE)[0] / "noise").write_bytes(os.urandom(400_000))
        with pytest.raises(StorageTrouble, match="No space left"):
            den.backup(folder, keep=1)
        assert {each.name for each in folder.iterdir()} == {first.name, f"{first.name}.sha256"}
        with pytest.raises(StorageTrouble, match="bytes are free"):
            den.backup(folder, keep=1, min_free_bytes=1 << 40)
        assert first.exists()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_the_cache_only_if_asked_and_without_what_is_arriving(den: Den, tmp_path: Path) -> None:
    (den.spool.cache / "voices").mkdir()
    (den.spool.cache / "voices" / "joe.onnx").write_bytes(b"voice")
    (den.spool.cache / "model.gguf.part").write_bytes(b"half")
    assert not [name for name in members(den.backup(tmp_path / "b").path) if name.startswith("cache")]
    path = den.backup(tmp_path / "b", has_cache=True).path
    assert [name for name in members(path) if name.startswith("cache")] == ["cache/voices/joe.onnx"]
    new = Den(tmp_path / "new")
    restore(new.spool, new.store, path)
    assert (new.spool.cache / "voices" / "joe.onnx").read_bytes() == b"voice"


def test_settings_go_without_secrets_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://me:hush@gpu:11434/a?token=hush#hush")
    monkeypatch.setenv("TTS_VOICE", "it's a 'voice'\\")
    text = oncall.settings_text(Settings(), has_secrets=False)
    assert "hush" not in text
    (tmp_path / "env").write_text(text)
    values = dotenv_values(tmp_path / "env")
    assert values["OLLAMA_BASE_URL"] == "http://gpu:11434/a"
    assert values["TTS_VOICE"] == "it's a 'voice'\\"
    assert "hush" in oncall.settings_text(Settings(), has_secrets=True)


# Restore


def archived(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo, jobs: int = 0, inputs: int = 0) -> Path:
    """Write an archive by hand, with its checksum."""
    about = {"format": 1, "jobs": jobs, "topics": inputs, "missing": [], "harmed": {}}
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**files, archive.ABOUT: json.dumps(about).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for other in others:
            tar.addfile(other)
    return signed(path)


def signed(path: Path) -> Path:
    path.with_name(f"{path.name}.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return path


@pytest.fixture
def empty(tmp_path: Path) -> Den:
    return Den(tmp_path / "empty")


def refused(den: Den, path: Path, match: str) -> None:
    around = {*den.path.parent.iterdir()}
    with pytest.raises(BadArchive, match=match):
        restore(den.spool, den.store, path)
    assert den.files() == {}
    assert not [*den.path.rglob(".restore*")]
    assert {*den.path.parent.iterdir()} == around


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "input/../../x",
        "input/a/b",
        "input/.hidden",
        "input",
        "spool/scripts/topic.md",
        "spool/scripts/.x/topic.md",
        "spool/.lock",
        "spool/other/a/topic.md",
        "output/a",
        "output//topic.md",
        "output/./topic.md",
        "cache",
        ".env",
        "output/" + "a/" * 20 + "x",
        "output/a/" + "n" * 256,
    ],
)
def test_a_member_of_another_path_is_refused(empty: Den, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadArchive):
        parts_of(name)
    refused(empty, archived(tmp_path / "a.tar.gz", {name: b"x"}), "archive")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file_is_refused(empty: Den, tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("output/a/x")
    member.type, member.linkname = kind, "/etc/passwd"
    refused(empty, archived(tmp_path / "a.tar.gz", {}, member), "no regular file")


def test_a_path_twice_is_refused(empty: Den, tmp_path: Path) -> None:
    refused(empty, archived(tmp_path / "a.tar.gz", {"input/a.md": b"x"}, tarfile.TarInfo("input/a.md")), "cannot be")


def test_an_archive_that_lacks_something_is_refused(empty: Den, den: Den, tmp_path: Path) -> None:
    refused(empty, archived(tmp_path / "a.tar.gz", {"input/a.md": b"x"}, jobs=1, inputs=1), "not whole")
    path = den.backup(tmp_path / "b").path
    path.write_bytes(path.read_bytes()[:-2000])
    refused(empty, path, "is damaged: its bytes")
    refused(empty, signed(path), "cannot be unpacked|not whole")
    with gzip.open(tmp_path / "c.tar.gz", "wb") as file:
        file.write(b"no tar")
    refused(empty, signed(tmp_path / "c.tar.gz"), "cannot be unpacked")


def test_an_archive_without_its_checksum_is_refused(empty: Den, den: Den, tmp_path: Path) -> None:
    path = den.backup(tmp_path / "b").path
    path.with_name(f"{path.name}.sha256").unlink()
    refused(empty, path, "there is no")


@pytest.mark.parametrize("there", ["input/a.md", "input/.hidden", "output/x", "spool/held/x", "spool/x"])
def test_a_home_that_is_not_empty_is_refused(empty: Den, den: Den, tmp_path: Path, there: str) -> None:
    path = den.backup(tmp_path / "b").path
    (empty.path / there).write_text("mine")
    with pytest.raises(Unusable, match="overwrites nothing"):
        restore(empty.spool, empty.store, path)
    assert (empty.path / there).read_text() == "mine"
    (empty.path / there).unlink()
    assert empty.files() == {}


def test_prompts_of_ones_own_come_along(den: Den, tmp_path: Path) -> None:
    den.spool.prompts.mkdir()
    (den.spool.prompts / "pt-BR.txt").write_text("Conte de $title.")
    path = den.backup(tmp_path / "b").path
    new = Den(tmp_path / "new")
    restore(new.spool, new.store, path)
    assert (new.spool.prompts / "pt-BR.txt").read_text() == "Conte de $title."
    assert [each.name for each in new.spool.prompts.iterdir()] == ["pt-BR.txt"]


def test_a_cache_that_has_a_file_already_is_not_overwritten(empty: Den, tmp_path: Path) -> None:
    (empty.spool.cache / "voice").write_text("mine")
    with pytest.raises(Unusable, match="already"):
        restore(
            empty.spool,
            empty.store,
            archived(tmp_path / "a.tar.gz", {"cache/voice": b"x", "input/a.md": b""}, inputs=1),
        )
    assert (empty.spool.cache / "voice").read_text() == "mine"
    assert empty.files() == {}


def test_a_home_that_a_daemon_holds_is_refused(empty: Den, den: Den, tmp_path: Path) -> None:
    path = den.backup(tmp_path / "b").path
    with empty.store.locked({"run": "x"}), pytest.raises(Taken):
        restore(empty.spool, empty.store, path)
    assert empty.files() == {}


def test_a_home_of_another_user_is_refused(empty: Den, den: Den, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away takes root")
    os.chown(empty.path, 4711, 4711)
    with pytest.raises(Unusable, match="belongs to user 4711"):
        restore(empty.spool, empty.store, den.backup(tmp_path / "b").path)


def test_a_restore_that_was_killed_can_be_done_again(empty: Den, den: Den, tmp_path: Path) -> None:
    for folder in (empty.path, empty.spool.root, empty.spool.input, empty.spool.output):
        (folder / ".restore-0a0b0c0d" / "x").mkdir(parents=True)
    restore(empty.spool, empty.store, den.backup(tmp_path / "b").path)
    assert empty.files() == den.files()
    assert not [*empty.path.rglob(".restore*")]


def test_where_input_and_output_are_on_another_file_system(den: Den, tmp_path: Path) -> None:
    far = other_file_system(tmp_path)
    if far is None:
        pytest.skip("this machine has no second file system that can be written to")
    try:
        house = House(tmp_path / "apart", far / "apart")
        store = house.store()
        store.open()
        restore(house.spool, store, den.backup(tmp_path / "b").path)
        assert [path.name for path in house.spool.input.iterdir()] == ["waiting.md"]
        assert house.spool.ids(DONE) == den.spool.ids(DONE)
    finally:
        shutil.rmtree(far)


# What a person would believe to be in it


@pytest.mark.parametrize("gone", ["input", "output", "spool/failed"])
def test_a_place_that_is_not_there_is_missing_and_nothing_is_rotated(den: Den, tmp_path: Path, gone: str) -> None:
    first = den.backup(tmp_path / "b").path
    (den.path / gone).rename(tmp_path / "elsewhere")
    summary = den.backup(tmp_path / "b", keep=1)
    assert [line for line in summary.missing if "there is no directory" in line]
    assert len(summary.missing) == 1
    assert first.exists()
    assert summary.rotated == []


def test_rotation_tells_what_it_removed_and_leaves_other_homes_alone(den: Den, tmp_path: Path) -> None:
    other = Den(tmp_path / "other").backup(tmp_path / "b").path
    first = den.backup(tmp_path / "b").path
    summary = den.backup(tmp_path / "b", keep=1)
    assert (summary.rotated, summary.others) == ([first.name], [other.name])
    assert {path.name for path in (tmp_path / "b").glob("*.gz")} == {other.name, summary.path.name}
    (tmp_path / "alias").symlink_to(den.path)
    again = Den(tmp_path / "alias", is_new=False).backup(tmp_path / "b", keep=1)
    assert again.rotated == [summary.path.name], "a link to a home is that home"


def test_one_of_two_directories_of_a_job_is_not_left_out_in_silence(den: Den, tmp_path: Path) -> None:
    (done,) = den.spool.ids(DONE)
    (den.spool.place(Aside.FAILED) / done).mkdir()
    summary = den.backup(tmp_path / "b", keep=1)
    assert summary.missing == [f"failed/{done}: the job is in output/, too; that one was taken"]
    assert [name for name in members(summary.path) if name.startswith(f"output/{done}/")]


def test_a_finished_job_that_lacks_something_is_told(den: Den, tmp_path: Path) -> None:
    (done,) = den.spool.ids(DONE)
    (den.spool.output / done / "manifest.json").unlink()
    summary = den.backup(tmp_path / "b")
    assert summary.harmed == {done: ["manifest.json"]}
    new = Den(tmp_path / "new")
    result = restore(new.spool, new.store, summary.path)
    assert (result.harmed, result.unforeseen) == ([done], [])


def test_no_archive_is_told_in_words(empty: Den, tmp_path: Path) -> None:
    refused(empty, tmp_path / "none.tar.gz", "there is no such archive")
    (tmp_path / "folder").mkdir()
    refused(empty, tmp_path / "folder", "there is no such archive")
    home = Home(empty.path, {})
    done = home.topicd("restore", str(tmp_path / "none.tar.gz"))
    said = f"topicd: there is no such archive: {tmp_path / 'none.tar.gz'}\n  hint: see what is in its place\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_home_that_is_too_small_is_told_before_anything_is_unpacked(empty: Den, tmp_path: Path) -> None:
    path = archived(tmp_path / "a.tar.gz", {"output/a/topic.md": b"x"}, jobs=1)
    with pytest.raises(StorageTrouble, match=r"needs 1,125,899,906,842,624 bytes in .*, and [0-9,]+ are free"):
        _Aside(empty.spool, empty.store.durable).check_room({DONE: 1 << 50})
    restore(empty.spool, empty.store, path)
