import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicd.backends.embedded.cards.layout import Box
from topicd.backends.embedded.cards.title import (
    LINE_HEIGHT,
    LINES_MAX,
    OVERLINE,
    SetTitle,
    line_width,
    overline,
    printable,
    set_title,
)

BOX = Box(80, 90, 480, 440)
LONG = "An unreasonably long title about everything that people have ever thought or said or written. " * 4


def as_set(text: str, box: Box = BOX) -> SetTitle:
    return set_title(text, box, size_max=66, size_min=30)


def fits(title: SetTitle, box: Box) -> bool:
    wide = max(line_width(line, title.size) for line in title.lines)
    return wide <= box.width and len(title.lines) * title.size * LINE_HEIGHT <= box.height


def test_a_short_title_is_set_large_in_one_line() -> None:
    assert as_set("Tides") == SetTitle(("Tides",), 66)


def test_lines_are_balanced() -> None:
    assert as_set("The Portuguese language").lines == ("The Portuguese", "language")


def test_a_long_title_is_cut_with_an_ellipsis() -> None:
    title = as_set(LONG[:300])
    assert len(title.lines) == LINES_MAX
    assert title.lines[-1].endswith("…")
    assert fits(title, BOX)


def test_a_word_that_is_too_long_is_broken_and_nothing_is_lost() -> None:
    word = "Donaudampfschifffahrtsgesellschaft" * 2 + "kapitänsmütze"[:12]
    title = as_set(word)
    assert len(word) == 80
    assert "".join(title.lines) == word
    assert fits(title, BOX)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=400), st.floats(60, 900), st.floats(40, 700))
def test_any_text_fits_any_box(text: str, width: float, height: float) -> None:
    box = Box(0, 0, width, height)
    if kept := printable(text):
        title = set_title(kept, box, size_max=0.138 * width, size_min=0.06 * width)
        assert max(line_width(line, title.size) for line in title.lines) <= width
        assert len(title.lines) == 1 or fits(title, box)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tides", "Tides"),
        ("  two\nlines\tand\x00 more ", "two lines and more"),
        ("🌊 Why the “sea” is salty 🧂", "Why the “sea” is salty"),
        ("Ça & là <b>", "Ça & là <b>"),
        ("e\u0301te\u0301", "été"),
        ("Приливы и отливы", "Приливы и отливы"),
        ("???", "???"),
        ("Tokyo 東京", "Tokyo"),
        ("日本の歴史と文化 in short", ""),
        ("潮汐", ""),
        ("المد والجزر", ""),
        ("🌊", ""),
        ("a\ud800b", "ab"),
        ("", ""),
    ],
)
def test_what_inter_lacks_is_left_out_and_a_title_mostly_so_is_dropped(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize("title", ["How tides work", "The “sea” & salt, again", "MIT, Las Vegas and MS-DOS"])
def test_an_english_title_has_a_word_over_it(title: str) -> None:
    assert overline(title) == OVERLINE


@pytest.mark.parametrize(
    "title", ["Como funciona a maré", "Die Geschichte des Kaffees", "La storia del vino", "Прилив"]
)
def test_a_title_in_another_language_has_none(title: str) -> None:
    assert overline(title) == ""
