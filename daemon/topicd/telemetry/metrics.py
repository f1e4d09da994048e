"""Metrics for Prometheus: what happened, counted, and what is, read from the tree.

Owns one registry, apart from the library's global one. Promises that every label set exists from the start, and that a
label never holds a name, a path or an error's text. What happens is counted by `counting.py`; what is rather than
happens is asked at each scrape, by `present.py`.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from topicd.telemetry.present import Present, PresentCollector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OTHER: Final = "other"
DOWNLOAD_OUTCOMES: Final = ("done", "failed", "stopped")
WORK_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
FSYNC_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
GROUP_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PICKUP_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60)


class Metrics:
    """All metrics of one daemon.

    Args:
        stages: the stages, in order.
        causes: the causes of failure that get a label of their own; any other is `other`.
        modes: the ways the watcher can watch.
        reasons: why the watcher may begin anew; any other is `other`.
        outcomes: how a call of a backend ends; any other is `other`.
        version: of topicd.
        present: what is asked at each scrape.
    """

    def __init__(
        self,
        stages: Sequence[str],
        *,
        causes: Sequence[str],
        modes: Sequence[str],
        reasons: Sequence[str],
        outcomes: Sequence[str] = (),
        version: str,
        present: Present,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.stages: Final = tuple(stages)
        self.causes: Final = (*dict.fromkeys((*causes, OTHER)),)
        self.reasons: Final = (*dict.fromkeys((*reasons, OTHER)),)
        self.backends: Final = {OTHER}
        self.outcomes: Final = (*dict.fromkeys((*outcomes, OTHER)),)
        self.registry: Final = CollectorRegistry()
        self._add_jobs()
        self._add_work()
        self._add_backends()
        self._add_parts()
        self._add_disk()
        self._add_downloads()
        self._add_process(version)
        self.registry.register(PresentCollector(self.stages, modes, present))

    def know_backends(self, names: Iterable[str]) -> None:
        """Give each backend its labels, once it is known which there are; any other is `other`."""
        self.backends.update(names)
        _touch(self.backend_requests, {"backend": sorted(self.backends), "outcome": self.outcomes})
        _touch(self.backend_request_seconds, {"backend": sorted(self.backends)})

    def render(self) -> bytes:
        """Return everything in the format of `CONTENT_TYPE`. Reads the tree: not for the event loop."""
        return generate_latest(self.registry)

    def _add_jobs(self) -> None:
        self.accepted = self._counter("topicd_jobs_accepted", "Topics taken from input/ as jobs.")
        self.done = self._counter("topicd_jobs_done", "Jobs finished and published.")
        self.failed = self._counter(
            "topicd_jobs_failed", "Jobs given up, for a person.", stage=self.stages, cause=self.causes
        )
        self.deferred = self._counter(
            "topicd_jobs_deferred", "Attempts that failed and will be repeated.", stage=self.stages
        )
        self.last_success = self._gauge(
            "topicd_last_success_timestamp_seconds", "When a job was last finished; 0: not yet."
        )

    def _add_work(self) -> None:
        self.attempts = self._counter("topicd_attempts", "Attempts begun.", stage=self.stages)
        self.crashes = self._counter(
            "topicd_crashes", "Attempts found cut off by an end of the daemon.", stage=self.stages
        )
        self.stage_seconds = self._histogram(
            "topicd_stage_seconds", "Duration of a stage's finished attempt.", WORK_BUCKETS_S, self.stages
        )
        self.unit_seconds = self._histogram(
            "topicd_unit_seconds", "Duration of one unit's making.", WORK_BUCKETS_S, self.stages
        )
        self.pickup_seconds = self._histogram(
            "topicd_pickup_seconds", "From a topic's arrival in input/ to its claim.", PICKUP_BUCKETS_S
        )

    def _add_backends(self) -> None:
        self.backend_requests = self._counter(
            "topicd_backend_requests", "Calls of a backend.", backend=(), outcome=self.outcomes
        )
        self.backend_request_seconds = Histogram(
            "topicd_backend_request_seconds",
            "Duration of a backend's call.",
            ["backend"],
            registry=self.registry,
            buckets=WORK_BUCKETS_S,
        )
        self.know_backends([])

    def _add_disk(self) -> None:
        self.fsync_seconds = self._histogram("topicd_fsync_seconds", "Duration of one fsync.", FSYNC_BUCKETS_S)
        self.commit_group_size = self._histogram(
            "topicd_commit_group_size", "Moves of jobs that shared a round of fsyncs.", GROUP_BUCKETS
        )
        self.rescans = self._counter("topicd_rescans", "Looks at every directory by the clock, not for a file event.")
        self.rescan_finds = self._counter(
            "topicd_rescan_finds", "Topics that a rescan found and no file event had told of."
        )

    def _add_parts(self) -> None:
        self.watcher_restarts = self._counter(
            "topicd_watcher_restarts", "Times the watcher began anew.", reason=self.reasons
        )
        self.watcher_overflows = self._counter("topicd_watcher_overflows", "Times the kernel dropped file events.")
        self.watcher_wake_failures = self._counter(
            "topicd_watcher_wake_failures", "Times a bug began to keep the watcher from asking for scans."
        )
        self.backend_up = self._gauge(
            "topicd_backend_up", "0 while the stage waits for its backend, else 1.", stage=self.stages
        )
        for stage in self.stages:
            self.backend_up.labels(stage=stage).set(1)
        self.storage_ok = self._gauge("topicd_storage_ok", "0 while everything waits for the disk, else 1.")
        self.storage_ok.set(1)

    def _add_downloads(self) -> None:
        self.download_bytes = self._counter("topicd_download_bytes", "Bytes that downloads received.")
        self.download_resumes = self._counter("topicd_download_resumes", "Times a download went on with a part.")
        self.downloads = self._counter("topicd_downloads", "Downloads that ended.", outcome=DOWNLOAD_OUTCOMES)
        self.downloads_active = self._gauge("topicd_downloads_active", "Downloads under way.")

    def _add_process(self, version: str) -> None:
        build = self._gauge(
            "topicd_build_info", "What runs; always 1.", version=[version], python=[platform.python_version()]
        )
        build.labels(version=version, python=platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str, **labels: Sequence[str]) -> Counter:
        counter = Counter(name, text, tuple(labels), registry=self.registry)
        _touch(counter, labels)
        return counter

    def _gauge(self, name: str, text: str, **labels: Sequence[str]) -> Gauge:
        gauge = Gauge(name, text, tuple(labels), registry=self.registry)
        _touch(gauge, labels)
        return gauge

    def _histogram(self, name: str, text: str, buckets_s: Sequence[float], stages: Sequence[str] = ()) -> Histogram:
        labels = {"stage": stages} if stages else {}
        histogram = Histogram(name, text, tuple(labels), registry=self.registry, buckets=buckets_s)
        _touch(histogram, labels)
        return histogram


def _touch(metric: Counter | Gauge | Histogram, labels: Mapping[str, Sequence[str]]) -> None:
    for values in product(*labels.values()) if labels else ():
        metric.labels(*values)
