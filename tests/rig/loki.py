"""What reaches Loki of a line of the log, and which lines a LogQL query chooses: neither program runs where tests run.

Owns a reading of Promtail's rules and stages, and of LogQL's selectors and filters, as far as the files of
compose/monitoring/ use them. Promises to refuse, by an AssertionError, whatever it does not know.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

PROMTAIL: Final = Path(__file__).resolve().parents[2] / "compose" / "monitoring" / "promtail" / "promtail.yml"
PRIORITIES: Final = ("emerg", "alert", "crit", "error", "warning", "notice", "info", "debug")
RULE: Final = {"source_labels", "regex", "target_label", "replacement"}
MATCHER: Final = r'(\w+)(=~?)"([^"]*)"'
QUERY: Final = re.compile(rf"\{{({MATCHER}(?:, {MATCHER})*)\}}((?: \| {MATCHER})*)")
COUNTED: Final = re.compile(r"sum by \((\w+)\) \(count_over_time\((.*)\[1m\]\)\)")


@dataclass(frozen=True)
class Entry:
    """A line as Loki has it.

    Attributes:
        labels: those of its stream.
        metadata: its structured metadata.
    """

    labels: Mapping[str, str]
    metadata: Mapping[str, str]


def source(job: str) -> dict[str, Any]:
    """Return what Promtail does with one source, `docker` or `journal`."""
    every = yaml.safe_load(PROMTAIL.read_text())["scrape_configs"]
    found: dict[str, Any] = next(each for each in every if each["job_name"] == job)
    return found


def of_docker(line: str, container: str) -> Entry:
    """Return what becomes of a line that a container writes."""
    return _made("docker", {"__meta_docker_container_name": f"/{container}"}, line)


def of_journal(entry: Mapping[str, str]) -> Entry:
    """Return what becomes of an entry of the journal, from its fields."""
    found = {f"__journal_{name.lower()}": value for name, value in entry.items()}
    found["__journal_priority_keyword"] = PRIORITIES[int(entry["PRIORITY"])]
    return _made("journal", found, entry["MESSAGE"])


def _made(job: str, found: Mapping[str, str], line: str) -> Entry:
    settings = source(job)
    labels = _relabelled(settings["relabel_configs"], found)
    extracted, metadata = dict(labels), list[tuple[str, str]]()
    for stage in settings["pipeline_stages"]:
        ((kind, asked),) = stage.items()
        if kind == "json":
            told = json.loads(line)
            extracted |= {name: str(told[key]) for name, key in asked["expressions"].items() if told.get(key)}
        elif kind == "timestamp":
            assert asked == {"source": "time", "format": "RFC3339Nano"}
            assert datetime.fromisoformat(extracted["time"]).tzinfo
        elif kind == "labels":
            labels |= {name: extracted[name] for name in _names(asked) if name in extracted}
        elif kind == "labeldrop":
            labels = {name: value for name, value in labels.items() if name not in asked}
        elif kind == "structured_metadata":
            taken = _names(asked)
            metadata += [(name, extracted[name]) for name in taken if name in extracted]
            metadata += [(name, labels[name]) for name in taken if name in labels]
            labels = {name: value for name, value in labels.items() if name not in taken}
        else:
            raise AssertionError(f"{kind}: a stage that is not known here")
    assert len(metadata) == len(dict(metadata)), f"some is there twice: {metadata}"
    return Entry(labels, dict(metadata))


def _names(asked: Mapping[str, None]) -> list[str]:
    assert not any(asked.values()), "a name that is taken from another is not known here"
    return [*asked]


def _relabelled(rules: Iterable[Mapping[str, Any]], found: Mapping[str, str]) -> dict[str, str]:
    labels = dict(found)
    for rule in rules:
        assert rule.keys() <= RULE, rule
        value = ";".join(labels.get(name, "") for name in rule.get("source_labels", ()))
        if match := re.fullmatch(rule.get("regex", "(.*)"), value):
            labels[rule["target_label"]] = rule.get("replacement", "$1").replace(
                "$1", match[1] if match.re.groups else ""
            )
    return {name: value for name, value in labels.items() if value and not name.startswith("__")}


def chosen(query: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the lines that a query chooses, or counts; those it counts have the label it counts by."""
    by = ""
    if counted := COUNTED.fullmatch(query):
        by, query = counted.groups()
    parts = QUERY.fullmatch(query)
    assert parts, f"{query}: a form that is not known here"
    selectors, filters = re.findall(MATCHER, parts[1]), re.findall(MATCHER, parts[8])
    found = [
        each
        for each in entries
        if all(_fits(matcher, each.labels) for matcher in selectors)
        and all(_fits(matcher, {**each.labels, **each.metadata}) for matcher in filters)
    ]
    assert not by or all(by in each.labels for each in found), query
    return found


def _fits(matcher: tuple[str, str, str], values: Mapping[str, str]) -> bool:
    name, operator, wanted = matcher
    value = values.get(name, "")
    return value == wanted if operator == "=" else re.fullmatch(wanted, value) is not None
