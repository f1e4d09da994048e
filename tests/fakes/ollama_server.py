"""A double of Ollama's HTTP API, as faithful as its clients can tell, with faults on request.

Streams by default, answers 404 for a model it lacks, 400 for a request without one, 503 when busy, and puts
an error line into a stream whose status is already 200.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from fakes.serving import Serving

VERSION = "0.12.3"
WHEN = "2026-08-21T10:00:00.000000Z"


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
    """

    def __init__(self, *, models: tuple[str, ...] = ("tiny:latest",), answers: tuple[str, ...] = ("",)) -> None:
        super().__init__()
        self.models = models
        self.answers = list(answers)
        self.fault = ""
        self.pieces_gap_s = 0.0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.route("GET", "/api/version", self._version)
        self.route("GET", "/api/tags", self._tags)
        self.route("POST", "/api/chat", self._chat)

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
        if model not in self.models and f"{model}:latest" not in self.models:
            return _error(404, f"model '{model}' not found")
        return None

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
