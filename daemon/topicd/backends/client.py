"""One HTTP server, spoken to within limits.

Owns the connection, TLS, secrets, and the seconds inside one call: tries, waits between them, total time; and, for all
who use it, the server's circuit breaker (`circuit.py`), its places and its rate (`limits.py`). Promises that no body
grows past its limit, that no call outlives its total time (counted from when it has its place), that it tries again
only after failed connections and after 429, 502, 503 and 504, that every trouble comes out as `classify` decides, and
that no secret it was given comes back out in a server's words. Never follows a redirect, never knows what the server is
for, and never imports httpx before a `Client` is built.

Work (`post_…`) takes a place and counts for the rate; a question (`get_json`, or `is_work=False`) does neither, so that
progress can be asked for while the one place is taken. Both go through the circuit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tenacity

from topicd.backends.base import ServerState
from topicd.backends.circuit import Circuit
from topicd.backends.classify import AnswerCutError, AnswerTooLargeError, classify
from topicd.backends.limits import Limits, Rate
from topicd.backends.scrub import Scrub
from topicd.backends.trust import trust
from topicd.errors import TopicdError, Unusable
from topicd.telemetry import tracing

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "Json", "classify"]

Json = Any

_WAIT_IN_CALL_S_MAX: Final = 30.0
_REFUSAL_BYTES_MAX: Final = 8192
_HEADERS_KEPT: Final = ("retry-after", "date", "content-type")
_TRIED_AGAIN: Final = frozenset(
    {"dns_failed", "connect_refused", "connect_failed", "connect_timeout", "tls_failed"}
    | {"rate_limited", "bad_gateway", "busy", "gateway_timeout"}
)


class Client:
    """Speaks JSON with one server.

    Every method raises RetryLater, Unavailable, Rejected or Unusable, as `classify` decides. Making one connects
    to nothing.

    Args:
        base_url: http or https; user and password in it are sent as Basic authentication, shown nowhere.
        verify: whether the server's certificate is checked against the system's roots and `ca_file`.
        ca_file: PEM file of further authorities.
        connect_timeout_s: for one connection.
        read_timeout_s: for silence between two reads or writes.
        total_timeout_s: for the whole call, tries and waits included.
        body_bytes_max: for one answer.
        tries_max: connections and refusals per call, ≥ 1.
        line_bytes_max: for one line of a stream.
        backoff_s: first wait between tries; it doubles, with jitter.
        headers: further ones, such as a token's; shown nowhere.
        calls_max: pieces of work at once.
        rate: pieces of work in a period; None for any number.
        circuit: the server's breaker; None for one of its own.

    Raises:
        Unusable: the address, its password beside a token, or the CA file cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        verify: bool,
        ca_file: Path | None,
        connect_timeout_s: float,
        read_timeout_s: float,
        total_timeout_s: float,
        body_bytes_max: int,
        tries_max: int,
        line_bytes_max: int = 1_048_576,
        backoff_s: float = 0.5,
        headers: Mapping[str, str] | None = None,
        calls_max: int = 64,
        rate: Rate | None = None,
        circuit: Circuit | None = None,
    ) -> None:
        import httpx  # noqa: PLC0415 - costs 85 ms and memory that the embedded set-up never needs

        url = _address(base_url, headers or {})
        port = url.port or (443 if url.scheme == "https" else 80)
        self.server: Final = f"{url.host}:{port}"
        self.circuit: Final = circuit or Circuit()
        self._limits = Limits(self.server, calls_max=calls_max, rate=rate)
        self._scrub = Scrub(url, headers or {})
        self._total_timeout_s = total_timeout_s
        self._body_bytes_max = body_bytes_max
        self._line_bytes_max = line_bytes_max
        self._tries_max = tries_max
        self._backoff_s = backoff_s
        self._troubles = (httpx.HTTPError, httpx.InvalidURL, OSError, AnswerTooLargeError, AnswerCutError)
        self._http = httpx.AsyncClient(
            base_url=url.copy_with(userinfo=b""),
            # httpx logs every address it calls, with the password if there is one.
            auth=(url.username, url.password) if url.userinfo else None,
            verify=trust(verify=verify, ca_file=ca_file),
            timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s, pool=connect_timeout_s),
            # A compressed answer could grow past its limit in one step.
            headers={"accept": "*/*", "accept-encoding": "identity", **(headers or {})},
        )

    def state(self, note: str = "") -> ServerState:
        """Return what is known of the server, without asking it; `note` is what it is busy with."""
        trouble = self.circuit.trouble
        return ServerState(
            server=self.server,
            state=self.circuit.state,
            since_s=self.circuit.since_s,
            trouble=trouble.message if trouble else "",
            calls=self._limits.calls,
            waiting=self._limits.waiting,
            note=note,
            cause=trouble.cause if trouble else "",
        )

    async def get_json(self, path: str) -> Json:
        """Return the JSON value at a path."""
        return self._value(await self._body("GET", path, None, is_work=False))

    async def post_json(self, path: str, body: Mapping[str, Json], *, is_work: bool = True) -> Json:
        """Send a JSON object, return the JSON value of the answer."""
        return self._value(await self._body("POST", path, body, is_work=is_work))

    async def post_bytes(self, path: str, body: Mapping[str, Json], *, is_work: bool = True) -> bytes:
        """Send a JSON object, return the answer's bytes."""
        return self._scrub.bytes(await self._body("POST", path, body, is_work=is_work))

    async def post_lines(
        self, path: str, body: Mapping[str, Json], *, is_work: bool = True
    ) -> AsyncGenerator[dict[str, Json], None]:
        """Send a JSON object, yield each line of the answer (NDJSON).

        The last line may lack its newline. Whoever may stop early closes it (`contextlib.aclosing`).
        """
        held = b""
        async with contextlib.aclosing(self._chunks("POST", path, body, is_work=is_work)) as chunks:
            async for chunk in chunks:
                *lines, held = (held + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    yield self._object(line)
                self._check_line(held)
        if held.strip():
            yield self._object(held)

    async def post_events(self, path: str, body: Mapping[str, Json]) -> AsyncGenerator[dict[str, Json], None]:
        """Send a JSON object, yield the JSON object of each server-sent event, up to `data: [DONE]` or the end.

        Only the field `data`, one line an event, is read (WHATWG HTML, 9.2), which is all that such APIs send. Whoever
        may stop early closes it (`contextlib.aclosing`).
        """
        held = b""
        async with contextlib.aclosing(self._chunks("POST", path, body, is_work=True)) as chunks:
            async for chunk in chunks:
                *lines, held = (held + chunk).split(b"\n")
                for line in lines:
                    data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
                    if data == b"[DONE]":
                        return
                    if data:
                        yield self._object(data)
                self._check_line(held)

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice."""
        await self._http.aclose()

    async def _body(self, method: str, path: str, body: Mapping[str, Json] | None, *, is_work: bool) -> bytes:
        async with contextlib.aclosing(self._chunks(method, path, body, is_work=is_work)) as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def _chunks(
        self, method: str, path: str, body: Mapping[str, Json] | None, *, is_work: bool
    ) -> AsyncGenerator[bytes, None]:
        self.circuit.check(self.server)  # what it refuses takes no place and no time of the rate's
        async with self._limits.place() if is_work else contextlib.nullcontext():
            with self.circuit.call(self.server):
                async with contextlib.aclosing(self._answer(method, path, body)) as chunks:
                    async for chunk in chunks:
                        yield chunk

    async def _answer(self, method: str, path: str, body: Mapping[str, Json] | None) -> AsyncGenerator[bytes, None]:
        end_s = asyncio.get_running_loop().time() + self._total_timeout_s
        left_bytes = self._body_bytes_max
        with self._classified():
            async with asyncio.timeout_at(end_s):
                response = await self._opened(method, path, body)
            async with contextlib.aclosing(response):
                _check_declared(response, left_bytes)
                chunks = response.aiter_raw()
                while chunk := await self._next(chunks, end_s):
                    left_bytes -= len(chunk)
                    if left_bytes < 0:
                        raise AnswerTooLargeError
                    yield chunk

    async def _next(self, chunks: AsyncIterator[bytes], end_s: float) -> bytes:
        import httpx  # noqa: PLC0415 - costs 85 ms and memory that the embedded set-up never needs

        try:
            async with asyncio.timeout_at(end_s):
                return await anext(chunks, b"")
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            raise AnswerCutError from error

    async def _opened(self, method: str, path: str, body: Mapping[str, Json] | None) -> httpx.Response:
        tried_out = tenacity.stop_after_attempt(self._tries_max)
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_tried_again),
            stop=tried_out | tenacity.stop_before_delay(self._total_timeout_s),
            wait=self._wait_s,
            reraise=True,
        )
        return await retrying(self._open_once, method, path, body)

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked_s = getattr(error, "after_s", None) or 0.0
        doubling = tenacity.wait_exponential(multiplier=self._backoff_s, max=_WAIT_IN_CALL_S_MAX / 2)
        return max(asked_s, (doubling + tenacity.wait_random(0, self._backoff_s))(state))

    async def _open_once(self, method: str, path: str, body: Mapping[str, Json] | None) -> httpx.Response:
        # ASCII JSON: a lone surrogate in foreign text must not break the encoding.
        content = None if body is None else json.dumps(body).encode("ascii")
        headers = {**({} if body is None else {"content-type": "application/json"}), **tracing.headers()}
        with self._classified():
            request = self._http.build_request(method, path, content=content, headers=headers)
            response = await self._http.send(request, stream=True)
            if response.is_success:
                return response
            async with contextlib.aclosing(response):
                raise classify(await self._refusal(response), server=self.server, sent=body)

    async def _refusal(self, response: httpx.Response) -> httpx.Response:
        """Return a copy with the beginning of the body: a refusal may be as long as it likes."""
        import httpx  # noqa: PLC0415 - costs 85 ms and memory that the embedded set-up never needs

        data = b""
        with contextlib.suppress(httpx.HTTPError):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > _REFUSAL_BYTES_MAX:
                    break
        kept = {key: response.headers[key] for key in _HEADERS_KEPT if key in response.headers}
        return httpx.Response(response.status_code, headers=kept, content=self._scrub.words(data))

    @contextlib.contextmanager
    def _classified(self) -> Iterator[None]:
        try:
            yield
        except self._troubles as error:
            raise classify(error, server=self.server) from error

    def _value(self, data: bytes) -> Json:
        try:
            return json.loads(self._scrub.words(data))
        except (ValueError, RecursionError) as error:
            raise classify(error, server=self.server) from error

    def _object(self, line: bytes) -> dict[str, Json]:
        self._check_line(line)
        value = self._value(line)
        if not isinstance(value, dict):
            raise classify(ValueError(), server=self.server)
        return value

    def _check_line(self, line: bytes) -> None:
        if len(line) > self._line_bytes_max:
            raise classify(AnswerTooLargeError(), server=self.server)


def _is_tried_again(error: BaseException) -> bool:
    if not isinstance(error, TopicdError) or error.cause not in _TRIED_AGAIN:
        return False
    return (getattr(error, "after_s", None) or 0.0) <= _WAIT_IN_CALL_S_MAX


def _check_declared(response: httpx.Response, bytes_max: int) -> None:
    declared = response.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:18]) > bytes_max:
        raise AnswerTooLargeError


def _address(base_url: str, headers: Mapping[str, str]) -> httpx.URL:
    import httpx  # noqa: PLC0415 - costs 85 ms and memory that the embedded set-up never needs

    # The address itself stays out of the messages: it may hold a password.
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, UnicodeError):
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        hint = "write it as http://host:port, without ? and #"
        raise Unusable("bad_url", "a server's address is not an http or https URL.", hint=hint)
    if url.userinfo and "authorization" in map(str.lower, headers):
        message = f"{url.host} is to be sent a token and the password in its address, in one and the same header."
        raise Unusable("two_passwords", message, hint="take one of them out, or send the token in another header")
    return url
