"""Text in, text out: what a topic's guidance says, what of a model's reply can be spoken, what a scene shows.

Owns the rules that make a small model's words fit to be narrated. Promises that the same text gives the same
result everywhere. Never does I/O, save reading its own list of stop words once.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Final

PICTURE_WORDS_MAX: Final = 8
PHRASE_WORDS_MAX: Final = 16
GUIDANCE_CHARS_MAX: Final = 100_000
SENTENCE_CHARS_MAX: Final = 600

_PARAGRAPH_LINE_CHARS: Final = 50
_SENTENCE_WORDS_MIN: Final = 4
_PREFIX_CHARS_MIN: Final = 4
_STEM_CHARS: Final = 6

_ABBREVIATIONS: Final = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|vs|fig|approx|ca|cf|e\.g|i\.e|[a-z]\.[a-z]|[A-Z]))\.$",
    re.IGNORECASE,
)
# Typographic marks are written as escapes, so that they are not taken for their ASCII look-alikes.
_END: Final = r"[.!?\u2026\u3002\uff01\uff1f]"
_CLOSERS: Final = r"[\"'\u201d\u2019)\]]*"
_CLOSED: Final = re.compile(f"{_END}{_CLOSERS}$")
_BREAK: Final = re.compile(r"(?<=[.!?\u2026])\s+|(?<=[.!?\u2026][\"'\u201d\u2019)\]])\s+|(?<=[\u3002\uff01\uff1f])\s*")
_ITEM: Final = re.compile(r"^\s*(?:[-*+\u2022\u2013]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_ORDER: Final = re.compile(
    r"^(?:please|write|explain|describe|tell|include|mention|focus|avoid|cover|discuss|talk about|"
    r"emphasi[sz]e|"
    r"keep (?:it|the (?:tone|text|language))|make (?:it|sure)|(?:i|we)(?:'d| would)? (?:want|like|need)|"
    r"the (?:video|script|narration|tone|audience|text)\b|[a-z ]{3,20}:\s)",
    re.IGNORECASE,
)
_META: Final = re.compile(
    r"\b(?:I|I'm|I'll|me|my|we|we're|let's|imagine|sure|certainly|here is|here's|as an ai|rewritten|revised|"
    r"this (?:topic|passage|story|version|paragraph|sentence|script|video))\b",
    re.IGNORECASE,
)
_MARKS: Final = re.compile(r"[*#`<>|\[\]{}\"\u201c\u201d=\\]|\?|:$|\b\w\.$")
_AMOUNT: Final = re.compile(r"\d+|\b(?:dozen|hundred|thousand|million|billion|percent)s?\b", re.IGNORECASE)
_PREAMBLE: Final = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok)\b[^.:!\n]*[.:!]|here(?:'s| is| are)\b[^.:\n]*:)\s*",
    re.IGNORECASE,
)
_COMMON_NAMES: Final = frozenset({"Earth", "Moon", "Sun", "English"})


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a person wrote beside the title.

    Attributes:
        notes: sentences fit to be told as they stand.
        aspects: fragments, questions and instructions: what to tell of, not what to say.
    """

    notes: tuple[str, ...]
    aspects: tuple[str, ...]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, each with its closing mark, white space made single."""
    found: list[str] = []
    for part in _BREAK.split(" ".join(text.split())):
        if found and _ABBREVIATIONS.search(found[-1]):
            found[-1] += f" {part}"
        elif part:
            found.append(part)
    return found


def read_guidance(text: str) -> Guidance:
    """Return what the guidance says, in its own order, free of markdown."""
    notes: list[str] = []
    aspects: list[str] = []
    for paragraph in _paragraphs(text[:GUIDANCE_CHARS_MAX]):
        for sentence in chain.from_iterable(map(_pieces, sentences(plain(paragraph)))):
            (notes if _is_told(sentence) else aspects).append(sentence)
    return Guidance(tuple(_closed(note) for note in notes), tuple(aspects))


def plain(text: str) -> str:
    """Return the text without markdown, tags, template tokens and doubled white space."""
    text = re.sub(r"<\|[^|>]*\|>|<[a-zA-Z/][^>]*>|[\x00-\x08\x0b-\x1f\x7f]", " ", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"https?://\S+|[*`]+|(?<!\w)_+|_+(?!\w)", "", text)
    return re.sub(r"\s+([,.;:!?])(?!\w)", r"\1", " ".join(text.split()))


def spoken(reply: str) -> list[str]:
    """Return the whole sentences of a model's reply, without thoughts, markdown, labels and preamble."""
    reply = re.sub(r"<think>.*?(?:</think>|$)", "", reply, flags=re.DOTALL | re.IGNORECASE)
    lines = [line for line in reply.splitlines() if not re.match(r"^\s*(?:#|```|\*\*[^*]+\*\*\s*$)", line)]
    # A reply is cut at sentences, which would leave quotes open.
    text = re.sub(r"[\"\u201c\u201d]", "", plain(" ".join(_ITEM.sub("", line) for line in lines)))
    text = _PREAMBLE.sub("", re.sub(r"^(?:narrator|scene \d+|title)\s*:\s*", "", text, flags=re.IGNORECASE))
    return [sentence for sentence in sentences(text) if _CLOSED.search(sentence)]


def strays(sentence: str, source: str) -> bool:
    """Tell whether a sentence brings in amounts or names the source lacks, speaks of itself, or carries marks."""
    if _META.search(sentence) or _MARKS.search(sentence):
        return True
    if {a.lower() for a in _AMOUNT.findall(sentence)} - {a.lower() for a in _AMOUNT.findall(source)}:
        return True
    names = set(re.findall(r"(?<=\s)[A-Z]\w+", sentence)) - _COMMON_NAMES
    return bool({name.lower() for name in names} - set(re.findall(r"\w+", source.lower())))


def repeats(sentence: str, told: Iterable[str], share_max: float = 0.6) -> bool:
    """Tell whether a sentence says, in nearly the same words, what another one said."""
    own = stems(sentence)
    others = [stems(other) for other in told]
    return any(own and len(own & other) > share_max * min(len(own), len(other) or 1) for other in others)


def stems(text: str) -> set[str]:
    """Return the content words of a text, lower case, cut to their first letters."""
    return {_stem(word) for word in _content_words(text)}


def picture(narration: str) -> str:
    """Return a short phrase of the narration's own key words, in their order; never empty for text with a word."""
    kept: dict[str, str] = {}
    for word in _content_words(narration):
        kept.setdefault(_stem(word), word)
    words = list(kept.values()) or re.findall(r"\w+", narration)
    return " ".join(word[:40] for word in words[:PICTURE_WORDS_MAX])


def phrase(reply: str) -> str:
    """Return the first clause of a model's description, without what a cut left hanging; may be empty."""
    words = re.split(r"[.!?;:\n]|, (?:which|that|where|while|as)\b", plain(reply), maxsplit=1)[0].split()
    words = words[:PHRASE_WORDS_MAX]
    while words and words[-1].lower().strip(",'\"") in _stop_words():
        words.pop()
    return " ".join(words).strip(" ,")


def share_out(items: Sequence[str], shares: int) -> list[list[str]]:
    """Return the items in order over so many lists; the first lists get one each when there are fewer items."""
    if len(items) < shares:
        return [[item] for item in items] + [[] for _ in range(shares - len(items))]
    count = len(items)
    return [list(items[i * count // shares : (i + 1) * count // shares]) for i in range(shares)]


@cache
def _stop_words() -> frozenset[str]:
    return frozenset(resources.files(__package__).joinpath("prompts", "stop_words_en.txt").read_text("utf-8").split())


def _content_words(text: str) -> list[str]:
    words = re.findall(r"[^\W\d_][\w-]*", text.lower().replace("\u2019", "'").replace("'s", ""))
    return [w for w in words if len(w) > 2 and w not in _stop_words() and not w.endswith("ly")]  # noqa: PLR2004 - a word


def _stem(word: str) -> str:
    bare = re.sub(r"(?:ing|ies|ed|es|s)$", "", word)
    return (bare if len(bare) >= _PREFIX_CHARS_MIN else word)[:_STEM_CHARS]


def _pieces(sentence: str) -> list[str]:
    """Return a sentence in pieces that a voice can take, or nothing when it has no word."""
    if not re.search(r"\w", sentence):
        return []
    return textwrap.wrap(sentence, SENTENCE_CHARS_MAX)


def _is_told(sentence: str) -> bool:
    if sentence.endswith("?") or _ORDER.match(sentence):
        return False
    return len(sentence.split()) >= _SENTENCE_WORDS_MIN or bool(_CLOSED.search(sentence))


def _closed(sentence: str) -> str:
    sentence = sentence.rstrip(" ,;:")
    return sentence if _CLOSED.search(sentence) else f"{sentence}."


def _paragraphs(text: str) -> list[str]:
    """Join wrapped lines; keep list items and short lines apart; drop headings, rules, tables and code."""
    found: list[str] = []
    joins = False
    text = re.sub(r"```.*?(?:```|$)|<!--.*?-->", "\n", text, flags=re.DOTALL)
    for line in text.splitlines():
        body = _ITEM.sub("", line).strip().lstrip("> ")
        if not body or re.match(r"^(?:#|\||[-=_*]{3,}$)", body):
            joins = False
            continue
        if joins and body == line.strip():
            found[-1] += f" {body}"
        else:
            found.append(body)
        joins = len(line.strip()) >= _PARAGRAPH_LINE_CHARS or line.rstrip().endswith(",")
    return found
