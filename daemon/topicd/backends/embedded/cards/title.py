"""Setting a title: which characters, in which lines, how large.

Owns the measuring of text in Inter. Promises that any text fits its box: it is set smaller, broken inside words when
a word is too long, and at the least size ended with an ellipsis. Characters that Inter lacks (emoji, Chinese, Arabic)
are left out; when most letters would be, the title is not set at all and the card goes without. Never draws.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import fontpkg_inter
from PIL import ImageFont

from topicd.backends.embedded.cards.layout import Box

FONT_FILE: Final = str(fontpkg_inter.ROOT / "files" / "Inter[opsz,wght].ttf")
TITLE_CHARS_MAX: Final = 400
LINES_MAX: Final = 5
LINES_GOOD: Final = 3
MANY_LINES: Final = 0.8
LONELY_LINE: Final = 0.84
SIZE_STEPS: Final = 24
LINE_HEIGHT: Final = 1.14
TRACKING: Final = -0.022
WEIGHT: Final = 700
OVERLINE: Final = "EXPLAINED"

_OPTICAL_PX_MIN: Final = 14
_OPTICAL_PX_MAX: Final = 32
_SAFETY: Final = 1.02

# Words that show a title is not English, where an English overline would be out of place.
_FOREIGN_WORDS: Final = """
al aus ce che como cosa das de degli dei del della der des di du e een eine el en es est et il je la le les lo na
nas os para perche por porque pour pourquoi que sind sua uma un una und une vom von waarom warum wie zijn
"""
_FOREIGN: Final = frozenset(_FOREIGN_WORDS.split())


@dataclass(frozen=True, slots=True)
class SetTitle:
    """Lines of text, none wider than the box they were set for; size in pixels."""

    lines: tuple[str, ...]
    size: float


def printable(text: str) -> str:
    """Return the text in one line, without the characters that Inter lacks; empty when too little is left."""
    composed = " ".join(unicodedata.normalize("NFC", text[:TITLE_CHARS_MAX]).split())
    kept = " ".join("".join(c for c in composed if c == " " or _has_glyph(c)).split())
    letters, letters_kept = (sum(c.isalnum() for c in t) for t in (composed, kept))
    return kept if letters_kept >= letters / 2 else ""


def set_title(text: str, box: Box, *, size_max: float, size_min: float) -> SetTitle:
    """Return the title set as large as it fits: in three lines if it can, in five at most.

    Args:
        text: as `printable` returns it, not empty.
        box: the room there is.
        size_max: largest type size in pixels.
        size_min: least type size in pixels; text that does not fit even so is cut.
    """
    steps = [size_max - (size_max - size_min) * step / (SIZE_STEPS - 1) for step in range(SIZE_STEPS)]
    settings = [SetTitle(_balanced(text, size, box.width), size) for size in steps]
    fitting = [s for s in settings if s.lines and len(s.lines) <= min(LINES_MAX, _lines_of(s.size, box))]
    return max(fitting, key=_merit) if fitting else SetTitle(_cut(text, size_min, box), size_min)


def _lines_of(size: float, box: Box) -> int:
    return int(box.height / (size * LINE_HEIGHT))


def _merit(title: SetTitle) -> float:
    """Return the type size, less where one line is much shorter than the longest or the lines are many."""
    widths = [line_width(line, title.size) for line in title.lines]
    even = 1.0 if min(widths) > max(widths) / 2 else LONELY_LINE
    return title.size * even * (MANY_LINES if len(title.lines) > LINES_GOOD else 1.0)


def overline(title: str) -> str:
    """Return the word over a title; empty over one that is not in English."""
    words = re.findall(r"\w+", title.lower())
    return OVERLINE if all(word.isascii() for word in words) and not _FOREIGN & set(words) else ""


@lru_cache(maxsize=8192)
def line_width(text: str, size: float) -> float:
    """Return the width of a line in pixels, a little generously."""
    font = _font(min(max(round(size), _OPTICAL_PX_MIN), _OPTICAL_PX_MAX))
    return (font.getlength(text) / font.size + TRACKING * len(text)) * size * _SAFETY


def _wrap(text: str, size: float, width: float) -> list[str]:
    """Return the lines, greedily filled; none when a word is wider than the line."""
    lines: list[list[str]] = []
    room, space = 0.0, line_width(" ", size)
    for word in text.split():
        needed = line_width(word, size)
        if needed > width:
            return []
        if lines and space + needed <= room:
            lines[-1].append(word)
            room -= space + needed
        else:
            lines.append([word])
            room = width - needed
    return [" ".join(words) for words in lines]


def _balanced(text: str, size: float, width: float) -> tuple[str, ...]:
    """Return the fewest lines, set as narrow as they go, so that none is a lonely word."""
    lines = best = _wrap(text, size, width)
    while lines and len(lines) == len(best):
        best = lines
        width *= 0.97
        lines = _wrap(text, size, width)
    return tuple(best)


def _cut(text: str, size: float, box: Box) -> tuple[str, ...]:
    count = max(1, min(LINES_MAX, _lines_of(size, box)))
    lines = _wrap(_with_broken_words(text, size, box.width), size, box.width)
    if len(lines) <= count:
        return tuple(lines)
    last = lines[count - 1]
    while last and line_width(last + "…", size) > box.width:
        last = last[:-1]
    return (*lines[: count - 1], last.rstrip(" ,;:.") + "…")


def _with_broken_words(text: str, size: float, width: float) -> str:
    parts: list[str] = []
    for word in text.split():
        rest = word
        while line_width(rest, size) > width and len(rest) > 1:
            fits = max(i for i in range(1, len(rest)) if i == 1 or line_width(rest[:i], size) <= width)
            parts.append(rest[:fits])
            rest = rest[fits:]
        parts.append(rest)
    return " ".join(parts)


@cache
def _font(optical_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(FONT_FILE, 100, layout_engine=ImageFont.Layout.BASIC)
    font.set_variation_by_axes([optical_px, WEIGHT])
    return font


@cache
def _notdef() -> bytes:
    return bytes(_font(_OPTICAL_PX_MAX).getmask("\U0010fffe"))


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    if unicodedata.category(character).startswith("C"):
        return False
    return bytes(_font(_OPTICAL_PX_MAX).getmask(character)) != _notdef()
