"""A double of servers with OpenAI's `/v1/chat/completions`, with the faults of the real ones.

Streams server-sent events with the role first, the text in pieces, the reason of the end, the usage without a choice,
and `[DONE]`; answers an unknown model with OpenAI's 404, refuses forms of answer it does not know with a 400, and puts
an error into a stream whose status is already 200.
"""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from aiohttp import web

from fakes.serving import Serving

ERRORS: dict[str, dict[str, Any]] = {
    "error_event": {"error": {"message": "CUDA error\nout of memory", "type": "server_error", "code": 500}},
    "error_words": {"error": "CUDA error\nout of memory"},
    "error_vllm": {"object": "error", "message": "CUDA error\nout of memory", "code": 500},
}
REASONS = {"length": "length", "content_filter": "content_filter"}
FORMS = {"refuses_schema": {"json_object", ""}, "refuses_format": {""}, "refuses_all": set[str]()}


class OpenAIServer(Serving):
    """Answers each chat with the next of `answers`, the last one again and again.

    Attributes:
        fault: none (empty), a key of `ERRORS`, `REASONS` or `FORMS`, or one of `thinks`, `refusal`, `cut`, `closed`,
            `silent`, `flood`, `busy`, `limited`, `unauthorized`, `not_json`, `array_event`, `broken`, `no_done`.
        pieces_gap_s: pause between two events of a stream.
    """

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("tiny",),
        answers: tuple[str, ...] = ("",),
        lists: bool = True,
        prefix: str = "/v1",
    ) -> None:
        super().__init__()
        self.models = models
        self.answers = list(answers)
        self.fault = ""
        self.pieces_gap_s = 0.0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.route("POST", f"{prefix}/chat/completions", self._chat)
        if lists:
            self.route("GET", f"{prefix}/models", self._list)

    async def _list(self, _: web.Request) -> web.StreamResponse:
        data = [{"id": name, "object": "model", "created": 1686935002, "owned_by": "me"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        refused = self._refusal(body)
        if refused is not None:
            return refused
        text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await self._stream(request, body, text)

    def _refusal(self, body: dict[str, Any]) -> web.Response | None:
        if self.fault == "busy":
            return _error(503, "Loading model", "unavailable_error")
        if self.fault == "limited":
            return _error(429, "Rate limit reached", "requests", **{"Retry-After": "7"})
        if self.fault == "unauthorized":
            return _error(401, "Incorrect API key provided", "invalid_request_error")
        if not body.get("messages"):
            return _error(400, "'messages' is a required property", "invalid_request_error")
        model = body.get("model", self.models[0])
        if model not in self.models:
            words = f"The model `{model}` does not exist or you do not have access to it."
            return _error(404, words, "invalid_request_error", "model_not_found")
        return self._unformed(body.get("response_format", {}).get("type", ""))

    def _unformed(self, form: str) -> web.Response | None:
        if self.fault == "broken":
            return _error(500, "failed to load model", "server_error")
        if self.fault in FORMS and form not in FORMS[self.fault]:
            return _error(400, f"Unsupported 'response_format.type': {form!r}", "invalid_request_error")
        return None

    async def _stream(self, request: web.Request, body: dict[str, Any], text: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.started.set()
        try:
            for event in self._events(body, text):
                await response.write(event)
                await asyncio.sleep(self.pieces_gap_s)
            if self.fault == "silent":
                await asyncio.Event().wait()
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled.set()
            raise
        if self.fault == "closed" and request.transport is not None:
            request.transport.close()
        return response

    def _events(self, body: dict[str, Any], text: str) -> Iterator[bytes]:
        yield b": keep-alive\n\n"
        yield self._piece(body, {"role": "assistant", "content": None if self.fault == "refusal" else ""})
        for at in range(0, len(text), 7):
            yield self._piece(body, {"content": text[at : at + 7]})
        if self.fault == "thinks":
            yield self._piece(body, {"reasoning_content": "hm, {"})
        if self.fault == "refusal":
            yield from (self._piece(body, {"refusal": words}) for words in ("I cannot ", "help with that."))
        while self.fault == "flood":
            yield self._piece(body, {"content": "more and more " * 100})
        yield from self._end(body)

    def _end(self, body: dict[str, Any]) -> Iterator[bytes]:
        if self.fault in ERRORS:
            yield _event(ERRORS[self.fault])
        elif self.fault == "not_json":
            yield b"data: <html>\n\n"
        elif self.fault == "array_event":
            yield b"data: []\n\n"
        elif self.fault not in {"cut", "silent", "closed"}:
            yield self._piece(body, {}, REASONS.get(self.fault, "stop"))
            yield _event({"object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 1}})
        if self.fault not in {"silent", "closed", "no_done"}:
            yield b"data: [DONE]\n\n"

    def _piece(self, body: dict[str, Any], delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1694268190}
        return _event({**head, "model": body.get("model", self.models[0]), "choices": [choice]})


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _error(status: int, words: str, kind: str, code: str | None = None, **headers: str) -> web.Response:
    said = {"message": words, "type": kind, "param": None, "code": code}
    return web.json_response({"error": said}, status=status, headers=headers)
