"""What the three stages share: how a backend is asked, and how units are reported.

Owns the contract of a stage: it reads the job's files, asks a backend, leaves files. Promises that a unit which
is whole and made from the same is not made again. Never retries, never moves a job, never sees how a backend is
reached.
"""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from topicd.backends.base import Backend
from topicd.errors import RetryLater, TopicdError
from topicd.job import Job
from topicd.telemetry.events import Events
from topicd.workspace import Workspace

SEED_MASK: Final = 0x7FFF_FFFF
PRESS_TIMEOUT_S: Final = 300.0

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
    """Return what the manifest says of a product's maker."""
    return {"backend": backend.name, **backend.provenance()}


async def ask(call: Awaitable[T], kind: type[T], *, unit: str, timeout_s: float) -> T:
    """Wait for a backend's answer, within a limit, and check that it is of the right type.

    Raises:
        RetryLater: it took too long, or returned something else.
        TopicdError: what the backend raised, with the unit filled in.
    """
    try:
        async with asyncio.timeout(timeout_s):
            answer = await call
    except TimeoutError as error:
        raise RetryLater(
            "timeout",
            f"the backend did not answer within {timeout_s:g} s",
            hint="if it is only slow, raise the stage's TOPICD_…_TIMEOUT_S",
            unit=unit,
        ) from error
    except TopicdError as error:
        error.unit = error.unit or unit
        raise
    if not isinstance(answer, kind):
        raise RetryLater(
            "backend_misbehaved",
            f"the backend returned {type(answer).__name__}, not {kind.__name__}",
            hint="this is a fault of the backend; if it is your own class, mend it",
            unit=unit,
        )
    return answer


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
