"""The files of a job over real HTTP: which are shown, in which parts, and that no path leads out of the job."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from rig.site import DONE, LIMIT_S, Site
from rig.tree import finished
from topicd.web.live import WATCHERS_MAX
from topicd.web.pages import FILES_MAX
from topicd.web.server import CONNECTIONS_MAX

FILES = f"/jobs/{DONE}/files"
LARGE_BYTES = 200_000_000


@pytest.mark.parametrize(
    "path",
    [
        "../job.json",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/job.json",
        "images/../../x.png",
        "images%2f..%2ftopic.md",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "images/001.png%00",
        "images/001.png%0a",
        "index.htm",
        "secret.txt",
        ".hidden",
        "audio",
        "images/",
        "",
        "x" * 1000,
        "%ff" * 100,
    ],
)
async def test_no_path_leads_out_of_a_job(site: Site, path: str) -> None:
    (finished(site.spool.output, DONE, sound_s=1) / "secret.txt").write_text("secret")
    assert b" 404 " in (await site.raw(f"{FILES}/{path}")).partition(b"\r\n")[0]


async def test_links_are_not_followed_nor_pipes_waited_for(site: Site, tmp_path: Path) -> None:
    path = finished(site.spool.output, DONE, sound_s=1)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (path / "images" / "002.png").symlink_to(tmp_path / "secret.png")
    (path / "script.md").unlink()
    os.mkfifo(path / "script.md")
    (path / "captions.srt").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "001.wav").write_bytes(b"secret")
    (path / "audio").symlink_to(tmp_path / "elsewhere")
    for name in ("images/002.png", "audio/001.wav", "script.md", "captions.srt"):
        assert (await site.get(f"{FILES}/{name}")).status_code == 404, name


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=1000-1999", 206, slice(1000, 2000)),
        ("bytes=0-", 206, slice(0, None)),
        ("bytes=1000-", 206, slice(1000, None)),
        ("bytes=-500", 206, slice(-500, None)),
        ("bytes=-99999999", 206, slice(0, None)),
        ("bytes=1000-99999999", 206, slice(1000, None)),
        ("bytes=99999999-", 416, slice(0)),
        ("bytes=5-2", 200, slice(0, None)),
        ("bytes=0-1,5-6", 200, slice(0, None)),
        ("lines=1-2", 200, slice(0, None)),
    ],
)
async def test_sound_can_be_sought(site: Site, asked: str, status: int, part: slice) -> None:
    data = (finished(site.spool.output, DONE, sound_s=2) / "audio.wav").read_bytes()
    answer = await site.get(f"{FILES}/audio.wav", Range=asked)
    assert (answer.status_code, answer.content) == (status, data[part])
    first, last, _ = part.indices(len(data))
    told = {206: f"bytes {first}-{last - 1}/{len(data)}", 416: f"bytes */{len(data)}", 200: None}
    assert answer.headers.get("content-range") == told[status]


async def test_a_file_is_sent_once_and_again_when_it_has_changed(site: Site) -> None:
    path = finished(site.spool.output, DONE, sound_s=1) / "audio.wav"
    first = await site.get(f"{FILES}/audio.wav")
    kept = first.headers["etag"]
    assert (await site.get(f"{FILES}/audio.wav", **{"If-None-Match": kept})).status_code == 304
    assert (await site.get(f"{FILES}/audio.wav", **{"If-Range": kept, "Range": "bytes=5-9"})).status_code == 206
    path.write_bytes(first.content + b"more")
    assert (await site.get(f"{FILES}/audio.wav", **{"If-None-Match": kept})).status_code == 200
    assert (await site.get(f"{FILES}/audio.wav", **{"If-Range": kept, "Range": "bytes=5-9"})).status_code == 200
    head = await site.get(f"{FILES}/audio.wav", "HEAD")
    assert (head.headers["content-length"], head.content) == (str(len(first.content) + 4), b"")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("topic.md", "text/plain; charset=utf-8"),
        ("audio.wav", "audio/wav"),
        ("captions.vtt", "text/vtt; charset=utf-8"),
        ("images/title.png", "image/png"),
        ("manifest.json", "application/json"),
    ],
)
async def test_files_say_what_they_are(site: Site, name: str, kind: str) -> None:
    finished(site.spool.output, DONE, sound_s=1)
    answer = await site.get(f"{FILES}/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


async def test_an_empty_file_is_a_file(site: Site) -> None:
    (finished(site.spool.output, DONE) / "topic.md").write_bytes(b"")
    answer = await site.get(f"{FILES}/topic.md")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "0", b"")


async def test_a_page_of_a_job_is_saved_and_never_run_here(site: Site) -> None:
    (finished(site.spool.output, DONE) / "index.html").write_text("<script>alert(1)</script>")
    answer = await site.get(f"{FILES}/index.html")
    assert answer.headers["content-disposition"] == 'attachment; filename="index.html"'
    assert "script-src 'self'" in answer.headers["content-security-policy"]


async def test_a_file_that_becomes_shorter_is_not_taken_for_whole(site: Site) -> None:
    path = finished(site.spool.output, DONE) / "audio.wav"
    path.touch()
    os.truncate(path, LARGE_BYTES)
    async with (
        httpx.AsyncClient(base_url=site.url, trust_env=False, timeout=LIMIT_S) as client,
        client.stream("GET", f"{FILES}/audio.wav") as answer,
    ):
        os.truncate(path, 1_000_000)
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    assert (await site.get("/")).status_code == 200


async def test_who_takes_files_and_does_not_read_them_is_bounded_and_leaves_room(site: Site) -> None:
    path = finished(site.spool.output, DONE) / "audio.wav"
    path.touch()
    os.truncate(path, LARGE_BYTES)
    assert FILES_MAX + WATCHERS_MAX < CONNECTIONS_MAX
    heads, writers = list[bytes](), list[asyncio.StreamWriter]()
    for _ in range(FILES_MAX + 1):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1024)
        writers.append(writer)
        writer.write(f"GET {FILES}/audio.wav HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        heads.append(await asyncio.wait_for(reader.readline(), LIMIT_S))
    assert [head.split()[1] for head in heads] == [b"200"] * FILES_MAX + [b"503"]
    assert (await site.get("/metrics")).status_code == 200
    assert (await site.get("/")).status_code == 200
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
