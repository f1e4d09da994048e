"""How a script is put together from a topic and many short calls of a language model.

Owns the two ways of writing: the *draft* way for the bundled small model, which is fluent and often wrong, so
that what the person wrote is told word for word, the model fills only scenes nobody wrote, and else says what the
scene's picture should show, where a wrong idea does no harm; and the *own* way
for a model a person brought, which is given the notes and believed. Promises the same script for the same request
and the same answers. Never starts a process, never knows which runtime answers.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final

from topicd.backends.base import Scene, Script, ScriptRequest
from topicd.backends.embedded import prose
from topicd.errors import Rejected, RetryLater

PROMPT_VERSION: Final = "2"
TRIES_MAX: Final = 6
NARRATION_WORDS_MAX: Final = 120

_TOKENS_MAX: Final = 80
_PICTURE_TOKENS_MAX: Final = 28
_PICTURE_OPENING: Final = "The photograph shows"
_OWN_TOKENS_MAX: Final = 220
_NOTES_CHARS_MAX: Final = 2_000
_TITLE_CHARS_MAX: Final = 200
_STYLE_CHARS_MAX: Final = 200
_SENTENCES_MAX: Final = 2
_OWN_SENTENCES_MAX: Final = 4
_SENTENCE_WORDS: Final = range(5, 36)
_SEEDS: Final = 2**31
_TRY_STEP: Final = 7_919
_TEMPERATURE: Final = 0.2
_TEMPERATURE_STEP: Final = 0.1
# Words that open a scene when nobody wrote any: a small model strays less when its first words are given.
_OPENINGS: Final = (
    "",
    "One important part is",
    "It begins with",
    "For example,",
    "Another part of it is",
    "Over time,",
    "In the end,",
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One call of the model.

    Attributes:
        system: how it should speak.
        user: what it is asked.
        opening: the first words of its answer, which it continues; may be empty.
        seed: 0 … 2**31-1.
        tokens_max: where it is cut.
        temperature: 0 … 2; higher strays more.
    """

    system: str
    user: str
    opening: str
    seed: int
    tokens_max: int
    temperature: float


Complete = Callable[[Prompt], Awaitable[str]]


async def draft(request: ScriptRequest, complete: Complete) -> Script:
    """Write a script with a model that is not to be believed.

    Args:
        request: what is asked for.
        complete: answers a prompt with the words that follow its opening.

    Raises:
        Rejected: the topic has no words (`topic_empty`).
        RetryLater: nothing the model said can be spoken (`script_empty`).
    """
    guidance = prose.read_guidance(request.guidance)
    title = _title(request)
    writer = _Draft(request, title, guidance, complete)
    shares = prose.share_out(guidance.notes, request.scenes)
    scenes = [await writer.scene(number, own) for number, own in enumerate(shares)]
    return Script(title, tuple(scenes))


async def own(request: ScriptRequest, complete: Complete) -> Script:
    """Write a script with a model the person chose; arguments and errors as for `draft`."""
    guidance = prose.read_guidance(request.guidance)
    title = _title(request)
    parts = prose.share_out(guidance.notes + guidance.aspects, request.scenes)
    told: list[str] = []
    scenes = []
    for number, part in enumerate(parts):
        narration = await _own_scene(request, complete, title=title, part=" ".join(part), number=number, told=told)
        told += narration
        scenes.append(_scene(narration))
    return Script(title, tuple(scenes))


class _Draft:
    """The draft way, one scene at a time, remembering what was told."""

    def __init__(self, request: ScriptRequest, title: str, guidance: prose.Guidance, complete: Complete) -> None:
        self._request, self._title, self._guidance, self._complete = request, title, guidance, complete
        self._source = f"{title} {request.guidance}"
        self._told = list(guidance.notes)

    async def scene(self, number: int, own: list[str]) -> Scene:
        narration = " ".join(_capped(own) or await self._written(number))
        return Scene(narration, await self._pictured(number, narration))

    async def _pictured(self, number: int, narration: str) -> str:
        """Return what the model would photograph, if it has to do with the narration; else that one's key words."""
        user = _prompt("picture", narration=narration[:_NOTES_CHARS_MAX])
        words = (_prompt("picture_system"), user, _PICTURE_OPENING)
        phrase = prose.phrase(await self._complete(_call(self._request, number, 0, words, _PICTURE_TOKENS_MAX)))
        return phrase if prose.stems(phrase) & prose.stems(narration) else prose.picture(narration)

    async def _written(self, number: int) -> list[str]:
        """Return one or two sentences of the model's; the least bad one when none is sound."""
        opening = _OPENINGS[number % len(_OPENINGS)]
        user = _prompt("draft", title=self._about(number))
        spare: list[str] = []
        for attempt in range(TRIES_MAX):
            reply = prose.spoken(f"{opening} {await self._ask(number, attempt, user, opening)}")
            said = self._sound(reply[:_SENTENCES_MAX])
            if said:
                break
            spare += reply[:1]
        said = said or self._least_bad(spare)
        if not said:
            raise RetryLater("script_empty", f"The model said nothing for scene {number + 1} that can be spoken.")
        self._told += said
        return said

    def _about(self, number: int) -> str:
        aspects = self._guidance.aspects
        if not aspects:
            return self._title
        return f"{self._title} ({aspects[number % len(aspects)].rstrip('.?!')[:_TITLE_CHARS_MAX]})"

    def _least_bad(self, spare: list[str]) -> list[str]:
        new = [sentence for sentence in spare if sentence not in self._told]
        return sorted(new, key=lambda s: (prose.strays(s, self._source), prose.repeats(s, self._told)))[:1]

    def _sound(self, reply: list[str]) -> list[str]:
        """Return the sentences up to the first bad one: what follows a dropped sentence hangs in the air."""
        kept: list[str] = []
        for sentence in reply:
            bad = len(sentence.split()) not in _SENTENCE_WORDS or prose.strays(sentence, self._source)
            if bad or prose.repeats(sentence, self._told + kept):
                break
            kept.append(sentence)
        return kept

    async def _ask(self, number: int, attempt: int, user: str, opening: str) -> str:
        system = f"{_prompt('draft_system')} {_style(self._request)}".strip()
        return await self._complete(_call(self._request, number, attempt, (system, user, opening), _TOKENS_MAX))


async def _own_scene(
    request: ScriptRequest, complete: Complete, *, title: str, part: str, number: int, told: list[str]
) -> list[str]:
    system = _prompt("own", language=request.language, style=_style(request))
    user = _prompt(
        "own_scene",
        title=title,
        notes=prose.plain(request.guidance)[:_NOTES_CHARS_MAX],
        told=" ".join(told)[-_NOTES_CHARS_MAX:],
        number=str(number + 1),
        scenes=str(request.scenes),
        part=part[:_NOTES_CHARS_MAX] or title,
    )
    for attempt in range(TRIES_MAX):
        prompt = _call(request, number, attempt, (system, user, ""), _OWN_TOKENS_MAX)
        reply = prose.spoken(await complete(prompt))[:_OWN_SENTENCES_MAX]
        kept = [sentence for sentence in reply if not prose.repeats(sentence, told, share_max=0.9)]
        if kept:
            return kept
    raise RetryLater("script_empty", f"The model said nothing for scene {number + 1} that can be spoken.")


def _title(request: ScriptRequest) -> str:
    title = prose.plain(request.title)[:_TITLE_CHARS_MAX].strip()
    if not any(character.isalnum() for character in title):
        raise Rejected("topic_empty", "The topic's title has no words.", hint="Give the topic a title.")
    return title


def _style(request: ScriptRequest) -> str:
    style = prose.plain(request.style)[:_STYLE_CHARS_MAX]
    return f"Manner: {style}." if style else ""


def _scene(kept: list[str]) -> Scene:
    narration = " ".join(kept)
    return Scene(narration=narration, picture=prose.picture(narration))


def _capped(own: list[str]) -> list[str]:
    """Return the leading sentences of a share that is too long to be narrated whole."""
    kept: list[str] = []
    for sentence in own:
        if kept and _words([*kept, sentence]) > NARRATION_WORDS_MAX:
            break
        kept.append(sentence)
    return kept


def _words(parts: list[str]) -> int:
    return sum(len(part.split()) for part in parts)


def _call(request: ScriptRequest, number: int, attempt: int, words: tuple[str, str, str], tokens_max: int) -> Prompt:
    """Return the prompt of one attempt: each has a seed of its own, and later ones may stray further."""
    seed = (request.seed + number + attempt * _TRY_STEP) % _SEEDS
    return Prompt(*words, seed=seed, tokens_max=tokens_max, temperature=_TEMPERATURE + _TEMPERATURE_STEP * attempt)


def _prompt(name: str, **values: str) -> str:
    text = resources.files(__package__).joinpath("prompts", f"{name}.txt").read_text(encoding="utf-8")
    return Template(text.strip()).substitute(values)
