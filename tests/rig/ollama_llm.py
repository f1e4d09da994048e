"""A server that speaks as Ollama does, on a llama.cpp server: real answers of a real, small model.

Owns the translation, which Ollama itself does much the same: render the messages, keep the newest tokens of a prompt
that is too long, hold the answer to `format`. Promises what the official client expects, errors included. Has one
model, which stays loaded until it is told to go, since nothing here keeps time. Pulls nothing from anywhere.
"""

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

import httpx
from aiohttp import web

from fakes.serving import Serving
from rig.llama_server import MODEL

VERSION: Final = "0.12.3"
PREDICT_MAX: Final = 512
TIMEOUT_S: Final = 120.0
FORMER: Final = "2026-08-21T10:00:00Z"
DIGEST: Final = "0" * 64

Json = Any
Worded = Callable[[str], dict[str, Json]]
"""Puts a piece of text into the fields of a line."""


class OllamaLLM(Serving):
    """The server, before a llama.cpp server at an address.

    Attributes:
        is_loaded: whether the model counts as loaded.
    """

    def __init__(self, llama_url: str) -> None:
        super().__init__()
        self.is_loaded = False
        # llama.cpp hangs up on kept connections when it likes; none is kept.
        unkept = httpx.Limits(max_keepalive_connections=0)
        self._llama = httpx.AsyncClient(base_url=llama_url, timeout=TIMEOUT_S, limits=unkept)
        self._meta: Mapping[str, Json] = {}
        self.route("GET", "/api/version", self._version)
        self.route("GET", "/api/tags", self._tags)
        self.route("GET", "/api/ps", self._ps)
        self.route("POST", "/api/show", self._show)
        self.route("POST", "/api/pull", self._pull)
        self.route("POST", "/api/chat", self._chat)
        self.route("POST", "/api/generate", self._generate)

    async def __aenter__(self) -> Self:
        listed = (await self._llama.get("/v1/models")).raise_for_status().json()
        self._meta = listed["data"][0]["meta"]
        return await super().__aenter__()

    async def __aexit__(self, *what: object) -> None:
        await super().__aexit__(*what)
        await self._llama.aclose()

    async def _version(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"version": VERSION})

    async def _tags(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"models": [{**self._named(), "modified_at": FORMER, "details": self._details()}]})

    async def _ps(self, _: web.Request) -> web.StreamResponse:
        loaded = {**self._named(), "details": self._details(), "expires_at": _now(), "size_vram": 0}
        return web.json_response({"models": [loaded] if self.is_loaded else []})

    async def _show(self, request: web.Request) -> web.StreamResponse:
        refused = _refusal(await request.json())
        if refused is not None:
            return refused
        info = {
            "general.architecture": "llama",
            "general.parameter_count": self._meta["n_params"],
            "llama.context_length": self._meta["n_ctx_train"],
        }
        about = {"modelfile": f"FROM {MODEL}", "template": "{{ .Prompt }}", "modified_at": FORMER}
        return web.json_response(
            {**about, "details": self._details(), "model_info": info, "capabilities": ["completion"]}
        )

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if _refusal(body) is None:
            ends = ("verifying sha256 digest", "writing manifest", "success")
            lines = [{"status": words} for words in ("pulling manifest", *ends)]
        else:
            lines = [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
        if body.get("stream", True):
            return web.Response(body=b"".join(map(_ndjson, lines)), content_type="application/x-ndjson")
        return web.json_response(lines[-1], status=500 if "error" in lines[-1] else 200)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        return await self._made(request, body, body.get("messages") or [], _message)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = [{"role": role, "content": body.get(key)} for role, key in (("system", "system"), ("user", "prompt"))]
        messages = [message for message in said if message["content"]] if body.get("prompt") else []
        return await self._made(request, body, messages, _response)

    async def _made(
        self, request: web.Request, body: Mapping[str, Json], messages: list[Json], worded: Worded
    ) -> web.StreamResponse:
        refused = _refusal(body)
        if refused is not None:
            return refused
        self.is_loaded = not _unloads(body)
        if not messages:
            done = {"done": True, "done_reason": "load" if self.is_loaded else "unload"}
            return web.json_response({"model": body["model"], "created_at": _now(), **worded(""), **done})
        try:
            asked = await self._asked(body, messages)
        except httpx.HTTPStatusError as error:
            return _error(500, error.response.text)
        async with contextlib.aclosing(self._lines(body, asked, worded)) as lines:
            if body.get("stream", True):
                return await _streamed(request, lines)
            whole = [line async for line in lines]
        if "error" in whole[-1]:
            return _error(500, whole[-1]["error"])
        return web.json_response({**whole[-1], **worded("".join(_text(line) for line in whole))})

    async def _asked(self, body: Mapping[str, Json], messages: list[Json]) -> dict[str, Json]:
        """Return what llama.cpp is asked for."""
        options = body.get("options") or {}
        room = min(int(options.get("num_ctx", PREDICT_MAX * 4)), int(self._meta["n_ctx"]))
        predict = int(options.get("num_predict", PREDICT_MAX))
        prompt = (await self._posted("/apply-template", {"messages": messages}))["prompt"]
        tokens = (await self._posted("/tokenize", {"content": prompt, "parse_special": True}))["tokens"]
        asked = {
            # Ollama moves the context along as the answer grows; here the answer's room is kept free from the start.
            "prompt": tokens[-(room - min(predict, room // 2)) :],
            "n_predict": predict,
            "stream": True,
            **{key: options[key] for key in ("seed", "temperature", "top_p", "top_k", "stop") if key in options},
        }
        schema = body.get("format")
        return {**asked, "json_schema": {"type": "object"} if schema == "json" else schema} if schema else asked

    async def _posted(self, path: str, body: Mapping[str, Json]) -> Json:
        return (await self._llama.post(path, json=body)).raise_for_status().json()

    async def _lines(
        self, body: Mapping[str, Json], asked: Mapping[str, Json], worded: Worded
    ) -> AsyncGenerator[dict[str, Json], None]:
        """Yield the lines of an answer; the last one says that it is done, or an error."""
        began_ns = time.monotonic_ns()
        async with self._llama.stream("POST", "/completion", json=asked) as answer:
            if answer.is_error:
                yield {"error": (await answer.aread()).decode()}
                return
            async for said in answer.aiter_lines():
                event = json.loads(said.partition(": ")[2] or "{}")
                if "code" in event or "error" in event:
                    yield {"error": said}
                    return
                if event:
                    end = _end(event, time.monotonic_ns() - began_ns) if event["stop"] else {"done": False}
                    yield {"model": body["model"], "created_at": _now(), **worded(event["content"]), **end}

    def _named(self) -> dict[str, Json]:
        return {"name": MODEL, "model": MODEL, "size": self._meta["size"], "digest": DIGEST}

    def _details(self) -> dict[str, Json]:
        size = f"{self._meta['n_params'] / 1e6:.2f}M"
        kind = {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"]}
        return {**kind, "parameter_size": size, "quantization_level": self._meta["ftype"]}


async def _streamed(request: web.Request, lines: AsyncGenerator[dict[str, Json], None]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for line in lines:
        await response.write(_ndjson(line))
    return response


def _refusal(body: Mapping[str, Json]) -> web.Response | None:
    model = body.get("model") or body.get("name") or ""
    if not model:
        return _error(400, "model is required")
    if model != MODEL:
        return _error(404, f"model '{model}' not found")
    if body.get("think"):
        return _error(400, f'"{model}" does not support thinking')
    return None


def _unloads(body: Mapping[str, Json]) -> bool:
    return str(body.get("keep_alive", "5m")) in {"0", "0.0", "0s", "0m"}


def _end(event: Mapping[str, Json], total_ns: int) -> dict[str, Json]:
    times = event["timings"]
    return {
        "done": True,
        "done_reason": "length" if event["stop_type"] == "limit" else "stop",
        "total_duration": total_ns,
        "load_duration": 0,
        "prompt_eval_count": event["tokens_evaluated"],
        "prompt_eval_duration": int(times["prompt_ms"] * 1e6),
        "eval_count": event["tokens_predicted"],
        "eval_duration": int(times["predicted_ms"] * 1e6),
    }


def _message(text: str) -> dict[str, Json]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, Json]:
    return {"response": text}


def _text(line: Mapping[str, Json]) -> str:
    text: str = line["message"]["content"] if "message" in line else line["response"]
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _ndjson(value: Mapping[str, Json]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _error(status: int, words: str) -> web.Response:
    return web.json_response({"error": words}, status=status)
