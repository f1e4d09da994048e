import io
import json
import subprocess
import sys
from dataclasses import asdict, replace
from hashlib import sha256
from random import Random

import pytest
from PIL import Image, ImageStat

from topicd.backends.base import PictureRequest
from topicd.backends.embedded.cards import draw, light, svg
from topicd.backends.embedded.cards.draw import Drawer, draw_card
from topicd.backends.embedded.cards.layout import lay_out
from topicd.backends.embedded.cards.palettes import PALETTES, contrast, palette_for
from topicd.backends.embedded.cards.title import overline, printable
from topicd.errors import Rejected

CARD_BYTES_MAX = 900_000
TITLE = PictureRequest("", "", "How tides work", True, 1280, 720, "", 11, 3)  # noqa: FBT003 - a request as it comes
SCENE = replace(
    TITLE, prompt="the moon over a calm sea", narration="Twice a day the sea rises.", is_title=False, seed=12
)

AWKWARD_TITLES = {
    "markup": "<svg> & \"quotes\" 'and' ]]> <!-- --> &amp;",
    "emoji": "🌊🌊🌊",
    "chinese": "潮汐是怎么形成的",
    "arabic": "كيف يعمل المد والجزر",
    "mixed": "Tides 潮汐 🌊 explained",
    "long": "A title that goes on and on and never seems to end " * 6,
    "one word": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "newlines": "one\n\ntwo\r\nthree\tfour\x00\x07",
    "surrogate": "half \ud83c of a pair",
    "empty": "",
    "vietnamese": "Thủy triều hoạt động như thế nào",
}


def image(request: PictureRequest) -> Image.Image:
    return Image.open(io.BytesIO(draw_card(request))).convert("RGB")


def test_a_card_has_the_size_asked_for_and_few_bytes() -> None:
    for request in (TITLE, SCENE):
        png = draw_card(request)
        assert Image.open(io.BytesIO(png)).size == (1280, 720)
        assert len(png) < CARD_BYTES_MAX


def test_another_process_draws_the_same_bytes() -> None:
    program = (
        "import hashlib, json, sys\n"
        "from topicd.backends.embedded.cards.draw import Drawer\n"
        "print(hashlib.sha256(Drawer().draw(**json.load(sys.stdin))[1]).hexdigest())\n"
    )
    small = replace(TITLE, width_px=320, height_px=256)
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(asdict(small)),
        env={"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stdout.strip() == sha256(draw_card(small)).hexdigest()


def test_what_was_drawn_before_does_not_matter() -> None:
    small = replace(SCENE, width_px=256, height_px=256)
    first = draw_card(small)
    draw_card(replace(TITLE, width_px=256, height_px=256, seed=99))
    assert draw_card(small) == first


def test_seed_changes_the_layout_and_job_seed_the_colours() -> None:
    small = replace(SCENE, width_px=256, height_px=256)
    pictures = {draw_card(r) for r in (small, replace(small, seed=13), replace(small, job_seed=4))}
    assert len(pictures) == 3


@pytest.mark.parametrize(("width", "height"), [(256, 256), (360, 640), (512, 512), (2048, 256), (256, 2048), (64, 64)])
@pytest.mark.parametrize("request_", [TITLE, SCENE], ids=["title", "scene"])
def test_any_size_gives_a_picture_with_light_and_dark(width: int, height: int, request_: PictureRequest) -> None:
    card = image(replace(request_, width_px=width, height_px=height))
    low, high = card.convert("L").getextrema()
    assert card.size == (width, height)
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert low < 30
    assert high > 200


def test_the_largest_size_promised_is_drawn() -> None:
    assert image(replace(TITLE, width_px=2048, height_px=2048)).size == (2048, 2048)


@pytest.mark.parametrize("side", [0, 63, 4097])
def test_a_size_out_of_bounds_is_rejected(side: int) -> None:
    with pytest.raises(Rejected) as caught:
        draw_card(replace(SCENE, width_px=side))
    assert caught.value.cause == "picture_size"
    assert caught.value.hint


@pytest.mark.parametrize("title", AWKWARD_TITLES.values(), ids=AWKWARD_TITLES.keys())
def test_any_title_gives_a_card(title: str) -> None:
    assert image(replace(TITLE, title=title, width_px=320, height_px=256)).size == (320, 256)


@pytest.mark.parametrize("title", AWKWARD_TITLES.values(), ids=AWKWARD_TITLES.keys())
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (360, 640), (256, 256)])
def test_no_title_leaves_its_box(title: str, width: int, height: int) -> None:
    layout = lay_out(width, height, has_text=True, tiles=4, random=Random(1))
    text = printable(title)
    words = draw._raster(svg.foreground(layout, PALETTES[0], (), draw._title(layout, text), overline(text)))
    ink = words.getchannel("A").getbbox()
    assert (ink is None) == (text == "")
    if ink and layout.text:
        box = layout.text
        assert box.x - 4 <= ink[0]
        assert ink[2] <= box.x + box.width + 1
        assert box.y - 1 <= ink[1]
        assert ink[3] <= box.y + box.height + 1


@pytest.mark.parametrize("job_seed", range(len(PALETTES)), ids=[p.name for p in PALETTES])
@pytest.mark.parametrize(("width", "height"), [(320, 180), (180, 320)])
def test_words_are_readable_on_what_lies_behind_them(job_seed: int, width: int, height: int) -> None:
    """Measure real pixels of the background in the text's box, with the light in different places."""
    palette = palette_for(job_seed)
    for seed in range(4):
        layout = lay_out(width, height, has_text=True, tiles=0, random=Random(seed))
        back = draw._raster(svg.background(layout, palette, Random(seed))).convert("RGB")
        assert layout.text
        box = layout.text
        behind = back.crop((int(box.x), int(box.y), int(box.x + box.width), int(box.y + box.height)))
        brightest = "#" + "".join(f"{high:02x}" for _, high in ImageStat.Stat(behind).extrema)
        assert contrast("#ffffff", brightest) >= 4.5
        assert contrast(palette.accent, brightest) >= 4.5


def test_the_grain_is_there_and_keeps_the_brightness() -> None:
    flat = Image.new("RGB", (256, 256), "#405060")
    nothing = Image.new("RGB", flat.size), Image.new("RGBA", flat.size)
    grained = light.compose(flat, *nothing, unit=0.4, glow="#ffffff", seed=1)
    spread = ImageStat.Stat(grained)
    assert spread.mean == pytest.approx([0x40, 0x50, 0x60], abs=0.1)
    assert all(0.5 < deviation < 2 for deviation in spread.stddev)


def test_the_drawer_answers_as_the_worker_expects() -> None:
    header, png = Drawer().draw(**asdict(replace(SCENE, width_px=256, height_px=256)))
    assert header == {}
    assert png == draw_card(replace(SCENE, width_px=256, height_px=256))
