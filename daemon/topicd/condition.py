"""How the daemon is at this moment, for `/healthz`, `/readyz`, the page and systemd.

Owns the answers. Promises that they are made of what the parts know already: no server is asked and no disk is read, so
they cost nothing and never wait. Never changes anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from topicd.backends.base import Backend, HasDownloads, HasServers, ServerState
from topicd.engine import Engine
from topicd.errors import TopicdError
from topicd.gate import StorageGate
from topicd.states import Stage
from topicd.telemetry.events import rfc3339
from topicd.watcher import Watcher
from topicd.web import Health


class Condition:
    """What the parts of a daemon know of themselves, together.

    Args:
        watcher, gate, engine: the parts that can be in trouble.
        backends: whose servers and downloads are told of.
        warnings: what the settings make dangerous, a sentence each.
        is_up: whether the start is done and the stop is not begun.
    """

    def __init__(
        self,
        *,
        watcher: Watcher,
        gate: StorageGate,
        engine: Engine,
        backends: Mapping[Stage, Backend],
        warnings: Sequence[str],
        is_up: Callable[[], bool],
    ) -> None:
        self._watcher = watcher
        self._gate = gate
        self._lanes = engine.lanes
        self._backends = backends
        self._warnings = warnings
        self._is_up = is_up

    def health(self) -> Health:
        """Return whether a restart would be of use: it makes the directories again, and all that watches them."""
        deaf = self._deaf
        return Health(ok=not deaf, why=(deaf.message,) if deaf else ())

    def ready(self) -> Health:
        """Return whether topics are taken and made, and everything that the parts tell of themselves."""
        why = [*([] if self._is_up() else ["starting or stopping"]), *self.troubles()]
        more = {
            "watcher": self._watcher.state._asdict(),
            "servers": list(self._servers()),
            "downloads": list(self._downloads()),
            "warnings": list(self._warnings),
            "waits": list(self._waits()),
        }
        return Health(ok=not why, why=tuple(why), more=more)

    def troubles(self) -> list[str]:
        """Return what keeps topics from being taken or made, a sentence each."""
        deaf, why = self._deaf, list[str]()
        if deaf:
            why.append(deaf.message)
        if trouble := self._gate.trouble:  # asked once: the page looks from another thread
            why.append(trouble.words)
        return why + [words for lane in self._lanes.values() if (words := lane.why)]

    def states(self) -> Iterator[tuple[Stage, ServerState]]:
        """Yield each server that a backend speaks to."""
        for stage, backend in self._backends.items():
            for state in backend.servers() if isinstance(backend, HasServers) else ():
                yield stage, state

    @property
    def _deaf(self) -> TopicdError | None:
        if self._watcher.up or not self._is_up():
            return None
        return self._watcher.trouble or TopicdError("bug", "the watcher is down")

    def _waits(self) -> Iterator[dict[str, str]]:
        if deaf := self._deaf:
            yield {"what": "input", "cause": deaf.cause}
        if trouble := self._gate.trouble:
            yield {"what": "disk", "cause": trouble.cause}
        for stage, lane in self._lanes.items():
            if away := lane.trouble:
                yield {"what": stage, "cause": away.cause}

    def _servers(self) -> Iterator[dict[str, object]]:
        for stage, state in self.states():
            told = asdict(state)
            since_s = told.pop("since_s")
            yield {"stage": stage, **told, "since": rfc3339(since_s) if since_s else ""}

    def _downloads(self) -> Iterator[dict[str, object]]:
        for backend in self._backends.values():
            for state in backend.downloads() if isinstance(backend, HasDownloads) else ():
                yield asdict(state)
