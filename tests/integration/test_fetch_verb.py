"""`topicd fetch` as a person types it."""

import asyncio
import hashlib
import io
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.file_server import FileServer
from rig.daemon import TOPICD, Home
from rig.events import until
from topicd import cli
from topicd.backends.files import Progress
from topicd.backends.models import known
from topicd.meter import Meter

DATA = random.Random(7).randbytes(2_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
LIMIT_S = 30.0


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer(DATA) as made:
        yield made


class Verb:
    """Runs `topicd fetch url` on a home."""

    def __init__(self, path: Path, server: FileServer) -> None:
        path.mkdir()
        self.home = Home(path, {})
        self.url = f"http://127.0.0.1:{server.port}/some/voice.onnx?x=1"
        self.target = path / "cache" / "voice.onnx"

    async def begin(self, *args: str, url: str = "") -> asyncio.subprocess.Process:
        command = [str(TOPICD), "fetch", "url", url or self.url, *args]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, env=self.home.env, cwd=self.home.path, stdout=pipe, stderr=pipe
        )

    async def run(self, *args: str, url: str = "") -> tuple[int | None, str, str]:
        process = await self.begin(*args, url=url)
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def verb(tmp_path: Path, server: FileServer) -> Verb:
    return Verb(tmp_path / "home", server)


async def test_it_prints_where_the_file_is(verb: Verb) -> None:
    code, out, _ = await verb.run("--sha256", SHA256.upper())
    assert (code, out) == (cli.OK, f"{verb.target}\n")
    assert verb.target.read_bytes() == DATA


async def test_it_goes_where_it_is_told(verb: Verb, tmp_path: Path) -> None:
    target = tmp_path / "models" / "mine.onnx"
    assert (await verb.run("--quiet", "--to", str(target)))[:2] == (cli.OK, f"{target}\n")
    assert target.read_bytes() == DATA


async def test_another_file_is_an_error_with_a_hint(verb: Verb) -> None:
    code, out, err = await verb.run("--sha256", "0" * 64)
    assert (code, out) == (cli.FAILED, "")
    assert SHA256 in err
    assert "hint: look for another address" in err
    assert not verb.target.exists()


@pytest.mark.parametrize("url", ["ftp://a/b", "http://a/", "http://a/.hidden", "nonsense"])
async def test_an_address_that_is_none_or_names_no_file_is_told(verb: Verb, url: str) -> None:
    code, _, err = await verb.run(url=url)
    assert code == cli.FAILED
    assert "hint:" in err
    assert "Traceback" not in err


async def test_a_digest_that_is_none_is_wrong_usage(verb: Verb) -> None:
    code, _, err = await verb.run("--sha256", "12ab")
    assert code == cli.USAGE
    assert "64 digits" in err


async def test_ctrl_c_leaves_a_part_that_the_next_call_goes_on_with(verb: Verb, server: FileServer) -> None:
    server.wrongs = [lambda _, reply: reply._replace(body=reply.body[:1_000_000], stalls=True)]
    process = await verb.begin()
    part = verb.target.with_name("voice.onnx.part")
    await until(lambda: part.exists() and part.stat().st_size == 1_000_000, "half is there", LIMIT_S)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == cli.INTERRUPTED
    assert b"the same command goes on" in err
    assert b"Traceback" not in err
    assert (await verb.run())[0] == cli.OK
    assert [asked.get("range") for asked in server.asked] == [None, "bytes=1000000-"]
    assert verb.target.read_bytes() == DATA


async def test_each_try_at_a_server_that_is_away_is_told_once(verb: Verb) -> None:
    process = await verb.begin(url="http://nowhere.invalid/voice.onnx")
    assert process.stderr
    lines = [(await asyncio.wait_for(process.stderr.readline(), LIMIT_S)).decode() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert lines[0].endswith("has a name that does not resolve; trying again in 1 s (2 of 8)\n")
    assert lines[1].endswith("has a name that does not resolve; trying again in 2 s (3 of 8)\n")


async def test_a_list_that_cannot_be_fetched_asks_about_the_network(verb: Verb) -> None:
    verb.home.env["TOPICD_VOICES_URL"] = "http://nowhere.invalid"
    done = await asyncio.to_thread(verb.home.topicd, "fetch", "voices")
    assert done.returncode == cli.FAILED
    assert "hint: is this machine online?" in done.stderr


class Terminal(io.StringIO):
    """What a person sees."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_a_line_is_not_longer_than_the_terminal_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    out = Terminal()
    Meter(out).show({"a-voice-with-a-name.onnx": Progress(note="waits for its turn")})
    (line,) = out.getvalue().removeprefix("\r\x1b[K").splitlines()
    assert len(line) == 29


def test_on_a_terminal_it_shows_bar_rate_and_time_left() -> None:
    out = Terminal()
    meter = Meter(out)
    meter._begun_s += LIMIT_S  # it counts at least the time between two looks, and here no more
    meter.show({"voice\x1b.onnx": Progress(have=1_000_000, total=2_000_000, received=1_000_000, note="a pause")})
    meter.end()
    shown = out.getvalue()
    assert shown.startswith("\r\x1b[Kvoice\\x1b.onnx  ██████████░░░░░░░░░░   50 %  1.0 of 2.0 MB  5.0 MB/s  0:00 left")
    assert shown.endswith("a pause\n")


def test_elsewhere_it_says_what_it_waits_for_once() -> None:
    out = io.StringIO()
    meter = Meter(out)
    for _ in range(3):
        meter.show({"voice.onnx": Progress(note="another process fetches it")})
    assert out.getvalue().count("\n") == 1


def test_several_have_a_line_each_which_stays_in_its_place() -> None:
    out = Terminal()
    meter = Meter(out)
    for have in (1, 2):
        meter.show({name: Progress(have=have * 1_000_000) for name in ("one", "two")})
    meter.end()
    first, second = out.getvalue().split("\x1b[1A\r")
    assert [line.split("  ")[:2] for line in first.split("\n")] == [["\r\x1b[Kone", "1.0 MB"], ["\x1b[Ktwo", "1.0 MB"]]
    assert [line.split("  ")[:2] for line in second.split("\n")[:2]] == [
        ["\x1b[Kone", "2.0 MB"],
        ["\x1b[Ktwo", "2.0 MB"],
    ]


async def test_several_come_and_one_that_does_not_keeps_no_other(verb: Verb, server: FileServer) -> None:
    server.always = lambda headers, reply: reply._replace(status=404) if "gone" in headers[":target"] else reply
    base = f"http://127.0.0.1:{server.port}"
    code, out, err = await verb.run(f"{base}/gone", f"{base}/other", url=f"{base}/one")
    cache = verb.target.parent
    assert (code, out.split()) == (cli.FAILED, [str(cache / "one"), str(cache / "other")])
    assert "gone" in err
    assert "hint:" in err
    assert (cache / "other").read_bytes() == DATA


async def test_no_more_come_at_once_than_are_wanted(verb: Verb, server: FileServer) -> None:
    server.always = lambda _, reply: reply._replace(body=reply.body[:500_000], stalls=True)
    base = f"http://127.0.0.1:{server.port}"
    process = await verb.begin(*(f"{base}/{n}" for n in range(5)), "--at-once", "3", url=f"{base}/x")
    parts = verb.target.parent
    await until(lambda: sum(part.stat().st_size == 500_000 for part in parts.glob("*.part")) == 3, "three", LIMIT_S)
    assert server.connections == 3
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == cli.INTERRUPTED


async def test_a_mirror_serves_where_the_first_does_not(verb: Verb, server: FileServer) -> None:
    server.always = lambda headers, reply: reply._replace(status=404) if "some" in headers[":target"] else reply
    mirror = f"http://127.0.0.1:{server.port}/elsewhere"
    assert (await verb.run("--mirror", mirror))[0] == cli.FAILED
    code, out, _ = await verb.run("--mirror", mirror, "--sha256", SHA256)
    assert (code, out) == (cli.OK, f"{verb.target}\n")


async def test_models_are_listed_and_one_that_is_not_known_is_told(verb: Verb) -> None:
    listed = await asyncio.to_thread(verb.home.topicd, "fetch", "models")
    assert listed.returncode == cli.OK
    assert all(name in listed.stdout for name in known())
    told = await asyncio.to_thread(verb.home.topicd, "fetch", "model", "sdxl")
    assert told.returncode == cli.FAILED
    assert "hint: nearest: sdxl-" in told.stderr


@pytest.mark.parametrize("number", ["0", "17", "-1", "two"])
async def test_a_number_at_once_that_is_none_is_wrong_usage(verb: Verb, number: str) -> None:
    assert (await verb.run("--at-once", number))[0] == cli.USAGE
