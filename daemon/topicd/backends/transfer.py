"""One request for a file, in a thread: http.client, because it is the one that reads at the speed of the disk.

Owns connection, TLS, redirects, and where credentials go: to the origin that was named, to no other. Promises an
answer whose status is 200, 206 or 416, or 304 where a validator was sent; that silence ends it after `stall_s`; that
https never leads to http; that a body which breaks off is told from one that ends; and that every trouble comes out as
`classify` or the tables here decide. Never decodes, never decides whether to ask again. Measured beside httpx, which
the servers' client uses: twice its speed at half its CPU seconds.
"""

import base64
import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from topicd import __version__
from topicd.backends.classify import after_s_of, classify_exception, classify_status
from topicd.backends.ranges import length_of
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable

BLOCK_BYTES: Final = 262_144
REDIRECTS_MAX: Final = 10
_TAKEN: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_URL_CHARS_MAX: Final = 8192
_URL_HINT: Final = "write it as https://host/path"
_UNREACHED: Final = frozenset({"dns_failed", "connect_failed", "connect_timeout"})
_UNREACHED_HINT: Final = "is this machine online? If it is, check the address"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is still to come.

    Attributes:
        status: 200, 206 or 416; 304 where a validator was sent.
        headers: their names in lower case; what is said more than once, and not the same, is joined by commas.
        is_framed: whether the end of the body is told from a broken connection.
    """

    status: int
    headers: Mapping[str, str]
    is_framed: bool
    _response: http.client.HTTPResponse = field(repr=False)
    _server: str

    def blocks(self) -> Iterator[bytes]:
        """Yield the body as it comes, in blocks of `BLOCK_BYTES` at most.

        Raises:
            RetryLater: it broke off, or there was silence.
            Unavailable: the connection broke.
        """
        try:
            while block := self._response.read1(BLOCK_BYTES):
                yield block
        except http.client.IncompleteRead as error:
            raise _cut(self._server) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _told(error, self._server, has_begun=True) from error


class Transfer:
    """Opens one answer at a time, and can be interrupted from another thread.

    Args:
        tls: which certificates are trusted.
        connect_s: for one connection.
        stall_s: for silence.
    """

    def __init__(self, *, tls: ssl.SSLContext, connect_s: float, stall_s: float) -> None:
        self._tls = tls
        self._connect_s = connect_s
        self._stall_s = stall_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_interrupted = False

    @contextlib.contextmanager
    def open(self, url: str, headers: Mapping[str, str], secret: Mapping[str, str]) -> Iterator[Answer]:
        """Ask, following redirects anew each time, since signed addresses grow old.

        Args:
            url: http or https; user and password in it are sent as Basic authentication to its origin.
            headers: of the request.
            secret: headers for the url's own origin alone, such as a token's.

        Raises:
            RetryLater, Unavailable, Rejected, Unusable: as `classify` says.
        """
        first = at = _split(url)
        own = {**secret, **_basic(first)}
        for _ in range(REDIRECTS_MAX + 1):
            with contextlib.closing(self._connection(at)) as connection:
                server = _server(at)
                given = {**headers, **(own if _origin(at) == _origin(first) else {})}
                response = self._asked(connection, at, given, server)
                with response:
                    if response.status not in _REDIRECTS:
                        yield _answer(response, server, is_conditional="If-None-Match" in headers)
                        return
                    at = _next(at, response, server)
        raise Unusable("redirected", f"{_server(first)} redirects without end.", hint="check the address")

    def interrupt(self) -> None:
        """Have what is being read end now, in whichever thread, and all that is asked for afterwards."""
        with self._lock:
            self._is_interrupted = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _connection(self, at: SplitResult) -> http.client.HTTPConnection:
        host, port = at.hostname or "", at.port
        if at.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._connect_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._connect_s)

    def _asked(
        self, connection: http.client.HTTPConnection, at: SplitResult, headers: Mapping[str, str], server: str
    ) -> http.client.HTTPResponse:
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        try:
            connection.connect()
            self._hold(connection.sock)
            agent = {"User-Agent": f"topicd/{__version__}", "Connection": "close"}
            connection.request("GET", target, headers={**agent, **headers})
            return connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _told(error, server, has_begun=False) from error

    def _hold(self, sock: socket.socket) -> None:
        sock.settimeout(self._stall_s)
        with self._lock:
            self._socket = sock
            if self._is_interrupted:
                raise ConnectionAbortedError


def _answer(response: http.client.HTTPResponse, server: str, *, is_conditional: bool) -> Answer:
    said = response.headers
    headers = {name.lower(): ", ".join(dict.fromkeys(said.get_all(name, ()))) for name in said}
    is_unchanged = is_conditional and response.status == HTTPStatus.NOT_MODIFIED
    if response.status not in _TAKEN and not is_unchanged:
        raise classify_status(response.status, after_s=after_s_of(headers), server=server)
    # http.client takes more for a length than is one, and does not tell when the body ends before it.
    is_framed = response.chunked or length_of(headers) is not None
    return Answer(response.status, headers, is_framed, response, server)


def _next(at: SplitResult, response: http.client.HTTPResponse, server: str) -> SplitResult:
    try:
        found = _split(urljoin(at.geturl(), response.getheader("Location") or ""))
    except (ValueError, Unusable) as error:
        raise RetryLater("bad_answer", f"{server} redirects to what is no address.") from error
    if at.scheme == "https" and found.scheme != "https":
        raise Unusable("redirected", f"{server} leads from https to http.", hint="look for another address of the file")
    return found


def _told(error: Exception, server: str, *, has_begun: bool) -> TopicdError:
    if isinstance(error, TimeoutError) and has_begun:
        return RetryLater("read_timeout", f"{server} was silent for too long.")
    if isinstance(error, http.client.RemoteDisconnected) or (has_begun and isinstance(error, ConnectionError)):
        return _cut(server)
    if isinstance(error, http.client.HTTPException):
        return RetryLater("bad_answer", f"{server} does not answer as HTTP servers do ({type(error).__name__}).")
    found = classify_exception(error, server)
    if found.cause in _UNREACHED:
        return Unavailable(found.cause, found.message, hint=_UNREACHED_HINT)
    return found


def _cut(server: str) -> RetryLater:
    return RetryLater("answer_cut", f"{server} broke off in the middle of its answer.")


def _split(url: str) -> SplitResult:
    """Return the parts of an address, of which no message may show user, password or query."""
    try:
        found = urlsplit(url)
        is_port_fine = found.port != 0
    except ValueError:
        found, is_port_fine = urlsplit(""), False
    is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) <= _URL_CHARS_MAX
    if found.scheme not in {"http", "https"} or not found.hostname or not is_port_fine or not is_plain:
        raise Unusable("bad_url", "an address is not an http or https URL.", hint=_URL_HINT)
    return found._replace(fragment="")


def _origin(at: SplitResult) -> tuple[str, str | None, int]:
    return at.scheme, at.hostname, at.port or (443 if at.scheme == "https" else 80)


def _server(at: SplitResult) -> str:
    _, host, port = _origin(at)
    return f"{host}:{port}"


def _basic(at: SplitResult) -> dict[str, str]:
    if at.username is None:
        return {}
    pair = f"{unquote(at.username)}:{unquote(at.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def plain(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    at = _split(url)
    host = f"[{at.hostname}]" if ":" in (at.hostname or "") else at.hostname
    return f"{at.scheme}://{host}{f':{at.port}' if at.port else ''}{at.path}"
