"""Waiting for a job as a person does: where it is, which unit, for how long.

Owns what is shown while a job is on its way: one line that changes on a terminal, one line a change elsewhere.
Promises to read only the tree, so that stopping the wait changes nothing, and to make whatever a file name
holds safe to show.
"""

import contextlib
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from typing import Final, TextIO

from topicd import readiness
from topicd.errors import TopicdError
from topicd.report import progress
from topicd.spool import DONE, Found, NoSuchJob, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.workspace import Workspace

LOOK_S: Final = 0.2
NO_DAEMON_S: Final = 3.0
GIVE_UP_S: Final = 30.0
ASK_EVERY_S: Final = 2.0
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def visible(text: str) -> str:
    """Return text with control characters and lone surrogates made visible: a file name may hold anything."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def fitted(line: str) -> str:
    """Return a line cut to the terminal: one that wraps would be two, and never be drawn over."""
    return line[: shutil.get_terminal_size().columns - 1]


@dataclass(slots=True)
class Meter:
    """Shows a job's way on a stream."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    _last: str = ""
    _ticks: int = 0
    _begun: float = field(default_factory=time.monotonic)

    def show(self, place: str, n: int, of: int, why: str = "") -> None:
        """Show where the job is now, and what keeps the daemon from going on with it."""
        count = f" {min(n + 1, of)} of {of}" if of else ""
        text = {"": "waiting to be taken", DONE: "done", Aside.FAILED: "failed", Aside.HELD: "held"}.get(
            place, f"{place}{count}"
        )
        elapsed_s = time.monotonic() - self._begun
        if self.out.isatty():
            self._ticks += 1
            sign = SPINNER[self._ticks % len(SPINNER)]
            line = f"{sign} {text:<24} {elapsed_s:5.1f} s" + (f"  {visible(why)}" if why else "")
            self.out.write(f"\r\x1b[K{fitted(line)}")
        else:
            self._tell(f"{elapsed_s:6.1f} s  ", text + (f": {visible(why)}" if why else ""))
        self.out.flush()

    def _tell(self, elapsed: str, text: str) -> None:
        bare = re.sub(r"[\d,.]+", "", text.partition(": ")[2])  # how much is free changes all the time
        same = text.partition(": ")[0] + bare
        if same != self._last:
            self.out.write(f"{elapsed}{text}\n")
        self._last = same

    def note(self, text: str) -> None:
        """Show a remark on a line of its own."""
        self.end()
        self.out.write(f"{text}\n")
        self.out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self.out.isatty():
            self.out.write("\r\x1b[K")
            self.out.flush()


class NoDaemon(TopicdError):
    """Nobody works on the home."""


class Patience:
    """Waits for a daemon: says once that there is none, and gives up after a while."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since: float | None = None
        self._is_told = False

    def check(self, meter: "Meter") -> None:
        """Look whether a daemon holds the home.

        Raises:
            NoDaemon: none has for `GIVE_UP_S`.
        """
        now = time.monotonic()
        if self._store.holder():
            self._since = None
            return
        self._since = self._since or now
        if now - self._since > GIVE_UP_S:
            meter.end()
            raise NoDaemon(
                "no_daemon", "no daemon is running here", hint="the topic is kept; `topicd run` goes on with it"
            )
        if now - self._since > NO_DAEMON_S and not self._is_told:
            self._is_told = True
            meter.note("no daemon is running here; start one with `topicd run`")


class Asked:
    """What the daemon says keeps it from work, asked every so many seconds."""

    def __init__(self, store: Store, every_s: float = ASK_EVERY_S) -> None:
        self._store = store
        self._every_s = every_s
        self._whys: list[str] = []
        self._next = time.monotonic() + every_s

    def why(self, place: str) -> str:
        """Return what is in the way of a job in a place; another stage's server is not."""
        if time.monotonic() >= self._next:
            holder = self._store.holder()
            self._whys = (readiness.ask(holder).ready or {}).get("why", []) if holder else []
            self._next = time.monotonic() + self._every_s
        others = tuple(f"{stage} waits: " for stage in Stage if stage != place)
        return "; ".join(why for why in self._whys if not why.startswith(others))


def find_source(spool: Spool, source: str, sha256: str, known: frozenset[str]) -> Found | None:
    """Return the job made from a file of that name and content that was not there before."""
    for place in (*SPOOL_PLACES, DONE):
        for name in reversed(spool.ids(place)):
            if name in known:
                continue
            path = spool.place(place) / name
            with contextlib.suppress(OSError, TopicdError):
                job = spool.read_job(path)
                if job.source == source and job.sha256 in {sha256, ""}:
                    return Found(place, name, path)
    return None


def wait(spool: Spool, store: Store, meter: Meter, *, source: str, sha256: str, known: frozenset[str]) -> Found:
    """Watch a dropped file until its job is done, failed or held; return where it ended.

    Raises:
        NoDaemon: no daemon has worked on the home for a while.
    """
    job, patience, asked = "", Patience(store), Asked(store)
    while True:
        found = _look(spool, job) if job else find_source(spool, source, sha256, known)
        if found:
            job = found.id
            at = {"n": 0, "of": 0}
            with contextlib.suppress(OSError, TopicdError):
                if found.place in list(Stage):
                    at = progress(found, Workspace(found.path, store.durable))
            if found.place in {DONE, *Aside}:
                meter.show(found.place, 0, 0)
                meter.end()
                return found
            meter.show(found.place, at["n"], at["of"], asked.why(found.place))
        else:
            meter.show("", 0, 0, asked.why(""))
        patience.check(meter)
        time.sleep(LOOK_S)


def _look(spool: Spool, job: str) -> Found | None:
    with contextlib.suppress(NoSuchJob):
        return spool.find(job)
    return None  # between two directories at the instant of the look
