"""A home and the server that shows it, in this process, on a real socket."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx

from topicd.durable import Durable
from topicd.showing import Showing
from topicd.spool import Spool
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry.events import Events
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, TreeState
from topicd.web import Health
from topicd.web.pages import Pages
from topicd.web.pulse import Pulse
from topicd.web.server import STOP_TIMEOUT_S, WebServer

DONE, FAILED = "20261127-100000-000000-tides", "20261127-100001-000000-bad"
OPEN = "20261127-100002-000000-open"
LIMIT_S = 20.0


class Slow(Showing):
    """What is shown, read from a disk that can be made to wait; and how often it was looked at."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.looks = 0

    def overview(self) -> dict[str, Any]:
        self.looks += 1
        assert self.may_answer.wait(LIMIT_S)
        return super().overview()


class Site:
    """The home and its server; `stop_timeout_s` is the server's, further limits are those of its pages."""

    def __init__(
        self,
        path: Path,
        hosts: tuple[str, ...] = (),
        command: str = "topicd",
        *,
        stop_timeout_s: float = STOP_TIMEOUT_S,
        **limits: float,
    ) -> None:
        self.spool = Spool(home=path, input_dir=path / "input", output_dir=path / "output")
        self.store = Store(self.spool, Durable())
        self.store.open()
        self.ready = Health(ok=True, more={"downloads": [], "servers": [], "warnings": []})
        self.pulse = Pulse()
        self.events = Events([self.pulse])
        self.shown = Slow(
            self.spool, self.store, lambda: self.ready, self.pulse, {Stage.AUDIO: "piper"}, command=command
        )
        present = Present(tree=lambda: TreeState({}, {}, 0))
        self.pages = Pages(self.shown, self.pulse, hosts, **limits)
        self.server = WebServer(
            host="127.0.0.1",
            port=0,
            metrics=Metrics([], causes=[], modes=[], reasons=[], version="1", present=present),
            health=lambda: Health(ok=True),
            ready=lambda: self.ready,
            pages=self.pages,
            stop_timeout_s=stop_timeout_s,
        )
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.port = await self.server.start()

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=LIMIT_S) as client:
            return await client.request(method, path, headers=headers)

    async def words(self, path: str) -> str:
        """Return what a page says, as text."""
        return Tags((await self.get(path)).text).words

    async def raw(self, path: str) -> bytes:
        """Ask for a path as it is: a client would tidy it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), LIMIT_S)
        writer.close()
        return answer

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[AsyncIterator[str]]:
        """Watch the events for the length of a block; see `news`."""
        async with (
            httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=LIMIT_S) as client,
            client.stream("GET", "/events") as answer,
        ):
            assert answer.headers["content-type"] == "text/event-stream"
            yield answer.aiter_lines()

    def finish_something(self) -> None:
        """Have the daemon say that something happened."""
        self.events.emit("job.done", job=DONE, seconds=1.0, output="")


class Tags(HTMLParser):
    """Which elements a page has, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names = list[str]()
        self.words = ""
        self.feed(page)

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [key for key, _ in attrs if key.startswith("on") or key == "style"], attrs
        self.names.append(name)

    def handle_data(self, data: str) -> None:
        self.words += data


async def news(lines: AsyncIterator[str]) -> str:
    """Return the next thing that the events tell."""
    async with asyncio.timeout(LIMIT_S):
        async for line in lines:
            if line.startswith("data: "):
                return line.removeprefix("data: ")
    raise EOFError("the events ended")


async def until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(0.01)
