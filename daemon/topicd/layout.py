"""The directories of a home: made at the start, and tried before anything relies on them.

Owns what a home must be: every directory writable, all of the spool one file system. Promises to tell by real writes
and renames, not by mode bits or device numbers, and to leave nothing behind.
"""

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from topicd.durable import Durable, is_storage_trouble, told
from topicd.errors import Unusable
from topicd.spool import WINDOW_JOBS, Spool, Survey
from topicd.states import SPOOL_PLACES, Aside, Stage

PROBE: Final = ".topicd-probe"
PROBE_AGE_S: Final = 60.0
PROBE_BYTES: Final = 4_096
NEWEST_JOBS: Final = 1_024
"""More than can be claimed at once."""


def make(spool: Spool, durable: Durable, mark: str) -> None:
    """Make what is missing and try everything. `mark` keeps two processes' probes apart.

    Raises:
        Unusable: a directory cannot be made or written, or the spool spans file systems.
    """
    for path in _directories(spool):
        _make(path, durable, mark)
    first = spool.place(SPOOL_PLACES[0])
    for place in SPOOL_PLACES[1:]:
        if not same_file_system(first, spool.place(place), mark):
            raise Unusable(
                "spool_split",
                f"{spool.place(place)} is on another file system than {first}",
                hint="all of spool/ must be one file system; mount input/ and output/ apart, not its parts",
            )


def prove(spool: Spool, mark: str) -> None:
    """Write into every directory, which `make` has made. What is only a pause for a daemon is an error here.

    Raises:
        StorageTrouble: the disk is full, read-only or failing.
    """
    for path in _directories(spool):
        probe = path / f"{PROBE}-{mark}"
        try:
            with told():
                probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()


def same_file_system(source: Path, target: Path, mark: str) -> bool:
    """Tell by a real rename whether two directories are on one file system; st_dev lies for bind mounts of one disk."""
    name = f"{PROBE}-{mark}"
    try:
        (source / name).rename(target / name)  # of no file: the kernel looks at the mounts first, also of a full disk
    except OSError as error:
        return error.errno != errno.EXDEV
    return True


def sweep(spool: Spool) -> Mapping[Stage, Survey]:
    """Remove the probes of a process that was killed in the middle of one. Returns what it saw of the stages."""
    for path in (spool.home, spool.root, spool.input, spool.output, spool.cache, *map(spool.place, Aside)):
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if PROBE in entry.name:  # that of the storage gate may still have its temporary name
                    _remove_old(Path(entry.path))
    surveys = {stage: spool.survey(stage, oldest=WINDOW_JOBS, newest=NEWEST_JOBS) for stage in Stage}
    for stage, survey in surveys.items():
        for name in survey.hidden:
            if PROBE in name:
                _remove_old(spool.place(stage) / name)
    return surveys


def _directories(spool: Spool) -> tuple[Path, ...]:
    return (spool.home, spool.root, spool.input, spool.output, spool.cache, *map(spool.place, SPOOL_PLACES))


def _remove_old(probe: Path) -> None:
    with contextlib.suppress(OSError):
        if time.time() - probe.lstat().st_mtime > PROBE_AGE_S:
            probe.unlink()


def _make(path: Path, durable: Durable, mark: str) -> None:
    try:
        if not path.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            durable.sync(path.parent)
        probe = path / f"{PROBE}-{mark}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        if path.is_dir() and is_storage_trouble(error):
            return  # a full or read-only disk is a pause, not a wrong set-up; the gate tells of it
        if error.errno in {errno.EEXIST, errno.ENOTDIR}:
            what = f"cannot make {path.absolute()}: it, or what should hold it, is not a directory"
            raise Unusable("home_unusable", what, hint="name a directory; see TOPICD_HOME") from error
        raise Unusable(
            "home_unusable",
            f"cannot make or write {path.absolute()}: {error.strerror}",
            hint=f"the user that runs this (uid {os.geteuid()}) must be able to make and write it; see TOPICD_HOME",
        ) from error
