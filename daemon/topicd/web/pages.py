"""The page's paths: overview, a job, the gallery, a job's files, and the events that keep a page fresh.

Owns what answers what. Promises to change nothing, to read the home beside the event loop in threads of its own, so
that a disk which hangs costs nobody but who looks, that no answer may run a script or show a thing that is not the
daemon's own, and that what is not there is told as such. Never makes markup.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote, unquote

from aiohttp import web

from topicd.web import assets, files
from topicd.web.files import Opened
from topicd.web.frame import document
from topicd.web.gallery import gallery
from topicd.web.hosts import is_known
from topicd.web.html import tag
from topicd.web.job_page import job_page
from topicd.web.live import STILL_S, Live
from topicd.web.overview import overview
from topicd.web.pulse import Pulse
from topicd.web.texts import Words, chosen

Json = dict[str, Any]
R = TypeVar("R")

PER_PAGE: Final = 24
NAME_BYTES_MAX: Final = 255
THREADS_MAX: Final = 4
READ_TIMEOUT_S: Final = 8.0
FILES_MAX: Final = 24
"""Sent at once. With those who watch it leaves connections for whoever asks for the metrics."""
WRITE_TIMEOUT_S: Final = 10.0
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "topicd",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_FILE_HEADERS: Final = {**HEADERS, "Cache-Control": "private, no-cache"}


class NoDisk(Exception):
    """What was to be shown could not be read, or not in time."""


class Shown(Protocol):
    """What the page shows, read from the home; each call may wait for the disk."""

    def overview(self) -> Json:
        """Return what waits, runs and failed, and what it stands on."""
        ...

    def job(self, name: str) -> Json | None:
        """Return all of a job by its exact id; None when there is none."""
        ...

    def gallery(self, page: int, per_page: int) -> Json:
        """Return a page of finished jobs, by its number and how many are on one."""
        ...

    def folder(self, name: str) -> Path | None:
        """Return the directory of a job; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: what was seen, a name for just that, and the overview of it in each language that was asked for."""

    told: Json = field(compare=False)
    name: str
    pages: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)

    def overview(self, words: Words) -> str:
        """Return the page, made once."""
        key = words.language, words.link("/")
        if key not in self.pages:
            self.pages[key] = overview(words, self.told, self.name)
        return self.pages[key]


class Pages:
    """Answers for all paths but the monitors'.

    Args:
        shown: what there is to show.
        pulse: tells that something happened.
        hosts: names that the page answers to beside those that nobody else can have.
        read_timeout_s: how long the disk is waited for.
        still_s: between two looks for those who watch, at most.
    """

    def __init__(
        self,
        shown: Shown,
        pulse: Pulse,
        hosts: Collection[str] = (),
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        still_s: float = STILL_S,
    ) -> None:
        self._shown = shown
        self._hosts = frozenset(hosts)
        self._read_timeout_s = read_timeout_s
        self._live = Live(self._look, pulse, still_s=still_s)
        self._threads = ThreadPoolExecutor(THREADS_MAX, "topicd-page")
        self._sending = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer to a GET or HEAD."""
        if not is_known(request.headers.get("Host", ""), self._hosts):
            return _refused()
        words = chosen(request.query.get("lang", ""), request.headers.get("Accept-Language", ""))
        path = request.raw_path.partition("?")[0]
        parts = [unquote(part, errors="surrogateescape") for part in path.split("/")[1:]]
        try:
            return await self._page_at(request, words, parts)
        except NoDisk:
            return _told(words, "no_disk", 503)

    async def aclose(self) -> None:
        """Stop looking. Safe to call twice."""
        await self._live.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _page_at(self, request: web.BaseRequest, words: Words, parts: Sequence[str]) -> web.StreamResponse:
        match parts:
            case [""]:
                return _html((await self._live.now()).overview(words))
            case ["events"]:
                return await self._events(request)
            case ["gallery"]:
                return await self._gallery(words, request.query.get("page", "1"))
            case ["jobs", name, *rest] if _is_name(name):
                return await self._of_job(request, words, name, rest)
            case ["static", name]:
                return _static(name) or _told(words, "not_found")
        return _told(words, "not_found")

    async def _of_job(
        self, request: web.BaseRequest, words: Words, name: str, rest: Sequence[str]
    ) -> web.StreamResponse:
        match rest:
            case []:
                return await self._job(words, name)
            case ["files", *path]:
                return await self._file(request, words, name, "/".join(path))
        return _told(words, "not_found")

    async def _look(self) -> Seen:
        told = await self._read(self._shown.overview)
        return Seen(told, hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16])

    async def _gallery(self, words: Words, number: str) -> web.Response:
        page = int(number[:6]) if number.isascii() and number.isdecimal() else 1
        return _html(gallery(words, await self._read(self._shown.gallery, page, PER_PAGE)))

    async def _job(self, words: Words, name: str) -> web.Response:
        told = await self._read(self._shown.job, name)
        if told is None:
            return _told(words, "no_job")
        for product in told["products"]:
            product["shown"] = files.is_shown(product["path"])
        return _html(job_page(words, told, f"/jobs/{quote(name, safe='', errors='surrogateescape')}"))

    async def _file(self, request: web.BaseRequest, words: Words, name: str, path: str) -> web.StreamResponse:
        if self._sending >= FILES_MAX:
            return web.Response(text="busy\n", status=503, headers={**HEADERS, "Retry-After": "2"})
        file = await self._read(self._opened, name, path, late=_close)
        if file is None:
            return _told(words, "not_found")
        self._sending += 1
        try:
            return await files.send(request, file, _FILE_HEADERS, self._threads)
        finally:
            self._sending -= 1
            file.close()

    def _opened(self, name: str, path: str) -> Opened | None:
        folder = self._shown.folder(name)
        return files.opened(folder, path) if folder else None

    async def _events(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._live.is_full:
            return web.Response(text="too many watch\n", status=503, headers={**HEADERS, "Retry-After": "30"})
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async with contextlib.aclosing(self._live.news()) as news:
            async for seen in news:
                line = f"data: {seen.name}\n\n" if seen else ": still here\n\n"
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await response.write(line.encode())
                except TimeoutError as error:
                    raise ConnectionAbortedError("who watches does not read") from error
        return response

    async def _read(self, work: Callable[..., R], *args: object, late: Callable[[R], None] = lambda _: None) -> R:
        """Run what may wait for the disk in a thread of the page's.

        Args:
            work: what is run.
            args: its arguments.
            late: is given the result that came when nobody waited any more.

        Raises:
            NoDisk: it failed, or took too long.
        """
        future = self._threads.submit(work, *args)
        try:
            async with asyncio.timeout(self._read_timeout_s):
                return await asyncio.shield(asyncio.wrap_future(future))
        except (OSError, asyncio.CancelledError) as error:
            if not future.cancel():
                future.add_done_callback(lambda done: None if done.exception() else late(done.result()))
            if isinstance(error, OSError):
                raise NoDisk from error
            raise


def _close(file: Opened | None) -> None:
    if file:
        file.close()


def _is_name(name: str) -> bool:
    """Tell whether a name may be a job's: one step down from where jobs are, and no further."""
    data = name.encode(errors="surrogateescape")
    return 0 < len(data) <= NAME_BYTES_MAX and not name.startswith(".") and "/" not in name and "\0" not in name


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers=HEADERS, content_type="text/html")


def _static(name: str) -> web.Response | None:
    asset = assets.asset(name)
    headers = {**HEADERS, "Cache-Control": assets.KEPT}
    return web.Response(body=asset.data, headers=headers, content_type=asset.kind, charset="utf-8") if asset else None


def _told(words: Words, key: str, status: int = 404) -> web.Response:
    body = tag("section", tag("h1", words(key)), tag("p", tag("a", words("back"), href=words.link("/"))), id="headline")
    return _html(document(words, words(key), body, here="/"), status)


def _refused() -> web.Response:
    text = "This daemon is not known by the name that was asked for. If it is yours, add it to TOPICD_PAGE_HOSTS.\n"
    return web.Response(text=text, status=421, headers=HEADERS)
