"""The table of known models, and the page that shows it."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from topicd.backends.files import File
from topicd.backends.models import Model, find, known, parse
from topicd.errors import Unusable

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs" / "BACKENDS.md"
ENTRY = {
    "kind": '"gguf"',
    "file": '"a.gguf"',
    "urls": '["https://host/a.gguf"]',
    "size_bytes": "1",
    "sha256": f'"{"0" * 64}"',
    "licence": '"MIT"',
    "needs": '"much"',
    "about": '"For all."',
}


def entry(**changed: str) -> str:
    return "\n".join(["[models.a]", *(f"{key} = {value}" for key, value in {**ENTRY, **changed}.items() if value)])


def row(model: Model) -> str:
    return f"| `{model.name}` | {model.about} | {model.size_bytes / 1e9:.1f} GB | {model.needs} | {model.licence} |"


def test_each_can_be_asked_for() -> None:
    assert len(known()) >= 4
    assert {model.kind for model in known().values()} == {"gguf", "sd-checkpoint"}
    for model in known().values():
        File(Path(model.file), model.urls, f"sha256:{model.sha256}", model.size_bytes)
        assert all(re.search(r"/resolve/[0-9a-f]{40}/", url) for url in model.urls), "an address names a revision"
        assert all(url.endswith(f"/{model.file}") for url in model.urls)


def test_no_two_are_the_same_file() -> None:
    for key in ("file", "sha256"):
        assert len({asdict(model)[key] for model in known().values()}) == len(known())


def test_one_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(Unusable) as told:
        find("sd1.5")
    assert told.value.cause == "model_unknown"
    assert "sd-1.5" in told.value.hint
    with pytest.raises(Unusable, match="no model") as told:
        find("????")
    assert "fetch models" in told.value.hint


def test_an_entry_as_it_should_be() -> None:
    assert parse(entry())["a"].urls == ("https://host/a.gguf",)


@pytest.mark.parametrize(
    "changed",
    [
        {"urls": '["http://host/a.gguf"]'},
        {"urls": "[]"},
        {"sha256": '"12"'},
        {"size_bytes": "0"},
        {"size_bytes": '"1"'},
        {"kind": '"other"'},
        {"file": '"../a.gguf"'},
        {"licence": '""'},
        {"licence": ""},
        {"more": "1"},
    ],
)
def test_an_entry_that_is_not_is_refused(changed: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a: "):
        parse(entry(**changed))


def test_the_page_shows_the_table() -> None:
    shown = re.search(r"<!-- models: begin -->\n(.*?)<!-- models: end -->", PAGE.read_text(), re.DOTALL)
    assert shown
    head = "| name | for | size | needs | licence |\n|---|---|---|---|---|\n"
    assert shown[1] == head + "".join(f"{row(model)}\n" for model in known().values())
