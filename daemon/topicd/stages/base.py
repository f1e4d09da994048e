"""What the three stages share: what is said of a product's maker, how units are reported.

Owns the contract of a stage: it reads the job's files, asks a backend, leaves files. Promises that a unit which
is whole and made from the same is not made again. Never retries, never moves a job, never sees how a backend is
reached.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar

from topicd.backends.base import Backend
from topicd.errors import Awaited, Rejected, RetryLater, Unavailable, Unusable
from topicd.job import Job
from topicd.stages.ask import ask
from topicd.telemetry.events import Events
from topicd.telemetry.tracing import calling
from topicd.threads import offload
from topicd.workspace import Workspace

SEED_MASK: Final = 0x7FFF_FFFF
PRESS_TIMEOUT_S: Final = 300.0
PROVENANCE_CHARS_MAX: Final = 10_000

Q = TypeVar("Q")
T = TypeVar("T")


class StageWork(Protocol):
    """The work of one stage.

    Attributes:
        backend: what does the generating.
    """

    @property
    def backend(self) -> Backend:
        """What does the generating."""
        ...

    async def run(self, job: Job, space: Workspace) -> None:
        """Make every product of the stage that is not whole yet.

        Raises:
            TopicdError: one of its classes, which say what will be done.
            FileNotFoundError: the job's directory is gone; a person moved it.
        """
        ...


def made_by(backend: Backend) -> dict[str, str]:
    """Return what the manifest says of a product's maker.

    Raises:
        Unusable: the backend says something else than a few strings; the manifest could not be read again.
    """
    said = backend.provenance()
    if not _is_of_strings(said):
        raise _unfit(backend, "is not a mapping from strings to strings")
    if sum(len(key) + len(value) for key, value in said.items()) > PROVENANCE_CHARS_MAX:
        raise _unfit(backend, f"has more than {PROVENANCE_CHARS_MAX:,} characters")
    return {"backend": backend.name, **said}


def _is_of_strings(said: object) -> bool:
    return isinstance(said, Mapping) and all(isinstance(word, str) for pair in said.items() for word in pair)


def _unfit(backend: Backend, what: str) -> Unusable:
    hint = "this is a fault of the backend; if it is your own class, mend it"
    return Unusable("backend_misbehaved", f"the provenance of the backend {backend.name} {what}", hint=hint)


_OUTCOMES: Final[Mapping[type[Exception], str]] = {
    RetryLater: "retry_later",
    Awaited: "awaited",
    Unavailable: "unavailable",
    Rejected: "rejected",
    Unusable: "unusable",
}
OUTCOMES: Final = ("ok", *_OUTCOMES.values(), "cancelled", "other")
"""How a call of a backend ends, as labels of a metric."""


@contextlib.asynccontextmanager
async def aside(space: Workspace, path: str) -> AsyncIterator[Path]:
    """Give the name of a temporary file beside a product, for `adopt`; what is not adopted is removed at the end."""
    file = await offload(space.aside, path)
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # the trouble that led here is the one to tell
            await offload(file.unlink, missing_ok=True)


@dataclass(slots=True)
class Units:
    """Reports the units of one run of a stage."""

    events: Events
    job: Job
    stage: str
    backend: str
    of: int
    _n: int = 0
    _begun: float = 0.0

    def begin(self) -> None:
        """A unit starts to be made."""
        self._n += 1
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the unit in hand has taken."""
        return time.monotonic() - self._begun

    async def ask(
        self, method: Callable[[Q], Awaitable[T]], request: Q, kind: type[T], *, unit: str, timeout_s: float
    ) -> T:
        """Return the backend's answer, as `ask.ask` does, and tell how the call went."""
        began, outcome = time.monotonic(), "cancelled"
        with calling(self.job.id, is_sent=self.events.is_traced) as span_id:
            try:
                answer = await ask(method, request, kind, unit=unit, timeout_s=timeout_s)
                outcome = "ok"
            except Exception as error:
                outcome = _OUTCOMES.get(type(error), "other")
                raise
            else:
                return answer
            finally:
                self.events.emit(
                    "backend.asked",
                    job=self.job.id,
                    stage=self.stage,
                    unit=unit,
                    backend=self.backend,
                    outcome=outcome,
                    seconds=round(time.monotonic() - began, 3),
                    span_id=span_id,
                )

    def finished(self, unit: str) -> None:
        """The unit in hand is on disk."""
        self.events.emit(
            "unit.finished",
            job=self.job.id,
            stage=self.stage,
            unit=unit,
            n=self._n,
            of=self.of,
            seconds=round(self.seconds, 3),
            backend=self.backend,
        )

    def kept(self, unit: str) -> None:
        """A unit was whole already."""
        self._n += 1
        self.events.emit("unit.kept", job=self.job.id, stage=self.stage, unit=unit)
