"""What `topicd add` does: a person's words or file become a file in `input/`, whole from its first instant.

Owns the reading of what was given and the name it gets. Promises that nothing is dropped which the daemon would leave
alone or refuse for its size, that no file is replaced, and that a reader of `input/` never sees half a topic.
"""

import contextlib
import errno
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Final

from topicd.durable import Durable, told
from topicd.errors import Rejected, TopicdError, Unusable
from topicd.topic import is_topic_name, parse, source_slug

NAME_BYTES_MAX: Final = 255
SUFFIXES: Final = (".md", ".txt")
FILE_LIKE: Final = re.compile(
    r"^(?:~|\.{1,2})?/\S|^[^\n]*\.(?:md\w*|markdown|txt|text|pdf|docx?|odt|rtf|html?|rst|org|png|jpe?g|gif|webp|svg)$",
    re.IGNORECASE,
)
"""What a person means as a file, not as the topic's own words."""
NO_FILE: Final = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.ENOENT)
NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
NAMES_TRIED_MAX: Final = 5
NO_TEXT: Final = ("topic_empty", "topic_not_text")
SCENES_MAX: Final = 50


class NotATopic(TopicdError):
    """What was given on the command line is no topic."""


def read(given: str, bytes_max: int) -> tuple[bytes, str]:
    """Return the topic's bytes and a name for it.

    Args:
        given: a file, `-` for standard input, or the topic's own words.
        bytes_max: the most a topic may have.

    Raises:
        NotATopic: there is no such file, it is a directory, it cannot be read, is no text, or has no words.
        Rejected: it has more bytes than a topic may have.
    """
    if given == "-":
        return _checked(sys.stdin.buffer.read(bytes_max + 1), bytes_max, "standard input"), "stdin.md"
    if not given.strip():
        hint = 'such as: topicd add "why the sky is blue"'
        raise NotATopic("topic_empty", "that names no topic", hint=hint)
    path = Path(given)
    try:
        if not _exists(path):
            return _words(given, bytes_max)
        with path.open("rb") as file:
            return _checked(file.read(bytes_max + 1), bytes_max, given), _name(path)
    except IsADirectoryError as error:
        hint = "name a file in it, or copy its topics into input/"
        raise NotATopic("topic_unreadable", f"{given} is a directory", hint=hint) from error
    except OSError as error:
        raise NotATopic("topic_unreadable", f"{given}: {error.strerror}") from error


def drop(folder: Path, data: bytes, name: str) -> Path:
    """Put a topic into `input/` under its name, or one like it that is free.

    Raises:
        StorageTrouble: the disk is full or read-only.
        Unusable: no name is free, or there is no such directory and none can be made.
    """
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        make(folder)
        with told(folder):
            Durable().write(temporary, data)
            return _named(folder, temporary, name)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def make(folder: Path) -> None:
    """Make `input/` where it is not there yet.

    Raises:
        StorageTrouble: the disk is full or read-only.
        Unusable: it cannot be made.
    """
    try:
        with told():
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        is_file = error.errno in {errno.EEXIST, errno.ENOTDIR}
        why = "it, or what should hold it, is not a directory" if is_file else error.strerror
        hint = "name the home by TOPICD_HOME; the user that runs this must be able to make and write it"
        raise Unusable("home_unusable", f"cannot make {folder.absolute()}: {why}", hint=hint) from error


def _named(folder: Path, temporary: Path, name: str) -> Path:
    stem, suffix = Path(name).stem, Path(name).suffix
    for end in ("", *(f"-{secrets.token_hex(3)}" for _ in range(NAMES_TRIED_MAX))):
        target = folder / f"{_cut(stem, NAME_BYTES_MAX - len(end) - len(suffix))}{end}{suffix}"
        if _place(temporary, target):
            Durable().sync(folder)
            return target
    raise Unusable("input_full", f"no free name for {name} in {folder}")


def _place(temporary: Path, target: Path) -> bool:
    """Link, which replaces nothing (link(2)); where the file system has no links, rename to a name that is free."""
    try:
        target.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS or target.exists():
            raise
        Durable().rename(temporary, target)
    return True


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except ValueError:  # a NUL
        return False
    except OSError as error:
        if error.errno not in NO_FILE:
            raise
        return False
    return True


def _words(given: str, bytes_max: int) -> tuple[bytes, str]:
    if FILE_LIKE.search(given):
        hint = 'to pass the topic itself: topicd add "why the sky is blue"'
        raise NotATopic("topic_missing", f"{given}: there is no such file", hint=hint)
    name = f"{source_slug(given.strip().splitlines()[0])}.md"
    return _checked(given.encode("utf-8", "surrogateescape"), bytes_max, "the topic"), name


def _name(path: Path) -> str:
    """Return a name that the daemon takes: it leaves hidden and temporary files alone."""
    name = path.name.lstrip(".~$") or "topic"
    if not name.lower().endswith(SUFFIXES):
        name = f"{name}.md"
    return name if is_topic_name(name) else "topic.md"


def _checked(data: bytes, bytes_max: int, what: str) -> bytes:
    """Return the data if it is text with a word in it; what the text says is for the daemon to judge."""
    try:
        parse(data[:bytes_max], scenes_max=SCENES_MAX)
    except Rejected as error:
        if error.cause in NO_TEXT:
            raise NotATopic(error.cause, f"{what}: {error.message}", hint=error.hint) from error
    return _limited(data, bytes_max)


def _limited(data: bytes, bytes_max: int) -> bytes:
    if len(data) > bytes_max:
        raise Rejected(
            "topic_too_large",
            f"the topic has more than {bytes_max:,} bytes",
            hint="shorten it, or raise TOPICD_TOPIC_BYTES_MAX",
        )
    return data


def _cut(stem: str, bytes_max: int) -> str:
    """Return the stem cut to a number of bytes, at a whole character."""
    with contextlib.suppress(ValueError):
        return os.fsencode(stem)[:bytes_max].decode("utf-8", "ignore") if len(os.fsencode(stem)) > bytes_max else stem
    return "topic"
