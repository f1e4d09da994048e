"""The state machine as tables; no I/O.

Owns the names of stages and places, the states a job can be in and every legal move between them. Promises that
the tables here are what `docs/ARCHITECTURE.md` shows: a test compares them. Never touches a file.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple


class Stage(StrEnum):
    """A directory of jobs, and the work done to a job there. In order of the straight path."""

    SCRIPTS = "scripts"
    AUDIO = "audio"
    IMAGES = "images"

    @property
    def next(self) -> "Stage | None":
        """The stage after this one; None after the last, whose jobs are published."""
        return _NEXT[self]


_NEXT: Final[Mapping[Stage, Stage | None]] = dict(zip(Stage, [*list(Stage)[1:], None], strict=True))


class Aside(StrEnum):
    """A place in the spool from which only a person moves a job."""

    FAILED = "failed"
    HELD = "held"


SPOOL_PLACES: Final = (*Stage, *Aside)


class State(NamedTuple):
    """One row of the state table.

    Attributes:
        key: S0 … S7.
        exists: what is on the disk.
        meaning: what that means.
        after_crash: what the next start does about it.
    """

    key: str
    exists: str
    meaning: str
    after_crash: str


STATES: Final = (
    State("S0", "`input/T.md`", "not ours yet", "found by the next scan"),
    State(
        "S1",
        "`spool/scripts/ID/` without `topic.md`",
        "a claim that did not happen",
        "recovery removes it if it is among the newest 1,024; the topic is still in `input/`",
    ),
    State(
        "S2",
        "`spool/<stage>/ID/topic.md`",
        "waiting; in work while `spool/<stage>/.ID.RUN.begun` is there",
        "waiting; whole units are kept; with a marker of another run, `begin` counts a crash and it runs alone",
    ),
    State("S3", "`spool/failed/ID`, `spool/held/ID`", "only a person moves it (`topicd retry`, `mv`)", "nothing"),
    State("S4", "`output/ID` with `manifest.json`", "finished", "nothing"),
    State(
        "S5",
        "`output/.ID.incoming`, source still in the spool",
        "a publish across file systems, cut short",
        "recovery removes the copy and publishes again",
    ),
    State(
        "S6",
        "`output/ID` and still `spool/images/ID`",
        "published across file systems, the source not yet removed; its marker is still there",
        "recovery, led by the marker, removes the source",
    ),
    State(
        "S7",
        "`spool/scripts/ID/topic.md` and still `input/T.md`, `job.json` says `source_left`",
        "claimed across file systems, the source not yet removed",
        "recovery removes the source if it is the same file and the job among the newest 1,024",
    ),
)


class Move(NamedTuple):
    """One legal move: the verb of `store.py`, from, to, and what is promised once it returns."""

    verb: str
    source: str
    target: str
    guarantee: str


MOVES: Final = (
    Move("claim", "S0", "S2 scripts", "the topic is in exactly one place; it survives power loss"),
    Move("begin", "S2", "S2", "the attempt is counted by its marker, which is on disk before the work starts"),
    Move("give_back", "S2", "S2", "the attempt is not counted: the daemon stopped, or the backend is away"),
    Move("defer", "S2", "S2", "`not_before` and the error are on disk"),
    Move(
        "finish", "S2", "S2 next stage, or S4", "every product it lists is whole on disk; in `output/` it is verified"
    ),
    Move("fail", "S2", "S3 failed", "`reason.json` says stage, unit, cause and hint"),
    Move("hold", "S2, S3 failed", "S3 held", "nothing but the place changes"),
    Move("release", "S3 held", "S2", "goes on at the first stage whose products are not whole"),
    Move("retry", "S2, S3 failed", "S2", "attempts, crashes and waits begin at zero; whole units are kept"),
)
