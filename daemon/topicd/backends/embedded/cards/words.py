"""Text to search words: lower case, without accents, function words or endings.

Owns what counts as a word. Promises that words of one root meet (`baking`, `baked`, `bakes`) and that text in any
script is safe; what is not Latin gives no words. Never knows icons.
"""

import re
import unicodedata
from typing import Final

TEXT_CHARS_MAX: Final = 4_000

_FUNCTION_WORDS: Final = """
a about above across actually after again against ago all almost along already also although always am
among an and another any anything are around as at away back be became because become been before began
begin behind being below beneath best better between beyond big both brief briefly but by called came can
case cause chapter close come common complete could create day deep did different do does doing
done down during each early easy either else end enough even ever every everything example explain
explained explanation face fact far few find first five follow for form found four from full gave get give
go goes going good got great had half happen hard has have he help her here high him his hold how however
i idea if important in inside instead into introduction is it its itself just keep kept key kind know
large last later least leave led left less let life like line little live long look lot low made main make
making many may me mean means might mind more most move much must my name near need never new next no nor
not nothing now of off often on once one only onto open or order other our out over own part people person
picture piece place play point possible present put quick quickly quite rather real really reason right
run runs said same saw say scene second see seem seen sense set several shall she short should show side
simple simply since single slow slowly small so some something soon stand start stay step still stop such
sure take taken tell ten than that the their them then there these they thing this those though three
through to today together too took top toward towards true try turn turned two type under until up upon us
use used using usually various very view want was way we well went were what when where whether which
while who whole whose why wide will with within without wonder work works would year years yes yet you
your
"""
STOP_WORDS: Final = frozenset(_FUNCTION_WORDS.split())

# Each pair is a form and its stem; words that only look as if they had an ending are their own stems.
_IRREGULAR_FORMS: Final = """
leaves leaf, loaves loaf, wolves wolf, knives knife, lives life, mice mouse, teeth tooth, feet foot, men man,
women woman, children child, bacteria bacteria, building building, training training, evening evening,
morning morning, ceiling ceiling, wedding wedding, spring spring, string string, species species, news news
"""
_IRREGULAR: Final = dict(pair.split() for pair in _IRREGULAR_FORMS.split(","))
_WORD: Final = re.compile(r"[a-z]{2,}")
_VOWEL: Final = re.compile(r"[aeiouy]")
_LOST_E: Final = re.compile(r"^[^aeiou]*[aeiouy][^aeiouwxy]$|[cvuz]$|[^aeiour]l$|at$|or$|ur$")
_STEM_CHARS_MIN: Final = 3


def tokens(text: str) -> list[str]:
    """Return the stems of a text's words in order; an empty string stands where a function word was."""
    folded = unicodedata.normalize("NFKD", text[:TEXT_CHARS_MAX])
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    return ["" if {word, stem(word)} & STOP_WORDS else stem(word) for word in _WORD.findall(plain.lower())]


def stem(word: str) -> str:
    """Return a lower-case English word without plural and verb endings; other words lose little."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return _without_verb_ending(_singular(word))


def _singular(word: str) -> str:
    if len(word) <= _STEM_CHARS_MIN or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "oes")):
        return word[:-2]
    return word.removesuffix("s")


def _without_verb_ending(word: str) -> str:
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) >= _STEM_CHARS_MIN and _VOWEL.search(root):
            return _infinitive(root)
    return word


def _infinitive(root: str) -> str:
    if root[-1] == root[-2] and root[-1] not in "lsz":
        return root[:-1]
    return root + "e" if _LOST_E.search(root) else root
