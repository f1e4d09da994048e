"""The page's paths: overview, a job, the gallery, a job's files, and the events that keep the overview fresh.

Owns what answers what. Promises to change nothing, to read the tree beside the event loop, that no answer may run a
script or show a thing that is not the daemon's own, and that what is not there is told as such. Never makes markup.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web

from topicd.threads import offload
from topicd.web import files, views
from topicd.web.html import tag
from topicd.web.live import Live
from topicd.web.texts import Words, chosen

Json = dict[str, Any]

PER_PAGE: Final = 24
NAME_CHARS_MAX: Final = 255
HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "topicd",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_STATIC: Final[Mapping[str, str]] = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows, read from the tree; each may wait for the disk.

    Attributes:
        status: as `topicd status --json`.
        show: as `topicd show --json`, of a job by its exact id; None when there is none.
        story: its title, language, scenes and files.
        gallery: a page of finished jobs, by its number and how many are on one.
        folder: of a job; None when there is none.
    """

    status: Callable[[], Json]
    show: Callable[[str], Json | None]
    story: Callable[[str], Json]
    gallery: Callable[[int, int], Json]
    folder: Callable[[str], Path | None]


class Pages:
    """Answers for all paths but the monitors'.

    Args:
        shown: what there is to show.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._live = Live(self._look)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer to a GET or HEAD."""
        words = chosen(request.query.get("lang", ""), request.headers.get("Accept-Language", ""))
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")[1:]]
        if parts[0] == "jobs":
            return await self._of_job(words, parts[1:])
        match parts:
            case [""]:
                return await self._overview(words)
            case ["events"]:
                return await self._events(request, words)
            case ["gallery"]:
                return await self._gallery(words, request.query.get("page", "1"))
            case ["static", name] if name in _STATIC:
                return _static(name)
        return _missing(words, "not_found")

    async def _of_job(self, words: Words, parts: Sequence[str]) -> web.StreamResponse:
        match parts:
            case [name] if _is_name(name):
                return await self._job(words, name)
            case [name, "files", *path] if _is_name(name):
                return await self._file(name, "/".join(path))
        return _missing(words, "no_job")

    async def aclose(self) -> None:
        """Stop looking. Safe to call twice."""
        await self._live.aclose()

    async def _look(self) -> Json:
        return await offload(self._shown.status)

    async def _overview(self, words: Words) -> web.Response:
        parts = views.overview(words, await self._look())
        events = f"/events?lang={words.language}"
        return _html(views.document(words, words("overview"), views.sections(words, parts), here="/", refresh=events))

    async def _gallery(self, words: Words, number: str) -> web.Response:
        page = int(number[:6]) if number.isascii() and number.isdecimal() else 1
        told = await offload(self._shown.gallery, page, PER_PAGE)
        return _html(views.document(words, words("gallery"), views.gallery(words, told), here="/gallery"))

    async def _job(self, words: Words, name: str) -> web.Response:
        told = await offload(self._shown.show, name)
        if told is None:
            return _missing(words, "no_job")
        story = await offload(self._shown.story, name)
        for product in told["products"]:
            product["shown"] = files.is_shown(product["path"])
        return _html(views.document(words, story["title"] or name, views.job(words, told, story), here=f"/jobs/{name}"))

    async def _file(self, name: str, path: str) -> web.StreamResponse:
        found = await offload(self._found, name, path)
        if found is None:
            return _missing(Words("en"), "not_found")
        return web.FileResponse(found, headers={**HEADERS, "Content-Type": files.type_of(found)})

    def _found(self, name: str, path: str) -> Path | None:
        folder = self._shown.folder(name)
        return files.found(folder, path) if folder else None

    async def _events(self, request: web.BaseRequest, words: Words) -> web.StreamResponse:
        if self._live.is_full:
            return web.Response(text="too many watch\n", status=503, headers={**HEADERS, "Retry-After": "30"})
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async with contextlib.aclosing(self._live.states()) as states:
            async for state in states:
                if state is None:
                    await response.write(b": still here\n\n")
                    continue
                data = json.dumps(dict(views.overview(words, state)))
                await response.write(f"event: state\ndata: {data}\n\n".encode())
        return response


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_CHARS_MAX and not name.startswith(".") and "/" not in name and name.isprintable()


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, headers=HEADERS, content_type="text/html")


def _missing(words: Words, key: str) -> web.Response:
    body = tag("p", tag("a", words("back"), href=f"/?lang={words.language}"))
    return _html(views.document(words, words(key), body, here="/"), 404)


def _static(name: str) -> web.Response:
    data = (package_files("topicd.web") / "static" / name).read_bytes()
    headers = {**HEADERS, "Cache-Control": "no-cache"}
    return web.Response(body=data, headers=headers, content_type=_STATIC[name], charset="utf-8")
