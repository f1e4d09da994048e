"""Light and grain: what vector layers alone do not give.

Owns the frosting of glass, shadows, the glow of the icon and the film grain. Promises the same pixels for the same
layers and seed. Never draws shapes.
"""

from random import Random
from typing import Final

from PIL import Image, ImageChops, ImageEnhance, ImageFilter

GRAIN_PX: Final = 240
GRAIN_ROWS_PX: Final = 8
SHADOW_OPACITY: Final = 0.55
GLOW_OPACITY: Final = 0.5

_FROST_REDUCTION: Final = 4


def compose(
    back: Image.Image, masks: Image.Image, front: Image.Image, *, unit: float, glow: str, seed: int
) -> Image.Image:
    """Return the finished card.

    Args:
        back: RGB, the background.
        masks: RGB, tiles in the red channel, the hero's icon in the green one.
        front: RGBA, glass, icons and words.
        unit: pixels of one layout unit.
        glow: colour of the icon's glow, `#rrggbb`.
        seed: decides the grain.
    """
    tiles, icon, _ = masks.split()
    card = _with_shadow(back, tiles, unit)
    card.paste(_frosted(back, unit), mask=tiles)
    card.paste(glow, mask=_blurred(icon, 13 * unit).point(lambda value: round(value * GLOW_OPACITY)))
    card.paste(front, mask=front)
    return _with_grain(card, Random(seed))  # noqa: S311 - repeatable, not secret


def _with_shadow(back: Image.Image, tiles: Image.Image, unit: float) -> Image.Image:
    fallen = ImageChops.offset(_blurred(tiles, 15 * unit), 0, round(11 * unit))
    card = back.copy()
    card.paste("#000", mask=fallen.point(lambda value: round(value * SHADOW_OPACITY)))
    return card


def _frosted(back: Image.Image, unit: float) -> Image.Image:
    """Return the background as seen through frosted glass; blurred small, which no eye can tell."""
    small = back.reduce(_FROST_REDUCTION).filter(ImageFilter.GaussianBlur(16 * unit / _FROST_REDUCTION))
    return ImageEnhance.Color(small).enhance(1.12).resize(back.size, Image.Resampling.BICUBIC)


def _blurred(mask: Image.Image, radius: float) -> Image.Image:
    small = mask.reduce(_FROST_REDUCTION).filter(ImageFilter.GaussianBlur(radius / _FROST_REDUCTION))
    return small.resize(mask.size, Image.Resampling.BICUBIC)


def _with_grain(card: Image.Image, random: Random) -> Image.Image:
    """Add a grain that repeats along a row, which a PNG stores well, and not down the card, where the eye would see."""
    grain = Image.new("L", card.size)
    for y in range(0, card.height, GRAIN_ROWS_PX):
        strip = Image.frombytes("L", (GRAIN_PX, GRAIN_ROWS_PX), random.randbytes(GRAIN_PX * GRAIN_ROWS_PX))
        strip = strip.point(_GRAIN)
        for x in range(-random.randrange(GRAIN_PX), card.width, GRAIN_PX):
            grain.paste(strip, (x, y))
    return ImageChops.add(card, Image.merge("RGB", (grain, grain, grain)), offset=-128)


_GRAIN: Final = [126] * 20 + [127] * 66 + [128] * 84 + [129] * 66 + [130] * 20
