"""Metrics: all label sets from the start, each event in its place, the present read from the tree."""

import logging
from collections.abc import Mapping

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from topicd.errors import Rejected, StorageTrouble, Unavailable
from topicd.telemetry.counting import MetricSink
from topicd.telemetry.events import Events
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import BREAKER_STATES, Present, Server, TreeState

STAGES = ("scripts", "audio", "images")
STATE = TreeState({"scripts": 2, "failed": 1, "done": 7}, {"scripts": 12.5}, 10**9)
AWAY = Unavailable("down", "Away.")


class Tree:
    def __init__(self) -> None:
        self.state = STATE
        self.error: Exception | None = None

    def __call__(self) -> TreeState:
        if self.error:
            raise self.error
        return self.state


class Daemon:
    def __init__(self) -> None:
        self.tree = Tree()
        self.mode = "events"
        self.is_ready = True
        self.servers = [Server("scripts", "gpu:11434", "open", 2.5)]
        self.metrics = Metrics(
            STAGES,
            causes=("script_empty", "crash_loop"),
            modes=("events", "poll"),
            reasons=("reader_died",),
            version="1.2.3",
            outcomes=("ok", "rejected"),
            present=Present(
                tree=self.tree,
                watcher=lambda: self.mode,
                ready=lambda: self.is_ready,
                servers=lambda: self.servers,
                workers=lambda: 2,
            ),
        )
        self.metrics.know_backends(["ollama"])
        self.emit = Events([MetricSink(self.metrics)]).emit

    def samples(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.metrics.render().decode())
        return {
            sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def changed_by(self, name: str, /, **fields: object) -> dict[str, float]:
        """What one event adds to or takes from any sample, those of the process aside."""
        before = self.samples()
        self.emit(name, **fields)
        after = self.samples()
        return {
            key: round(value - before.get(key, 0.0), 6)
            for key, value in after.items()
            if not key.startswith("process_") and "_bucket" not in key and value != before.get(key)
        }


@pytest.mark.parametrize(
    ("name", "fields", "changes"),
    [
        ("job.accepted", {"job": "j", "source": "s", "bytes": 1, "pickup_s": None}, {"jobs_accepted_total": 1}),
        (
            "job.accepted",
            {"job": "j", "source": "s", "bytes": 1, "pickup_s": 0.25},
            {"jobs_accepted_total": 1, "pickup_seconds_count": 1, "pickup_seconds_sum": 0.25},
        ),
        (
            "job.failed",
            {"job": "j", "stage": "audio", "error": Rejected("script_empty", "Empty."), "attempt": 1},
            {"jobs_failed_total cause=script_empty stage=audio": 1},
        ),
        (
            "job.failed",
            {"job": "j", "stage": "audio", "error": ValueError("/secret/path"), "attempt": 1},
            {"jobs_failed_total cause=other stage=audio": 1},
        ),
        (
            "job.damaged",
            {"job": "j", "stage": "audio", "error": Rejected("job_damaged", "Damaged.")},
            {"jobs_failed_total cause=other stage=audio": 1},
        ),
        (
            "job.deferred",
            {"job": "j", "stage": "images", "error": AWAY, "attempt": 1, "next_try": 5.0},
            {"jobs_deferred_total stage=images": 1},
        ),
        ("stage.started", {"job": "j", "stage": "scripts", "attempt": 1}, {"attempts_total stage=scripts": 1}),
        (
            "backend.asked",
            {
                "job": "j",
                "stage": "audio",
                "unit": "u",
                "backend": "ollama",
                "outcome": "ok",
                "seconds": 3.0,
                "span_id": "s",
            },
            {
                "backend_requests_total backend=ollama outcome=ok": 1,
                "backend_request_seconds_count backend=ollama": 1,
                "backend_request_seconds_sum backend=ollama": 3,
            },
        ),
        (
            "backend.asked",
            {
                "job": "j",
                "stage": "audio",
                "unit": "u",
                "backend": "/x",
                "outcome": "y",
                "seconds": 0.0,
                "span_id": "s",
            },
            {"backend_requests_total backend=other outcome=other": 1, "backend_request_seconds_count backend=other": 1},
        ),
        ("intake.rescanned", {"found": 3}, {"rescan_finds_total": 3}),
        ("job.crashed", {"job": "j", "stage": "scripts", "crashes": 3}, {"crashes_total stage=scripts": 1}),
        (
            "stage.finished",
            {"job": "j", "stage": "audio", "seconds": 40.0},
            {"stage_seconds_count stage=audio": 1, "stage_seconds_sum stage=audio": 40},
        ),
        (
            "unit.finished",
            {"job": "j", "stage": "audio", "unit": "u", "n": 1, "of": 2, "seconds": 2, "backend": "b"},
            {"unit_seconds_count stage=audio": 1, "unit_seconds_sum stage=audio": 2},
        ),
        ("download.started", {"file": "f"}, {"downloads_active": 1}),
        ("download.resumed", {"file": "f", "have": 9}, {"download_resumes_total": 1}),
        (
            "download.progress",
            {"file": "f", "have": 9, "total": None, "bytes": 5, "rate": 1, "note": ""},
            {"download_bytes_total": 5},
        ),
        (
            "download.finished",
            {"file": "f", "bytes": 4, "seconds": 1.0},
            {"download_bytes_total": 4, "downloads_active": -1, "downloads_total outcome=done": 1},
        ),
        (
            "download.failed",
            {"file": "f", "bytes": 4, "error": AWAY},
            {"download_bytes_total": 4, "downloads_active": -1, "downloads_total outcome=failed": 1},
        ),
        (
            "download.stopped",
            {"file": "f", "bytes": 4},
            {"download_bytes_total": 4, "downloads_active": -1, "downloads_total outcome=stopped": 1},
        ),
        ("watcher.restarted", {"reason": "reader_died"}, {"watcher_restarts_total reason=reader_died": 1}),
        ("watcher.restarted", {"reason": "/some/path"}, {"watcher_restarts_total reason=other": 1}),
        ("daemon.ready", {"seconds": 0.1, "jobs": 3, "page": "http://127.0.0.1:9469/"}, {}),
        (
            "backend.unavailable",
            {"stage": "audio", "backend": "b", "error": AWAY, "next_try": None},
            {"backend_up stage=audio": -1},
        ),
        ("storage.trouble", {"error": StorageTrouble("disk_full", "Full.")}, {"storage_ok": -1}),
    ],
)
def test_an_event_changes_its_metrics_and_no_others(
    name: str, fields: Mapping[str, object], changes: Mapping[str, float]
) -> None:
    assert Daemon().changed_by(name, **fields) == {f"topicd_{key}": v for key, v in changes.items()}


def test_done_is_counted_and_dated() -> None:
    daemon = Daemon()
    start_s = daemon.samples()["process_start_time_seconds"]
    changed = daemon.changed_by("job.done", job="j", seconds=1.0, output="o")
    assert changed.keys() == {"topicd_jobs_done_total", "topicd_last_success_timestamp_seconds"}
    assert changed["topicd_last_success_timestamp_seconds"] > start_s


def test_ready_is_asked_at_each_scrape_and_a_backend_comes_back() -> None:
    daemon = Daemon()
    assert daemon.samples()["topicd_ready"] == 1
    daemon.is_ready = False
    assert daemon.samples()["topicd_ready"] == 0
    daemon.emit("backend.unavailable", stage="audio", backend="b", error=AWAY, next_try=None)
    assert daemon.changed_by("daemon.stopping", signal="SIGTERM") == {}
    assert daemon.changed_by("backend.available", stage="audio", backend="b", seconds=3.0) == {
        "topicd_backend_up stage=audio": 1
    }


def test_storage_comes_back() -> None:
    daemon = Daemon()
    daemon.emit("storage.trouble", error=StorageTrouble("disk_full", "Full."))
    daemon.emit("storage.trouble", error=StorageTrouble("read_only", "Read-only."))
    assert daemon.changed_by("storage.ok") == {"topicd_storage_ok": 1}


def test_every_label_set_is_there_from_the_start() -> None:
    start = Daemon().samples()
    for stage in STAGES:
        for cause in ("script_empty", "crash_loop", "other"):
            assert start[f"topicd_jobs_failed_total cause={cause} stage={stage}"] == 0
        for name in ("jobs_deferred_total", "attempts_total", "crashes_total", "stage_seconds_count"):
            assert start[f"topicd_{name} stage={stage}"] == 0
        assert start[f"topicd_backend_up stage={stage}"] == 1
    for reason in ("reader_died", "other"):
        assert start[f"topicd_watcher_restarts_total reason={reason}"] == 0
    for name in ("jobs_accepted_total", "jobs_done_total", "pickup_seconds_count"):
        assert start[f"topicd_{name}"] == 0
    assert start["topicd_storage_ok"] == 1
    assert [k for k in start if k.startswith("topicd_build_info") and "version=1.2.3" in k]


def test_no_series_comes_up_later() -> None:
    daemon = Daemon()
    before = daemon.samples().keys()
    for cause in ("a", "b", "c"):
        daemon.emit("job.failed", job="j", stage="audio", error=Rejected(cause, "No."), attempt=1)
        daemon.emit("watcher.restarted", reason=cause)
    assert daemon.samples().keys() == before


def test_a_stage_of_no_name_is_other() -> None:
    changed = Daemon().changed_by("stage.started", job="j", stage="a\nb", attempt=1)
    assert changed == {"topicd_attempts_total stage=other": 1}


@pytest.mark.parametrize(("seconds", "bucket"), [(0.05, "0.1"), (45, "60.0"), (3600, "3600.0")])
def test_work_up_to_an_hour_has_its_bucket(seconds: float, bucket: str) -> None:
    daemon = Daemon()
    daemon.emit("stage.finished", job="j", stage="audio", seconds=seconds)
    buckets = [
        key.split("le=")[1].split()[0]
        for key, value in daemon.samples().items()
        if key.startswith("topicd_stage_seconds_bucket") and "stage=audio" in key and value == 1
    ]
    assert buckets[0] == bucket


def test_pickup_buckets_tell_a_millisecond_from_two() -> None:
    daemon = Daemon()
    daemon.emit("job.accepted", job="j", source="s", bytes=1, pickup_s=0.0008)
    samples = daemon.samples()
    assert samples["topicd_pickup_seconds_bucket le=0.0005"] == 0
    assert samples["topicd_pickup_seconds_bucket le=0.001"] == 1


def test_the_tree_is_read_at_each_scrape() -> None:
    daemon = Daemon()
    first = daemon.samples()
    jobs = {key: value for key, value in first.items() if key.startswith("topicd_jobs ")}
    assert jobs == {
        f"topicd_jobs stage={place}": n
        for place, n in {"scripts": 2, "audio": 0, "images": 0, "failed": 1, "held": 0, "done": 7}.items()
    }
    assert first["topicd_oldest_job_seconds stage=scripts"] == 12.5
    assert first["topicd_oldest_job_seconds stage=audio"] == 0
    assert first["topicd_free_bytes"] == 10**9
    daemon.tree.state = TreeState({"scripts": 3}, {}, 5)
    assert daemon.samples()["topicd_jobs stage=scripts"] == 3


def test_an_unreadable_tree_is_told_and_costs_no_other_metric(caplog: pytest.LogCaptureFixture) -> None:
    daemon = Daemon()
    daemon.tree.error = PermissionError("no")
    with caplog.at_level(logging.ERROR):
        broken = [daemon.samples() for _ in range(3)][-1]
    assert broken["topicd_tree_readable"] == 0
    assert not [key for key in broken if key.startswith(("topicd_jobs ", "topicd_oldest", "topicd_free"))]
    assert broken["topicd_jobs_done_total"] == 0
    assert len(caplog.records) == 1
    daemon.tree.error = None
    assert daemon.samples()["topicd_tree_readable"] == 1


@pytest.mark.parametrize(("mode", "up"), [("events", (1, 0)), ("poll", (0, 1)), ("", (0, 0))])
def test_the_watcher_is_asked_at_each_scrape(mode: str, up: tuple[int, int]) -> None:
    daemon = Daemon()
    daemon.mode = mode
    samples = daemon.samples()
    assert (samples["topicd_watcher_up mode=events"], samples["topicd_watcher_up mode=poll"]) == up


def test_the_process_is_measured() -> None:
    samples = Daemon().samples()
    assert samples["process_resident_memory_bytes"] > 1_000_000
    assert samples["process_cpu_seconds_total"] > 0


def test_nothing_is_dated_twice_or_put_into_the_global_registry() -> None:
    names = [key.split()[0] for key in Daemon().samples()]
    assert not [name for name in names if name.endswith("_created")]
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("topicd")]


def test_two_daemons_do_not_share_counts() -> None:
    one, two = Daemon(), Daemon()
    one.emit("job.done", job="j", seconds=1.0, output="o")
    assert two.samples()["topicd_jobs_done_total"] == 0


def test_each_server_tells_the_state_of_its_breaker_and_how_long_it_was_waited_for() -> None:
    samples = Daemon().samples()
    states = {
        state: samples[f"topicd_breaker_state server=gpu:11434 stage=scripts state={state}"] for state in BREAKER_STATES
    }
    assert states == {"closed": 0, "open": 1, "half-open": 0}
    assert samples["topicd_rate_limit_wait_seconds_total server=gpu:11434 stage=scripts"] == 2.5
    assert samples["topicd_workers"] == 2


def test_what_is_in_work_is_read_from_the_tree() -> None:
    daemon = Daemon()
    daemon.tree.state = TreeState({"scripts": 3}, {}, 5, {"scripts": 2})
    samples = daemon.samples()
    assert (samples["topicd_jobs_in_work stage=scripts"], samples["topicd_jobs_in_work stage=audio"]) == (2, 0)
