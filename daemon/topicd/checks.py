"""`topicd check`: tries what a job will need, before a job needs it.

Owns the list of checks and their words. Promises to leave nothing behind, and that each result says what to do
when it is bad.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from typing import Any

from topicd import build, layout
from topicd.backends.base import Backend, HasServers, Probe
from topicd.backends.pool import Pool
from topicd.durable import free_bytes
from topicd.errors import TopicdError
from topicd.settings import Settings
from topicd.spool import Spool
from topicd.stages.scripts import primary, voice_of
from topicd.states import Stage
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
    chosen = build.backends(settings).each()
    try:
        found = [await _probe(stage, backend, settings) for stage, one in chosen.items() for backend in _members(one)]
    finally:
        for backend in chosen.values():
            await backend.aclose()
    hint = "unset it, or name its backend there"
    idle = [
        _result("unused", ok=True, text=f"{name} is set and not used: {why} decides", hint=hint)
        for name, why in build.unused(settings)
    ]
    return found + idle


def _members(backend: Backend) -> Sequence[Backend]:
    """Return each server's backend: one of several that is down is a fault, though the daemon would go on."""
    return backend.members if isinstance(backend, Pool) else [backend]


async def _probe(stage: Stage, backend: Backend, settings: Settings) -> Check:
    began = time.monotonic()
    named = " ".join([backend.name, *_servers(backend)])
    try:
        probe = await backend.probe()
    except TopicdError as error:
        return _result(stage, ok=False, text=f"{named}: {error.message}", hint=error.hint)
    seconds = time.monotonic() - began
    fault, hint = lack(stage, probe, settings)
    text = f"{named}: {fault or probe.summary} ({seconds:.1f} s)"
    return {**_result(stage, ok=not fault, text=text, hint=hint), "seconds": round(seconds, 3)}


def _servers(backend: object) -> list[str]:
    return [state.server for state in backend.servers()] if isinstance(backend, HasServers) else []


def lack(stage: Stage, probe: Probe, settings: Settings) -> tuple[str, str]:
    """Return what the language that is set needs and the backend has not, and a hint; else the hint alone."""
    languages, voices = probe.details.get("languages"), probe.details.get("voices")
    if isinstance(languages, list) and primary(settings.language) not in map(primary, languages):
        known = ", ".join(languages)
        hint = "set OLLAMA_BASE_URL, or name a model that knows it in TOPICD_LLM_FILE: `topicd fetch models` lists some"
        return f"it writes {known}, not {settings.language}", hint
    if stage == Stage.AUDIO and isinstance(voices, list) and voices:
        return _voice_lack(probe, voices, settings)
    return "", ""


def _voice_lack(probe: Probe, voices: Collection[str], settings: Settings) -> tuple[str, str]:
    voice = voice_of(settings.language, settings.tts_voices) or settings.tts_voice
    own = probe.details.get("own_language")
    if not voice and isinstance(own, str) and primary(own) != primary(settings.language):
        hint = f"name one in TTS_VOICES: `topicd fetch voices --language {settings.language}` lists them"
        return f"its own voice speaks {own}, and there is none for {settings.language}", hint
    if voice and voice not in voices and probe.details.get("fetches_voices"):
        return "", f"the voice {voice} is fetched when a topic needs it; `topicd fetch voice {voice}` does it now"
    if voice and voice not in voices:
        return f"it has no voice {voice!r} for {settings.language}", "set TTS_VOICES, or add the voice to it"
    others = {language: each for language, each in settings.tts_voices.items() if each not in voices}
    if others and "tts_voices" in settings.model_fields_set:
        return "", "not there: " + ", ".join(f"{each} for {language}" for language, each in others.items())
    return "", ""


def _result(name: str, *, ok: bool, text: str, hint: str = "") -> Check:
    return {"name": str(name), "ok": ok, "text": text, "hint": hint, "seconds": 0.0}
