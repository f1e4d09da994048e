"""A wrong setting in words: what pydantic found, as a person would say it, and the value fit to be shown.

Owns those words. Promises that no expression of a program is shown, and that what may be a secret in an address is not.
Never knows a setting.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

VALUE_CHARS_MAX: Final = 100
PLAIN: Final = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("int_parsing", "int_from_float", "int_type"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "a number"),
}
_NO_PORT: Final = re.compile(r"(?<=//)([^/:@\[]+):(?!\d*(?:/|$))[^/]*")
"""What stands where a port should and is none may be a password."""


def why(fault: Mapping[str, Any], forms: Mapping[str, str]) -> str:
    """Return why a value is refused.

    Args:
        fault: one of `ValidationError.errors()`.
        forms: pattern → what fits it, in words.
    """
    kind, message = fault["type"], fault["msg"]
    if kind == "string_pattern_mismatch":
        return forms[fault["ctx"]["pattern"]]
    if kind == "value_error":
        return str(message.removeprefix("Value error, "))
    return PLAIN.get(kind) or str(message.lower())


def shown(value: str) -> str:
    """Return a wrong value fit to be shown: short, and without what in an address may be a secret."""
    secret, at, bare = value.rpartition("@")
    bare = (f"…@{bare}" if at else secret or bare).partition("?")[0]
    bare = _NO_PORT.sub(r"\1:…", bare)
    return bare if len(bare) <= VALUE_CHARS_MAX else f"{bare[:VALUE_CHARS_MAX]}…"
