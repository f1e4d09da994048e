"""Captions: what was spoken, cut into pieces a viewer can read, each with its time.

Owns the rules of a caption: at most two lines of 42 columns, 0.7 to 7 seconds long. Promises that a job's
captions say every word of its narration once and in order, on whole milliseconds, never overlap and lie
within the audio of their scene. Sentence times known by the voice are kept; elsewhere a scene's time is
shared by length. Never does I/O.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final

LINE_COLUMNS_MAX: Final = 42
CUE_LINES_MAX: Final = 2
CUE_MS_MIN: Final = 700
CUE_MS_MAX: Final = 7000

# Pieces of a slow sentence are not all equally long: aiming lower keeps the longest below CUE_MS_MAX.
_AIM_MS: Final = 6000
# How many columns of imbalance it is worth to end at a clause, and not to end at an article or a preposition.
_CLAUSE_COLUMNS: Final = 14
_SMALL_WORD_COLUMNS: Final = 4
_CLAUSE_MARKS: Final = tuple(",;:)—–，、；：،؛")  # noqa: RUF001 -- the marks of other scripts are meant
_SENTENCE_END: Final = re.compile(
    r"[.!?…؟।]+[\"'”’»)\]]*\s+|[。！？]+[」』”’）]*\s*"  # noqa: RUF001 -- the marks of other scripts are meant
)
_ABBREVIATION: Final = re.compile(
    r"(?:^|[\s(\"“])(?:[^\W\d_]|Mr|Mrs|Ms|Dr|St|Prof|Sr|Sra|Dra|vs|etc|Fig|[a-z]\.[a-z])\.\s+$"
)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_JOINER: Final = "\u200d"
_CLOSING: Final = frozenset({"Pe", "Pf", "Po"})

_Span = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption.

    Attributes:
        start_s: when it appears, seconds in the joined audio.
        end_s: when it goes, later than `start_s`.
        text: its words on one line; `to_vtt` and `to_srt` break it.
    """

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class SceneSpeech:
    """One scene as it was spoken.

    Attributes:
        narration: what was spoken.
        start_s: where it starts in the joined audio, seconds.
        duration_s: how long it lasts, seconds, at least 0.001.
        cues: (start_s, end_s, words) of each sentence, relative to the scene, as `Speech.cues`; may be empty.
    """

    narration: str
    start_s: float
    duration_s: float
    cues: tuple[tuple[float, float, str], ...] = ()


def cues_from_scenes(scenes: Sequence[SceneSpeech]) -> tuple[Cue, ...]:
    """Return the captions of a job.

    Exact sentence cues are used when together they say the scene's narration; otherwise its time is shared by
    length. A scene that runs into the next one is cut where the next one starts.

    Raises:
        ValueError: a scene lasts no time, a time is not finite, or the scenes do not ascend.
    """
    starts_ms = [_ms(scene.start_s, math.ceil) for scene in scenes]
    ends_ms = [_ms(scene.start_s + scene.duration_s, math.floor) for scene in scenes]
    for at, (_, following_ms) in enumerate(pairwise(starts_ms)):
        ends_ms[at] = min(ends_ms[at], following_ms)
    spans = [
        span
        for scene, start_ms, end_ms in zip(scenes, starts_ms, ends_ms, strict=True)
        for span in _scene_spans(scene, start_ms, end_ms)
    ]
    return tuple(Cue(start_ms / 1000, end_ms / 1000, text) for start_ms, end_ms, text in spans)


def to_vtt(cues: Sequence[Cue]) -> str:
    """Return the captions as a WebVTT file."""
    blocks = ["WEBVTT"]
    for cue in cues:
        text = "\n".join(_lines(cue.text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}")
    return "\n\n".join(blocks) + "\n"


def to_srt(cues: Sequence[Cue]) -> str:
    """Return the captions as a SubRip file.

    SubRip has no escapes: an arrow that would read as a time line becomes `→`, all else stays as it is.
    """
    blocks = []
    for number, cue in enumerate(cues, 1):
        text = "\n".join(_lines(cue.text)).replace("-->", "→")
        blocks.append(f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{text}\n")
    return "\n".join(blocks)


def _clock(time_s: float, point: str) -> str:
    minutes, time_ms = divmod(round(time_s * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{time_ms // 1000:02}{point}{time_ms % 1000:03}"


def _ms(time_s: float, rounding: Callable[[float], int]) -> int:
    if not math.isfinite(time_s):
        raise ValueError(f"{time_s} is not a time")
    return rounding(round(time_s * 1000, 6))


def _scene_spans(scene: SceneSpeech, start_ms: int, end_ms: int) -> list[_Span]:
    if not 0 <= start_ms < end_ms:
        raise ValueError(f"a scene from {start_ms} to {end_ms} ms is not possible: scenes ascend and last")
    blocks = _exact(scene, start_ms) or [(start_ms, end_ms, _plain(scene.narration))]
    sentences = [span for low, high, text in blocks for span in _share(low, high, _sentences(text))]
    pieces = [span for low, high, text in sentences for span in _share(low, high, _pieces(text, high - low))]
    return _stretch(_merge(pieces), start_ms, end_ms)


def _exact(scene: SceneSpeech, start_ms: int) -> list[_Span]:
    said = "".join(words for _, _, words in scene.cues)
    if "".join(_plain(said).split()) != "".join(_plain(scene.narration).split()):
        return []
    spans = []
    for low_s, high_s, words in scene.cues:
        low_ms, high_ms = start_ms + _ms(low_s, round), start_ms + _ms(high_s, round)
        spans.append((low_ms, max(low_ms, high_ms), _plain(words)))
    return spans


def _share(start_ms: int, end_ms: int, texts: Sequence[str]) -> list[_Span]:
    weights = [_columns(text) + 1 for text in texts]
    edges = [start_ms + (end_ms - start_ms) * part // sum(weights) for part in accumulate(weights, initial=0)]
    return [(low, high, text) for (low, high), text in zip(pairwise(edges), texts, strict=True)]


def _merge(spans: Sequence[_Span]) -> list[_Span]:
    merged: list[_Span] = []
    for span in spans:
        if merged and _belong(merged[-1], span):
            merged[-1] = (merged[-1][0], span[1], f"{merged[-1][2]} {span[2]}")
        else:
            merged.append(span)
    return merged


def _belong(one: _Span, other: _Span) -> bool:
    is_short = min(other[0] - one[0], other[1] - other[0]) < CUE_MS_MIN
    return is_short and other[1] - one[0] <= CUE_MS_MAX and _fits(f"{one[2]} {other[2]}")


def _stretch(spans: Sequence[_Span], start_ms: int, end_ms: int) -> list[_Span]:
    """Give each span its least time, first by moving later ones on, then by moving earlier ones back."""
    if len(spans) > end_ms - start_ms:
        spans = [(start_ms, end_ms, " ".join(text for _, _, text in spans))]
    least_ms = min(CUE_MS_MIN, (end_ms - start_ms) // max(len(spans), 1))
    pushed: list[_Span] = []
    pulled: list[_Span] = []
    edge_ms = start_ms
    for low, high, text in spans:
        first_ms = max(low, edge_ms)
        edge_ms = max(min(high, low + CUE_MS_MAX), first_ms + least_ms)
        pushed.append((first_ms, edge_ms, text))
    edge_ms = end_ms
    for low, high, text in reversed(pushed):
        last_ms = min(high, edge_ms)
        edge_ms = min(low, last_ms - least_ms)
        pulled.append((edge_ms, last_ms, text))
    return pulled[::-1]


def _plain(text: str) -> str:
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def _sentences(text: str) -> list[str]:
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        follows = text[end.end() : end.end() + 1]
        if not follows.islower() and not _ABBREVIATION.search(text[start : end.end()]):
            found.append(text[start : end.end()].strip())
            start = end.end()
    return [sentence for sentence in (*found, text[start:]) if sentence]


def _pieces(text: str, span_ms: int) -> list[str]:
    """Cut a sentence into pieces of about one size that fit a caption, if possible at ends of clauses."""
    tokens = _tokens(text)
    parts = math.ceil(span_ms / _AIM_MS) if span_ms > CUE_MS_MAX else 1
    pieces = []
    while tokens:
        parts = max(parts, math.ceil(_columns("".join(tokens)) / (LINE_COLUMNS_MAX * CUE_LINES_MAX + 1)))
        sizes = list(_prefixes(tokens, CUE_LINES_MAX))
        is_last = parts == 1 and len(sizes) == len(tokens)
        size = len(tokens) if is_last else _best(tokens, sizes, max(parts, 2))
        pieces.append("".join(tokens[:size]).rstrip())
        tokens = tokens[size:]
        parts -= 1
    return pieces


def _best(tokens: Sequence[str], sizes: Sequence[int], parts: int) -> int:
    aim = _columns("".join(tokens)) / parts

    def cost(size: int) -> float:
        taken = "".join(tokens[:size]).rstrip()
        is_small = tokens[size - 1].strip().isalpha() and len(tokens[size - 1]) <= len("the ")
        bonus = _CLAUSE_COLUMNS * taken.endswith(_CLAUSE_MARKS) - _SMALL_WORD_COLUMNS * is_small
        return abs(_columns(taken) - aim) - bonus

    return min(sizes, key=cost)


def _fits(text: str) -> bool:
    tokens = _tokens(text)
    return len(list(_prefixes(tokens, CUE_LINES_MAX))) == len(tokens)


def _lines(text: str) -> list[str]:
    """Break a caption into lines: two of about one length where two will do."""
    tokens = _tokens(_plain(text))
    lines = []
    while tokens:
        sizes = list(_prefixes(tokens, 1))
        size = sizes[-1]
        if size < len(tokens):
            halves = [n for n in sizes if _columns("".join(tokens[n:]).rstrip()) <= LINE_COLUMNS_MAX]
            size = _best(tokens, halves, 2) if halves else size
        lines.append("".join(tokens[:size]).rstrip())
        tokens = tokens[size:]
    return lines


def _prefixes(tokens: Sequence[str], lines: int) -> Iterator[int]:
    """Yield how many tokens fit on that many lines: 1, 2, … ; the first always does."""
    column, line = 0, 1
    for size, token in enumerate(tokens, 1):
        if column and column + _columns(token.rstrip()) > LINE_COLUMNS_MAX:
            column, line = 0, line + 1
        if line > lines:
            return
        column += _columns(token)
        yield size


def _tokens(text: str) -> list[str]:
    """Return what may stand alone on a line: words with their space, or letters of a long word."""
    tokens: list[str] = []
    for word in text.split():
        tokens += _letters(word) if _columns(word) > LINE_COLUMNS_MAX else [word]
        tokens[-1] += " "
    return tokens


def _letters(word: str) -> list[str]:
    letters: list[str] = []
    for char in word:
        if letters and _clings(char, letters[-1][-1]):
            letters[-1] += char
        else:
            letters.append(char)
    return letters


def _clings(char: str, before: str) -> bool:
    if _columns(char) == 0 or before == _JOINER:
        return True
    return unicodedata.category(char) in _CLOSING and unicodedata.category(before) not in _CLOSING


def _columns(text: str) -> int:
    return len(text) if text.isascii() else sum(_char_columns(char) for char in text)


def _char_columns(char: str) -> int:
    if unicodedata.category(char) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
