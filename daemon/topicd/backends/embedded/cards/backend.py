"""The image backend `cards`, as the daemon sees it.

Owns the requests to the worker process that draws. Promises to import nothing heavy, and that cancelling a draw ends
the work. Never draws in the daemon's own process.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from topicd.backends.base import Picture, PictureRequest, Probe
from topicd.backends.embedded.installed import version
from topicd.backends.embedded.worker import Worker
from topicd.errors import RetryLater, Unavailable

DRAWING_VERSION: Final = "1"
START_TIMEOUT_S: Final = 30.0
PNG_BYTES_MAX: Final = 64 * 1024 * 1024
PACKAGES: Final = ("resvg-py", "pillow", "py-phosphor-icons", "fontpkg-inter")
SUMMARY: Final = "drawn cards: illustrations of ideas, not pictures of the scene"

_SPECIMEN: Final = PictureRequest(
    prompt="the moon over the sea",
    narration="",
    title="How tides work",
    is_title=True,
    width_px=256,
    height_px=256,
    style="",
    seed=1,
    job_seed=1,
)


class Cards:
    """Draws cards in a worker process. Free words on manner (`style`) change nothing.

    Args:
        call_timeout_s: seconds one card may take.
        idle_s: seconds without a card after which the worker process is ended.
    """

    name: str = "cards"
    calls_max: int = 1
    holds_gpu: bool = False

    def __init__(self, *, call_timeout_s: float, idle_s: float) -> None:
        self._call_timeout_s = call_timeout_s
        self._worker = Worker(
            "topicd.backends.embedded.cards.draw:Drawer",
            {},
            name="the card drawer",
            idle_s=idle_s,
            start_timeout_s=START_TIMEOUT_S,
            reply_bytes_max=PNG_BYTES_MAX,
        )

    def provenance(self) -> Mapping[str, str]:
        """Return the version of the drawing and of the packages that lend it shapes, letters and pixels."""
        return {"backend": self.name, "drawing": DRAWING_VERSION} | {p: version(p) for p in PACKAGES}

    async def probe(self) -> Probe:
        """Draw a small card.

        Raises:
            Unavailable: the worker process does not do it.
            Unusable: a package is missing (`embedded_missing`).
        """
        try:
            picture = await self.draw(_SPECIMEN)
        except RetryLater as error:
            raise Unavailable(error.cause, error.message, hint=error.hint) from error
        return Probe(SUMMARY, {**self.provenance(), "specimen_bytes": len(picture.data)})

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the card as PNG.

        Raises:
            RetryLater: the worker process crashed or was late.
            Rejected: the size asked for cannot be drawn (`picture_size`).
            Unusable: a package is missing (`embedded_missing`).
        """
        _, png = await self._worker.call("draw", asdict(request), timeout_s=self._call_timeout_s)
        return Picture(png)

    async def aclose(self) -> None:
        """End the worker process. Safe to call twice."""
        await self._worker.aclose()
