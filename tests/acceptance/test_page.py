"""The daemon's pages in a real browser: live, playable, usable by keyboard, by whoever listens, on a phone."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from rig.daemon import FAKES, QUICK, Daemon, Home, load, running, until
from rig.tree import failed, finished

CHROMIUM = shutil.which("chromium") or ""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
DONE, FAILED = "20261127-100000-000000-tides", "20261127-100001-000000-bad"
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)> " + "wide" * 40
TOPIC = "---\nscenes: 2\n---\n# Rivers\n\nThey run to the sea.\n"
FIRST_PAINT_S_MAX = 5.0
MANY = 10_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path, {**FAKES, **QUICK})
    finished(made.output, DONE, sound_s=8)
    failed(made.spool / "failed", FAILED, HOSTILE, source=HOSTILE)
    return made


@pytest.fixture
def daemon(home: Home) -> Iterator[Daemon]:
    with running(home) as started:
        yield started


@pytest.fixture
def url(home: Home, daemon: Daemon) -> str:
    del daemon
    return f"http://127.0.0.1:{load(home.spool / '.lock')['port']}"


class Opened:
    """A page, and what it complained of or asked others for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.complaints = list[str]()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: None if request.url.startswith(url) else self.complaints.append(request.url))


@pytest.fixture
def opened(browser: Browser, url: str) -> Iterator[Opened]:
    page = browser.new_page(viewport={"width": 1100, "height": 800}, locale="en-GB")
    made = Opened(page, url)
    yield made
    page.close()
    assert not made.complaints


def test_it_is_live_without_a_reload(home: Home, opened: Opened, url: str) -> None:
    opened.page.goto(url)
    until(lambda: opened.page.inner_text("#live") == "live", "it is connected")
    opened.page.evaluate("window.unchanged = true")
    home.drop("rivers.md", TOPIC)
    until(lambda: "2 Finished" in " ".join(opened.page.inner_text(".counts").split()), "the job is seen to be finished")
    assert opened.page.evaluate("window.unchanged"), "the page was not loaded anew"


def test_it_says_when_it_is_not_connected(daemon: Daemon, browser: Browser, url: str) -> None:
    page = browser.new_page()
    page.goto(url)
    until(lambda: page.inner_text("#live") == "live", "it is connected")
    daemon.stop()
    until(lambda: "Not connected" in page.inner_text("#live"), "it says so")
    page.close()


def test_a_job_plays_with_captions_and_can_be_sought(opened: Opened, url: str) -> None:
    page = opened.page
    page.goto(f"{url}/gallery")
    page.click(".cards a")
    until(lambda: page.evaluate("document.querySelector('video').readyState >= 1"), "the sound is there")
    assert 7.9 < page.evaluate("document.querySelector('video').duration") < 8.1
    page.evaluate("const video = document.querySelector('video'); video.currentTime = 6; video.play()")
    until(lambda: page.evaluate("document.querySelector('video').currentTime > 6.2"), "it plays from there")
    assert page.evaluate("document.querySelector('video').textTracks[0].mode") == "showing"
    assert page.evaluate("document.querySelector('video').textTracks[0].cues.length") == 1
    until(
        lambda: page.evaluate("[...document.images].every((each) => each.naturalWidth > 0)"), "the pictures are there"
    )


def test_the_keyboard_reaches_everything(opened: Opened, url: str) -> None:
    page = opened.page
    page.goto(url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached = set[str]()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') ?? ''").partition("?")[0])
    assert f"/jobs/{FAILED}" in reached


def test_what_is_held_by_the_keyboard_stays_held_when_the_page_changes(home: Home, opened: Opened, url: str) -> None:
    page = opened.page
    page.goto(url)
    page.focus(f"#to-{FAILED}")
    failed(home.spool / "failed", "20261127-100002-000000-worse", "Worse.")
    until(lambda: page.query_selector("#to-20261127-100002-000000-worse"), "the new one is shown")
    assert page.evaluate("document.activeElement.id") == f"to-{FAILED}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "pt"])
def test_nothing_keeps_it_from_people(browser: Browser, url: str, scheme: str, language: str) -> None:
    # The policy keeps axe out too, as it should; so here it is lifted for the tool alone.
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, locale=language)  # type: ignore[arg-type]
    page = context.new_page()
    for path in ("/", "/gallery", f"/jobs/{DONE}", f"/jobs/{FAILED}", "/none"):
        page.goto(f"{url}{path}")
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in {"serious", "critical"}]
        assert not serious, (path, [(each["id"], each["nodes"][0]["html"]) for each in serious])
    context.close()


@pytest.mark.parametrize("width", [320, 360, 768])
def test_it_fits_a_phone(browser: Browser, url: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700})
    for path in ("/", "/gallery", f"/jobs/{DONE}", f"/jobs/{FAILED}"):
        page.goto(f"{url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.close()


def test_it_makes_sense_without_its_script(browser: Browser, url: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert "1 Finished" in " ".join(page.inner_text(".counts").split())
    context.close()


def test_a_gallery_of_many_is_soon_there(browser: Browser, tmp_path: Path) -> None:
    home = Home(tmp_path, {**FAKES, **QUICK})
    first = finished(home.output, "20261127-000000-000000-x", sound_s=0.1)
    for number in range(1, MANY):
        shutil.copytree(first, home.output / f"20261127-{number:06}-000000-x", copy_function=shutil.copyfile)
    with running(home):
        page = browser.new_page()
        began = time.monotonic()
        page.goto(f"http://127.0.0.1:{load(home.spool / '.lock')['port']}/gallery", wait_until="domcontentloaded")
        until(lambda: page.evaluate("performance.getEntriesByName('first-contentful-paint').length"), "it is painted")
        painted_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        took_s = time.monotonic() - began
        sys.stdout.write(f"first paint of a gallery of {MANY} after {painted_ms:.0f} ms, {took_s:.2f} s in all\n")
        assert painted_ms / 1000 < FIRST_PAINT_S_MAX
        assert f"of {-(-MANY // 24)}" in page.inner_text(".pages")
        page.close()
