"""The metrics' side of each event: what it counts.

Owns which event changes which metric. Promises that a value without a label of its own is counted as `other`, so that
no series comes up later, and that counting costs about a microsecond: each label set is looked up once. Never asks
anything: what is rather than happens is in `present.py`.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, Generic, TypeVar

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from topicd.telemetry.events import Event
from topicd.telemetry.metrics import OTHER, Metrics

M = TypeVar("M", bound=MetricWrapperBase)


class MetricSink:
    """Turns events into counts, durations and states.

    Args:
        metrics: what to change.
    """

    def __init__(self, metrics: Metrics) -> None:
        m = self._metrics = metrics
        stage: Final = {"stage": m.stages}
        failed = _By(m.failed, **stage, cause=m.causes)
        deferred, crashes, attempts = _By(m.deferred, **stage), _By(m.crashes, **stage), _By(m.attempts, **stage)
        stage_seconds, unit_seconds = _By(m.stage_seconds, **stage), _By(m.unit_seconds, **stage)
        backend_up, restarts = _By(m.backend_up, **stage), _By(m.watcher_restarts, reason=m.reasons)
        self._requests = _By(m.backend_requests, backend=m.backends, outcome=m.outcomes)
        self._request_seconds = _By(m.backend_request_seconds, backend=m.backends)
        self._effects: Mapping[str, Callable[[Event], None]] = {
            "job.accepted": self._accepted,
            "job.done": self._done,
            "job.failed": lambda event: failed.of(event).inc(),
            "job.damaged": lambda event: failed.of(event).inc(),
            "job.deferred": lambda event: deferred.of(event).inc(),
            "job.crashed": lambda event: crashes.of(event).inc(),
            "stage.started": lambda event: attempts.of(event).inc(),
            "stage.finished": lambda event: _took(stage_seconds, event),
            "unit.finished": lambda event: _took(unit_seconds, event),
            "backend.asked": self._asked,
            "backend.available": lambda event: backend_up.of(event).set(1),
            "backend.unavailable": lambda event: backend_up.of(event).set(0),
            "storage.trouble": lambda _: m.storage_ok.set(0),
            "storage.ok": lambda _: m.storage_ok.set(1),
            "download.started": lambda _: m.downloads_active.inc(),
            "download.resumed": lambda _: m.download_resumes.inc(),
            "download.progress": self._received,
            "download.finished": lambda event: self._download_ended(event, "done"),
            "download.failed": lambda event: self._download_ended(event, "failed"),
            "download.stopped": lambda event: self._download_ended(event, "stopped"),
            "intake.rescanned": lambda event: m.rescan_finds.inc(_number(event, "found")),
            "watcher.rescanned": lambda _: m.rescans.inc(),
            "watcher.restarted": lambda event: restarts.of(event).inc(),
            "watcher.overflowed": lambda _: m.watcher_overflows.inc(),
            "watcher.wake_failed": lambda _: m.watcher_wake_failures.inc(),
        }

    def see(self, event: Event) -> None:
        """Count one event."""
        if effect := self._effects.get(event.name):
            effect(event)

    def _asked(self, event: Event) -> None:
        self._requests.of(event).inc()
        self._request_seconds.of(event).observe(_number(event, "seconds"))

    def _received(self, event: Event) -> None:
        self._metrics.download_bytes.inc(_number(event, "bytes"))

    def _download_ended(self, event: Event, outcome: str) -> None:
        self._received(event)
        self._metrics.downloads_active.dec()
        self._metrics.downloads.labels(outcome=outcome).inc()

    def _accepted(self, event: Event) -> None:
        self._metrics.accepted.inc()
        if event.fields["pickup_s"] is not None:
            self._metrics.pickup_seconds.observe(_number(event, "pickup_s"))

    def _done(self, _: Event) -> None:
        self._metrics.done.inc()
        self._metrics.last_success.set(time.time())


class _By(Generic[M]):
    """One metric's series by an event's fields.

    Args:
        metric: whose.
        known: the values that have a series, by label; the label's name is the field's.
    """

    def __init__(self, metric: M, **known: Collection[str]) -> None:
        self._metric = metric
        self._known = known
        self._series = dict[tuple[object, ...], M]()

    def of(self, event: Event) -> M:
        """Return the series of an event's values."""
        fields = event.fields
        values = tuple([fields.get(name) for name in self._known])
        return self._series.get(values) or self._found(values)

    def _found(self, values: tuple[object, ...]) -> M:
        labels = [
            str(value) if str(value) in known else OTHER
            for value, known in zip(values, self._known.values(), strict=True)
        ]
        series = self._metric.labels(*labels)
        if OTHER not in labels:  # what is not known may be anything, any number of times
            self._series[values] = series
        return series


def _took(histogram: _By[Histogram], event: Event) -> None:
    histogram.of(event).observe(_number(event, "seconds"))


def _number(event: Event, field: str) -> float:
    value = event.fields[field]
    return value if isinstance(value, int | float) else 0.0
