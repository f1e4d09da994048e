"""A picture as the images stage asks for it."""

from typing import Final

from topicd.backends.base import PictureRequest

LIGHTHOUSE: Final = PictureRequest(
    prompt="a lighthouse",
    narration="It stands there.",
    title="Tides",
    is_title=False,
    width_px=1280,
    height_px=720,
    style="oil",
    seed=42,
    job_seed=7,
)
