from random import Random
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicd.backends.embedded.cards import svg
from topicd.backends.embedded.cards.layout import Layout, lay_out
from topicd.backends.embedded.cards.palettes import PALETTES
from topicd.backends.embedded.cards.title import SetTitle, printable

ICONS = ("waves", "moon", "fish", "anchor", "island")


def layout(*, has_text: bool) -> Layout:
    return lay_out(1280, 720, has_text=has_text, tiles=4, random=Random(1))


def texts(document: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(document).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - our own SVG


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_any_title_gives_well_formed_svg_that_says_it(text: str) -> None:
    kept = printable(text)
    document = svg.foreground(layout(has_text=True), PALETTES[0], ICONS, SetTitle((kept,), 40), "A & B")
    assert texts(document) == ["A & B", kept]


@pytest.mark.parametrize("has_text", [False, True])
def test_background_and_silhouettes_are_well_formed(has_text: bool) -> None:  # noqa: FBT001
    place = layout(has_text=has_text)
    for document in (svg.background(place, PALETTES[0], Random(1)), svg.silhouettes(place, "waves")):
        assert ET.fromstring(document).attrib["width"] == "1280"  # noqa: S314 - our own SVG


def test_a_scene_carries_no_text() -> None:
    assert texts(svg.foreground(layout(has_text=False), PALETTES[0], ICONS, None, "EXPLAINED")) == []
