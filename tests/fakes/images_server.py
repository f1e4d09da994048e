"""A double of servers with OpenAI's `/v1/images/generations`, with the faults of the real ones.

Draws in the size that is asked for, unless it draws in few sizes only, as the cloud's models do; refuses a field or a
size that it does not know with a 400; answers an unknown model, each kind in its own way; refuses what its policy does
not allow; sends addresses in the place of pictures.
"""

import asyncio
import base64
from typing import Any

from aiohttp import web

from fakes.backends import png
from fakes.serving import Serving

CLOUD_SIZES = frozenset({"1024x1024", "1536x1024", "1024x1536"})
ONE_SIZE = frozenset({"1024x1024"})


class ImagesServer(Serving):
    """Answers every prompt with a picture.

    Attributes:
        fault: none (empty), or one of `policy`, `by_url`, `oom`, `model_404`, `model_400`, `model_500`.
        sizes: the only ones it draws; empty for any.
        fields: what it takes beside model, prompt and n.
        data: what it answers in place of a picture, when set.
        may_draw: pictures wait for it.
    """

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("flux",),
        lists: bool = True,
        routed: bool = True,
        prefix: str = "/v1",
        sizes: frozenset[str] = frozenset(),
        fields: frozenset[str] = frozenset({"size", "response_format"}),
    ) -> None:
        super().__init__()
        self.models, self.sizes, self.fields = models, sizes, fields
        self.fault = ""
        self.data: Any = None
        self.may_draw = asyncio.Event()
        self.may_draw.set()
        if routed:
            self.route("POST", f"{prefix}/images/generations", self._generate)
        if lists:
            self.route("GET", f"{prefix}/models", self._list)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused is not None:
            return refused
        await self.may_draw.wait()
        return web.json_response({"created": 1, "data": [self._item(body)] if self.data is None else self.data})

    def _refusal(self, body: dict[str, Any]) -> web.Response | None:
        if not body.get("prompt"):
            return _error(400, "Missing required parameter: 'prompt'.")
        if self.fault == "policy":
            return _error(400, "Your request was rejected by the safety system.", "content_policy_violation")
        if self.fault == "oom":
            return _error(500, "CUDA out of memory")
        if self.fault.startswith("model_"):
            return _error(int(self.fault.removeprefix("model_")), "could not load it")
        if body.get("model", self.models[0]) not in self.models:
            return _error(404, f"The model '{body['model']}' does not exist.", "model_not_found")
        return self._unknown(body)

    def _unknown(self, body: dict[str, Any]) -> web.Response | None:
        unknown = set(body) - self.fields - {"model", "prompt", "n"}
        if unknown:
            return _error(400, f"Unknown parameter: '{min(unknown)}'.")
        if self.sizes and body["size"] not in self.sizes:
            return _error(400, f"Invalid value: '{body['size']}'. Supported values are: {sorted(self.sizes)}.")
        return None

    def _item(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.fault == "by_url":
            return {"url": "http://127.0.0.1:9/picture.png"}
        width, height = map(int, body["size"].split("x"))
        # The API knows no seed; a local server draws the same for the same words all the same.
        return {"b64_json": base64.b64encode(png(width, height, sum(body["prompt"].encode()))).decode()}


def _error(status: int, message: str, code: str = "invalid_request_error") -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "code": code}
    return web.json_response({"error": error}, status=status)
