"""The small web server: `/metrics`, `/healthz`, `/readyz`, and the pages that people look at.

Owns one listening address on the daemon's own loop. Promises to answer only GET and HEAD, to change nothing,
to keep the reading of the tree off the loop, and to bound what clients can hold: line, headers, connections,
seconds. Importing it brings in all of aiohttp, whose package cannot be had without its client; so the daemon
imports it when it starts, and no verb of the command line does.
"""

import asyncio
import errno
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

from aiohttp import web

from topicd.errors import Unusable
from topicd.telemetry.metrics import CONTENT_TYPE, Metrics
from topicd.web import Health
from topicd.web.pages import Pages

LINE_BYTES_MAX: Final = 2_048
HEADER_BYTES_MAX: Final = 4_096
HEADERS_MAX: Final = 50
CONNECTIONS_MAX: Final = 64
BACKLOG_MAX: Final = 32
KEEP_ALIVE_S: Final = 20.0
LINGER_S: Final = 1.0
SCRAPE_TIMEOUT_S: Final = 8.0
STOP_TIMEOUT_S: Final = 2.0

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "topicd"}
_log = logging.getLogger(__name__)


class WebServer:
    """Serves the metrics and the two health answers.

    Args:
        host: address to listen on.
        port: 0 for any free one.
        metrics: rendered anew for each scrape, in a thread of its own.
        health: whether the process works; asked on the loop, so it must not wait for anything.
        ready: whether jobs are taken; likewise.
        pages: what people look at; None: nothing.
        keep_alive_s: seconds after which a connection without a whole request is closed.
        scrape_timeout_s: seconds after which a scrape is given up.
        stop_timeout_s: how long a stop waits for answers under way.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        metrics: Metrics,
        health: Callable[[], Health],
        ready: Callable[[], Health],
        pages: Pages | None = None,
        keep_alive_s: float = KEEP_ALIVE_S,
        scrape_timeout_s: float = SCRAPE_TIMEOUT_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._host = host
        self._port = port
        self._metrics = metrics
        self._health = health
        self._ready = ready
        self._pages = pages
        self._keep_alive_s = keep_alive_s
        self._scrape_timeout_s = scrape_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._reported: set[str] = set()
        self._runner: web.ServerRunner | None = None
        self._listener: asyncio.Server | None = None
        self._scraper: ThreadPoolExecutor | None = None

    async def start(self) -> int:
        """Listen.

        Returns:
            The port; the first one where the host has several addresses.

        Raises:
            Unusable: the port is taken (`port_in_use`), or the address cannot be had (`address_unusable`).
        """
        # aiohttp logs a traceback for each malformed request, which any client could flood the log with.
        quiet = _log.getChild("protocol")
        quiet.setLevel(logging.CRITICAL)
        server = web.Server(
            self._answer,
            access_log=None,
            logger=quiet,
            keepalive_timeout=self._keep_alive_s,
            lingering_time=LINGER_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=self._stop_timeout_s)
        await self._runner.setup()
        self._scraper = ThreadPoolExecutor(1, "topicd-scrape")
        try:
            self._listener = await self._listen(server)
        except OSError as error:
            await self.stop()
            raise self._unusable(error) from error
        return cast("int", self._listener.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and close every connection. Safe to call twice, or before `start`."""
        if self._listener:
            self._listener.close()
        if self._pages:
            await self._pages.aclose()
        if self._runner:
            await self._runner.cleanup()
        if self._scraper:
            self._scraper.shutdown(wait=False, cancel_futures=True)
        self._listener = self._runner = self._scraper = None

    async def _listen(self, server: web.Server) -> asyncio.Server:
        def protocol() -> asyncio.Protocol:
            return _Refusal() if len(server.connections) >= CONNECTIONS_MAX else server()

        loop = asyncio.get_running_loop()
        return await loop.create_server(protocol, self._host, self._port, backlog=BACKLOG_MAX)

    def _unusable(self, error: OSError) -> Unusable:
        where = f"{self._host} port {self._port}"
        if error.errno == errno.EADDRINUSE:
            return Unusable(
                "port_in_use",
                f"Something else listens on {where}.",
                hint="Stop it, or give TOPICD_METRICS_PORT another port.",
            )
        return Unusable(
            "address_unusable",
            f"Cannot listen on {where}: {error.strerror or error}.",
            hint="Check TOPICD_METRICS_HOST and TOPICD_METRICS_PORT.",
        )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in {"GET", "HEAD"}:
            return _page("only GET and HEAD\n", status=405, Allow="GET, HEAD")
        try:
            return await self._page_at(request)
        except ConnectionError:
            raise  # whoever asked has gone, or what is being sent broke off: aiohttp closes the connection
        except Exception:  # noqa: BLE001 - a bug in a callback is answered and told, once
            if request.path not in self._reported:
                self._reported.add(request.path)
                _log.exception("a bug in answering %s; not said again", request.path)
            return _page("a bug; see the log\n", status=500)

    async def _page_at(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.path:
            case "/metrics":
                return await self._scrape()
            case "/healthz":
                return _told(self._health())
            case "/readyz":
                return _told(self._ready())
            case _ if self._pages:
                return await self._pages.answer(request)
            case _:
                return _page("no such page\n", status=404)

    async def _scrape(self) -> web.Response:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._scrape_timeout_s):
                body = await loop.run_in_executor(self._scraper, self._metrics.render)
        except TimeoutError:
            return _page(f"the tree was not read within {self._scrape_timeout_s:g} s\n", status=503)
        return web.Response(body=body, headers={**_HEADERS, "Content-Type": CONTENT_TYPE})


class _Refusal(asyncio.Protocol):
    """Closes at once the connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()


def _told(health: Health) -> web.Response:
    text = json.dumps({"ok": health.ok, "why": list(health.why), **health.more}) + "\n"
    return web.Response(text=text, status=200 if health.ok else 503, headers=_HEADERS, content_type="application/json")


def _page(text: str, *, status: int = 200, **headers: str) -> web.Response:
    return web.Response(text=text, status=status, headers={**_HEADERS, **headers})
