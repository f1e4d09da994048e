from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_phosphor_icons import exists, get_icon

from topicd.backends.embedded.cards.concepts import CONCEPTS
from topicd.backends.embedded.cards.icons import ABSTRACT, Choice, choose, icon_paths
from topicd.backends.embedded.cards.words import STOP_WORDS, stem, tokens


def chosen(title: str, prompt: str = "", narration: str = "", *, seed: int = 1) -> Choice:
    texts = {"title": title, "prompt": prompt, "narration": narration}
    return choose(texts, is_title=not prompt, count=4, seed=seed)


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ("bake bakes baked baking", "bake"),
        ("wave waves waved", "wave"),
        ("plan plans planned planning", "plan"),
        ("leaf leaves", "leaf"),
        ("story stories", "story"),
        ("box boxes", "box"),
        ("glass glasses", "glass"),
        ("run running", "run"),
        ("seed seeds", "seed"),
        ("wing wings", "wing"),
    ],
)
def test_forms_of_a_word_share_a_stem(forms: str, expected: str) -> None:
    assert {stem(word) for word in forms.split()} == {expected}


@pytest.mark.parametrize(("one", "other"), [("plan", "plane"), ("cod", "code"), ("win", "wine"), ("plant", "planet")])
def test_different_words_keep_different_stems(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_tokens_fold_accents_and_leave_gaps_where_function_words_were() -> None:
    assert tokens("Café's of the Ocean") == ["cafe", "", "", "ocean"]


@given(st.text())
def test_any_text_gives_words_of_small_latin_letters(text: str) -> None:
    assert all(not token or (token.isascii() and token.islower()) for token in tokens(text))


def test_every_concept_names_icons_that_exist_in_the_weights_drawn() -> None:
    icons = {name for line in CONCEPTS.strip().splitlines() for name in line.partition(" = ")[2].split()}
    assert [n for n in sorted(icons | set(ABSTRACT)) if not (exists(n, "bold") and exists(n, "duotone"))] == []


def test_every_concept_line_has_words_and_at_least_three_icons() -> None:
    for line in CONCEPTS.strip().splitlines():
        words, _, icons = line.partition(" = ")
        assert words.strip("~")
        assert len(set(icons.split())) >= 3, line


def test_no_word_stands_for_two_concepts_nor_is_a_function_word() -> None:
    counts: Counter[str] = Counter()
    for line in CONCEPTS.strip().splitlines():
        words = line.partition(" = ")[0].removeprefix("~").split()
        counts.update({"_".join(stem(part) for part in word.split("_")) for word in words})
    assert [word for word, count in counts.items() if count > 1] == []
    assert [word for word in counts if set(word.split("_")) & STOP_WORDS] == []


@pytest.mark.parametrize(
    ("title", "hero"),
    [
        ("How tides work", "waves"),
        ("The story of coffee", "coffee"),
        ("How Docker containers work", "shipping-container"),
        ("Why leaves change colour in autumn", "leaf"),
        ("A beginner's guide to sourdough", "bread"),
        ("The search for black holes", "planet"),
        ("How the heart pumps blood", "heartbeat"),
        ("What is inflation?", "chart-line-up"),
        ("The Portuguese language", "translate"),
        ("A short history of chess", "checkerboard"),
        ("How to fix a washing machine", "washing-machine"),
        ("How climate change works", "thermometer-hot"),
        ("Lighthouses of Brittany", "lighthouse"),
        ("Umbrellas", "umbrella"),
    ],
)
def test_a_title_s_subject_is_the_hero(title: str, hero: str) -> None:
    assert chosen(title).hero == hero


def test_a_scene_s_own_words_come_before_the_title_s() -> None:
    heroes = {chosen("The story of coffee", "A busy port with sacks on ships", seed=s).hero for s in range(20)}
    assert heroes <= {"boat", "anchor"}


def test_what_a_scene_adds_to_the_title_leads() -> None:
    heroes = {chosen("How tides work", "the tide and the moon", seed=seed).hero for seed in range(20)}
    assert heroes == {"moon"}


def test_scenes_that_only_repeat_the_title_differ_by_seed() -> None:
    assert len({chosen("How tides work", "tide", seed=seed).hero for seed in range(20)}) >= 3


@pytest.mark.parametrize("text", ["", "xyzzy quux", "日本の歴史", "🌊🌊", "the of and", "12 34"])
def test_a_text_without_known_words_gets_an_abstract_set(text: str) -> None:
    choice = chosen(text)
    assert {choice.hero, *choice.companions} <= set(ABSTRACT)
    assert len(choice.companions) == 4


@pytest.mark.parametrize("text", ["apple", "meta", "a medium square window", "x", "steam and tidal power", "an amazon"])
def test_a_common_word_gives_no_brand(text: str) -> None:
    choice = chosen(text)
    assert not [n for n in (choice.hero, *choice.companions) if n.endswith("-logo")]


def test_a_brand_is_drawn_when_it_is_named() -> None:
    assert chosen("Github for beginners").hero == "github-logo"


@pytest.mark.parametrize(
    "text", ["an elbow", "a bend in the road", "arrows in the sky", "a battery with a plus", "caret"]
)
def test_no_arrows_nor_buttons(text: str) -> None:
    choice = chosen(text)
    dull = ("arrow", "caret", "battery-plus")
    assert not [name for name in (choice.hero, *choice.companions) if name.startswith(dull) or "arrow" in name]


@given(st.lists(st.sampled_from(CONCEPTS.replace("_", " ").split()), max_size=12), st.integers(0, 2**31 - 1))
def test_icons_differ_and_none_is_an_arrow(words: list[str], seed: int) -> None:
    choice = chosen("x", " ".join(words) or "x", seed=seed)
    names = (choice.hero, *choice.companions)
    assert len(set(names)) == 5
    assert not [name for name in names if name.startswith("arrow")]
    assert all(get_icon(name) for name in names)


@given(st.text(max_size=80), st.integers(0, 2**31 - 1))
def test_the_choice_is_a_function_of_text_and_seed(text: str, seed: int) -> None:
    assert chosen(text, text, seed=seed) == chosen(text, text, seed=seed)


def test_an_icon_has_an_outline_and_a_soft_shape() -> None:
    outline, soft = icon_paths("coffee")
    assert outline.startswith("<path")
    assert soft.startswith("<path")
    assert "opacity" not in soft
