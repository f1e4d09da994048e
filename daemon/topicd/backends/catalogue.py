"""Piper's list of voices, `voices.json`: fetched, kept in a file with its validator, asked for anew when it is old.

Owns what an entry must be to be believed, and which names are near a wrong one. Promises that a list that cannot be
asked for leaves the one that was kept, that an entry leads to no path but a voice's own, and that a list of whatever
size or shape costs bounded memory. Never fetches a voice. It waits for the network: not for the event loop.
"""

import contextlib
import difflib
import json
import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Final

from topicd.backends.transfer import Answer, Transfer, plain
from topicd.durable import Durable
from topicd.errors import Rejected, RetryLater, TopicdError, Unusable

LIST: Final = "voices.json"
BYTES_MAX: Final = 16_777_216
VOICES_MAX: Final = 10_000
VOICE_BYTES_MAX: Final = 2_147_483_648
AGE_S_MAX: Final = 86_400.0
NEW_S: Final = 60.0
NEAREST_MAX: Final = 5
CONNECT_S: Final = 10.0
STALL_S: Final = 30.0
ASK_S_MAX: Final = 120.0

_NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,80}")
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_ENDINGS: Final = (".onnx", ".onnx.json")


@dataclass(frozen=True, slots=True)
class VoiceFile:
    """One file of a voice.

    Attributes:
        path: where it is, below a base address.
        size_bytes: as the list says.
        md5: likewise, 32 digits; the list has no better digest.
    """

    path: str
    size_bytes: int
    md5: str

    @property
    def name(self) -> str:
        """Return the file's own name."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice that can be fetched.

    Attributes:
        name: `pt_BR-faber-medium`.
        language: BCP 47 tag (`pt-BR`).
        files: what describes it, then the model.
    """

    name: str
    language: str
    files: tuple[VoiceFile, ...]

    @property
    def size_bytes(self) -> int:
        """Return what it takes on the disk."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The list as it was had last.

    Attributes:
        url: where from.
        etag: its validator there; empty for none.
        asked_s: when, seconds since the epoch.
        voices: its content.
    """

    url: str
    etag: str
    asked_s: float
    voices: Mapping[str, object]


class Catalogue:
    """The list of voices that can be fetched.

    Args:
        file: where it is kept, in a folder that is there.
        bases: addresses below which list and voices are, the best first.
        tls: which certificates are trusted.
        durable: how the file reaches the disk.
    """

    def __init__(self, file: Path, bases: Sequence[str], *, tls: ssl.SSLContext, durable: Durable) -> None:
        self.bases: Final = tuple(base.rstrip("/") for base in bases)
        self._file = file
        self._tls = tls
        self._durable = durable

    def voices(self, *, age_s_max: float = AGE_S_MAX) -> Mapping[str, Voice]:
        """Return the voices by name; ask for the list first when the one that is kept is older than that.

        Raises:
            RetryLater, Unavailable, Unusable: there is no list, and none can be had.
        """
        kept = _read(self._file)
        if kept is None or not 0 <= time.time() - kept.asked_s < age_s_max:
            kept = self._asked(kept)
        return parse(kept.voices)

    def find(self, name: str) -> Voice:
        """Return a voice. One that is not in the list that is kept may be new: then the list is asked for again.

        Raises:
            Rejected: there is no such voice; the hint has the nearest names.
            RetryLater, Unavailable, Unusable: as `voices`.
        """
        voices = self.voices(age_s_max=float("inf"))
        if name not in voices:
            voices = self.voices(age_s_max=NEW_S)
        if name not in voices:
            raise unknown(name, voices)
        return voices[name]

    def _asked(self, kept: _Kept | None) -> _Kept:
        """Ask one address after the other; where none answers, the list that is kept has to do."""
        trouble: TopicdError = Unusable("settings", "no address of voices is set.", hint="set TOPICD_VOICES_URL")
        for base in self.bases:
            try:
                new = self._asked_at(f"{base}/{LIST}", kept)
            except TopicdError as error:
                trouble = error
            else:
                self._durable.write(self._file, json.dumps(asdict(new)).encode())
                return new
        if kept is None:
            raise trouble
        return kept

    def _asked_at(self, url: str, kept: _Kept | None) -> _Kept:
        known = kept if kept and kept.url == plain(url) and kept.etag else None
        headers = {"Accept-Encoding": "identity", **({"If-None-Match": known.etag} if known else {})}
        transfer = Transfer(tls=self._tls, connect_s=CONNECT_S, stall_s=STALL_S)
        with transfer.open(url, headers, {}) as answer:
            if known and answer.status == HTTPStatus.NOT_MODIFIED:
                return _Kept(known.url, known.etag, time.time(), known.voices)
            voices = _decoded(answer)
        return _Kept(plain(url), answer.headers.get("etag", ""), time.time(), voices)


def parse(voices: Mapping[str, object]) -> Mapping[str, Voice]:
    """Return the voices of a list, by name; what is no voice, or leads elsewhere, is left out."""
    found = dict[str, Voice]()
    for name, entry in list(voices.items())[:VOICES_MAX]:
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            found[name] = _voice(name, entry)
    return found


def unknown(name: str, known: Iterable[str]) -> Rejected:
    """Return the refusal of a voice that the list does not have."""
    near = difflib.get_close_matches(name, known, NEAREST_MAX, 0.5)
    hint = f"nearest: {', '.join(near)}" if near else "`topicd fetch voices` lists those there are"
    return Rejected("voice_unknown", f"There is no voice {name[:60]!r}.", hint=hint)


def _voice(name: str, entry: object) -> Voice:
    """Return what an entry says.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not what Piper's list has.
    """
    if not isinstance(entry, dict) or not _NAME.fullmatch(name):
        raise TypeError(name)
    files = {PurePosixPath(path).name: _file(path, said) for path, said in entry["files"].items() if _is_wanted(path)}
    ordered = tuple(files[f"{name}{ending}"] for ending in reversed(_ENDINGS))
    return Voice(name, str(entry["language"]["code"])[:40].replace("_", "-"), ordered)


def _is_wanted(path: str) -> bool:
    return path.endswith(_ENDINGS)


def _file(path: str, said: Mapping[str, object]) -> VoiceFile:
    size_bytes, md5 = said["size_bytes"], str(said["md5_digest"]).lower()
    is_sound = isinstance(size_bytes, int) and 0 < size_bytes <= VOICE_BYTES_MAX and _MD5.fullmatch(md5)
    if not is_sound or not all(_NAME.fullmatch(part) for part in path.split("/")):
        raise ValueError(path)
    return VoiceFile(path, int(str(size_bytes)), md5)


def _decoded(answer: Answer) -> Mapping[str, object]:
    data, end_s = bytearray(), time.monotonic() + ASK_S_MAX
    for block in answer.blocks():
        data += block
        if len(data) > BYTES_MAX:
            raise RetryLater("answer_too_large", f"the list of voices is larger than {BYTES_MAX} bytes.")
        if time.monotonic() > end_s:
            raise RetryLater("total_timeout", f"the list of voices takes longer than {ASK_S_MAX:.0f} s.")
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(data)
        if isinstance(said, dict) and parse(said):
            return said
    hint = "check TOPICD_VOICES_URL: it is the folder with Piper's voices.json"
    raise RetryLater("bad_answer", "what came is no list of voices.", hint=hint)


def _read(file: Path) -> _Kept | None:
    """Return what is kept; None when there is nothing, or nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        with file.open("rb") as kept:
            said = json.loads(kept.read(2 * BYTES_MAX))
        if isinstance(said["voices"], dict) and isinstance(said["etag"], str):
            return _Kept(str(said["url"]), said["etag"], float(said["asked_s"]), said["voices"])
    return None
