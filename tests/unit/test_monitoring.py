"""What is in compose/monitoring/ fits together: alerts and runbook, dashboards and their table, Alloy and Promtail."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts import dashboards, reference

from topicd.telemetry.events import EVENTS

TOP = Path(__file__).resolve().parents[2]
MONITORING = TOP / "compose" / "monitoring"
RULES = MONITORING / "prometheus" / "rules.yml"
TESTS = MONITORING / "prometheus" / "rules_test.yml"
RUNBOOK = (TOP / "docs" / "RUNBOOK.md").read_text()
LABELS = {"job", "host", "level", "stage"}
NAME = re.compile(r"\b(?:topicd_[a-z_]+|process_[a-z_]+)\b")
# Of Prometheus' own making, from the target.
TARGET_LABELS = {"instance", "job"}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def exported() -> set[str]:
    """Return the names that a scrape may have."""
    families = reference.metrics().registry.collect()
    names = {sample.name for family in families for sample in family.samples}
    # The process collector looks at /proc, which may be another system's.
    return names | {"process_start_time_seconds", "process_resident_memory_bytes"}


def promtool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    return subprocess.run([program, *args], capture_output=True, text=True, check=False, timeout=60)


def test_each_alert_tells_a_person_what_it_means_and_where_to_read_on() -> None:
    for alert in alerts():
        name = alert["alert"]
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert alert["annotations"].keys() == {"summary", "description", "runbook"}, name
        assert alert["annotations"]["runbook"] == f"docs/RUNBOOK.md#{name.lower()}", name


def test_each_alert_has_its_heading_and_each_heading_its_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == [alert["alert"] for alert in alerts()]


def test_each_alert_names_metrics_that_there_are() -> None:
    known = exported()
    for alert in alerts():
        assert set(NAME.findall(alert["expr"])) <= known, alert["alert"]


def test_prometheus_takes_rules_and_settings() -> None:
    for args in (("check", "rules", RULES), ("check", "config", MONITORING / "prometheus" / "prometheus.yml")):
        done = promtool(*args)
        assert done.returncode == 0, done.stderr


def test_alertmanager_takes_its_settings() -> None:
    program = shutil.which("amtool")
    if program is None:
        pytest.skip("amtool is not installed")
    subprocess.run([program, "check-config", MONITORING / "alertmanager" / "alertmanager.yml"], check=True)


def test_each_alert_fires_when_it_should_and_not_else() -> None:
    tried = {case["name"]: case["promql_expr_test"] for case in yaml.safe_load(TESTS.read_text())["tests"]}
    assert list(tried) == [alert["alert"] for alert in alerts()]
    for name, (early, late) in tried.items():
        assert early["exp_samples"] == [], name
        assert len(late["exp_samples"]) == 1, name
        assert name in early["expr"] == late["expr"]
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("alert", [alert["alert"] for alert in alerts()])
def test_an_alert_that_cannot_fire_or_fires_always_is_found_out(alert: str, tmp_path: Path) -> None:
    shutil.copy(TESTS, tmp_path)
    for expr in ("vector(0) > 1", "up * 0 == 0 or vector(1)"):
        rules = yaml.safe_load(RULES.read_text())
        for rule in rules["groups"][0]["rules"]:
            if rule["alert"] == alert:
                rule["expr"] = expr
        (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
        assert promtool("test", "rules", tmp_path / TESTS.name).returncode != 0, expr


def test_the_metrics_have_names_as_prometheus_wants_them() -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    text = reference.metrics().render()
    done = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("name", dashboards.DASHBOARDS)
def test_each_dashboard_is_that_of_the_table(name: str) -> None:
    path = dashboards.FOLDER / f"{name}.json"
    assert path.read_text() == dashboards.text(name), "run make dashboards"
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/topicd.yml").read_text())["datasources"]
    board = json.loads(path.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"]["uid"] in {source["uid"] for source in sources}
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= dashboards.COLUMNS
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)


def test_each_panel_names_metrics_that_there_are() -> None:
    known = exported()
    for _, panels, _ in dashboards.DASHBOARDS.values():
        for panel in panels:
            for expr, _ in panel.queries:
                assert set(NAME.findall(expr)) <= known, (panel.title, expr)


def promtail(job: str) -> dict[str, Any]:
    settings = yaml.safe_load((MONITORING / "promtail" / "promtail.yml").read_text())
    found: dict[str, Any] = next(each for each in settings["scrape_configs"] if each["job_name"] == job)
    return found


def stage(name: str) -> Any:
    return next(each[name] for each in promtail("docker")["pipeline_stages"] if name in each)


class Alloy:
    """Alloy's configuration, as far as this project uses its language: blocks, `name = value` of strings, maps."""

    def __init__(self) -> None:
        text = (MONITORING / "alloy" / "config.alloy").read_text()
        self.text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
        assert self.text.count("{") == self.text.count("}")

    def block(self, head: str) -> str:
        """Return what is between the braces of the block that begins so."""
        start = self.text.index("{", self.text.index(head)) + 1
        depth, at = 1, start
        while depth:
            depth += {"{": 1, "}": -1}.get(self.text[at], 0)
            at += 1
        return self.text[start : at - 1]

    def pairs(self, head: str) -> dict[str, str]:
        return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', self.block(head)))

    def rules(self, head: str) -> list[dict[str, str]]:
        found = re.findall(r"rule \{(.*?)\}", self.block(head), re.DOTALL)
        return [dict(re.findall(r'(\w+)\s*=\s*\[?"([^"]*)"', rule)) for rule in found]


def as_alloy(rules: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{key: value[0] if isinstance(value, list) else value for key, value in rule.items()} for rule in rules]


def test_alloy_and_promtail_do_the_same() -> None:
    alloy = Alloy()
    assert alloy.pairs("stage.json") == stage("json")["expressions"]
    assert alloy.pairs("stage.timestamp") == stage("timestamp")
    assert list(alloy.pairs("stage.labels")) == list(stage("labels"))
    assert list(alloy.pairs("stage.structured_metadata")) == list(stage("structured_metadata"))
    assert alloy.rules('discovery.relabel "topicd"') == as_alloy(promtail("docker")["relabel_configs"])
    assert alloy.rules('loki.relabel "journal"') == as_alloy(promtail("journal")["relabel_configs"])
    assert alloy.pairs('loki.source.journal "topicd"')["matches"] == promtail("journal")["journal"]["matches"]
    written = yaml.safe_load((MONITORING / "promtail" / "promtail.yml").read_text())["clients"][0]["url"]
    assert alloy.pairs('loki.write "loki"')["url"] == written
    assert alloy.pairs("filter")["values" if "values" in alloy.pairs("filter") else "name"]
    docker = promtail("docker")["docker_sd_configs"][0]["filters"][0]["values"][0]
    assert f'values = ["{docker}"]' in alloy.block("filter")


def test_the_labels_are_few_and_the_rest_is_metadata() -> None:
    labels = {rule["target_label"] for rule in promtail("docker")["relabel_configs"]} | set(stage("labels"))
    assert labels == LABELS
    taken = set(stage("json")["expressions"])
    assert set(stage("structured_metadata")) == taken - set(stage("labels")) - {stage("timestamp")["source"]}


def test_every_key_that_is_taken_is_in_the_log() -> None:
    fields = {field for spec in EVENTS.values() for field in spec.fields}
    own = {"time", "level", "event", "cause", "error_class", "trace_id"}  # those of the line, of an error, of a trace
    assert set(stage("json")["expressions"].values()) <= fields | own
