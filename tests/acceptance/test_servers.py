"""The installed daemon with servers: a pool, outages, secrets, languages, one GPU for two, and `check`."""

import base64
import contextlib
import io
import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from fakes.a1111_server import A1111Server
from fakes.ollama_server import OllamaServer, script_answer
from fakes.piper_server import PiperServer, tone
from fakes.serving import Serving
from rig.afield import Afield, afield
from rig.daemon import FAKES, QUICK, Daemon, Home, load, running, until

BASE = {
    **FAKES,
    **QUICK,
    "TOPICD_DOWN_MAX_S": "1",
    "TOPICD_SCENES": "2",
    "TOPICD_SCRIPT_BACKEND": "auto",
    "OLLAMA_MODEL": "tiny",
}
SPOKEN = {"TOPICD_AUDIO_BACKEND": "auto"}
DRAWN = {"TOPICD_IMAGE_BACKEND": "auto", "SD_ENABLED": "true"}


@pytest.fixture
def servers() -> Iterator[Afield]:
    with afield() as found:
        yield found


@pytest.fixture
def make_home(tmp_path: Path) -> Callable[..., Home]:
    def made(**env: str) -> Home:
        path = tmp_path / "home"
        path.mkdir(exist_ok=True)
        return Home(path, {**BASE, **env})

    return made


def ollama(servers: Afield, *, gap_s: float = 0.0) -> OllamaServer:
    server = OllamaServer(answers=(script_answer(2),))
    server.pieces_gap_s = gap_s
    servers.up(server)
    return server


def photograph() -> bytes:
    """Return a picture that is not all one colour."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    return buffer.getvalue()


def piper(servers: Afield, *voices: str) -> PiperServer:
    server = PiperServer(voices=voices or ("en_US-joe-medium",))
    server.wav = tone(44_100)
    servers.up(server)
    return server


def images(servers: Afield) -> A1111Server:
    server = A1111Server()
    server.image = photograph()
    servers.up(server)
    return server


def get(daemon: Daemon, path: str) -> str:
    lock = load(daemon.home.spool / "lock.json") if (daemon.home.spool / "lock.json").exists() else None
    told = lock or status(daemon.home)["daemon"]
    url = f"http://127.0.0.1:{told['port']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.read().decode()


def status(home: Home) -> Any:
    return json.loads(home.topicd("status", "--json").stdout)


def chats(server: Serving) -> int:
    return len(server.bodies("/api/chat"))


def test_a_pool_shares_the_work_and_survives_its_members(servers: Afield, make_home: Callable[..., Home]) -> None:
    one, two = ollama(servers, gap_s=0.02), ollama(servers, gap_s=0.02)
    home = make_home(OLLAMA_BASE_URL=f"{one.url},{two.url}")
    with running(home) as daemon:
        for number in range(8):
            home.drop(f"first-{number}.md", f"# Topic {number}\n")
        until(lambda: len(home.ids("output")) == 8, "eight are done")
        assert chats(one) >= 2
        assert chats(two) >= 2, "both work at once"

        servers.down(one)
        for number in range(8):
            home.drop(f"second-{number}.md", f"# Topic {number}\n")
        down = daemon.event("server.down", stage="scripts")
        assert down["server"] in one.url
        until(lambda: len(home.ids("output")) == 16, "the other one does the work")
        states = {server["server"]: server for server in status(home)["servers"]}
        assert states[one.url.removeprefix("http://")]["state"] != "closed"
        assert states[one.url.removeprefix("http://")]["since"]
        assert states[two.url.removeprefix("http://")]["state"] == "closed"
        assert json.loads(get(daemon, "/readyz"))["ok"], "the stage does not wait"

        servers.up(one)
        before = chats(one)
        for number in range(8):
            home.drop(f"third-{number}.md", f"# Topic {number}\n")
        daemon.event("server.up", stage="scripts")
        until(lambda: len(home.ids("output")) == 24, "all are done")
        assert chats(one) > before
        assert home.ids("failed") == []
        assert not daemon.events("job.deferred")
        assert daemon.stop() == 0


def test_an_outage_costs_no_attempt_and_is_told(servers: Afield, make_home: Callable[..., Home]) -> None:
    server = ollama(servers)
    servers.down(server)
    home = make_home(OLLAMA_BASE_URL=server.url)
    with running(home) as daemon:
        for number in range(5):
            home.drop(f"{number}.md", f"# Topic {number}\n")
        daemon.event("backend.unavailable", stage="scripts", backend="ollama")
        told = json.loads(get(daemon, "/readyz"))
        assert not told["ok"]
        assert "scripts waits" in told["why"][0]
        assert ", since 2" in told["why"][0]
        assert told["waits"] == [{"what": "scripts", "cause": "connect_refused"}]
        [state] = status(home)["servers"]
        assert (state["stage"], state["server"]) == ("scripts", server.url.removeprefix("http://"))
        assert state["state"] in ("open", "half-open")
        assert state["since"]
        assert "refuses connections" in state["trouble"]
        assert "refuses connections" in home.topicd("status").stdout
        until(lambda: len(daemon.events("backend.unavailable")) >= 4, "it was asked again and again")
        servers.up(server)
        until(lambda: len(home.ids("output")) == 5, "all are done")
        assert home.ids("failed") == []
        assert {event["attempt"] for event in daemon.events("stage.started")} == {1}
        assert daemon.stop() == 0


SECRET = "hunter2-s3cr3t"  # noqa: S105 - it is looked for
BASIC = base64.b64encode(f"joe:{SECRET}".encode()).decode()


def parrot(server: Serving, status: int) -> list[dict[str, str]]:
    """Have a server refuse everything, and repeat in its words all it was sent; return what it was sent."""
    seen = list[dict[str, str]]()

    @web.middleware
    async def refuse(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        del handler
        seen.append(dict(request.headers))
        words = f"no entry for {dict(request.headers)} {request.url}"
        return web.json_response({"error": words, "detail": words}, status=status)

    server.app.middlewares.append(refuse)
    return seen


def everything(home: Home, daemon: Daemon) -> Iterator[tuple[str, str]]:
    """Yield all that a person, a log or a scraper gets to see, and all files of the home but the secret's own."""
    yield "log", daemon._log_path.read_text()
    for path in ("/metrics", "/readyz", "/healthz", "/"):
        yield path, get(daemon, path)
    for verb in (["status"], ["status", "--json"], ["check"], ["check", "--json"], ["fsck"]):
        done = home.topicd(*verb)
        yield " ".join(verb), done.stdout + done.stderr
    for place in ("scripts", "audio", "images", "failed", "output"):
        for name in home.ids(place):
            yield f"show {name}", home.topicd("show", name, "--json").stdout + home.topicd("show", name).stdout
    for file in home.path.rglob("*"):
        if file.is_file() and file.name != "secret":
            with contextlib.suppress(FileNotFoundError):
                yield str(file), file.read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("way", ["token", "password"])
@pytest.mark.parametrize("code", [400, 401, 404, 422, 500, 502, 503])
def test_a_secret_is_told_nowhere(
    servers: Afield, make_home: Callable[..., Home], code: int, way: str, tmp_path: Path
) -> None:
    server = OllamaServer(answers=(script_answer(2),))
    seen = parrot(server, code)
    servers.up(server)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    url = server.url.replace("//", f"//joe:{SECRET}@")
    env = {"OLLAMA_BASE_URL": server.url, "OLLAMA_TOKEN_FILE": f"{tmp_path}/secret"}
    home = make_home(
        **(env if way == "token" else {"OLLAMA_BASE_URL": url}),
        OLLAMA_HEADERS=json.dumps({"X-Api-Key": SECRET}),
        TOPICD_ATTEMPTS_MAX="1",
        TOPICD_LOG_LEVEL="debug",
    )
    with running(home) as daemon:
        home.drop("a.md", "# Tides\n")
        until(lambda: daemon.events("backend.unavailable") or daemon.events("job.failed"), "it has been refused")
        sent = {headers["Authorization"] for headers in seen}
        assert sent == {f"Bearer {SECRET}" if way == "token" else f"Basic {BASIC}"}
        assert {headers["X-Api-Key"] for headers in seen} == {SECRET}
        for where, text in everything(home, daemon):
            assert SECRET not in text, where
            assert BASIC not in text, where
        assert daemon.stop() == 0


def test_a_secret_is_not_in_what_is_made(servers: Afield, make_home: Callable[..., Home]) -> None:
    one, two, three = ollama(servers), piper(servers), images(servers)

    def with_password(server: Serving) -> str:
        return server.url.replace("//", f"//joe:{SECRET}@")

    home = make_home(
        **SPOKEN,
        **DRAWN,
        OLLAMA_BASE_URL=one.url,
        TTS_BASE_URL=with_password(two),
        SD_BASE_URL=with_password(three),
        OLLAMA_TOKEN=SECRET,
        SD_HEADERS=json.dumps({"X-Api-Key": SECRET}),
        TOPICD_LOG_LEVEL="debug",
    )
    with running(home) as daemon:
        home.drop("a.md", "# Tides\n")
        daemon.event("job.done")
        for where, text in everything(home, daemon):
            assert SECRET not in text, where
        assert daemon.stop() == 0
    assert three.asked


CANARY = "Zanzibar's tortoises outlive their keepers"
TOLD = f"---\nscenes: 2\n---\n# {CANARY} one\n\nOf those who come after: {CANARY} two.\n"


def gossip(server: Serving, status: int) -> None:
    """Have a server refuse everything, and repeat in its words all that it was asked, as validators do."""

    @web.middleware
    async def refuse(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.method == "GET":
            return await handler(request)
        asked = json.dumps(await request.json(), ensure_ascii=False)
        return web.json_response({"error": f"cannot take {asked[asked.index('Zanzibar') - 30 :]}"}, status=status)

    server.app.middlewares.append(refuse)


@pytest.mark.parametrize("status", [None, 400, 422, 500])
def test_a_topics_text_is_not_in_the_log(servers: Afield, make_home: Callable[..., Home], status: int | None) -> None:
    server = OllamaServer(answers=(script_answer(2, title=f"{CANARY} three"),))
    if status:
        gossip(server, status)
    servers.up(server)
    home = make_home(OLLAMA_BASE_URL=server.url, TOPICD_ATTEMPTS_MAX="1")
    with running(home) as daemon:
        home.drop("a.md", TOLD)
        until(lambda: daemon.events("job.failed") or daemon.events("job.done"), "it has ended")
        assert CANARY in json.dumps(server.asked) or status
        for told in (daemon._log_path.read_text(), get(daemon, "/metrics"), get(daemon, "/readyz")):
            for start in range(len(CANARY) - 20):
                assert CANARY[start : start + 20] not in told
        assert bool(daemon.events("job.done")) == (status is None)
        assert daemon.stop() == 0


def test_unverified_certificates_are_warned_of(servers: Afield, make_home: Callable[..., Home]) -> None:
    home = make_home(OLLAMA_BASE_URL=ollama(servers).url, SSL_VERIFY="false")
    with running(home) as daemon:
        daemon.event("tls.unverified")
        assert status(home)["warnings"] == ["certificates of servers are not checked (SSL_VERIFY=false)"]
        assert "warning: certificates of servers are not checked" in home.topicd("status").stdout
        assert daemon.stop() == 0
    with running(home, SSL_VERIFY="true") as daemon:
        assert status(home)["warnings"] == []
        assert not daemon.events("tls.unverified")


def test_each_language_has_its_prompt_and_its_voice(servers: Afield, make_home: Callable[..., Home]) -> None:
    writer, speaker = ollama(servers), piper(servers, "en_US-joe-medium", "pt_BR-faber-medium", "other")
    home = make_home(**SPOKEN, OLLAMA_BASE_URL=writer.url, TTS_BASE_URL=speaker.url, TTS_VOICE="en_US-joe-medium")
    (home.path / "prompts").mkdir()
    (home.path / "prompts" / "en.txt").write_text("My own words on $title, $scenes scenes. $schema\n")
    assert home.topicd("prompt").stdout.startswith("My own words on $title")
    assert "português do Brasil" in home.topicd("prompt", "pt-BR").stdout
    topics = {
        "a": ("# Tides\n", "My own words on Tides", "en_US-joe-medium"),
        "b": ("---\nlanguage: pt-BR\n---\n# Marés\n", "Escreva exatamente 2 cenas", "pt_BR-faber-medium"),
        "c": ("---\nlanguage: pt-BR\nvoice: other\n---\n# Marés\n", "português do Brasil", "other"),
    }
    for name, (text, prompt, voice) in topics.items():
        home.drop(f"{name}.md", text)
        assert home.topicd("run", "--once").returncode == 0
        assert prompt in writer.bodies("/api/chat")[-1]["messages"][0]["content"]
        assert {body["voice"] for body in speaker.bodies("/synthesize")[-2:]} == {voice}


def test_a_prompt_that_cannot_be_used_is_told(servers: Afield, make_home: Callable[..., Home]) -> None:
    home = make_home(OLLAMA_BASE_URL=ollama(servers).url)
    (home.path / "prompts").mkdir()
    (home.path / "prompts" / "en.txt").write_text("About $titel\n")
    done = home.topicd("prompt")
    assert done.returncode == 78
    assert "titel" in done.stderr
    with running(home) as daemon:
        home.drop("a.md", "# Tides\n")
        assert "titel" in str(daemon.event("backend.unavailable")["error"])
        (home.path / "prompts" / "en.txt").write_text("About $title\n")
        daemon.event("job.done")


class Memory:
    """The one GPU's: who has loaded a model keeps it until told to free it, and nobody else loads one meanwhile."""

    def __init__(self) -> None:
        self.holder = ""
        self.refusals = 0
        self.frees = list[str]()

    def of(self, name: str, work: str, free: str) -> Any:
        @web.middleware
        async def held(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if request.path == free:
                self.frees.append(name)
                self.holder = "" if self.holder == name else self.holder
                return web.json_response({"done": True})
            if request.path == work:
                if self.holder not in ("", name):
                    self.refusals += 1
                    return web.json_response({"error": "CUDA out of memory"}, status=500)
                self.holder = name
            return await handler(request)

        return held


@pytest.mark.parametrize("exclusive", [True, False])
def test_one_gpu_is_shared_in_turns(servers: Afield, make_home: Callable[..., Home], *, exclusive: bool) -> None:
    memory = Memory()
    writer, drawer = OllamaServer(answers=(script_answer(2),)), A1111Server()
    drawer.image = photograph()
    writer.app.middlewares.append(memory.of("writer", "/api/chat", "/api/generate"))
    drawer.app.middlewares.append(memory.of("drawer", "/sdapi/v1/txt2img", "/sdapi/v1/unload-checkpoint"))
    servers.up(writer)
    servers.up(drawer)
    home = make_home(
        **DRAWN,
        OLLAMA_BASE_URL=writer.url,
        SD_BASE_URL=drawer.url,
        TOPICD_GPU_EXCLUSIVE=str(exclusive).lower(),
        TOPICD_ATTEMPTS_MAX="100",
    )
    for number in range(6):
        home.drop(f"{number}.md", f"# Topic {number}\n")
    with running(home) as daemon:
        if exclusive:
            until(lambda: len(home.ids("output")) == 6, "all are done")
            assert memory.refusals == 0
            assert memory.frees
            assert daemon.events("gpu.passed")
        else:
            until(lambda: memory.refusals, "without turns one refuses the other")


class TestCheck:
    def test_every_server_has_its_line(self, servers: Afield, make_home: Callable[..., Home]) -> None:
        one, two, speaker, drawer = ollama(servers), ollama(servers), piper(servers), images(servers)
        home = make_home(
            **SPOKEN,
            **DRAWN,
            OLLAMA_BASE_URL=f"{one.url},{two.url}",
            TTS_BASE_URL=speaker.url,
            SD_BASE_URL=drawer.url,
            OPENAI_BASE_URL="http://elsewhere/v1",
        )
        done = home.topicd("check")
        assert done.returncode == 0, done.stdout + done.stderr
        for server in (one, two, speaker, drawer):
            [line] = [line for line in done.stdout.splitlines() if server.url.removeprefix("http://") in line]
            assert line.startswith("ok ")
            assert line.endswith(" s)")
        assert "OPENAI_BASE_URL is set and not used" in done.stdout
        checks = json.loads(home.topicd("check", "--json").stdout)
        assert checks["ok"]
        assert {check["name"] for check in checks["checks"]} == {"home", "disk", "scripts", "audio", "images", "unused"}
        assert all(check["seconds"] > 0 for check in checks["checks"] if check["name"] in ("scripts", "audio"))

    def test_one_of_several_that_is_down_is_a_fault(self, servers: Afield, make_home: Callable[..., Home]) -> None:
        one, two = ollama(servers), ollama(servers)
        servers.down(two)
        done = make_home(OLLAMA_BASE_URL=f"{one.url},{two.url}").topicd("check")
        assert done.returncode == 1
        [line] = [line for line in done.stdout.splitlines() if line.startswith("BAD")]
        assert two.url.removeprefix("http://") in line
        assert "hint: check that the server runs" in done.stdout

    @pytest.mark.parametrize(
        ("env", "words"),
        [
            ({"OLLAMA_MODEL": "huge"}, "it has: tiny:latest"),
            ({"TTS_VOICE": "nobody"}, "no voice 'nobody'"),
            ({"TOPICD_LANGUAGE": "pt-BR"}, "no voice 'pt_BR-faber-medium'"),
            ({"SD_MODEL": "huge"}, "no model 'huge'"),
            ({"TOPICD_SCRIPT_BACKEND": "embedded", "TOPICD_LANGUAGE": "pt-BR"}, "it writes en, not pt-BR"),
        ],
    )
    def test_what_a_server_lacks_is_told_with_what_it_has(
        self, servers: Afield, make_home: Callable[..., Home], env: dict[str, str], words: str
    ) -> None:
        writer, speaker, drawer = ollama(servers), piper(servers), images(servers)
        urls = {"OLLAMA_BASE_URL": writer.url, "TTS_BASE_URL": speaker.url, "SD_BASE_URL": drawer.url}
        done = make_home(**{**SPOKEN, **DRAWN, **urls, **env}).topicd("check")
        assert done.returncode == 1
        assert words in done.stdout, done.stdout
        assert "hint: " in done.stdout
