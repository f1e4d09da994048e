#!/usr/bin/env python3
"""Write Grafana's dashboards anew, in compose/monitoring/grafana/dashboards/: `make dashboards`.

A panel here is a title, what it tells, its kind, its unit and its queries; where it stands follows from its order. A
test holds the files to this table, and each query to a live Prometheus.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).resolve().parents[1] / "compose" / "monitoring" / "grafana" / "dashboards"
PROMETHEUS: Final = {"type": "prometheus", "uid": "prometheus"}
LOKI: Final = {"type": "loki", "uid": "loki"}
SCHEMA: Final = 39
COLUMNS: Final = 24
STAGES: Final = 'stage=~"scripts|audio|images"'

Json = dict[str, Any]


class Panel(NamedTuple):
    """One panel: `queries` are pairs of PromQL or LogQL and legend."""

    title: str
    tells: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 12
    height: int = 8
    source: Json = PROMETHEUS


def quantiles(metric: str, by: str, stage: str = "") -> tuple[tuple[str, str], ...]:
    """Return the median and the 95th percentile of a histogram."""
    chosen = f"{{{stage}}}" if stage else ""
    return tuple(
        (
            f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{chosen}[$__rate_interval])))",
            f"{{{{{by}}}}} p{q * 100:g}",
        )
        for q in (0.5, 0.95)
    )


OVERVIEW: Final = (
    Panel("Ready", "1: topics are taken and worked on.", "stat", "bool_yes_no", (("topicd_ready", ""),), 4, 4),
    Panel("Finished", "Jobs finished since the daemon began.", "stat", "none", (("topicd_jobs_done_total", ""),), 4, 4),
    Panel("Failed", "Jobs that wait for a person.", "stat", "none", (('topicd_jobs{stage="failed"}', ""),), 4, 4),
    Panel("Free", "On the spool's file system.", "stat", "bytes", (("topicd_free_bytes", ""),), 4, 4),
    Panel("Watching", "How new topics are noticed.", "stat", "none", (("topicd_watcher_up == 1", "{{mode}}"),), 4, 4),
    Panel("Version", "What runs.", "stat", "none", (("topicd_build_info", "{{version}}"),), 4, 4),
    Panel(
        "Jobs by stage",
        "Waiting or in work, read from the tree.",
        "timeseries",
        "none",
        ((f"topicd_jobs{{{STAGES}}}", "{{stage}}"),),
    ),
    Panel(
        "In work",
        "Jobs of each stage that are in work now.",
        "timeseries",
        "none",
        (("topicd_jobs_in_work", "{{stage}}"),),
    ),
    Panel(
        "Oldest job",
        "Since its acceptance; 0 where none waits.",
        "timeseries",
        "s",
        (("topicd_oldest_job_seconds", "{{stage}}"),),
    ),
    Panel(
        "Accepted and finished",
        "Jobs an hour.",
        "timeseries",
        "none",
        (
            ("increase(topicd_jobs_accepted_total[1h])", "accepted"),
            ("increase(topicd_jobs_done_total[1h])", "finished"),
        ),
    ),
    Panel(
        "Failures",
        "Jobs given up an hour, by stage and cause.",
        "timeseries",
        "none",
        (
            (
                "sum by (stage, cause) (increase(topicd_jobs_failed_total[1h])) > 0 or vector(0)",
                "{{stage}} {{cause}}",
            ),
        ),
    ),
    Panel(
        "Fsync", "How long the disk takes for one.", "timeseries", "s", quantiles("topicd_fsync_seconds", "instance")
    ),
    Panel(
        "Memory",
        "Resident, of the daemon without its workers.",
        "timeseries",
        "bytes",
        (('process_resident_memory_bytes{job="topicd"}', "{{instance}}"),),
    ),
    Panel("Worker processes", "Alive now.", "timeseries", "none", (("topicd_workers", "{{instance}}"),)),
)
STAGE: Final = (
    Panel(
        "Waiting and in work",
        "Of this stage.",
        "timeseries",
        "none",
        (('topicd_jobs{stage="$stage"}', "all"), ('topicd_jobs_in_work{stage="$stage"}', "in work")),
    ),
    Panel(
        "Oldest job", "Since its acceptance.", "timeseries", "s", (('topicd_oldest_job_seconds{stage="$stage"}', ""),)
    ),
    Panel(
        "Seconds of an attempt",
        "Of finished ones.",
        "timeseries",
        "s",
        quantiles("topicd_stage_seconds", "stage", 'stage="$stage"'),
    ),
    Panel(
        "Seconds of a unit",
        "A script, a scene's audio, a picture.",
        "timeseries",
        "s",
        quantiles("topicd_unit_seconds", "stage", 'stage="$stage"'),
    ),
    Panel(
        "Attempts",
        "An hour: begun, put off, cut off.",
        "timeseries",
        "none",
        (
            ('increase(topicd_attempts_total{stage="$stage"}[1h])', "begun"),
            ('increase(topicd_jobs_deferred_total{stage="$stage"}[1h])', "put off"),
            ('increase(topicd_crashes_total{stage="$stage"}[1h])', "cut off"),
        ),
    ),
    Panel(
        "Failed",
        "An hour, by cause.",
        "timeseries",
        "none",
        (('sum by (cause) (increase(topicd_jobs_failed_total{stage="$stage"}[1h]))', "{{cause}}"),),
    ),
)
BACKENDS: Final = (
    Panel(
        "Backend there", "0 while the stage waits for it.", "timeseries", "none", (("topicd_backend_up", "{{stage}}"),)
    ),
    Panel(
        "Calls",
        "A minute, by backend and outcome.",
        "timeseries",
        "none",
        (
            (
                "sum by (backend, outcome) (rate(topicd_backend_requests_total[$__rate_interval])) * 60",
                "{{backend}} {{outcome}}",
            ),
        ),
    ),
    Panel(
        "Seconds of a call", "By backend.", "timeseries", "s", quantiles("topicd_backend_request_seconds", "backend")
    ),
    Panel(
        "Breakers",
        "Servers whose breaker is not closed.",
        "timeseries",
        "none",
        (('topicd_breaker_state{state!="closed"}', "{{server}} {{state}}"),),
    ),
    Panel(
        "Waits for a rate",
        "Seconds a minute that calls wait for a server's rate.",
        "timeseries",
        "s",
        (("rate(topicd_rate_limit_wait_seconds_total[$__rate_interval]) * 60", "{{server}}"),),
    ),
    Panel(
        "Downloads",
        "Bytes a second.",
        "timeseries",
        "Bps",
        (("rate(topicd_download_bytes_total[$__rate_interval])", "received"),),
    ),
    Panel(
        "Downloads that ended",
        "An hour, by outcome; and those gone on with.",
        "timeseries",
        "none",
        (
            ("increase(topicd_downloads_total[1h])", "{{outcome}}"),
            ("increase(topicd_download_resumes_total[1h])", "resumed"),
        ),
    ),
    Panel("Downloads under way", "Now.", "timeseries", "none", (("topicd_downloads_active", ""),)),
)
LOGS: Final = (
    Panel(
        "Lines by level",
        "A minute.",
        "timeseries",
        "none",
        (('sum by (level) (count_over_time({job="topicd"}[1m]))', "{{level}}"),),
        24,
        7,
        LOKI,
    ),
    Panel(
        "Warnings and errors",
        "With what to do.",
        "logs",
        "none",
        (('{job="topicd", level=~"warning|error"}', ""),),
        24,
        12,
        LOKI,
    ),
    Panel("One job", "Choose it above.", "logs", "none", (('{job="topicd"} | job_id=~".*$job.*"', ""),), 24, 14, LOKI),
)
STAGE_CHOICE: Final[Json] = {
    "name": "stage",
    "label": "stage",
    "type": "custom",
    "query": "scripts,audio,images",
    "current": {"text": "scripts", "value": "scripts"},
    "options": [
        {"text": each, "value": each, "selected": each == "scripts"} for each in ("scripts", "audio", "images")
    ],
}
JOB_CHOICE: Final[Json] = {
    "name": "job",
    "label": "job id, or part of it",
    "type": "textbox",
    "query": ".+",
    "current": {"text": ".+", "value": ".+"},
}
DASHBOARDS: Final = {
    "overview": ("topicd", OVERVIEW, []),
    "stage": ("topicd: a stage", STAGE, [STAGE_CHOICE]),
    "backends": ("topicd: backends and downloads", BACKENDS, []),
    "logs": ("topicd: logs", LOGS, [JOB_CHOICE]),
}


def dashboard(name: str) -> Json:
    """Return a dashboard as Grafana keeps it."""
    title, panels, choices = DASHBOARDS[name]
    return {
        "uid": f"topicd-{name}",
        "title": title,
        "tags": ["topicd"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": choices},
        "links": [{"type": "dashboards", "tags": ["topicd"], "title": "topicd", "asDropdown": False, "keepTime": True}],
        "panels": placed(panels),
    }


def placed(panels: tuple[Panel, ...]) -> list[Json]:
    """Return the panels from left to right, row by row."""
    made, x, y, tallest = list[Json](), 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        made.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return made


def _panel(panel: Panel, number: int, place: Json) -> Json:
    letters = "ABCDEFGH"
    targets = [
        {"refId": letters[at], "datasource": panel.source, "expr": expr, "legendFormat": legend}
        for at, (expr, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "title": panel.title,
        "description": panel.tells,
        "type": panel.kind,
        "datasource": panel.source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text(name: str) -> str:
    """Return a dashboard's file."""
    return json.dumps(dashboard(name), indent=1) + "\n"


def main() -> None:
    """Write all."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))


if __name__ == "__main__":
    main()
