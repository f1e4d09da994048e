"""Whatever bytes come, the readers say yes, or no in words of bounded size; nothing else leaves them."""

import json
import math
import os
import wave
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rig.fuzz import HUGE, MANY_KEYS, VALUES, Harm, byte_harms, json_harms
from topicd.backends.base import Scene, Script, Speech
from topicd.backends.embedded.worker import _object
from topicd.errors import Rejected, RetryLater
from topicd.front_matter import read, split
from topicd.job import COUNT_MAX, Damaged, Job, Manifest, Product, Scenes, SceneText, Trouble, decode, encode
from topicd.stages import scripts
from topicd.stages.wav import check_speech
from topicd.topic import is_topic_name, parse, source_slug

WORDS_CHARS_MAX = 1_000
AT = "2026-01-01T00:00:00.000Z"
TROUBLE = Trouble(at=AT, stage="audio", unit="audio/001", cause="timeout", message="late")
VALUES_KEPT: list[Job | Manifest | Scenes | Trouble] = [
    Job("a", "sea.md", "ab", 3, AT, 1.0, attempts={"scripts": 1}, crashes={"audio": 2}, last_error=TROUBLE),
    Manifest("a", (Product("audio/001.wav", "cd", 9, "ef", {"backend": "fake"}, 0.5, AT),)),
    Scenes("Sea", "en", "", "", 7, (SceneText("Water.", "waves"),)),
    TROUBLE,
]
TOPIC = b"---\ntitle: Tides\nscenes: 2\nstyle: calm\nseed: 7\n---\n# Tides\n\nThe *Moon* pulls.\n"
SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check_words(error: Rejected | RetryLater) -> None:
    assert len(error.message) < WORDS_CHARS_MAX
    assert error.hint


def check_kept(value: Any, data: bytes) -> None:
    """What is read back is written and read again, and a job can be begun; or it is damaged, in bounded words."""
    try:
        found = decode(type(value), data, "some.json")
    except Damaged as damaged:
        check_words(damaged)
        return
    if not any(isinstance(part, float) and not math.isfinite(part) for part in parts(found)):
        assert decode(type(value), encode(found), "some.json") == found
    if isinstance(found, Job):
        encode(found.begin("audio"))
        encode(found.give_back("audio"))
        assert all(0 <= count <= COUNT_MAX for count in (*found.attempts.values(), *found.crashes.values()))
    if isinstance(found, Manifest):
        assert not [each.path for each in found.products if each.path.startswith("/") or ".." in each.path.split("/")]


def parts(value: Any) -> list[Any]:
    """Return every leaf of a value."""
    if hasattr(value, "__dataclass_fields__"):
        return [leaf for name in value.__dataclass_fields__ for leaf in parts(getattr(value, name))]
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in parts(inner)]
    if isinstance(value, tuple | list):
        return [leaf for inner in value for leaf in parts(inner)]
    return [value]


@SLOW
@given(value=st.sampled_from(VALUES_KEPT), harm=json_harms() | byte_harms())
def test_a_harmed_file_is_a_value_or_damaged(value: Any, harm: Harm) -> None:
    check_kept(value, harm(encode(value)))


@pytest.mark.parametrize("data", [*HUGE.values(), MANY_KEYS], ids=[*HUGE, "many keys"])
@pytest.mark.parametrize("value", VALUES_KEPT, ids=lambda value: type(value).__name__)
def test_a_huge_file_is_damaged(value: Any, data: bytes) -> None:
    with pytest.raises(Damaged) as caught:
        decode(type(value), data, "some.json")
    check_words(caught.value)


@pytest.mark.parametrize(
    "path", ["/dev/zero", "../x", "audio/../../x", "", ".", "audio/", "a\0b", "a" * 300, "..", "a\n"]
)
def test_a_product_lies_within_its_job(path: str) -> None:
    data = encode(Manifest("a", (Product(path, "cd", 9, "ef", {}, 0.5, AT),)))
    with pytest.raises(Damaged):
        decode(Manifest, data, "manifest.json")


@pytest.mark.parametrize("count", [-1, COUNT_MAX + 1, 10**4299])
@pytest.mark.parametrize("field", ["attempts", "crashes"])
def test_a_count_that_nothing_counted_is_damage(field: str, count: int) -> None:
    data = encode(VALUES_KEPT[0]).replace(
        b'"scripts": 1' if field == "attempts" else b'"audio": 2', b'"audio": %d' % count
    )
    with pytest.raises(Damaged):
        decode(Job, data, "job.json")


def test_words_of_damage_are_bounded_whatever_a_key_is() -> None:
    raw = json.loads(encode(VALUES_KEPT[0]))
    raw["attempts"] = {"k" * 1_000_000: "x"}
    with pytest.raises(Damaged) as caught:
        decode(Job, json.dumps(raw).encode(), "job.json")
    check_words(caught.value)


@pytest.mark.parametrize("header", [b"", b"[]", b"7", b"{", b"[" * 100_000, b"\xff"])
def test_a_reply_of_a_worker_begins_with_an_object(header: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        _object(header)


@pytest.mark.parametrize(
    "cue", [(0, math.nan, "a"), (0, 1e300, "a"), (-1, 0.1, "a"), (0, math.inf, "a"), (0, 0.1, b"")]
)
def test_cues_that_are_no_times_within_the_sound_are_unfit(cue: Any) -> None:
    check_speech(Speech(WAVE, ((0, 0.1, "a"),)), text="a word", unit="audio/001", bytes_max=100_000_000)
    with pytest.raises(RetryLater, match="cues"):
        check_speech(Speech(WAVE, (cue,)), text="a word", unit="audio/001", bytes_max=100_000_000)


@SLOW
@given(harm=byte_harms(), tail=st.binary(max_size=30))
def test_a_harmed_topic_is_a_topic_or_rejected(harm: Harm, tail: bytes) -> None:
    try:
        topic = parse(harm(TOPIC) + tail, scenes_max=20)
    except Rejected as error:
        check_words(error)
    else:
        assert topic.title.strip()


@SLOW
@given(text=st.text(st.sampled_from("abc:-[]{}&*!|>'\"%@`#,?\\ \n\t~0123456789.eE+_\u2028\x85\ud800"), max_size=120))
def test_any_front_matter_is_read_or_rejected(text: str) -> None:
    try:
        head, _ = split(f"---\n{text}\n---\n# T\n")
        read(head, 20)
        read(f"title: {text}", 20)
    except Rejected as error:
        check_words(error)


NAMES = st.binary(min_size=1, max_size=255).map(os.fsdecode) | st.text(min_size=1, max_size=300)


@SLOW
@given(name=NAMES)
def test_any_name_gives_a_slug_fit_for_a_directory(name: str) -> None:
    is_topic_name(name)
    slug = source_slug(name)
    assert 1 <= len(slug) <= 40
    assert slug.isascii()
    assert slug.replace("-", "").isalnum()


def a_wave() -> bytes:
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\x01\x10" * 4000)
    return out.getvalue()


WAVE = a_wave()


@SLOW
@given(harm=byte_harms(), at=st.integers(0, 44), new=st.binary(min_size=1, max_size=4))
def test_harmed_speech_is_speech_or_unfit(harm: Harm, at: int, new: bytes) -> None:
    for data in (harm(WAVE), WAVE[:at] + new + WAVE[at + len(new) :]):
        try:
            check_speech(Speech(data), text="a word", unit="audio/001", bytes_max=100_000_000)
        except RetryLater as error:
            check_words(error)


@SLOW
@given(cues=VALUES)
def test_any_cues_are_cues_or_unfit(cues: Any) -> None:
    for given_cues in (cues, (cues,), ((0.0, cues, "a"),), ((cues, 0.1, "a"),), ((0, 0.1, cues),)):
        try:
            check_speech(Speech(WAVE, given_cues), text="a word", unit="audio/001", bytes_max=100_000_000)
        except RetryLater as error:
            check_words(error)


@SLOW
@given(title=VALUES, narration=VALUES, picture=VALUES, scenes=VALUES)
def test_any_script_is_fit_or_unfit(title: Any, narration: Any, picture: Any, scenes: Any) -> None:
    for script in (
        Script(title, (Scene("A word.", "waves"),)),
        Script("Sea", (Scene(narration, "waves"), Scene("A word.", picture))),
        Script("Sea", scenes),
        Script("Sea", (scenes,)),
    ):
        try:
            scripts.check(script)
        except RetryLater as error:
            check_words(error)
