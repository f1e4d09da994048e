"""The daemon's life: startup → run → shutdown.

Owns how the parts that `build` makes are put together, and the signals. Promises that nothing is accepted before
recovery is done, that the watches stand before the first scan, that SIGTERM ends within seconds with every finished
unit kept and every attempt in hand given back, and that a second signal ends at once. Never decides anything about a
job.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Any, Final

from topicd import __version__, build, readiness, startup
from topicd.backends.base import Backend
from topicd.backends.embedded import worker
from topicd.backends.embedded.worker import Worker
from topicd.condition import Condition
from topicd.durable import TimedDisk
from topicd.engine import STORAGE_WAIT_S, Engine
from topicd.errors import CAUSES, StorageTrouble, TopicdError
from topicd.gate import StorageGate
from topicd.home import Home
from topicd.intake import Intake
from topicd.manager import ServiceManager, counted
from topicd.settings import Settings, misspelt
from topicd.showing import Showing, counts, last_done_s
from topicd.stages.base import OUTCOMES
from topicd.states import Stage
from topicd.telemetry import logs, tracing
from topicd.telemetry.counting import MetricSink
from topicd.telemetry.events import Events, Sink
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, Server
from topicd.telemetry.traces import TraceSink
from topicd.threads import offload
from topicd.watcher import Watched, Watcher
from topicd.web.pulse import Pulse

INPUT: Final = "input"
DRAINED_LOOK_S: Final = 0.2
STOPS: Final = 3
"""Work in hand, then the backends, then what they leave running, each have the time to stop in."""
STOP_SPARE_S: Final = 5.0
WATCH_REASONS: Final = (
    "reader_died",
    "unmounted",
    "directory_gone",
    "directory_replaced",
    "directory_hangs",
    "watch_limit",
    "instance_limit",
    "directory_unreadable",
    "watch_failed",
    "no_events",
    "remote_file_system",
)


class App:
    """One daemon on one home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._begun = time.monotonic()
        self._stop = asyncio.Event()
        self._signal = "the end of its work"
        self._is_ready = False
        self._misspelt = tuple(misspelt())
        self._metrics = metrics = self._made_metrics()
        home = Home.of(settings, TimedDisk(metrics.fsync_seconds.observe), metrics.commit_group_size.observe)
        self._spool, self._store = home.spool, home.store
        self._pulse = Pulse()
        self._manager = ServiceManager(work=lambda: counted(self._spool, self._store.run), trouble=self._troubles)
        self._receiver = build.receiver(settings, self._on_lost)
        self._events = self._made_events()
        self._gate = StorageGate(
            root=self._spool.root,
            durable=self._store.durable,
            events=self._events,
            min_free_bytes=settings.min_free_bytes,
            output=self._spool.output,
        )
        self._backends = build.backends(settings, self._on_server, self._events)
        self._metrics.know_backends(backend.name for backend in self._backends.each().values())
        self._press = build.press(settings)
        self._engine = Engine(
            store=self._store,
            works=build.works(settings, self._backends, self._press, self._events),
            limits=build.limits(settings, self._backends),
            events=self._events,
            gate=self._gate,
            policy=build.policy(settings),
            gpu=build.gpu(settings, self._events),
        )
        self._intake = Intake(
            spool=self._spool,
            store=self._store,
            events=self._events,
            gate=self._gate,
            first=self._engine.lanes[Stage.SCRIPTS],
            settle_s=settings.settle_s,
            topic_bytes_max=settings.topic_bytes_max,
            scenes_max=settings.scenes_max,
        )
        self._watcher = Watcher(
            watched=[Watched(self._spool.input, INPUT), *(Watched(self._spool.place(stage), stage) for stage in Stage)],
            mode=settings.watch_mode,
            wake=self._wake,
            rescan_s=settings.rescan_s,
            poll_s=settings.poll_s,
            events=self._events,
            rescans=self._rescan,
        )
        self._condition = Condition(
            watcher=self._watcher,
            gate=self._gate,
            engine=self._engine,
            backends=self._backends.each(),
            warnings=list(startup.warnings(settings, self._misspelt)),
            is_up=lambda: self._is_ready,
        )

    def _made_events(self) -> Events:
        sinks: list[Sink] = [logs.LogSink(), MetricSink(self._metrics), self._pulse, self._manager]
        if self._receiver:
            sinks.append(TraceSink(self._receiver.send))
        return Events(sinks, tracing.known, is_traced=self._receiver is not None)

    def _made_metrics(self) -> Metrics:
        return Metrics(
            list(Stage),
            causes=sorted(CAUSES),
            modes=("events", "poll"),
            reasons=WATCH_REASONS,
            outcomes=OUTCOMES,
            version=__version__,
            present=Present(
                tree=lambda: counts(self._spool, self._store.run),
                watcher=lambda: self._watcher.mode if self._watcher.up else "",
                ready=lambda: self._condition.ready().ok,
                servers=lambda: [
                    Server(stage, state.server, state.state, state.waited_s)
                    for stage, state in self._condition.states()
                ],
                workers=worker.count,
            ),
        )

    async def serve(self, *, once: bool = False) -> None:
        """Run until a signal, or, with `once`, until nothing is left to do.

        Raises:
            Unusable: the home, the port or a setting cannot be used.
            Taken: another daemon has this home.
        """
        self._loop = asyncio.get_running_loop()
        self._catch_signals()
        self._manager.starting()
        self._events.emit("daemon.starting", version=__version__, home=str(self._spool.home.absolute()))
        self._warn()
        await offload(self._store.open)
        with self._store.locked({"version": __version__}) as say:
            async with self._web() as port:
                said = {"version": __version__, "host": self._settings.metrics_host, "port": port}
                say(said)
                await self._startup(readiness.address(said))
                if self._is_ready:
                    await self._run(once=once)

    async def _startup(self, page: str) -> None:
        for line in await self._recovered():
            self._events.emit("recovery.removed", what=line)
        if self._stop.is_set():
            return
        self._metrics.last_success.set(await offload(last_done_s, self._spool))
        self._watcher.start()
        self._is_ready = True
        seconds = round(time.monotonic() - self._begun, 3)
        self._events.emit("daemon.ready", seconds=seconds, jobs=self._store.jobs_found, page=page)

    async def _recovered(self) -> list[str]:
        """Recover; while the disk does not let us, be there and not ready."""
        while not self._stop.is_set():
            try:
                return await offload(self._store.recover)
            except StorageTrouble as error:
                self._gate.tell(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STORAGE_WAIT_S):
                    await self._stop.wait()
        return []

    async def _run(self, *, once: bool) -> None:
        work: list[Coroutine[Any, Any, None]] = [self._intake.run(), self._engine.run(), self._watcher.run()]
        if once:
            work.append(self._stop_when_drained())
        tasks = [asyncio.create_task(each) for each in work]
        self._manager.ready(tasks)
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await self._shutdown(tasks)
        stop.cancel()
        for task in done - {stop}:
            task.result()  # a part that ended by itself is a fault; its error ends the daemon

    async def _shutdown(self, tasks: list[asyncio.Task[None]]) -> None:
        began = time.monotonic()
        self._is_ready = False
        self._manager.stopping(STOPS * self._settings.stop_timeout_s + STOP_SPARE_S)
        self._events.emit("daemon.stopping", signal=self._signal)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=self._settings.stop_timeout_s)
        parts: list[Backend | Worker] = [*self._backends.each().values(), self._press]
        closes = [asyncio.ensure_future(part.aclose()) for part in parts]
        await asyncio.wait(closes, timeout=self._settings.stop_timeout_s)
        if self._receiver:
            await offload(self._receiver.close)
        self._events.emit("daemon.stopped", seconds=round(time.monotonic() - began, 3))

    async def _stop_when_drained(self) -> None:
        while not (  # noqa: ASYNC110 - the tree tells, not an event: a person may move jobs too
            self._intake.idle.is_set() and self._engine.is_idle and not await offload(self._spool.has_work)
        ):
            await asyncio.sleep(DRAINED_LOOK_S)
        self._stop.set()

    @contextlib.asynccontextmanager
    async def _web(self) -> AsyncIterator[int]:
        from topicd.web.pages import Pages  # noqa: PLC0415 - aiohttp; no verb of the command line needs it
        from topicd.web.server import WebServer  # noqa: PLC0415 - as above

        server = WebServer(
            host=self._settings.metrics_host,
            port=self._settings.metrics_port,
            metrics=self._metrics,
            health=self._condition.health,
            ready=self._condition.ready,
            pages=Pages(self._showing(), self._pulse, self._settings.page_hosts),
        )
        port = await server.start()
        try:
            yield port
        finally:
            await server.stop()

    def _showing(self) -> Showing:
        makers = {stage: backend.name for stage, backend in self._backends.each().items()}
        return Showing(
            self._spool, self._store, self._condition.ready, self._pulse, makers, command=self._settings.command
        )

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # workers die with us; what is on disk is whole at every instant
        self._signal = number.name
        self._stop.set()

    def _wake(self, kind: str, moved_in: str | None) -> None:
        if kind == INPUT:
            self._intake.hint(moved_in)
        else:
            self._engine.hint(Stage(kind))

    def _troubles(self) -> list[str]:
        return self._condition.troubles()

    def _warn(self) -> None:
        if not self._settings.ssl_verify:
            self._events.emit("tls.unverified")
        for name, meant in self._misspelt:
            self._events.emit("setting.unused", name=name, meant=meant)

    def _on_lost(self, count: int) -> None:
        """Called in the thread that sends spans."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all that could be told
            self._loop.call_soon_threadsafe(partial(self._events.emit, "traces.lost", count=count))

    def _rescan(self) -> None:
        self._events.emit("watcher.rescanned")
        self._intake.rescan()

    def _on_server(self, stage: Stage, server: str, trouble: TopicdError | None) -> None:
        if trouble:
            self._events.emit("server.down", stage=stage, server=server, error=trouble)
        else:
            self._events.emit("server.up", stage=stage, server=server)


def run(settings: Settings, *, once: bool = False) -> None:
    """Run a daemon in this process; see `App.serve` and `startup.check_files`."""
    startup.check_files(settings)
    logs.configure(format=settings.log_format, level=settings.log_level)

    async def main() -> None:
        await App(settings).serve(once=once)
        # What is left are tasks and threads of backends that do not stop. Everything is on the disk, and the lock goes
        # with the process.
        end = threading.Timer(settings.stop_timeout_s, os._exit, [0])
        end.daemon = True
        end.start()

    asyncio.run(main())
