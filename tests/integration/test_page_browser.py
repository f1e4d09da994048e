import io
import math
import re
import struct
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright

from topicd.stages.captions import Cue
from topicd.stages.page import PageScene, build_page

CHROMIUM = "/usr/bin/chromium"
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
HOSTILE = "Tides </script><img src=x onerror=alert(1)> \"'` \u202eRTL 👩‍🔬"
TITLE, RED, GREEN, BLUE = (90, 90, 90), (200, 30, 30), (30, 160, 30), (30, 30, 200)
STARTS_S = (0.0, 4.0, 8.0)
CUES = [
    Cue(0, 2.5, "The sea rises."),
    Cue(2.5, 4, "It covers the sand."),
    Cue(4, 7.5, "Then it waits."),
    Cue(8, 12, "At last it falls."),
]


@dataclass
class Opened:
    """A page in a browser, and all that it complained of or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def go(self, path: Path) -> None:
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.until("document.getElementById('audio').readyState > 0")

    def until(self, condition: str, limit_s: float = 20) -> None:
        # Playwright's own wait uses eval, which the page's policy forbids.
        give_up = time.monotonic() + limit_s
        while not self.page.evaluate(condition):
            assert time.monotonic() < give_up, f"not within {limit_s} s: {condition}"
            self.page.wait_for_timeout(25)

    def at(self, time_s: float) -> None:
        self.until(f"Math.abs(document.getElementById('audio').currentTime - {time_s}) < 0.05")
        self.until("!document.getElementById('audio').seeking")

    def color(self) -> tuple[int, ...]:
        shot = Image.open(io.BytesIO(self.page.locator("#stage").screenshot()))
        pixel = shot.convert("RGB").getpixel((shot.width // 8, shot.height // 8))
        assert isinstance(pixel, tuple)
        return tuple(int(part) for part in pixel)

    def caption(self) -> str:
        caption = self.page.locator("#caption")
        return str(caption.text_content()) if caption.is_visible() else ""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        except Error as error:
            pytest.skip(f"needs chromium: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    with wave.open(str(folder / "audio.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(b"".join(struct.pack("<h", int(4000 * math.sin(at / 12))) for at in range(16000 * 12)))
    for name, color in (("title", TITLE), ("1", RED), ("2", GREEN), ("3", BLUE)):
        Image.new("RGB", (640, 360), color).save(folder / f"{name}.png")
    scenes = [
        PageScene(folder / f"{number}.png", f"Narration of scene {number}. " * 8, start_s)
        for number, start_s in enumerate(STARTS_S, 1)
    ]
    page = build_page(
        title=HOSTILE,
        language="en",
        job="20260101-tides",
        made="1 January 2026",
        scenes=scenes,
        title_picture=folder / "title.png",
        audio=folder / "audio.wav",
        cues=CUES,
        notes=["Draft: check facts."],
    )
    (folder / "index.html").write_bytes(page)
    return folder / "index.html"


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    opened = Opened(context.new_page())
    opened.go(path)
    yield opened
    context.close()
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [path.as_uri()]


def near(color: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return all(abs(one - other) < 12 for one, other in zip(color, wanted, strict=True))


@pytest.mark.slow
def test_picture_and_caption_change_in_step_with_the_narration(opened: Opened) -> None:
    opened.page.evaluate("""() => {
        const audio = document.getElementById("audio"), caption = document.getElementById("caption");
        const layers = [...document.querySelectorAll("#stage img")];
        window.seen = [];
        const look = () => {
            const now = [layers.findIndex((layer) => layer.classList.contains("shown")),
                         caption.hidden ? "" : caption.textContent];
            const last = window.seen.at(-1);
            if (!last || last[1] !== now[0] || last[2] !== now[1]) window.seen.push([audio.currentTime, ...now]);
            if (!audio.ended) requestAnimationFrame(look);
        };
        audio.addEventListener("playing", () => requestAnimationFrame(look), { once: true });
    }""")
    # Half as fast, each state lasts a second at least: a busy browser may draw nothing for half of one.
    opened.page.evaluate("document.getElementById('audio').playbackRate = 0.5")
    opened.page.locator("#veil").click()
    opened.until("document.getElementById('audio').ended", 120)
    seen = [each for each in opened.page.evaluate("window.seen") if each[0] < CUES[-1].end_s]
    assert [(layer, text) for _, layer, text in seen] == [
        (0, "The sea rises."),
        (1, "The sea rises."),
        (1, "It covers the sand."),
        (2, "Then it waits."),
        (2, ""),
        (3, "At last it falls."),
    ]
    for (time_s, _, _), due_s in zip(seen, (0, 2, 2.5, 4, 7.5, 8), strict=True):
        assert due_s - 0.01 <= time_s < due_s + 0.75


def test_seeking_shows_what_belongs_there(opened: Opened) -> None:
    assert near(opened.color(), TITLE)
    assert opened.caption() == ""
    for time_s, color, caption, clock in (
        (9, BLUE, "At last it falls.", "0:09"),
        (7.75, GREEN, "", "0:07"),
        (3, RED, "It covers the sand.", "0:03"),
        (1, TITLE, "The sea rises.", "0:01"),
    ):
        opened.page.locator("#seek").fill(str(time_s))
        opened.at(time_s)
        assert opened.page.locator("#stage .under").count() == 0
        assert near(opened.color(), color)
        assert opened.caption() == caption
        assert opened.page.locator("#now").text_content() == clock
    assert opened.page.locator("#seek").get_attribute("aria-valuetext") == "0:01 / 0:12, Scene 1 of 3"


def test_the_keyboard_plays_and_seeks(opened: Opened) -> None:
    press = opened.page.keyboard.press
    for key, time_s in (("5", 6), ("ArrowRight", 11), ("ArrowLeft", 6), ("j", 0), ("l", 10), ("9", 10.8), ("0", 0)):
        press(key)
        opened.at(time_s)
    for key in ("k", "Space"):
        press(key)
        opened.until("!document.getElementById('audio').paused")
        press(key)
        opened.until("document.getElementById('audio').paused")


def test_the_keyboard_mutes_captions_and_fills_the_screen(opened: Opened) -> None:
    press = opened.page.keyboard.press
    press("3")
    opened.at(3.6)
    press("c")
    assert opened.caption() == ""
    assert opened.page.get_by_role("button", name="Captions").get_attribute("aria-pressed") == "false"
    press("c")
    assert opened.caption() == "It covers the sand."
    press("m")
    opened.until("document.getElementById('mute').getAttribute('aria-pressed') === 'true'")
    assert opened.page.evaluate("document.getElementById('audio').muted")
    press("f")
    opened.until("document.fullscreenElement?.id === 'player'")
    press("f")
    opened.until("!document.fullscreenElement")


def test_a_focused_button_keeps_its_space_key(opened: Opened) -> None:
    opened.page.get_by_role("button", name="Captions").focus()
    opened.page.keyboard.press("Space")
    assert opened.page.evaluate("document.getElementById('audio').paused")
    assert opened.page.get_by_role("button", name="Captions").get_attribute("aria-pressed") == "false"


def test_buttons_step_through_the_scenes_and_say_so(opened: Opened) -> None:
    back = opened.page.get_by_role("button", name="Previous scene")
    following = opened.page.get_by_role("button", name="Next scene")
    assert back.is_disabled()
    following.click()
    opened.at(4)
    assert opened.page.get_by_role("status").text_content() == "Scene 2 of 3"
    following.click()
    opened.at(8)
    assert following.is_disabled()
    back.click()
    opened.at(4)
    opened.page.keyboard.press("ArrowRight")
    opened.at(9)
    back.click()
    opened.at(4)


def test_speed_and_volume_follow_their_controls(opened: Opened) -> None:
    opened.page.get_by_label("Speed").select_option("1.5")
    opened.page.get_by_label("Volume").fill("0.5")
    heard = "[document.getElementById('audio').playbackRate, document.getElementById('audio').volume]"
    assert opened.page.evaluate(heard) == [1.5, 0.5]


def test_a_click_in_the_transcript_goes_there_and_marks_it(opened: Opened) -> None:
    opened.page.locator(".scene p").nth(2).click()
    opened.at(8)
    assert opened.page.locator("[aria-current]").count() == 1
    assert "scene 3" in opened.page.locator("[aria-current]").inner_text()
    opened.page.get_by_role("button", name=re.compile("Scene 2")).press("Enter")
    opened.at(4)
    assert "scene 2" in opened.page.locator("[aria-current]").inner_text()


def test_a_hostile_title_is_only_a_title(opened: Opened) -> None:
    assert opened.page.locator("h1").text_content() == HOSTILE
    assert opened.page.title() == HOSTILE
    assert opened.page.locator("img").count() == 4 + 3


def test_pictures_fade_unless_less_motion_is_asked_for(opened: Opened) -> None:
    fade = "getComputedStyle(document.querySelector('#stage img.shown')).transitionDuration"
    assert opened.page.evaluate(fade) == "0.7s"
    opened.page.emulate_media(reduced_motion="reduce")
    assert opened.page.evaluate(fade) == "0s"


def test_it_is_dark_where_dark_is_wanted(opened: Opened) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(paper) == "rgb(247, 246, 243)"
    opened.page.emulate_media(color_scheme="dark")
    assert opened.page.evaluate(paper) == "rgb(19, 20, 22)"


@pytest.mark.parametrize(("width", "height"), [(320, 568), (360, 640), (768, 1024), (1280, 800), (1920, 1080)])
def test_it_fits_the_screen(opened: Opened, width: int, height: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": height})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("Previous scene", "Play", "Next scene", "Mute", "Captions", "Full screen"):
        box = opened.page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
        assert min(box["width"], box["height"]) >= (44 if width >= 360 else 36)
    stage = opened.page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["width"] / stage["height"] == pytest.approx(16 / 9, rel=0.02)
    assert stage["width"] > width * 0.5


def test_on_a_phone_the_player_stays_while_the_transcript_scrolls(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 360, "height": 640})
    opened.page.evaluate("scrollTo(0, 400)")
    opened.until("scrollY > 300")
    box = opened.page.locator("#player").bounding_box()
    assert box is not None
    assert abs(box["y"]) < 2
    opened.page.get_by_role("button", name="Play", exact=True).click()
    opened.until("!document.getElementById('audio').paused")


def test_without_script_it_is_a_page_with_a_native_player(browser: Browser, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("audio").is_visible()
    assert page.locator("audio").get_attribute("controls") is not None
    assert not page.locator("#play").is_visible()
    assert [image.is_visible() for image in page.locator("img").all()] == [True] * 4
    assert page.locator(".scene p").count() == 3
    assert page.locator(".jump:enabled").count() == 0
    context.close()


def test_on_paper_it_is_title_pictures_and_text(opened: Opened) -> None:
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".controls").is_visible()
    assert opened.page.locator(".scene img").first.is_visible()
    assert opened.page.locator("footer").get_by_text("Draft: check facts.").is_visible()


def changed(path: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    other = path.with_name(name)
    other.write_bytes(change(path.read_bytes()))
    return other


def test_broken_audio_is_said_aloud(browser: Browser, path: Path) -> None:
    broken = changed(
        path, "broken.html", lambda page: page.replace(b"data:audio/wav;base64,UklG", b"data:audio/wav;base64,AAAA")
    )
    context = browser.new_context()
    page = context.new_page()
    page.goto(broken.as_uri())
    page.get_by_role("alert").wait_for(timeout=20_000)
    assert "cannot play" in page.get_by_role("alert").inner_text()
    context.close()


def test_the_policy_stops_what_gets_in_all_the_same(browser: Browser, path: Path) -> None:
    intruder = b'<img src="http://127.0.0.1:9/x" onerror="document.title=1"><script>document.title=2</script></body>'
    context = browser.new_context()
    opened = Opened(context.new_page())
    opened.go(changed(path, "intruder.html", lambda page: page.replace(b"</body>", intruder)))
    assert opened.page.title() == HOSTILE
    assert opened.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped')") == "stopped"
    for rule in ("img-src data:", "script-src 'sha256-", "default-src 'none'"):
        assert any("Content Security Policy" in each and rule in each for each in opened.complaints)
    context.close()
