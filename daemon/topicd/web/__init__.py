"""The web side: what the daemon shows to a monitor. Importing this package alone does not import aiohttp."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to `/healthz` or `/readyz`.

    Attributes:
        ok: whether all is well.
        why: what is not, a sentence each; no secrets, for anyone who can reach the port reads them.
        more: what else the answer tells, as JSON values by key; likewise.
    """

    ok: bool
    why: tuple[str, ...] = ()
    more: Mapping[str, object] = field(default_factory=dict)
