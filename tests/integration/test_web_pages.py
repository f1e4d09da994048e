"""The page's paths over real HTTP: what they show, and what they do not let anybody do."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from rig.tree import failed, finished
from topicd.durable import Durable
from topicd.showing import shown
from topicd.spool import Spool
from topicd.store import Store
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, TreeState
from topicd.web import Health
from topicd.web.html import join, tag
from topicd.web.live import WATCHERS_MAX
from topicd.web.pages import HEADERS, Pages
from topicd.web.server import WebServer
from topicd.web.texts import _WORDS, LANGUAGES, Words, chosen

DONE, FAILED = "20261127-100000-000000-tides", "20261127-100001-000000-bad"
HOSTILE = "</title><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
LIMIT_S = 20.0


class Site:
    """A home, and the server that shows it."""

    def __init__(self, path: Path) -> None:
        self.spool = Spool(home=path, input_dir=path / "input", output_dir=path / "output")
        self.store = Store(self.spool, Durable())
        self.store.open()
        self.ready = Health(ok=True, more={"downloads": [], "servers": [], "warnings": []})
        present = Present(tree=lambda: TreeState({}, {}, 0))
        self.server = WebServer(
            host="127.0.0.1",
            port=0,
            metrics=Metrics([], causes=[], modes=[], reasons=[], version="1", present=present),
            health=lambda: Health(ok=True),
            ready=lambda: self.ready,
            pages=Pages(shown(self.spool, self.store, lambda: self.ready)),
        )
        self.url = ""

    async def get(self, path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.request(method, path, headers=headers)

    async def raw(self, path: str) -> bytes:
        """Ask for a path as it is: a client would tidy it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = await asyncio.wait_for(reader.read(), LIMIT_S)
        writer.close()
        return answer


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    made.url = f"http://127.0.0.1:{await made.server.start()}"
    yield made
    await made.server.stop()


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


async def test_the_overview_shows_what_is_there(site: Site) -> None:
    finished(site.spool.output, DONE)
    failed(site.spool.place("failed"), FAILED, "Nothing came.")
    page = await site.get("/")
    words = Tags(page.text).words
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for told in ("Ready", "1 Failed", "1 Finished", "Nothing came.", "hint: Nothing came."):
        assert told in words, told


@pytest.mark.parametrize("path", ["/", "/gallery", f"/jobs/{DONE}", f"/jobs/{FAILED}"])
async def test_hostile_names_and_topics_are_text(site: Site, path: str) -> None:
    finished(site.spool.output, DONE, title=HOSTILE, words=HOSTILE, sound_s=1)
    failed(site.spool.place("failed"), FAILED, HOSTILE, source=HOSTILE)
    site.ready = Health(ok=False, why=(HOSTILE,))
    (site.spool.input / "<b>x").mkdir()
    page = Tags((await site.get(path)).text)
    assert page.names.count("script") == 1, "the page's own"
    assert HOSTILE in page.words
    assert "b" not in page.names


async def test_every_answer_has_the_headers_of_a_careful_site(site: Site) -> None:
    finished(site.spool.output, DONE, sound_s=1)
    paths = ["/", "/gallery", f"/jobs/{DONE}", f"/jobs/{DONE}/files/audio.wav", "/static/page.js", "/none", "/jobs/x"]
    for path in paths:
        answer = await site.get(path)
        for name in HEADERS.keys() - {"Cache-Control"}:
            assert answer.headers.get(name) == HEADERS[name], (path, name)
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", f"/jobs/{DONE}", "/events", f"/jobs/{DONE}/files/topic.md"])
async def test_nothing_can_be_changed(site: Site, method: str, path: str) -> None:
    assert (await site.get(path, method)).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "../job.json",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/job.json",
        "images/../../x.png",
        "images%2f..%2ftopic.md",
        "/etc/passwd",
        "images/001.png%00",
        "images/001.png%0a",
        "index.html",
        ".hidden",
        "audio",
        "",
        "x" * 1000,
    ],
)
async def test_no_path_leads_out_of_a_job(site: Site, path: str) -> None:
    finished(site.spool.output, DONE, sound_s=1)
    assert b" 404 " in (await site.raw(f"/jobs/{DONE}/files/{path}")).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", ".", "%2e", "", "../failed", "..%2ffailed", "a%00b", ".incoming", "x" * 300]
)
async def test_no_name_leads_out_of_the_jobs(site: Site, name: str) -> None:
    assert b" 404 " in (await site.raw(f"/jobs/{name}")).partition(b"\r\n")[0]
    assert b" 404 " in (await site.raw(f"/jobs/{name}/files/topic.md")).partition(b"\r\n")[0]


async def test_links_are_not_followed(site: Site, tmp_path: Path) -> None:
    path = finished(site.spool.output, DONE, sound_s=1)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (path / "images" / "002.png").symlink_to(tmp_path / "secret.png")
    (path / "images" / "001.png").unlink()
    os.link(tmp_path / "secret.png", path / "images" / "001.png")  # a file of its own, as far as anybody can tell
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "001.wav").write_bytes(b"secret")
    (path / "audio").symlink_to(elsewhere)
    linked = site.spool.output / "20261127-100009-000000-linked"
    linked.symlink_to(path)
    for name in (f"{DONE}/files/images/002.png", f"{DONE}/files/audio/001.wav", f"{linked.name}/files/topic.md"):
        assert (await site.get(f"/jobs/{name}")).status_code == 404, name


async def test_sound_can_be_sought(site: Site) -> None:
    path = finished(site.spool.output, DONE, sound_s=2)
    data = (path / "audio.wav").read_bytes()
    whole = await site.get(f"/jobs/{DONE}/files/audio.wav")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "audio/wav")
    part = await site.get(f"/jobs/{DONE}/files/audio.wav", Range="bytes=1000-1999")
    assert (part.status_code, part.content) == (206, data[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(data)}"
    assert (await site.get(f"/jobs/{DONE}/files/audio.wav", Range=f"bytes={len(data)}-")).status_code == 416


async def test_a_jobs_page_has_its_story_and_the_command_to_try_it_again(site: Site) -> None:
    finished(site.spool.output, DONE, sound_s=2)
    failed(site.spool.place("failed"), FAILED, "Nothing came.")
    page = (await site.get(f"/jobs/{DONE}")).text
    for told in ("The sea rises.", "audio.wav", "captions.vtt", "images/001.png", "backend Tides", "<video", "<track"):
        assert told in page, told
    assert f"<code>topicd retry {FAILED}</code>" in (await site.get(f"/jobs/{FAILED}")).text
    assert (await site.get("/jobs/20260101-000000-000000-none")).status_code == 404


async def test_a_damaged_job_is_shown_as_far_as_it_goes(site: Site) -> None:
    path = finished(site.spool.output, DONE)
    for name in ("job.json", "manifest.json", "scenes.json"):
        (path / name).write_bytes(b"{")
    assert (await site.get(f"/jobs/{DONE}")).status_code == 200
    assert (await site.get("/gallery")).status_code == 200
    assert (await site.get("/")).status_code == 200


async def test_the_gallery_has_pages_the_newest_first(site: Site) -> None:
    for number in range(30):
        finished(site.spool.output, f"20261127-1000{number:02}-000000-x", title=f"Title {number:02}")
    first, second = [(await site.get(f"/gallery?page={number}")).text for number in (1, 2)]
    assert "Title 29" in first
    assert "Title 05" not in first
    assert "Title 05" in second
    for odd in ("0", "-1", "9999999", "x", ""):
        assert (await site.get(f"/gallery?page={odd}")).status_code == 200


async def test_the_events_tell_of_a_change_and_end_with_the_watcher(site: Site) -> None:
    async with httpx.AsyncClient(base_url=site.url) as client, client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.aiter_lines()
        first = await asyncio.wait_for(told(lines), LIMIT_S)
        assert "0</strong> Finished" in first["summary"]
        finished(site.spool.output, DONE)
        second = await asyncio.wait_for(told(lines), LIMIT_S)
        assert "1</strong> Finished" in second["summary"]


async def told(lines: AsyncIterator[str]) -> dict[str, str]:
    async for line in lines:
        if line.startswith("data: "):
            parts: dict[str, str] = json.loads(line.removeprefix("data: "))
            return parts
    raise AssertionError("the events ended")


async def test_who_watches_is_bounded(site: Site) -> None:
    port = int(site.url.rpartition(":")[2])
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(WATCHERS_MAX + 1)]
    heads = []
    for reader, writer in opened:
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        heads.append(await asyncio.wait_for(reader.readline(), LIMIT_S))
    assert [head.split()[1] for head in heads] == [b"200"] * WATCHERS_MAX + [b"503"]
    for _, writer in opened:
        writer.close()


@pytest.mark.parametrize(
    ("query", "accepted", "language"),
    [
        ("pt", "en", "pt"),
        ("", "pt-BR,pt;q=0.9,en;q=0.8", "pt"),
        ("", "en;q=0.5, pt-BR;q=0.9", "pt"),
        ("", "fr, en;q=0.1", "en"),
        ("", "", "en"),
        ("xx", "*;q=0.1, ;;;, q=1", "en"),
        ("", "pt;q=1.2.3", "en"),
    ],
)
def test_the_language_is_that_which_is_asked_for(query: str, accepted: str, language: str) -> None:
    assert chosen(query, accepted).language == language


async def test_both_languages_have_every_word(site: Site) -> None:
    assert all(len(each) == len(LANGUAGES) and all(each) for each in _WORDS.values())
    assert len({language: Words(language)("overview") for language in LANGUAGES}) == len(LANGUAGES)
    page = (await site.get("/", **{"Accept-Language": "pt-BR"})).text
    assert '<html lang="pt-BR">' in page
    assert "Visão geral" in page


def test_text_is_escaped_in_one_place() -> None:
    assert tag("p", "<b>", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "x"), None, 3) == "<p><b>x</b>3</p>"
    assert join("a & b") == "a &amp; b"
