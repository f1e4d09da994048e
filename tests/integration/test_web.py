"""The web server, on real sockets."""

import asyncio
import errno
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rig.events import until
from topicd.errors import Unusable
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, TreeState
from topicd.web import Health
from topicd.web.server import BACKLOG_MAX, CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADERS_MAX, LINE_BYTES_MAX, WebServer

HOST = "127.0.0.1"
LIMIT_S = 20.0


class Tree:
    """A tree whose reading can be made to wait."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Event()
        self.answered = threading.Event()
        self.threads: set[int] = set()

    def __call__(self) -> TreeState:
        self.threads.add(threading.get_ident())
        self.asked.set()
        assert self.may_answer.wait(LIMIT_S)
        self.answered.set()
        return TreeState({"scripts": 3}, {}, 1)


class Daemon:
    """What stands around the server."""

    def __init__(self, *, keep_alive_s: float = 5.0, scrape_timeout_s: float = LIMIT_S, port: int = 0) -> None:
        self.tree = Tree()
        self.health: Health | Exception = Health(ok=True)
        self.ready = Health(ok=False, why=("starting", "no disk"))
        self.metrics = Metrics(
            ["scripts"],
            causes=[],
            modes=["poll"],
            reasons=[],
            version="1",
            present=Present(tree=self.tree, watcher=lambda: "poll", ready=lambda: self.ready.ok),
        )
        self.server = WebServer(
            host=HOST,
            port=port,
            metrics=self.metrics,
            health=self.say_health,
            ready=lambda: self.ready,
            keep_alive_s=keep_alive_s,
            scrape_timeout_s=scrape_timeout_s,
        )
        self.port = 0

    def say_health(self) -> Health:
        if isinstance(self.health, Exception):
            raise self.health
        return self.health

    async def start(self) -> None:
        self.port = await self.server.start()

    async def get(self, path: str, method: str = "GET") -> httpx.Response:
        async with httpx.AsyncClient(timeout=LIMIT_S, trust_env=False) as client:
            return await client.request(method, f"http://{HOST}:{self.port}{path}")

    async def raw(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            async with asyncio.timeout(LIMIT_S):
                writer.write(sent)
                return await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    made = Daemon()
    await made.start()
    yield made
    made.tree.may_answer.set()
    await made.server.stop()


async def test_metrics_are_in_the_text_format(daemon: Daemon) -> None:
    daemon.ready = Health(ok=True)
    response = await daemon.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["topicd_ready",] == 1
    assert samples["topicd_jobs", "scripts"] == 3


async def test_the_tree_is_read_off_the_loop_and_anew_each_time(daemon: Daemon) -> None:
    await daemon.get("/metrics")
    assert threading.get_ident() not in daemon.tree.threads
    daemon.tree.asked.clear()
    await daemon.get("/metrics")
    assert daemon.tree.asked.is_set()


async def test_a_slow_tree_holds_up_nothing_else(daemon: Daemon) -> None:
    daemon.tree.may_answer.clear()
    daemon.tree.asked.clear()
    scrape = asyncio.create_task(daemon.get("/metrics"))
    assert await asyncio.to_thread(daemon.tree.asked.wait, LIMIT_S)
    assert (await daemon.get("/healthz")).status_code == 200
    assert not scrape.done()
    daemon.tree.may_answer.set()
    assert (await scrape).status_code == 200


async def test_many_scrapes_use_one_thread(daemon: Daemon) -> None:
    answers = await asyncio.gather(*(daemon.get("/metrics") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(daemon.tree.threads) == 1


async def test_a_scrape_that_takes_too_long_is_given_up() -> None:
    daemon = Daemon(scrape_timeout_s=0.05)
    await daemon.start()
    daemon.tree.may_answer.clear()
    try:
        answers = await asyncio.gather(*(daemon.get("/metrics") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {503}
        assert await asyncio.to_thread(daemon.tree.asked.wait, LIMIT_S)
        release = threading.Timer(LIMIT_S / 2, daemon.tree.may_answer.set)
        release.start()
        await daemon.server.stop()
        assert not daemon.tree.answered.is_set()
        release.cancel()
    finally:
        daemon.tree.may_answer.set()


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/healthz", 200, {"ok": True, "why": []}), ("/readyz", 503, {"ok": False, "why": ["starting", "no disk"]})],
)
async def test_health_is_json(daemon: Daemon, path: str, status: int, body: object) -> None:
    response = await daemon.get(path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(response.text) == body


async def test_health_is_asked_each_time(daemon: Daemon) -> None:
    daemon.ready = Health(ok=True)
    assert (await daemon.get("/readyz")).status_code == 200
    daemon.health = Health(ok=False, why=("odd \udcff name",))
    assert (await daemon.get("/healthz")).status_code == 503


async def test_a_bug_in_a_callback_is_500_and_told_once(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon.health = RuntimeError("no")
    answers = [await daemon.get("/healthz") for _ in range(3)]
    assert {answer.status_code for answer in answers} == {500}
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == ["topicd.web.server"]


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//metrics", "/../etc/passwd", "/%2e%2e", "/metrics%00"])
async def test_all_else_is_404(daemon: Daemon, path: str) -> None:
    answer = await daemon.raw(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/nothing"])
async def test_only_get_and_head_are_allowed(daemon: Daemon, method: str, path: str) -> None:
    response = await daemon.get(path, method)
    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nothing"])
async def test_head_is_get_without_the_body(daemon: Daemon, path: str) -> None:
    got, head = await daemon.get(path), await daemon.get(path, "HEAD")
    assert (got.status_code, got.headers["content-type"]) == (head.status_code, head.headers["content-type"])
    assert got.content
    assert not head.content
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/nothing"])
async def test_every_answer_carries_the_same_safety_headers(daemon: Daemon, path: str) -> None:
    headers = (await daemon.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "topicd"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * LINE_BYTES_MAX + b" HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nX: " + b"x" * HEADER_BYTES_MAX + b"\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(HEADERS_MAX + 1)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ],
    ids=["line", "header", "headers", "tls", "version"],
)
async def test_what_is_too_much_or_no_http_is_refused_without_a_word_in_the_log(
    daemon: Daemon, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = await daemon.raw(request_bytes)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_a_good_request_within_the_limits_is_answered(daemon: Daemon) -> None:
    fill = b"X: " + b"x" * (HEADER_BYTES_MAX // 2) + b"\r\n"
    answer = await daemon.raw(b"GET /" + b"x" * (LINE_BYTES_MAX // 2) + b" HTTP/1.0\r\n" + fill + b"\r\n")
    assert answer.startswith(b"HTTP/1.0 404 ")


async def test_no_access_is_logged(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert (await daemon.raw(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200 ")
    assert [record for record in caplog.records if record.name != "asyncio"] == []


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX: y", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_connection_without_a_whole_request_is_closed(sent: bytes) -> None:
    daemon = Daemon(keep_alive_s=0.2)
    await daemon.start()
    try:
        await daemon.raw(sent)
    finally:
        await daemon.server.stop()


async def test_a_connection_is_kept_for_the_next_request(daemon: Daemon) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await daemon.raw(ask + ask + last)
    assert (answer.count(b"HTTP/1.1 200 "), answer.count(b"HTTP/1.1 503 ")) == (2, 1)


async def test_connections_are_bounded_and_room_comes_back() -> None:
    daemon = Daemon(keep_alive_s=10 * LIMIT_S)  # what is closed meanwhile is closed for being too much
    await daemon.start()
    opened = [await asyncio.open_connection(HOST, daemon.port) for _ in range(2 * CONNECTIONS_MAX)]
    ends = [asyncio.create_task(is_closed(reader)) for reader, _ in opened]
    try:
        surplus = len(opened) - CONNECTIONS_MAX - BACKLOG_MAX
        await until(lambda: sum(end.done() for end in ends) >= surplus, "what is too much is closed", LIMIT_S / 2)
        assert not all(end.done() for end in ends)
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*ends)
    assert await until_answered(daemon)
    await daemon.server.stop()


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(LIMIT_S):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def until_answered(daemon: Daemon) -> bool:
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        with suppress(httpx.TransportError):
            return (await daemon.get("/healthz")).status_code == 200
        await asyncio.sleep(0.01)
    return False


async def test_a_port_in_use_is_said_with_what_to_do(daemon: Daemon) -> None:
    second = Daemon(port=daemon.port)
    with pytest.raises(Unusable) as caught:
        await second.start()
    assert caught.value.cause == "port_in_use"
    assert str(daemon.port) in caught.value.message
    assert "TOPICD_METRICS_PORT" in caught.value.hint
    await second.server.stop()
    assert (await daemon.get("/healthz")).status_code == 200


async def test_an_address_that_is_not_ours_is_said() -> None:
    daemon = Daemon()
    server = WebServer(
        host="192.0.2.1", port=0, metrics=daemon.metrics, health=daemon.say_health, ready=daemon.say_health
    )
    with pytest.raises(Unusable) as caught:
        await server.start()
    assert caught.value.cause == "address_unusable"
    assert "TOPICD_METRICS_HOST" in caught.value.hint


async def test_it_stops_twice_frees_its_port_and_starts_again(daemon: Daemon) -> None:
    await daemon.get("/metrics")
    reader, writer = await asyncio.open_connection(HOST, daemon.port)
    await daemon.server.stop()
    await daemon.server.stop()
    assert await is_closed(reader)
    writer.close()
    with socket.socket() as sock:
        assert sock.connect_ex((HOST, daemon.port)) == errno.ECONNREFUSED
    await daemon.start()
    assert (await daemon.get("/metrics")).status_code == 200


async def test_stopping_before_the_start_is_nothing() -> None:
    await Daemon().server.stop()


async def test_no_thread_stays_after_the_stop(daemon: Daemon) -> None:
    await daemon.get("/metrics")
    [thread] = [each for each in threading.enumerate() if each.name.startswith("topicd-scrape")]
    await daemon.server.stop()
    await asyncio.to_thread(thread.join, LIMIT_S)
    assert not thread.is_alive()
