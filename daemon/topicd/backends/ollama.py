"""Scripts from an Ollama server.

Owns the translation between our values and `/api/chat`: the prompt, the schema, the reading of what comes
back. Promises a script with a title and at least one scene, free of a model's thinking; a wrong answer is
asked for again with its error, then read as plain paragraphs, then an error. Never retries a failed request,
never knows of jobs.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from string import Template
from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from topicd.backends.base import Probe, Scene, Script, ScriptRequest
from topicd.backends.classify import excerpt
from topicd.backends.client import Client, Json
from topicd.errors import Rejected, RetryLater, TopicdError, Unusable

_TEXT_CHARS_MAX: Final = 4000
_SCENES_MAX: Final = 200
_PICTURE_CHARS_MAX: Final = 160
_NAMES_SHOWN_MAX: Final = 12

_THOUGHT: Final = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THOUGHT_END: Final = re.compile(r"^.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_THOUGHT_START: Final = re.compile(r"<think(?:ing)?>.*$", re.DOTALL | re.IGNORECASE)
_HEADING: Final = re.compile(
    r"^[^\S\n]*(?:#.*|[-*_=]{3,}|```.*|[^\w\n]*(?:scene|cena)\s+\d+[^\w\n]*)$", re.IGNORECASE | re.MULTILINE
)
_LABEL: Final = re.compile(
    r"^[^\w\n]*(?:scene|cena)\s+\d+[^\w\n]+|^[^\S\n]*[-*]\s+|[*`]+", re.IGNORECASE | re.MULTILINE
)

_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=_TEXT_CHARS_MAX)]


class _SceneAnswer(BaseModel):
    narration: _Text
    picture: _Text


class _ScriptAnswer(BaseModel):
    title: _Text
    scenes: Annotated[list[_SceneAnswer], Field(min_length=1, max_length=_SCENES_MAX)]


class Ollama:
    """A `ScriptBackend` on an Ollama server."""

    name = "ollama"
    calls_max = 1
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
        """
        self._client = client
        self._model = model
        self._options = {"temperature": temperature, "num_ctx": num_ctx, "num_predict": num_predict}
        self._keep_alive = keep_alive
        self._repairs_max = repairs_max

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model, options, and a digest of the prompts."""
        options = {key: str(value) for key, value in self._options.items()}
        return {"server": "ollama", "model": self._model, "prompts": _prompts_digest(), **options}

    async def probe(self) -> Probe:
        """Ask for the version and for the model.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it is no Ollama server, or lacks the model.
        """
        version = _field(await self._client.get_json("/api/version"), "version")
        models = await self._models()
        if not self._is_among(models):
            raise self._missing(models)
        return Probe(f"Ollama {version}, {self._model}", {"version": version, "models": sorted(models)})

    async def write(self, request: ScriptRequest) -> Script:
        """Return a script.

        Raises:
            RetryLater: the answer is empty, cut, broken, or no script even after repairs.
            Unavailable: the server is away or busy.
            Rejected: the server refuses this request.
            Unusable: the server lacks the model, or the model cannot chat.
        """
        first = {"role": "user", "content": _prompt(request)}
        text = await self._chat([first], request)
        for _ in range(self._repairs_max):
            problem = _problem(text, request.scenes)
            if not problem:
                break
            again = {
                "role": "user",
                "content": f"That is not right: {problem}. Answer again, with the JSON object only.",
            }
            text = await self._chat([first, {"role": "assistant", "content": text}, again], request)
        return _script(text, request)

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    async def _chat(self, messages: list[dict[str, str]], request: ScriptRequest) -> str:
        body = {
            "model": self._model,
            "messages": messages,
            "stream": True,
            "format": _schema(request.scenes),
            "keep_alive": self._keep_alive,
            "options": {**self._options, "seed": request.seed},
        }
        try:
            text, done_reason = await self._read(body)
        except TopicdError as error:
            raise await self._refined(error) from error
        return self._whole(text, done_reason)

    async def _read(self, body: Mapping[str, Json]) -> tuple[str, str]:
        """Return the text and why it ended; the reason is empty when the stream just stopped."""
        parts: list[str] = []
        async with contextlib.aclosing(self._client.post_lines("/api/chat", body)) as lines:
            async for line in lines:
                if "error" in line:
                    words = excerpt(str(line["error"]))
                    raise RetryLater("stream_error", f"Ollama broke off: {words}", hint="look into Ollama's own log")
                parts.append(_field(line.get("message"), "content"))
                if line.get("done"):
                    return "".join(parts), str(line.get("done_reason") or "stop")
        return "".join(parts), ""

    def _whole(self, text: str, done_reason: str) -> str:
        if not done_reason:
            raise RetryLater("answer_cut", "Ollama ended its answer without saying that it is done.")
        if done_reason == "length":
            hint = "raise num_predict or num_ctx, or ask for fewer scenes"
            raise RetryLater("script_cut", f"{self._model} ran out of tokens before the script's end.", hint=hint)
        spoken = _without_thought(text)
        if not spoken:
            hint = "try another model, or one that does not think"
            raise RetryLater("script_empty", f"{self._model} answered without any text.", hint=hint)
        return spoken

    async def _refined(self, error: TopicdError) -> TopicdError:
        if error.cause == "not_found":
            return self._missing(await self._models())
        if isinstance(error, Rejected) and "does not support" in error.message:
            return Unusable("model_unfit", error.message, hint="set a model that can chat")
        return error

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

    def _missing(self, models: frozenset[str]) -> Unusable:
        shown = ", ".join(sorted(models)[:_NAMES_SHOWN_MAX]) or "none"
        message = f"Ollama has no model {excerpt(self._model)!r}; it has: {shown}."
        return Unusable("model_missing", message, hint=f"ollama pull {self._model}, or set one that is there")


def _field(value: Json, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


@cache
def _prompts() -> Mapping[str, str]:
    folder = resources.files("topicd.backends").joinpath("prompts")
    files = (file for file in folder.iterdir() if file.name.endswith(".txt"))
    return {file.name.removesuffix(".txt").lower(): file.read_text(encoding="utf-8") for file in files}


@cache
def _prompts_digest() -> str:
    return hashlib.sha256(json.dumps(_prompts(), sort_keys=True).encode()).hexdigest()[:16]


def _prompt(request: ScriptRequest) -> str:
    template = _prompts().get(request.language.lower()) or _prompts()["en"]
    return Template(template).substitute(
        title=request.title,
        guidance=request.guidance or "-",
        style=request.style or "-",
        language=request.language,
        scenes=request.scenes,
        schema=json.dumps(_schema(request.scenes)),
    )


def _schema(scenes: int) -> dict[str, Json]:
    text = {"type": "string"}
    scene = {
        "type": "object",
        "properties": {"narration": text, "picture": text},
        "required": ["narration", "picture"],
    }
    many = {"type": "array", "items": scene, "minItems": scenes, "maxItems": scenes}
    return {"type": "object", "properties": {"title": text, "scenes": many}, "required": ["title", "scenes"]}


def _without_thought(text: str) -> str:
    """Templates leave out either tag: what stands before a lone end or after a lone start is thought too."""
    spoken = _THOUGHT.sub("", text)
    spoken = _THOUGHT_START.sub("", _THOUGHT_END.sub("", spoken)).strip()
    return spoken.encode("utf-8", "replace").decode("utf-8")


def _parsed(text: str) -> Script:
    answer = _ScriptAnswer.model_validate_json(text[text.find("{") : text.rfind("}") + 1])
    return Script(answer.title, tuple(Scene(scene.narration, scene.picture) for scene in answer.scenes))


def _problem(text: str, scenes: int) -> str:
    """Say what is wrong with an answer, in words for the model; empty when nothing is."""
    try:
        script = _parsed(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:3]
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in found)
    there = len(script.scenes)
    return "" if there == scenes else f"there are {there} scenes where {scenes} are asked for"


def _script(text: str, request: ScriptRequest) -> Script:
    with contextlib.suppress(ValidationError):
        script = _parsed(text)
        return Script(script.title, script.scenes[: request.scenes])
    scenes = () if _is_debris(text) else _plain_scenes(text, request.scenes)
    if not scenes:
        hint = "try a larger model"
        raise RetryLater("script_invalid", "the model's answer is not a script, even after repairs.", hint=hint)
    return Script(request.title, scenes)


def _is_debris(text: str) -> bool:
    return text.lstrip("` \n").startswith(("{", "[", "json")) or '"narration"' in text


def _plain_scenes(text: str, scenes: int) -> tuple[Scene, ...]:
    """Read paragraphs as scenes; of more than wanted, neighbours are joined so that none is lost."""
    plain = _LABEL.sub("", _HEADING.sub("", text))
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", plain) if part.strip()]
    size = -(-len(paragraphs) // scenes)
    joined = (" ".join(paragraphs[at : at + size]) for at in range(0, len(paragraphs), size or 1))
    return tuple(Scene(text[:_TEXT_CHARS_MAX], _picture(text)) for text in joined)


def _picture(narration: str) -> str:
    return re.split(r"(?<=[.!?])\s", narration, maxsplit=1)[0][:_PICTURE_CHARS_MAX]
