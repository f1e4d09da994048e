"""A home as every verb needs it: the settings, the tree, the door to it.

Owns how these three are put together, so that a verb that only looks need not load what works. Never opens or makes
anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from topicd.durable import Disk, Durable
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
