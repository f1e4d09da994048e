import math
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicd.backends.embedded.cards.layout import LEAN_DEG_MAX, Layout, Tile, lay_out

SIDES = st.integers(256, 2048)
SHAPES = [(1280, 720), (720, 1280), (1024, 1024), (256, 256), (2048, 2048), (2048, 256), (256, 2048), (640, 512)]


def laid_out(width: int, height: int, *, has_text: bool, seed: int, tiles: int = 4) -> Layout:
    return lay_out(width, height, has_text=has_text, tiles=tiles, random=Random(seed))


def reach(tile: Tile) -> float:
    """Half the side of the upright square that a leaning tile fills."""
    lean = math.radians(abs(tile.lean))
    return tile.side / 2 * (math.cos(lean) + math.sin(lean))


def assert_apart(tiles: tuple[Tile, ...]) -> None:
    for one, other in combinations(tiles, 2):
        assert max(abs(one.x - other.x), abs(one.y - other.y)) > reach(one) + reach(other)


@settings(max_examples=300)
@given(SIDES, SIDES, st.booleans(), st.integers(0, 2**31 - 1))
def test_no_tile_touches_another_or_the_edge_or_the_text(width: int, height: int, has_text: bool, seed: int) -> None:  # noqa: FBT001
    layout = laid_out(width, height, has_text=has_text, seed=seed)
    tiles = (layout.hero, *layout.tiles)
    assert_apart(tiles)
    for tile in tiles:
        assert reach(tile) < tile.x < width - reach(tile)
        assert reach(tile) < tile.y < height - reach(tile)
        if layout.text:
            beside = tile.x - reach(tile) > layout.text.x + layout.text.width
            assert beside or tile.y - reach(tile) > layout.text.y + layout.text.height


@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("has_text", [False, True])
@pytest.mark.parametrize("tiles", [3, 4])
def test_all_tiles_find_a_place_of_their_own(width: int, height: int, has_text: bool, tiles: int) -> None:  # noqa: FBT001
    for seed in range(200):
        layout = laid_out(width, height, has_text=has_text, seed=seed, tiles=tiles)
        assert len(layout.tiles) == tiles
        assert_apart((layout.hero, *layout.tiles))


def test_tiles_that_find_no_room_are_left_out() -> None:
    for seed in range(20):
        layout = laid_out(1280, 720, has_text=True, seed=seed, tiles=12)
        assert 4 <= len(layout.tiles) < 12
        assert_apart((layout.hero, *layout.tiles))


def test_the_layout_scales_with_the_card() -> None:
    small, large = (laid_out(640 * k, 360 * k, has_text=True, seed=7) for k in (1, 2))
    assert large.unit == pytest.approx(2 * small.unit)
    assert large.type_size == pytest.approx(2 * small.type_size)
    assert [(t.x, t.y) for t in large.tiles] == [pytest.approx((2 * t.x, 2 * t.y)) for t in small.tiles]


def test_the_seed_decides_the_layout() -> None:
    assert laid_out(1280, 720, has_text=False, seed=1) == laid_out(1280, 720, has_text=False, seed=1)
    assert laid_out(1280, 720, has_text=False, seed=1) != laid_out(1280, 720, has_text=False, seed=2)


def test_tiles_lean_a_little_and_the_hero_stands() -> None:
    layout = laid_out(1280, 720, has_text=False, seed=3)
    assert layout.hero.lean == 0
    assert all(2 <= abs(tile.lean) <= LEAN_DEG_MAX for tile in layout.tiles)
