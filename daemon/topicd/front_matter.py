"""The YAML front matter of a topic: found, read, checked; each fault told with its line and key.

Owns the keys a person may set and what each may hold. Promises to build no object and follow no alias that YAML asks
for, and to bound its size and depth. Pure: text in, values out.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from topicd.errors import Rejected

FRONT_MATTER_CHARS_MAX: Final = 4_096
TITLE_CHARS_MAX: Final = 200
STYLE_CHARS_MAX: Final = 500
SEED_MAX: Final = 2**31 - 1
_KEYS: Final = ("title", "language", "voice", "scenes", "style", "seed")
_KINDS: Final = {"bool": "true or false", "int": "a number", "float": "a number", "timestamp": "a date"}
_NESTING_MAX: Final = 10
_SHOWN_CHARS_MAX: Final = 60
_CONTROL: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_CLOSING: Final = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_KEY_LINE: Final = re.compile(rf"^(?:{'|'.join(_KEYS)})[ \t]*:", re.MULTILINE | re.IGNORECASE)
_DIGITS: Final = re.compile(r"0|[1-9][0-9]{0,9}")

# Soft hyphens, zero-width spaces, orders of direction: nothing in a title, a disturbance in a log line.
UNSEEN: Final = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")


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


def split(text: str) -> tuple[str, str]:
    """Return the front matter, empty when there is none, and the rest of the text."""
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


def read(front_matter: str, scenes_max: int) -> Options:
    """Return what the front matter says.

    Raises:
        Rejected: it is broken, or a key or a value is not allowed.
    """
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
        value = UNSEEN.sub("", node.value).strip()
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
