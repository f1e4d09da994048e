"""What `topicd fsck` can find, in words: one row a kind, with what it means and what to do.

Owns the slugs, their levels and their sentences. Promises that a slug is stable and that each row says what the thing
means and what a person can do about it. Never looks at a file: `fsck.py` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Level(StrEnum):
    """How bad a finding is. Only a fault changes the exit code."""

    FAULT = "fault"
    PENDING = "pending"
    NOTE = "note"


class Kind(NamedTuple):
    """One row: the level, what a finding of this kind means, and what to do about it."""

    level: Level
    means: str
    todo: str


_START: Final = "nothing: the daemon's next start mends it, and `topicd fsck --repair` does while no daemon runs"
_AGAIN: Final = "restore it; or copy its topic.md to input/ and move the directory out of the home: all is made again"

KINDS: Final[Mapping[str, Kind]] = {
    "place_missing": Kind(Level.PENDING, "a directory of the home is not there", _START),
    "spool_split": Kind(
        Level.FAULT,
        "a part of spool/ is on another file system: a job cannot be moved there by one rename, and no daemon starts",
        "make all of spool/ one file system; input/ and output/ may be mounted apart",
    ),
    "rights": Kind(
        Level.FAULT,
        "the daemon's user (the owner of spool/) cannot do what it must there",
        "as root: chown -R that user, and chmod -R u+rwX, on what is named",
    ),
    "unreadable": Kind(
        Level.FAULT,
        "it could not be read, so it was not checked",
        "see the kernel's log for errors of the disk; else run fsck as the daemon's user",
    ),
    "foreign": Kind(
        Level.FAULT,
        "this is not the daemon's; it is left alone, but does not belong in the spool",
        "move it elsewhere; if it is a topic, move it to input/",
    ),
    "foreign_output": Kind(Level.NOTE, "this is not the daemon's; it is left alone", "nothing, or move it elsewhere"),
    "id_malformed": Kind(
        Level.FAULT,
        "a directory whose name is no job's id: its place in the queue is by chance, and tools may not know it",
        "move its topic.md to input/ under a name of its own, and remove the directory",
    ),
    "topic_missing": Kind(
        Level.FAULT,
        "a job's directory without the topic: the job cannot go on",
        "put topic.md back from a backup; or move the directory out of the home, and drop the topic again",
    ),
    "claim_undone": Kind(
        Level.PENDING, "a claim that did not happen (S1); the topic is still in input/ and nothing is lost", _START
    ),
    "claim_unfinished": Kind(
        Level.PENDING, "claimed from another file system, the source not yet removed (S7): it is in two places", _START
    ),
    "publish_undone": Kind(
        Level.PENDING, "a publish across file systems that was cut short (S5); the job is still in the spool", _START
    ),
    "publish_unfinished": Kind(Level.PENDING, "published across file systems, the source not yet removed (S6)", _START),
    "publish_orphan": Kind(
        Level.FAULT,
        "a publish that was cut short, whose job is in no place: this may be the only copy, and is left as it is",
        "look whether it is whole; then rename it to the job's id, or move it elsewhere",
    ),
    "probe_left": Kind(Level.PENDING, "a probe of a process that was killed; it holds nothing", _START),
    "restore_cut": Kind(
        Level.FAULT,
        "a restore was cut short here: the home may hold only a part of the backup",
        "empty input/, spool/ and output/ and restore again; if the home was in use since, remove only what is named",
    ),
    "marker_stale": Kind(Level.PENDING, "the mark of an attempt at a job that is not in this stage any more", _START),
    "was_in_work": Kind(
        Level.PENDING,
        "the job was in work when a daemon died",
        "nothing: its next attempt counts the crash, and it runs alone",
    ),
    "job_twice": Kind(
        Level.FAULT,
        "one job in two places: both would be worked on, and one cannot be moved past the other",
        "compare the two, keep the one further on (or whole), and move the other out of the home",
    ),
    "job_json_damaged": Kind(
        Level.FAULT,
        "job.json cannot be read; the job goes to failed/ when its turn comes",
        "`topicd retry` keeps the damaged file aside and begins the job anew; whole products are kept",
    ),
    "kept_damaged": Kind(
        Level.NOTE,
        "the job failed because job.json is damaged, and is kept for a person",
        "`topicd retry` keeps the damaged file aside and begins the job anew; whole products are kept",
    ),
    "job_json_lost": Kind(
        Level.NOTE,
        "job.json was lost; the job goes on, rebuilt from its directory, without the name its topic was dropped by",
        "nothing",
    ),
    "reason_missing": Kind(
        Level.FAULT,
        "a job in failed/ that does not say why: somebody moved it there, or removed its reason.json",
        "`topicd retry` lets it go on; `topicd hold` puts it aside",
    ),
    "manifest_damaged": Kind(
        Level.FAULT,
        "manifest.json cannot be read, so no product counts",
        _AGAIN,
    ),
    "manifest_alien": Kind(
        Level.FAULT,
        "manifest.json tells of another job, or of files outside this one's directory",
        _AGAIN,
    ),
    "product_harmed": Kind(
        Level.FAULT,
        "a finished product is missing or is not what was made",
        "restore the job from a backup; or, if its topic.md is there, copy that to input/ to have it made again",
    ),
    "product_lost": Kind(
        Level.FAULT,
        "a product of an earlier stage is missing or harmed; the job fails when its turn comes",
        "`topicd hold` and then `topicd release` sends it back to the stage that makes it again",
    ),
    "product_remade": Kind(
        Level.PENDING, "a product is missing or harmed", "nothing: it is made again when the job goes on"
    ),
    "not_whole": Kind(
        Level.FAULT,
        "a finished job lacks something it must have",
        "restore the job from a backup; or, if its topic.md is there, copy that to input/ to have it made again",
    ),
    "temporary_left": Kind(
        Level.PENDING, "a temporary file of an attempt that died", "nothing: the job's next attempt removes it"
    ),
    "temporary_published": Kind(
        Level.FAULT, "a temporary file in a finished job", "remove it; `topicd fsck --repair` does"
    ),
    "input_ignored": Kind(
        Level.NOTE, "it lies in input/ and will never be taken", "move it elsewhere, or drop a regular .md or .txt file"
    ),
    "input_unreadable": Kind(
        Level.FAULT,
        "input/ cannot be read, so no topic is taken",
        "give the daemon's user the right to read, write and search it",
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        slug: a key of `KINDS`.
        where: the path, relative to the home where it is inside.
        what: what is there, when the path alone does not say it; may be empty.
    """

    slug: str
    where: str
    what: str = ""

    @property
    def kind(self) -> Kind:
        """Its row."""
        return KINDS[self.slug]

    @property
    def key(self) -> tuple[str, str]:
        """What makes two looks' findings the same."""
        return self.slug, self.where

    def told(self) -> dict[str, str]:
        """Return it as `--json` shows it."""
        level, means, todo = self.kind
        return {"slug": self.slug, "level": level, "where": self.where, "what": self.what, "means": means, "todo": todo}
