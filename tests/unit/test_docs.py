import hashlib
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from rig.pages import Block, blocks, blocks_of
from topicd.cli import EXIT_CODES
from topicd.errors import CAUSES
from topicd.settings import example
from topicd.states import MOVES, STATES
from topicd.telemetry.events import EVENTS
from topicd.telemetry.tracing import trace_id
from topicd.topic import parse

TOP = Path(__file__).resolve().parents[2]
ARCHITECTURE = (TOP / "docs" / "ARCHITECTURE.md").read_text()
README = (TOP / "README.md").read_text()


def between(text: str, name: str) -> list[str]:
    found = re.search(rf"<!-- {name}: begin.*?-->\n(.*?)<!-- {name}: end -->", text, re.DOTALL)
    assert found, name
    return [line for line in found[1].splitlines() if line]


def test_the_state_table_is_the_code() -> None:
    rows = [f"| {state.key} | {state.exists} | {state.meaning} | {state.after_crash} |" for state in STATES]
    assert between(ARCHITECTURE, "states")[2:] == rows


def test_the_move_table_is_the_code() -> None:
    rows = [f"| `{move.verb}` | {move.source} | {move.target} | {move.guarantee} |" for move in MOVES]
    assert between(ARCHITECTURE, "moves")[2:] == rows


def test_the_exit_codes_are_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert {int(code) for code, _ in rows} == set(EXIT_CODES)
    for code, meaning in rows:
        assert EXIT_CODES[int(code)].startswith(meaning), code


def test_the_example_of_settings_is_the_code() -> None:
    assert (TOP / ".env.example").read_text() == example()


def test_every_module_has_its_paragraph() -> None:
    named = set(re.findall(r"`(?:[a-z_]+/)*([a-z_0-9]+)\.py`", ARCHITECTURE))
    modules = {path.stem for path in (TOP / "daemon" / "topicd").rglob("*.py")} - {"__init__"}
    assert modules <= named, modules - named


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *chain(*project["project"]["optional-dependencies"].values())]
    asked += [each for group in project["dependency-groups"].values() for each in group if isinstance(each, str)]
    names = {re.split(r"[>=<]", each)[0] for each in asked}
    table = ARCHITECTURE.partition("## Dependencies, with reasons")[2].partition("\n## ")[0]
    told = set(re.findall(r"[a-z0-9-]+", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE))))
    assert names <= told, names - told


def test_the_layers_are_those_of_the_linter() -> None:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    shown = re.search(r"## Imports run one way\n\n```\n(.*?)```", ARCHITECTURE, re.DOTALL)
    assert shown
    assert [layer.split(" │ ") for layer in " ".join(shown[1].split()).split(" → ")] == [
        layer.split(" | ") for layer in layers
    ]


PAGES = sorted(str(path.relative_to(TOP)) for path in (*TOP.glob("*.md"), *(TOP / "docs").glob("*.md")))


def anchors(page: Path) -> set[str]:
    """Return where a link into a page may lead: its headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = TOP / page
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text()):
        there = path.parent / target if target else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


# What the pages set apart without asking anybody to type it, or what no test can do; each with the reason.
SHOWN = {
    ("README.md", "One command"): "test_embedded.py runs the demo's script; its output is an example",
    ("README.md", "The tests"): "those are the tests",
    ("docs/BACKENDS.md", "Backends"): "an example of what `check` prints",
    ("docs/MONITORING.md", "Monitoring"): "a drawing",
    ("docs/MONITORING.md", "Alerts"): "receivers that need an account",
    ("docs/OPERATIONS.md", "Traces"): "a drawing",
}
# One has figures, the other what README.md has, as a test here holds.
TYPED = sorted({*PAGES} - {"docs/BENCHMARKS.md", "README.pt-BR.md"})
USED = re.compile(r"\b(?:commands|blocks_of)\(\"([^\"]+)\", \"([^\"]+)\"\)")


def test_every_command_of_the_pages_is_run_by_a_test() -> None:
    tests = "\n".join(path.read_text() for path in (TOP / "tests").rglob("test_*.py"))
    used = set(USED.findall(tests))
    found = {(block.page, block.headings) for page in TYPED for block in blocks(page) if not block.has_settings}
    left = {(page, under[-1]) for page, under in found if not {(page, each) for each in under} & used}
    assert left <= SHOWN.keys()
    there = {(page, each) for page, under in found for each in under}
    assert used | SHOWN.keys() <= there


SETTINGS = [block for page in PAGES for block in blocks(page) if block.has_settings]


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: block.headings[-1])
def test_the_settings_of_the_pages_are_settings(block: Block) -> None:
    known = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", example(), re.MULTILINE))
    files = (TOP / "compose.yaml", *(TOP / "compose").glob("*.yaml"))
    compose = {"COMPOSE_PROFILES", *re.findall(r"\$\{([A-Z_]+)", "".join(each.read_text() for each in files))}
    for line in block.lines:
        assert line.partition("=")[0] in known | compose, line


def test_the_line_of_the_log_is_one() -> None:
    (block,) = blocks_of("docs/OPERATIONS.md", "The log")
    line = json.loads(block.lines[0])
    assert line["trace_id"] == trace_id(line["job"])
    spec = EVENTS[line["event"].removeprefix("topicd.")]
    assert {*line} == {"time", "level", "event", "message", "trace_id", *spec.fields}
    assert line["message"] == spec.message.format(**line)


def test_the_topic_of_the_readme_is_one() -> None:
    (block,) = blocks_of("README.md", "A topic")
    topic = parse("\n".join(block.lines).encode(), scenes_max=20)
    assert (topic.title, topic.options.scenes, topic.options.language) == ("Why the sea rises and falls", 4, "en")


def test_the_readme_names_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "topicd.cli", "--help"], capture_output=True, text=True, check=True)
    verbs = re.findall(r"^    ([a-z]+) {2,}", done.stdout, re.MULTILINE)
    assert len(verbs) >= 8
    for verb in verbs:
        assert f"`{verb}" in README, verb


CAUSE = re.compile(r"\b(?:RetryLater|Rejected)[(,]\s*\"([a-z0-9_]+)\"")


def test_every_cause_of_failure_is_a_label() -> None:
    sources = [path.read_text() for path in (TOP / "daemon" / "topicd").rglob("*.py")]
    found = {cause for source in sources for cause in CAUSE.findall(source)}
    assert len(found) > 20
    assert found <= set(CAUSES), found - set(CAUSES)


@pytest.mark.parametrize("path", [TOP / "constraints.txt"])
def test_pins_carry_no_address(path: Path) -> None:
    assert "://" not in re.sub(r"^#.*$", "", path.read_text(), flags=re.MULTILINE)


PORTUGUESE = (TOP / "README.pt-BR.md").read_text()


def skeleton(text: str) -> list[str]:
    """Return what every language has alike: levels of headings, code without remarks, links, rows' first cells."""
    text = re.sub(r"^.*\(README(?:\.pt-BR)?\.md\).*$|^<!-- README.*$", "", text, flags=re.MULTILINE)
    heads = re.findall(r"^(#+) ", text, re.MULTILINE)
    code = [re.sub(r"\s+# .*", "", line) for line in re.findall(r"^    .*$", text, re.MULTILINE)]
    links = re.findall(r"\]\((.*?)\)", text)
    rows = re.findall(r"^\| (`.*?`|\d+)[ ,]", text, re.MULTILINE)
    return [*heads, *code, *links, *rows]


def test_the_portuguese_readme_says_the_same() -> None:
    assert skeleton(PORTUGUESE) == skeleton(README)
    assert set(re.findall(r"`[^`\n]+`", PORTUGUESE)) == set(re.findall(r"`[^`\n]+`", README))


def test_the_portuguese_readme_was_looked_at_when_the_english_one_changed() -> None:
    digest = hashlib.sha256((TOP / "README.md").read_bytes()).hexdigest()
    assert f"<!-- README.md sha256: {digest} -->" in PORTUGUESE, "translate what changed, then write the new digest"
