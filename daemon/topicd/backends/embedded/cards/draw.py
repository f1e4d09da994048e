"""One card: a picture request in, a PNG out.

Owns the order of the steps. Promises a pure function: the same request gives the same bytes, in any process, and any
text and any size from 256 to 2048 pixels a side gives a picture. Never touches the network or the disk, but for the
fonts and icons of its packages.
"""

import io
from dataclasses import replace
from random import Random
from typing import Any, Final

import resvg_py
from PIL import Image

from topicd.backends.base import PictureRequest
from topicd.backends.embedded.cards import light, svg
from topicd.backends.embedded.cards.icons import choose
from topicd.backends.embedded.cards.layout import Layout, lay_out
from topicd.backends.embedded.cards.palettes import palette_for
from topicd.backends.embedded.cards.title import FONT_FILE, SetTitle, overline, printable, set_title
from topicd.errors import Rejected

SIDE_PX_MIN: Final = 64
SIDE_PX_MAX: Final = 4096
TITLE_SHARE: Final = 0.82
SIZE_MIN_SHARE: Final = 0.45


class Drawer:
    """What a worker process calls."""

    def draw(self, **fields: Any) -> tuple[dict[str, object], bytes]:
        """Return an empty header and the PNG of the request whose fields are given."""
        return {}, draw_card(PictureRequest(**fields))


def draw_card(request: PictureRequest) -> bytes:
    """Return a card as PNG.

    Raises:
        Rejected: a side is under 64 or over 4096 pixels (`picture_size`).
    """
    if not all(SIDE_PX_MIN <= side <= SIDE_PX_MAX for side in (request.width_px, request.height_px)):
        size = f"{request.width_px} by {request.height_px}"
        hint = f"Ask for {SIDE_PX_MIN} to {SIDE_PX_MAX} pixels a side."
        raise Rejected("picture_size", f"A card of {size} pixels cannot be drawn.", hint=hint)
    random = Random(request.seed)  # noqa: S311 - repeatable, not secret
    text = printable(request.title or request.prompt) if request.is_title else ""
    count = random.choice((3, 4, 4, 4))
    layout = lay_out(request.width_px, request.height_px, has_text=bool(text), tiles=count, random=random)
    return _png(_render(request, layout, text, random))


def _render(request: PictureRequest, layout: Layout, text: str, random: Random) -> Image.Image:
    palette = palette_for(request.job_seed)
    texts = {"prompt": request.prompt, "narration": request.narration, "title": request.title}
    icons = choose(texts, is_title=request.is_title, count=len(layout.tiles), seed=request.seed)
    names = (icons.hero, *icons.companions)
    back = _raster(svg.background(layout, palette, random)).convert("RGB")
    masks = _raster(svg.silhouettes(layout, icons.hero)).convert("RGB")
    front = _raster(svg.foreground(layout, palette, names, _title(layout, text), overline(text)))
    return light.compose(back, masks, front, unit=layout.unit, glow=palette.tint, seed=request.seed)


def _title(layout: Layout, text: str) -> SetTitle | None:
    if not text or layout.text is None:
        return None
    box = replace(layout.text, height=layout.text.height * TITLE_SHARE)
    return set_title(text, box, size_max=layout.type_size, size_min=SIZE_MIN_SHARE * layout.type_size)


def _raster(document: str) -> Image.Image:
    fonts = [FONT_FILE] if "<text" in document else []
    png = resvg_py.svg_to_bytes(svg_string=document, skip_system_fonts=True, font_files=fonts)
    return Image.open(io.BytesIO(png))


def _png(card: Image.Image) -> bytes:
    out = io.BytesIO()
    card.save(out, "PNG", compress_level=6)
    return out.getvalue()
