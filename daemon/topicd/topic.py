"""A topic file's bytes → its title, text and options, or the reason why not, in words for a person.

Owns the format of a topic: text in UTF-8, or UTF-16 with a byte order mark; optional YAML front matter from a
first line `---` to a line `---` or `...`; a title, then guidance. The title is the front matter's, else the
first top heading, else the first line with a word. Promises that any bytes give a `Topic` or `Rejected`
in a time bounded by their number, that a fault is told with its place in the file, and that the text lacks
nothing but the title's own line, its underline and a rule on top. Never reads a file, never builds an object
or follows an alias that YAML asks for, never guesses an encoding except in a hint.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final
from unicodedata import category, normalize

import yaml

from topicd.errors import Rejected

DATA_BYTES_MAX: Final = 1_048_576
FRONT_MATTER_CHARS_MAX: Final = 4_096
TITLE_CHARS_MAX: Final = 200
STYLE_CHARS_MAX: Final = 500
SEED_MAX: Final = 2**31 - 1
SLUG_CHARS_MAX: Final = 40

_KEYS: Final = ("title", "language", "voice", "scenes", "style", "seed")
_KINDS: Final = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
_NESTING_MAX: Final = 10
_TITLE_TRIES_MAX: Final = 1_000
_LINE_CHARS_MAX: Final = 2_000
_NAME_CHARS_MAX: Final = 255
_SHOWN_CHARS_MAX: Final = 60

_LINE_END: Final = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_NOT_TEXT: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_UTF8_PAIR: Final = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
_CONTROL: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# Soft hyphens, zero-width spaces, orders of direction: nothing in a title, a disturbance in a log line.
_UNSEEN: Final = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")

_CLOSING: Final = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_KEY_LINE: Final = re.compile(rf"^(?:{'|'.join(_KEYS)})[ \t]*:", re.MULTILINE | re.IGNORECASE)
_DIGITS: Final = re.compile(r"0|[1-9][0-9]{0,9}")

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
class Options:
    """What a topic's front matter asks for; None is "not said".

    Attributes:
        title: 1 to 200 characters on one line.
        language: shaped as a BCP 47 tag, as written, at most 35 characters.
        voice: 1 to 100 of `A-Z a-z 0-9 _ . -`, not beginning with a dot or dash.
        scenes: 1 to the caller's `scenes_max`.
        style: at most 500 characters on one line.
        seed: 0 … 2**31-1.
    """

    title: str | None = None
    language: str | None = None
    voice: str | None = None
    scenes: int | None = None
    style: str | None = None
    seed: int | None = None


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
    front_matter, body = _split_front_matter(_decode(data))
    options = _options(front_matter, scenes_max)
    if options.title is None:
        return Topic(*_split_title(body), options)
    return Topic(options.title, body.strip(), options)


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


def _split_front_matter(text: str) -> tuple[str, str]:
    first, _, rest = text.partition("\n")
    if first.rstrip(" \t") != "---":
        return "", text
    if closing := _CLOSING.search(rest):
        if closing.start() > FRONT_MATTER_CHARS_MAX:
            raise _broken(1, f"it is longer than {FRONT_MATTER_CHARS_MAX} characters")
        return rest[: closing.start()], rest[closing.end() :]
    if _KEY_LINE.search(rest.lstrip("\n").partition("\n\n")[0]):
        raise _broken(1, "it is opened by --- and never closed", "Put a line --- after the last key.")
    return "", rest


def _broken(line: int, what: str, hint: str = "") -> Rejected:
    general = (
        "Write lines of `key: value` between the --- lines, a value with a colon or other sign in quotes. "
        "A rule at the top of a topic is written ***."
    )
    what = f"The front matter cannot be read at line {line} of the file: {_shown(what, 200)}."
    return Rejected("front_matter_broken", what, hint=hint or general)


def _shown(text: str, chars_max: int = _SHOWN_CHARS_MAX) -> str:
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: chars_max + 1])
    return text if len(text) <= chars_max else text[:chars_max] + "…"


def _options(front_matter: str, scenes_max: int) -> Options:
    try:
        root = _compose(front_matter)
    except yaml.MarkedYAMLError as error:
        raise _broken(_line(error.problem_mark), _problem(error)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise _broken(1, "there is an escape or number that no character has") from None
    if root is None:
        return Options()
    if not isinstance(root, yaml.MappingNode):
        raise _broken(_line(root.start_mark), "lines of `key: value` are expected")
    return Options(**_values(root, _rules(scenes_max)))


def _problem(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(filter(None, (error.context, error.problem)))


def _line(mark: Any) -> int:
    # YAML counts from 0 and is not shown the first line.
    return mark.line + 2 if mark else 1


def _compose(front_matter: str) -> yaml.Node | None:
    # Composing recurses; reading events does not.
    depth = 0
    for event in yaml.parse(front_matter, Loader=yaml.SafeLoader):
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise _broken(_line(event.start_mark), "anchors (&), aliases (*) and tags (!) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _NESTING_MAX:
            raise _broken(_line(event.start_mark), "lists and mappings are nested too deeply")
    return yaml.compose(front_matter, Loader=yaml.SafeLoader)


_Rules = dict[str, tuple[range | re.Pattern[str], str]]


def _rules(scenes_max: int) -> _Rules:
    return {
        "title": (re.compile(rf"[^{_CONTROL}]{{1,{TITLE_CHARS_MAX}}}"), "1 to 200 characters on one line"),
        "language": (
            re.compile(r"(?!.{36})[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*"),
            "a tag such as en or pt-BR",
        ),
        "voice": (re.compile(r"\w[\w.-]{0,99}", re.ASCII), "1 to 100 letters, digits, _ . or -"),
        "scenes": (range(1, scenes_max + 1), f"a whole number from 1 to {scenes_max}"),
        "style": (re.compile(rf"[^{_CONTROL}]{{0,{STYLE_CHARS_MAX}}}"), "at most 500 characters on one line"),
        "seed": (range(SEED_MAX + 1), f"a whole number from 0 to {SEED_MAX}"),
    }


def _values(root: yaml.MappingNode, rules: _Rules) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, node in root.value:
        line = _line(key_node.start_mark)
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else "[…]"
        if key not in rules:
            raise _unknown(line, key)
        if key in values:
            raise _broken(line, f"{key} is given a second time", "Keep one of the two lines.")
        values[key] = _value(line, key, node, *rules[key])
    return values


def _unknown(line: int, key: str) -> Rejected:
    near = difflib.get_close_matches(key[:_SHOWN_CHARS_MAX].lower(), _KEYS, n=1, cutoff=0.5)
    known = f"The keys are {', '.join(_KEYS)}."
    what = f"The front matter has an unknown key at line {line} of the file: {_shown(key)}."
    return Rejected("front_matter_unknown", what, hint=f"Did you mean {near[0]}? {known}" if near else known)


def _value(line: int, key: str, node: yaml.Node, rule: range | re.Pattern[str], allowed: str) -> Any:
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if isinstance(rule, range) and kind == "int" and _DIGITS.fullmatch(node.value):
        if int(node.value) in rule:
            return int(node.value)
    elif isinstance(rule, re.Pattern) and kind == "str":
        value = _UNSEEN.sub("", node.value).strip()
        if rule.fullmatch(value):
            return value
    found, hint = _found(key, node, kind, is_text=isinstance(rule, re.Pattern))
    what = f"The front matter, line {line} of the file: {key} must be {allowed}; {found}."
    raise Rejected("front_matter_value", what, hint=hint)


def _found(key: str, node: yaml.Node, kind: str, *, is_text: bool) -> tuple[str, str]:
    if not isinstance(node, yaml.ScalarNode):
        return "here is a list or mapping", f"Give {key} one value."
    shown = _shown(node.value)
    if is_text and kind != "str":
        return (
            f"YAML takes {shown} for {_KINDS.get(kind, 'a sign')}",
            f'Put it in quotes: `{key}: "{shown}"`.',
        )
    quote = node.style if node.style in ("'", '"') else "`"
    digits = f"Write plain digits without quotes, such as `{key}: 5`."
    return f"here is {quote}{shown}{quote}", "Change the value, or take the line out." if is_text else digits


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
    text = " ".join(_UNSEEN.sub("", line[:_LINE_CHARS_MAX]).split())
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
