"""What /proc tells of processes: whose child, which command, how much memory, what is mapped.

Promises that a process is known by its number and its start, so that a number used again is another process. Never
signals anything.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
KIB_BYTES = 1024


class Process(NamedTuple):
    """One process.

    Attributes:
        pid: its number.
        started: clock ticks from boot to its start.
        command: its arguments, joined by spaces.
    """

    pid: int
    started: int
    command: str

    @property
    def runs(self) -> bool:
        """Whether it is still there, and no zombie."""
        found = _stat(self.pid)
        return found is not None and found.started == self.started and found.state != "Z"


class _Stat(NamedTuple):
    state: str
    parent: int
    started: int


def children(parent: int | None = None) -> frozenset[Process]:
    """Return the running children of a process; of this one if none is named."""
    wanted = os.getpid() if parent is None else parent
    found = set()
    for entry in PROC.iterdir():
        stat = _stat(int(entry.name)) if entry.name.isdecimal() else None
        if stat and stat.parent == wanted and stat.state != "Z":
            found.add(Process(int(entry.name), stat.started, _command(entry)))
    return frozenset(found)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is in RAM."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", (PROC / str(pid) / "status").read_text(), re.MULTILINE)
    assert found, f"process {pid} has ended"
    return int(found[1]) * KIB_BYTES


def maps(pid: int) -> str:
    """Return the files and regions a process has mapped."""
    return (PROC / str(pid) / "maps").read_text()


def _stat(pid: int) -> _Stat | None:
    try:
        line = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = line.rpartition(")")[2].split()  # the name before it may hold anything
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _command(entry: Path) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
