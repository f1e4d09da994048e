"""What is asked at each scrape rather than counted: the tree, the watcher, the servers, the worker processes.

Owns the gauges of one reading. Promises that a tree that cannot be read costs no other metric: `topicd_tree_readable`
says so. Called in the scraping thread: never on the event loop.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

BREAKER_STATES: Final = ("closed", "open", "half-open")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TreeState:
    """What the directories say at one moment.

    Attributes:
        jobs: how many jobs are in each directory: the stages, `failed`, `held`, `done`.
        oldest_s: of each stage with jobs, the seconds since its oldest was accepted.
        free_bytes: what is free on the spool's file system.
        in_work: how many of a stage's jobs are in work.
    """

    jobs: Mapping[str, int]
    oldest_s: Mapping[str, float]
    free_bytes: int
    in_work: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of one server at one moment.

    Attributes:
        stage: that it serves.
        server: host and port.
        state: of its circuit breaker.
        waited_s: how long calls have waited for its rate limit, together.
    """

    stage: str
    server: str
    state: str
    waited_s: float


@dataclass(frozen=True, slots=True)
class Present:
    """What is asked at each scrape, in the scraping thread.

    Attributes:
        tree: reads the tree.
        watcher: says the mode in which the watcher works now, empty when it does not.
        ready: says whether jobs are taken, as `/readyz` does.
        servers: says what is known of each server.
        workers: says how many worker processes live.
    """

    tree: Callable[[], TreeState]
    watcher: Callable[[], str] = lambda: ""
    ready: Callable[[], bool] = lambda: False
    servers: Callable[[], Sequence[Server]] = tuple
    workers: Callable[[], int] = lambda: 0


class PresentCollector(Collector):
    """Asks the tree, the watcher, the servers and the daemon when scraped."""

    def __init__(self, stages: Sequence[str], modes: Sequence[str], present: Present) -> None:
        self._stages = stages
        self._modes = modes
        self._present = present
        self._is_readable = True

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics of one reading; those of the tree are missing when it cannot be read."""
        present = self._present
        yield GaugeMetricFamily("topicd_ready", "1 while jobs are taken, as /readyz says.", present.ready())
        mode = present.watcher()
        up = {each: each == mode for each in self._modes}
        yield _family("topicd_watcher_up", "1 for the way in which the watcher works now.", "mode", up)
        yield GaugeMetricFamily("topicd_workers", "Worker processes alive.", present.workers())
        yield from _of_servers(present.servers())
        try:
            state = present.tree()
        except Exception:  # noqa: BLE001 - whatever it is, the other metrics must still be scraped
            if self._is_readable:
                _log.exception("the tree cannot be read for the metrics; not said again until it can")
            self._is_readable = False
        else:
            self._is_readable = True
            yield from self._gauges(state)
        yield GaugeMetricFamily("topicd_tree_readable", "1 when this scrape could read the tree.", self._is_readable)

    def _gauges(self, state: TreeState) -> Iterable[GaugeMetricFamily]:
        jobs = dict.fromkeys((*self._stages, "failed", "held", "done"), 0) | dict(state.jobs)
        in_work = dict.fromkeys(self._stages, 0) | dict(state.in_work)
        oldest_s = dict.fromkeys(self._stages, 0.0) | dict(state.oldest_s)
        yield _family("topicd_jobs", "Jobs in each directory.", "stage", jobs)
        yield _family("topicd_jobs_in_work", "Jobs of a stage that are in work.", "stage", in_work)
        yield _family("topicd_oldest_job_seconds", "Age of a stage's oldest job; 0: none.", "stage", oldest_s)
        yield GaugeMetricFamily("topicd_free_bytes", "Free on the spool's file system.", state.free_bytes)


def _of_servers(servers: Sequence[Server]) -> Iterable[Metric]:
    state = GaugeMetricFamily(
        "topicd_breaker_state", "1 for the state of a server's circuit breaker.", labels=["stage", "server", "state"]
    )
    waited = CounterMetricFamily(
        "topicd_rate_limit_wait_seconds", "Time that calls waited for a server's rate.", labels=["stage", "server"]
    )
    for each in servers:
        for name in BREAKER_STATES:
            state.add_metric([each.stage, each.server, name], each.state == name)
        waited.add_metric([each.stage, each.server], each.waited_s)
    return state, waited


def _family(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for of, value in values.items():
        family.add_metric([of], value)
    return family
