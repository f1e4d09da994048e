"""A backend of one's own in the installed daemon: examples/own_backend.py, named by import path."""

from pathlib import Path

import pytest

from rig.daemon import FAKES, QUICK, Home, load, running

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {**FAKES, **QUICK, "TOPICD_SCRIPT_BACKEND": "own_backend:Paragraphs"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose scripts come from the example, the rest from fakes."""
    path = tmp_path / "home"
    path.mkdir()
    return Home(path, {**OWN, "PYTHONPATH": f"{EXAMPLES}:{FAKES['PYTHONPATH']}"})


def test_its_scripts_go_all_the_way(home: Home) -> None:
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n\nThe Moon\npulls.\n\nThe sea rises.\n")
        daemon.event("unit.finished", unit="script", backend="paragraphs")
        daemon.event("job.done")
        assert daemon.stop() == 0
    folder = home.only("output")
    assert [scene["narration"] for scene in load(folder / "scenes.json")["scenes"]] == [
        "The Moon pulls.",
        "The sea rises.",
    ]
    by = {product["path"]: product["by"] for product in load(folder / "manifest.json")["products"]}
    assert by["script.md"] == {"backend": "paragraphs", "version": "1"}


def test_its_refusal_reaches_the_person(home: Home) -> None:
    home.drop("tides.md", "---\nscenes: 1\n---\n# Tides\n\nThe Moon pulls.\n\nThe sea rises.\n")
    assert home.topicd("run", "--once").returncode == 0
    reason = home.reason()
    assert (reason["stage"], reason["unit"], reason["cause"]) == ("scripts", "script", "too_many_paragraphs")
    assert "scenes: 2" in reason["hint"]


def test_check_says_what_it_is(home: Home) -> None:
    checked = home.topicd("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "the topic's own paragraphs, no model" in checked.stdout
