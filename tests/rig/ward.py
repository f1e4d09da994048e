"""A real daemon's home whose work waits in the middle of a stage until a test lets it go on, and its end.

What the daemon does not own (logs, signs, settings) is kept aside, so that the home's disk may fall ill or go away.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fakes.patient import BACKENDS
from rig.daemon import FAKES, QUICK, Home, load, until
from rig.ports import free_port

KINDS: Final[Mapping[str, str]] = {"scripts": "script", "audio": "audio", "images": "image"}
INPUT: Final = "input"
LEFTOVER_ENDINGS = (".tmp", ".incoming", ".begun")


class Ward:
    """A home on a disk of its own, with backends that wait for us; logs and signs are kept elsewhere."""

    def __init__(self, path: Path, aside: Path, **env: str) -> None:
        self.signs = aside / "signs"
        self.signs.mkdir(parents=True)
        self.port = free_port()
        given = {"PATIENT": str(self.signs), "TOPICD_METRICS_PORT": str(self.port), "TOPICD_ATTEMPTS_MAX": "1"}
        self.home = Home(path, {**FAKES, **QUICK, **BACKENDS, **given, **env}, logs=aside)

    def waits(self, kind: str) -> None:
        """Wait until a call of a kind has come to its middle."""
        until((self.signs / f"{kind}.waiting").exists, f"a call of {kind}")

    def let_go(self, *kinds: str) -> None:
        for kind in kinds or KINDS.values():
            (self.signs / f"{kind}.go").touch()

    def get(self, path: str, limit_s: float = 20.0) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=limit_s) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read().decode()

    def readiness(self) -> tuple[int, list[str]]:
        code, said = self.get("readyz")
        return code, json.loads(said)["why"]

    def leftovers(self) -> list[str]:
        return [
            str(path)
            for path in self.home.path.rglob("*")
            if path.name.endswith(LEFTOVER_ENDINGS) or ".topicd-probe" in path.name
        ]

    def check_end(self, topics: int = 1) -> None:
        """Every topic is one whole job in output/, and nothing else is anywhere."""
        done = [self.home.output / name for name in self.home.ids("output")]
        assert len(done) == topics, done
        for folder in done:
            listed = load(folder / "manifest.json")["products"]
            assert {entry["path"] for entry in listed} >= {"scenes.json", "audio.wav", "index.html"}
            assert all((folder / entry["path"]).stat().st_size == entry["bytes"] for entry in listed)
        for place in ("scripts", "audio", "images", "failed", "held"):
            assert self.home.ids(place) == []
        assert not list(self.home.input.glob("*.md"))
        assert not (left := self.leftovers()), left

    def come_to(self, moment: str) -> None:
        """Go on until the moment has come; at `input` a topic is ready to be moved in."""
        self.prepare("sea")
        if moment == INPUT:
            return
        self.arrive("sea")
        kinds = list(KINDS.values())
        for kind in kinds[: kinds.index(KINDS[moment])]:
            self.let_go(kind)
        self.waits(KINDS[moment])

    def prepare(self, name: str) -> None:
        (self.home.input / f".{name}.md").write_text(f"# {name}\n")

    def arrive(self, name: str) -> None:
        """Move a prepared topic in."""
        (self.home.input / f".{name}.md").rename(self.home.input / f"{name}.md")
