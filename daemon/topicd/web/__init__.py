"""The web side: what the daemon shows to a monitor. Importing this package alone does not import aiohttp."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to `/healthz` or `/readyz`.

    Attributes:
        ok: whether all is well.
        why: what is not, a sentence each; no secrets, for anyone who can reach the port reads them.
    """

    ok: bool
    why: tuple[str, ...] = ()
