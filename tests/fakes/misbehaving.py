"""A server that misbehaves byte by byte: slow, stalled, cut, lying, flooding. An HTTP library would refuse to.

Owns the bytes of each answer, honest or not. Promises honest answers at every route but one, and there, too, while no
way to misbehave is set; that nothing listens after `async with`; and to tell who has not hung up. Never knows what
its answers mean: any backend's are given to it.
"""

import asyncio
import contextlib
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from fakes.serving import either

STALL: Final = {"read_timeout_s": 0.3}
"""What a client needs to notice that nothing comes, before anything else is up."""
STALL_AFTER: Final = {"read_timeout_s": 1.0}
"""… where what comes before it makes another error."""
CRAWL: Final = {"total_timeout_s": 0.5}
"""… that something comes, and no end."""
DRIP_S: Final = 0.02
BLOCK: Final = b"x" * 65536
_CHUNKED: Final = "Transfer-Encoding: chunked"
_TEXT: Final = "Content-Type: text/plain"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route says when it behaves."""

    body: bytes
    kind: str = "application/json"

    def head(self, *lines: str, status: str = "200 OK") -> bytes:
        return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {self.kind}", *lines, "", ""]).encode()

    @property
    def whole(self) -> bytes:
        return self.head(f"Content-Length: {len(self.body)}") + self.body

    @property
    def half(self) -> bytes:
        return self.body[: len(self.body) // 2]


class Way(NamedTuple):
    """A way to misbehave.

    Attributes:
        begins: the bytes that it begins with.
        goes_on: what is sent again and again afterwards; empty for nothing.
        stays: whether the connection stays open when there is nothing more to send.
        pause_s: before each of `goes_on`.
        limits: a client's that let the test see just this way.
    """

    begins: Callable[[Answer], bytes]
    goes_on: bytes = b""
    stays: bool = False
    pause_s: float = 0.0
    limits: Mapping[str, float] = {}


def _says(body: bytes, *lines: str, status: str = "200 OK") -> Way:
    """Return a way to lie with a well-formed answer."""
    return Way(lambda answer: answer.head(f"Content-Length: {len(body)}", *lines, status=status) + body)


def _heads(*lines: str, status: str = "200 OK") -> Callable[[Answer], bytes]:
    return lambda answer: answer.head(*lines, status=status)


def _gzipped(answer: Answer) -> bytes:
    body = gzip.compress(answer.body, mtime=0)
    return answer.head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body


def _claims(length: str) -> Callable[[Answer], bytes]:
    return lambda answer: answer.head(f"Content-Length: {length}") + answer.body


def _cut(answer: Answer) -> bytes:
    return answer.head(f"Content-Length: {len(answer.body)}") + answer.half


def _cut_chunk(answer: Answer) -> bytes:
    return answer.head(_CHUNKED) + b"%x\r\n" % len(answer.body) + answer.half


def _no_last_chunk(answer: Answer) -> bytes:
    return answer.head(_CHUNKED) + b"%x\r\n%b\r\n" % (len(answer.half), answer.half)


def _short(answer: Answer) -> bytes:
    return answer.head(f"Content-Length: {len(answer.half)}", "Connection: close") + answer.body


WAYS: Final[Mapping[str, Way]] = {
    # slow
    "drips": Way(_heads(), b" ", pause_s=DRIP_S, limits=CRAWL),
    "drips its head": Way(lambda _: b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", pause_s=DRIP_S, limits=CRAWL),
    "promises and promises": Way(lambda _: b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", limits=CRAWL),
    # stalled
    "is silent": Way(lambda _: b"", stays=True, limits=STALL),
    "stalls in its head": Way(lambda answer: answer.whole[:20], stays=True, limits=STALL),
    "stalls after its head": Way(_heads("Content-Length: 10"), stays=True, limits=STALL),
    "stalls in its answer": Way(_cut, stays=True, limits=STALL),
    "stalls in a chunk": Way(_cut_chunk, stays=True, limits=STALL),
    "stalls in its refusal": Way(_heads("Content-Length: 9", status="503 Busy"), stays=True, limits=STALL_AFTER),
    # cut
    "hangs up": Way(lambda _: b""),
    "hangs up in its head": Way(lambda answer: answer.whole[:20]),
    "hangs up in its answer": Way(_cut),
    "hangs up in a chunk": Way(_cut_chunk),
    "hangs up between chunks": Way(_no_last_chunk),
    "hangs up in its refusal": Way(_heads("Content-Length: 9", status="500 Oh")),
    # lying
    "speaks something else": Way(lambda _: b"220 smtp.example ESMTP\r\n"),
    "has two lengths": Way(_heads("Content-Length: 3", "Content-Length: 4")),
    "has a length that is none": Way(_claims("many")),
    "has a length below nothing": Way(_claims("-5")),
    "has a length that is too short": Way(_short),
    "has chunks that are none": Way(lambda answer: answer.head(_CHUNKED) + b"zz\r\n" + answer.body),
    "packs what was to come plain": Way(_gzipped),
    "says nothing": _says(b""),
    "says that there is nothing": Way(_heads(status="204 No Content")),
    "sends a web page": _says(b"<!doctype html><title>Welcome</title>\n"),
    "sends a list": _says(b"[]\n"),
    "sends what is too deep": _says(b"[" * 50_000),
    "sends no text": _says(b"\xff\xfe\0\0\x80"),
    "calls an error an answer": _says(b'{"error": "CUDA out of memory"}\n'),
    "has a status that is none": _says(b"", status="799 What"),
    "switches to another protocol": Way(_heads("Upgrade: websocket", status="101 Switching Protocols")),
    "sends round in a circle": _says(b"", "Location: /", status="302 Found"),
    # flooding
    "has a length without end": Way(_claims("9" * 18)),
    "answers without end": Way(_heads(), BLOCK),
    "answers with lines without end": Way(_heads(), b"\n" * 65536),
    "answers with chunks without end": Way(_heads(_CHUNKED), b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)),
    "has a head without end": Way(lambda _: b"HTTP/1.1 200 OK\r\n", b"X-Junk: x\r\n" * 1000),
    "has a header without end": Way(lambda _: b"HTTP/1.1 200 OK\r\nX-Junk: ", BLOCK),
    "has a chunk's head without end": Way(_heads(_CHUNKED), BLOCK.replace(b"x", b"0")),
    "refuses without end": Way(_heads(_TEXT, status="500 Oh"), b"no " * 20_000),
}


@dataclass
class Misbehaving:
    """A server that misbehaves at one of its routes.

    Attributes:
        answers: what each path says; others are not found.
        at: the path at which it misbehaves.
        way: of `WAYS`, by name; empty for none.
        asked: the paths, in the order of the requests.
        held: how many connections are held in a misbehaviour.
        sent_bytes: while misbehaving.
    """

    answers: Mapping[str, Answer]
    at: str
    way: str = ""
    asked: list[str] = field(default_factory=list)
    held: int = 0
    sent_bytes: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._answer(await _path(reader), reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer once; tell whether the connection goes on."""
        self.asked.append(path)
        if self.way and path == self.at:
            self.held += 1
            try:
                await either(self._misbehave(WAYS[self.way], writer), reader.read())
            finally:
                self.held -= 1
            return False
        known = self.answers.get(path)
        writer.write(known.whole if known else b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        return True

    async def _misbehave(self, way: Way, writer: asyncio.StreamWriter) -> None:
        await self._send(way.begins(self.answers[self.at]), writer)
        while way.goes_on:
            await asyncio.sleep(way.pause_s)
            await self._send(way.goes_on, writer)
        if way.stays:
            await asyncio.Event().wait()

    async def _send(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        self.sent_bytes += len(data)
        await writer.drain()


async def _path(reader: asyncio.StreamReader) -> str:
    """Read a request with its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lengths = [line.partition(":")[2] for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    await reader.readexactly(int(lengths[0]) if lengths else 0)
    return head.split(" ")[1]
