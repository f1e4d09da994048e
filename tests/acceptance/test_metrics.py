"""The metrics of a real daemon that has worked: each is there, and those of what it did have counted it."""

import contextlib
import http.client
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from rig.daemon import FAKES, QUICK, Home, load, running, until

TOPIC = "---\nscenes: 2\n---\n# Tides\n\nThe Moon pulls on the sea.\n"


def scraped(port: int) -> dict[str, float]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        families = [*text_string_to_metric_families(connection.getresponse().read().decode())]
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_job_is_seen_by_every_metric_it_should_be(tmp_path: Path) -> None:
    home = Home(tmp_path, {**FAKES, **QUICK})
    with running(home) as daemon:
        home.drop("tides.md", TOPIC)
        until(lambda: home.ids("output"), "it is done")
        daemon.event("job.done")
        port = load(home.spool / ".lock")["port"]
        until(lambda: scraped(port)["topicd_rescans_total"] >= 2, "the directories were looked at by the clock")
        samples = scraped(port)
    assert samples["topicd_jobs stage=done"] == 1
    assert samples["topicd_jobs_accepted_total"] == samples["topicd_jobs_done_total"] == 1
    assert samples["topicd_jobs_in_work stage=audio"] == 0
    assert samples["topicd_last_success_timestamp_seconds"] > 1.7e9
    asked = {key: value for key, value in samples.items() if key.startswith("topicd_backend_requests_total")}
    assert sum(asked.values()) == 1 + 2 + 3, "a script, two scenes' audio, two pictures and the title"
    assert all(" outcome=ok" in key for key, value in asked.items() if value)
    assert samples["topicd_fsync_seconds_count"] >= 3
    assert samples["topicd_commit_group_size_count"] >= 3
    assert samples["topicd_ready"] == samples["topicd_storage_ok"] == samples["topicd_tree_readable"] == 1
    for name in ("topicd_rescan_finds_total", "topicd_workers", "topicd_downloads_active", "topicd_free_bytes"):
        assert name in samples


def test_a_restart_does_not_forget_the_last_success(tmp_path: Path) -> None:
    home = Home(tmp_path, {**FAKES, **QUICK})
    with running(home) as daemon:
        home.drop("tides.md", TOPIC)
        daemon.event("job.done")
        before = scraped(load(home.spool / ".lock")["port"])
        assert daemon.stop() == 0
    with running(home):
        after = scraped(load(home.spool / ".lock")["port"])
    assert after["topicd_jobs_done_total"] == 0
    told, known = (each["topicd_last_success_timestamp_seconds"] for each in (before, after))
    assert told - 10 < known <= told
