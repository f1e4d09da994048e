"""What reaches Loki of a real daemon's log, by Docker and by the journal, and what the dashboards find there.

Promtail's rules and stages are read here; Alloy's are the same, and `tests/unit/test_monitoring.py` holds the two
together.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from scripts import dashboards

from fakes.ollama_server import OllamaServer, script_answer
from rig.afield import afield
from rig.daemon import FAKES, QUICK, Home, running, until
from rig.loki import Entry, chosen, of_docker, of_journal, source
from topicd.telemetry.journal import fields
from topicd.telemetry.lines import Line

TOPIC = "---\nscenes: 2\n---\n# Tides\n\nThe Moon pulls on the sea.\n"
HEAD = {"time", "level", "event", "message"}
METADATA = {"event", "job_id", "unit", "attempt", "backend", "server", "cause", "error_class", "trace_id"}

Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """The lines of a daemon that finished two jobs, failed at another, and lost one of two servers."""
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
            until(lambda: len(daemon.events("job.done")) == 2, "both topics done, one by the server that is left")
            other.fault = "error_line"
            home.drop("rivers.md", TOPIC)
            daemon.event("job.failed")
            assert daemon.stop() == 0
            return daemon.events()


def by_docker(lines: Lines) -> list[Entry]:
    return [of_docker(json.dumps(line), "topicd-daemon-1") for line in lines]


def by_journal(lines: Lines) -> list[Entry]:
    """What journald would have of the same events, with what it adds itself."""
    made = [
        Line(0.0, line["level"], line["event"], line["message"], {k: v for k, v in line.items() if k not in HEAD})
        for line in lines
    ]
    return [of_journal({**fields(line), "_HOSTNAME": "attic"}) for line in made]


def test_every_line_has_a_time_that_is_read_and_a_level(lines: Lines) -> None:
    for line in lines:
        assert line.keys() >= HEAD
        assert datetime.fromisoformat(line["time"]).tzinfo
    assert {line["level"] for line in lines} >= {"info", "warning", "error"}


def test_both_sources_have_the_same_labels_and_the_same_metadata(lines: Lines) -> None:
    of_one, of_other = by_docker(lines), by_journal(lines)
    assert [each.metadata for each in of_one] == [each.metadata for each in of_other]
    for one, other in zip(of_one, of_other, strict=True):
        assert one.labels == {**other.labels, "host": "topicd-daemon-1"}
        assert other.labels["host"] == "attic"
        assert {*one.labels} - {"stage"} == {"job", "host", "level"}
    assert {key for each in of_one for key in each.metadata} == METADATA, "each is in some line"
    assert any("stage" in each.labels for each in of_one)


def test_every_field_of_the_journal_is_one_that_the_daemon_writes(lines: Lines) -> None:
    journald = {"_HOSTNAME", "PRIORITY_KEYWORD"}  # the second from PRIORITY, which the daemon writes
    ours = {name for line in lines for name in (f"TOPICD_{key.upper()}" for key in line)}
    taken = [name for rule in source("journal")["relabel_configs"] for name in rule.get("source_labels", ())]
    assert {name.removeprefix("__journal_").upper() for name in taken} <= ours | journald


def queries() -> Iterator[tuple[str, str]]:
    for _, panels, _ in dashboards.DASHBOARDS.values():
        for panel in panels:
            if panel.source == dashboards.LOKI:
                yield from ((panel.title, expr) for expr, _ in panel.queries)


@pytest.mark.parametrize("by", [by_docker, by_journal])
def test_each_query_of_the_dashboards_chooses_the_lines_it_is_for(lines: Lines, by: Any) -> None:
    entries = by(lines)
    other = Entry({**entries[0].labels, "job": "other"}, entries[0].metadata)
    (job,) = {line["job"] for line in lines if line["event"] == "topicd.job.failed"}
    wanted = {
        "Lines by level": lines,
        "Warnings and errors": [line for line in lines if line["level"] in {"warning", "error"}],
        "One job": [line for line in lines if line.get("job") == job],
    }
    assert [title for title, _ in queries()] == [*wanted]
    for title, expr in queries():
        assert 0 < len(wanted[title]) <= len(lines)
        for part in (job, job[:20], "rivers"):
            found = chosen(expr.replace("$job", part), [*entries, other])
            assert found == by(wanted[title]), title


def test_every_job_is_shown_where_none_is_chosen(lines: Lines) -> None:
    (expr,) = (expr for title, expr in queries() if title == "One job")
    every = chosen(expr.replace("$job", dashboards.JOB_CHOICE["query"]), by_docker(lines))
    assert every == by_docker([line for line in lines if "job" in line])


@pytest.mark.parametrize(
    "query", ['{job="topicd"} | json', '{job!="topicd"}', 'rate({job="topicd"}[1m])', '{job="topicd"} |= "word"', "{}"]
)
def test_a_form_that_is_not_known_is_refused(query: str) -> None:
    with pytest.raises(AssertionError, match="not known"):
        chosen(query, [])
