"""A home as every verb needs it: the settings, the tree, the door to it.

Owns how these three are put together, so that a verb that only looks need not load what works, and the words where
there is no spool. Never opens or makes anything.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from topicd.durable import Disk, Durable
from topicd.errors import Unusable
from topicd.intake import look
from topicd.settings import Settings
from topicd.spool import Spool
from topicd.store import Store


@dataclass(frozen=True, slots=True)
class Home:
    """One home."""

    settings: Settings
    spool: Spool
    store: Store

    @classmethod
    def of(cls, settings: Settings, disk: Disk | None = None, grouped: Callable[[int], None] = lambda _: None) -> Self:
        """Return the home that the settings name.

        Args:
            settings: which.
            disk: how its files reach the disk; None for the system's calls.
            grouped: as `GroupCommit` tells of its groups.
        """
        spool = Spool(home=settings.home, input_dir=settings.input_path, output_dir=settings.output_path)
        return cls(settings, spool, Store(spool, Durable(disk), grouped=grouped))


def check_spool(spool: Spool) -> None:
    """See that there is a spool.

    Raises:
        Unusable: there is none; says whether a daemon seems to have made one before.
    """
    if spool.root.is_dir():
        return
    waiting = 0
    with contextlib.suppress(OSError):
        waiting = len(look(spool.input)[0])
    topics = f"; {waiting} topic{'s wait' if waiting > 1 else ' waits'} in {spool.input.name}/" if waiting else ""
    was_there = all(path.is_dir() for path in (spool.input, spool.output, spool.cache))
    hint = "put it back, or mount what holds it" if was_there else "no daemon has run here yet: `topicd run`"
    what = f"there is no spool in {spool.home.absolute()}{topics}"
    raise Unusable("no_spool", what, hint=f"{hint}; or name the home with TOPICD_HOME")
