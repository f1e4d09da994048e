import itertools
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicd.stages.captions import (
    CUE_MS_MAX,
    CUE_MS_MIN,
    LINE_COLUMNS_MAX,
    Cue,
    SceneSpeech,
    cues_from_scenes,
    to_srt,
    to_vtt,
)

LONG = (
    "Docker containers are lightweight, portable environments that package an application with everything it "
    "needs to run, including its libraries, its settings, and its files."
)
MS_S = 0.001
WIDE_COMMA = "\uff0c"

words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=60
)
narrations = st.lists(
    st.one_of(
        st.sampled_from(["One.", "two,", "three", "é", f"你好{WIDE_COMMA}世界。", "Dr.", "-->", "&amp;", "👩‍🔬"]),
        words,
    ),
    min_size=1,
    max_size=60,
).map(" ".join)


def bare(text: str) -> str:
    return "".join(text.split())


@st.composite
def speeches(draw: st.DrawFn) -> list[SceneSpeech]:
    placed, at_s = [], 0.0
    for narration in draw(st.lists(narrations, min_size=1, max_size=5)):
        start_s = at_s + draw(st.floats(0, 3))
        duration_s = draw(st.floats(0.01, 60))
        placed.append(SceneSpeech(narration, start_s, duration_s, draw(exact_cues(narration, duration_s))))
        at_s = start_s + duration_s
    return placed


@st.composite
def exact_cues(draw: st.DrawFn, narration: str, duration_s: float) -> tuple[tuple[float, float, str], ...]:
    if draw(st.booleans()):
        return ()
    said = narration.split()
    cuts = sorted({0, len(said), *draw(st.lists(st.integers(0, len(said)), max_size=5))})
    times = sorted(draw(st.floats(-1, duration_s + 1)) for _ in range(2 * (len(cuts) - 1)))
    return tuple(
        (times[2 * at], times[2 * at + 1], " ".join(said[low:high]))
        for at, (low, high) in enumerate(itertools.pairwise(cuts))
    )


def of_scene(cues: tuple[Cue, ...], scene: SceneSpeech) -> list[Cue]:
    end_s = scene.start_s + scene.duration_s
    return [cue for cue in cues if scene.start_s - 1e-6 <= cue.start_s and cue.end_s <= end_s + 1e-6]


@settings(deadline=None)
@given(speeches())
def test_cues_ascend_last_and_never_overlap(scenes: list[SceneSpeech]) -> None:
    cues = cues_from_scenes(scenes)
    assert all(cue.start_s < cue.end_s for cue in cues)
    assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(cues))


@settings(deadline=None)
@given(speeches())
def test_every_word_is_said_once_in_order_within_its_scene(scenes: list[SceneSpeech]) -> None:
    cues = cues_from_scenes(scenes)
    for scene in scenes:
        assert bare("".join(cue.text for cue in of_scene(cues, scene))) == bare(scene.narration)


@settings(deadline=None)
@given(speeches())
def test_a_cue_lasts_as_long_as_the_scene_allows_and_no_longer_than_the_most(
    scenes: list[SceneSpeech],
) -> None:
    cues = cues_from_scenes(scenes)
    for scene in scenes:
        own = of_scene(cues, scene)
        least_s = min(CUE_MS_MIN / 1000, scene.duration_s / len(own) - 2 * MS_S)
        assert all(least_s - 1e-6 <= cue.end_s - cue.start_s <= CUE_MS_MAX / 1000 + 1e-6 for cue in own)


@settings(deadline=None)
@given(speeches())
def test_a_cue_takes_two_lines_of_words_at_most(scenes: list[SceneSpeech]) -> None:
    cues = [cue for cue in cues_from_scenes(scenes) if cue.end_s - cue.start_s > 2 * MS_S]
    for block in to_srt(cues).split("\n\n"):
        lines = block.splitlines()[2:]
        assert len(lines) <= 2
        assert all(len(line) <= LINE_COLUMNS_MAX for line in lines if line.isascii())


@settings(deadline=None)
@given(speeches())
def test_vtt_is_read_back_as_it_was_meant(scenes: list[SceneSpeech]) -> None:
    cues = cues_from_scenes(scenes)
    head, *blocks = to_vtt(cues).rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    assert len(blocks) == len(cues)
    for block, cue in zip(blocks, cues, strict=True):
        times, *lines = block.split("\n")
        start, end = times.split(" --> ")
        assert math.isclose(seconds(start), cue.start_s, abs_tol=MS_S / 2)
        assert math.isclose(seconds(end), cue.end_s, abs_tol=MS_S / 2)
        assert not re.search(r"-->|<|>|&(?!amp;|lt;|gt;)", "\n".join(lines))
        text = " ".join(lines).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert bare(text) == bare(cue.text)


def seconds(clock: str) -> float:
    found = re.fullmatch(r"(\d\d+):([0-5]\d):([0-5]\d\.\d{3})", clock)
    assert found
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def test_a_long_sentence_is_cut_at_clauses_and_before_small_words() -> None:
    texts = [cue.text for cue in cues_from_scenes([SceneSpeech(LONG, 0, 12)])]
    assert texts == [
        "Docker containers are lightweight, portable environments",
        "that package an application with everything it needs to run,",
        "including its libraries, its settings, and its files.",
    ]


def test_an_end_of_clause_is_worth_some_imbalance() -> None:
    first = "When the moon is high, the water comes in over the wide sandy bay,"
    second = "and it stays there until the night comes."
    assert [cue.text for cue in cues_from_scenes([SceneSpeech(f"{first} {second}", 0, 6)])] == [first, second]


def test_more_sentences_than_milliseconds_become_one_cue() -> None:
    sentence = f"{'X' * 80}. "
    cues = cues_from_scenes([SceneSpeech(sentence * 9, 0, 0.005)])
    assert cues == (Cue(0, 0.005, (sentence * 9).strip()),)


def test_time_is_shared_by_length() -> None:
    first, second = cues_from_scenes([SceneSpeech(f"{'a' * 9}. {'B' * 29}.", 1, 4.2)])
    assert (first.start_s, second.end_s) == (1, 5.2)
    assert first.end_s == second.start_s == pytest.approx(1 + 4.2 * 11 / 42, abs=MS_S)


def test_exact_times_are_kept_with_their_pauses() -> None:
    exact = ((0.1, 2.0, "One thing."), (2.5, 4.0, "Another thing."))
    cues = cues_from_scenes([SceneSpeech("One thing. Another thing.", 10, 5, exact)])
    assert cues == (Cue(10.1, 12.0, "One thing."), Cue(12.5, 14.0, "Another thing."))


def test_exact_times_of_other_words_are_not_believed() -> None:
    exact = ((1.0, 2.0, "Something else."),)
    assert cues_from_scenes([SceneSpeech("One thing.", 0, 5, exact)]) == (Cue(0, 5, "One thing."),)


def test_a_short_sentence_is_joined_to_its_neighbour() -> None:
    exact = ((0.0, 0.3, "No."), (0.3, 2.0, "It is not."))
    cues = cues_from_scenes([SceneSpeech("No. It is not.", 0, 2, exact)])
    assert cues == (Cue(0, 2, "No. It is not."),)


def test_a_short_sentence_that_cannot_be_joined_is_given_time() -> None:
    long = "x" * 40 + " " + "y" * 41 + "."
    cues = cues_from_scenes([SceneSpeech(f"No. {long}", 0, 4, ((0, 0.3, "No."), (0.3, 4, long)))])
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(0, 0.7), (0.7, 4)]


def test_a_slow_sentence_is_cut_by_time_too() -> None:
    cues = cues_from_scenes([SceneSpeech("Slowly it turns, and slowly it stops.", 0, 12)])
    assert [cue.text for cue in cues] == ["Slowly it turns,", "and slowly it stops."]


def test_one_slow_word_goes_after_the_longest_time() -> None:
    assert cues_from_scenes([SceneSpeech("Om.", 0, 30)]) == (Cue(0, 7, "Om."),)


@pytest.mark.parametrize("text", ["Dr. Smith and J. Doe agree.", "Use it, e.g. Here.", "It costs 3.5 in all."])
def test_a_full_stop_inside_a_sentence_does_not_end_it(text: str) -> None:
    assert [cue.text for cue in cues_from_scenes([SceneSpeech(text, 0, 3)])] == [text]


def test_a_script_without_spaces_is_cut_between_letters_never_before_a_comma() -> None:
    cues = cues_from_scenes([SceneSpeech(f"你好世界我们今天学习{WIDE_COMMA}" * 12, 0, 40)])
    lines = [line for block in to_srt(cues).split("\n\n") for line in block.splitlines()[2:]]
    assert all(len(line) * 2 <= LINE_COLUMNS_MAX for line in lines)
    assert not any(line.startswith(WIDE_COMMA) for line in lines)


def test_a_joined_emoji_is_never_torn() -> None:
    cues = cues_from_scenes([SceneSpeech("👩‍🔬" * 60, 0, 20)])
    assert all(cue.text.count("👩") == cue.text.count("🔬") for cue in cues)
    assert not any(line.startswith(("\u200d", "🔬")) for line in to_vtt(cues).splitlines())


def test_formats_to_the_letter() -> None:
    two_lines = "The first line of the two is about as long as the second is."
    cues = [Cue(0.5, 2, "a --> b <i>&"), Cue(3661.001, 3662, two_lines)]
    assert to_vtt(cues) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\na --&gt; b &lt;i&gt;&amp;\n\n"
        "01:01:01.001 --> 01:01:02.000\nThe first line of the two is about\nas long as the second is.\n"
    )
    assert to_srt(cues) == (
        "1\n00:00:00,500 --> 00:00:02,000\na → b <i>&\n\n"
        "2\n01:01:01,001 --> 01:01:02,000\nThe first line of the two is about\nas long as the second is.\n"
    )


def test_a_blank_line_in_a_text_does_not_end_its_cue() -> None:
    vtt = to_vtt([Cue(0, 1, "one\n\ntwo\0\x85three")])
    assert vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\none two three\n"


def test_nothing_gives_nothing() -> None:
    assert cues_from_scenes([]) == ()
    assert to_vtt([]) == "WEBVTT\n"
    assert to_srt([]) == ""


def test_a_scene_that_runs_into_the_next_is_cut_there() -> None:
    cues = cues_from_scenes([SceneSpeech("One.", 0, 3), SceneSpeech("Two.", 2, 2)])
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(0, 2), (2, 4)]


@pytest.mark.parametrize(
    "scenes",
    [
        [SceneSpeech("One.", 0, 0)],
        [SceneSpeech("One.", -1, 3)],
        [SceneSpeech("One.", 0, math.inf)],
        [SceneSpeech("One.", math.nan, 1)],
        [SceneSpeech("One.", 2, 1), SceneSpeech("Two.", 1, 1)],
        [SceneSpeech("One.", 0, 2, ((0, math.nan, "One."),))],
    ],
)
def test_impossible_times_are_refused(scenes: list[SceneSpeech]) -> None:
    with pytest.raises(ValueError, match="not"):
        cues_from_scenes(scenes)
