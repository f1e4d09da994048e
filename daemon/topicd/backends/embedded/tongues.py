"""Which language a text seems to be in, by the small words that every sentence has.

Owns those words of six languages. Promises to be sure or silent: a text in English, in an unknown language, or too
short to tell, is of no language here. Never decides what becomes of a text.
"""

import re
from typing import Final

WORDS_MAX: Final = 400
_SURE: Final = 2

_ENGLISH_WORDS: Final = """
a about after an and are as at be before by can do does for from has have he her his how i in into is it its me more my
no not of on or our than that the they this to was we what when which why will with you your
"""
# Without those that are common in names.
_PORTUGUESE_WORDS: Final = """
ao aos até como da das de dos em entre foi isso já mais mas na nas nos não o os ou para pela pelo por porque qual quando
que se ser seu sobre sua também tem um uma você à é
"""
_SPANISH_WORDS: Final = """
al como cuando cuál cómo de del el en entre es está fue hasta la las lo los más para pero por porque que qué se ser
sobre son su también tiene un una y ya
"""
_FRENCH_WORDS: Final = """
au aussi avec ce comme dans de des du elle en est et il la le les mais ne où par pas plus pour pourquoi quand que qui
sont sur un une
"""
_GERMAN_WORDS: Final = """
auch auf aber das dem den der durch ein eine es für im ist man mit nicht oder sich sind und von warum wenn wie wird zu
"""
_ITALIAN_WORDS: Final = """
al anche che come con dalla del della di gli il in la ma nel non perché più quando questo si sono un una è
"""

_ENGLISH: Final = frozenset(_ENGLISH_WORDS.split())
_TONGUES: Final = {
    ("pt-BR", "Portuguese"): frozenset(_PORTUGUESE_WORDS.split()) - _ENGLISH,
    ("es", "Spanish"): frozenset(_SPANISH_WORDS.split()) - _ENGLISH,
    ("fr", "French"): frozenset(_FRENCH_WORDS.split()) - _ENGLISH,
    ("de", "German"): frozenset(_GERMAN_WORDS.split()) - _ENGLISH,
    ("it", "Italian"): frozenset(_ITALIAN_WORDS.split()) - _ENGLISH,
}


def tongue(text: str) -> tuple[str, str]:
    """Return the tag and the English name of a text's language; both empty when it may be English."""
    words = set(re.findall(r"\w+", text.lower())[:WORDS_MAX])
    found = {which: len(words & small) for which, small in _TONGUES.items()}
    most = max(found, key=lambda which: found[which])
    is_sure = found[most] > len(words & _ENGLISH) and found[most] + (not text.isascii()) >= _SURE
    return most if is_sure else ("", "")
