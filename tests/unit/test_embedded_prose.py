import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicd.backends.embedded import prose


def test_sentences_end_where_they_end() -> None:
    text = 'Dr. Ada Byron wrote it, e.g. in 1843.  It was "new." Was it 3.5 pages?\nYes!'
    assert prose.sentences(text) == [
        "Dr. Ada Byron wrote it, e.g. in 1843.",
        'It was "new."',
        "Was it 3.5 pages?",
        "Yes!",
    ]
    assert prose.sentences("月は海を引く。だから潮が満ちる。") == ["月は海を引く。", "だから潮が満ちる。"]
    assert prose.sentences("  ") == []


@given(st.text(max_size=300))
def test_no_sentence_is_lost_or_made_up(text: str) -> None:
    assert "".join("".join(prose.sentences(text)).split()) == "".join(text.split())


def test_guidance_is_read_with_its_markdown_taken_off() -> None:
    guidance = prose.read_guidance(
        """# Tides
- The **Moon** pulls on the [sea](http://example.org/x)
1. Most coasts have two `high` tides

A long paragraph that was wrapped by an editor at a column, which
goes on here. It ends.
| a | table |
```
code()
```
"""
    )
    assert guidance.notes == (
        "The Moon pulls on the sea.",
        "Most coasts have two high tides.",
        "A long paragraph that was wrapped by an editor at a column, which goes on here.",
        "It ends.",
    )
    assert guidance.aspects == ()


@pytest.mark.parametrize(
    "line",
    [
        "Please write for children.",
        "Mention the Romans.",
        "Why do they differ?",
        "Audience: beginners who know a little",
        "Keep it simple.",
        "I want a cheerful tone.",
        "carotenoids",
    ],
)
def test_wishes_questions_and_fragments_are_not_told(line: str) -> None:
    guidance = prose.read_guidance(line)
    assert (guidance.notes, guidance.aspects) == ((), (line,))


@pytest.mark.parametrize("line", ["Keep the starter warm.", "Add salt to the dough.", "It rains."])
def test_statements_and_recipe_steps_are_told(line: str) -> None:
    assert prose.read_guidance(line).notes == (line,)


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("<think>hm. yes.</think>The sea rises. It falls", ["The sea rises."]),
        ("<think>never closed. So.", []),
        ("Sure, here is a narration:\n\nThe sea rises.", ["The sea rises."]),
        ("Here's the script: The sea rises.", ["The sea rises."]),
        ("## Scene 1\n**Narrator:** The sea rises .", ["The sea rises."]),
        ("Narrator: The *sea*  rises.", ["The sea rises."]),
        ("1. The sea rises.\n2. It falls.", ["The sea rises.", "It falls."]),
        ("cut before any stop", []),
        ('It is "new. And old.', ["It is new.", "And old."]),
        ("", []),
    ],
)
def test_only_whole_plain_sentences_of_a_reply_are_spoken(reply: str, kept: list[str]) -> None:
    assert prose.spoken(reply) == kept


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes 365 days.",
        "There are millions of them.",
        "The story of Arabella is old.",
        "I am a bee.",
        "Imagine a hill.",
        "What is it?",
        "It has *stars*.",
        "This script is short.",
    ],
)
def test_invented_amounts_names_and_talk_about_itself_stray(sentence: str) -> None:
    assert prose.strays(sentence, "tides and the sea")


def test_what_the_source_says_does_not_stray() -> None:
    source = "In 1843 Ada wrote millions of words. The arabella is a ship."
    assert not prose.strays("It was in 1843 that Ada wrote millions of words.", source)
    assert not prose.strays("The Moon pulls on the Earth.", "tides")


def test_repeats_are_seen_through_other_words_between() -> None:
    told = ["The Moon pulls on the water nearest to it."]
    assert prose.repeats("So the Moon is pulling on the waters.", told)
    assert not prose.repeats("Bread rises because yeast makes gas.", told)


def test_a_picture_is_a_short_phrase_of_the_narrations_own_words() -> None:
    narration = "The Moon pulls on the water nearest to it. The Moon is quickly rising."
    assert prose.picture(narration) == "moon pulls water rising"
    assert prose.picture("It is.") == "It is"
    long = " ".join(f"word{chr(97 + n)}x" for n in range(26))
    assert len(prose.picture(long).split()) <= 12
    assert prose.picture("Die Erde dreht sich um die Sonne.") != ""


@given(st.lists(st.text(min_size=1), max_size=30), st.integers(1, 12))
def test_items_are_shared_out_in_order_and_whole(items: list[str], shares: int) -> None:
    out = prose.share_out(items, shares)
    assert len(out) == shares
    assert [item for share in out for item in share] == items
    assert max(len(share) for share in out) - min(len(share) for share in out) <= 1
