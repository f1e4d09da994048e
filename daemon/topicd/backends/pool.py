"""Several servers that do the same, as one backend.

Owns which of them gets a call: among those that are there, the one with the most room. Promises that a member which is
away, or cannot be used as it is (it lacks the model, it refuses the password), gets nothing but one call now and then
that tries it, while the others do the work; and that the pool itself is away only when all of them are. A product is
the same wherever it was made: members differ by nothing but their address. Never knows what a call is about.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from topicd.backends.base import (
    AudioBackend,
    Backend,
    Frees,
    HasServers,
    ImageBackend,
    Picture,
    PictureRequest,
    Probe,
    Script,
    ScriptBackend,
    ScriptRequest,
    ServerState,
    Speech,
    SpeechRequest,
)
from topicd.backends.circuit import Circuit
from topicd.errors import TopicdError, Unavailable, Unusable

B = TypeVar("B", bound=Backend)
P = TypeVar("P")

OPENS_FOR: Final = (Unavailable, Unusable)
"""What opens a member's circuit: where there is another server, one that lacks its model is left alone, too."""


@dataclass(slots=True)
class _Member(Generic[B]):
    backend: B
    circuit: Circuit
    server: str
    calls: int = 0

    @property
    def load(self) -> float:
        return self.calls / self.backend.calls_max

    @property
    def urgency(self) -> tuple[bool, bool, float]:
        """Return what the least of is asked: one whose time to be tried is up, then the one with the most room."""
        return (self.circuit.wait_s > 0, self.circuit.trouble is None, self.load)


class Pool(Generic[B]):
    """What the pools of all three stages share.

    Args:
        backends: of one kind, ≥ 1; the pool closes them.
        circuits: one each, made with `opens_for=OPENS_FOR`.
        servers: the words for each.
    """

    def __init__(self, backends: Sequence[B], circuits: Sequence[Circuit], servers: Sequence[str]) -> None:
        self._members = [_Member(*each) for each in zip(backends, circuits, servers, strict=True)]
        self.name = backends[0].name
        self.calls_max = sum(backend.calls_max for backend in backends)
        self.holds_gpu = any(backend.holds_gpu for backend in backends)

    @property
    def members(self) -> Sequence[B]:
        """Return the backends, in the order in which they are set."""
        return [member.backend for member in self._members]

    def provenance(self) -> Mapping[str, str]:
        """Return what changes the products: the members' settings are the same."""
        return self.members[0].provenance()

    def servers(self) -> Sequence[ServerState]:
        """Return the state of each member's server."""
        return [state for member in self._members for state in _states(member)]

    async def probe(self) -> Probe:
        """Ask each; one that works is enough.

        Raises:
            Unavailable: none answers.
            Unusable: none can be used.
        """
        found = await asyncio.gather(*(_probed(backend) for backend in self.members))
        probes = [probe for probe in found if isinstance(probe, Probe)]
        if not probes:
            raise _worst([error for error in found if isinstance(error, TopicdError)])
        summary = f"{probes[0].summary} ({len(probes)} of {len(found)} servers)"
        return Probe(summary, {"members": [dict(probe.details) for probe in probes], **probes[0].details})

    async def free(self) -> None:
        """Have every member that is there let go of its GPU's memory.

        Raises:
            TopicdError: one did not do it; the others were asked all the same.
        """
        backends: Sequence[object] = self.members
        frees = [backend for backend in backends if isinstance(backend, Frees)]
        done = await asyncio.gather(*(backend.free() for backend in frees), return_exceptions=True)
        # A server that is away holds no memory that anybody could ask it for.
        faults = [error for error in done if isinstance(error, BaseException) and not isinstance(error, Unavailable)]
        if faults:
            raise faults[0]

    async def aclose(self) -> None:
        """Close all. Safe to call twice."""
        await asyncio.gather(*(backend.aclose() for backend in self.members))

    async def _on_one(self, call: Callable[[B], Awaitable[P]]) -> P:
        """Have one member answer; the next one where it is away.

        Raises:
            Unavailable: all are away, or some are and the others cannot be used.
            Unusable: none can be used.
        """
        errors = list[TopicdError]()
        left = list(self._members)
        while left:
            member = min(left, key=lambda each: each.urgency)
            left.remove(member)
            member.calls += 1
            try:
                with member.circuit.call(member.server):
                    return await call(member.backend)
            except OPENS_FOR as error:
                trouble = member.circuit.trouble
                # One that is left alone because it cannot be used is not away: it waits for the owner.
                errors.append(trouble if isinstance(trouble, Unusable) else error)
            finally:
                member.calls -= 1
        raise _worst(errors)


class ScriptPool(Pool[ScriptBackend]):
    """A `ScriptBackend` of several."""

    async def write(self, request: ScriptRequest) -> Script:
        """Return a script; see `ScriptBackend`."""
        return await self._on_one(lambda backend: backend.write(request))


class AudioPool(Pool[AudioBackend]):
    """An `AudioBackend` of several."""

    async def speak(self, request: SpeechRequest) -> Speech:
        """Return the speech; see `AudioBackend`."""
        return await self._on_one(lambda backend: backend.speak(request))


class ImagePool(Pool[ImageBackend]):
    """An `ImageBackend` of several."""

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the picture; see `ImageBackend`."""
        return await self._on_one(lambda backend: backend.draw(request))


def _states(member: _Member[B]) -> Sequence[ServerState]:
    backend: object = member.backend
    states = backend.servers() if isinstance(backend, HasServers) else ()
    circuit = member.circuit
    if circuit.trouble is None:
        return states
    words = circuit.trouble.message
    return [replace(state, state=str(circuit.state), since_s=circuit.since_s, trouble=words) for state in states]


async def _probed(backend: Backend) -> Probe | TopicdError:
    try:
        return await backend.probe()
    except TopicdError as error:
        return error


def _worst(errors: Sequence[TopicdError]) -> TopicdError:
    """Return what is to be told of all: to wait as long as the first one may be back, if any may."""
    away = [error for error in errors if isinstance(error, Unavailable)]
    if not away:
        return errors[0]
    after_s = [error.after_s for error in away if error.after_s is not None]
    words = "; ".join(dict.fromkeys(error.message for error in errors))
    return Unavailable(away[0].cause, words, hint=away[0].hint, after_s=min(after_s, default=None))
