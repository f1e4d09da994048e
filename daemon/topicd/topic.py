"""A topic file's bytes → its title, text and options, or the reason why not, in words for a person.

Owns the format of a topic: text in UTF-8, or UTF-16 with a byte order mark; optional YAML front matter from a
first line `---` to a line `---` or `...`; a title, then guidance. The title is the front matter's, else the
first top heading, else the first line with a word. Promises that any bytes give a `Topic` or `Rejected`
in a time bounded by their number, that a fault is told with its place in the file, and that the text lacks
nothing but the title's own line, its underline and a rule on top. Never reads a file, never builds an object
or follows an alias that YAML asks for, never guesses an encoding except in a hint.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final
from unicodedata import category, normalize

from topicd.errors import Rejected
from topicd.front_matter import TITLE_CHARS_MAX, UNSEEN, Options, read, split

DATA_BYTES_MAX: Final = 1_048_576
SLUG_CHARS_MAX: Final = 40

_TITLE_TRIES_MAX: Final = 1_000
_LINE_CHARS_MAX: Final = 2_000
_NAME_CHARS_MAX: Final = 255

_LINE_END: Final = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_NOT_TEXT: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_UTF8_PAIR: Final = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")


_FENCE: Final = re.compile(r" {0,3}(?:```|~~~)")
_MAYBE_WORD: Final = re.compile(r"[A-Za-z0-9\x80-\U0010ffff]")
_HEADING: Final = re.compile(r" {0,3}#[ \t]")
_UNDERLINE: Final = re.compile(r" {0,3}(?:(=)=*|(-)-+)[ \t]*$")
_MARKDOWN: Final = (
    re.compile(r"!?\[([^\[\]]*)\](?:\((?:[^()]|\([^()]*\))*\)|\[[^\[\]]*\])"),
    re.compile(r"(?<!`)`+([^`]+)`+"),
    re.compile(r"(?<!\\)\*{1,3}(?=\S)([^*]+)(?<=[^\s\\])\*{1,3}"),
    re.compile(r"(?<![\\\w])_{1,3}(?=\S)([^_]+)(?<=[^\s\\])_{1,3}(?!\w)"),
    re.compile(r"~~(?=\S)([^~]+)(?<=\S)~~"),
)
_CLINGS: Final = ("Mn", "Mc", "Me", "Cf", "Sk")
_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")


@dataclass(frozen=True, slots=True)
class Topic:
    """What a person asks for.

    Attributes:
        title: one line of 1 to 200 characters without markdown.
        text: the guidance, lines ended by a newline; at most `DATA_BYTES_MAX` characters, possibly empty.
        options: what the front matter says.
    """

    title: str
    text: str
    options: Options


def parse(data: bytes, *, scenes_max: int) -> Topic:
    """Read a topic file.

    Args:
        data: the whole file.
        scenes_max: the most scenes a topic may ask for, ≥ 1.

    Raises:
        Rejected: with cause `topic_empty`, `topic_too_long`, `topic_not_text`, `topic_not_utf8`,
            `front_matter_broken`, `front_matter_unknown` or `front_matter_value`.
    """
    if len(data) > DATA_BYTES_MAX:
        what = f"The topic has {len(data)} bytes; at most {DATA_BYTES_MAX} are read."
        raise Rejected("topic_too_long", what, hint="Keep the title and the main points.")
    head, body = split(_decode(data))
    options = read(head, scenes_max)
    if options.title is None:
        return Topic(*_split_title(body), options)
    return Topic(options.title, body.strip(), options)


def unreadable() -> Rejected:
    """Return the refusal of a topic that the daemon's user may not read."""
    return Rejected(
        "topic_unreadable",
        "the topic cannot be read by the daemon's user",
        hint="give the daemon's user the right to read it (chmod a+r topic.md), then `topicd retry`",
    )


def too_large(size: int, bytes_max: int) -> Rejected:
    """Return the refusal of a topic of too many bytes."""
    return Rejected(
        "topic_too_large",
        f"the topic has {size:,} bytes; the most is {bytes_max:,}",
        hint="shorten it, or raise TOPICD_TOPIC_BYTES_MAX, then `topicd retry`",
    )


def source_slug(name: str) -> str:
    """Return 1 to 40 of `a-z 0-9 -` that recall a file's name, no dash at either end; else `topic`.

    Args:
        name: a file's name, in which undecodable bytes may stand as surrogate escapes.
    """
    name = name[:_NAME_CHARS_MAX]
    stem = normalize("NFKD", name.rpartition(".")[0] or name)
    ascii_only = stem.casefold().encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")[:SLUG_CHARS_MAX].rstrip("-") or "topic"


def is_topic_name(name: str) -> bool:
    """Return whether a file of this name in `input/` is meant as a topic: .md or .txt, in any case.

    The ending leaves out what editors, browsers and desktops put there (`*.part`, `*.tmp`, `*.swp`, `*~`,
    `Thumbs.db`, `desktop.ini`); the beginning leaves out dot files and office lock files (`~$*`).

    Args:
        name: a file's name without directories, in which undecodable bytes may stand as surrogate escapes.
    """
    return name.lower().endswith((".md", ".txt")) and not name.startswith((".", "~$")) and "/" not in name


def _decode(data: bytes) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(data, encoding, error.start) from None
    text = _LINE_END.sub("\n", text.removeprefix("\ufeff"))
    if odd := _NOT_TEXT.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise _not_text(f"line {line} has the control character U+{ord(odd[0]):04X}")
    return text


def _undecodable(data: bytes, encoding: str, offset: int) -> Rejected:
    if encoding == "utf-8" and (odd := _BINARY.search(data)):
        return _not_text(f"the byte at offset {odd.start()} is 0x{odd[0][0]:02X}")
    hint = "Save it as UTF-8."
    if encoding == "utf-8" and not _UTF8_PAIR.search(data):
        hint = "It looks like Latin-1: save it as UTF-8, or use `iconv -f WINDOWS-1252 -t UTF-8`."
    what = f"byte 0x{data[offset]:02X} at offset {offset} does not fit"
    return Rejected("topic_not_utf8", f"The file is not valid {encoding.upper()}: {what}.", hint=hint)


def _not_text(what: str) -> Rejected:
    hint = "A topic is plain text, saved as UTF-8; export a document of another kind as text."
    return Rejected("topic_not_text", f"The file is not plain text: {what}.", hint=hint)


def _split_title(body: str) -> tuple[str, str]:
    lines = body.split("\n")
    likely = (at for at in chain(_headings(lines), range(len(lines))) if _MAYBE_WORD.search(lines[at]))
    for at in islice(likely, _TITLE_TRIES_MAX):
        title = _plain(lines[at])
        if any(char.isalnum() or category(char) == "So" for char in title):
            # A line longer than a title can hold stays in the text as well.
            end = at if len(lines[at]) > TITLE_CHARS_MAX else at + 1 + len(_underline(lines, at))
            return _cut(title), "\n".join(lines[:at] + lines[end:]).strip()
    raise Rejected("topic_empty", "The topic has no words.", hint="Write a title, and below it what to tell.")


def _headings(lines: list[str]) -> Iterator[int]:
    is_code = False
    for at, line in enumerate(lines):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code and (_HEADING.match(line) or _underline(lines, at) == "="):
            yield at


def _underline(lines: list[str], at: int) -> str:
    below = _UNDERLINE.match(lines[at + 1]) if lines[at].strip() and at + 1 < len(lines) else None
    return (below[1] or below[2]) if below else ""


def _plain(line: str) -> str:
    text = " ".join(UNSEEN.sub("", line[:_LINE_CHARS_MAX]).split())
    if text.startswith("#"):
        text = re.sub(r" #+$", "", text)
    text = re.sub(r"^(?:(?:#{1,6}|[-*+>]) )+", "", text)
    # Twice, for a mark within a mark.
    for pattern in _MARKDOWN * 2:
        text = pattern.sub(r"\1", text)
    return " ".join(_ESCAPED.sub(r"\1", text).split())


def _cut(title: str) -> str:
    if len(title) <= TITLE_CHARS_MAX:
        return title
    end = TITLE_CHARS_MAX - 1
    if (space := title.rfind(" ", end // 2, end + 1)) > 0:
        return title[:space] + "…"
    # A mark, a joiner and a skin tone belong to the character before, and what is joined to the joiner.
    while end > TITLE_CHARS_MAX // 2 and (category(title[end]) in _CLINGS or title[end - 1] == "\u200d"):
        end -= 1
    return title[:end] + "…"
