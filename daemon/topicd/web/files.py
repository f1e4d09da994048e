"""The files of a job that the page may show.

Owns which they are. Promises that no path leads out of the job: a name must be one of a fixed set, and neither it nor
the folder it is in may be a link. Never writes.
"""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_NAMES: Final = re.compile(
    r"(?:topic|script)\.md|audio\.wav|captions\.(?:vtt|srt)|(?:job|scenes|timeline|manifest|reason)\.json"
    r"|audio/[0-9]{3}\.wav|images/(?:title|[0-9]{3})\.png",
    re.ASCII,
)
_TYPES: Final[Mapping[str, str]] = {
    ".md": "text/plain; charset=utf-8",
    ".srt": "text/plain; charset=utf-8",
    ".vtt": "text/vtt; charset=utf-8",
    ".json": "application/json",
    ".wav": "audio/wav",
    ".png": "image/png",
}


def is_shown(name: str) -> bool:
    """Tell whether a file of that name, relative to its job, may be shown."""
    return _NAMES.fullmatch(name) is not None


def found(job: Path, name: str) -> Path | None:
    """Return the path of a job's file; None for what may not be shown, or is not there as a file of its own."""
    if not is_shown(name):
        return None
    path = job / name
    try:
        folders = [parent.lstat().st_mode for parent in (job, path.parent)]
        mode = path.lstat().st_mode
    except OSError:
        return None
    return path if all(map(stat.S_ISDIR, folders)) and stat.S_ISREG(mode) else None


def type_of(path: Path) -> str:
    """Return the content type that a file is served as."""
    return _TYPES[path.suffix]
