"""`docker compose` on the engine of a test: the repository's own files, in a project of its own.

Owns the plugin, where the machine has none that is new enough, a copy of what an image is built from, and the project's
containers, networks and volumes. Promises that all of the project is gone afterwards, and that a failure comes with
what the containers say. Images that cannot be pulled have local ones under their names: those are the caller's.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from rig.daemon import until
from rig.engine import FOLDER, Engine
from rig.nginx import free_port

TOP: Final = Path(__file__).resolve().parents[2]
NEEDED: Final = ("compose", "compose.yaml", "docker", "daemon", "scripts", "constraints.txt", "pyproject.toml")
FILES: Final = (*NEEDED, "README.md", "LICENSE", "examples", ".dockerignore", ".env.example")
VERSION_MIN: Final = (2, 24)
SUITE: Final = "trixie"
SOURCES: Final = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
TOOL_S: Final = 120.0
BUILD_S: Final = 900.0


class Project:
    """A copy of the repository as a person has it, and `docker compose` there.

    Attributes:
        folder: the copy.
        env: what its .env holds.
        port: where the daemon's is published on this machine.
    """

    def __init__(self, engine: Engine, folder: Path, env: Mapping[str, str], config: Mapping[str, str]) -> None:
        self.engine = engine
        self.folder = folder
        self.port = free_port()
        self.env = {"DAEMON_PORT": str(self.port), **env}
        self._config = config
        for name in FILES:
            source = TOP / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        self.write_env()

    def write_env(self, **more: str) -> None:
        """Write .env anew, with more settings."""
        self.env |= more
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in self.env.items()))

    def run(self, *args: str, check: bool = True, limit_s: float = TOOL_S) -> subprocess.CompletedProcess[str]:
        """Run `docker compose …` to its end."""
        done = subprocess.run(
            [*self.engine.docker, "compose", "--project-name", self.folder.name, *args],
            cwd=self.folder,
            env={**self.engine.env, **self._config},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        if check and done.returncode:
            logs = self.run("logs", "--no-color", check=False).stdout[-4000:]
            raise AssertionError(f"{args}: {done.returncode}\n{done.stdout}{done.stderr}\n{logs}")
        return done

    def sh(self, script: str) -> str:
        """Run a shell's words in the folder, `docker` being the engine's, and return what they print."""
        program = shlex.join(self.engine.docker)
        env = {**self.engine.env, **self._config, "COMPOSE_PROJECT_NAME": self.folder.name}
        done = subprocess.run(
            ["sh", "-euc", f'docker() {{ {program} "$@"; }}\n{script}'],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        assert done.returncode == 0, f"{script}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def up(self, *services: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Do what a person does, and wait until all is well."""
        return self.run("up", "--detach", "--wait", *(services or ("daemon",)), check=check, limit_s=BUILD_S)

    def state(self, service: str = "daemon") -> dict[str, Any]:
        """Return a container's state, as `docker inspect` has it; empty without a container."""
        name = self.run("ps", "--all", "--quiet", service, check=False).stdout.strip()
        if not name:
            return {}
        found: dict[str, Any] = json.loads(self.engine.run("inspect", name).stdout)[0]
        return {**found["State"], "Id": name, "RestartCount": found["RestartCount"], "HostConfig": found["HostConfig"]}

    def health(self, wanted: str, service: str = "daemon") -> None:
        """Wait for what the health check says."""
        until(lambda: self.state(service)["Health"]["Status"] == wanted, f"{service} is {wanted}", TOOL_S)

    def logs(self, service: str = "daemon") -> str:
        """Return what a service said."""
        done = self.engine.run("logs", self.state(service).get("Id", service), check=False)
        return done.stdout + done.stderr

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the daemon's events of one name."""
        lines = [json.loads(line) for line in self.logs().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == f"topicd.{name}"]

    def drop(self, name: str, text: str) -> None:
        """Move a file into the folder for topics, as a person of this machine."""
        aside = self.folder / "data" / f".{name}"
        aside.write_text(text)
        aside.rename(self.folder / "data" / "input" / name)

    def done(self, count: int, limit_s: float = TOOL_S) -> list[Path]:
        """Wait for a number of finished folders."""

        def found() -> list[Path]:
            every = sorted(path for path in (self.folder / "data" / "output").iterdir() if path.name[0] != ".")
            return every if len(every) >= count else []

        try:
            return until(found, f"{count} finished folders", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()[-4000:]}") from error


@contextlib.contextmanager
def project(engine: Engine, folder: Path, **env: str) -> Iterator[Project]:
    """Give a copy of the repository for the length of a block."""
    made = Project(engine, folder, env, plugin(engine))
    try:
        yield made
    finally:
        made.env["COMPOSE_PROFILES"] = "*"
        made.write_env()
        made.run("down", "--volumes", "--remove-orphans", "--timeout", "2", check=False)


def plugin(engine: Engine) -> dict[str, str]:
    """Return the environment in which `docker compose` is new enough; fetched from Debian where it is not."""
    if _version(engine, {}) >= VERSION_MIN:
        return {}
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    config = {"DOCKER_CONFIG": str(FOLDER / "config")}
    if _version(engine, config) < VERSION_MIN:
        if not shutil.which("apt-get"):
            pytest.skip("docker compose 2.24 or newer is not installed")
        _fetch(FOLDER / "config" / "cli-plugins" / "docker-compose")
    return config


def _version(engine: Engine, config: Mapping[str, str]) -> tuple[int, ...]:
    done = subprocess.run(
        [*engine.docker, "compose", "version", "--short"],
        env={**engine.env, **config},
        capture_output=True,
        text=True,
        timeout=TOOL_S,
        check=False,
    )
    return tuple(int(number) for number in re.findall(r"\d+", done.stdout)[:2]) if done.returncode == 0 else (0,)


def _fetch(path: Path) -> None:
    """Take the plugin out of a package of a newer Debian; it needs nothing but its C library."""
    folder = FOLDER / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"]
    mirrors = subprocess.run(asked, check=True, timeout=TOOL_S, capture_output=True, text=True).stdout.split()
    # The machine's own mirror; it has the newer release beside the installed one.
    (folder / "newer.sources").write_text(SOURCES.format(suite=SUITE, mirror=mirrors[0]))
    options = {
        "Dir::Etc::sourcelist": folder / "newer.sources",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    for verb in (["update"], ["download", "docker-compose"]):
        subprocess.run([*apt, *verb], cwd=folder, check=True, timeout=TOOL_S, capture_output=True)
    (package,) = folder.glob("docker-compose_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "x"], check=True, timeout=TOOL_S)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}")
    shutil.copy(next((folder / "x").rglob("cli-plugins/docker-compose")), aside)
    aside.rename(path)
    shutil.rmtree(folder)
