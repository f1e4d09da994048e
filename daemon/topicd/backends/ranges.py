"""What an answer to a request for a part of a file means: RFC 9110, and what servers make of it.

Owns the request's headers and the judgement of an answer's status and headers. Promises that bytes are appended only
to what they belong to: a 206 that begins where was asked, of a file of the recorded length and with the recorded
validator. Anything else begins again from nothing, or is refused. Pure: no I/O.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, NamedTuple

from topicd.errors import RetryLater

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_UNSATISFIED: Final = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)
_LENGTH: Final = re.compile(r"\d{1,18}", re.ASCII)
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
# RFC 9110, 8.8.2.2: a date that is that much older than the answer names one state of the file only.
_STRONG_AFTER: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one address.

    Attributes:
        offset: bytes that are there already; the request is for what follows. 0 asks for all, without a range.
        validator: a strong one, of the file whose bytes are there; empty when none is known.
        total: bytes of the whole file; None when not known.
    """

    offset: int = 0
    validator: str = ""
    total: int | None = None

    def headers(self) -> dict[str, str]:
        """Return the request's headers. A coded answer's ranges would be those of the code, so none is asked for."""
        given = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if self.offset:
            given["Range"] = f"bytes={self.offset}-"
            if self.validator:
                given["If-Range"] = self.validator
        return given


class Append(NamedTuple):
    """Write what follows at the offset that was asked for.

    Attributes:
        length: bytes of this answer.
        total: bytes of the whole file; None when the server does not say.
    """

    length: int
    total: int | None


class Anew(NamedTuple):
    """This answer is the whole file: throw away what is there, and write from the beginning.

    Attributes:
        length: bytes of this answer; None when the server does not say.
        validator: a strong one; empty when there is none.
    """

    length: int | None
    validator: str


class Complete(NamedTuple):
    """There is nothing to come: what is there is the whole file."""


class Useless(NamedTuple):
    """What is there cannot be gone on with; ask again for the whole file.

    Attributes:
        why: a few words.
    """

    why: str


Judgement = Append | Anew | Complete | Useless


def judge(wanted: Wanted, status: int, headers: Mapping[str, str]) -> Judgement:
    """Say what to do with an answer whose status is 200, 206 or 416.

    Args:
        wanted: what was asked.
        status: of the answer.
        headers: of the answer, their names in lower case.

    Raises:
        RetryLater: it is coded, in several parts, or no answer to this request.
    """
    if (coding := headers.get("content-encoding", "identity").strip().lower()) not in ("identity", ""):
        raise RetryLater("bad_answer", f"the server sends the file coded ({coding[:20]}), though it was asked not to.")
    if status == HTTPStatus.OK:
        return _whole(wanted, headers)
    if not wanted.offset:
        raise RetryLater("bad_answer", f"the server answers HTTP {status} to a request for the whole file.")
    if status == HTTPStatus.PARTIAL_CONTENT:
        return _part(wanted, headers)
    return _unsatisfied(wanted, headers)


def strong_validator(headers: Mapping[str, str]) -> str:
    """Return an answer's validator that If-Range may carry (RFC 9110, 13.1.5); empty when there is none."""
    etag = headers.get("etag", "").strip()
    if etag:
        return etag if _STRONG_ETAG.fullmatch(etag) else ""
    modified = headers.get("last-modified", "").strip()
    try:
        is_strong = parsedate_to_datetime(headers["date"]) - parsedate_to_datetime(modified) >= _STRONG_AFTER
    except (KeyError, ValueError, TypeError, OverflowError):
        return ""
    return modified if is_strong and modified.isprintable() else ""


def _whole(wanted: Wanted, headers: Mapping[str, str]) -> Judgement:
    if "content-range" in headers:
        # Seen of servers that send a part and call it the whole (RFC 9110, 14.4, has no meaning for it).
        if wanted.offset:
            return Useless("the server sends a part of the file as if it were the whole")
        raise RetryLater("bad_answer", "the server sends a part of the file as if it were the whole.")
    return Anew(length_of(headers), strong_validator(headers))


def _part(wanted: Wanted, headers: Mapping[str, str]) -> Judgement:
    if headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise RetryLater("bad_answer", "the server sends several parts, though it was asked for one.")
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if not found:
        return Useless("the server does not say which part it sends")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    length = last - first + 1
    if first != wanted.offset:
        return Useless(f"the server sends what begins at {first}, not at {wanted.offset}")
    if length < 1 or (total is not None and last >= total) or length_of(headers) not in (None, length):
        return Useless("the lengths that it says do not agree")
    if wanted.total is not None and total != wanted.total:
        return Useless("the file has another length now")
    if _has_changed(wanted, headers):
        return Useless("the file has changed")
    return Append(length, total)


def _has_changed(wanted: Wanted, headers: Mapping[str, str]) -> bool:
    """Tell whether the answer is of another file: some servers and proxies keep to Range, and not to If-Range."""
    name = "etag" if wanted.validator.startswith('"') else "last-modified"
    said = headers.get(name, "").strip().removeprefix("W/")
    return bool(wanted.validator and said) and said != wanted.validator


def _unsatisfied(wanted: Wanted, headers: Mapping[str, str]) -> Judgement:
    found = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    if found and int(found[1]) == wanted.offset and wanted.total in (None, wanted.offset):
        return Complete()
    return Useless("the file is shorter than what is there")


def length_of(headers: Mapping[str, str]) -> int | None:
    """Return the Content-Length; None when there is none that can be read."""
    text = headers.get("content-length", "").strip()
    return int(text) if _LENGTH.fullmatch(text) else None
