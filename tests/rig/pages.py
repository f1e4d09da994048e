"""What the project's pages give people to type, so that a test runs what is written and not a copy of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).resolve().parents[2]
SETTING: Final = re.compile(r"[A-Z][A-Z0-9_]*=\S*(\s+#.*)?")
HEADING: Final = re.compile(r"(#+) (.*)")


@dataclass(frozen=True)
class Block:
    """Lines that a page sets apart, indented by four.

    Attributes:
        page: its path below the top.
        headings: those it is under, the outermost first.
        lines: without the indent.
    """

    page: str
    headings: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def has_settings(self) -> bool:
        """Whether it is lines for `.env`."""
        return all(SETTING.fullmatch(line) for line in self.lines)


def blocks(page: str) -> list[Block]:
    """Return what a page sets apart, in its order."""
    found = list[Block]()
    headings = list[str]()
    lines = list[str]()
    text = re.sub(r"^```$.*?^```$", "", (TOP / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in [*text.splitlines(), "end"]:
        if line.startswith("    ") or (lines and not line):
            lines.append(line[4:])
            continue
        if any(lines):
            found.append(Block(page, tuple(headings), tuple("\n".join(lines).strip("\n").split("\n"))))
        lines.clear()
        if heading := HEADING.fullmatch(line):
            headings[len(heading[1]) - 1 :] = [heading[2]]
    return found


def blocks_of(page: str, heading: str) -> list[Block]:
    """Return what a chapter, with what is below it, sets apart, but for settings."""
    found = [each for each in blocks(page) if heading in each.headings and not each.has_settings]
    assert found, f"{page} has nothing under {heading}"
    return found


def commands(page: str, heading: str) -> list[str]:
    """Return the lines that a chapter gives people to type, without the remarks on them."""
    return [re.sub(r"\s+# .*", "", line) for each in blocks_of(page, heading) for line in each.lines if line]


def settings(page: str, heading: str) -> dict[str, str]:
    """Return the lines for `.env` that a chapter gives."""
    asked = [each for each in blocks(page) if heading in each.headings and each.has_settings]
    assert asked, f"{page} has no settings under {heading}"
    lines = [re.sub(r"\s+# .*", "", line) for each in asked for line in each.lines]
    return dict(line.split("=", 1) for line in lines)
