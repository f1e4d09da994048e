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

from rig.loki import source
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
    looks = dict[str, list[int]]()
    for case in yaml.safe_load(TESTS.read_text())["tests"]:
        for look in case["promql_expr_test"]:
            assert f'"{case["name"]}"' in look["expr"]
            looks.setdefault(case["name"], []).append(len(look["exp_samples"]))
    assert list(looks) == [alert["alert"] for alert in alerts()]
    for name, counts in looks.items():
        assert set(counts) == {0, 1}, name
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("alert", [alert["alert"] for alert in alerts()])
def test_an_alert_that_cannot_fire_or_fires_always_is_found_out(alert: str, tmp_path: Path) -> None:
    tests = yaml.safe_load(TESTS.read_text())
    own = [case for case in tests["tests"] if case["name"] == alert]
    (tmp_path / TESTS.name).write_text(yaml.safe_dump({**tests, "tests": own}))
    for expr in ("", "vector(0) > 1", "up * 0 == 0 or vector(1)"):
        rules = yaml.safe_load(RULES.read_text())
        for rule in rules["groups"][0]["rules"]:
            if rule["alert"] == alert and expr:
                rule["expr"] = expr
        (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
        is_well = promtool("test", "rules", tmp_path / TESTS.name).returncode == 0
        assert is_well == (not expr), expr or "as it is"


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


def stage(name: str, job: str = "docker") -> Any:
    return next(each[name] for each in source(job)["pipeline_stages"] if name in each)


class Alloy:
    """Alloy's configuration, as far as this project uses its language: blocks, `name = value` of strings, maps."""

    def __init__(self) -> None:
        text = (MONITORING / "alloy" / "config.alloy").read_text()
        self.text = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
        assert self.text.count("{") == self.text.count("}")

    def block(self, head: str, of: str = "") -> str:
        """Return what is between the braces of the block that begins so, within the block `of` where one is named."""
        text = self.block(of) if of else self.text
        start = text.index("{", text.index(head)) + 1
        depth, at = 1, start
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        return text[start : at - 1]

    def pairs(self, head: str, of: str = "") -> dict[str, str]:
        """Return the names with a string in a block, and in those within; `of` is the block that it is in."""
        return dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', self.block(head, of)))

    def own_pairs(self, head: str) -> dict[str, str]:
        """Return the names with a string in a block, without those within."""
        return dict(re.findall(r'^  (\w+)\s*=\s*"([^"]*)"', self.block(head), re.MULTILINE))

    def values(self, head: str) -> list[str]:
        """Return a block's list `values`."""
        (found,) = re.findall(r"values\s*=\s*\[([^\]]*)\]", self.block(head))
        return re.findall(r'"([^"]*)"', found)

    def stages(self, head: str) -> list[str]:
        """Return the names of a block's stages, in order."""
        return re.findall(r"stage\.(\w+)", self.block(head))

    def rules(self, head: str) -> list[dict[str, str]]:
        found = re.findall(r"rule \{(.*?)\}", self.block(head), re.DOTALL)
        return [dict(re.findall(r'(\w+)\s*=\s*\[?"([^"]*)"', rule)) for rule in found]


def as_alloy(rules: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{key: value[0] if isinstance(value, list) else value for key, value in rule.items()} for rule in rules]


def test_alloy_and_promtail_do_the_same() -> None:
    alloy = Alloy()
    process = 'loki.process "topicd"'
    assert alloy.stages(process) == [name for each in source("docker")["pipeline_stages"] for name in each]
    assert alloy.pairs("stage.json") == stage("json")["expressions"]
    assert alloy.pairs("stage.timestamp") == stage("timestamp")
    assert list(alloy.pairs("stage.labels")) == list(stage("labels"))
    assert list(alloy.pairs("stage.structured_metadata", process)) == list(stage("structured_metadata"))
    assert alloy.rules('discovery.relabel "topicd"') == as_alloy(source("docker")["relabel_configs"])
    (docker,) = source("docker")["docker_sd_configs"]
    assert docker.pop("filters") == [{"name": "label", "values": alloy.values("filter")}]
    assert alloy.own_pairs('discovery.docker "topicd"') == docker
    assert alloy.pairs('loki.source.docker "topicd"')["host"] == docker["host"]
    written = yaml.safe_load((MONITORING / "promtail" / "promtail.yml").read_text())["clients"][0]["url"]
    assert alloy.pairs('loki.write "loki"')["url"] == written


def test_alloy_and_promtail_do_the_same_with_the_journal() -> None:
    alloy = Alloy()
    process = 'loki.process "journal"'
    assert alloy.pairs('loki.source.journal "topicd"') == source("journal")["journal"]
    assert "loki.process.journal.receiver" in alloy.block('loki.source.journal "topicd"')
    assert alloy.rules('loki.relabel "journal"') == as_alloy(source("journal")["relabel_configs"])
    named = [name.replace("label_drop", "labeldrop") for name in alloy.stages(process)]
    assert named == [name for each in source("journal")["pipeline_stages"] for name in each]
    assert alloy.values("stage.label_drop") == stage("labeldrop", "journal")
    assert list(alloy.pairs("stage.structured_metadata", process)) == list(stage("structured_metadata", "journal"))


def test_the_labels_are_few_and_the_rest_is_metadata() -> None:
    labels = {rule["target_label"] for rule in source("docker")["relabel_configs"]} | set(stage("labels"))
    assert labels == LABELS
    taken = set(stage("json")["expressions"])
    assert set(stage("structured_metadata")) == taken - set(stage("labels")) - {stage("timestamp")["source"]}


def test_of_the_journal_the_same_is_taken() -> None:
    found = {rule["target_label"] for rule in source("journal")["relabel_configs"]}
    dropped = stage("labeldrop", "journal")
    assert found - set(dropped) == LABELS
    assert dropped == list(stage("structured_metadata", "journal")) == list(stage("structured_metadata"))


def test_every_key_that_is_taken_is_in_the_log() -> None:
    fields = {field for spec in EVENTS.values() for field in spec.fields}
    own = {"time", "level", "event", "cause", "error_class", "trace_id"}  # those of the line, of an error, of a trace
    assert set(stage("json")["expressions"].values()) <= fields | own


def services(name: str = "monitoring") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TOP / "compose" / f"{name}.yaml").read_text())["services"]
    return found


def test_the_logs_that_are_read_are_those_of_the_daemon_s_label() -> None:
    (label,) = services("daemon")["daemon"]["labels"].items()
    assert Alloy().values("filter") == ["=".join(label)]


@pytest.mark.parametrize("name", services())
def test_each_service_is_bounded_and_asked_how_it_is(name: str) -> None:
    service = services()[name]
    assert service["mem_limit"]
    assert service["cpus"] <= 1, "more than a small machine has is refused"
    if name == "tempo":
        return
    assert service["healthcheck"]["interval"] == "10s"
    for other, how in service.get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert services()[other]["healthcheck"]
        assert set(service["profiles"]) <= set(services()[other]["profiles"])


def test_each_service_waits_for_what_it_writes_to_or_reads_from() -> None:
    after = {name: {*service.get("depends_on", ())} for name, service in services().items()}
    assert {name: others for name, others in after.items() if others} == {
        "prometheus": {"alertmanager"},
        "alloy": {"loki"},
        "promtail": {"loki"},
        "grafana": {"prometheus", "loki"},
    }


@pytest.mark.parametrize("name", ["alloy", "promtail"])
def test_what_the_pipelines_read_of_the_host_is_there_and_is_not_made(name: str) -> None:
    mounts = {each["target"]: each for each in services()[name]["volumes"] if isinstance(each, dict)}
    read = {source("journal")["journal"]["path"], source("docker")["docker_sd_configs"][0]["host"].partition("//")[2]}
    assert mounts.keys() == read | {"/etc/machine-id"}
    for each in mounts.values():
        assert each["type"] == "bind"
        assert each["read_only"]
        assert each["bind"] == {"create_host_path": False}
    for each in services()[name]["volumes"]:
        assert isinstance(each, dict) or not each.startswith(("/", "$")), each
