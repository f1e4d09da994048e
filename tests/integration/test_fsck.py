"""fsck: every fault that can be planted is found and named, a healthy home and a working one are clean."""

import json
import os
import secrets
import shutil
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rig.daemon import FAKES, QUICK, Home, load, running, until
from rig.pipeline import other_file_system
from topicd import findings, fsck
from topicd import job as files
from topicd.durable import Durable
from topicd.errors import Unusable
from topicd.findings import KINDS, Level
from topicd.job import Job
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store

RUN = "0123456789abcdef"


class Place:
    """A copy of a home that a real daemon has filled: one job in output/, one in failed/."""

    def __init__(self, path: Path, env: dict[str, str]) -> None:
        self.home = Home(path, env)
        self.spool = Spool(home=path, input_dir=path / "input", output_dir=path / "output")
        self.store = Store(self.spool, Durable())
        self.done = path / "output" / self.home.ids("output")[0]
        self.failed = path / "spool" / "failed" / self.home.ids("failed")[0]

    def waiting(self, name: str = "waiting.md") -> Path:
        """Return a job in scripts/."""
        (self.spool.input / name).write_text("# Waiting\n")
        return self.spool.place(Stage.SCRIPTS) / self.store.claim(self.spool.input / name, sha256="x", size=10).id

    def stage(self, stage: str) -> Path:
        """Return a job in a later stage, with every product there."""
        return self.done.rename(self.spool.place(stage) / self.done.name)

    def found(self, *, is_quick: bool = False) -> dict[str, str]:
        """Return slug → where of what fsck finds."""
        result = fsck.check(self.spool, self.store, is_quick=is_quick, pause_s=0.0)
        return {each.slug: each.where for each in result.findings}

    def repaired(self) -> fsck.Result:
        return fsck.repair(self.spool, self.store, is_quick=False, pause_s=0.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = Home(tmp_path_factory.mktemp("made") / "home", {**FAKES, **QUICK})
    home.path.mkdir()
    home.drop("tides.md", "# Tides\n\nThe Moon pulls.\n")
    home.drop("bad.md", "---\nscenes: many\n---\n# Bad\n")
    done = home.topicd("run", "--once")
    assert done.returncode == 0, done.stderr
    return home.path


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    shutil.copytree(made, tmp_path / "home")
    return Place(tmp_path / "home", {**FAKES, **QUICK})


def test_a_healthy_home_is_clean(place: Place) -> None:
    place.waiting()
    assert place.found() == {}
    done = place.home.topicd("fsck")
    assert (done.returncode, done.stdout) == (0, "3 jobs: all is well\n")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**load(path), **changes}) + "\n")


def foreign_in_the_spool(place: Place) -> None:
    (place.spool.root / "notes").mkdir()


def file_in_a_stage(place: Place) -> None:
    (place.spool.place(Stage.AUDIO) / "topic.md").write_text("# T\n")


def link_in_a_stage(place: Place) -> None:
    (place.spool.place(Stage.AUDIO) / place.done.name).symlink_to(place.done)


def id_by_hand(place: Place) -> None:
    place.waiting().rename(place.spool.place(Stage.SCRIPTS) / "My Job")


def topic_gone(place: Place) -> None:
    (place.stage(Stage.AUDIO) / "topic.md").unlink()


def claim_with_more_in_it(place: Place) -> None:
    folder = place.waiting()
    (folder / "topic.md").rename(folder / "topic.txt")


def job_in_two_stages(place: Place) -> None:
    shutil.copytree(place.done, place.spool.place(Stage.AUDIO) / place.done.name)


def published_twice(place: Place) -> None:
    shutil.copytree(place.done, place.spool.place(Stage.IMAGES) / place.done.name)


def job_json_not_json(place: Place) -> None:
    (place.waiting() / "job.json").write_text('{"id": 1}\n')


def job_json_of_another(place: Place) -> None:
    rewrite(place.waiting() / "job.json", id="20260101-000000-000000-other")


def no_reason(place: Place) -> None:
    (place.failed / "reason.json").unlink()


def manifest_not_json(place: Place) -> None:
    (place.done / "manifest.json").write_text("[]\n")


def manifest_of_another(place: Place) -> None:
    rewrite(place.done / "manifest.json", job="20260101-000000-000000-other")


def manifest_leads_out(place: Place) -> None:
    manifest = load(place.done / "manifest.json")
    manifest["products"][0]["path"] = "../../x"
    (place.done / "manifest.json").write_text(json.dumps(manifest) + "\n")


def product_cut(place: Place) -> None:
    cut(place.done / "audio.wav")


def product_flipped(place: Place) -> None:
    flip(place.done / "images" / "001.png")


def product_linked(place: Place) -> None:
    shutil.copy(place.done / "audio.wav", place.home.path / "audio.wav")
    (place.done / "audio.wav").unlink()
    (place.done / "audio.wav").symlink_to(place.home.path / "audio.wav")


def earlier_product_gone(place: Place) -> None:
    (place.stage(Stage.IMAGES) / "audio.wav").unlink()


def page_not_listed(place: Place) -> None:
    manifest = load(place.done / "manifest.json")
    manifest["products"] = [each for each in manifest["products"] if each["path"] != "index.html"]
    (place.done / "manifest.json").write_text(json.dumps(manifest) + "\n")


def topic_not_published(place: Place) -> None:
    (place.done / "topic.md").unlink()


def temporary_published(place: Place) -> None:
    (place.done / "audio" / ".001.wav.0a0b0c0d.tmp").write_bytes(b"x")


def orphan(place: Place) -> None:
    place.done.rename(place.spool.output / f".{place.done.name}.incoming")


def restore_cut(place: Place) -> None:
    (place.spool.root / ".restore-0a0b0c0d").mkdir()


def input_closed(place: Place) -> None:
    shutil.rmtree(place.spool.input)
    place.spool.input.write_text("a file")


FAULTS: dict[Callable[[Place], None], str] = {
    foreign_in_the_spool: "foreign",
    file_in_a_stage: "foreign",
    link_in_a_stage: "foreign",
    id_by_hand: "id_malformed",
    topic_gone: "topic_missing",
    claim_with_more_in_it: "topic_missing",
    job_in_two_stages: "job_twice",
    published_twice: "job_twice",
    job_json_not_json: "job_json_damaged",
    job_json_of_another: "job_json_damaged",
    no_reason: "reason_missing",
    manifest_not_json: "manifest_damaged",
    manifest_of_another: "manifest_alien",
    manifest_leads_out: "manifest_alien",
    product_cut: "product_harmed",
    product_flipped: "product_harmed",
    product_linked: "product_harmed",
    earlier_product_gone: "product_lost",
    page_not_listed: "not_whole",
    topic_not_published: "not_whole",
    temporary_published: "temporary_published",
    orphan: "publish_orphan",
    restore_cut: "restore_cut",
    input_closed: "input_unreadable",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(place: Place, plant: Callable[[Place], None]) -> None:
    plant(place)
    slug = FAULTS[plant]
    assert {slug, INSTEAD.get(slug, slug)} & {*place.found()}
    assert KINDS[slug].level is Level.FAULT
    before = tree(place.home.path)
    result = place.repaired()
    assert result.has_faults is (slug != "temporary_published"), "nothing that needs a person is put right by itself"
    assert not before - tree(place.home.path) or slug == "temporary_published", "a repair loses nothing"


def tree(top: Path) -> set[tuple[str, bytes]]:
    """Return every file with its bytes, but the lock's."""
    return {
        (str(path.relative_to(top)), path.read_bytes())
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != ".lock"
    }


def claim_undone(place: Place) -> None:
    folder = place.waiting()
    (folder / "topic.md").rename(place.spool.input / "waiting.md")


def publish_undone(place: Place) -> None:
    (place.spool.output / f".{place.failed.name}.incoming").mkdir()


def no_stage(place: Place) -> None:
    place.spool.place(Aside.HELD).rmdir()


def old_probe(place: Place) -> None:
    probe = place.spool.root / f".topicd-probe-{RUN}"
    probe.touch()
    os.utime(probe, (0, 0))


def temporary_in_a_job(place: Place) -> None:
    (place.waiting() / ".script.md.0a0b0c0d.tmp").write_bytes(b"x")


def temporary_in_a_folder(place: Place) -> None:
    (place.stage(Stage.IMAGES) / "images" / ".001.png.0a0b0c0d.tmp").write_bytes(b"x")


# A path that leads out is already refused by the reading of the file.
INSTEAD = {"manifest_alien": "manifest_damaged"}

PENDING: dict[Callable[[Place], None], str] = {
    claim_undone: "claim_undone",
    publish_undone: "publish_undone",
    no_stage: "place_missing",
    old_probe: "probe_left",
    temporary_in_a_job: "temporary_left",
    temporary_in_a_folder: "temporary_left",
}


@pytest.mark.parametrize("plant", PENDING, ids=lambda plant: plant.__name__)
def test_what_a_start_mends_is_no_fault_and_can_be_mended_now(place: Place, plant: Callable[[Place], None]) -> None:
    plant(place)
    assert [*place.found()] == [PENDING[plant]]
    result = place.repaired()
    assert [line.split()[0] for line in result.repaired] == [PENDING[plant]]
    assert result.findings == []
    assert place.repaired().repaired == []


def test_the_exit_codes(place: Place) -> None:
    publish_undone(place)
    assert place.home.topicd("fsck").returncode == 0, "the next start mends it"
    done = place.home.topicd("fsck", "--repair")
    assert (done.returncode, done.stdout) == (
        5,
        f"REPAIRED publish_undone output/.{place.failed.name}.incoming\n2 jobs: all is well\n",
    )
    assert place.home.topicd("fsck", "--repair").returncode == 0


def source_left(place: Place) -> Path:
    """Leave what a death in a claim across file systems leaves (S7)."""
    folder = place.waiting()
    source = place.spool.input / "waiting.md"
    shutil.copy(folder / "topic.md", source)
    found = source.stat()
    rewrite(folder / "job.json", source_left=[found.st_dev, found.st_ino, found.st_mtime_ns])
    return source


def test_a_claim_whose_source_is_left_is_told(place: Place) -> None:
    source = source_left(place)
    assert place.found() == {"claim_unfinished": "input/waiting.md"}
    source.write_text("# Another\n")
    os.utime(source, (1, 1))
    assert place.found() == {}, "another file of that name is a topic"


def test_a_source_left_after_a_publish_is_told_and_put_right(place: Place, tmp_path: Path) -> None:
    far = other_file_system(tmp_path)
    if far is None:
        pytest.skip("this machine has no second file system that can be written to")
    try:
        shutil.copytree(place.done, place.spool.place(Stage.IMAGES) / place.done.name)
        shutil.move(place.spool.output, far / "output")
        place.spool.output = far / "output"
        place.store = Store(place.spool, Durable())
        assert [*place.found()] == ["job_twice"], "without the mark of an attempt no start would mend it"
        (place.spool.place(Stage.IMAGES) / f".{place.done.name}.{RUN}.begun").touch()
        assert {*place.found()} == {"publish_unfinished", "was_in_work"}
        result = place.repaired()
        assert result.findings == []
        assert not (place.spool.place(Stage.IMAGES) / place.done.name).exists()
        assert (far / "output" / place.done.name / "manifest.json").is_file()
    finally:
        shutil.rmtree(far)


def test_marks_of_attempts(place: Place) -> None:
    job = place.waiting()
    (job.parent / f".{job.name}.{RUN}.begun").touch()
    assert place.found() == {"was_in_work": f"spool/scripts/{job.name}"}
    with place.store.locked({"run": RUN}):
        assert place.found() == {}, "the holder has it in hand"
    (job.parent / f".{place.done.name}.{RUN}.begun").touch()
    assert "marker_stale" in place.found()
    (place.spool.place(Aside.HELD) / f".{job.name}.{RUN}.begun").touch()
    assert "foreign" in place.found()


def test_products_to_be_made_again_are_no_fault(place: Place) -> None:
    job = place.stage(Stage.IMAGES)
    flip(job / "images" / "title.png")
    assert place.found() == {"product_remade": f"spool/images/{job.name}/images/title.png"}
    job.rename(place.spool.place(Aside.HELD) / job.name)
    assert [*place.found()] == ["product_remade"]


def test_quick_sees_sizes_only(place: Place) -> None:
    flip(place.done / "audio.wav")
    assert place.found(is_quick=True) == {}
    assert [*place.found()] == ["product_harmed"]
    cut(place.done / "audio.wav")
    assert [*place.found(is_quick=True)] == ["product_harmed"]


def test_a_lost_job_json_is_a_note(place: Place) -> None:
    (place.waiting() / "job.json").unlink()
    assert [*place.found()] == ["job_json_lost"]
    assert place.home.topicd("fsck").returncode == 0


def test_a_job_that_failed_for_its_damage_is_a_note(place: Place) -> None:
    (place.failed / "job.json").write_text("?")
    assert [*place.found()] == ["job_json_damaged"]
    rewrite(place.failed / "reason.json", cause="job_damaged")
    assert [*place.found()] == ["kept_damaged"]


def test_what_lies_in_input_for_ever_is_a_note(place: Place) -> None:
    (place.spool.input / "link.md").symlink_to(place.done / "topic.md")
    os.mkfifo(place.spool.input / "pipe.md")
    (place.spool.input / "a.pdf").touch()
    (place.spool.input / "good.md").write_text("# Good\n")
    result = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0)
    assert [(each.slug, each.where) for each in result.findings] == [
        ("input_ignored", f"input/{name}") for name in ("a.pdf", "link.md", "pipe.md")
    ]
    assert not result.has_faults


def test_what_people_keep_in_output_is_a_note(place: Place) -> None:
    (place.spool.output / "index.html").touch()
    (place.spool.output / "my favourites").mkdir()
    result = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0)
    assert [each.slug for each in result.findings] == ["foreign_output"] * 2


def test_rights_are_those_of_the_owner_of_the_spool(place: Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away takes root")
    job = place.waiting()
    for path in (place.home.path, *place.home.path.rglob("*")):
        os.chown(path, 4711, 4711)
    assert place.found() == {}
    os.chown(job, 0, 0)
    assert place.found() == {"rights": f"spool/scripts/{job.name}"}
    (place.spool.root / f".topicd-probe-{RUN}").touch()
    os.utime(place.spool.root / f".topicd-probe-{RUN}", (0, 0))
    with pytest.raises(Unusable, match="belongs to user 4711"):
        place.repaired()


def test_a_part_of_the_spool_on_another_file_system_is_a_fault(place: Place, tmp_path: Path) -> None:
    far = other_file_system(tmp_path)
    if far is None:
        pytest.skip("this machine has no second file system that can be written to")
    try:
        place.spool.place(Aside.HELD).rmdir()
        place.spool.place(Aside.HELD).symlink_to(far)
        assert place.found() == {"spool_split": "spool/held"}
    finally:
        shutil.rmtree(far)


def test_no_home_is_no_clean_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "nothing", {})
    home.path.mkdir()
    done = home.topicd("fsck")
    assert done.returncode == 78
    assert "there is no spool" in done.stderr


def test_the_words_for_a_person_and_for_a_program(place: Place) -> None:
    cut(place.done / "audio.wav")
    done = place.home.topicd("fsck")
    assert done.returncode == 6
    assert f"FAULT   product_harmed       output/{place.done.name}/audio.wav" in done.stdout
    assert "do: restore the job from a backup" in done.stdout
    told = json.loads(place.home.topicd("fsck", "--json").stdout)
    assert {*told} == {"ok", "home", "running", "quick", "jobs", "findings", "more", "repaired", "not_repaired"}
    [finding] = told["findings"]
    assert {*finding} == {"slug", "level", "where", "what", "means", "todo"}
    assert (told["ok"], told["running"], told["jobs"]) == (False, False, 2)


def test_every_kind_is_planted_somewhere() -> None:
    here = Path(__file__).read_text()
    assert [slug for slug in KINDS if f'"{slug}"' not in here and slug != "unreadable"] == []
    assert all(means and todo for _, means, todo in findings.KINDS.values())


def test_many_of_a_kind_are_counted_not_listed(place: Place) -> None:
    for number in range(fsck.LISTED_MAX + 7):
        (place.spool.root / f"{number}").touch()
    result = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0)
    assert len(result.findings) == fsck.LISTED_MAX
    assert result.more == {"foreign": 7}


class Restless(Spool):
    """A spool in which something happens at the nth look at a place."""

    looks = 0
    happens_at = 0
    happening: Callable[[], object] = staticmethod(lambda: None)

    def place(self, place: str) -> Path:
        self.looks += 1
        if self.looks == self.happens_at:
            self.happening()
        return super().place(place)


def restless(place: Place) -> Restless:
    top = place.home.path
    return Restless(home=top, input_dir=top / "input", output_dir=top / "output")


def test_a_job_that_moves_at_any_instant_is_not_reported(place: Place) -> None:
    job = place.stage(Stage.AUDIO)
    there, at = place.spool.place(Stage.IMAGES) / job.name, 0
    while not at or there.exists():
        at += 1
        if there.exists():
            there.rename(job)
        spool = restless(place)
        spool.happens_at, spool.happening = at, partial(job.rename, there)
        assert fsck.check(spool, Store(spool, Durable()), is_quick=True, pause_s=0.0).findings == [], at
    assert at > 20


def test_a_claim_that_is_made_just_now_is_not_reported(place: Place) -> None:
    claim_undone(place)
    (job,) = place.spool.place(Stage.SCRIPTS).iterdir()
    spool = restless(place)
    found, _ = fsck._first_look(fsck._Walk(spool, Store(spool, Durable()), is_quick=True))
    assert [each.slug for _, still in found for each in still] == ["claim_undone"], "one look would report it"
    spool.looks, spool.happens_at = 0, spool.looks + 1
    spool.happening = partial((place.spool.input / "waiting.md").rename, job / "topic.md")
    assert fsck.check(spool, Store(spool, Durable()), is_quick=True, pause_s=0.0).findings == []
    assert (job / "topic.md").exists()


def test_the_only_copy_of_a_job_is_left_and_bars_nothing(place: Place) -> None:
    claim_undone(place)
    orphan(place)
    only = tree(place.spool.output)
    result = place.repaired()
    assert [line.split()[0] for line in result.repaired] == ["claim_undone"]
    assert [each.slug for each in result.findings] == ["publish_orphan"]
    assert result.not_repaired == ["1 publish_orphan: only a person can; see what to do there"]
    [line] = Store(place.spool, Durable()).recover()
    assert line.startswith(f"left as it is: .{place.done.name}.incoming")
    assert tree(place.spool.output) == only
    assert "NOT REPAIRED 1 publish_orphan: only" in place.home.topicd("fsck", "--repair").stdout


def test_what_bars_a_repair_is_named(place: Place) -> None:
    publish_undone(place)
    restore_cut(place)
    result = place.repaired()
    assert "1 publish_undone: no start gets past restore_cut; mend that first" in result.not_repaired


def test_the_probe_of_the_gate_is_no_stranger(place: Place) -> None:
    for folder in (place.spool.root, place.spool.place(Stage.AUDIO), place.spool.output):
        probe = folder / f"..topicd-probe-{RUN}.0a0b0c0d.tmp"
        probe.touch()
        assert place.found() == {}, "it may be in use"
        os.utime(probe, (0, 0))
        assert [*place.found()] == ["probe_left"]
        result = place.repaired()
        assert (result.findings, len(result.repaired)) == ([], 1)


def test_a_working_daemon_is_clean_and_repair_disturbs_nothing(home: Home) -> None:
    with running(home, FAKE_SECONDS="0.02", TOPICD_SCRIPT_JOBS="4", TOPICD_AUDIO_JOBS="4") as daemon:
        for number in range(12):
            home.drop(f"{number}.md", f"# Topic {number}\n")
        looks = 0
        while len(daemon.events("job.done")) < 12 or looks < 3:
            done = home.topicd("fsck", "--json", *(["--repair"] if looks % 2 else []))
            assert done.returncode == 0, done.stdout
            told = json.loads(done.stdout)
            assert told["running"]
            assert not told["findings"], told["findings"]
            looks += 1
        until(lambda: len(home.ids("output")) == 12, "all are done")


def test_beside_a_daemon_only_finished_jobs_are_cleaned(place: Place) -> None:
    temporary_published(place)
    publish_undone(place)
    with place.store.locked({"run": RUN}):
        result = Store(place.spool, Durable())
        after = fsck.repair(place.spool, result, is_quick=True, pause_s=0.0)
    assert [each.slug for each in after.findings] == ["publish_undone"]
    assert len(after.repaired) == 1
    assert after.not_repaired == [
        "1 publish_undone: a daemon is running; stop it and repair again, or leave it to its next start"
    ]


def fill(spool: Spool, count: int) -> None:
    for number in range(count):
        place = (*SPOOL_PLACES, DONE)[number % 3]
        path = spool.place(place) / f"20260101-000000-{number:06}-topic"
        path.mkdir()
        job = Job(path.name, "a.md", secrets.token_hex(), 4, "2026-01-01T00:00:00.000Z", 1.7e9)
        (path / files.JOB).write_bytes(files.encode(job))
        (path / files.TOPIC).write_text("# T\n")


def test_memory_does_not_grow_with_the_jobs(tmp_path: Path) -> None:
    spool = Spool(home=tmp_path, input_dir=tmp_path / "input", output_dir=tmp_path / "output")
    store = Store(spool, Durable())
    store.open()
    fill(spool, 1500)
    began = time.monotonic()
    fsck.check(spool, store, is_quick=True)  # fills what libraries keep, up to their limits
    print(f"1,500 jobs: {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure
    tracemalloc.start()
    result = fsck.check(spool, store, is_quick=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.jobs == 1500
    assert peak < files.JSON_BYTES_MAX + 150_000, "one hundred bytes a job would show"


def test_a_finished_job_without_its_manifest_lacks_only_that(place: Place) -> None:
    (place.done / "manifest.json").unlink()
    [finding] = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0).findings
    assert (finding.slug, finding.what) == ("not_whole", "it lacks manifest.json")
    (place.done / "index.html").unlink()
    [finding] = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0).findings
    assert finding.what == "it lacks manifest.json, index.html"


def test_an_empty_directory_is_told_once(place: Place) -> None:
    (place.spool.place(Stage.SCRIPTS) / "My Job").mkdir()
    (place.spool.place(Stage.AUDIO) / "My Job 2").mkdir()
    result = fsck.check(place.spool, place.store, is_quick=False, pause_s=0.0)
    assert [each.slug for each in result.findings] == ["topic_missing", "claim_undone"]


@pytest.mark.parametrize("stage", [DONE, Stage.IMAGES])
def test_the_advice_for_a_damaged_manifest_works(place: Place, stage: str) -> None:
    job = place.done if stage == DONE else place.stage(stage)
    (job / "manifest.json").write_text("[]\n")
    assert "manifest_damaged" in place.found()
    shutil.copy(job / "topic.md", place.spool.input / "again.md")
    job.rename(place.home.path.parent / "aside")
    done = place.home.topicd("run", "--once")
    assert done.returncode == 0, done.stderr
    assert place.found() == {}
    assert len(place.home.ids("output")) == 1
