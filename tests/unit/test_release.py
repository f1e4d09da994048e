"""Version, changelog, tag, hooks and workflows hold together."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from scripts.release_check import faults, main, notes
from scripts.sbom import bill

from topicd import __version__

TOP = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (TOP / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", MAKEFILE, re.MULTILINE))
CI, RELEASE = (yaml.safe_load(path.read_text()) for path in WORKFLOWS)
RELEASED = f"## [Unreleased]\n\n## [{__version__}] - 2026-11-27\n\n### Added\n\n- All.\n"


def targets() -> set[str]:
    return {name for names in TARGETS for name in names.split()}


def test_version_and_changelog_agree() -> None:
    assert main() == 0


@pytest.mark.parametrize(
    ("version", "changelog", "tag", "said"),
    [
        (__version__, RELEASED, f"v{__version__}", ""),
        (__version__, RELEASED, "v9.9.9", "the tag is v9.9.9"),
        ("1.2", RELEASED, "", "no semantic version"),
        (__version__, RELEASED.replace("## [Unreleased]", ""), "", "no heading [Unreleased]"),
        (__version__, RELEASED.replace("### Added", "### News"), "", "News is no kind"),
        (__version__, RELEASED.replace("11-27", "13-27"), "", "has no day"),
        (__version__, "## [Unreleased]\n", f"v{__version__}", "newest release is none"),
        (__version__, RELEASED.replace("ed]\n\n##", "ed]\n\n- More.\n\n##"), f"v{__version__}", "still stands"),
    ],
)
def test_what_does_not_agree_is_told(version: str, changelog: str, tag: str, said: str) -> None:
    told = faults(version, changelog, tag)
    assert len(told) == bool(said), told
    assert said in "".join(told)


def test_the_notes_of_a_release_are_its_section_and_no_more() -> None:
    older = "## [0.0.9] - 2026-01-01\n\n### Fixed\n\n- One.\n\n[0.0.9]: https://example.org/0.0.9\n"
    changelog = RELEASED + "\n" + older
    assert notes(changelog, f"v{__version__}") == "### Added\n\n- All.\n"
    assert notes(changelog, "v0.0.9") == "### Fixed\n\n- One.\n"
    assert notes(changelog, "v0.0.8") == ""


def test_a_release_without_notes_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main("--notes", "v0.0.0-none") == 1
    assert capsys.readouterr().out == ""


PINS = """
one==1.0 ; python_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
one==2.0 ; python_version >= '3.12' \\
    --hash=sha256:cc
two-more==3.0.post1 \\
    --hash=sha256:dd
"""
PROJECT = {
    "name": "it",
    "description": "Does it.",
    "license": "MIT",
    "dependencies": ["one>=1,<3"],
    "optional-dependencies": {},
}


def test_the_bill_of_materials_has_every_version_with_its_hashes() -> None:
    said = json.loads(bill(PINS, PROJECT, 86400))
    assert (said["bomFormat"], said["specVersion"]) == ("CycloneDX", "1.6")
    assert (said["metadata"]["component"]["name"], said["metadata"]["component"]["version"]) == ("it", __version__)
    assert said["metadata"]["timestamp"].startswith("1970-01-02T00:00:00")
    found = {
        part["purl"]: [digest["content"] for files in part["externalReferences"] for digest in files["hashes"]]
        for part in said["components"]
    }
    assert found == {
        "pkg:pypi/one@1.0": ["aa", "bb"],
        "pkg:pypi/one@2.0": ["cc"],
        "pkg:pypi/two-more@3.0.post1": ["dd"],
    }
    needs = {each["ref"]: each.get("dependsOn") for each in said["dependencies"]}
    assert needs["it"] == ["pkg:pypi/one@1.0", "pkg:pypi/one@2.0"]


def test_the_same_pins_give_the_same_bill() -> None:
    assert bill(PINS, PROJECT, 0) == bill(PINS, PROJECT, 0)
    assert bill(PINS, PROJECT, 0) != bill(PINS.replace("dd", "ee"), PROJECT, 0)


def test_the_bill_is_of_what_an_installation_takes() -> None:
    blocks = re.search(r"scripts/sbom\.py ([a-z ]+) >dist/", MAKEFILE)
    assert blocks
    assert set(blocks[1].split()) == {
        "base",
        *tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"],
    }


def test_help_lists_every_target_that_has_a_word() -> None:
    told = subprocess.run(["make", "help"], cwd=TOP, capture_output=True, text=True, timeout=30, check=True).stdout
    wanted = {
        name: word
        for names, word in re.findall(r"^([a-z][a-z -]*):.*## (.*)$", MAKEFILE, re.MULTILINE)
        for name in names.split()
    }
    assert {"integration", "acceptance"} <= set(wanted)
    assert dict(re.findall(r"^  make (\S+) +(.*)$", told, re.MULTILINE)) == wanted


def test_the_makefile_has_its_sections_and_each_target_a_word() -> None:
    sections = re.findall(r"^# === (\w+) ===$", MAKEFILE, re.MULTILINE)
    assert sections == ["SETUP", "RUN", "TEST", "MONITORING", "RELEASE", "CLEANUP"]
    for names in re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE):
        assert re.search(rf"^{names}:.*## .", MAKEFILE, re.MULTILINE), names


def test_the_hooks_run_what_there_is() -> None:
    (repo,) = yaml.safe_load((TOP / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local", "every tool is pinned in one place"
    for hook in repo["hooks"]:
        program, *rest = hook["entry"].split()
        assert program in {"make", "shellcheck"} or program.startswith(".venv/bin/")
        assert program != "make" or set(rest) <= targets()
        assert all((TOP / word).exists() for word in rest if word.startswith("tests/"))


def steps(path: Path) -> list[dict[str, Any]]:
    workflow = yaml.safe_load(path.read_text())
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_little_and_runs_nothing_unpinned(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
    for line in path.read_text().splitlines():
        if "uses:" in line:
            assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d", line), line
    for step in steps(path):
        assert step.get("with", {}).get("persist-credentials") is False or "checkout" not in step.get("uses", "")
        for name in re.findall(r"^\s*make ((?:[a-z-]+ ?)+)", step.get("run", ""), re.MULTILINE):
            assert set(name.split()) <= targets(), name
        assert "${{ github.event" not in step.get("run", ""), "a name from outside is no part of a program"


def test_ci_does_what_ci_run_does_on_each_python() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    told = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["classifiers"]
    known = [name.rpartition(" ")[2] for name in told if re.search(r":: 3\.\d+$", name)]
    assert CI["jobs"]["python"]["strategy"]["matrix"]["python"] == known
    done = [step["run"].strip() for step in CI["jobs"]["python"]["steps"] if "run" in step]
    assert done[0] == "make dist"
    assert "--force-reinstall dist/*.whl" in done[1]
    assert done[2:] == ["make lint types imports unit", "make integration"]
    assert "make test" in (TOP / ".ci" / "run").read_text()


def test_everything_runs_where_it_may_mount_and_has_an_engine_of_its_own() -> None:
    said = (TOP / ".ci" / "debian").read_text()
    assert re.search(
        r"docker run .*--privileged --cgroupns=host .*:/tmp\".*debian:12 \.ci/run$", said, re.DOTALL | re.MULTILINE
    )
    assert "docker.sock" not in said
    for job in (CI["jobs"]["everything"], RELEASE["jobs"]["check"]):
        assert job["steps"][-1]["run"] == ".ci/debian"
        assert "container" not in job


def test_a_release_may_write_only_what_its_jobs_make() -> None:
    writes = {
        name: {what for what, how in job.get("permissions", {}).items() if how == "write"}
        for name, job in RELEASE["jobs"].items()
    }
    signing = {"id-token", "attestations"}
    assert writes == {"check": set(), "image": {"packages", *signing}, "package": {"contents", *signing}}
    assert not any(job.get("permissions") for job in CI["jobs"].values())
    assert RELEASE["jobs"]["image"]["needs"] == "check"
    assert set(RELEASE["jobs"]["package"]["needs"]) == {"check", "image"}


def test_every_image_is_published_attested_and_named_as_compose_asks_for_it() -> None:
    job = RELEASE["jobs"]["image"]
    stages = re.findall(r"^FROM runtime AS (\w+)$", (TOP / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert sorted(job["strategy"]["matrix"]["target"]) == sorted(stages)
    push, attest = job["steps"][1:]
    for word in ("--sbom=true", "--provenance=mode=max", "--push", '--tag "$image:$TARGET-$version"'):
        assert word in push["run"]
    assert attest["with"]["subject-digest"] == "${{ steps.push.outputs.digest }}"
    for name, target in (("daemon", "${DAEMON_TARGET:-embedded}"), ("servers", "piper")):
        wanted = "image: ${DAEMON_IMAGE:-topicd}:" + target + "${DAEMON_VERSION:+-${DAEMON_VERSION}}\n"
        assert wanted in (TOP / "compose" / f"{name}.yaml").read_text()


def test_a_release_says_what_is_in_it() -> None:
    *_, publish = RELEASE["jobs"]["package"]["steps"]
    assert 'release_check.py --notes "$GITHUB_REF_NAME" >"$RUNNER_TEMP/notes.md"' in publish["run"]
    assert '--notes-file "$RUNNER_TEMP/notes.md"' in publish["run"]
    assert any(step.get("run") == "make dist sbom audit" for step in RELEASE["jobs"]["package"]["steps"])
