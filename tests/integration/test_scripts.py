"""The shell scripts: plain, sound, and thin calls of the verbs they stand for."""

import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from topicd import __version__

TOP = Path(__file__).resolve().parents[2]
SCRIPTS = TOP / "scripts"
SHELL = sorted([*SCRIPTS.glob("*.sh"), *(TOP / ".ci").iterdir()])
LIMIT_S = 30.0


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run([shellcheck, script], check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout whose `topicd` says what it was asked."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "download_sd_model.sh", tmp_path / "scripts")
    program = tmp_path / ".venv" / "bin" / "topicd"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    return tmp_path


def run(checkout: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    script = checkout / "scripts" / "download_sd_model.sh"
    command = [str(script), *args]
    return subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        ((), ["sd-1.5"]),
        (("--quiet",), ["sd-1.5", "--quiet"]),
        (("sdxl-turbo", "--quiet"), ["sdxl-turbo", "--quiet"]),
    ],
)
def test_a_checkpoint_goes_where_compose_looks_for_it(checkout: Path, args: tuple[str, ...], wanted: list[str]) -> None:
    done = run(checkout, *args)
    *verb, folder = done.stdout.splitlines()[:4]
    assert verb == ["fetch", "model", "--to"]
    assert Path(folder).resolve() == checkout / "data" / "models"
    assert done.stdout.splitlines()[4:] == wanted
    assert done.returncode == 0


def test_another_folder_can_be_named(checkout: Path) -> None:
    assert "/elsewhere" in run(checkout, SD_MODELS_DIR="/elsewhere").stdout.splitlines()


def test_without_topicd_the_daemon_of_compose_fetches_it(checkout: Path) -> None:
    docker = checkout / "bin" / "docker"
    docker.parent.mkdir()
    (checkout / ".venv" / "bin" / "topicd").rename(docker)
    said = run(checkout, "--quiet", PATH=f"{docker.parent}:/usr/bin:/bin").stdout.replace("\n", " ")
    assert said == (
        "compose run --rm folders compose run --rm --no-deps daemon fetch model --to /data/models sd-1.5 --quiet "
    )


def test_it_says_what_it_does_and_what_it_lacks(checkout: Path) -> None:
    assert "SD_MODELS_DIR" in run(checkout, "--help").stdout
    (checkout / ".venv" / "bin" / "topicd").unlink()
    for name in ("sh", "dirname", "sed"):
        (checkout / "bin").mkdir(exist_ok=True)
        (checkout / "bin" / name).symlink_to(f"/usr/bin/{name}")
    done = run(checkout, PATH=str(checkout / "bin"))
    assert (done.returncode, "neither topicd nor docker" in done.stderr) == (127, True)


def test_an_image_says_what_it_is_made_from_and_holds_no_time_but_the_commits(tmp_path: Path) -> None:
    said = {
        "git": 'case "$*" in *%ct*) echo 86400 ;; *%cd*) echo "${TZ}1970-01-02" ;; rev-parse*) echo abc ;; esac',
        "docker": 'printf "%s\n" "$@"',
    }
    for name, does in said.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [SCRIPTS / "image.sh", "slim", "--tag", "here:slim"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOURCE": "there"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[:5] == ["build", "--file", "docker/Dockerfile", "--target", "slim"]
    assert words[-3:] == ["--tag", "here:slim", "."]
    given = dict(word.split("=", 1) for before, word in pairwise(words) if before == "--build-arg")
    assert given == {
        "VERSION": __version__,
        "REVISION": "abc",
        "SOURCE": "there",
        "CREATED": "UTC1970-01-02",
        "SOURCE_DATE_EPOCH": "86400",
    }
    taken = set(re.findall(r"^ARG (\w+)", (TOP / "docker/Dockerfile").read_text(), re.MULTILINE))
    assert taken - {"BASE"} == set(given)
