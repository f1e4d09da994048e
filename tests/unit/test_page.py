import base64
import hashlib
import io
import json
import math
import re
import wave
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from topicd.errors import Rejected, StorageTrouble
from topicd.stages import page as page_module
from topicd.stages.captions import Cue
from topicd.stages.page import PAGE_BYTES_MAX, PICTURE_SIDE_PX_MAX, PageScene, build_page

HOSTILE = "</script></title>\"'><img src=x onerror=alert(1)><!-- {{audio}} $title \u2028 \u202eRTL 👩‍🔬 \0 \ud800 &amp;"
VOID = {"meta", "link", "img", "input", "path", "br"}


class Document(HTMLParser):
    """Elements as (tag, attributes, text) and what was left open, as a strict reader sees them."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.comments: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, dict(attrs), list[str]())
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, text in self.open:
            text.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        return ["".join(text) for name, _, text in self.elements if name == tag]

    def data(self) -> Any:
        return next(
            json.loads("".join(text)) for _, attributes, text in self.elements if attributes.get("id") == "data"
        )


def write_picture(path: Path, size: tuple[int, int] = (320, 180), mode: str = "RGB") -> Path:
    Image.new(mode, size, "teal").save(path)
    return path


def write_audio(path: Path, duration_s: float) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\1\2" * round(8000 * duration_s))
    return path


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    picture = write_picture(tmp_path / "title.png")
    return {
        "title": "Tides",
        "language": "en",
        "job": "20260101-tides",
        "made": "1 January 2026",
        "scenes": [
            PageScene(picture, "The sea rises.", 0),
            PageScene(picture, "The sea falls.", 4.25, "a beach"),
        ],
        "title_picture": picture,
        "audio": write_audio(tmp_path / "audio.wav", 8),
        "cues": [Cue(0, 4, "The sea rises."), Cue(4.25, 8, "The sea falls.")],
        "notes": ["Draft: check facts."],
    }


def test_the_same_inputs_give_the_same_bytes(parts: dict[str, Any]) -> None:
    assert build_page(**parts) == build_page(**parts)


def test_all_that_was_given_is_there(parts: dict[str, Any]) -> None:
    page = Document(build_page(**parts))
    assert page.texts("h1") == page.texts("title") == ["Tides"]
    assert [text for text in page.texts("p") if "sea" in text] == ["The sea rises.", "The sea falls."]
    assert page.data()["cues"] == [[0, 4, "The sea rises."], [4.25, 8, "The sea falls."]]
    assert page.data()["starts"] == [0, 4.25]
    assert "Draft: check facts." in page.texts("footer")[0]
    assert "1 January 2026 · job 20260101-tides" in page.texts("footer")[0]
    assert [each["alt"] for each in page.attributes("img")] == ["", "Scene 1", "a beach"]
    assert "2 scenes · 0:08" in page.texts("p")


def test_the_audio_is_embedded_as_it_is(parts: dict[str, Any]) -> None:
    (audio,) = Document(build_page(**parts)).attributes("audio")
    head, _, data = str(audio["src"]).partition(",")
    assert head == "data:audio/wav;base64"
    assert base64.b64decode(data) == parts["audio"].read_bytes()


@pytest.mark.parametrize(("size", "mode"), [((2560, 1440), "RGB"), ((64, 64), "RGBA"), ((300, 200), "P")])
def test_pictures_become_light_webp(parts: dict[str, Any], tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    parts["title_picture"] = write_picture(tmp_path / "big.png", size, mode)
    source = Document(build_page(**parts)).attributes("img")[0]["src"]
    head, _, data = str(source).partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == "WEBP"
        assert max(image.size) == min(max(size), PICTURE_SIDE_PX_MAX)
        assert math.isclose(image.width / image.height, size[0] / size[1], rel_tol=0.01)


def test_hostile_text_stays_text_wherever_it_stands(parts: dict[str, Any]) -> None:
    plain = Document(build_page(**parts))
    parts |= {
        "title": HOSTILE,
        "language": HOSTILE,
        "job": HOSTILE,
        "made": HOSTILE,
        "scenes": [PageScene(each.picture, HOSTILE, each.start_s, HOSTILE) for each in parts["scenes"]],
        "cues": [Cue(0, 4, HOSTILE), Cue(4, 8, HOSTILE)],
        "notes": [HOSTILE],
    }
    page = build_page(**parts)
    hostile = Document(page)
    assert [tag for tag, _, _ in hostile.elements] == [tag for tag, _, _ in plain.elements]
    assert [sorted(each) for _, each, _ in hostile.elements] == [sorted(each) for _, each, _ in plain.elements]
    assert not hostile.comments
    assert not hostile.open
    shown = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert hostile.texts("h1") == hostile.texts("title") == [shown]
    assert hostile.data()["cues"][0][2] == HOSTILE
    assert not set("<>&\u2028") & set(re.findall(r'id="data">(.*?)</script>', page.decode())[0])


def test_the_policy_allows_this_script_and_style_and_no_request(parts: dict[str, Any]) -> None:
    page = build_page(**parts)
    policy = next(
        str(each["content"])
        for each in Document(page).attributes("meta")
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    for element, rule in ((b"script", "script-src"), (b"style", "style-src")):
        (inline,) = re.findall(rb"<%s>(.*?)</%s>" % (element, element), page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"


def test_nothing_in_the_page_points_elsewhere(parts: dict[str, Any]) -> None:
    page = Document(build_page(**parts))
    sources = [
        each[name] for _, each, _ in page.elements for name in ("src", "href", "action", "srcset") if name in each
    ]
    assert len(sources) == 5
    assert all(str(source).startswith("data:") for source in sources)
    assert not [name for _, each, _ in page.elements for name in each if name.startswith("on") or name == "style"]


def test_every_control_has_a_name(parts: dict[str, Any]) -> None:
    page = Document(build_page(**parts))
    controls = [
        each.get("aria-label") or "".join(text).strip()
        for tag, each, text in page.elements
        if tag in {"button", "input", "select", "audio"}
    ]
    assert len(controls) == 12
    assert all(controls)


@pytest.mark.parametrize(
    ("language", "own", "content", "label"),
    [
        ("en", "en", "en", "Play"),
        ("pt-BR", "pt-BR", "pt-BR", "Reproduzir"),
        ("PT", "PT", "PT", "Reproduzir"),
        ("ar", "en", "ar", "Play"),
        ("not a tag", "en", "und", "Play"),
    ],
)
def test_its_own_words_follow_the_language(
    parts: dict[str, Any], language: str, own: str, content: str, label: str
) -> None:
    page = Document(build_page(**parts | {"language": language}))
    assert page.attributes("html") == [{"lang": own}]
    assert page.attributes("h1")[0]["lang"] == content
    assert label in [each.get("aria-label") for each in page.attributes("button")]


def test_the_languages_say_the_same_things() -> None:
    english, *others = page_module._WORDS.values()
    assert others
    for other in others:
        assert other.keys() == english.keys()
        assert all(re.findall(r"{\w+}", other[key]) == re.findall(r"{\w+}", english[key]) for key in english)


@pytest.mark.parametrize(("starts", "until"), [([0, 10], 2), ([3, 10], 3), ([0, 1.5], 1.5), ([0], 2), ([0.5, 9], 2)])
def test_the_title_stays_until_the_first_scene_and_two_seconds(
    parts: dict[str, Any], starts: list[float], until: float
) -> None:
    parts["scenes"] = [PageScene(parts["title_picture"], "The sea.", start_s) for start_s in starts]
    assert Document(build_page(**parts)).data()["title_until_s"] == until


def test_an_hour_is_shown_as_one(parts: dict[str, Any]) -> None:
    parts["scenes"] = [PageScene(parts["title_picture"], "The sea.", 3725.5)]
    assert "Scene 1 1:02:05" in Document(build_page(**parts)).texts("button")


def test_the_script_holds_no_place_to_fill() -> None:
    template = resources.files("topicd.stages").joinpath("page.html").read_text()
    for element in ("script", "style"):
        assert "{{" not in template.partition(f"<{element}>")[2].partition(f"</{element}>")[0]


@pytest.mark.parametrize("part", ["audio", "title_picture"])
def test_a_missing_part_is_named(parts: dict[str, Any], tmp_path: Path, part: str) -> None:
    with pytest.raises(Rejected, match=r"gone\.bin is not there") as caught:
        build_page(**parts | {part: tmp_path / "gone.bin"})
    assert (caught.value.cause, caught.value.unit) == ("page_part_missing", "page")
    assert caught.value.hint


@pytest.mark.parametrize("part", ["audio", "title_picture"])
@pytest.mark.parametrize("data", [b"", b"junk", b"RIFF\0\0\0\0WAVE", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_part_is_named(parts: dict[str, Any], tmp_path: Path, part: str, data: bytes) -> None:
    path = tmp_path / "bad.bin"
    path.write_bytes(data)
    with pytest.raises(Rejected, match=r"bad\.bin cannot be decoded") as caught:
        build_page(**parts | {part: path})
    assert caught.value.cause == "page_part_damaged"


@pytest.mark.parametrize("part", ["audio", "title_picture"])
def test_a_part_that_cannot_be_read_is_a_matter_of_storage(parts: dict[str, Any], tmp_path: Path, part: str) -> None:
    with pytest.raises(StorageTrouble, match="cannot be read"):
        build_page(**parts | {part: tmp_path})


def test_audio_beyond_the_limit_is_refused_before_it_is_read(parts: dict[str, Any]) -> None:
    with parts["audio"].open("r+b") as sound:
        sound.truncate(PAGE_BYTES_MAX)
    with pytest.raises(Rejected, match="bytes; the most is") as caught:
        build_page(**parts)
    assert caught.value.cause == "page_too_large"


def test_text_counts_toward_the_limit(parts: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="the page has") as caught:
        build_page(**parts | {"notes": ["x" * PAGE_BYTES_MAX]})
    assert caught.value.cause == "page_too_large"


def test_a_picture_with_too_many_pixels_is_refused(parts: dict[str, Any], tmp_path: Path) -> None:
    huge = tmp_path / "huge.png"
    Image.new("1", (8000, 8000)).save(huge)
    with pytest.raises(Rejected, match="64,000,000 pixels"):
        build_page(**parts | {"title_picture": huge})


def test_a_page_without_scenes_is_a_mistake(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one scene"):
        build_page(**parts | {"scenes": []})
