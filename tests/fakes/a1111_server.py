"""A double of the AUTOMATIC1111 API: the web UI's, and stable-diffusion.cpp's where it differs.

The picture is the server's choice of format and comes as base64; `info` is a JSON string, empty, or missing;
an unknown sampler is a 404 with words; without `--api` everything is a 404. stable-diffusion.cpp's server tells no
progress, cannot be interrupted, keeps its one model loaded, and answers what it does not know with its web page.
"""

import asyncio
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
        may_draw: pictures wait for it.
        progress: 0 … 1, of the picture under way.
        progress_status: of the answer that tells it.
        interrupted: how often it was.
        holds_memory: whether a checkpoint is loaded.
    """

    def __init__(self, *, api: bool = True, is_web_ui: bool = True, models: tuple[str, ...] = ("base",)) -> None:
        super().__init__()
        self.may_draw = asyncio.Event()
        self.may_draw.set()
        self.progress: Any = 0.0
        self.progress_status = 200
        self.interrupted = 0
        self.holds_memory = False
        self.models = models
        self.image = picture()
        self.info: str | None = INFO
        self.answer: Any = None
        self.fault = ""
        self.samplers = {"", "Euler a"}
        if api:
            self.route("GET", "/sdapi/v1/options", self._options)
            self.route("GET", "/sdapi/v1/sd-models", self._models)
            self.route("GET", "/sdapi/v1/samplers", self._samplers)
            self.route("POST", "/sdapi/v1/txt2img", self._txt2img)
        if api and is_web_ui:
            self.route("GET", "/sdapi/v1/progress", self._progress)
            self.route("POST", "/sdapi/v1/interrupt", self._interrupt)
            self.route("POST", "/sdapi/v1/unload-checkpoint", self._unload)
        elif api:
            self.route("GET", "/{anything:.*}", self._page)

    async def _options(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"samples_format": "png", "sd_model_checkpoint": self.models[0]})

    async def _models(self, _: web.Request) -> web.StreamResponse:
        models = [{"title": f"{name}.safetensors [6ce0161689]", "model_name": name} for name in self.models]
        return web.json_response(models)

    async def _samplers(self, _: web.Request) -> web.StreamResponse:
        return web.json_response([{"name": name, "aliases": []} for name in sorted(self.samplers) if name])

    async def _progress(self, _: web.Request) -> web.StreamResponse:
        told = {"progress": self.progress, "eta_relative": 1.0, "state": {}, "current_image": None}
        return web.json_response(told, status=self.progress_status)

    async def _interrupt(self, _: web.Request) -> web.StreamResponse:
        self.interrupted += 1
        return web.json_response({})

    async def _unload(self, _: web.Request) -> web.StreamResponse:
        self.holds_memory = False
        return web.json_response({})

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.Response(text="<!doctype html><title>sd.cpp</title>", content_type="text/html")

    async def _txt2img(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if not body.get("prompt"):
            return web.json_response({"error": "prompt required"}, status=400)
        if body.get("sampler_name", "") not in self.samplers:
            return web.json_response({"detail": "Sampler not found"}, status=404)
        if self.fault == "oom":
            error = {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "CUDA out of memory."}
            return web.json_response(error, status=500)
        self.holds_memory = True
        await self.may_draw.wait()
        return web.json_response(self._drawn(body) if self.answer is None else self.answer)

    def _drawn(self, body: dict[str, Any]) -> dict[str, Any]:
        images = [] if self.fault == "no_images" else [base64.b64encode(self.image).decode()]
        drawn: dict[str, Any] = {"images": images, "parameters": body}
        return drawn if self.info is None else {**drawn, "info": self.info}
