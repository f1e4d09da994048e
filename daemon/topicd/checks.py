"""`topicd check`: tries what a job will need, before a job needs it.

Owns the list of checks and their words. Promises to leave nothing behind, and that each result says what to do
when it is bad.
"""

import asyncio
import time
from typing import Any

from topicd import build, layout
from topicd.backends.base import Backend
from topicd.durable import free_bytes
from topicd.errors import TopicdError
from topicd.settings import Settings
from topicd.spool import Spool
from topicd.store import Store

Check = dict[str, Any]


def run(settings: Settings, spool: Spool, store: Store) -> list[Check]:
    """Return each check as {"name", "ok", "text", "hint", "seconds"}."""
    results = [_directories(spool, store)]
    if results[0]["ok"]:
        results.append(_space(spool, settings.min_free_bytes))
    if not settings.ssl_verify:
        results.append(
            _result(
                "tls",
                ok=True,
                text="certificates are not checked",
                hint="SSL_VERIFY=true, with SSL_CA_FILE for your own",
            )
        )
    try:
        return results + asyncio.run(_backends(settings))
    except TopicdError as error:  # a backend that cannot even be built
        return [*results, _result("backends", ok=False, text=error.message, hint=error.hint)]


def _directories(spool: Spool, store: Store) -> Check:
    try:
        store.open()
        layout.prove(spool, store.run)
    except TopicdError as error:
        return _result("home", ok=False, text=error.message, hint=error.hint)
    return _result("home", ok=True, text=f"{spool.home.absolute()} can be written")


def _space(spool: Spool, wanted: int) -> Check:
    free = free_bytes(spool.root)
    ok = free >= wanted
    return _result(
        "disk", ok=ok, text=f"{free:,} bytes free; work needs {wanted:,}", hint="" if ok else "free some space"
    )


async def _backends(settings: Settings) -> list[Check]:
    chosen = build.backends(settings)
    try:
        return [await _probe(stage, backend) for stage, backend in chosen.each().items()]
    finally:
        for backend in chosen.each().values():
            await backend.aclose()


async def _probe(stage: str, backend: Backend) -> Check:
    began = time.monotonic()
    try:
        probe = await backend.probe()
    except TopicdError as error:
        return _result(stage, ok=False, text=f"{backend.name}: {error.message}", hint=error.hint)
    seconds = time.monotonic() - began
    return {
        **_result(stage, ok=True, text=f"{backend.name}: {probe.summary} ({seconds:.1f} s)"),
        "seconds": round(seconds, 3),
    }


def _result(name: str, *, ok: bool, text: str, hint: str = "") -> Check:
    return {"name": str(name), "ok": ok, "text": text, "hint": hint, "seconds": 0.0}
