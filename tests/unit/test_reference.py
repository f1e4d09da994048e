"""What is shown of events and metrics is what the code has."""

import re

from scripts import reference

from topicd.settings import Settings
from topicd.telemetry.advice import ADVICE, message_id
from topicd.telemetry.events import EVENTS


def test_the_page_shows_every_event_and_metric() -> None:
    page = reference.PAGE.read_text()
    assert reference.filled(page) == page, "run make reference"
    assert page.count("| `topicd.") == len(EVENTS)
    assert "| `topicd_jobs_failed_total` | counter | `cause` `stage` |" in page


def test_the_page_of_settings_shows_each() -> None:
    page = reference.SETTINGS_PAGE.read_text()
    assert reference.filled(page) == page, "run make reference"
    assert len(re.findall(r"^\| `[A-Z_]+` \| .* \| .* \| .* \|$", page, re.MULTILINE)) == len(Settings.model_fields)
    assert "| `TOPICD_SCENES` | `5` | 1 … 50 |" in page
    assert re.search(r"^\| `OLLAMA_TOKEN` .*; a secret \|$", page, re.MULTILINE)


def test_the_catalogue_is_that_of_the_code() -> None:
    text = reference.CATALOGUE.read_text()
    assert text == reference.catalogue(), "run make reference"
    assert len(re.findall(r"^-- [0-9a-f]{32}$", text, re.MULTILINE)) == len(EVENTS)


def test_whoever_is_warned_is_told_what_to_do() -> None:
    assert set(ADVICE) == {name for name, spec in EVENTS.items() if spec.level in {"warning", "error"}}


def test_an_event_keeps_its_id() -> None:
    assert message_id("topicd.job.failed") == "4e087ffb13c754df9f62d3a8153b3f4b"
    assert len({message_id(name) for name in EVENTS}) == len(EVENTS)
