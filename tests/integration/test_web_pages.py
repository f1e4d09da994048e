"""The page's paths over real HTTP: what they show, and what they do not let anybody do."""

import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

import httpx
import pytest

from rig.site import DONE, FAILED, OPEN, Site, Tags
from rig.tree import failed, finished
from topicd.job import Trouble, encode
from topicd.showing import ROWS_MAX
from topicd.states import Stage
from topicd.web import Health
from topicd.web.html import join, tag
from topicd.web.pages import HEADERS
from topicd.web.texts import _WORDS, LANGUAGES, Words, chosen

HOSTILE = "</title><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"
WEB = Path(str(package_files("topicd.web")))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path, ("mine.example.org",))
    await made.start()
    yield made
    await made.server.stop()


async def test_the_overview_shows_what_is_there(site: Site) -> None:
    finished(site.spool.output, DONE)
    failed(site.spool.place("failed"), FAILED, "Nothing came.")
    (site.spool.input / "later.md").write_text("x")
    (site.spool.input / "song.mp3").write_text("x")
    page = await site.get("/")
    words = Tags(page.text).words
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for told in ("Ready", "Failed 1", "Finished 1", "Dropped 1", "Nothing came.", "hint: Nothing came.", "by piper"):
        assert told in words, told
    assert "song.mp3" in words
    assert f'href="/jobs/{FAILED}"' in page.text


async def test_what_is_wrong_is_said(site: Site) -> None:
    server = {"stage": "audio", "server": "gpu:5000", "calls": 1, "waiting": 2, "note": "busy", "waited_s": 12.0}
    away = {"state": "open", "since": "2026-11-27T10:00:00.000Z", "trouble": "it refuses", "cause": ""}
    fetched = {"name": "voice.onnx", "have": 1_000_000, "total": 4_000_000, "rate": 500_000.0, "note": ""}
    more = {"servers": [server | away], "warnings": ["no certificates"], "downloads": [fetched]}
    site.ready = Health(
        ok=False, why=("the disk is full",), more={**more, "watcher": {"mode": "poll", "up": True, "trouble": ""}}
    )
    words = await site.words("/")
    for told in ("Not ready", "the disk is full", "no certificates", "gpu:5000", "away", "it refuses", "busy", "12 s"):
        assert told in words, told
    for told in ("1 under way, 2 waiting", "1.0 MB / 4.0 MB", "500.0 kB/s", "looking now and then"):
        assert told in words, told


async def test_a_lane_shows_those_in_work_then_the_oldest_and_counts_the_rest(site: Site) -> None:
    names = [f"20261127-1000{number:02}-000000-x" for number in range(ROWS_MAX + 5)]
    for number, name in enumerate(names):
        failed(site.spool.place("audio"), name, "", source=f"topic {number}.md")
    with site.store.locked({}):
        site.spool.marker("audio", names[-1], site.store.run).touch()
        site.spool.marker("audio", names[3], "0" * 16).touch()  # of a daemon that died
        page = (await site.get("/")).text
    lane = Tags(page.partition('id="lane-audio"')[2].partition('id="lane-images"')[0]).words
    assert f"1 in work, {ROWS_MAX + 4} waiting" in lane
    assert re.findall(r"topic (\d+)(?!: units)", lane) == [str(ROWS_MAX + 4), *map(str, range(ROWS_MAX - 1))]
    assert "and 5 more" in lane


async def test_time_left_comes_from_the_units_made_lately(site: Site) -> None:
    failed(site.spool.place("scripts"), OPEN, "")
    unit = {"job": OPEN, "stage": "scripts", "unit": "script", "n": 1, "of": 1, "backend": "x"}
    with site.store.locked({}):
        site.spool.marker("scripts", OPEN, site.store.run).touch()
        assert " left" not in await site.words("/")
        for seconds in (90.0, 600.0, 120.0):
            site.events.emit("unit.finished", seconds=seconds, **unit)
        words = await site.words("/")
    assert "0 of 1 · about 2 min left" in words
    assert "0 finished, 3 units" in words


@pytest.mark.parametrize("path", ["/", "/gallery", f"/jobs/{DONE}", f"/jobs/{FAILED}"])
async def test_hostile_names_and_topics_are_text(site: Site, path: str) -> None:
    finished(site.spool.output, DONE, title=HOSTILE, words=HOSTILE, sound_s=1)
    failed(site.spool.place("failed"), FAILED, HOSTILE, source=HOSTILE)
    site.ready = Health(ok=False, why=(HOSTILE,))
    (site.spool.input / "<b>x").mkdir()
    page = Tags((await site.get(path)).text)
    assert page.names.count("script") == 1, "the page's own"
    assert HOSTILE in page.words
    assert not [name for name in page.names if name == "img" and path == "/"]


async def test_names_that_are_not_text_are_shown_all_the_same(site: Site) -> None:
    failed(site.spool.place("failed"), os.fsdecode(b"2026\xff?#%"), "Nothing came.", source="b\u0007ell \udcff.md")
    overview = await site.get("/")
    assert overview.status_code == 200
    assert "\ufffd" in overview.text
    (link,) = re.findall(r'href="(/jobs/[^"]+)"', overview.text)
    assert b"Nothing came." in await site.raw(link)
    assert b" 200 " in (await site.raw(f"{link}/files/reason.json")).partition(b"\r\n")[0]


async def test_every_answer_has_the_headers_of_a_careful_site(site: Site) -> None:
    finished(site.spool.output, DONE, sound_s=1)
    paths = ["/", "/gallery", f"/jobs/{DONE}", f"/jobs/{DONE}/files/audio.wav", "/static/page.js", "/none", "/jobs/x"]
    for path in paths:
        answer = await site.get(path)
        for name in HEADERS.keys() - {"Cache-Control"}:
            assert answer.headers.get(name) == HEADERS[name], (path, name)
    async with httpx.AsyncClient(base_url=site.url) as client, client.stream("GET", "/events") as answer:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS


def test_the_headers_let_nothing_else_run_frame_or_be_guessed() -> None:
    policy = dict(each.split(" ", 1) for each in HEADERS["Content-Security-Policy"].split("; "))
    own = dict.fromkeys(("script-src", "style-src", "img-src", "media-src", "connect-src"), "'self'")
    none = dict.fromkeys(("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'")
    assert policy == own | none
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["X-Frame-Options"] == "DENY"
    assert HEADERS["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", f"/jobs/{DONE}", "/events", f"/jobs/{DONE}/files/topic.md"])
async def test_nothing_can_be_changed(site: Site, method: str, path: str) -> None:
    assert (await site.get(path, method)).status_code == 405


@pytest.mark.parametrize(
    "name",
    ["..", "%2e%2e", ".", "%2e", "", "../failed", "..%2ffailed", "%2fetc", "a%00b", ".incoming", "x" * 300, "%ff" * 99],
)
async def test_no_name_leads_out_of_the_jobs(site: Site, name: str) -> None:
    for path in (f"/jobs/{name}", f"/jobs/{name}/files/topic.md"):
        assert b" 404 " in (await site.raw(path)).partition(b"\r\n")[0]


async def test_a_linked_job_is_none(site: Site) -> None:
    linked = site.spool.output / "20261127-100009-000000-linked"
    linked.symlink_to(finished(site.spool.output, DONE))
    assert (await site.get(f"/jobs/{linked.name}")).status_code == 404
    assert (await site.get(f"/jobs/{linked.name}/files/topic.md")).status_code == 404
    assert linked.name not in (await site.get("/gallery")).text


async def test_a_jobs_page_has_its_story_and_how_it_was_made(site: Site) -> None:
    finished(site.spool.output, DONE, sound_s=2)
    page = (await site.get(f"/jobs/{DONE}")).text
    for told in ("The sea rises.", "audio.wav", "captions.vtt", "images/001.png", "backend Tides", "<audio", "<track"):
        assert told in page, told
    assert (await site.get("/jobs/20260101-000000-000000-none")).status_code == 404


@pytest.mark.parametrize(
    ("place", "verb"), [("failed", "retry"), ("held", "release"), ("audio", "hold"), ("output", "")]
)
async def test_the_very_command_that_moves_it_on_is_there(site: Site, place: str, verb: str) -> None:
    failed(site.spool.output if place == "output" else site.spool.place(place), FAILED, "Nothing came.")
    page = (await site.get(f"/jobs/{FAILED}")).text
    assert re.findall(r"topicd (\w+) ([\w-]+)</code>", page) == ([(verb, FAILED)] if verb else [])


async def test_a_command_can_be_pasted_whatever_the_name(site: Site) -> None:
    failed(site.spool.place("failed"), "2026; rm -rf $HOME", "Nothing came.")
    assert "topicd retry '2026; rm -rf $HOME'" in await site.words("/jobs/2026; rm -rf $HOME")


async def test_what_went_wrong_on_the_way_is_told(site: Site) -> None:
    path = failed(site.spool.place("audio"), FAILED, "")
    late = Trouble("2026-11-27T10:00:05.000Z", "audio", "audio/002", "x", "It is late.", "wait", "2999-01-01T00:00:00Z")
    job = replace(site.spool.read_job(path), attempts={"audio": 2}, crashes={"audio": 1}, last_error=late)
    (path / "job.json").write_bytes(encode(replace(job, not_before_s=32_000_000_000.0)))
    words = await site.words(f"/jobs/{FAILED}")
    for told in ("put off", "2 failed attempts", "cut off once", "audio/002", "It is late.", "wait", "Next try 2999"):
        assert told in words, told
    assert f"topicd retry {FAILED}" in words
    overview = await site.words("/")
    assert "It is late." in overview
    assert "What to do wait" in overview


async def test_a_damaged_job_is_shown_as_far_as_it_goes(site: Site) -> None:
    for path in (finished(site.spool.output, DONE), finished(site.spool.place("images"), OPEN)):
        for name in ("job.json", "manifest.json", "scenes.json", "timeline.json"):
            (path / name).write_bytes(b"{}\n")
    assert "job.json is damaged" in await site.words(f"/jobs/{DONE}")
    assert (await site.get("/gallery")).status_code == 200
    assert "damaged" in await site.words("/")


@pytest.mark.parametrize("timeline", ["[]", '{"starts_s": [null], "cues": []}', '{"starts_s": "x"}', '{"cues": [[]]}'])
async def test_an_odd_timeline_is_none(site: Site, timeline: str) -> None:
    (finished(site.spool.output, DONE) / "timeline.json").write_text(timeline)
    assert "The sea rises." in await site.words(f"/jobs/{DONE}")


async def test_the_gallery_has_pages_the_newest_first(site: Site) -> None:
    for number in range(30):
        finished(site.spool.output, f"20261127-1000{number:02}-000000-x", title=f"Title {number:02}")
    first, second = [(await site.get(f"/gallery?page={number}")).text for number in (1, 2)]
    assert first.index("Title 29") < first.index("Title 28")
    assert "Title 05" not in first
    assert "Title 05" in second
    for odd in ("0", "-1", "9999999", "x", "", "\u0663"):
        assert (await site.get(f"/gallery?page={odd}")).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["", "localhost", "127.0.0.1:9469", "[::1]:9469", "192.168.1.9", "topicd", "box.local:80", "mine.example.org:80"],
)
async def test_it_answers_to_names_that_nobody_else_can_have_and_to_those_that_are_set(site: Site, host: str) -> None:
    assert (await site.get("/", Host=host)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/events", f"/jobs/{DONE}/files/topic.md"])
@pytest.mark.parametrize("host", ["evil.example.com:9469", "mine.example.org.evil.com", "1.2.3.4.evil.com", "a.locals"])
async def test_a_strangers_name_that_was_made_to_lead_here_is_refused(site: Site, host: str, path: str) -> None:
    finished(site.spool.output, DONE)
    answer = await site.get(path, Host=host)
    assert answer.status_code == 421
    assert "TOPICD_PAGE_HOSTS" in answer.text
    assert (await site.get("/metrics", Host=host)).status_code == 200, "a scraper may have any name for us"


async def test_what_the_pages_are_made_with_is_kept_by_browsers_until_it_changes(site: Site) -> None:
    urls = re.findall(r'"(/static/[^"]+)"', (await site.get("/")).text)
    assert len(urls) == 3
    for url in urls:
        answer = await site.get(url)
        assert "immutable" in answer.headers["cache-control"]
        assert answer.content == (WEB / url.partition("?")[0][1:]).read_bytes()
    for path in ("/static/../pages.py", "/static/%2e%2e/pages.py", "/static/none.js", "/static/"):
        assert b" 404 " in (await site.raw(path)).partition(b"\r\n")[0]


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


def test_both_languages_have_every_word_with_the_same_gaps() -> None:
    for key, words in _WORDS.items():
        assert len(words) == len(LANGUAGES), key
        assert all(words), key
        assert len({frozenset(re.findall(r"{(\w+)}", each)) for each in words}) == 1, key


def test_every_word_that_is_asked_for_is_there_and_no_other() -> None:
    source = "".join(path.read_text() for path in WEB.glob("*.py") if path.name != "texts.py")
    source += (WEB / "texts.py").read_text().partition("class Words")[2]
    asked = set(re.findall(r'(?:words|self)\(\s*"([\w-]+)"', source))
    asked |= {f"{key}_many" for key in re.findall(r'words\.many\(\s*"(\w+)"', source)}
    assert asked <= _WORDS.keys(), asked - _WORDS.keys()
    told_by_the_daemon = {*Stage, "output", "working", "waiting", "deferred", "open", "half-open", "events", "poll"}
    used = set(re.findall(r'"([\w-]+)"', source)) | told_by_the_daemon
    unused = {key for key in _WORDS if re.sub(r"^state_|_one$|_many$", "", key) not in used}
    assert not unused


@pytest.mark.parametrize("language", LANGUAGES)
async def test_links_keep_to_the_language_where_it_was_asked_for(site: Site, language: str) -> None:
    finished(site.spool.output, DONE, sound_s=1)
    for path in ("/", "/gallery", f"/jobs/{DONE}", "/none"):
        page = (await site.get(f"{path}?lang={language}")).text
        assert f'<html lang="{Words(language).tag}">' in page
        links = [link for link in re.findall(r'href="(/[^"]*)"', page) if not re.search("static|files", link)]
        assert sum(not link.endswith(f"lang={language}") for link in links) == 1, "the one to the other language"
    plain = (await site.get("/", **{"Accept-Language": f"{language};q=1"})).text
    assert f'<html lang="{Words(language).tag}">' in plain
    assert 'href="/gallery"' in plain


@pytest.mark.parametrize(
    ("seconds", "en", "pt"),
    [
        (3, "a few seconds left", "faltam alguns segundos"),
        (33, "about 30 s left", "faltam cerca de 30 s"),
        (200, "about 3 min left", "faltam cerca de 3 min"),
        (5000, "about 1 h 23 min left", "faltam cerca de 1 h 23 min"),
        (7190, "about 2 h 0 min left", "faltam cerca de 2 h 0 min"),
    ],
)
def test_time_left_is_no_more_exact_than_it_is_known(seconds: float, en: str, pt: str) -> None:
    assert (Words("en").left(seconds), Words("pt").left(seconds)) == (en, pt)


def test_numbers_are_written_as_the_language_writes_them() -> None:
    assert (Words("en").number(12345.6, 1), Words("pt").number(12345.6, 1)) == ("12,345.6", "12.345,6")
    assert (Words("en").size(1_500_000), Words("pt").size(1_500_000)) == ("1.5 MB", "1,5 MB")
    assert (Words("en").many("working", 1), Words("en").many("working", 2000)) == (
        "1 job in work",
        "2,000 jobs in work",
    )


def test_text_is_escaped_in_one_place() -> None:
    assert tag("p", "<b>", title='"<') == '<p title="&quot;&lt;">&lt;b&gt;</p>'
    assert tag("p", tag("b", "x"), None, 3) == "<p><b>x</b>3</p>"
    assert join("a & b") == "a &amp; b"
    assert tag("p", "a\ud800b\x00") == "<p>a\ufffdb\ufffd</p>"
    makers = [path.name for path in WEB.glob("*.py") if re.search(r"\bHtml\(", path.read_text())]
    assert makers == ["html.py"]


async def test_the_command_is_the_one_that_people_have_here(tmp_path: Path) -> None:
    site = Site(tmp_path, command="docker compose exec daemon topicd")
    await site.start()
    failed(site.spool.place("failed"), FAILED, "Nothing came.")
    words = await site.words(f"/jobs/{FAILED}")
    await site.server.stop()
    assert f"docker compose exec daemon topicd retry {FAILED}" in words
    assert "Run it in" not in words
