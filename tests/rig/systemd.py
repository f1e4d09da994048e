"""A machine with systemd as its first process: a container that enforces what a unit asks, as a test sees it.

Owns the container and its image. Promises that it is up when it is handed over and gone afterwards, that every command
ends within a limit, and that a failure comes with what the service's journal says. This checkout is at `SOURCE`,
read-only; pip's cache is the machine's own, so that what is installed twice is fetched once.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rig.daemon import LIMIT_S, until
from rig.engine import PYTHON, Engine

SOURCE: Final = "/src"
UNIT: Final = "topicd"
HOME: Final = "/var/lib/topicd"
PACKAGES: Final = (*PYTHON, "systemd", "systemd-sysv", "dbus", "libpam-systemd", "procps", "libnss-systemd", "make")
BOOT_S: Final = 60.0
# CAP_SYS_RESOURCE would let it ask for more than the engine has.
FLAGS: Final = (
    "--security-opt=seccomp=unconfined",
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--stop-signal=SIGRTMIN+3",
    "--cgroupns=host",
    "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp",
    "--env=container=docker",
)
TOP: Final = Path(__file__).resolve().parents[2]


class Machine:
    """A booted machine and the service `topicd` on it."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container

    def run(
        self, *command: str, user: str = "root", check: bool = True, text: str = "", limit_s: float = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a user of the machine."""
        given = ["exec", "--interactive", "--user", user, self._container, *command]
        done = self._engine.run(*given, check=False, text=text, limit_s=limit_s)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def sh(self, script: str, *, user: str = "root", check: bool = True, limit_s: float = LIMIT_S) -> str:
        """Run a shell's words and return what they print."""
        return self.run("sh", "-euc", script, user=user, check=check, limit_s=limit_s).stdout

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.run("systemctl", "--no-pager", *words, check=False)
        assert not check or done.returncode == 0, f"systemctl {words}: {done.stderr}\n{self.log()}"
        return done

    def property(self, name: str, unit: str = UNIT) -> str:
        """Return one property of a unit, as `systemctl show` has it."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def comes_to(self, name: str, value: str, limit_s: float = LIMIT_S) -> None:
        """Wait until a property of the service has a value."""
        try:
            until(lambda: self.property(name) == value, f"{name}={value}", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}, but {self.property(name)}\n{self.log()}") from error

    def events(self, name: str = "", unit: str = UNIT) -> list[dict[str, Any]]:
        """Return the journal's entries of a unit, or those of one event."""
        said = self.run("journalctl", "--unit", unit, "--output", "json", "--no-pager").stdout
        every: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
        return [each for each in every if not name or each.get("TOPICD_EVENT") == f"topicd.{name}"]

    def event(self, name: str, limit_s: float = LIMIT_S, **fields: str) -> dict[str, Any]:
        """Wait for an event with these fields, written as the journal does without `TOPICD_`."""
        wanted = {f"TOPICD_{key.upper()}": value for key, value in fields.items()}.items()

        def found() -> list[dict[str, Any]]:
            return [each for each in self.events(name) if wanted <= each.items()]

        try:
            return until(found, f"{name} {fields}", limit_s)[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error

    def log(self) -> str:
        """Return the end of what the service said."""
        return self.run("journalctl", "--unit", UNIT, "--no-pager", "--lines", "60").stdout

    def ids(self, place: str) -> list[str]:
        """Return the jobs in a place."""
        folder = f"{HOME}/output" if place == "output" else f"{HOME}/spool/{place}"
        return sorted(self.sh(f"ls {folder} 2>/dev/null || true").split())

    def only(self, place: str, limit_s: float = LIMIT_S) -> str:
        """Wait for the one job in a place and return its directory."""
        try:
            found = until(lambda: self.ids(place), f"a job in {place}", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error
        assert len(found) == 1, found
        return f"{HOME}/output/{found[0]}" if place == "output" else f"{HOME}/spool/{place}/{found[0]}"

    def drop(self, name: str, text: str, user: str = UNIT) -> None:
        """Let a user of the machine write a file into input/."""
        self.run("tee", f"{HOME}/input/.{name}", user=user, text=text)
        self.run("mv", f"{HOME}/input/.{name}", f"{HOME}/input/{name}", user=user)

    def drop_in(self, environment: Mapping[str, str], *lines: str) -> None:
        """Give the service settings and other lines of its own, until `fresh`."""
        settings = [f'Environment="{key}={value}"' for key, value in environment.items()]
        text = "\n".join(["[Service]", *settings, *lines]) + "\n"
        path = f"/etc/systemd/system/{UNIT}.service.d/test.conf"
        self.run("install", "-D", "-m", "0644", "/dev/stdin", path, text=text)
        self.systemctl("daemon-reload")

    def fresh(self) -> None:
        """Stop the service and take its drop-ins, its journal and its home away, so that the next test finds none."""
        self.systemctl("stop", UNIT, check=False)
        self.systemctl("reset-failed", UNIT, check=False)
        self.sh(f"rm -rf /etc/systemd/system/{UNIT}.service.d {HOME}/input/*")
        self.sh(f"find {HOME} -mindepth 1 -maxdepth 1 ! -name .env ! -name input -exec rm -rf {{}} +")
        self.sh("journalctl --rotate --vacuum-time=1ms >/dev/null 2>&1")
        self.systemctl("daemon-reload")


@contextlib.contextmanager
def machine(engine: Engine) -> Iterator[Machine]:
    """Boot a machine for the length of a block."""
    pip = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False)
    cache = pip.stdout.strip()
    volumes = [f"--volume={TOP}:{SOURCE}:ro", *([f"--volume={cache}:/root/.cache/pip"] if cache else [])]
    image = engine.base_image(PACKAGES)
    name = f"topicd-test-machine-{os.getpid()}"
    engine.run("run", "--detach", "--name", name, *FLAGS, *volumes, image, "/lib/systemd/systemd")
    try:
        booted = Machine(engine, name)
        until(lambda: _is_up(booted), "the machine is up", BOOT_S)
        # As on a machine of its own; in a container systemd leaves it, and credentials do not reach the services.
        booted.run("mount", "--make-rshared", "/")
        yield booted
    finally:
        engine.run("rm", "--force", "--volumes", name, check=False)


def _is_up(machine: Machine) -> bool:
    done = machine.run("systemctl", "is-system-running", check=False)
    return done.stdout.strip() in {"running", "degraded"}
