"""The files that the pages themselves are made with: style, script, icon.

Owns their addresses, which change with their bytes, so that a browser may keep them for good. Promises that they come
with the package and nothing else does by this way.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

KEPT: Final = "public, max-age=31536000, immutable"
_TYPES: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Asset(NamedTuple):
    """One file: its bytes, its type and its version."""

    data: bytes
    kind: str
    version: str


@cache
def asset(name: str) -> Asset | None:
    """Return a file by its name; None for what is none."""
    if name not in _TYPES:
        return None
    data = (files("topicd.web") / "static" / name).read_bytes()
    return Asset(data, _TYPES[name], hashlib.sha256(data).hexdigest()[:12])


def url(name: str) -> str:
    """Return the address of a file that there is."""
    found = asset(name)
    return f"/static/{name}?v={found.version}" if found else ""
