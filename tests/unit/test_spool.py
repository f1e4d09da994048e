"""The tree, read: what is where, and what a damaged or moving tree gives."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topicd.job import Damaged, Job, Trouble, encode, is_torn
from topicd.spool import DONE, NoSuchJob, Spool, retryable
from topicd.states import SPOOL_PLACES, Aside, Stage

ID = "20260101-000000-000000-sea"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(home=tmp_path, input_dir=tmp_path / "input", output_dir=tmp_path / "output")
    for place in (*SPOOL_PLACES, DONE):
        spool.place(place).mkdir(parents=True)
    return spool


def put(spool: Spool, place: str, name: str = ID, job_id: str | None = None) -> Path:
    path = spool.place(place) / name
    path.mkdir()
    (path / "topic.md").write_bytes(b"# Sea\n")
    job = Job(id=job_id or name, source="s.md", sha256="", bytes=6, accepted="", accepted_s=0)
    (path / "job.json").write_bytes(encode(job))
    return path


def test_ids_are_directories_in_order_and_nothing_else(spool: Spool) -> None:
    for name in ("b", "a", ".hidden"):
        (spool.place(Stage.AUDIO) / name).mkdir()
    (spool.place(Stage.AUDIO) / "file").touch()
    (spool.place(Stage.AUDIO) / "link").symlink_to(spool.home)
    assert spool.ids(Stage.AUDIO) == ["a", "b"]
    assert spool.survey(Stage.AUDIO, oldest=1).oldest == ["a"]
    assert spool.survey(Stage.IMAGES, oldest=1) == (0, [], [], [], [])


def test_a_survey_tells_both_ends_the_count_and_who_is_in_hand(spool: Spool) -> None:
    folder = spool.place(Stage.SCRIPTS)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04}" for number in range(500)]
    for name in random.Random(7).sample(names, len(names)):
        (folder / name).mkdir()
    (folder / "notes.txt").touch()
    (folder / ".hidden").touch()
    spool.marker(Stage.SCRIPTS, "0007", "0123456789abcdef").touch()
    survey = spool.survey(Stage.SCRIPTS, oldest=20, newest=3, skip={"0000", "0499"})
    assert survey.jobs == 500
    assert survey.oldest == names[1:21]
    assert survey.newest == ["0498", "0497", "0496"]
    assert [(marker.job, marker.run) for marker in survey.markers] == [("0007", "0123456789abcdef")]
    assert survey.hidden == [".hidden"]


def test_a_place_that_is_not_there_is_empty(tmp_path: Path) -> None:
    spool = Spool(home=tmp_path / "gone", input_dir=tmp_path / "i", output_dir=tmp_path / "o")
    assert spool.ids(Stage.AUDIO) == []
    assert set(spool.counts().values()) == {0}


def test_counts_name_every_place(spool: Spool) -> None:
    put(spool, Aside.HELD)
    assert spool.counts() == {"scripts": 0, "audio": 0, "images": 0, "failed": 0, "held": 1, "output": 0}


def test_missing_are_those_that_are_elsewhere(spool: Spool) -> None:
    put(spool, Stage.AUDIO, "a")
    assert spool.missing(Stage.AUDIO, ["a", "b"]) == {"b"}


@pytest.mark.parametrize("text", [ID, ID[:15], "sea", "-sea"])
def test_a_job_is_found_by_any_part_of_its_id(spool: Spool, text: str) -> None:
    path = put(spool, Aside.FAILED)
    found = spool.find(text)
    assert (found.place, found.id, found.path) == (Aside.FAILED, ID, path)


def test_an_exact_id_wins_over_longer_ones(spool: Spool) -> None:
    put(spool, Stage.AUDIO, "sea")
    put(spool, Stage.AUDIO, "sea-2")
    assert spool.find("sea").id == "sea"


@pytest.mark.parametrize(("text", "cause"), [("none", "no_such_job"), ("sea-", "ambiguous"), ("", "ambiguous")])
def test_none_or_several_are_told(spool: Spool, text: str, cause: str) -> None:
    put(spool, Stage.AUDIO, "sea-1")
    put(spool, DONE, "sea-2")
    with pytest.raises(NoSuchJob) as caught:
        spool.find(text)
    assert caught.value.cause == cause
    assert cause != "ambiguous" or "sea-2  (output)" in caught.value.message


def test_a_job_without_job_json_is_rebuilt_from_its_topic(spool: Spool) -> None:
    path = put(spool, Stage.AUDIO)
    (path / "job.json").unlink()
    job = spool.read_job(path)
    assert (job.id, job.source, job.bytes, job.attempts) == (ID, "topic.md", 6, {})


def test_a_directory_without_topic_and_job_json_is_no_job(spool: Spool) -> None:
    path = put(spool, Stage.SCRIPTS)
    (path / "job.json").unlink()
    (path / "topic.md").unlink()
    with pytest.raises(FileNotFoundError):
        spool.read_job(path)
    assert not spool.is_claimed(path)


def test_a_topic_that_is_a_dangling_link_is_claimed_all_the_same(spool: Spool) -> None:
    path = put(spool, Stage.SCRIPTS)
    (path / "topic.md").unlink()
    (path / "topic.md").symlink_to("gone")
    assert spool.is_claimed(path)


def test_the_job_json_of_another_job_is_damaged(spool: Spool) -> None:
    with pytest.raises(Damaged, match="other"):
        spool.read_job(put(spool, Stage.AUDIO, job_id="other"))


@pytest.mark.parametrize("name", ["job.json", "reason.json"])
@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "too large"])
def test_a_file_that_is_none_is_damaged(spool: Spool, name: str, kind: str) -> None:
    path = put(spool, Stage.AUDIO)
    (path / name).unlink(missing_ok=True)
    match kind:
        case "directory":
            (path / name).mkdir()
        case "link":
            (path / name).symlink_to("topic.md")
        case "pipe":
            os.mkfifo(path / name)
        case _:
            (path / name).write_bytes(b" " * 4_194_305)
    if name == "reason.json":
        assert spool.read_reason(path) is None
    else:
        with pytest.raises(Damaged):
            spool.read_job(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(max_size=200))
def test_random_bytes_are_damaged_or_no_reason(spool: Spool, data: bytes) -> None:
    path = spool.place(Stage.AUDIO) / ID
    path.mkdir(exist_ok=True)
    (path / "job.json").write_bytes(data)
    (path / "reason.json").write_bytes(data)
    (path / "topic.md").touch()
    if is_torn(data):
        assert spool.read_job(path).attempts == {}
    else:
        with pytest.raises(Damaged):
            spool.read_job(path)
    assert spool.read_reason(path) is None


def test_a_reason_is_read(spool: Spool) -> None:
    path = put(spool, Aside.FAILED)
    trouble = Trouble(at="", stage="audio", unit="", cause="bug", message="m")
    (path / "reason.json").write_bytes(encode(trouble))
    assert spool.read_reason(path) == trouble


def test_retry_is_for_the_stages_and_for_what_failed() -> None:
    assert {place for place in (*SPOOL_PLACES, DONE) if retryable(place)} == {*Stage, Aside.FAILED}
