"""A job's products: known by digest, kept whole, never taken from behind a link."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.disk import CrashingDisk, FailingDisk
from topicd.durable import Durable
from topicd.errors import Rejected, StorageTrouble
from topicd.job import JSON_BYTES_MAX, Damaged, Scenes, SceneText, encode
from topicd.states import Stage
from topicd.workspace import Workspace, digest, read_limited

UNIT = "audio/001.wav"


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "20260101-000000-000000-sea"
    path.mkdir()
    return path


def space(job: Path) -> Workspace:
    return Workspace(job, Durable(CrashingDisk()))


def keep(job: Path, unit: str = UNIT, data: bytes = b"wav", made_from: str = "text") -> None:
    space(job).keep(unit, data, made_from=made_from, by={"backend": "fake"}, seconds=1.23456, at=0)


def test_what_is_kept_is_whole_for_the_next_process(job: Path) -> None:
    keep(job)
    assert space(job).whole(UNIT, "text")
    assert space(job).read(UNIT, 3) == b"wav"
    entry = space(job).manifest.get(UNIT)
    assert entry
    assert (entry.bytes, entry.seconds, entry.at) == (3, 1.235, "1970-01-01T00:00:00.000Z")


def test_what_is_made_from_something_else_does_not_count(job: Path) -> None:
    keep(job)
    assert not space(job).whole(UNIT, "other text")
    assert not space(job).whole("audio/002.wav", "text")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(b"wa"),
    "longer": lambda path: path.write_bytes(b"wavv"),
    "changed": lambda path: path.write_bytes(b"vaw"),
    "a directory": _folder,
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_harmed_does_not_count(job: Path, harm: str) -> None:
    keep(job)
    space(job).verify()
    HARMS[harm](job / UNIT)
    assert not space(job).whole(UNIT, "text")
    with pytest.raises(Rejected, match=UNIT):
        space(job).verify()


def test_a_link_to_the_same_bytes_does_not_count(job: Path, tmp_path: Path) -> None:
    keep(job)
    (tmp_path / "elsewhere").write_bytes(b"wav")
    (job / UNIT).unlink()
    (job / UNIT).symlink_to(tmp_path / "elsewhere")
    assert not space(job).whole(UNIT, "text")
    with pytest.raises(Rejected):
        space(job).verify()


def behind_a_link(job: Path, tmp_path: Path) -> Path:
    """Put the folder of the product elsewhere, and a link to it in its place."""
    (job / "audio").rename(tmp_path / "elsewhere")
    (job / "audio").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def test_a_product_behind_a_linked_folder_does_not_count(job: Path, tmp_path: Path) -> None:
    keep(job)
    behind_a_link(job, tmp_path)
    with pytest.raises(Rejected):
        space(job).verify()


def test_nothing_is_removed_behind_a_linked_folder(job: Path, tmp_path: Path) -> None:
    keep(job)
    elsewhere = behind_a_link(job, tmp_path)
    (elsewhere / "mine.txt").write_bytes(b"mine")
    (elsewhere / ".mine.tmp").write_bytes(b"mine")
    with pytest.raises(Damaged):
        space(job).drop_others("audio", {UNIT})
    space(job).sweep()
    assert {path.name for path in elsewhere.iterdir()} == {"001.wav", "mine.txt", ".mine.tmp"}


def test_a_second_making_takes_the_place_of_the_first(job: Path) -> None:
    keep(job)
    keep(job, data=b"better", made_from="text 2")
    assert not space(job).whole(UNIT, "text")
    assert space(job).whole(UNIT, "text 2")
    assert len(space(job).manifest.products) == 1


def test_a_product_whose_entry_did_not_arrive_does_not_count(job: Path) -> None:
    failing = Workspace(job, Durable(FailingDisk(5, errno.EIO, "fsync")))
    with pytest.raises(StorageTrouble):
        failing.keep(UNIT, b"wav", made_from="text", by={}, seconds=1, at=0)
    assert (job / UNIT).read_bytes() == b"wav"
    assert not failing.whole(UNIT, "text")


def test_what_a_longer_script_left_is_dropped(job: Path) -> None:
    for unit in (UNIT, "audio/002.wav", "images/001.png"):
        keep(job, unit)
    (job / "audio" / "stray").write_bytes(b"x")
    space(job).drop_others("audio", {UNIT})
    assert [path.name for path in (job / "audio").iterdir()] == ["001.wav"]
    assert [entry.path for entry in space(job).manifest.products] == [UNIT, "images/001.png"]
    space(job).verify()


def test_sweep_takes_temporary_files_only(job: Path) -> None:
    keep(job)
    for name in (".job.json.0011.tmp", "audio/.001.wav.0011.tmp", "notes.tmp", ".hidden"):
        (job / name).write_bytes(b"x")
    space(job).sweep()
    names = {path.relative_to(job).as_posix() for path in job.rglob("*") if path.is_file()}
    assert names == {UNIT, "manifest.json", "notes.tmp", ".hidden"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(max_size=300))
def test_a_manifest_of_random_bytes_is_damaged(job: Path, data: bytes) -> None:
    (job / "manifest.json").write_bytes(data)
    with pytest.raises(Damaged):
        space(job).verify()


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "", ".", "x" * 5000, "audio/", "a\0b"])
def test_a_manifest_of_odd_paths_is_told_as_harmed(job: Path, path: str) -> None:
    keep(job)
    manifest = job / "manifest.json"
    manifest.write_text(manifest.read_text().replace(UNIT, path.replace("\0", "\\u0000")))
    with pytest.raises(Rejected):
        space(job).verify()


def test_no_manifest_is_one_without_products(job: Path) -> None:
    assert space(job).manifest.products == ()
    assert space(job).manifest.job == job.name


@pytest.mark.parametrize(
    ("units", "harmed", "stage"),
    [
        ([], "", Stage.SCRIPTS),
        (["script.md"], "", Stage.SCRIPTS),
        (["script.md", "scenes.json"], "", Stage.AUDIO),
        (["script.md", "scenes.json", UNIT], "", Stage.AUDIO),
        (["script.md", "scenes.json", UNIT, "audio.wav"], "", Stage.IMAGES),
        (["script.md", "scenes.json", UNIT, "audio.wav", "images/title.png"], "", Stage.IMAGES),
        (["script.md", "scenes.json", UNIT, "audio.wav"], "scenes.json", Stage.SCRIPTS),
        (["script.md", "scenes.json", UNIT, "audio.wav"], UNIT, Stage.AUDIO),
        (["script.md", "scenes.json", UNIT, "audio.wav", "images/title.png"], "images/title.png", Stage.IMAGES),
    ],
)
def test_a_job_goes_on_at_the_first_stage_that_is_not_whole(
    job: Path, units: list[str], harmed: str, stage: Stage
) -> None:
    for unit in units:
        keep(job, unit)
    if harmed:
        (job / harmed).write_bytes(b"x")
    assert space(job).resume_stage() == stage


def test_a_topic_that_was_mended_is_told_anew(job: Path) -> None:
    (job / "topic.md").write_bytes(b"# Sea")
    of = hashlib.sha256(b"# Sea").hexdigest()
    keep(job, "scenes.json", encode(Scenes("Sea", "en", "", "", 1, (SceneText("Salt.", "sea"),), topic_sha256=of)))
    assert space(job).resume_stage() == Stage.AUDIO
    (job / "topic.md").write_bytes(b"# Moon")
    assert space(job).resume_stage() == Stage.SCRIPTS


def test_scenes_that_are_not_the_ones_written_are_refused(job: Path) -> None:
    with pytest.raises(Rejected):
        space(job).scenes()
    keep(job, "scenes.json", b"{}")
    with pytest.raises(Damaged):
        space(job).scenes()
    (job / "scenes.json").write_bytes(b"{ }")
    with pytest.raises(Rejected) as caught:
        space(job).scenes()
    assert not isinstance(caught.value, Damaged)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_limited(tmp_path / "file", 5) == b"12345"
    with pytest.raises(Damaged, match="larger than 4 bytes"):
        read_limited(tmp_path / "file", 4)
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "gone", JSON_BYTES_MAX)


def test_what_is_no_regular_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("folder", "link"):
        with pytest.raises(Damaged):
            read_limited(tmp_path / name, 9)


def test_a_digest_tells_of_every_part_and_of_no_order() -> None:
    assert digest(a=1, b="x") == digest(b="x", a=1)
    assert len({digest(a=1), digest(a=2), digest(b=1), digest(a="1"), digest()}) == 5
