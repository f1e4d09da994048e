"""A Docker Engine for tests: the machine's own if one runs, else a dockerd in a folder under the temporary directory.

Owns that dockerd, what it does to the machine's packet filter, and the base images. One engine serves all test
processes that want one at a time: the first starts it, the last takes it down with all it holds and puts the packet
filter back. Promises that everything is bounded in time. Skips where a part is missing. On the machine's own engine it
leaves the base images, as a cache, and nothing else; what a test starts there, the test removes.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pytest

from rig.daemon import until

FOLDER: Final = Path(tempfile.gettempdir()) / f"topicd-engine-{os.geteuid()}"
SUITE: Final = "bookworm"
PYTHON: Final = ("python3", "python3-venv", "ca-certificates", "libgomp1")
# Those of the machine, such as a proxy's; pip in an image's build needs them.
CERTIFICATES: Final = Path("/usr/local/share/ca-certificates")
BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
UP_S: Final = 60.0
DOWN_S: Final = 60.0
TOOL_S: Final = 60.0
IMAGE_S: Final = 300.0
FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
OWN_RULES: Final = re.compile(r"DOCKER|\bdocker0\b|\bbr-[0-9a-f]{12}\b")
PARTS: Final = {"docker": "docker.io", "dockerd": "docker.io", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}


@dataclass(frozen=True)
class Engine:
    """An engine that runs. `docker` begins every command line; `env` is the environment to run it in."""

    docker: tuple[str, ...]
    env: Mapping[str, str]

    def run(
        self, *args: str, check: bool = True, limit_s: float = TOOL_S, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run one docker command to its end; `text` is its input; with `check`, a failure is an AssertionError."""
        done = subprocess.run(
            [*self.docker, *args],
            env=dict(self.env),
            input=text,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        said = f"docker {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def base_image(self, packages: Sequence[str] = PYTHON) -> str:
        """Return the name of a minimal Debian image with these packages; made once, in half a minute."""
        wanted = sorted({"ca-certificates", *packages})
        told = hashlib.sha256("\n".join((SUITE, *wanted)).encode()).hexdigest()[:12]
        name = f"topicd-test-base:{told}"
        with _door():
            if self.run("image", "inspect", name, check=False).returncode:
                self._make(name, wanted)
        return name

    def _make(self, name: str, packages: Sequence[str]) -> None:
        certificates = sorted(str(path) for path in CERTIFICATES.glob("*.crt"))
        copy = f"--customize-hook=copy-in {' '.join(certificates)} {CERTIFICATES}"
        hooks = [copy, '--customize-hook=chroot "$1" update-ca-certificates'] if certificates else []
        with tempfile.TemporaryDirectory(prefix="topicd-base-") as folder:
            tar = Path(folder) / "base.tar"
            made = subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", *hooks, SUITE, tar],
                capture_output=True,
                text=True,
                timeout=IMAGE_S,
                check=False,
            )
            assert made.returncode == 0, made.stderr[-4000:]
            self.run("import", "-c", f"ENV PIP_CERT={BUNDLE}", str(tar), name, limit_s=IMAGE_S)


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Hand over an engine for the length of a block."""
    client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
    if os.environ.get("DOCKER_HOST") or (shutil.which(client) and _answers(client)):
        yield Engine((client,), {**os.environ, "DOCKER_BUILDKIT": "1"})
        return
    _need()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    socket = f"unix://{FOLDER}/docker.sock"
    with (FOLDER / "users").open("w") as users:
        with _door():
            if _take(users, fcntl.LOCK_EX):
                _stop()  # one whose tests were killed
                _start(client, socket)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield Engine((client, "-H", socket), {**os.environ, "DOCKER_BUILDKIT": "1", "DOCKER_HOST": socket})
        finally:
            with _door():
                if _take(users, fcntl.LOCK_EX):
                    _stop()


def _need() -> None:
    if os.geteuid() != 0:
        pytest.skip("a dockerd takes root")
    missing = sorted({package for part, package in PARTS.items() if not shutil.which(part)})
    if missing:
        pytest.skip(f"not installed: {' '.join(missing)}")


@contextlib.contextmanager
def _door() -> Iterator[None]:
    """Let one test process at a time start, stop, or make images."""
    with in_turn("door"):
        yield


@contextlib.contextmanager
def in_turn(what: str) -> Iterator[None]:
    """Let one test process at a time have something of the engine's that has one name for all of them."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with (FOLDER / what).open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _take(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(client: str, socket: str) -> None:
    before = {"policy": _policy(), "forwarding": FORWARDING.read_text(), "rules": "DOCKER" in _tool("iptables-save")}
    (FOLDER / "before.json").write_text(json.dumps(before))
    # Its parent is init: it outlives the test process that started it.
    command = ["setsid", "--fork", "dockerd", "-H", socket, "-p", str(FOLDER / "pid")]
    command += ["--data-root", str(FOLDER / "data"), "--exec-root", str(FOLDER / "exec")]
    log = FOLDER / "log"
    with log.open("wb") as said:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=True, timeout=TOOL_S)
    try:
        until(lambda: _answers(client, "-H", socket), "dockerd answers", UP_S)
    except AssertionError as error:
        _stop()
        raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from error


def _stop() -> None:
    """Take the dockerd of the folder away, with its containers, networks, rules and files; none is no fault."""
    pid_file = FOLDER / "pid"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int(pid_file.read_text())
        if str(FOLDER) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGTERM)
            until(lambda: not pid_file.exists(), "dockerd ends", DOWN_S)
    with contextlib.suppress(FileNotFoundError):
        _put_back(json.loads((FOLDER / "before.json").read_text()))
    for name in ("data", "exec"):
        shutil.rmtree(FOLDER / name, ignore_errors=True)
    for name in ("pid", "before.json", "docker.sock"):
        (FOLDER / name).unlink(missing_ok=True)


def _put_back(before: Mapping[str, object]) -> None:
    if not before["rules"]:
        kept = [rule for rule in _tool("iptables-save").splitlines() if not OWN_RULES.search(rule)]
        _tool("iptables-restore", text="\n".join(kept) + "\n")
        subprocess.run(["ip", "link", "delete", "docker0"], capture_output=True, timeout=TOOL_S, check=False)
    _tool("iptables", "-P", "FORWARD", str(before["policy"]))
    FORWARDING.write_text(str(before["forwarding"]))


def _policy() -> str:
    return _tool("iptables", "-S", "FORWARD").split()[2]


def _answers(*docker: str) -> bool:
    done = subprocess.run([*docker, "version"], capture_output=True, timeout=TOOL_S, check=False)
    return done.returncode == 0


def _tool(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TOOL_S, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout
