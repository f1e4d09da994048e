"""A backup's form: the names of its files, what may be in the archive, its checksum.

Owns what `backup.py` writes and `restore.py` reads: `topicd-YYYYmmdd-HHMMSS.tar.gz` (a gzipped POSIX tar of regular
files) with `….sha256` beside it in the form of sha256sum(1), a comment of which names the home. Promises that a
member's path which passes here can leave neither its place nor the home. Never writes.
"""

import calendar
import contextlib
import hashlib
import json
import re
import tarfile
import time
import zlib
from pathlib import Path
from typing import Final

from topicd.errors import TopicdError
from topicd.spool import DONE
from topicd.states import SPOOL_PLACES

FORMAT: Final = 1
NAME: Final = re.compile(r"topicd-\d{8}-\d{6}\.tar\.gz")
SUM_NAME: Final = re.compile(r"topicd-\d{8}-\d{6}\.tar\.gz\.sha256")
TEMPORARY_NAME: Final = re.compile(r"\.topicd-\d{8}-\d{6}\.tar\.gz(?:\.sha256)?\.[0-9a-f]{8}\.tmp")
SUM: Final = ".sha256"
ABOUT: Final = "backup.json"
SETTINGS: Final = "settings.env"
INPUT: Final = "input"
CACHE: Final = "cache"
PROMPTS: Final = "prompts"
ASIDE: Final = ".restore-"
SPOOL: Final = "spool"
PATH_PARTS_MAX: Final = 12
NAME_BYTES_MAX: Final = 255
SUM_BYTES_MAX: Final = 65_536
HOME: Final = "# home "


class BadArchive(TopicdError):
    """An archive that is not whole, or not one of ours."""


class NoArchive(BadArchive):
    """There is none of that name, or it is a file of another kind."""


def name_at(seconds: float) -> str:
    """Return the name of an archive made at a time, in UTC."""
    return f"topicd-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(seconds))}.tar.gz"


def seconds_of(name: str) -> float:
    """Return the time in an archive's name, or 0 when it is none."""
    try:
        return calendar.timegm(time.strptime(name, "topicd-%Y%m%d-%H%M%S.tar.gz"))
    except ValueError:
        return 0


def sum_text(sha256: str, name: str, home: Path) -> str:
    """Return what is written beside an archive."""
    return f"{sha256}  {name}\n{HOME}{json.dumps(str(home.resolve()))}\n"


def is_of(path: Path, home: Path) -> bool:
    """Tell whether what lies beside an archive names this home."""
    with contextlib.suppress(OSError, ValueError), path.with_name(path.name + SUM).open() as said:
        line = said.read(SUM_BYTES_MAX).splitlines()[1:2]
        return bool(line) and line[0].startswith(HOME) and json.loads(line[0][len(HOME) :]) == str(home.resolve())
    return False


def prefix(place: str) -> str:
    """Return the directory in the archive that holds a place's jobs."""
    return DONE if place == DONE else f"{SPOOL}/{place}"


def parts_of(member: str) -> tuple[str, ...]:
    """Return a member's path in parts.

    Raises:
        BadArchive: nothing of ours has that path, or it leads out of its place.
    """
    parts = tuple(member.split("/"))
    if not _is_plain(parts) or not _is_ours(parts):
        raise BadArchive("archive_strange", f"the archive holds {member!r}, which no backup of topicd does")
    return parts


def checked(path: Path) -> None:
    """Compare an archive with its checksum file.

    Raises:
        BadArchive: there is no checksum file, or the archive is not the one that it tells of.
        NoArchive: there is none, or, without a checksum file, it is of another kind.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NoArchive(
            "archive_missing", f"there is no such archive: {path}", hint="see what is in its place"
        ) from error
    beside = path.with_name(path.name + SUM)
    try:
        with beside.open("rb") as said:
            wanted = said.read(SUM_BYTES_MAX).split()[:1]
    except FileNotFoundError as error:
        _check_kind(path)
        hint = f"copy it along; or, if you trust the archive: sha256sum {path.name} > {beside.name}"
        raise BadArchive("checksum_missing", f"there is no {beside}", hint=hint) from error
    if wanted != [found.encode()]:
        what = f"{path} is damaged: its bytes are not those that {beside.name} tells of"
        raise BadArchive("checksum_wrong", what, hint="use another backup")


def _check_kind(path: Path) -> None:
    """See that a file is an archive at all, before anybody is told how to trust it.

    Raises:
        NoArchive: it is none.
    """
    try:
        with tarfile.open(path, "r|gz") as tar:
            is_one = tar.next() is not None
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        is_one = False
    if not is_one:
        hint = "name a topicd-….tar.gz that `topicd backup` has made"
        raise NoArchive("archive_strange", f"{path} is no backup: it is no gzipped tar archive", hint=hint)


def _is_plain(parts: tuple[str, ...]) -> bool:
    if len(parts) > PATH_PARTS_MAX or {"", ".", ".."} & {*parts}:
        return False
    return not any("\0" in part or len(part.encode(errors="surrogateescape")) > NAME_BYTES_MAX for part in parts)


def _is_ours(parts: tuple[str, ...]) -> bool:
    match parts:
        case (one,):
            return one in {ABOUT, SETTINGS}
        case (top, name) if top == INPUT:
            return not name.startswith(".")
        case (top, job, _, *_) if top == DONE:
            return not job.startswith(".")
        case (top, place, job, _, *_) if top == SPOOL:
            return place in SPOOL_PLACES and not job.startswith(".")
        case _:
            return parts[0] in {CACHE, PROMPTS} and len(parts) > 1
