"""WAV files: read, checked, joined.

Owns what speech must be to count: a header that tells the truth, frames, sound, a length that fits the text.
Works on bytes in memory, exact to the sample; does no I/O.
"""

import array
import io
import sys
import wave
from collections.abc import Sequence
from typing import Final, NamedTuple

from topicd.backends.base import Speech
from topicd.errors import Rejected, RetryLater

PCM16_BYTES: Final = 2
SILENCE_PEAK: Final = 100
"""Of 32,767; a voice peaks in the thousands, the noise of silence in the tens."""
CHARS_PER_S_MAX: Final = 60.0
"""Nobody speaks so fast: a fast reader says 20 characters a second."""

CUE_PARTS: Final = 3
CUE_SLACK_S: Final = 1.0
CUES_CHARS_MAX: Final = 100_000


class Wave(NamedTuple):
    """PCM 16 bit samples and how to play them."""

    rate_hz: int
    channels: int
    frames: bytes

    @property
    def seconds(self) -> float:
        """Exact length."""
        return len(self.frames) / (PCM16_BYTES * self.channels * self.rate_hz)

    def round_s(self, seconds: float) -> float:
        """Return a time rounded to whole samples."""
        return round(seconds * self.rate_hz) / self.rate_hz


def read_wave(data: bytes) -> Wave:
    """Read a WAV file.

    Raises:
        ValueError: it is not one, not PCM 16 bit, or its header promises more than there is.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("it is not a RIFF WAVE file")
    try:
        with wave.open(io.BytesIO(data)) as file:
            promised, frames = file.getnframes(), file.readframes(file.getnframes())
            found = Wave(file.getframerate(), file.getnchannels(), frames)
            width = file.getsampwidth()
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk that is longer than the file
        raise ValueError(f"it is not a readable WAV file: {error}") from error
    if width != PCM16_BYTES or found.channels not in (1, 2) or found.rate_hz <= 0:
        raise ValueError(f"it is not PCM 16 bit, mono or stereo ({8 * width} bit, {found.channels} channels)")
    if promised * width * found.channels != len(frames):
        raise ValueError(
            f"its header promises {promised} frames and it holds {len(frames) // (width * found.channels)}"
        )
    return found


def check_speech(speech: Speech, *, text: str, unit: str, bytes_max: int) -> None:
    """Check a scene's speech before it counts.

    Raises:
        Rejected: it is larger than `bytes_max`.
        RetryLater: its header lies, it has no frames, is silent, or is absurdly short for its text; or its cues are
            no times within it.
    """
    if not isinstance(speech.wav, bytes):
        raise _unfit(f"its data are {type(speech.wav).__name__}", unit)
    if len(speech.wav) > bytes_max:
        raise Rejected(
            "audio_too_large",
            f"the speech has {len(speech.wav):,} bytes; the most is {bytes_max:,}",
            hint="let the backend speak at a lower sample rate, or in one channel",
            unit=unit,
        )
    try:
        found = read_wave(speech.wav)
    except ValueError as error:
        raise _unfit(str(error), unit) from error
    if not found.frames:
        raise _unfit("it has no frames", unit)
    if _peak(found.frames) < SILENCE_PEAK:
        raise _unfit("it is silent", unit)
    if found.seconds < len(text) / CHARS_PER_S_MAX:
        raise _unfit(f"{found.seconds:.1f} s are too short for {len(text)} characters", unit)
    if not _are_cues(speech.cues, found.seconds, len(text)):
        raise _unfit("its cues are not (start, end, words) within its length", unit)


def _are_cues(cues: object, seconds: float, chars: int) -> bool:
    """Tell whether a backend's cues are what they should be: not more of them than characters are spoken."""
    if not isinstance(cues, tuple | list) or len(cues) > chars:
        return False
    if not all(isinstance(cue, tuple | list) and len(cue) == CUE_PARTS for cue in cues):
        return False
    edges = [edge for cue in cues for edge in cue[:2]]
    if not all(isinstance(edge, int | float) for edge in edges):
        return False
    within = all(0 <= edge <= seconds + CUE_SLACK_S for edge in edges)  # false of NaN, too
    words = [cue[2] for cue in cues]
    return within and all(isinstance(word, str) for word in words) and sum(map(len, words)) <= CUES_CHARS_MAX


def join(waves: Sequence[Wave], pause_s: float) -> bytes:
    """Return one WAV file of all, with silence between them.

    Raises:
        Rejected: they differ in rate or channels, as scenes by two backends do.
    """
    first = waves[0]
    if any(each[:2] != first[:2] for each in waves):
        raise Rejected(
            "audio_formats_differ",
            "the scenes' audio differs in sample rate or channels",
            hint="remove the job's audio/ folder, then `topicd retry`: all of it is made anew by one voice",
        )
    pause = bytes(PCM16_BYTES * first.channels * round(pause_s * first.rate_hz))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(first.channels)
        file.setsampwidth(PCM16_BYTES)
        file.setframerate(first.rate_hz)
        file.writeframes(pause.join(each.frames for each in waves))
    return out.getvalue()


def _peak(frames: bytes) -> int:
    samples = array.array("h", frames)
    if sys.byteorder == "big":
        samples.byteswap()
    low, high = min(samples), max(samples)
    return max(high, -low)


def _unfit(why: str, unit: str) -> RetryLater:
    return RetryLater(
        "audio_unfit", f"the audio is not fit to use: {why}", hint="another attempt may do better", unit=unit
    )
