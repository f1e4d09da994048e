"""HTML from values: the one place where text becomes markup.

Owns escaping. Promises that nothing but what `tag` itself made reaches a page unescaped, whatever a name, a topic or a
server's words hold, that an attribute is always quoted, and that every page can be written as UTF-8. Never knows what a
page is about.
"""

import re
from html import escape
from typing import Final

VOID: Final = frozenset({"img", "link", "meta", "br", "track", "source"})
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Markup that `tag` made; any other string is text."""

    __slots__ = ()


Child = str | int | float | None
Attribute = str | int | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Return an element.

    Args:
        name: of the element.
        children: text, which is escaped, or what `tag` returned; None is nothing.
        attributes: `class_` is `class`, `aria_label` is `aria-label`; True is an attribute without a value, None and
            False are none.
    """
    given = "".join(_attribute(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Return the children one after the other."""
    return Html("".join(child if isinstance(child, Html) else _text(child) for child in children if child is not None))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{_text(value)}"'


def _text(value: Child) -> str:
    """Return text that is only text; what cannot be shown, such as half of a name that is not UTF-8, is a mark."""
    return escape(_UNPRINTABLE.sub("\ufffd", str(value)))
