"""Where things stand on a card.

Owns the geometry: the text's box, the large tile, the small tiles around it. Promises that no tile touches another,
the edge or the text's box, at any size and shape of card. Never knows colours or icons.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Final

HERO_SHARE: Final = 0.378
TILE_SHARE: Final = 0.174
GAP_SHARE: Final = 0.18
EDGE_SHARE: Final = 0.28
STRAY_MAX: Final = 1.9
LEAN_DEG_MAX: Final = 7.5
TRIES_MAX: Final = 200

# A square that leans by 7.5 degrees fills this much more of a side.
_LEAN_ROOM: Final = 1.13


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle point."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Tile:
    """A square with round corners: centre, side in pixels, lean in degrees."""

    x: float
    y: float
    side: float
    lean: float


@dataclass(frozen=True, slots=True)
class Layout:
    """One card's geometry.

    Attributes:
        unit: the length all strokes and radii are made from, 1/720 of the cluster's natural height.
        text: where the title goes; None on a card without one.
        type_size: the largest type in pixels.
        hero: the large tile.
        tiles: the small ones, anticlockwise or clockwise as it came.
    """

    width: int
    height: int
    unit: float
    text: Box | None
    type_size: float
    hero: Tile
    tiles: tuple[Tile, ...]


def lay_out(width: int, height: int, *, has_text: bool, tiles: int, random: Random) -> Layout:
    """Return a card's geometry.

    Args:
        width: pixels.
        height: pixels.
        has_text: whether a title needs room.
        tiles: how many small tiles; four always find room, more may not and are left out.
        random: decides angles, distances and leans.
    """
    text, field = _boxes(width, height) if has_text else (None, Box(0, 0, width, height))
    natural = min(field.height, field.width * (1.07 if has_text else 0.95))
    centre_x, centre_y = field.centre
    hero = Tile(centre_x, centre_y - 0.012 * natural, HERO_SHARE * natural, 0.0)
    placed = _around(hero, field, side=TILE_SHARE * natural, count=tiles, random=random)
    return Layout(width, height, natural / 720, text, _type_size(text), hero, placed)


def _type_size(text: Box | None) -> float:
    """Return a size that sets a few words a line, and three lines of them well within the box."""
    return min(0.138 * text.width, 0.24 * text.height) if text else 0.0


def _boxes(width: int, height: int) -> tuple[Box, Box]:
    """Return the boxes of text and tiles: side by side on a wide card, one above the other on a tall one."""
    if width >= 1.25 * height:
        margin = 0.065 * width
        text = Box(margin, 0.12 * height, 0.375 * width, 0.76 * height)
        return text, Box(0.45 * width, 0, 0.535 * width, height)
    margin = 0.075 * width
    top = 0.07 * height
    return Box(margin, top, width - 2 * margin, 0.3 * height), Box(0, 0.38 * height, width, 0.6 * height)


def _around(hero: Tile, field: Box, *, side: float, count: int, random: Random) -> tuple[Tile, ...]:
    start = random.uniform(0, math.tau)
    placed: list[Tile] = []
    for slot in range(count):
        for tries in range(TRIES_MAX):
            angle = start + math.tau * slot / count + random.uniform(-1, 1) * (0.2 + tries * 0.02)
            tile = _outward(hero, field, side, angle, random)
            if tile and all(_apart(tile, other) for other in placed):
                placed.append(tile)
                break
    return tuple(placed)


def _outward(hero: Tile, field: Box, side: float, angle: float, random: Random) -> Tile | None:
    """Return a tile in the direction given, between the hero and the field's edge; None when there is no room."""
    across, down = math.cos(angle), math.sin(angle)
    half = side / 2 * _LEAN_ROOM
    margin = half + side * EDGE_SHARE
    nearest = (hero.side / 2 + half + side * GAP_SHARE) / max(abs(across), abs(down))
    room_x = hero.x - field.x if across < 0 else field.x + field.width - hero.x
    room_y = hero.y - field.y if down < 0 else field.y + field.height - hero.y
    farthest = min((room_x - margin) / max(abs(across), 1e-9), (room_y - margin) / max(abs(down), 1e-9))
    if nearest > farthest:
        return None
    distance = nearest + (min(farthest, nearest * STRAY_MAX) - nearest) * random.uniform(0.1, 1.0)
    lean = random.choice((-1, 1)) * random.uniform(2.0, LEAN_DEG_MAX)
    return Tile(hero.x + across * distance, hero.y + down * distance, side, lean)


def _apart(one: Tile, other: Tile) -> bool:
    room = (one.side + other.side) / 2 * _LEAN_ROOM + GAP_SHARE * other.side
    return max(abs(one.x - other.x), abs(one.y - other.y)) >= room
