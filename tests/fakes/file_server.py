"""A server with one file, which keeps to RFC 9110 as long as nobody tells it otherwise.

Owns what it answers. Promises that each request is noted, and that what it is told to do wrong, it does once for each
entry of `wrongs`, first come first served; afterwards it is honest. Never closes before its answer is sent.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from fakes.serving import RawServer, either

RANGE: Final = re.compile(r"bytes=(\d+)-")
REASONS: Final = {200: "OK", 206: "Partial Content", 302: "Found", 416: "Range Not Satisfiable"}


class Reply(NamedTuple):
    """An answer as it is sent; `body` may be less than the headers say."""

    status: int
    headers: dict[str, str]
    body: bytes
    stalls: bool = False


Wrong = Callable[[dict[str, str], Reply], Reply]


class FileServer(RawServer):
    """Serves `data` at any path.

    Attributes:
        data: the file.
        etag: with its quotes; empty for none.
        asked: each request's headers, their names in lower case; `:target` is what was asked for.
        wrongs: what to do wrong, each once.
        always: what to do wrong each time.
        hangs_up: set: who stalls, closes.
    """

    def __init__(self, data: bytes, etag: str = '"one"') -> None:
        super().__init__(self._converse)
        self.data = data
        self.etag = etag
        self.asked = list[dict[str, str]]()
        self.wrongs = list[Wrong]()
        self.always: Wrong | None = None
        self.hangs_up = asyncio.Event()

    def honest(self, headers: dict[str, str]) -> Reply:
        """Return what RFC 9110 wants."""
        given = {"ETag": self.etag} if self.etag else {}
        found = RANGE.fullmatch(headers.get("range", ""))
        if not found or headers.get("if-range", self.etag) != self.etag:
            return Reply(200, {**given, "Content-Length": str(len(self.data))}, self.data)
        first, total = int(found[1]), len(self.data)
        if first >= total:
            return Reply(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"}, b"")
        body = self.data[first:]
        said = {"Content-Range": f"bytes {first}-{total - 1}/{total}", "Content-Length": str(len(body))}
        return Reply(206, {**given, **said}, body)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines if each)}
        headers[":target"] = line.split(" ")[1]
        self.asked.append(headers)
        reply = self.honest(headers)
        wrong = self.wrongs.pop(0) if self.wrongs else self.always
        reply = wrong(headers, reply) if wrong else reply
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Other')}\r\n{head}\r\n".encode("latin-1"))
        writer.write(reply.body)
        await writer.drain()
        if reply.stalls:
            await either(reader.read(), self.hangs_up.wait())
