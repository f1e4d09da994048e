"""A double of Ollama's HTTP API, as faithful as its clients can tell, with faults on request.

Streams by default, answers 404 for a model it lacks, 400 for a request without one, 503 when busy, and puts
an error line into a stream whose status is already 200. Pulls a model by a plan.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from fakes.serving import Serving

VERSION = "0.12.3"
WHEN = "2026-08-21T10:00:00.000000Z"
LAYER = "sha256:dde5aa3fc5ffc17176b5e8bdc82f587b24b2678c6c66101bf7da77af9f7ccdff"
LAYER_BYTES = 2_000_000_000
NOT_PULLED = "pull model manifest: file does not exist"


def script_answer(scenes: int, title: str = "Tides") -> str:
    """Return what a good model answers."""
    items = [{"narration": f"Sentence number {n}.", "picture": f"a picture of {n}"} for n in range(1, scenes + 1)]
    return json.dumps({"title": title, "scenes": items})


class OllamaServer(Serving):
    """Answers each chat with the next of `answers`, the last one again and again.

    Attributes:
        fault: none (empty), or one of `error_line`, `cut`, `length`, `silent`, `flood`, `busy`, `not_json`,
            `array_line`, `no_chat`, `closed`.
        pieces_gap_s: pause between two lines of a stream.
        plan: of each pull, how many bytes it says are there, and its end: `success`, `error`, `cut`, `hang`, `flood`,
            `lie` (a success without a model); the last one again and again.
        capabilities: what `/api/show` says of every model; None for a server that knows no such route.
        unloaded: the models that were unloaded.
    """

    def __init__(self, *, models: tuple[str, ...] = ("tiny:latest",), answers: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        self.models = models
        self.answers = list(answers)
        self.fault = ""
        self.pieces_gap_s = 0.0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.plan: list[tuple[int, str]] = [(LAYER_BYTES, "success")]
        self.capabilities: list[str] | None = ["completion", "tools"]
        self.unloaded: list[str] = []
        self.pull_cancelled = asyncio.Event()
        self.route("GET", "/api/version", self._version)
        self.route("GET", "/api/tags", self._tags)
        self.route("POST", "/api/chat", self._chat)
        self.route("POST", "/api/show", self._show)
        self.route("POST", "/api/pull", self._pull)
        self.route("POST", "/api/generate", self._generate)

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": VERSION})

    async def _tags(self, _: web.Request) -> web.StreamResponse:
        models = [
            {"name": name, "model": name, "modified_at": WHEN, "size": 1, "digest": "0" * 64} for name in self.models
        ]
        return web.json_response({"models": models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused is not None:
            return refused
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not body.get("stream", True):
            return web.json_response(self._line(body, text, done=True))
        return await self._stream(request, body, text)

    def _refusal(self, body: dict[str, Any]) -> web.Response | None:
        model = body.get("model", "")
        if self.fault == "busy":
            return _error(503, "server busy, please try again.  maximum pending requests exceeded")
        if not model:
            return _error(400, "model is required")
        if self.fault == "no_chat":
            return _error(400, f'"{model}" does not support chat')
        if not self._has(model):
            return _error(404, f"model '{model}' not found")
        return None

    def _has(self, model: str) -> bool:
        return model in self.models or f"{model}:latest" in self.models

    async def _show(self, request: web.Request) -> web.StreamResponse:
        model = (await request.json())["model"]
        if self.capabilities is None:
            raise web.HTTPNotFound
        if not self._has(model):
            return _error(404, f"model '{model}' not found")
        info = {"general.architecture": "llama", "llama.context_length": 131072, "llama.block_count": 28}
        shown = {"modelfile": "FROM x", "details": {"family": "llama"}, "model_info": info}
        return web.json_response({**shown, "capabilities": self.capabilities})

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused is not None:
            return refused
        assert body["keep_alive"] == 0, "nothing else is asked of it"
        self.unloaded.append(body["model"])
        line = {"model": body["model"], "created_at": WHEN, "response": "", "done": True, "done_reason": "unload"}
        if self.fault == "error_line":
            line = {"error": "cannot unload"}
        return web.Response(body=_ndjson(line), content_type="application/x-ndjson")

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        model = (await request.json())["model"]
        completed, end = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        layer = {"status": f"pulling {LAYER[7:19]}", "digest": LAYER, "total": LAYER_BYTES}
        try:
            for line in ({"status": "pulling manifest"}, layer, {**layer, "completed": completed}):
                await response.write(_ndjson(line))
            while end == "flood":
                await response.write(_ndjson({**layer, "completed": completed}))
            if end == "hang":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionError):
            self.pull_cancelled.set()
            raise
        for line in self._ending(model, end):
            await response.write(_ndjson(line))
        return response

    def _ending(self, model: str, end: str) -> Iterator[dict[str, Any]]:
        if end == "error":
            yield {"error": NOT_PULLED}
        if end == "success":
            self.models = (*self.models, f"{model}:latest")
        if end in {"success", "lie"}:
            yield from ({"status": words} for words in ("verifying sha256 digest", "writing manifest", "success"))

    async def _stream(self, request: web.Request, body: dict[str, Any], text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        self.started.set()
        try:
            for line in self._lines(body, text):
                await response.write(line)
                await asyncio.sleep(self.pieces_gap_s)
            if self.fault == "silent":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        if self.fault == "closed" and request.transport is not None:
            request.transport.close()
        return response

    def _lines(self, body: dict[str, Any], text: str) -> Iterator[bytes]:
        for at in range(0, len(text), 7):
            yield _ndjson(self._line(body, text[at : at + 7], done=False))
        while self.fault == "flood":
            yield _ndjson(self._line(body, "more and more " * 100, done=False))
        if self.fault == "error_line":
            yield _ndjson({"error": "an error was encountered while running the model: CUDA error\nout of memory"})
        elif self.fault == "not_json":
            yield b"<html>\n"
        elif self.fault == "array_line":
            yield b"[]\n"
        elif self.fault not in {"cut", "silent", "closed"}:
            yield _ndjson(self._line(body, "", done=True))

    def _line(self, body: dict[str, Any], text: str, *, done: bool) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        line = {"model": body["model"], "created_at": WHEN, "message": message, "done": done}
        reason = "length" if self.fault == "length" else "stop"
        return {**line, "done_reason": reason, "total_duration": 1, "eval_count": 1} if done else line


def _ndjson(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _error(status: int, words: str) -> web.Response:
    return web.json_response({"error": words}, status=status)
