"""Scripts from an Ollama server.

Owns the translation between our values and Ollama's API: `/api/chat`, what there is of models, and their memory. How
a script is asked for and read is in `writing.py`; how a model gets there, in `pull.py`. Promises that a stream which
breaks off, says an error or runs out of tokens is never taken for an answer. Never retries a failed request, never
knows of jobs.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from topicd.backends import writing
from topicd.backends.base import Probe, Script, ScriptRequest, ServerState
from topicd.backends.classify import excerpt
from topicd.backends.client import Client, Json
from topicd.backends.pull import Pull
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

_NAMES_SHOWN_MAX: Final = 12
_TOKENS_HINT: Final = "raise num_predict or num_ctx, or ask for fewer scenes"
_CHAT_HINT: Final = "set a model that can chat"


class Ollama:
    """A `ScriptBackend` on an Ollama server; it also `Frees`."""

    name = "ollama"
    holds_gpu = True

    def __init__(
        self,
        client: Client,
        *,
        model: str,
        temperature: float = 0.7,
        num_ctx: int = 8192,
        num_predict: int = 4096,
        keep_alive: str = "5m",
        repairs_max: int = 2,
        prompts_dir: Path | None = None,
        pull: bool = False,
        pull_again_after_s: float = 60.0,
        pull_pause_s: float = 1.0,
        calls_max: int = 1,
    ) -> None:
        """Prepare, without asking the server.

        Args:
            client: the server; this backend closes it.
            model: as `ollama list` names it.
            temperature: 0 is the most predictable.
            num_ctx: tokens of prompt and answer together.
            num_predict: tokens of one answer, at most.
            keep_alive: how long the model stays loaded after a call (`5m`, `0`, `-1`).
            repairs_max: how often a wrong answer is asked for again.
            prompts_dir: of a person's own prompts (`writing.py`); None for none.
            pull: whether a missing model is pulled.
            pull_again_after_s: how long a failed pull is left alone.
            pull_pause_s: before a pull's stream that ended is taken up again.
            calls_max: how many calls at once the server takes (its `OLLAMA_NUM_PARALLEL`).
        """
        self.calls_max = calls_max
        self._client = client
        self._model = model
        self._options = {"temperature": temperature, "num_ctx": num_ctx, "num_predict": num_predict}
        self._keep_alive = keep_alive
        self._repairs_max = repairs_max
        self._prompts = writing.Prompts(prompts_dir)
        missing = Pull(client, model, again_after_s=pull_again_after_s, pause_s=pull_pause_s)
        self._pull = missing if pull else None

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model, options, and a digest of the prompts."""
        options = {key: str(value) for key, value in self._options.items()}
        return {"server": "ollama", "model": self._model, "prompts": self._prompts.digest(), **options}

    def note(self) -> str:
        """Return what the server is busy with, for a person; empty when with nothing of ours but work."""
        return self._pull.note if self._pull else ""

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state(self.note())]

    async def probe(self) -> Probe:
        """Ask for the version, for the model, and for what the model can do.

        Raises:
            Unavailable: the server does not answer, or pulls the model.
            Unusable: it is no Ollama server, or lacks the model, or the model cannot chat.
        """
        self._check_pull()
        version = _field(await self._client.get_json("/api/version"), "version")
        models = await self._models()
        if not self._is_among(models):
            raise self._missing(models)
        details = {"version": version, "models": sorted(models), **await self._shown()}
        return Probe(f"Ollama {version}, {self._model}", details)

    async def write(self, request: ScriptRequest) -> Script:
        """Return a script.

        Raises:
            RetryLater: the answer is empty, cut, broken, or no script even after repairs.
            Unavailable: the server is away or busy, or pulls the model.
            Rejected: the server refuses this request.
            Unusable: the server lacks the model or cannot pull it, the model cannot chat, or a prompt cannot be used.
        """
        self._check_pull()

        async def chat(messages: Sequence[writing.Message]) -> str:
            return await self._chat(messages, request)

        return await writing.write(chat, request, self._prompts, repairs_max=self._repairs_max)

    async def free(self) -> None:
        """Have the server unload the model; where there is none, there is nothing to do.

        Raises:
            TopicdError: the server did not do it.
        """
        body = {"model": self._model, "keep_alive": 0}
        try:
            async with contextlib.aclosing(self._client.post_lines("/api/generate", body, is_work=False)) as lines:
                async for line in lines:
                    _check(line, body)
        except Unusable as error:
            if error.cause != "not_found":
                raise

    async def aclose(self) -> None:
        """Stop a pull, close the connections. Safe to call twice."""
        if self._pull:
            await self._pull.aclose()
        await self._client.aclose()

    async def _chat(self, messages: Sequence[writing.Message], request: ScriptRequest) -> str:
        body = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "format": writing.schema(request.scenes),
            "keep_alive": self._keep_alive,
            "options": {**self._options, "seed": request.seed},
        }
        try:
            text, reason = await self._read(body)
        except TopicdError as error:
            meant = await self._refined(error)
            if meant is error:
                raise
            raise meant from error
        return writing.whole(text, reason, server="Ollama", model=self._model, hint=_TOKENS_HINT)

    async def _read(self, body: Mapping[str, Json]) -> tuple[str, str]:
        """Return the text and why it ended; the reason is empty when the stream just stopped."""
        parts: list[str] = []
        async with contextlib.aclosing(self._client.post_lines("/api/chat", body)) as lines:
            async for line in lines:
                _check(line, body)
                parts.append(_field(line.get("message"), "content"))
                if line.get("done"):
                    return "".join(parts), str(line.get("done_reason") or "stop")
        return "".join(parts), ""

    async def _refined(self, error: TopicdError) -> TopicdError:
        if error.cause == "not_found":
            return self._missing(await self._models())
        if isinstance(error, Rejected) and "does not support" in error.message:
            return Unusable("model_unfit", error.message, hint=_CHAT_HINT)
        return error

    async def _shown(self) -> Mapping[str, Json]:
        """Return what the model can do; nothing where the server does not say."""
        try:
            shown = await self._client.post_json("/api/show", {"model": self._model}, is_work=False)
        except Unavailable:
            raise
        except TopicdError:
            return {}
        found = _abilities(shown if isinstance(shown, dict) else {})
        if "completion" not in found.get("capabilities", ["completion"]):
            raise Unusable("model_unfit", f"{excerpt(self._model)} does not write text.", hint=_CHAT_HINT)
        return found

    async def _models(self) -> frozenset[str]:
        listed = await self._client.get_json("/api/tags")
        models = listed.get("models") if isinstance(listed, dict) else None
        if not isinstance(models, list):
            raise Unusable(
                "not_ollama",
                f"{self._client.server} does not answer as Ollama does.",
                hint="check the address",
            )
        return frozenset(_field(model, "name") for model in models)

    def _is_among(self, models: frozenset[str]) -> bool:
        return self._model in models or f"{self._model}:latest" in models

    def _check_pull(self) -> None:
        if self._pull:
            self._pull.check()

    def _missing(self, models: frozenset[str]) -> TopicdError:
        if self._pull:
            return self._pull.wanted()
        shown = ", ".join(sorted(models)[:_NAMES_SHOWN_MAX]) or "none"
        message = f"Ollama has no model {excerpt(self._model)!r}; it has: {shown}."
        return Unusable("model_missing", message, hint=f"ollama pull {self._model}, or set one that is there")


def _check(line: Mapping[str, Json], body: Mapping[str, Json]) -> None:
    """Ollama says an error in a stream whose status is 200 already."""
    if "error" in line:
        words = excerpt(str(line["error"]), body)
        raise RetryLater("stream_error", f"Ollama broke off: {words}", hint="look into Ollama's own log")


def _field(value: Json, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _abilities(shown: Mapping[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if isinstance(shown.get("capabilities"), list) and shown["capabilities"]:
        found["capabilities"] = shown["capabilities"]
    info = shown.get("model_info")
    for key, value in info.items() if isinstance(info, dict) else ():
        if key.endswith(".context_length") and isinstance(value, int):
            found["context_length"] = value
    return found
