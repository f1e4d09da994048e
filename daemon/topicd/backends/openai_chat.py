"""Scripts from a server that speaks as OpenAI does: llama.cpp, vLLM, LM Studio, LocalAI, OpenRouter and others.

Owns the translation between our values and `/chat/completions`. How a script is asked for and read is in `writing.py`.
Promises that a stream which breaks off, says an error or runs out of tokens is never taken for an answer, and that a
server which cannot hold a model to a schema is asked with less, down to the prompt alone. Never retries a failed
request otherwise, never knows of jobs.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from topicd.backends import writing
from topicd.backends.base import Probe, Script, ScriptRequest, ServerState
from topicd.backends.classify import excerpt
from topicd.backends.client import Client, Json
from topicd.backends.openai import OpenAIServer
from topicd.errors import Rejected, RetryLater, TopicdError

_FORMS: Final = ("json_schema", "json_object", "")
_TOKENS_HINT: Final = "raise max_tokens or the server's context, or ask for fewer scenes"
_REFUSED_HINT: Final = "word the topic in another way, or set another model"


class OpenAIChat:
    """A `ScriptBackend` on a server with OpenAI's `/chat/completions`."""

    name = "openai-chat"

    def __init__(
        self,
        client: Client,
        *,
        model: str,
        prefix: str = "/v1",
        calls_max: int = 1,
        holds_gpu: bool = False,
        temperature: float = 0.7,
        max_tokens: int = 4096,
        repairs_max: int = 2,
        prompts_dir: Path | None = None,
    ) -> None:
        """Prepare, without asking the server.

        Args:
            client: the server; this backend closes it.
            model: as `/models` names it; empty for a server that has just one.
            prefix: what stands before `/chat/completions` in the path; empty when the client's address has it already.
            calls_max: how many calls at once the server takes.
            holds_gpu: whether the server occupies the GPU while it has a model loaded.
            temperature: 0 is the most predictable.
            max_tokens: of one answer.
            repairs_max: how often a wrong answer is asked for again.
            prompts_dir: of a person's own prompts (`writing.py`); None for none.
        """
        self.calls_max, self.holds_gpu = calls_max, holds_gpu
        self._client, self._model = client, model
        self._server = OpenAIServer(client, prefix=prefix, route="chat/completions", api="chat", model=model)
        self._options = {"temperature": temperature, "max_tokens": max_tokens}
        self._repairs_max = repairs_max
        self._prompts = writing.Prompts(prompts_dir)
        self._form = 0

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model, options, and a digest of the prompts."""
        options = {key: str(value) for key, value in self._options.items()}
        return {"server": "openai-chat", "model": self._model, "prompts": self._prompts.digest(), **options}

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state()]

    async def probe(self) -> Probe:
        """Ask for the models; where the server lists none, whether it knows the route.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it has no such API, or lacks the model.
        """
        models = await self._server.models()
        if not models:
            await self._server.ask_route()
        self._server.check_model(models)
        return Probe(f"OpenAI chat, {excerpt(self._model) or 'its own model'}", {"models": sorted(models)})

    async def write(self, request: ScriptRequest) -> Script:
        """Return a script.

        Raises:
            RetryLater: the answer is empty, cut, broken, or no script even after repairs.
            Unavailable: the server is away or busy.
            Rejected: the server or the model refuses this request.
            Unusable: the server lacks the model or the route, or a prompt cannot be used.
        """

        async def chat(messages: Sequence[writing.Message]) -> str:
            return await self._chat(messages, request)

        return await writing.write(chat, request, self._prompts, repairs_max=self._repairs_max)

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    async def _chat(self, messages: Sequence[writing.Message], request: ScriptRequest) -> str:
        model = {"model": self._model} if self._model else {}
        body = {**model, "messages": messages, "stream": True, "seed": request.seed, **self._options}
        try:
            text, reason = await self._asked(body, request.scenes, self._form)
        except TopicdError as error:
            meant = await self._server.meant(error)
            if meant is error:
                raise
            raise meant from error
        named = self._model or "the model"
        return writing.whole(text, reason, server=self._client.server, model=named, hint=_TOKENS_HINT)

    async def _asked(self, body: Mapping[str, Json], scenes: int, form: int) -> tuple[str, str]:
        """Ask with a form of answer, with a looser one where that is refused; remember what worked."""
        try:
            found = await self._read({**body, **_response_format(_FORMS[form], scenes)})
        except TopicdError as error:
            # Which field is meant, servers say in too many ways: what a second try tells is certain.
            if error.cause != "bad_request" or form == len(_FORMS) - 1:
                raise
        else:
            self._form = form
            return found
        return await self._asked(body, scenes, form + 1)

    async def _read(self, body: Mapping[str, Json]) -> tuple[str, str]:
        """Return the text and why it ended; the reason is empty when the stream just stopped."""
        parts: list[str] = []
        refusal: list[str] = []
        async with contextlib.aclosing(self._client.post_events(self._server.route, body)) as events:
            async for event in events:
                self._check(event, body)
                choice = _first(event)
                parts.append(_field(choice.get("delta"), "content"))
                refusal.append(_field(choice.get("delta"), "refusal"))
                if reason := _field(choice, "finish_reason"):
                    self._check_refusal(reason, "".join(refusal), body)
                    return "".join(parts), reason
        return "".join(parts), ""

    def _check(self, event: Mapping[str, Json], body: Mapping[str, Json]) -> None:
        """Servers say an error in a stream whose status is 200 already; vLLM marks it by its kind."""
        if event.get("error") or event.get("object") == "error":
            said = event.get("error") or event
            words = excerpt(_field(said, "message") or str(said), body)
            hint = "look into the server's own log"
            raise RetryLater("stream_error", f"{self._client.server} broke off: {words}", hint=hint)

    def _check_refusal(self, reason: str, words: str, body: Mapping[str, Json]) -> None:
        if reason == "content_filter":
            message = f"{self._client.server} held the answer back by its content filter."
            raise Rejected("script_refused", message, hint=_REFUSED_HINT)
        if words:
            raise Rejected("script_refused", f"the model refuses: {excerpt(words, body)}", hint=_REFUSED_HINT)


def _response_format(form: str, scenes: int) -> Mapping[str, Json]:
    if form == "json_schema":
        held = {"name": "script", "strict": True, "schema": writing.schema(scenes)}
        return {"response_format": {"type": form, "json_schema": held}}
    return {"response_format": {"type": form}} if form else {}


def _first(event: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the first choice; the event that tells the usage has none."""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _field(value: Json, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""
