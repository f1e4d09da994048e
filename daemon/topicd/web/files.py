"""The files of a job that the page may show, and how they are sent.

Owns which they are. Promises that no path leads out of the job: a name must be one of a fixed set, and each part of it
is opened from the descriptor of the one before, never through a link, so that nothing planted there or moved meanwhile
is followed. Promises, too, that a disk which hangs holds a thread and not the loop: that is why aiohttp's own sending,
which opens by path and has the loop read, is not used. Never writes.
"""

import asyncio
import os
import re
import stat
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from aiohttp import web

CHUNK_BYTES: Final = 262_144
_NAMES: Final = re.compile(
    r"(?:topic|script)\.md|index\.html|audio\.wav|captions\.(?:vtt|srt)"
    r"|(?:job|scenes|timeline|manifest|reason)\.json|audio/[0-9]{3}\.wav|images/(?:title|[0-9]{3})\.png",
    re.ASCII,
)
_TYPES: Final[Mapping[str, str]] = {
    ".md": "text/plain; charset=utf-8",
    ".srt": "text/plain; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".wav": "audio/wav",
    ".png": "image/png",
}
_SAVED: Final = frozenset({".html", ".srt"})
"""Not shown but saved: a page of its own must not run as one of ours."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is open for reading; who has it closes it.

    Attributes:
        fd: its descriptor.
        name: relative to its job.
        size: bytes.
        tag: changes whenever the file does.
    """

    fd: int
    name: str
    size: int
    tag: str

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def is_shown(name: str) -> bool:
    """Tell whether a file of that name, relative to its job, may be shown."""
    return _NAMES.fullmatch(name) is not None


def opened(job: Path, name: str) -> Opened | None:
    """Open a job's file; None for what may not be shown, or is not there as a file of its own. Waits for the disk."""
    if not is_shown(name):
        return None
    *folders, last = name.split("/")
    try:
        fd = _open(str(job), os.O_DIRECTORY)
        for folder in folders:
            fd = _open(folder, os.O_DIRECTORY, fd)
        fd = _open(last, os.O_NONBLOCK, fd)
    except OSError:
        return None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        return None
    return Opened(fd, name, found.st_size, f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}")


def _open(name: str, flags: int, folder: int | None = None) -> int:
    """Open a name without following a link, and close the folder it is in."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    finally:
        if folder is not None:
            os.close(folder)


async def send(
    request: web.BaseRequest, file: Opened, headers: Mapping[str, str], threads: Executor
) -> web.StreamResponse:
    """Answer with a file, or the part of it that `Range` asks for (RFC 9110, 14).

    Args:
        request: a GET or HEAD.
        file: what is sent; stays open.
        headers: of every answer.
        threads: where it is read.
    """
    ending = PurePosixPath(file.name).suffix
    given = {**headers, "Content-Type": _TYPES[ending], "Accept-Ranges": "bytes", "ETag": f'"{file.tag}"'}
    if ending in _SAVED:
        given["Content-Disposition"] = f'attachment; filename="{PurePosixPath(file.name).name}"'
    if any(each.value in {"*", file.tag} for each in request.if_none_match or ()):
        return web.Response(status=304, headers=given)
    asked = _asked(request, file)
    part = range(file.size) if asked is None else range(file.size)[asked]
    if asked is not None:
        if not part:
            return web.Response(status=416, headers={**given, "Content-Range": f"bytes */{file.size}"})
        given["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{file.size}"
    response = web.StreamResponse(status=200 if asked is None else 206, headers=given)
    response.content_length = len(part)
    await response.prepare(request)
    if request.method == "GET":
        await _write(response, file, part, threads)
    return response


async def _write(response: web.StreamResponse, file: Opened, part: range, threads: Executor) -> None:
    loop, at = asyncio.get_running_loop(), part.start
    while at < part.stop:
        try:
            block = await loop.run_in_executor(threads, os.pread, file.fd, min(CHUNK_BYTES, part.stop - at), at)
        except OSError as error:
            raise ConnectionAbortedError(f"{file.name} cannot be read on") from error
        if not block:  # it was cut meanwhile: the answer cannot become whole, and must not look so
            raise ConnectionAbortedError(f"{file.name} became shorter")
        await response.write(block)
        at += len(block)
    await response.write_eof()


def _asked(request: web.BaseRequest, file: Opened) -> slice | None:
    """Return which bytes are asked for; None: all. A `Range` that is none, or is of another state of it, is ignored."""
    if request.headers.get("If-Range", f'"{file.tag}"') != f'"{file.tag}"':
        return None
    try:
        asked = request.http_range
    except ValueError:
        return None
    return None if asked.start is None else asked
