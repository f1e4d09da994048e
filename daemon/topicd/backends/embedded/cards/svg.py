"""The vector layers of a card, as SVG text.

Owns how a card looks before light is added: background, rings, lines, tiles, icons, words. Promises well-formed SVG
whatever the title holds. Never renders.
"""

import math
from collections.abc import Iterable
from html import escape
from random import Random
from typing import Final

from topicd.backends.embedded.cards.icons import icon_paths
from topicd.backends.embedded.cards.layout import Layout, Tile
from topicd.backends.embedded.cards.palettes import Palette
from topicd.backends.embedded.cards.title import LINE_HEIGHT, TRACKING, WEIGHT, SetTitle

RINGS: Final = ((252, ""), (318, "0 9"), (180, "0 7"))
CORNER_SHARE: Final = 0.235
HERO_ICON_SHARE: Final = 0.66
ICON_SHARE: Final = 0.56

_WAVES: Final = 13
_STARS: Final = 18
_FALLOFF: Final = ((0, 1.0), (0.18, 0.88), (0.38, 0.56), (0.58, 0.25), (0.78, 0.07), (1, 0.0))


def background(layout: Layout, palette: Palette, random: Random) -> str:
    """Return the lowest layer: gradient, glows, waves, stars, rings and the dotted lines to the tiles."""
    body = "".join(
        (
            _gradient_field(layout, palette, random),
            _glows(layout, palette, random),
            _waves(layout, random),
            _shade_for_text(layout, palette),
            _rings(layout, palette, random),
            _stars(layout, palette, random),
            *(_link(layout, tile, palette, random) for tile in layout.tiles),
        )
    )
    return _document(layout, body)


def silhouettes(layout: Layout, hero_icon: str) -> str:
    """Return the tiles in red and the hero's icon in yellow on black: two masks in one picture."""
    body = f'<rect width="{layout.width}" height="{layout.height}"/>'
    body += "".join(_square(tile, 'fill="#f00"') for tile in (layout.hero, *layout.tiles))
    body += _placed(icon_paths(hero_icon)[0], layout.hero, HERO_ICON_SHARE, 'fill="#ff0"')
    return _document(layout, body)


def foreground(layout: Layout, palette: Palette, names: Iterable[str], title: SetTitle | None, overline: str) -> str:
    """Return the top layer: glass, icons (the hero's first) and, on a title card, the words."""
    tiles = zip((layout.hero, *layout.tiles), names, strict=False)
    body = _definitions(palette) + "".join(_glass_with_icon(layout, tile, name) for tile, name in tiles)
    return _document(layout, body + (_words(layout, palette, title, overline) if title else ""))


def _document(layout: Layout, body: str) -> str:
    size = f'width="{layout.width}" height="{layout.height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{body}</svg>'


def _gradient_field(layout: Layout, palette: Palette, random: Random) -> str:
    turn = random.uniform(-12, 12)
    return (
        f'<linearGradient id="field" x1="0" y1="0" x2="1" y2="1" gradientTransform="rotate({turn:.1f} .5 .5)">'
        f'<stop offset=".05" stop-color="{palette.night}"/><stop offset="1" stop-color="{palette.base}"/>'
        f'</linearGradient><rect width="{layout.width}" height="{layout.height}" fill="url(#field)"/>'
    )


def _glows(layout: Layout, palette: Palette, random: Random) -> str:
    """Light three regions: beside the hero, and two opposite sides of the card."""
    w, h = layout.width, layout.height
    side = random.choice((-1, 1))
    reach = math.hypot(w, h) * 0.5
    near = (layout.hero.x + side * 0.2 * w, layout.hero.y + random.uniform(-0.1, 0.25) * h, reach * 0.72)
    far = (w * (0.5 - side * random.uniform(0.36, 0.5)), h * random.uniform(0.55, 1.0), reach * 0.66)
    edge = (w * (0.5 + side * random.uniform(0.15, 0.5)), h * random.choice((-0.02, 1.02)), reach * 0.6)
    spots = zip((near, far, edge), palette.glows, (0.86, 0.82, 0.74), strict=True)
    glows = "".join(_glow(x, y, r, colour, share) for (x, y, r), colour, share in spots)
    halo = _glow(layout.hero.x, layout.hero.y, 330 * layout.unit, palette.accent, 0.13)
    return glows + halo


def _glow(x: float, y: float, radius: float, colour: str, opacity: float) -> str:
    name = f"g{x:.0f}_{y:.0f}_{radius:.0f}"
    stops = "".join(
        f'<stop offset="{at}" stop-color="{colour}" stop-opacity="{opacity * share:.3f}"/>' for at, share in _FALLOFF
    )
    circle = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    return (
        f'<radialGradient id="{name}" gradientUnits="userSpaceOnUse" {circle}>{stops}</radialGradient>'
        f'<circle {circle} fill="url(#{name})"/>'
    )


def _waves(layout: Layout, random: Random) -> str:
    w, h = layout.width, layout.height
    phase, swing, tilt = random.uniform(0, math.tau), random.uniform(0.025, 0.05) * h, random.uniform(-0.05, 0.05) * h
    lines = []
    for i in range(_WAVES):
        rise = h * (0.26 + 0.066 * i)
        points = " ".join(
            f"{w * s / 48:.1f},"
            f"{rise + tilt * s / 48 + swing * (0.5 + i / _WAVES) * math.sin(phase + s / 48 * 5.2 + i * 0.16):.1f}"
            for s in range(49)
        )
        lines.append(f'<polyline points="{points}" stroke-opacity="{0.035 + 0.006 * i:.3f}"/>')
    return f'<g fill="none" stroke="#fff" stroke-width="{_px(1.2, layout)}">{"".join(lines)}</g>'


def _shade_for_text(layout: Layout, palette: Palette) -> str:
    """Darken the side where a title stands."""
    if layout.text is None:
        return ""
    beside = layout.text.height > 0.5 * layout.height
    end = 'x2="1" y2="0"' if beside else 'x2="0" y2="1"'
    return (
        f'<linearGradient id="shade" x1="0" y1="0" {end}><stop stop-color="{palette.night}" stop-opacity=".46"/>'
        f'<stop offset=".34" stop-color="{palette.night}" stop-opacity=".34"/>'
        f'<stop offset=".62" stop-color="{palette.night}" stop-opacity="0"/></linearGradient>'
        f'<rect width="{layout.width}" height="{layout.height}" fill="url(#shade)"/>'
    )


def _rings(layout: Layout, palette: Palette, random: Random) -> str:
    hero, rings = layout.hero, []
    for radius, dashes in RINGS:
        width = 2.0 if dashes else 1.3
        dash = " ".join(_px(float(d), layout) for d in dashes.split())
        style = f'stroke-dasharray="{dash}" stroke-linecap="round"' if dash else ""
        rings.append(
            f'<circle cx="{hero.x:.1f}" cy="{hero.y:.1f}" r="{_px(radius, layout)}" fill="none" stroke="#fff" '
            f'stroke-opacity="{0.2 if dash else 0.26}" stroke-width="{_px(width, layout)}" {style}/>'
        )
    beads = [_bead(layout, RINGS[random.randrange(2)][0], palette, random) for _ in range(3)]
    return "".join(rings + beads)


def _bead(layout: Layout, radius: float, palette: Palette, random: Random) -> str:
    angle = random.uniform(0, math.tau)
    x = layout.hero.x + radius * layout.unit * math.cos(angle)
    y = layout.hero.y + radius * layout.unit * math.sin(angle)
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_px(3.2, layout)}" fill="{palette.tint}" fill-opacity=".75"/>'


def _stars(layout: Layout, palette: Palette, random: Random) -> str:
    stars = []
    for _ in range(_STARS):
        x, y = random.uniform(0.03, 0.97) * layout.width, random.uniform(0.03, 0.97) * layout.height
        size, opacity = random.choice((1.1, 1.5, 2.1, 2.8, 3.3)), random.uniform(0.3, 0.8)
        colour = palette.accent if random.random() < 0.35 else "#fff"  # noqa: PLR2004 - a third of them
        if not _over_text(layout, x, y):
            stars.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_px(size, layout)}" fill="{colour}" '
                f'fill-opacity="{opacity:.2f}"/>'
            )
    return "".join(stars)


def _over_text(layout: Layout, x: float, y: float) -> bool:
    box = layout.text
    return box is not None and box.x <= x <= box.x + box.width and box.y <= y <= box.y + box.height


def _link(layout: Layout, tile: Tile, palette: Palette, random: Random) -> str:
    """Return a dotted curve from the hero to a tile with a bright dot where it is in the open."""
    hero = layout.hero
    bend = random.choice((-1, 1)) * random.uniform(0.08, 0.2)
    control_x = (hero.x + tile.x) / 2 - (tile.y - hero.y) * bend
    control_y = (hero.y + tile.y) / 2 + (tile.x - hero.x) * bend
    dots = f'stroke-dasharray="0 {_px(7.4, layout)}" stroke-linecap="round" stroke-width="{_px(3.2, layout)}"'
    curve = f"M{hero.x:.1f} {hero.y:.1f}Q{control_x:.1f} {control_y:.1f} {tile.x:.1f} {tile.y:.1f}"
    points = [_on_curve(hero, (control_x, control_y), tile, step / 60) for step in range(61)]
    open_air = [p for p in points if not _within(hero, p) and not _within(tile, p)] or points
    x, y = open_air[len(open_air) // 2]
    return (
        f'<path d="{curve}" fill="none" stroke="{palette.accent}" stroke-opacity=".85" {dots}/>'
        + _glow(x, y, 20 * layout.unit, palette.accent, 0.5)
        + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_px(5.4, layout)}" fill="{palette.accent}"/>'
    )


def _on_curve(start: Tile, control: tuple[float, float], end: Tile, t: float) -> tuple[float, float]:
    a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t**2
    return a * start.x + b * control[0] + c * end.x, a * start.y + b * control[1] + c * end.y


def _within(tile: Tile, point: tuple[float, float]) -> bool:
    return max(abs(point[0] - tile.x), abs(point[1] - tile.y)) < tile.side * 0.55


def _definitions(palette: Palette) -> str:
    """Return the gradients of glass, its rim and the icons."""
    return (
        '<linearGradient id="glass" x1="0" y1="0" x2="1" y2="1"><stop stop-color="#fff" stop-opacity=".21"/>'
        '<stop offset=".55" stop-color="#fff" stop-opacity=".1"/><stop offset="1" stop-color="#fff" '
        'stop-opacity=".06"/></linearGradient>'
        '<linearGradient id="rim" x1="0" y1="0" x2="1" y2="1"><stop stop-color="#fff" stop-opacity=".7"/>'
        '<stop offset=".45" stop-color="#fff" stop-opacity=".16"/><stop offset="1" stop-color="#fff" '
        'stop-opacity=".34"/></linearGradient>'
        f'<linearGradient id="ink" x1="0" y1="0" x2="0" y2="1"><stop offset=".2" stop-color="#fff"/>'
        f'<stop offset="1" stop-color="{palette.tint}"/></linearGradient>'
        f'<radialGradient id="heart"><stop stop-color="{palette.accent}" stop-opacity=".36"/><stop offset=".55" '
        f'stop-color="{palette.accent}" stop-opacity=".12"/><stop offset="1" stop-color="{palette.accent}" '
        'stop-opacity="0"/></radialGradient>'
    )


def _glass_with_icon(layout: Layout, tile: Tile, icon: str) -> str:
    outline, soft = icon_paths(icon)
    is_hero = tile is layout.hero
    share = HERO_ICON_SHARE if is_hero else ICON_SHARE
    rim = f'fill="url(#glass)" stroke="url(#rim)" stroke-width="{_px(1.6, layout)}"'
    heart = f'<circle cx="{tile.x:.1f}" cy="{tile.y:.1f}" r="{tile.side * 0.44:.1f}" fill="url(#heart)"/>'
    return (
        _square(tile, rim)
        + (heart if is_hero else "")
        + _placed(soft, tile, share, 'fill="#fff" fill-opacity=".12"')
        + _placed(outline, tile, share, 'fill="url(#ink)"')
    )


def _square(tile: Tile, style: str) -> str:
    half, corner = tile.side / 2, tile.side * CORNER_SHARE
    return (
        f'<rect x="{tile.x - half:.2f}" y="{tile.y - half:.2f}" width="{tile.side:.2f}" height="{tile.side:.2f}" '
        f'rx="{corner:.2f}" transform="rotate({tile.lean:.2f} {tile.x:.2f} {tile.y:.2f})" {style}/>'
    )


def _placed(paths: str, tile: Tile, share: float, style: str) -> str:
    """Return an icon's paths, drawn in a box of 256, in the middle of a tile and leaning with it."""
    scale = tile.side * share / 256
    place = f"translate({tile.x:.2f} {tile.y:.2f}) rotate({tile.lean:.2f}) scale({scale:.4f}) translate(-128 -128)"
    return f'<g transform="{place}" {style}>{paths}</g>'


def _words(layout: Layout, palette: Palette, title: SetTitle, overline: str) -> str:
    box = layout.text
    if box is None:
        return ""
    small, step = 0.16 * (title.size + layout.type_size), title.size * LINE_HEIGHT
    head = small * (2.8 if overline else 1.7)
    top = box.y + (box.height - head - step * len(title.lines)) / 2
    lines = "".join(
        f'<text x="{box.x:.1f}" y="{top + head + step * (i + 0.82):.1f}">{escape(line)}</text>'
        for i, line in enumerate(title.lines)
    )
    style = f'font-size="{title.size:.2f}" letter-spacing="{title.size * TRACKING:.3f}" font-weight="{WEIGHT}"'
    return _overline(box.x, top, small, palette, overline) + f'<g font-family="Inter" fill="#fff" {style}>{lines}</g>'


def _overline(x: float, top: float, size: float, palette: Palette, word: str) -> str:
    bar = size * 2.1
    return (
        f'<rect x="{x:.1f}" y="{top + 0.5 * size:.1f}" width="{bar:.1f}" height="{size * 0.22:.1f}" '
        f'rx="{size * 0.11:.1f}" fill="{palette.accent}"/>'
        f'<text x="{x + bar + size * 0.8:.1f}" y="{top + size:.1f}" font-family="Inter" font-size="{size:.2f}" '
        f'font-weight="600" letter-spacing="{size * 0.13:.2f}" fill="{palette.accent}">{escape(word)}</text>'
    )


def _px(length: float, layout: Layout) -> str:
    return f"{length * layout.unit:.2f}"
