"""What must not come back out of a server's words: the passwords, tokens and keys that it was sent.

Owns which bytes those are, in every form in which they may be repeated. Promises to leave alone what is no text, since
in a sound or a picture a secret's few bytes may stand by chance. Never knows where the words go.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx

SECRET_CHARS_MIN: Final = 4
"""A shorter one would be found in ordinary words."""
HEADER_CHARS_MIN: Final = 8
"""Likewise, of a header whose name does not say that it is a secret."""
_TELLING: Final = re.compile("key|token|secret|auth|pass|cookie|session|credential", re.IGNORECASE)


class Scrub:
    """Takes the secrets of one server out of its words.

    Args:
        url: its address, with the password if there is one.
        headers: what it is sent beside.
    """

    def __init__(self, url: httpx.URL, headers: Mapping[str, str]) -> None:
        forms = {form for secret in _secrets(url, headers) for form in (secret, json.dumps(secret)[1:-1])}
        forms |= {form.replace("/", "\\/") for form in forms}
        long = [form for form in forms if len(form) >= SECRET_CHARS_MIN]
        self._secrets = [form.encode() for form in sorted(long, key=len, reverse=True)]

    def words(self, data: bytes) -> bytes:
        """Return text without them, JSON or plain."""
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        return data

    def bytes(self, data: bytes) -> bytes:
        """Return what may be text or not; what is none stays as it is."""
        try:
            data.decode()
        except UnicodeDecodeError:
            return data
        return self.words(data)


def _secrets(url: httpx.URL, headers: Mapping[str, str]) -> Iterator[str]:
    if url.userinfo:
        yield url.password
        yield base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
    for name, value in headers.items():
        if name.lower().endswith("authorization"):
            yield from (value, value.rpartition(" ")[2])
        elif _TELLING.search(name) or (" " not in value and len(value) >= HEADER_CHARS_MIN):
            yield value  # any other could be a word, and would be taken out of a narration
