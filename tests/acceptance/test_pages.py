"""What the README and BACKENDS.md give people to type, typed: by a shell, in a checkout, on the real backends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.daemon import until
from rig.nginx import free_port
from rig.pages import TOP, commands

LIMIT_S = 240.0
# Nothing of a checkout that a person's own files would be among.
PARTS = ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "daemon", "scripts", "examples", ".env.example")
PRETTY = "---\nscenes: 1\n---\n# Tides\n\nThe Moon pulls on the sea.\n"
SMALL = {"TOPICD_IMAGE_WIDTH_PX": "256", "TOPICD_IMAGE_HEIGHT_PX": "256", "TOPICD_MIN_FREE_BYTES": "0"}


class Person:
    """Someone at a shell in a checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOPICD_")}
        self.env = kept | SMALL | {"TOPICD_METRICS_PORT": str(free_port()), "TOPICD_VOICES_URL": ""}

    def types(self, *lines: str) -> str:
        """Type lines into one shell; return what it prints."""
        done = subprocess.run(
            ["sh", "-euc", "\n".join(lines)],
            cwd=self.checkout,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, f"{lines}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, line: str) -> Iterator[None]:
        """Let a line that does not end run, until the block ends."""
        script = f". .venv/bin/activate; exec env {line}"
        with subprocess.Popen(
            ["sh", "-euc", script], cwd=self.checkout, env=self.env, stderr=subprocess.PIPE
        ) as process:
            try:
                until(lambda: (self.checkout / "input").is_dir() or process.poll() is not None, "it runs")
                assert process.poll() is None, process.communicate()
                yield
            finally:
                process.terminate()
                process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0


@pytest.fixture
def person(tmp_path: Path) -> Person:
    checkout = tmp_path / "topicd"
    checkout.mkdir()
    for name in PARTS:
        (checkout / name).symlink_to(TOP / name)
    # What `make install` has made already; a venv knows its own place.
    (checkout / ".venv").symlink_to(sys.prefix)
    return Person(checkout)


def test_by_hand(person: Person) -> None:
    asked = commands("README.md", "By hand")
    assert asked[:3] == ["make install", ". .venv/bin/activate", "topicd run"]
    (person.checkout / "mytopic.md").write_text(PRETTY)
    person.types(asked[0])
    with person.running(asked[2]):
        said = person.types(asked[1], *asked[3:])
        # One of them was not waited for, and is not always taken first.
        made = until(lambda: [*(person.checkout / "output").glob("2*/index.html")][1:], "both are done", LIMIT_S)
    assert "Why the sky is blue" in said or "sky-is-blue" in said
    assert len(made) == 1


def test_on_call(person: Person, tmp_path: Path) -> None:
    asked = "\n".join(each for each in commands("README.md", "On call") if not each.startswith("17 3 * * *"))
    assert "drill" in asked
    person.types("mkdir -p input output spool; . .venv/bin/activate; topicd run --once")
    for place, mine in (("/mnt/backups", "backups"), ("/srv/new", "new"), ("/tmp/drill", "drill")):  # noqa: S108 - replaced
        assert place in asked
        asked = asked.replace(place, str(tmp_path / mine))
    for name in ("backups", "new"):
        (tmp_path / name).mkdir()
    first, _, rest = asked.partition("scripts/backup.sh")
    archive = "topicd-20261122-190000.tar.gz"
    assert rest.count(archive) == 2
    person.types(". .venv/bin/activate", first + "scripts/backup.sh" + rest.partition("\n")[0])
    (made,) = (tmp_path / "backups").glob("*.tar.gz")
    said = person.types(". .venv/bin/activate", rest.partition("\n")[2].replace(archive, made.name))
    assert said
    assert (tmp_path / "new" / "spool").is_dir()
    assert not (tmp_path / "drill").exists()


def test_a_prompt_of_ones_own(person: Person) -> None:
    person.env["EDITOR"] = "true"
    person.types(". .venv/bin/activate", *commands("docs/BACKENDS.md", "Scripts"))
    assert (person.checkout / "prompts" / "pt-BR.txt").stat().st_size


def test_a_backend_of_ones_own(person: Person) -> None:
    (line,) = commands("docs/BACKENDS.md", "Your own, in twenty lines")
    with person.running(line):
        (person.checkout / "input" / "mytopic.md").write_text(PRETTY)
        folders = until(lambda: list((person.checkout / "output").glob("2*/manifest.json")), "a folder", LIMIT_S)
    assert '"paragraphs"' in folders[0].read_text()
