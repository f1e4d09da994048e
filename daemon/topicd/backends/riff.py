"""WAV files as servers send them, under a header that tells the truth.

Owns the reading of RIFF chunks, of lengths that lie and of formats. Promises PCM 16 bit with at least one frame, the
same sound to the byte, or an error of `topicd.errors` that says what came instead. Works on bytes in memory; never
judges how it sounds.
"""

import io
import struct
import wave
from collections.abc import Iterator
from typing import Final

from topicd.backends.classify import excerpt
from topicd.errors import RetryLater, Unusable

_HEADER_BYTES: Final = 12
_CHUNK_BYTES: Final = 8
_FORMAT_BYTES_MIN: Final = 16
_PCM: Final = 0x0001
_EXTENSIBLE: Final = 0xFFFE
_SUBFORMAT_AT: Final = 24
_SAMPLE_BITS: Final = 16
# Streams whose length is unknown write 0, 0xFFFFFFFF, or something just below 2 or 4 GiB.
_STREAMED_BYTES_MIN: Final = 0x7FFFF000

_FORMAT_NAMES: Final = {_PCM: "PCM", 0x0003: "float", 0x0006: "A-law", 0x0007: "mu-law", 0x0055: "MP3"}
_BEGINNINGS: Final = (
    (b"ID3", "MP3"),
    (b"OggS", "Ogg"),
    (b"fLaC", "FLAC"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"<", "HTML or XML"),
)
_MPEG_SYNC: Final = 0xFFE0


def true_wav(data: bytes, *, of: str) -> bytes:
    """Return the same sound under a header written anew.

    Args:
        data: what a server sent.
        of: what messages call the server.

    Raises:
        RetryLater: it is no WAV (`not_wav`), holds no sound (`audio_empty`), or is cut (`audio_cut`).
        Unusable: it is not PCM 16 bit (`wav_format`).
    """
    if not data:
        raise RetryLater("audio_empty", f"{of} sent an empty answer.", hint="look into the server's own log")
    if data[:4] != b"RIFF" or data[8:_HEADER_BYTES] != b"WAVE":
        raise _not_wav(data, of)
    chunks = dict(_chunks(data, of))
    channels, rate_hz = _format(chunks.get(b"fmt ", b""), of)
    frames = chunks.get(b"data", b"")
    frames = frames[: len(frames) - len(frames) % (2 * channels)]
    if not frames:
        raise RetryLater("audio_empty", f"{of}'s WAV holds no sound.")
    return _wav(frames, channels=channels, rate_hz=rate_hz)


def _not_wav(data: bytes, of: str) -> RetryLater:
    kind = _kind(data)
    what = f"is {kind}, not a WAV file" if kind else "is not a WAV file"
    said = f": {excerpt(data[:2000].decode(errors='replace'))}" if kind == "JSON" else "."
    hint = "check the address, and that what answers there can send WAV"
    return RetryLater("not_wav", f"{of}'s answer {what}{said}", hint=hint)


def _kind(data: bytes) -> str:
    """Return the name of what the bytes seem to be; empty when that is unknown."""
    if len(data) > 1 and int.from_bytes(data[:2], "big") & _MPEG_SYNC == _MPEG_SYNC:
        return "MP3"
    text = data[:100].lstrip()
    return next((kind for beginning, kind in _BEGINNINGS if text.startswith(beginning)), "")


def _chunks(data: bytes, of: str) -> Iterator[tuple[bytes, bytes]]:
    at = _HEADER_BYTES
    while at + _CHUNK_BYTES <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        at += _CHUNK_BYTES
        if kind == b"data":
            yield kind, _sound(data[at:], size, of)
            return
        yield kind, data[at : at + size]
        at += size + size % 2


def _sound(rest: bytes, declared_bytes: int, of: str) -> bytes:
    if declared_bytes == 0 or declared_bytes >= _STREAMED_BYTES_MIN:
        return rest
    if declared_bytes > len(rest):
        raise RetryLater("audio_cut", f"{of}'s WAV ends before its sound does.")
    return rest[:declared_bytes]


def _format(fmt: bytes, of: str) -> tuple[int, int]:
    if len(fmt) < _FORMAT_BYTES_MIN:
        raise RetryLater("not_wav", f"{of}'s WAV says nothing of its format.")
    tag, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE:
        tag = int.from_bytes(fmt[_SUBFORMAT_AT : _SUBFORMAT_AT + 2], "little") or _PCM
    if tag != _PCM or bits != _SAMPLE_BITS or not channels or not rate_hz:
        found = f"{_FORMAT_NAMES.get(tag, f'format {tag}')}, {bits} bit, {channels} channels, {rate_hz} Hz"
        hint = "let the server answer in WAV of 16 bit integers"
        raise Unusable("wav_format", f"{of}'s WAV is not PCM 16 bit ({found}).", hint=hint)
    return channels, rate_hz


def _wav(frames: bytes, *, channels: int, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(_SAMPLE_BITS // 8)
        writer.setframerate(rate_hz)
        writer.writeframes(frames)
    return buffer.getvalue()
