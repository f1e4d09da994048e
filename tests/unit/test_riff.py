"""What servers call WAV is mended where it can be, and named where it cannot."""

import struct

import pytest

from fakes.speech_server import lying, speech
from topicd.backends.riff import true_wav
from topicd.errors import RetryLater, TopicdError, Unusable

HONEST = speech(100)
FRAMES = HONEST[44:]
GUID_REST = bytes.fromhex("000000001000800000aa00389b71")


def chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(fmt: bytes, *more: bytes, frames: bytes = FRAMES) -> bytes:
    body = b"WAVE" + chunk(b"fmt ", fmt) + b"".join(more) + chunk(b"data", frames)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def fmt(tag: int = 1, channels: int = 1, rate_hz: int = 24000, bits: int = 16) -> bytes:
    width = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate_hz, rate_hz * width, width, bits)


def extensible(tag: int, bits: int) -> bytes:
    return fmt(0xFFFE, bits=bits) + struct.pack("<HHIH", 22, bits, 0, tag) + GUID_REST


def trouble_of(data: bytes) -> TopicdError:
    with pytest.raises(TopicdError) as caught:
        true_wav(data, of="Piper")
    return caught.value


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFF000, 0xFFFFFFFF])
def test_a_length_that_lies_is_written_anew(size: int) -> None:
    assert true_wav(lying(HONEST, size), of="Piper") == HONEST


@pytest.mark.parametrize(
    "data",
    [
        HONEST,
        HONEST + b"\x01",
        HONEST + chunk(b"LIST", b"after"),
        riff(fmt(), chunk(b"LIST", b"odd"), chunk(b"fact", b"four")),
        riff(fmt(), frames=FRAMES + b"\x01"),
        riff(fmt() + b"\0\0"),
        riff(extensible(1, 16)),
    ],
    ids=["honest", "a byte more", "a chunk behind", "chunks before", "half a frame", "long format", "extensible"],
)
def test_the_same_sound_comes_out(data: bytes) -> None:
    assert true_wav(data, of="Piper") == HONEST


def test_stereo_stays_stereo() -> None:
    mended = true_wav(riff(fmt(channels=2), frames=FRAMES + b"\x01\x02"), of="Piper")
    assert mended[22:24] == b"\x02\0"
    assert mended[44:] == FRAMES


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (fmt(bits=8), "PCM, 8 bit"),
        (fmt(bits=24), "PCM, 24 bit"),
        (fmt(3, bits=32), "float, 32 bit"),
        (fmt(3, bits=16), "float, 16 bit"),
        (extensible(3, 32), "float, 32 bit"),
        (fmt(7, bits=8), "mu-law, 8 bit"),
        (fmt(0x1234), "format 4660, 16 bit"),
        (fmt(channels=0), "0 channels"),
        (fmt(rate_hz=0), "0 Hz"),
    ],
)
def test_another_format_is_named(written: bytes, named: str) -> None:
    error = trouble_of(riff(written))
    assert (type(error), error.cause) == (Unusable, "wav_format")
    assert named in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"ID3\x04" + bytes(50), "MP3"),
        (b"\xff\xfb\x90\x64" + bytes(50), "MP3"),
        (b"OggS" + bytes(50), "Ogg"),
        (b"fLaC" + bytes(50), "FLAC"),
        (b' \n{"error": "out of\\nmemory"}', "out of"),
        (b"<!doctype html>", "HTML"),
        (b"\x01", "not a WAV file"),
        (b"RIFF\0\0\0\0AVI ", "not a WAV file"),
        (b"RIFX" + HONEST[4:], "not a WAV file"),
        (HONEST[:20], "nothing of its format"),
        (b"RIFF\0\0\0\0WAVEfmt \xff\xff\xff\xff\x01\0", "nothing of its format"),
    ],
)
def test_what_is_no_wav_is_named(data: bytes, said: str) -> None:
    error = trouble_of(data)
    assert (type(error), error.cause) == (RetryLater, "not_wav")
    assert error.message.startswith("Piper's ")
    assert said in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize("data", [b"", speech(0), HONEST[:44], lying(HONEST)[:45], riff(fmt(), frames=b"\x01")])
def test_no_sound(data: bytes) -> None:
    cause = "audio_cut" if data == HONEST[:44] else "audio_empty"
    error = trouble_of(data)
    assert (type(error), error.cause) == (RetryLater, cause)


def test_cut_short() -> None:
    error = trouble_of(HONEST[:-1])
    assert (type(error), error.cause) == (RetryLater, "audio_cut")
