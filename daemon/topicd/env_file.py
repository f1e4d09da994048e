"""The file `.env`: its values, and what in it is none.

Owns how it is read beside pydantic-settings, which passes over a line that it cannot read. Promises that such a line is
told by its number and never by what is in it. Never decides what a name means.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream


def faults(path: Path) -> Iterator[str]:
    """Yield what keeps the file from being read, one line each; nothing where there is none."""
    if path.is_dir():
        yield f"{path} is a directory: move it away, or make it a file"
        return
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            for each in parse_stream(file):
                if each.error or (each.key is not None and each.value is None):
                    text = each.original.string  # with the empty lines before it
                    line = each.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                    yield f"{path}, line {line}, is no NAME=value"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path}: {error}"


def values(path: Path) -> Mapping[str, str]:
    """Return the values of a file in which there are no faults; none where there is no file."""
    return {name: value for name, value in dotenv_values(path).items() if value is not None} if path.is_file() else {}
