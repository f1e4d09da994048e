"""topicd's own side of the spool benchmark: the real engine and store, with stages that return at once.

Promises that nothing is left out that the daemon does to the disk: claims by the store's verb, attempts counted, moves
acknowledged. Only the watcher and the reading of topics are not here: a feeder takes files that lie in input/ already,
and keeps a number of jobs in flight. The fsyncs are counted at the seam that all of them go through.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from topicd import __version__
from topicd.backends.base import Probe
from topicd.durable import Disk, Durable, Steps
from topicd.engine import Engine
from topicd.errors import CAUSES
from topicd.gate import StorageGate
from topicd.job import Job
from topicd.policy import Policy
from topicd.spool import DONE, Spool
from topicd.states import Stage
from topicd.store import Store
from topicd.telemetry import logs
from topicd.telemetry.counting import MetricSink
from topicd.telemetry.events import Event, Events, Sink
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, TreeState
from topicd.workspace import Workspace

LIMIT_S: Final = 300.0
CALLS_MAX: Final = 4096
FAULTS: Final = frozenset(["job.failed", "job.damaged", "job.deferred", "storage.trouble", "stage.bug"])
POLICY: Final = Policy(
    attempts_max=3, crashes_max=3, retry_first_s=1.0, retry_max_s=10.0, down_first_s=1.0, down_max_s=10.0
)


class CountingDisk(Disk):
    """Counts fsyncs, from any thread."""

    def __init__(self) -> None:
        self.fsyncs = 0
        self._lock = threading.Lock()

    def fsync(self, fd: int) -> None:
        """Count one and do it."""
        with self._lock:
            self.fsyncs += 1
        super().fsync(fd)


class NoBackend:
    """A backend that nobody asks."""

    name = "none"
    calls_max = CALLS_MAX
    holds_gpu = False

    def provenance(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    async def probe(self) -> Probe:
        """Answer."""
        return Probe("does nothing")

    async def aclose(self) -> None:
        """Nothing to let go of."""


class NoWork:
    """A stage that makes nothing."""

    backend = NoBackend()

    async def run(self, job: Job, space: Workspace) -> None:
        """Return at once."""


class Flow:
    """Keeps the number in flight, and sees the end: a sink that only counts."""

    def __init__(self, jobs: int, in_flight: int) -> None:
        self._left = jobs
        self._slots = asyncio.Semaphore(in_flight)
        self._ended = asyncio.Event()
        self._fault = ""
        if not jobs:
            self._ended.set()

    def see(self, event: Event) -> None:
        """Count a job that is done, and stop at anything that should not happen here."""
        if event.name == "job.done":
            self._left -= 1
            self._slots.release()
        elif event.name in FAULTS:
            self._fault = self._fault or event.message
        if self._fault or not self._left:
            self._ended.set()

    async def slot(self) -> None:
        """Wait until another job may be accepted."""
        await self._slots.acquire()

    async def end(self) -> None:
        """Wait until every job is done.

        Raises:
            AssertionError: something went wrong.
        """
        await self._ended.wait()
        assert not self._fault, self._fault


def new_store(folder: Path, disk: Disk) -> Store:
    """Return a store on a fresh home."""
    store = Store(Spool(home=folder, input_dir=folder / "input", output_dir=folder / DONE), Durable(disk))
    store.open()
    return store


async def claim(store: Store, path: Path, *, begun: bool = False) -> Job:
    """Claim a topic, with `begun` one whose first attempt is counted; durable when it returns."""
    return await store.commit(_claiming(store, path, begun=begun))


async def begin(store: Store, stage: Stage, name: str) -> Job:
    """Count an attempt, durable when it returns."""
    return (await store.commit(store.moves.begin(stage, name))).job


async def finish(store: Store, stage: Stage, job: Job) -> None:
    """Move a job on, durable when it returns."""
    await store.commit(store.moves.finish(stage, job))


def _claiming(store: Store, path: Path, *, begun: bool) -> Steps[Job]:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return (yield from store.moves.claim(path, sha256=sha256, size=len(data), begin=begun))


class Topicd:
    """The engine and the store.

    Args:
        with_log: whether every event is written, as JSON, to nowhere.
        with_metrics: whether every event is counted.
    """

    def __init__(self, *, with_log: bool = False, with_metrics: bool = False) -> None:
        self.fsyncs: int | None = 0
        self._sinks = [*(_log() if with_log else []), *(_metrics() if with_metrics else [])]
        self._disk = CountingDisk()
        self._store: Store
        self._files: list[Path] = []

    def prepare(self, folder: Path, topics: Sequence[bytes]) -> None:
        """Make the home and drop the topics."""
        self._store = new_store(folder, self._disk)
        self._files = [self._store.spool.input / f"{number:07}.md" for number in range(len(topics))]
        for path, topic in zip(self._files, topics, strict=True):
            path.write_bytes(topic)

    def run(self, in_flight: int) -> None:
        """Accept each and let the engine work until all are done."""
        asyncio.run(self._run(in_flight))

    def check(self) -> None:
        """Look into output/, and that nothing is left anywhere else."""
        spool = self._store.spool
        done = spool.ids(DONE)
        assert len(done) == len(self._files), len(done)
        assert all((spool.output / name / "topic.md").stat().st_size for name in done)
        assert set(spool.counts().values()) <= {0, len(done)}
        assert not list(spool.input.iterdir())

    async def _run(self, in_flight: int) -> None:
        flow = Flow(len(self._files), in_flight)
        events = Events([flow, *self._sinks])
        root, durable = self._store.spool.root, self._store.durable
        gate = StorageGate(root=root, durable=durable, events=events, min_free_bytes=0)
        engine = Engine(
            store=self._store,
            works={stage: NoWork() for stage in Stage},
            limits=dict.fromkeys(Stage, in_flight),
            events=events,
            gate=gate,
            policy=POLICY,
        )
        await gate.storage_ready()  # it tries the disk once, which is no part of any job
        before = self._disk.fsyncs
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            working = group.create_task(engine.run())
            feeding = group.create_task(self._feed(flow, engine, events))
            await flow.end()
            await feeding
            working.cancel()
        self.fsyncs = self._disk.fsyncs - before

    async def _feed(self, flow: Flow, engine: Engine, events: Events) -> None:
        async with asyncio.TaskGroup() as group:
            for path in self._files:
                await flow.slot()
                group.create_task(self._accept(path, engine, events))

    async def _accept(self, path: Path, engine: Engine, events: Events) -> None:
        first = engine.lanes[Stage.SCRIPTS]
        is_reserved = first.reserve()
        job = await claim(self._store, path, begun=is_reserved)
        events.emit("job.accepted", job=job.id, source=job.source, bytes=job.bytes, pickup_s=None)
        if is_reserved:
            await first.take_over(job)
        else:
            first.expect()


def _log() -> list[Sink]:
    logs.configure(format="json", level="info", stream=open(os.devnull, "w"))  # noqa: SIM115, PTH123 - lives as long as the process
    return [logs.LogSink()]


def _metrics() -> list[Sink]:
    metrics = Metrics(
        list(Stage),
        causes=sorted(CAUSES),
        modes=("events", "poll"),
        reasons=(),
        version=__version__,
        present=Present(tree=lambda: TreeState({}, {}, 0)),
    )
    return [MetricSink(metrics)]
