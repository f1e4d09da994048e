"""The colours of a card.

Owns the palettes. Promises that all pictures of a job share one, and that white text, accents and icons stand out
from each (`contrast`, as WCAG 2 defines it). Never draws.
"""

from dataclasses import dataclass
from typing import Final

# Below it sRGB is linear.
_LINEAR_MAX: Final = 0.03928


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours as `#rrggbb`.

    Attributes:
        night: the darkest corner.
        base: the other end of the background's gradient.
        glows: three soft lights, the first the largest.
        accent: bar, dots and dotted lines.
        tint: the lower end of an icon's gradient, which begins white.
    """

    name: str
    night: str
    base: str
    glows: tuple[str, str, str]
    accent: str
    tint: str


PALETTES: Final = (
    Palette("emerald", "#03120e", "#0a4a38", ("#0d7a54", "#0b6a8a", "#3f6f1e"), "#ffe08a", "#c9f7e2"),
    Palette("indigo", "#060818", "#1a2166", ("#2547b8", "#6a35b5", "#0e5f80"), "#ffcf6b", "#cdd6ff"),
    Palette("lagoon", "#03131c", "#0a4560", ("#0a7192", "#0d7a74", "#1f4fa8"), "#ffd68a", "#c8f2ff"),
    Palette("plum", "#12061a", "#43155c", ("#8a2d9c", "#4030a8", "#a82d68"), "#ffd28f", "#f3d4ff"),
    Palette("ember", "#160705", "#571c12", ("#a83d1c", "#8a2340", "#8a5a12"), "#ffd97a", "#ffe2cf"),
    Palette("rosewood", "#16060d", "#541733", ("#a82b57", "#6a2c8f", "#9c4524"), "#ffcf9e", "#ffd6e2"),
    Palette("aurora", "#040d1a", "#123a56", ("#0e8a70", "#4b3cb5", "#0f6f9c"), "#c8ff9e", "#d0fff0"),
    Palette("copper", "#120b06", "#4a2c17", ("#96581f", "#7a3523", "#5f6a24"), "#ffdf9a", "#ffe9cc"),
    Palette("steel", "#080c13", "#22344f", ("#385d90", "#2e6b7c", "#5a4f9c"), "#ffd37f", "#dbe8ff"),
    Palette("moss", "#080f05", "#2b4316", ("#557f1e", "#1f7a52", "#857020"), "#fff09a", "#e6f7c4"),
)


def palette_for(job_seed: int) -> Palette:
    """Return the palette of a job."""
    return PALETTES[job_seed % len(PALETTES)]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours, 1 … 21; 4.5 is readable text, 3 a readable sign."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def mix(one: str, other: str, share: float) -> str:
    """Return `one` with a share (0 … 1) of `other` laid over it."""
    channels = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in channels)


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    parts = [c / 255 for c in _channels(colour)]
    red, green, blue = (p / 12.92 if p <= _LINEAR_MAX else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
