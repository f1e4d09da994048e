"""How far downloads are, shown to a person.

Owns what is shown: on a terminal one line a file, with bar, rate and time left, elsewhere a line now and then. Promises
that nothing a file's name holds reaches the terminal as it is. Never touches a file.
"""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TextIO

from topicd.progress import fitted, visible

if TYPE_CHECKING:
    from topicd.backends.files import Progress

LOOK_S: Final = 0.2
LINE_S: Final = 10.0
BAR_CHARS: Final = 20
NAME_CHARS_MAX: Final = 60
_MB: Final = 1e6
_DAYS_S_MAX: Final = 359_999


class Meter:
    """Shows how far downloads are, on a stream.

    Args:
        out: the stream.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._begun_s = self._line_at_s = time.monotonic()
        self._notes = dict[str, str]()
        self._lines = 0

    def show(self, downloads: "Mapping[str, Progress]") -> None:
        """Show them, by name, if it is time to."""
        now_s = time.monotonic()
        texts = {name: self._text(name, told, now_s) for name, told in downloads.items()}
        if self._out.isatty():
            self._draw([*texts.values()])
        else:
            self._tell(texts, {name: told.note for name, told in downloads.items()}, now_s)
        self._out.flush()

    def end(self) -> None:
        """Leave the lines."""
        if self._lines:
            self._out.write("\n")
            self._lines = 0

    def _draw(self, texts: list[str]) -> None:
        up = f"\x1b[{self._lines - 1}A" if self._lines > 1 else ""
        self._out.write(f"{up}\r" + "\n".join(f"\x1b[K{fitted(text)}" for text in texts))
        self._lines = len(texts)

    def _tell(self, texts: Mapping[str, str], notes: dict[str, str], now_s: float) -> None:
        is_due = now_s - self._line_at_s >= LINE_S
        for name, text in texts.items():
            if is_due or (notes[name] and notes[name] != self._notes.get(name)):
                self._out.write(f"{text}\n")
        self._notes = notes
        if is_due:
            self._line_at_s = now_s

    def _text(self, name: str, told: "Progress", now_s: float) -> str:
        rate = told.received / max(now_s - self._begun_s, LOOK_S)
        parts = [visible(name)[:NAME_CHARS_MAX], *_share(told), f"{rate / _MB:.1f} MB/s"]
        if told.total is not None and rate > 0:
            parts.append(f"{_clock((told.total - told.have) / rate)} left")
        return "  ".join([*parts, *([visible(told.note)] if told.note else [])])


def _share(told: "Progress") -> list[str]:
    if not told.total:
        return [f"{told.have / _MB:.1f} MB"]
    done = told.have / told.total
    bar = "█" * round(BAR_CHARS * done)
    return [f"{bar:░<{BAR_CHARS}}", f"{100 * done:3.0f} %", f"{told.have / _MB:.1f} of {told.total / _MB:.1f} MB"]


def _clock(seconds: float) -> str:
    whole = round(min(seconds, _DAYS_S_MAX))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
