"""What the log pipelines take from a line is there: a real daemon's lines go through Promtail's stages.

Alloy's are the same; `tests/unit/test_monitoring.py` holds the two together.
"""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.ollama_server import OllamaServer, script_answer
from rig.afield import afield
from rig.daemon import FAKES, QUICK, Home, running
from topicd.telemetry.journal import fields
from topicd.telemetry.lines import Line

PROMTAIL = Path(__file__).resolve().parents[2] / "compose" / "monitoring" / "promtail" / "promtail.yml"
TOPIC = "---\nscenes: 2\n---\n# Tides\n\nThe Moon pulls on the sea.\n"
HEAD = {"time", "level", "event", "message"}


def pipeline(job: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in yaml.safe_load(PROMTAIL.read_text())["scrape_configs"] if each["job_name"] == job
    )
    return found


def stage(name: str) -> Any:
    return next(each[name] for each in pipeline("docker")["pipeline_stages"] if name in each)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The lines of a daemon that finished a job, failed at another, and lost one of two servers."""
    servers = {"TOPICD_SCRIPT_BACKEND": "ollama", "OLLAMA_MODEL": "tiny", "TOPICD_ATTEMPTS_MAX": "1"}
    home = Home(tmp_path_factory.mktemp("home"), {**FAKES, **QUICK, **servers})
    with afield() as up:
        one, other = OllamaServer(answers=(script_answer(2),)), OllamaServer(answers=(script_answer(2),))
        up.up(one)
        up.up(other)
        with running(home, OLLAMA_BASE_URL=f"{one.url},{other.url}") as daemon:
            home.drop("tides.md", TOPIC)
            daemon.event("job.done")
            up.down(one)
            home.drop("seas.md", TOPIC)
            daemon.event("server.down")
            other.fault = "error_line"
            home.drop("rivers.md", TOPIC)
            daemon.event("job.failed")
            assert daemon.stop() == 0
            return daemon.events()


def test_every_key_is_in_some_line(lines: list[dict[str, Any]]) -> None:
    there = {key for line in lines for key in line}
    assert set(stage("json")["expressions"].values()) <= there


def test_every_line_has_a_time_that_is_read_and_a_level(lines: list[dict[str, Any]]) -> None:
    assert stage("timestamp") == {"source": "time", "format": "RFC3339Nano"}
    for line in lines:
        assert line.keys() >= HEAD
        assert datetime.fromisoformat(line["time"]).tzinfo
    assert {line["level"] for line in lines} >= {"info", "warning", "error"}


def test_every_field_of_the_journal_is_one_that_the_daemon_writes(lines: list[dict[str, Any]]) -> None:
    ours = {
        f"__journal_{name.lower()}"
        for line in lines
        for name in fields(
            Line(0.0, line["level"], line["event"], "", {k: v for k, v in line.items() if k not in HEAD})
        )
    }
    journald = {"__journal__hostname", "__journal_priority_keyword"}  # from PRIORITY, which the daemon writes
    for rule in pipeline("journal")["relabel_configs"]:
        assert set(rule.get("source_labels", ())) <= ours | journald
    assert "__journal_priority" in ours
