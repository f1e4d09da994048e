"""The images and compose on a real engine, as docs/DEPLOYMENT.md says.

What is `FROM` is a local Debian, and Ollama's and stable-diffusion.cpp's images are local ones under their names that
speak the same protocols (`tests/fakes/images`): none can be pulled where tests run. Piper's server is the real one, and
so are Prometheus and Alertmanager; for the rest of the monitoring stand programs that read what the real ones are
given.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rig.compose import Project, project
from rig.daemon import until
from rig.engine import PYTHON, Engine, engine, in_turn
from rig.nginx import free_port
from rig.pages import commands, settings

NAME = f"topicd-test-{os.getpid()}"  # two runs may share an engine, and each removes its own
USER = "12345:12345"
TOP = Path(__file__).resolve().parents[2]
BUILD_S = 900.0
PROFILES = ("", "ollama", "piper-tts", "stable-diffusion", "monitoring", "monitoring-promtail", "*")
TOPIC = "---\nscenes: 1\n---\n# Tides\n\nThe Moon pulls on the sea.\n"
REPLACED = ("ollama/ollama:0.13.5", "ghcr.io/leejet/stable-diffusion.cpp:master-cuda")
STOP_S_MAX = 20.0
# The user of each image, the folder it owns there, what the stand-in looks at, its program. Prometheus and Alertmanager
# are Debian's, so real ones; nothing like the others is in Debian.
MONITORING = {
    "prometheus": ("65534", "/prometheus", "TZ=UTC", "/usr/bin/prometheus"),
    "alertmanager": ("65534", "/alertmanager", "TZ=UTC", "/usr/bin/prometheus-alertmanager"),
    "loki": ("10001", "/loki", "WRITE=/loki", "/standin.py", "3100"),
    "tempo": ("10001", "/var/tempo", "WRITE=/var/tempo", "/standin.py", "3200"),
    "alloy": ("0", "/var/lib/alloy", "WRITE=/var/lib/alloy READ=/etc/promtail", "/standin.py", "12345"),
    "grafana": (
        "472",
        "/var/lib/grafana",
        "WRITE=/var/lib/grafana READ=/etc/grafana/provisioning:/var/lib/grafana/dashboards",
        "/standin.py",
        "3000",
    ),
}


@pytest.fixture(scope="module")
def docker() -> Iterator[Engine]:
    with engine() as found:
        yield found


@pytest.fixture(scope="module")
def built(docker: Engine) -> Iterator[dict[str, str]]:
    """Build all targets; return what a .env has to say for them to be used."""
    base = docker.base_image()
    for target in ("slim", "embedded", "piper"):
        docker.run(
            *("build", "--file", str(TOP / "docker/Dockerfile"), "--target", target, "--tag", f"{NAME}:{target}"),
            *("--build-arg", f"BASE={base}", "--build-arg", "VERSION=1.2.3", "--build-arg", "REVISION=abc"),
            *("--build-arg", "SOURCE=here", "--build-arg", "CREATED=2026-01-02T03:04:05Z", str(TOP)),
            limit_s=BUILD_S,
        )
    yield {"DAEMON_IMAGE": NAME, "DAEMON_BASE": base, "DAEMON_USER": USER}
    docker.run("rmi", "--force", *(f"{NAME}:{target}" for target in ("slim", "embedded", "piper")), check=False)


@pytest.fixture
def here(docker: Engine, built: dict[str, str], tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / f"topicd-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    with project(docker, folder, **built) as made:
        yield made


def inner_pid(here: Project) -> int:
    """Return the daemon's process, as this machine counts: the first process of a container is its init."""
    init = here.state()["Pid"]
    (child,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    return int(child)


def get(here: Project, path: str) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", here.port, timeout=10)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("target", ["slim", "embedded"])
def test_an_image_is_small_labelled_and_nobody(docker: Engine, built: dict[str, str], target: str) -> None:
    found = json.loads(docker.run("image", "inspect", f"{NAME}:{target}").stdout)[0]
    base = json.loads(docker.run("image", "inspect", built["DAEMON_BASE"]).stdout)[0]
    print(f"{target}: {found['Size'] / 1e6:.0f} MB, of which the base {base['Size'] / 1e6:.0f} MB")  # noqa: T201 - a figure
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"
    assert labels["org.opencontainers.image.source"] == "here"
    assert labels["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z"
    assert ("GPL" in labels["org.opencontainers.image.licenses"]) == (target == "embedded")
    assert found["Config"]["User"] == "10001:10001"
    shut = ("--rm", "--read-only", "--cap-drop=ALL", "--network=none")
    assert docker.run("run", *shut, f"{NAME}:{target}", "--version").stdout.startswith("topicd ")
    python = ("--entrypoint=/opt/topicd/bin/python", f"{NAME}:{target}", "-c")
    there = docker.run("run", *shut, *python, "import xllamacpp", check=False)
    assert (there.returncode == 0) == (target == "embedded"), there.stderr


def test_a_topic_becomes_a_folder_and_is_there_after_a_kill_and_a_down(here: Project) -> None:
    here.up()
    here.drop("tides.md", TOPIC)
    (folder,) = here.done(1)
    assert {"index.html", "audio.wav", "script.md", "captions.vtt"} <= {path.name for path in folder.iterdir()}
    assert f"{folder.stat().st_uid}:{folder.stat().st_gid}" == USER
    assert (here.folder / "data" / "input").stat().st_uid == folder.stat().st_uid
    assert get(here, "/healthz")[0] == 200
    until(lambda: b"topicd_jobs_done_total 1.0" in get(here, "/metrics")[1], "it is counted")
    for path in ("/new", "/opt/topicd/new", "/etc/new"):
        done = here.run("exec", "--no-TTY", "daemon", "python", "-c", f"open({path!r}, 'w')", check=False)
        assert "Read-only file system" in done.stderr, path

    here.drop("rivers.md", TOPIC.replace("Tides", "Rivers"))
    until(lambda: len(here.events("stage.started")) >= 4, "the second job is in work")
    os.kill(inner_pid(here), signal.SIGKILL)
    here.done(2)
    assert here.state()["RestartCount"] == 1

    here.run("stop", "daemon")
    assert here.state()["ExitCode"] == 0
    here.drop("lakes.md", TOPIC.replace("Tides", "Lakes"))
    here.run("down")
    here.up()
    assert len(here.done(3)) == 3
    told = json.loads(here.run("exec", "--no-TTY", "daemon", "topicd", "status", "--json").stdout)
    assert told["jobs"]["output"] == 3
    assert told["jobs"]["failed"] == 0


def test_a_wrong_setting_stops_it_readably(here: Project) -> None:
    here.write_env(TOPICD_SCENES="many")
    assert here.up(check=False).returncode != 0
    until(lambda: here.state()["ExitCode"] == 78, "it has ended with 78")
    assert "TOPICD_SCENES" in here.logs()
    assert "Traceback" not in here.logs()
    here.write_env(TOPICD_SCENES="1")
    here.up()


def test_one_that_hangs_is_unwell_and_one_that_is_stopped_ends_soon(here: Project) -> None:
    here.up()
    pid = inner_pid(here)
    os.kill(pid, signal.SIGSTOP)
    here.health("unhealthy")
    os.kill(pid, signal.SIGCONT)
    here.health("healthy")
    began = time.monotonic()
    here.run("stop", "daemon")
    assert time.monotonic() - began < STOP_S_MAX
    assert here.state()["ExitCode"] == 0
    assert here.events("daemon.stopped")


def test_the_commands_of_the_page_work_word_for_word(here: Project) -> None:
    asked = commands("docs/DEPLOYMENT.md", "Compose")
    began, upgrade, backup = asked[:4], asked[4:6], asked[6:]
    here.sh("\n".join(began))
    (folder,) = here.done(1)
    assert (folder / "index.html").stat().st_size
    assert upgrade[0] == "git pull"
    before = here.state()["Id"]
    here.sh(upgrade[1])
    assert here.state()["Id"] == before, "nothing is new"
    (here.folder / "data" / "prompts" / "en.txt").write_text("Tell of $title.")
    assert backup[0].startswith("docker compose exec")
    volume = f"{here.folder.name}_spool"
    said = here.sh("\n".join(backup).replace("topicd_spool", volume))
    assert "restored" in said.lower()
    assert [path.name for path in here.done(1)] == [folder.name]
    assert (here.folder / "data" / "prompts" / "en.txt").read_text() == "Tell of $title."
    here.drop("rivers.md", TOPIC.replace("Tides", "Rivers"))
    here.done(2)
    for name in ("backups", "models", "prompts"):
        here.run("exec", "--no-TTY", "daemon", "python", "-c", f"open('/data/{name}/new', 'w')")


@pytest.mark.parametrize("gpu", ["none", "nvidia"])
@pytest.mark.parametrize("profiles", PROFILES)
def test_every_profile_is_valid(here: Project, profiles: str, gpu: str) -> None:
    here.write_env(COMPOSE_PROFILES=profiles, GPU=gpu)
    said = json.loads(here.run("config", "--format", "json").stdout)
    assert ("ollama" in said["services"]) == (profiles in {"ollama", "*"})
    for name, service in said["services"].items():
        assert service.get("logging", {}).get("options", {}).get("max-size"), name
        assert int(service["mem_limit"]), name
        assert name not in MONITORING or float(service["cpus"]), name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
        wants_gpu = gpu == "nvidia" and name in {"ollama", "stable-diffusion"}
        assert bool(service.get("deploy", {}).get("resources", {}).get("reservations")) == wants_gpu, name


@pytest.mark.parametrize(("version", "ending"), [("", ""), ("1.2.3", "-1.2.3")])
def test_the_images_of_a_release_are_named_in_env(here: Project, version: str, ending: str) -> None:
    here.write_env(COMPOSE_PROFILES="piper-tts", DAEMON_IMAGE="ghcr.io/owner/topicd", DAEMON_VERSION=version)
    services = json.loads(here.run("config", "--format", "json").stdout)["services"]
    named = [services[name]["image"] for name in ("daemon", "folders", "piper-tts")]
    assert named == [f"ghcr.io/owner/topicd:{target}{ending}" for target in ("embedded", "embedded", "piper")]


@contextlib.contextmanager
def replaced(docker: Engine, names: Mapping[str, str]) -> Iterator[None]:
    """Give images that cannot be pulled local ones under their names, from a Dockerfile each, for a block."""
    with in_turn("replaced"):
        there = [name for name in names if docker.run("image", "inspect", name, check=False).returncode == 0]
        if there:
            pytest.skip(f"this engine has {', '.join(there)}, and a test shall not replace them")
        try:
            for name, text in names.items():
                docker.run("build", "--file", "-", "--tag", name, str(TOP / "tests"), text=text, limit_s=BUILD_S)
            yield
        finally:
            docker.run("rmi", "--force", *names, check=False)


def test_the_profiles_servers_make_a_folder(docker: Engine, here: Project) -> None:
    text = (TOP / "tests/fakes/images/Dockerfile").read_text().replace("${BASE}", f"{NAME}:slim")
    with replaced(docker, dict.fromkeys(REPLACED, text)):
        make_a_folder_by_servers(here)


def make_a_folder_by_servers(here: Project) -> None:
    here.write_env(
        **settings("docs/DEPLOYMENT.md", "Servers beside it") | {"GPU": "none"},
        DAEMON_TARGET="slim",
        TOPICD_IMAGE_WIDTH_PX="256",
        TOPICD_IMAGE_HEIGHT_PX="256",
    )
    here.up()
    for name in ("ollama", "piper-tts", "stable-diffusion"):
        assert here.state(name)["Health"]["Status"] == "healthy", "the daemon waits for its servers"
        assert not here.state(name)["HostConfig"]["PortBindings"], "and nobody else reaches them"
    here.drop("tides.md", TOPIC.replace("scenes: 1", "scenes: 2"))
    (folder,) = here.done(1)
    said = (folder / "manifest.json").read_text()
    assert all(f'"{name}"' in said for name in ("ollama", "piper", "a1111")), said


def test_the_monitoring_of_the_page_sees_the_daemon(docker: Engine, here: Project, tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    here.write_env(
        **settings("docs/MONITORING.md", "Starting it"),
        GRAFANA_PORT=str(free_port()),
        DOCKER_SOCKET=docker.env.get("DOCKER_HOST", "/var/run/docker.sock").removeprefix("unix://"),
        JOURNAL_DIR=str(tmp_path / "journal"),
    )
    services = json.loads(here.run("--profile", "monitoring", "config", "--format", "json").stdout)["services"]
    base = docker.base_image((*PYTHON, "prometheus", "prometheus-alertmanager", "wget"))
    asked = commands("docs/MONITORING.md", "Starting it")
    assert len(asked) == 3
    with replaced(docker, {services[name]["image"]: given(base, *MONITORING[name]) for name in MONITORING}):
        here.sh("\n".join(asked))
        for name in ("daemon", *MONITORING.keys() - {"tempo"}):
            here.health("healthy", name)
        for name in MONITORING:
            assert here.state(name)["Running"], here.logs(name)
            assert here.state(name)["RestartCount"] == 0, here.logs(name)

        def told(what: str) -> str:
            url = f"http://127.0.0.1:9090/api/v1/{what}"
            return here.run("exec", "--no-TTY", "prometheus", "wget", "-qO-", url).stdout

        until(lambda: json.loads(told("query?query=topicd_ready"))["data"]["result"], "it is scraped", 60)
        assert json.loads(told("targets"))["data"]["activeTargets"][0]["health"] == "up"
        assert json.loads(told("rules"))["data"]["groups"]
        assert json.loads(told("alertmanagers"))["data"]["activeAlertmanagers"]
        machine = here.run("exec", "--no-TTY", "alloy", "cat", "/etc/machine-id").stdout
        assert machine == Path("/etc/machine-id").read_text(), "whose journal it is"
        traces = here.run("exec", "--no-TTY", "daemon", "printenv", "TOPICD_TRACES_URL").stdout
        assert traces.strip() == here.env["TOPICD_TRACES_URL"]
        published = here.state("grafana")["HostConfig"]["PortBindings"]
        assert published == {"3000/tcp": [{"HostIp": "127.0.0.1", "HostPort": here.env["GRAFANA_PORT"]}]}
        for name in set(MONITORING) - {"grafana"}:
            assert not here.state(name)["HostConfig"]["PortBindings"], name
        here.run("--profile", "*", "down", "--volumes", "--timeout", "2")


def given(base: str, user: str, folders: str, env: str, *entry: str) -> str:
    """Return a Dockerfile for what stands in for one of the monitoring's images."""
    return f"""
FROM {base}
COPY fakes/images/standin.py /standin.py
RUN install -d -o {user} -g {user} {folders}
ENV {env}
USER {user}
ENTRYPOINT {json.dumps(entry)}
"""


def test_a_dollar_reaches_the_daemon_as_the_page_writes_it(here: Project) -> None:
    page = (TOP / "docs/DEPLOYMENT.md").read_text()
    (line,) = re.findall(r"as in `(SD_PROMPT=.*?)`", page)
    name, _, value = line.partition("=")
    here.write_env(**{name: value})
    said = json.loads(here.run("config", "--format", "json").stdout)["services"]["daemon"]["environment"]
    assert said[name].replace("$$", "$") == "$prompt, $style"
