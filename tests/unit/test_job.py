"""The values in a job's files: what is written is read again, what is damaged is told as damaged."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicd.errors import Rejected, RetryLater
from topicd.job import (
    Damaged,
    Job,
    Manifest,
    Product,
    Scenes,
    SceneText,
    Trouble,
    decode,
    encode,
    is_torn,
    time_of,
)

KINDS: tuple[type[Job | Manifest | Scenes | Trouble], ...] = (Job, Manifest, Scenes, Trouble)
TROUBLE = Trouble(at="2026-01-01T00:00:00.000Z", stage="audio", unit="audio/001", cause="timeout", message="late")
JOB = Job(
    id="20260101-000000-000000-sea",
    source="sea.md",
    sha256="ab",
    bytes=3,
    accepted="2026-01-01T00:00:00.000Z",
    accepted_s=1767225600.0,
    attempts={"scripts": 1},
    crashes={"audio": 2},
    not_before_s=5.0,
    last_error=TROUBLE,
    source_left=(1, 2, 3),
)
PRODUCT = Product("audio/001.wav", "cd", 9, "ef", {"backend": "fake"}, 0.5, "2026-01-01T00:00:00.000Z")
MANIFEST = Manifest("20260101-000000-000000-sea", (PRODUCT,))
SCENES = Scenes("Sea", "en", "", "", 7, (SceneText("Water.", "waves"),))
VALUES = (JOB, MANIFEST, SCENES, TROUBLE)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def decoded(kind: type[Any], data: bytes) -> object:
    """Read; a value or `Damaged`, which is itself a value here. Anything else escapes."""
    try:
        return decode(kind, data, "some.json")
    except Damaged as damaged:
        return damaged if "some.json" in damaged.message else None


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_written_is_read_again(value: Job | Manifest | Scenes | Trouble) -> None:
    data = encode(value)
    assert data.endswith(b"}\n")
    assert decoded(type(value), data) == value


@pytest.mark.parametrize("name", ["caf\udce9.md", "new\nline", "\N{WATER WAVE}", "\0", "\u2028", 'q"\\'])
def test_a_source_of_any_name_is_read_again(name: str) -> None:
    assert decoded(Job, encode(replace(JOB, source=name))) == replace(JOB, source=name)


@given(data=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_random_bytes_are_damaged(data: bytes, kind: type) -> None:
    assert isinstance(decoded(kind, data), Damaged)


@given(value=json_values, kind=st.sampled_from(KINDS))
def test_random_json_is_damaged_or_a_value(value: object, kind: type) -> None:
    assert isinstance(decoded(kind, json.dumps(value).encode()), Damaged | kind)


@given(data=st.data(), value=st.sampled_from(VALUES), wrong=json_values)
def test_a_field_of_the_wrong_type_is_damaged_or_a_value(
    data: st.DataObject, value: Job | Manifest | Scenes | Trouble, wrong: object
) -> None:
    raw = asdict(value)
    raw[data.draw(st.sampled_from(sorted(raw)))] = wrong
    read = decoded(type(value), json.dumps(raw).encode())
    assert isinstance(read, Damaged | type(value))
    if not isinstance(read, Damaged):
        assert decoded(type(value), encode(read)) == read or _has_nan(read)


def _has_nan(value: object) -> bool:
    return "nan" in repr(value)


@given(value=st.sampled_from(VALUES), cut=st.integers(0, 400))
def test_a_torn_file_is_damaged(value: Job | Manifest | Scenes | Trouble, cut: int) -> None:
    data = encode(value)
    assert isinstance(decoded(type(value), data[: min(cut, len(data) - 2)]), Damaged)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"id":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b"9" * 10_000,
        b"1e999",
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"null",
        b"{}",
        b"[]",
        b'{"id": 1, "id": 2}',
    ],
    ids=lambda data: repr(data[:12]),
)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_json_is_damaged(kind: type, data: bytes) -> None:
    assert isinstance(decoded(kind, data), Damaged)


@pytest.mark.parametrize("number", ["9" * 400, "1e308", "-1e308", "1e999", "NaN", "-1", '"x"', "true", "null", "{}"])
@pytest.mark.parametrize("field", ["bytes", "accepted_s", "not_before_s"])
def test_a_number_of_any_size_is_damaged_or_a_number(field: str, number: str) -> None:
    raw = {**asdict(JOB), field: "@"}
    assert isinstance(decoded(Job, json.dumps(raw).replace('"@"', number).encode()), Damaged | Job)


@pytest.mark.parametrize("field", ["not_before_s", "accepted_s"])
@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_a_time_that_never_comes_is_damaged(field: str, number: float) -> None:
    assert isinstance(decoded(Job, json.dumps({**asdict(JOB), field: number}).encode()), Damaged)


def test_unknown_fields_are_of_a_later_version_and_do_no_harm() -> None:
    assert decoded(Job, json.dumps({**asdict(JOB), "later": [1]}).encode()) == JOB


def test_damaged_is_for_a_person_not_for_another_try() -> None:
    damaged = Damaged("job.json", "why")
    assert isinstance(damaged, Rejected)
    assert not isinstance(damaged, RetryLater)
    assert damaged.hint


FRESH = Job(id="j", source="s", sha256="", bytes=1, accepted="", accepted_s=0)


def test_attempts_are_counted_by_stage() -> None:
    job = FRESH.begin("scripts")
    assert job.attempts == {"scripts": 1}
    again = job.begin("scripts")
    assert again.attempts == {"scripts": 2}
    assert again.begin("audio").attempts == {"scripts": 2, "audio": 1}


def test_crashes_are_counted_by_stage_and_are_no_attempts() -> None:
    job = FRESH.crash("scripts").crash("audio").crash("scripts")
    assert (job.attempts, job.crashes) == ({}, {"scripts": 2, "audio": 1})


def test_beginning_ends_the_wait() -> None:
    assert replace(FRESH, not_before_s=9.0).begin("scripts").not_before_s == 0


@pytest.mark.parametrize("stage", ["scripts", "audio"])
def test_giving_back_undoes_a_beginning(stage: str) -> None:
    assert FRESH.begin(stage).give_back(stage).attempts == {}
    assert FRESH.begin("scripts").begin("scripts").give_back("scripts").attempts == {"scripts": 1}
    assert FRESH.give_back(stage).attempts == {}


def test_a_stage_that_is_done_leaves_only_the_attempts_that_went_wrong() -> None:
    job = JOB.begin("scripts").pass_on("scripts")
    assert (job.attempts, job.last_error, job.not_before_s) == (JOB.attempts, None, 0)


def test_afresh_forgets_what_was_spent_and_keeps_what_it_is() -> None:
    job = JOB.afresh()
    assert (job.attempts, job.crashes, job.last_error, job.not_before_s) == ({}, {}, None, 0)
    assert (job.id, job.source, job.sha256) == (JOB.id, JOB.source, JOB.sha256)


@pytest.mark.parametrize("cut", [0, 1, 5, 9, 40, -2, -1])
def test_what_a_power_cut_leaves_of_a_job_is_torn(cut: int) -> None:
    data = encode(JOB)
    assert is_torn(data[:cut])
    assert is_torn(data[:cut] + b"\0" * 30)
    assert is_torn(b"\0" * len(data))
    assert not is_torn(data)


@pytest.mark.parametrize("data", [b"[]", b"{}\n", b"\xff" * 9, b"job", b'{"id": "a"}\n'])
def test_what_nobody_here_wrote_is_damaged_and_not_torn(data: bytes) -> None:
    assert not is_torn(data)


def test_an_id_tells_its_time() -> None:
    assert time_of("20260101-000000-500000-sea") == 1767225600.5
    assert time_of("sea") is None


@pytest.mark.parametrize("next_try", [None, 60.0])
def test_a_trouble_has_the_words_of_its_error(next_try: float | None) -> None:
    error = RetryLater("timeout", "it took too long", hint="wait", unit="audio/001")
    trouble = Trouble.of(error, stage="audio", at=0, next_try=next_try)
    assert (trouble.cause, trouble.message, trouble.hint, trouble.unit) == (
        "timeout",
        "it took too long",
        "wait",
        "audio/001",
    )
    assert trouble.at == "1970-01-01T00:00:00.000Z"
    assert trouble.next_try == ("1970-01-01T00:01:00.000Z" if next_try else "")


def test_a_manifest_has_one_entry_a_path_sorted() -> None:
    other = replace(PRODUCT, path="a.txt")
    manifest = MANIFEST.having(other).having(replace(other, sha256="new"))
    assert [(entry.path, entry.sha256) for entry in manifest.products] == [("a.txt", "new"), ("audio/001.wav", "cd")]
    assert manifest.get("a.txt") == replace(other, sha256="new")
    assert manifest.get("none") is None
