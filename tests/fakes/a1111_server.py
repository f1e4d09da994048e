"""A double of the AUTOMATIC1111 API: the web UI's, and stable-diffusion.cpp's where it differs.

The picture is the server's choice of format and comes as base64; `info` is a JSON string, empty, or missing;
an unknown sampler is a 404 with words; without `--api` everything is a 404.
"""

import base64
import io
import json
from typing import Any

from aiohttp import web
from PIL import Image

from fakes.serving import Serving

INFO = json.dumps({"seed": 7, "all_seeds": [7], "sd_model_hash": "6ce0161689"})


def picture(kind: str = "PNG", width_px: int = 64, height_px: int = 40) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width_px, height_px), (10, 90, 160)).save(buffer, kind)
    return buffer.getvalue()


class A1111Server(Serving):
    """Draws `image` for every prompt.

    Attributes:
        image: the picture's bytes.
        info: a JSON string, an empty one, or None for none.
        answer: what to answer instead, when set.
        fault: none (empty), or one of `oom`, `no_images`.
    """

    def __init__(self, *, api: bool = True, models: tuple[str, ...] = ("base",)) -> None:
        super().__init__()
        self.models = models
        self.image = picture()
        self.info: str | None = INFO
        self.answer: Any = None
        self.fault = ""
        self.samplers = {"", "Euler a"}
        if api:
            self.route("GET", "/sdapi/v1/options", self._options)
            self.route("GET", "/sdapi/v1/sd-models", self._models)
            self.route("POST", "/sdapi/v1/txt2img", self._txt2img)

    async def _options(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"samples_format": "png", "sd_model_checkpoint": self.models[0]})

    async def _models(self, _: web.Request) -> web.StreamResponse:
        models = [{"title": f"{name}.safetensors [6ce0161689]", "model_name": name} for name in self.models]
        return web.json_response(models)

    async def _txt2img(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("prompt"):
            return web.json_response({"error": "prompt required"}, status=400)
        if body.get("sampler_name", "") not in self.samplers:
            return web.json_response({"detail": "Sampler not found"}, status=404)
        if self.fault == "oom":
            error = {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory."}
            return web.json_response(error, status=500)
        return web.json_response(self._drawn(body) if self.answer is None else self.answer)

    def _drawn(self, body: dict[str, Any]) -> dict[str, Any]:
        images = [] if self.fault == "no_images" else [base64.b64encode(self.image).decode()]
        drawn: dict[str, Any] = {"images": images, "parameters": body}
        return drawn if self.info is None else {**drawn, "info": self.info}
