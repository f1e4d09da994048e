"""The suite for backends that draw."""

import io
from dataclasses import replace

from PIL import Image

from conformance.backend import BROKEN_TEXTS, NO_WORDS, TEXTS, BackendSuite
from topicd.backends.base import ImageBackend, Picture, PictureRequest
from topicd.stages.images import checked_png

PLAIN = PictureRequest(
    prompt="the moon over a calm sea",
    narration="The Moon pulls on the sea. It rises.",
    title="Why the sea rises",
    is_title=False,
    width_px=256,
    height_px=256,
    style="calm and plain",
    seed=7,
    job_seed=3,
)
TITLE = replace(PLAIN, prompt=PLAIN.title, narration="", is_title=True)
UNUSUAL = {
    "the title": TITLE,
    "empty style": replace(PLAIN, style=""),
    "no narration": replace(PLAIN, narration=""),
    "no prompt": replace(PLAIN, prompt=""),
    "seeds 0": replace(PLAIN, seed=0, job_seed=0),
    "largest seeds": replace(PLAIN, seed=2**31 - 1, job_seed=2**31 - 1),
    "as wide as it gets": replace(TITLE, width_px=2048, height_px=256),
    "as tall as it gets": replace(TITLE, width_px=256, height_px=2048),
    "long text": replace(PLAIN, prompt="water and waves " * 120, narration="The sea rises. " * 330),
    "long title": replace(TITLE, title="Sea " * 50, prompt="Sea " * 50),
    "one long word": replace(TITLE, title="a" * 200, prompt="a" * 200),
    "no words": replace(PLAIN, prompt=NO_WORDS, narration=NO_WORDS, style=NO_WORDS),
    **{f"{name} in the title": replace(TITLE, title=text, prompt=text) for name, text in TEXTS.items()},
    **{
        f"{name} in a scene": replace(PLAIN, prompt=text, narration=text, style=text)
        for name, text in {**TEXTS, **BROKEN_TEXTS}.items()
    },
}


class ImageSuite(BackendSuite[ImageBackend, PictureRequest, Picture]):
    """What every ImageBackend does."""

    protocol = ImageBackend
    plain = PLAIN
    other = replace(PLAIN, prompt="a ship in the harbour", seed=8)
    long = replace(PLAIN, width_px=2048, height_px=2048)
    unusual = UNUSUAL

    async def ask(self, backend: ImageBackend, request: PictureRequest) -> Picture:
        return await backend.draw(request)

    def check(self, product: Picture, request: PictureRequest) -> None:
        assert isinstance(product, Picture)
        png = checked_png(product, request.width_px, request.height_px, "images/001")
        with Image.open(io.BytesIO(png)) as image:
            assert (image.format, image.size) == ("PNG", (request.width_px, request.height_px))
