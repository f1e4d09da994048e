"""The unit, the image and the compose files, as far as they can be held to the code without an engine."""

import ast
import asyncio
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from topicd import cli
from topicd.settings import PREFIX, Settings, env_name
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, TreeState
from topicd.web import Health
from topicd.web.server import STOP_TIMEOUT_S as WEB_STOP_TIMEOUT_S
from topicd.web.server import WebServer

TOP = Path(__file__).resolve().parents[2]
UNIT = TOP / "systemd/topicd.service"
BACKUP = TOP / "systemd/topicd-backup.service"
TIMER = TOP / "systemd/topicd-backup.timer"
INSTALL = TOP / "scripts/install.sh"
DOCKERFILE = TOP / "docker/Dockerfile"
IGNORE = TOP / ".dockerignore"
COMPOSE = TOP / "compose.yaml"
SERVICE = TOP / "compose/daemon.yaml"
SETTINGS = {env_name(name, info) for name, info in Settings.model_fields.items()}
EXPOSURE_MAX = 15  # tenths
LIMIT_S = 60.0
needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def unit(path: Path = UNIT) -> dict[str, list[str]]:
    """Return each key of a unit with its values in order; no key is in two sections."""
    keys: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        keys.setdefault(key, []).append(value)
    return keys


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: word and the rest, on one line."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines()) if word]


def last(word: str) -> str:
    return [rest.strip() for each, rest in instructions() if each == word][-1]


def image_env() -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", last("ENV")))


def service(name: str = "daemon") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(SERVICE.read_text())["services"][name]
    return found


def stop_worst_s() -> float:
    """Return how long a stop may take: work in hand, then the backends together, then the web server."""
    default_s: float = Settings.model_fields["stop_timeout_s"].default
    return default_s * 2 + WEB_STOP_TIMEOUT_S


def seconds(text: str) -> float:
    number, unit_of_time = re.fullmatch(r"(\d+)(s|min)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "min": 60}[unit_of_time]


@pytest.mark.parametrize("path", [UNIT, BACKUP, DOCKERFILE, COMPOSE, SERVICE], ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    assert set(re.findall(rf"\b{PREFIX}\w+", path.read_text())) <= SETTINGS


@needs_systemd
def test_systemd_finds_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    copies = [tmp_path / path.name for path in (UNIT, BACKUP, TIMER)]
    for path, copy in zip((UNIT, BACKUP, TIMER), copies, strict=True):
        copy.write_text(path.read_text().replace("ExecStart=/opt/topicd/bin/topicd", f"ExecStart={sys.executable}"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *copies], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    told = [line for line in (done.stdout + done.stderr).splitlines() if UNIT.stem in line]  # other units may be ill
    assert told == []


@needs_systemd
def test_systemd_finds_nothing_to_say_about_the_unit_of_one_person(tmp_path: Path) -> None:
    said = (TOP / "systemd/topicd-user.service").read_text()
    assert "RestartPreventExitStatus=78" in said
    copy = tmp_path / "topicd-user.service"
    copy.write_text(said.replace("ExecStart=%h/topicd/.venv/bin/topicd", f"ExecStart={sys.executable}"))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", copy], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert [line for line in (done.stdout + done.stderr).splitlines() if copy.stem in line] == []


@needs_systemd
@pytest.mark.parametrize("path", [UNIT, BACKUP], ids=lambda path: path.name)
def test_the_units_are_shut_in(path: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_backup_is_shut_in_as_the_daemon_is() -> None:
    def sandbox(path: Path) -> list[str]:
        return re.findall(r"^ProtectSystem=.*?^SystemCallErrorNumber=\w+$", path.read_text(), re.MULTILINE | re.DOTALL)

    assert len(sandbox(UNIT)) == 1
    assert sandbox(UNIT) == sandbox(BACKUP)
    assert (unit()["User"], unit()["Group"]) == (unit(BACKUP)["User"], unit(BACKUP)["Group"])


def test_the_unit_fits_the_daemon() -> None:
    keys = unit()
    assert keys["ExecStart"] == ["/opt/topicd/bin/topicd run"]
    assert (keys["Type"], keys["NotifyAccess"]) == (["notify"], ["main"])
    assert keys["RestartPreventExitStatus"] == [str(cli.CONFIG)]
    assert seconds(keys["WatchdogSec"][0]) == 60
    assert f"TOPICD_HOME=/var/lib/{keys['StateDirectory'][0]}" in keys["Environment"]
    assert seconds(keys["TimeoutStopSec"][0]) > stop_worst_s()
    assert keys["KillMode"] == ["mixed"]


def test_the_scripts_put_in_place_what_the_units_name() -> None:
    said = INSTALL.read_text()
    assert re.search(r"BLOCKS='([a-z ]+)'", said)[1].split() == ["base", "otel", "embedded"]  # type: ignore[index]
    assert re.findall(r"useradd .* (\w+)$", said, re.MULTILINE) == unit()["User"] == unit()["Group"]
    for path in ("/opt/topicd", f"/var/lib/{unit()['StateDirectory'][0]}", "/var/backups/topicd", "/etc/topicd.env"):
        assert f"={path}" in said
        assert path in (TOP / "scripts/uninstall.sh").read_text()


def pinned(text: str) -> list[str]:
    """Return the blocks that `pins.sh` is asked for, once it has given something for each."""
    blocks = [block for words in re.findall(r"pins\.sh((?: [a-z]+)+) [>|]", text) for block in words.split()]
    for block in blocks:
        done = subprocess.run(
            [TOP / "scripts/pins.sh", block], capture_output=True, text=True, timeout=LIMIT_S, check=True
        )
        assert "--hash=sha256:" in done.stdout
    return blocks


def test_the_image_installs_only_what_is_pinned_by_hash() -> None:
    assert pinned(DOCKERFILE.read_text()) == ["base", "otel", "build", "embedded", "piper"]
    commands = [command for _, rest in instructions() for command in rest.split("&&")]
    installs = [command for command in commands if re.search(r"\bpip\b.* install ", command)]
    assert len(installs) == 5
    for install in installs:
        assert "--require-hashes -r pins.txt" in install or "--no-index" in install
        assert "--no-deps" in install


def test_the_base_is_chosen_by_the_builder_and_no_frontend_is_fetched() -> None:
    assert instructions()[0] == ("ARG", "BASE=python:3.12-slim-bookworm")
    assert {rest.split()[0] for word, rest in instructions() if word == "FROM"} == {
        "${BASE}",
        "libraries",
        "embedded-libraries",
        "runtime",
    }
    assert "syntax=" not in DOCKERFILE.read_text()


def test_what_is_copied_is_here_and_let_through() -> None:
    ignored, *rules = [line for line in IGNORE.read_text().splitlines() if not line.startswith("#")]
    let_through = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert ignored == "*"
    assert copied == let_through
    assert all((TOP / source).exists() for source in copied)


def test_the_image_runs_as_nobody_and_hears_signals() -> None:
    owner = re.search(r"--owner=(\d+) --group=(\d+) /data\b", DOCKERFILE.read_text())
    assert owner
    assert last("USER") == ":".join(owner.groups()) == "10001:10001"
    said = [json.loads(rest) for word, rest in instructions() if word in {"ENTRYPOINT", "CMD"}]
    assert said[:2] == [["topicd"], ["run"]]
    assert last("STOPSIGNAL") == "SIGTERM"


async def healthy(port: int) -> bool:
    """Run the image's health check, with this Python in place of the image's."""
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK" and "topicd.health" in rest)
    program = json.loads(check.partition("CMD ")[2])
    assert program[0] == "/opt/topicd/bin/python"
    env = {"TOPICD_METRICS_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(sys.executable, *program[1:], env=env, stderr=subprocess.DEVNULL)
    return await asyncio.wait_for(process.wait(), LIMIT_S) == 0


async def test_the_health_check_tells_well_from_ill_and_from_gone() -> None:
    health = Health(ok=True)
    tree = TreeState({}, {}, 0)
    server = WebServer(
        host="127.0.0.1",
        port=0,
        metrics=Metrics([], causes=[], modes=[], reasons=[], version="1", present=Present(tree=lambda: tree)),
        health=lambda: health,
        ready=lambda: Health(ok=False),
    )
    port = await server.start()
    try:
        assert await healthy(port)
        health = Health(ok=False)
        assert not await healthy(port)
    finally:
        await server.stop()
    assert not await healthy(port)


def test_no_library_reports_home() -> None:
    assert "ORT_DISABLE_TELEMETRY=1" in unit()["Environment"]
    assert image_env()["ORT_DISABLE_TELEMETRY"] == "1"


def test_compose_includes_the_daemon() -> None:
    first, _ = yaml.safe_load(COMPOSE.read_text())["include"]
    assert SERVICE in [(TOP / path).resolve() for path in first["path"]]
    build = service()["build"]
    assert ((SERVICE.parent / build["context"]).resolve(), build["dockerfile"]) == (TOP, "docker/Dockerfile")


def test_compose_sets_only_settings_and_as_the_image_does() -> None:
    environment = service()["environment"]
    assert set(environment) <= SETTINGS
    fixed = {name: value for name, value in image_env().items() if name.startswith(PREFIX)}
    assert fixed.items() <= environment.items()
    host, _, inside = service()["ports"][0].rpartition(":")
    assert (host.partition(":")[0], inside) == ("127.0.0.1", environment["TOPICD_METRICS_PORT"])


def test_the_spool_is_one_volume_and_people_reach_the_rest() -> None:
    home = service()["environment"]["TOPICD_HOME"]
    mounts = {mount["target"]: mount["type"] for mount in service()["volumes"]}
    reached = ("input", "output", "secrets", "prompts", "backups", "models")
    kept = ("spool", "cache")
    assert mounts == {
        **{f"{home}/{name}": "bind" for name in reached},
        **{f"{home}/{name}": "volume" for name in kept},
    }


@pytest.mark.parametrize("name", ["folders", "daemon"])
def test_each_container_is_shut_in(name: str) -> None:
    found = service(name)
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["logging"]["options"].keys() == {"max-size", "max-file"}


def test_the_daemon_has_limits_and_time_to_stop() -> None:
    found = service()
    assert found["user"] == f"${{DAEMON_USER:-{last('USER')}}}"
    assert not {"command", "entrypoint"} & set(found)
    assert found["init"] is True
    assert found["mem_limit"]
    assert found["pids_limit"]
    assert seconds(found["stop_grace_period"]) > stop_worst_s()


def test_root_hands_the_folders_over_and_does_nothing_else() -> None:
    folders = service("folders")
    assert folders["volumes"] == service()["volumes"]
    assert folders["cap_add"] == ["CHOWN"]
    assert folders["network_mode"] == "none"
    assert folders["command"] == [service()["user"]]
    named = re.search(r"in (\(.*?\)):", folders["entrypoint"][-1])
    assert named
    assert {f"/data/{name}" for name in ast.literal_eval(named[1])} == {mount["target"] for mount in folders["volumes"]}


def test_the_wheel_has_what_the_pages_are_made_with(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = TOP / "daemon"
    static = {str(path.relative_to(package)) for path in (package / "topicd" / "web" / "static").iterdir()}
    assert len(static) == 3
    assert static | {"topicd/stages/page.html"} <= packed
