"""What a running daemon says of itself when it is asked for its `/readyz`.

Owns the question, and which of the answer's parts are believed. Promises an answer within a limit, whatever is there,
and that a daemon of another version, which may say less, is no fault. Loopback by plain HTTP, so the standard library
serves.
"""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ASK_TIMEOUT_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 262_144

_WATCHER: Final[Mapping[str, type]] = {
    "mode": str,
    "up": bool,
    "trouble": str,
    "hint": str,
    "restarts": int,
    "overflows": int,
    "wake_failures": int,
    "cause": str,
}
_SERVER: Final[Mapping[str, type]] = {
    "stage": str,
    "server": str,
    "state": str,
    "since": str,
    "trouble": str,
    "calls": int,
    "waiting": int,
    "note": str,
    "cause": str,
}
_DOWNLOAD: Final[Mapping[str, type]] = {"name": str, "have": int, "rate": float, "note": str}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What it said.

    Attributes:
        ready: `{ok, why: […]}`; None without a daemon.
        watcher: how it watches; None when it does not say.
        servers: what it knows of each server.
        downloads: how far each is: `{name, have, total, rate, note}`; `total` may be None.
        warnings: what its settings make dangerous, a sentence each.
    """

    ready: Json | None = None
    watcher: Json | None = None
    servers: list[Json] = field(default_factory=list)
    downloads: list[Json] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def ask(holder: Mapping[str, object]) -> Told:
    """Ask the daemon that holds the home.

    Args:
        holder: what it wrote of itself; `host` and `port` are read.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address(holder)}readyz", timeout=ASK_TIMEOUT_S) as answer:
            body = answer.read(ANSWER_BYTES_MAX)
    except urllib.error.HTTPError as answer:
        with answer:
            body = answer.read(ANSWER_BYTES_MAX)
    except (OSError, ValueError) as error:
        return Told({"ok": False, "why": [f"the daemon does not answer: {error}"]})
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(body)
        if isinstance(said, dict) and isinstance(said.get("why"), list):
            return told(said)
    return Told({"ok": False, "why": ["the daemon's answer cannot be read"]})


def address(holder: Mapping[str, object]) -> str:
    """Return where a daemon's page can be asked for from this machine; `holder` as for `ask`."""
    host = str(holder.get("host", "127.0.0.1"))
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - compared
    return f"http://{host}:{holder.get('port', 0)}/"


def told(said: Json) -> Told:
    """Return what is believed of a daemon's answer."""
    return Told(
        ready={"ok": said.get("ok") is True, "why": [str(why) for why in said["why"]]},
        watcher=_shaped(said.get("watcher"), _WATCHER),
        servers=[shaped for each in _list(said.get("servers")) if (shaped := _shaped(each, _SERVER))],
        downloads=list(_downloads(said)),
        warnings=[each for each in _list(said.get("warnings")) if isinstance(each, str)],
    )


def _downloads(said: Json) -> Iterator[Json]:
    for each in _list(said.get("downloads")):
        if shaped := _shaped(each, _DOWNLOAD):
            total = each.get("total") if isinstance(each, dict) else None
            yield {**shaped, "total": total if isinstance(total, int) else None}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _shaped(said: object, shape: Mapping[str, type]) -> Json | None:
    """Return the keys of a shape, if all are there; an older daemon says less, and no cause."""
    if isinstance(said, dict) and "cause" in shape:
        said = {"cause": "", **said}
    if isinstance(said, dict) and all(isinstance(said.get(key), kind) for key, kind in shape.items()):
        return {key: said[key] for key in shape}
    return None
