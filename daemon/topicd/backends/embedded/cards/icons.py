"""Which icons a text makes one think of.

Owns the search over the icon package's names and tags and over our own concepts. Promises a hero and its companions
for any text, all different, the same for the same text and seed; brands only when named, and no arrows or buttons.
Never draws.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from py_phosphor_icons import IconEntry, all_icons, exists, get_svg_inner

from topicd.backends.embedded.cards.concepts import CONCEPTS
from topicd.backends.embedded.cards.words import stem, tokens

TAGGED_ICONS_MAX: Final = 8
FRAME_WORD_WEIGHT: Final = 0.45
TITLE_WORD_WEIGHT: Final = 0.45
NARRATION_WEIGHT: Final = 0.5
TITLE_TEXT_WEIGHT: Final = 0.35

ABSTRACT_HEROES: Final = 6
ABSTRACT: Final = (
    "sparkle", "lightbulb", "compass", "book-open", "puzzle-piece", "magnifying-glass", "cube", "hexagon",
    "infinity", "circles-three", "star-four", "path", "shapes", "feather",
)  # fmt: skip

# Words of interfaces that texts use in another sense, and words with several meanings.
_AMBIGUOUS_WORDS: Final = """
angle apple archive article at bag bar base belt block board boot box branch calling caret cast coda chain
change charge check choose circle clear click collection column command connect control copy cross current
cut date delete direct dot down draw drop edit element empty equal exclude export fall fan feature field
figure file fill filter fold frame function hand hash head info input inset intersection item join jump
label layout level limit link list load local location log login lower mark mask match matrix medium member
memory meta middle minus model move navigation notion nut object option outline pack pan pass paste phosphor patch pause
pen period pi pin plug plus pointing position post press private profile progress prohibit pull push queue
raise record reference remove repeat replace report return ring rock roll round row rule save scale scroll
seal search section select send sequence share sign size slack slide sort source split square stack stamp
state steam steps stock store stripe structure style swap switch symbol system table tap text threads
ticket tidal tile time token track transfer trend trunk turn union unit unite upper user view void wall
warning windows word writing x
"""
_AMBIGUOUS: Final = frozenset(stem(word) for word in _AMBIGUOUS_WORDS.split())
_DULL_CATEGORIES: Final = frozenset({"Arrows"})
_DULL: Final = re.compile(
    r"(-slash|-x|-plus|-minus|-up|-down|-left|-right|-break|-none|-check)$"
    r"|^(align|battery|bell|calendar|caret|cell-signal|chat|check|circle|columns|corners|currency|dot|dots|eject"
    r"|file|flip|folder|frame|funnel|gender|intersect|letter|line|list|minus|note|number|pause|play|plus|prohibit"
    r"|radio-button|rectangle|rewind|rows|selection|sidebar|skip|sort|speaker|spinner|split|square|stack|stop"
    r"|subtract|text|toggle|tray|triangle|upload|user|wifi|x)-"
)
_VARIANT_WORDS: Final = """
area bold broad circle dim dots empty fine four full half high horizontal line low medium one open profile simple
six square stars straight text three tilt two vertical
"""
_VARIANTS: Final = frozenset(_VARIANT_WORDS.split())

Scores = dict[str, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """The icons of one card.

    Attributes:
        hero: name of the large icon.
        companions: names of the small ones, all different from the hero and from one another.
    """

    hero: str
    companions: tuple[str, ...]


def choose(texts: Mapping[str, str], *, is_title: bool, count: int, seed: int) -> Choice:
    """Return a hero and `count` companions.

    Args:
        texts: `prompt`, `narration` and `title`; any may be empty.
        is_title: a title card takes the best match, a scene one of the best, its own words before the title's.
        count: how many companions, at most 8.
        seed: breaks ties.
    """
    random = Random(seed)  # noqa: S311 - repeatable, not secret
    scores = _scores(texts, is_title=is_title)
    hero = _hero(scores, random, slack=1.0 if is_title else 0.88)
    related = _ranked(scores, random) + (_kin(hero) if scores else [])
    related += random.sample(ABSTRACT, len(ABSTRACT))
    return Choice(hero, _distinct(hero, related, count))


@cache
def icon_paths(name: str) -> tuple[str, str]:
    """Return an icon's SVG paths in a box of 256 by 256: its strong outline and its soft inner shape (may be empty)."""
    outline = get_svg_inner(name, "bold")
    soft = "".join(p for p in re.findall(r"<path[^>]*/>", get_svg_inner(name, "duotone")) if "opacity" in p)
    return outline, soft.replace(' opacity="0.2"', "")


def _hero(scores: Scores, random: Random, *, slack: float) -> str:
    if not scores:
        return random.choice(ABSTRACT[:ABSTRACT_HEROES])
    best = max(scores.values())
    return random.choice(sorted(name for name, score in scores.items() if score >= best * slack))


def _ranked(scores: Scores, random: Random) -> list[str]:
    """Order by score, the seed deciding among the nearly equal."""
    return sorted(sorted(scores), key=lambda name: -scores[name] * random.uniform(0.85, 1.0))


def _kin(hero: str) -> list[str]:
    """Return icons that stand beside the hero in the concepts, the most frequent first."""
    counts = Counter(name for icons, _ in _concepts().values() if hero in icons for name in icons)
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _distinct(hero: str, names: Iterable[str], count: int) -> tuple[str, ...]:
    chosen: dict[str, str] = {_family(hero): hero}
    for name in names:
        chosen.setdefault(_family(name), name)
    return tuple(list(chosen.values())[1 : count + 1])


def _family(name: str) -> str:
    parts = [part for part in name.split("-") if part not in _VARIANTS]
    return "-".join(parts) or name


def _scores(texts: Mapping[str, str], *, is_title: bool) -> Scores:
    prompt, narration, title = (tokens(texts[key]) for key in ("prompt", "narration", "title"))
    if is_title:
        return _sum([(prompt, 1.0), (title, 1.0)], worn=frozenset())
    worn = frozenset(title)
    return _sum([(prompt, 1.0), (narration, NARRATION_WEIGHT), (title, TITLE_TEXT_WEIGHT)], worn=worn)


def _sum(weighted: Sequence[tuple[list[str], float]], *, worn: frozenset[str]) -> Scores:
    """Add up what each word suggests; a word that comes again adds little, one worn by the title counts less."""
    best: dict[tuple[str, str], float] = {}
    for words, weight in weighted:
        for position, word in enumerate(_phrases(words)):
            is_worn = all(part in worn for part in word.split("_"))
            value = weight * (TITLE_WORD_WEIGHT if is_worn else 1.0) * (1.0 - 0.3 * min(position / 40, 1.0))
            for name, strength in _suggestions(word, flat=is_worn):
                best[word, name] = max(best.get((word, name), 0.0), value * strength)
    scores: defaultdict[str, float] = defaultdict(float)
    for (_, name), value in sorted(best.items(), key=lambda item: (-item[1], item[0])):
        scores[name] += value * (1.0 if name not in scores else 0.3)
    return dict(scores)


def _phrases(words: list[str]) -> list[str]:
    """Return the words in order, two known together as one in place of both."""
    found, index = [], 0
    while index < len(words):
        pair = f"{words[index]}_{words[index + 1]}" if index + 1 < len(words) else ""
        if pair in _concepts() or pair in _names():
            found.append(pair)
            index += 2
            continue
        if words[index]:
            found.append(words[index])
        index += 1
    return found


def _suggestions(word: str, *, flat: bool) -> list[tuple[str, float]]:
    """Return what one word suggests. Flat gives a concept's icons equal strength, so that scenes differ."""
    if word in _concepts():
        icons, weight = _concepts()[word]
        return [(name, weight * (0.8 if flat else 1.0 - 0.13 * i)) for i, name in enumerate(icons)]
    if word in _AMBIGUOUS:
        return []
    if word in _names():
        return [(name, strength) for name, strength in _names()[word].items()]
    tagged = _tags().get(word, [])
    return [(name, 0.55 - 0.03 * len(tagged)) for name in tagged] if len(tagged) <= TAGGED_ICONS_MAX else []


@cache
def _concepts() -> dict[str, tuple[tuple[str, ...], float]]:
    table = {}
    for line in CONCEPTS.strip().splitlines():
        words, _, icons = line.partition(" = ")
        weight = FRAME_WORD_WEIGHT if line.startswith("~") else 1.0
        for word in words.removeprefix("~").split():
            table["_".join(stem(part) for part in word.split("_"))] = (tuple(icons.split()), weight)
    return table


@cache
def _drawable() -> tuple[IconEntry, ...]:
    """Return the icons whose files are there: releases of the icon package have had gaps."""
    return tuple(i for i in all_icons() if exists(i.name, "bold") and exists(i.name, "duotone"))


@cache
def _pool() -> tuple[IconEntry, ...]:
    return tuple(icon for icon in _drawable() if _is_depictive(icon))


def _is_depictive(icon: IconEntry) -> bool:
    is_dull = _DULL_CATEGORIES & set(icon.categories) or _DULL.search(icon.name) or "arrow" in icon.name
    return not (is_dull or _is_brand(icon))


def _is_brand(icon: IconEntry) -> bool:
    return "Brand" in icon.categories or icon.name.endswith("-logo")


@cache
def _names() -> dict[str, dict[str, float]]:
    """Index by words of the name: a whole name is strong, its first word less so, another word weak."""
    index: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for icon in _pool():
        parts = [stem(part) for part in icon.name.split("-")]
        for position, part in enumerate(parts):
            strength = 1.0 if len(parts) == 1 else (0.7 if position == 0 else 0.55) / (len(parts) - 1)
            index[part][icon.name] = max(strength, index[part].get(icon.name, 0.0))
        if len(parts) > 1:
            index["_".join(parts[:2])][icon.name] = 1.2
    for icon in _drawable():
        if icon.name.endswith("-logo"):
            index["_".join(stem(part) for part in icon.name.split("-")[:-1])][icon.name] = 1.0
    return {word: icons for word, icons in index.items() if word not in _VARIANTS}


@cache
def _tags() -> dict[str, list[str]]:
    index: defaultdict[str, list[str]] = defaultdict(list)
    for icon in _pool():
        for tag in sorted({"_".join(tokens(tag)) for tag in icon.tags}):
            index[tag].append(icon.name)
    return dict(index)
