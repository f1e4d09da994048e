"""`topicd fsck`: every invariant of the tree, checked on a stopped or a running spool.

Owns the walk, the second and third look, and the repairs. Promises that memory does not grow with the number of jobs,
that a thing in movement is not reported (what is found is looked at again, twice, at the same place), and that a repair
loses nothing: with no daemon it holds the home's lock and does what the next start would (`store.recover`); beside a
daemon it removes only temporary files in finished jobs, which nobody writes to. Never moves a job.
"""

import contextlib
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from topicd.archive import ASIDE
from topicd.durable import INCOMING
from topicd.errors import Unusable
from topicd.findings import KINDS, Finding, Level
from topicd.home import check_spool
from topicd.intake import look
from topicd.layout import PROBE, PROBE_AGE_S, same_file_system
from topicd.lock import Taken
from topicd.soundness import Soundness
from topicd.spool import DONE, Spool
from topicd.states import SPOOL_PLACES, Stage
from topicd.store import Store
from topicd.workspace import Workspace

LOOKS: Final = 3
LOOK_AGAIN_S: Final = 0.4
LISTED_MAX: Final = 200
MARKER: Final = re.compile(r"\.(?P<job>.+)\.(?P<run>[0-9a-f]{16})\.begun")
BY_RECOVERY: Final = frozenset(
    [
        "place_missing",
        "claim_undone",
        "claim_unfinished",
        "publish_undone",
        "publish_unfinished",
        "probe_left",
        "marker_stale",
        "temporary_left",
        "temporary_published",
    ]
)
BARS_RECOVERY: Final = frozenset(["spool_split", "rights", "restore_cut"])

Check = Callable[[], Iterable[Finding]]
Suspects = list[tuple[Check, list[Finding]]]


@dataclass(slots=True)
class Result:
    """What one run of fsck found.

    Attributes:
        home: where.
        is_running: whether a daemon held the home.
        is_quick: whether products were compared by size only.
        jobs: how many were checked.
        findings: at most `LISTED_MAX` of a kind, faults first.
        more: slug → how many more of that kind.
        repaired: one line for each thing that was put right.
        not_repaired: after a repair, one line a kind: what it has left, and why.
    """

    home: str
    is_running: bool
    is_quick: bool
    jobs: int = 0
    findings: list[Finding] = field(default_factory=list)
    more: dict[str, int] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    not_repaired: list[str] = field(default_factory=list)

    @property
    def has_faults(self) -> bool:
        """Whether anything needs a person."""
        return any(each.kind.level is Level.FAULT for each in self.findings)

    def told(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "ok": not self.has_faults,
            "home": self.home,
            "running": self.is_running,
            "quick": self.is_quick,
            "jobs": self.jobs,
            "findings": [each.told() for each in self.findings],
            "more": self.more,
            "repaired": self.repaired,
            "not_repaired": self.not_repaired,
        }


def check(spool: Spool, store: Store, *, is_quick: bool, pause_s: float = LOOK_AGAIN_S) -> Result:
    """Check everything.

    Args:
        spool: the tree.
        store: the door to it.
        is_quick: compare products by size only, not by their bytes.
        pause_s: seconds before what was found is looked at again.

    Raises:
        Unusable: there is no spool.
    """
    check_spool(spool)
    result = Result(str(spool.home.absolute()), bool(store.holder()), is_quick)
    walk = _Walk(spool, store, is_quick=is_quick)
    suspects, counts = _first_look(walk)
    for _ in range(LOOKS - 1):
        if suspects:
            time.sleep(pause_s)
        suspects = [(check, still) for check, before in suspects if (still := _still(check, before))]
    order = list(Level)
    found = [each for _, still in suspects for each in still]
    result.jobs = walk.jobs
    result.findings = sorted(found, key=lambda each: (order.index(each.kind.level), each.slug, each.where))
    # What is over the limit was looked at once; it counts where one of its kind stood up to every look.
    stood = {each.slug for each in found}
    result.more = {slug: count - LISTED_MAX for slug, count in counts.items() if count > LISTED_MAX and slug in stood}
    return result


def repair(spool: Spool, store: Store, *, is_quick: bool, pause_s: float = LOOK_AGAIN_S) -> Result:
    """Check, put right what loses nothing, and check again.

    Raises:
        Unusable: there is no spool, or it is another user's: what is made here would be out of its daemon's reach.
    """
    before = check(spool, store, is_quick=is_quick, pause_s=pause_s)
    if not any(each.slug in BY_RECOVERY for each in before.findings):
        before.not_repaired = _left(before)
        return before
    owner = spool.root.stat().st_uid
    if os.geteuid() != owner:
        hint = f"run it as that user: sudo -u '#{owner}' topicd fsck --repair"
        raise Unusable("other_user", f"the spool belongs to user {owner}", hint=hint)
    _sweep(spool, store, before)
    with contextlib.suppress(Taken), store.locked({"fsck": True}):  # beside a daemon the rest waits for its next start
        _recover(spool, store, before)
    after = check(spool, store, is_quick=is_quick, pause_s=pause_s)
    left = {each.key for each in after.findings}
    after.repaired = [f"{each.slug} {each.where}" for each in before.findings if each.key not in left]
    after.not_repaired = _left(after)
    return after


def _left(result: Result) -> list[str]:
    """Say of each kind what was not put right, and why."""
    counts = Counter(each.slug for each in result.findings if each.kind.level is not Level.NOTE) + Counter(result.more)
    bars = sorted({*counts} & BARS_RECOVERY)
    return [f"{count} {slug}: {_why_left(slug, result, bars)}" for slug, count in counts.items()]


def _why_left(slug: str, result: Result, bars: list[str]) -> str:
    if slug not in BY_RECOVERY:
        is_pending = KINDS[slug].level is Level.PENDING
        return "the job's next attempt mends it" if is_pending else "only a person can; see what to do there"
    if result.is_running:
        return "a daemon is running; stop it and repair again, or leave it to its next start"
    return f"no start gets past {', '.join(bars)}; mend that first" if bars else "it could not be done; try again"


def _first_look(walk: "_Walk") -> tuple[Suspects, Counter[str]]:
    """Check everything once. Returns what is to be looked at again, and how many there are of each kind."""
    suspects, counts = Suspects(), Counter[str]()
    for each in walk.checks():
        kept = list[Finding]()
        for finding in _tried(each):
            counts[finding.slug] += 1
            if counts[finding.slug] <= LISTED_MAX:
                kept.append(finding)
        if kept:
            suspects.append((each, kept))
    return suspects, counts


def _still(check: Check, before: list[Finding]) -> list[Finding]:
    keys = {each.key for each in before}
    return [each for each in _tried(check) if each.key in keys]


def _tried(check: Check) -> list[Finding]:
    try:
        return list(check())
    except FileNotFoundError:
        return []  # it has moved on
    except OSError as error:
        return [Finding("unreadable", str(error.filename or ""), error.strerror or "")]


def _recover(spool: Spool, store: Store, before: Result) -> None:
    """Do what a start does, and what each job's next attempt would. The home is held."""
    if any(each.slug in BARS_RECOVERY for each in before.findings):
        return  # a start refuses them
    store.open()
    store.recover()
    for each in before.findings:
        if each.slug == "temporary_left":
            with contextlib.suppress(FileNotFoundError):
                Workspace(spool.home / Path(*Path(each.where).parts[:3]), store.durable).sweep()


def _sweep(spool: Spool, store: Store, before: Result) -> None:
    for each in before.findings:
        if each.slug == "temporary_published":
            store.durable.remove(spool.home / each.where)


class _Walk:
    """Every check that there is, one at a time; each can be done again."""

    def __init__(self, spool: Spool, store: Store, *, is_quick: bool) -> None:
        self.jobs = 0
        self._spool = spool
        self._store = store
        self._sound = Soundness(spool, store, is_quick=is_quick)

    def checks(self) -> Iterator[Check]:
        yield self._root
        yield self._file_systems
        yield self._input
        for place in (*SPOOL_PLACES, DONE):
            yield partial(self._place, place)
            with contextlib.suppress(OSError), os.scandir(self._spool.place(place)) as entries:
                for entry in entries:
                    self.jobs += entry.name[0] != "."
                    yield partial(self._entry, place, entry.name)

    def _root(self) -> Iterator[Finding]:
        yield from self._sound.may_use(self._spool.root)
        for entry in os.scandir(self._spool.root):
            path = self._spool.root / entry.name
            if PROBE in entry.name or entry.name.startswith(ASIDE):
                yield from self._left(path)
            elif entry.name not in {*SPOOL_PLACES, self._spool.lock_file.name, "lost+found"}:
                yield self._sound.found("foreign", path)

    def _file_systems(self) -> Iterator[Finding]:
        first, *others = map(self._spool.place, SPOOL_PLACES)
        for other in others:
            if first.is_dir() and other.is_dir() and not same_file_system(first, other, self._store.run):
                yield self._sound.found("spool_split", other)

    def _input(self) -> Iterator[Finding]:
        """Tell what in `input/` will never be taken."""
        folder = self._spool.input
        try:
            for ignored in look(folder)[1]:
                yield self._sound.found("input_ignored", folder / ignored.name, ignored.kind)
        except FileNotFoundError:
            yield self._sound.found("place_missing", folder)
        except OSError as error:
            yield self._sound.found("input_unreadable", folder, error.strerror or "")

    def _place(self, place: str) -> Iterator[Finding]:
        path = self._spool.place(place)
        if not path.is_dir():
            yield self._sound.found("place_missing", path)
            return
        yield from self._sound.may_use(path)

    def _entry(self, place: str, name: str) -> Iterator[Finding]:
        path = self._spool.place(place) / name
        is_directory = stat.S_ISDIR(path.lstat().st_mode)
        if name[0] != "." and is_directory:
            yield from self._sound.job(place, name)
        elif (PROBE in name and name[0] == ".") or name.startswith(ASIDE):
            yield from self._left(path)
        elif place == DONE and name[0] == "." and name.endswith(INCOMING):
            yield from self._incoming(path, name[1 : -len(INCOMING)])
        elif place in list(Stage) and (marker := MARKER.fullmatch(name)):
            yield from self._marker(path, marker["job"], marker["run"])
        else:
            yield self._sound.found("foreign_output" if place == DONE else "foreign", path)

    def _left(self, path: Path) -> Iterator[Finding]:
        if path.name.startswith(ASIDE):
            yield self._sound.found("restore_cut", path)
        elif time.time() - path.lstat().st_mtime > PROBE_AGE_S:
            yield self._sound.found("probe_left", path)

    def _incoming(self, path: Path, job: str) -> Iterator[Finding]:
        """Tell a publish that is under way, one that was cut short, and one whose job is nowhere."""
        source = self._spool.place(Stage.IMAGES) / job
        if self._store.holder() and source.is_dir():
            return  # the publish that is made now, or will be made again
        places = [place for place in (*SPOOL_PLACES, DONE) if (self._spool.place(place) / job).is_dir()]
        yield self._sound.found("publish_undone" if places else "publish_orphan", path)

    def _marker(self, path: Path, job: str, run: str) -> Iterator[Finding]:
        if not os.path.lexists(path.parent / job):
            yield self._sound.found("marker_stale", path)
        elif run != self._store.holder().get("run"):
            yield self._sound.found("was_in_work", path.parent / job)
