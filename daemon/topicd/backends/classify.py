"""What a response or an exception means: the one place where it becomes an error of `topicd.errors`.

Owns the tables of statuses and exceptions. Promises an answer for every response and every exception, without
any I/O. Never puts userinfo, headers or tokens into a message; of a server's own words only a short, cleaned
excerpt, without what merely repeats the request: whoever reads the log need not read the topics. Never imports httpx
before there is something to classify.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, Final

from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

if TYPE_CHECKING:
    import httpx

_Row = tuple[type[TopicdError], str, str]
_ErrorRow = tuple[tuple[type[BaseException], ...], type[TopicdError], str, str, str]

_AFTER_S_MAX: Final = 3600.0
_EXCERPT_CHARS_MAX: Final = 200
_REPEATED_CHARS_MIN: Final = 20
"""A shorter run may be in both by chance."""
_NAMES: Final = frozenset({"model", "voice"})
"""Of a request: what a server rightly names when it lacks it."""

_LOGIN_HINT = "check the user, password or token that is set for this server"
_ADDRESS_HINT = "check the server's address: something else may answer there"
_REFUSED_HINT = "change the topic, or the settings that the server's words are about, then retry the job"
_SHORTER_HINT = "shorten the topic, or have the server take larger requests, then retry the job"
_ENDLESS_HINT = "look into the server's own log for what it made of this job"
_RUNNING_HINT = "check that the server runs, and its address"

_STATUSES: Final[Mapping[int, _Row]] = {
    400: (Rejected, "bad_request", _REFUSED_HINT),
    401: (Unusable, "unauthorized", _LOGIN_HINT),
    403: (Unusable, "forbidden", _LOGIN_HINT),
    404: (Unusable, "not_found", _ADDRESS_HINT),
    405: (Unusable, "method_not_allowed", _ADDRESS_HINT),
    407: (Unusable, "proxy_unauthorized", "check the user and password of the proxy"),
    408: (RetryLater, "request_timeout", ""),
    413: (Rejected, "request_too_large", _SHORTER_HINT),
    414: (Rejected, "request_too_large", _SHORTER_HINT),
    422: (Rejected, "bad_request", _REFUSED_HINT),
    425: (RetryLater, "too_early", ""),
    429: (RetryLater, "rate_limited", ""),
    502: (Unavailable, "bad_gateway", "the gateway answers, the server behind it does not"),
    503: (Unavailable, "busy", ""),
    504: (RetryLater, "gateway_timeout", ""),
}
_FAMILIES: Final[Mapping[int, _Row]] = {
    3: (Unusable, "redirected", "set the address that it redirects to"),
    4: (Unusable, "refused", _ADDRESS_HINT),
    5: (RetryLater, "server_error", "look into the server's own log"),
}
_SILENT: Final = frozenset({401, 403, 407})
_SECRETS: Final = re.compile(r"(?i)(?<=//)[^/\s@]+@|\b(?:bearer|basic)\s+\S+|\b(?:sk|hf|ghp|key)[-_][\w-]{6,}")


class AnswerTooLargeError(Exception):
    """A body or a line went past its limit."""


class AnswerCutError(Exception):
    """The connection broke after the answer had begun."""


def classify(trouble: httpx.Response | Exception, *, server: str = "the server", sent: object = None) -> TopicdError:
    """Return what should be done about a response or an exception.

    Args:
        trouble: a response whose body is read, or what httpx, ssl, socket, json or asyncio raised.
        server: host and port, for the message.
        sent: the request's body, JSON values; what the server repeats of it is left out.
    """
    if isinstance(trouble, Exception):
        return classify_exception(trouble, server)
    words = "" if trouble.status_code in _SILENT else _words(trouble, sent)
    return classify_status(trouble.status_code, after_s=after_s_of(trouble.headers), server=server, words=words)


def classify_status(status: int, *, after_s: float | None, server: str, words: str = "") -> TopicdError:
    """Return what should be done about a status that is no success.

    Args:
        status: of the answer.
        after_s: seconds that its `Retry-After` asks for (`after_s_of`).
        server: host and port, for the message.
        words: of the server, fit for a message.
    """
    otherwise = _FAMILIES.get(status // 100, (RetryLater, "bad_answer", ""))
    kind, cause, hint = _STATUSES.get(status, otherwise)
    message = f"{server} answers HTTP {status}: {words}" if words else f"{server} answers HTTP {status}."
    if status == 429 and after_s is not None:  # noqa: PLR2004 - a status code is its own name
        kind = Unavailable
    if issubclass(kind, (RetryLater, Unavailable)):
        return kind(cause, message, hint=hint, after_s=after_s)
    return kind(cause, message, hint=hint)


def after_s_of(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for, in either form; None without it (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return min(float(value[:9]), _AFTER_S_MAX)
    try:
        # The server's own clock measures best how far away its date is.
        now = _date(headers["date"]) if "date" in headers else datetime.now(UTC)
        seconds = (_date(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _AFTER_S_MAX)


def classify_exception(error: Exception, server: str) -> TopicdError:
    """Return what should be done about an exception; see `classify`."""
    chain = tuple(_chain(error))
    for kinds, kind, cause, sentence, hint in _error_rows():
        if any(isinstance(link, kinds) for link in chain):
            return kind(cause, f"{server} {sentence}.", hint=hint)
    return RetryLater("request_failed", f"the request to {server} failed ({type(error).__name__}).")


def excerpt(text: str, sent: object = None) -> str:
    """Return the beginning of foreign text, fit for a message: one line, printable, without secrets.

    Args:
        text: a server's words.
        sent: what it had been asked, JSON values; a run of it in the text becomes an ellipsis, a model's name aside.
    """
    cleaned = _SECRETS.sub("…", _one_line(text[: 10 * _EXCERPT_CHARS_MAX]))[:_EXCERPT_CHARS_MAX]
    asked = _one_line(" ".join(_strings(sent)))
    repeated = set[int]()
    for start in range(len(cleaned) - _REPEATED_CHARS_MIN + 1):
        if cleaned[start : start + _REPEATED_CHARS_MIN] in asked:
            repeated.update(range(start, start + _REPEATED_CHARS_MIN))
    runs = groupby(enumerate(cleaned), key=lambda at: at[0] in repeated)
    return "".join("…" if is_repeated else "".join(char for _, char in run) for is_repeated, run in runs)


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(_strings(item) for key, item in value.items() if key not in _NAMES)
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(map(_strings, value))


def _words(response: httpx.Response, sent: object) -> str:
    try:
        said = json.loads(response.content)
    except (ValueError, RecursionError):
        plain = response.headers.get("content-type", "").startswith("text/plain")
        return excerpt(response.text, sent) if plain else ""
    if not isinstance(said, dict):
        return ""
    parts = [_phrase(said.get(key)) for key in ("error", "message", "detail", "errors")]
    return excerpt(" ".join(dict.fromkeys(part for part in parts if part)), sent)


def _phrase(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("message") or value.get("msg") or "")
    if isinstance(value, list):
        return "; ".join(_phrase(item) for item in value[:3])
    return value if isinstance(value, str) else ""


def _date(text: str) -> datetime:
    """Read any of the three forms (RFC 9110, 5.6.7); the oldest names no zone and means UTC."""
    date = parsedate_to_datetime(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    if error is None:
        return
    yield error
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _chain(member)
    yield from _chain(error.__cause__ or error.__context__)


@cache
def _error_rows() -> tuple[_ErrorRow, ...]:
    """First match wins: what went wrong deepest stands before what only wraps it."""
    import httpx  # noqa: PLC0415 - costs 85 ms and memory that the embedded set-up never needs

    waited = (httpx.ConnectTimeout, httpx.PoolTimeout)
    cut_off = (httpx.NetworkError, httpx.RemoteProtocolError)
    ours = (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
    unread = (httpx.DecodingError, ValueError, RecursionError)
    trust = "set SSL_CA_FILE to the authority that signed it, or mend the certificate"
    scheme = "check http:// against https:// in its address"
    return (
        ((AnswerTooLargeError,), Rejected, "answer_too_large", "answers more than the limit allows", _ENDLESS_HINT),
        ((AnswerCutError,), RetryLater, "answer_cut", "broke off in the middle of its answer", ""),
        ((ssl.SSLCertVerificationError,), Unusable, "tls_untrusted", "has an untrusted certificate", trust),
        ((ssl.SSLError,), Unavailable, "tls_failed", "fails the TLS handshake", scheme),
        ((socket.gaierror,), Unavailable, "dns_failed", "has a name that does not resolve", _RUNNING_HINT),
        ((ConnectionRefusedError,), Unavailable, "connect_refused", "refuses connections", _RUNNING_HINT),
        (waited, Unavailable, "connect_timeout", "did not accept a connection in time", _RUNNING_HINT),
        ((httpx.TimeoutException,), RetryLater, "read_timeout", "was silent for too long", ""),
        (
            (httpx.ConnectError, httpx.ProxyError),
            Unavailable,
            "connect_failed",
            "is not reached",
            _RUNNING_HINT,
        ),
        (cut_off, Unavailable, "connection_reset", "closed the connection without an answer", _RUNNING_HINT),
        (ours, Unusable, "bad_url", "has an address that cannot be used", _ADDRESS_HINT),
        ((TimeoutError,), RetryLater, "total_timeout", "took longer than a call may take", ""),
        (unread, RetryLater, "bad_answer", "gave an answer that cannot be read", _ADDRESS_HINT),
        ((OSError,), Unavailable, "connect_failed", "is not reached", _RUNNING_HINT),
    )
