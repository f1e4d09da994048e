"""How a model that chats is brought to write a script, whoever runs it.

Owns the prompts, the schema, the reading of what comes back, and the repairs. Promises a script with a title and at
least one scene, free of a model's thinking; a wrong answer is asked for again with its error, then read as plain
paragraphs, then an error. A prompt is read when it is used, so that a person may edit it at any time. Never knows how
a model is reached.

A person's own prompts are files `<language>.txt` (`pt-BR.txt`, `en.txt`, in any case) in a directory. For `pt-BR` the
first of these is taken: own pt-BR, packaged pt-BR, own pt, packaged pt, own en, packaged en.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from topicd.backends.base import Scene, Script, ScriptRequest
from topicd.backends.classify import excerpt
from topicd.errors import RetryLater, Unusable

PROMPT_BYTES_MAX: Final = 65_536

_PLACEHOLDERS: Final = frozenset({"title", "guidance", "style", "language", "scenes", "schema"})
_TEXT_CHARS_MAX: Final = 4000
_SCENES_MAX: Final = 200
_PICTURE_CHARS_MAX: Final = 160

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

Message = Mapping[str, str]
Chat = Callable[[Sequence[Message]], Awaitable[str]]
"""Answers a conversation with the text of a whole answer (`whole`), or raises."""


class _SceneAnswer(BaseModel):
    narration: _Text
    picture: _Text


class _ScriptAnswer(BaseModel):
    title: _Text
    scenes: Annotated[list[_SceneAnswer], Field(min_length=1, max_length=_SCENES_MAX)]


class Prompts:
    """The prompts in force: the packaged ones, and before them a person's own.

    Args:
        prompts_dir: of the own ones; it need not be there. None for none.
    """

    def __init__(self, prompts_dir: Path | None = None) -> None:
        self._dir = prompts_dir

    def digest(self) -> str:
        """Return what changes when a prompt does; one that cannot be read counts by its name."""
        texts = dict(_packaged())
        with contextlib.suppress(Unusable):
            for name, file in self._own().items():
                texts[f"own/{name}"] = ""
                with contextlib.suppress(Unusable):
                    texts[f"own/{name}"] = _read(file)
        return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]

    def has(self, language: str) -> bool:
        """Tell whether there is a prompt for a language, or the one it is a kind of.

        Raises:
            Unusable: the directory of a person's own cannot be read.
        """
        *tags, _ = _tags(language)
        return not {*self._own(), *_packaged()}.isdisjoint(tags)

    def text(self, language: str) -> str:
        """Return the prompt of a language as it is written, with its placeholders.

        Raises:
            Unusable: a person's own prompt cannot be read, or has a placeholder that is none.
        """
        return self._template(language).template

    def prompt(self, request: ScriptRequest) -> str:
        """Return the prompt for a request.

        Raises:
            Unusable: a person's own prompt cannot be read, or has a placeholder that is none.
        """
        return self._template(request.language).substitute(
            title=request.title,
            guidance=request.guidance or "-",
            style=request.style or "-",
            language=request.language,
            scenes=request.scenes,
            schema=json.dumps(schema(request.scenes)),
        )

    def _template(self, language: str) -> Template:
        own = self._own()
        for tag in _tags(language):
            if tag in own:
                return _checked(Template(_read(own[tag])), own[tag])
            if tag in _packaged():
                return Template(_packaged()[tag])
        return Template(_packaged()["en"])

    def _own(self) -> Mapping[str, Path]:
        if self._dir is None:
            return {}
        try:
            files = sorted(file for file in self._dir.iterdir() if file.suffix.lower() == ".txt" and not _is_new(file))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unfit(self._dir, f"cannot be read ({error.strerror})") from error
        return {file.stem.lower(): file for file in files}


async def write(chat: Chat, request: ScriptRequest, prompts: Prompts, *, repairs_max: int) -> Script:
    """Return a script.

    Args:
        chat: asks the model.
        request: what the script is to be.
        prompts: from which the first message is made.
        repairs_max: how often a wrong answer is asked for again.

    Raises:
        RetryLater: the answer is no script, even after repairs.
        Unusable: a prompt cannot be used.
        TopicdError: what `chat` raises.
    """
    first = {"role": "user", "content": prompts.prompt(request)}
    text = await chat([first])
    for _ in range(repairs_max):
        problem = _problem(text, request.scenes)
        if not problem:
            break
        words = f"That is not right: {problem}. Answer again, with the JSON object only."
        text = await chat([first, {"role": "assistant", "content": text}, {"role": "user", "content": words}])
    return _script(text, request)


def whole(text: str, reason: str, *, server: str, model: str, hint: str) -> str:
    """Return what was said in an answer, without the thinking.

    Args:
        text: the answer.
        reason: why it ended, `length` when it ran out of tokens; empty when it just stopped.
        server: what answered, for the words of an error.
        model: likewise.
        hint: what to do when the tokens do not suffice.

    Raises:
        RetryLater: it is not whole, or nothing is said in it.
    """
    if not reason:
        raise RetryLater("answer_cut", f"{server} ended its answer without saying that it is done.")
    if reason == "length":
        raise RetryLater("script_cut", f"{model} ran out of tokens before the script's end.", hint=hint)
    spoken = without_thought(text)
    if not spoken:
        hint = "try another model, or one that does not think"
        raise RetryLater("script_empty", f"{model} answered without any text.", hint=hint)
    return spoken


def without_thought(text: str) -> str:
    """Templates leave out either tag: what stands before a lone end or after a lone start is thought too."""
    spoken = _THOUGHT.sub("", text)
    spoken = _THOUGHT_START.sub("", _THOUGHT_END.sub("", spoken)).strip()
    return spoken.encode("utf-8", "replace").decode("utf-8")


def schema(scenes: int) -> dict[str, Any]:
    """Return the JSON schema of an answer with so many scenes."""
    text = {"type": "string"}
    many = {
        "type": "array",
        "items": _object(narration=text, picture=text),
        "minItems": scenes,
        "maxItems": scenes,
    }
    return _object(title=text, scenes=many)


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    """Strict servers want every property required and no others."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


@cache
def _packaged() -> Mapping[str, str]:
    folder = resources.files("topicd.backends").joinpath("prompts")
    files = (file for file in folder.iterdir() if file.name.endswith(".txt"))
    return {file.name.removesuffix(".txt").lower(): file.read_text(encoding="utf-8") for file in files}


def _tags(language: str) -> Iterator[str]:
    """Yield a tag, what is left of it as its subtags go one by one, and English."""
    tag = language.lower()
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]
    yield "en"


def _is_new(file: Path) -> bool:
    """Whether a file has no words yet: the shell makes it before `topicd prompt` can say any."""
    return file.is_file() and not file.stat().st_size


def _read(file: Path) -> str:
    try:
        if not file.is_file():  # opening a pipe would wait for its other end
            raise _unfit(file, "is not a file")
        with file.open("rb") as opened:
            data = opened.read(PROMPT_BYTES_MAX + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise _unfit(file, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _unfit(file, "is not UTF-8") from error
    if len(data) > PROMPT_BYTES_MAX:
        raise _unfit(file, f"is larger than {PROMPT_BYTES_MAX} bytes")
    return text


def _checked(template: Template, file: Path) -> Template:
    if not template.is_valid():
        raise _unfit(file, "has a $ that begins no placeholder", "write $$ for a dollar sign")
    unknown = sorted(set(template.get_identifiers()) - _PLACEHOLDERS)
    if unknown:
        known = ", ".join(f"${name}" for name in sorted(_PLACEHOLDERS))
        raise _unfit(file, f"has an unknown placeholder, ${unknown[0][:100]}", f"the known ones are {known}")
    if not template.template.strip():
        raise _unfit(file, "is empty")
    return template


def _unfit(file: Path, what: str, hint: str = "mend it, or take it away to use the packaged one") -> Unusable:
    return Unusable("prompt_template", f"the prompt {excerpt(str(file))} {what}.", hint=hint)


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
