"""Voices from Piper's catalogue: listed, found, fetched, refused; against a server that has them."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.file_server import FileServer
from fakes.voices_server import VoicesServer
from rig.daemon import TOPICD, Home
from rig.events import until
from topicd import cli
from topicd.backends.catalogue import BYTES_MAX, LIST, Catalogue, parse
from topicd.backends.download import Downloads
from topicd.backends.files import Limits
from topicd.backends.trust import trust
from topicd.backends.voices import Arrivals, Voices
from topicd.durable import Durable
from topicd.errors import Awaited, Rejected, TopicdError

FABER, LESSAC = "pt_BR-faber-medium", "en_US-lessac-high"
MODEL = random.Random(3).randbytes(600_000)
DESCRIBED = b'{"language": {"code": "pt_BR"}}'
QUICK = Limits(stall_s=60.0, connect_s=20.0, tries_max=2, wait_s=0.01, free_bytes_min=0)
LIMIT_S = 30.0
TLS = trust(verify=True, ca_file=None)


@pytest.fixture
async def server() -> AsyncIterator[VoicesServer]:
    async with VoicesServer() as made:
        made.add(FABER, MODEL, DESCRIBED)
        made.add(LESSAC, MODEL[:1000], b"{}")
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "voices"


def voices_at(folder: Path, *bases: str, bytes_max: int = 10**9) -> Voices:
    durable = Durable()
    catalogue = Catalogue(folder / LIST, bases, tls=TLS, durable=durable)
    return Voices(folder, catalogue, Downloads(tls=TLS, limits=QUICK, durable=durable), bytes_max=bytes_max)


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def voices(folder: Path, server: VoicesServer) -> Voices:
    return voices_at(folder, server.url)


async def test_the_list_is_what_the_server_has(voices: Voices) -> None:
    known = await voices.listed()
    assert {name: (voice.language, voice.size_bytes) for name, voice in known.items()} == {
        FABER: ("pt-BR", len(MODEL) + len(DESCRIBED)),
        LESSAC: ("en-US", 1002),
    }


async def test_a_list_that_is_young_is_not_asked_for_again(voices: Voices, server: VoicesServer) -> None:
    await voices.listed()
    await voices.listed()
    assert len(server.asked) == 1


async def test_an_old_list_is_asked_for_with_its_validator(voices: Voices, server: VoicesServer, folder: Path) -> None:
    first = await voices.listed()
    kept = json.loads((folder / LIST).read_bytes())
    (folder / LIST).write_text(json.dumps(kept | {"asked_s": 0.0}))
    assert await voices.listed() == first
    assert await voices.listed() == first, "an answer that it has not changed makes it young"
    assert [asked.get("if-none-match", "") for asked in server.asked] == ["", kept["etag"]]


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"voices": 1}', b"[" * 100_000, b"\xff"])
async def test_a_kept_list_that_cannot_be_read_is_asked_for(voices: Voices, folder: Path, kept: bytes) -> None:
    await voices.listed()
    (folder / LIST).write_bytes(kept)
    assert FABER in await voices.listed()


async def test_without_a_server_the_kept_list_serves(folder: Path, server: VoicesServer) -> None:
    await voices_at(folder, server.url).listed()
    kept = json.loads((folder / LIST).read_bytes())
    (folder / LIST).write_text(json.dumps(kept | {"asked_s": 0.0}))
    assert FABER in await voices_at(folder, "http://127.0.0.1:9/").listed()


async def test_another_address_is_asked_when_the_first_is_away(folder: Path, server: VoicesServer) -> None:
    voices = voices_at(folder, "http://127.0.0.1:9/", server.url)
    path = await voices.get(await voices.find(FABER))
    assert path.read_bytes() == MODEL


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[1]", b"[" * 200_000, b"{" + b" " * BYTES_MAX])
async def test_what_is_no_list_is_told(folder: Path, body: bytes) -> None:
    async with FileServer(body) as server:
        with pytest.raises(TopicdError) as told:
            await voices_at(folder, f"http://127.0.0.1:{server.port}").listed()
    assert told.value.cause in {"bad_answer", "answer_too_large"}
    assert not (folder / LIST).exists()


@pytest.mark.parametrize(
    "path",
    ["/etc/x.onnx", "../../x.onnx", "a/../x.onnx", "a//x.onnx", "a/x\n.onnx", "http://other/x.onnx", "x?y/x.onnx"],
)
def test_an_entry_that_leads_elsewhere_is_left_out(path: str) -> None:
    sound = {"size_bytes": 1, "md5_digest": "0" * 32}
    entry = {"language": {"code": "en_US"}, "files": {path: sound, f"{path}.json": sound}}
    fine = {"language": {"code": "en_US"}, "files": {"a/x.onnx": sound, "a/x.onnx.json": sound}}
    assert list(parse({"x": fine})) == ["x"]
    assert not parse({"x": entry})


@pytest.mark.parametrize(
    "wrong", [{"size_bytes": -1}, {"size_bytes": "1"}, {"md5_digest": "x"}, {"size_bytes": 10**12}]
)
def test_an_entry_whose_numbers_are_none_is_left_out(wrong: dict[str, object]) -> None:
    sound = {"size_bytes": 1, "md5_digest": "0" * 32, **wrong}
    assert not parse({"x": {"language": {"code": "en"}, "files": {"x.onnx": sound, "x.onnx.json": sound}}})
    assert not parse({"x": None, "y": {}, "../z": {"files": {}}})


async def test_a_name_that_nobody_has_is_refused_with_the_nearest(voices: Voices) -> None:
    with pytest.raises(Rejected) as told:
        await voices.find("pt_BR-fabre-medium")
    assert told.value.cause == "voice_unknown"
    assert FABER in told.value.hint


async def test_a_voice_that_is_new_is_found_though_the_list_is_young(
    voices: Voices, server: VoicesServer, folder: Path
) -> None:
    await voices.listed()
    server.add("de_DE-thorsten-low", b"x", b"{}")
    kept = json.loads((folder / LIST).read_bytes())
    (folder / LIST).write_text(json.dumps(kept | {"asked_s": kept["asked_s"] - 120}))
    assert (await voices.find("de_DE-thorsten-low")).size_bytes == 3


async def test_a_voice_comes_whole_or_not_at_all(voices: Voices, server: VoicesServer, folder: Path) -> None:
    server.files[f"pt/pt_BR/faber/medium/{FABER}.onnx"] = MODEL[:-1] + b"?"
    voice = await voices.find(FABER)
    with pytest.raises(TopicdError) as told:
        await voices.get(voice)
    assert told.value.cause == "digest_mismatch"
    assert not voices.has(FABER)
    server.files[f"pt/pt_BR/faber/medium/{FABER}.onnx"] = MODEL
    assert (await voices.get(voice)).read_bytes() == MODEL
    assert voices.has(FABER)
    assert {path.name for path in files_in(folder)} == {LIST, f"{FABER}.onnx", f"{FABER}.onnx.json"}


async def test_voices_have_a_limit(folder: Path, server: VoicesServer) -> None:
    voices = voices_at(folder, server.url, bytes_max=len(MODEL))
    await voices.get(await voices.find(LESSAC))
    with pytest.raises(Rejected) as told:
        await voices.get(await voices.find(FABER))
    assert told.value.cause == "voices_full"
    await voices.get(await voices.find(LESSAC))


async def told_at_last(arrivals: Arrivals, name: str, wanted: str) -> TopicdError:
    """Ask until the message has these words."""
    end = asyncio.get_running_loop().time() + LIMIT_S
    while wanted not in (told := await arrivals.wanted(name)).message:
        assert asyncio.get_running_loop().time() < end, told.message
        await asyncio.sleep(0.02)
    return told


async def test_a_missing_voice_arrives_while_nobody_waits_in_a_call(voices: Voices, server: VoicesServer) -> None:
    arrivals = Arrivals(voices)
    server.wrongs = [
        lambda _, reply: reply,
        lambda _, reply: reply,
        lambda _, reply: reply._replace(body=reply.body[:300_000], stalls=True),
    ]
    told = await told_at_last(arrivals, FABER, "50 % of 1 MB")
    assert isinstance(told, Awaited)
    assert [(each.name, each.have, each.total) for each in arrivals.downloads()] == [(FABER, 300_000, 600_000)]
    server.hangs_up.set()
    await until(lambda: voices.has(FABER), "it is there", LIMIT_S)
    await until(lambda: not arrivals.downloads(), "nothing is fetched any more", LIMIT_S)
    assert [asked.get("range") for asked in server.asked_for(".onnx")] == [None, "bytes=300000-"]
    await arrivals.aclose()


async def test_many_who_miss_it_cost_one_fetch(voices: Voices, server: VoicesServer) -> None:
    arrivals = Arrivals(voices)
    told = await asyncio.gather(*(arrivals.wanted(FABER) for _ in range(20)))
    assert all(isinstance(each, Awaited) for each in told)
    await until(lambda: voices.has(FABER), "it is there", LIMIT_S)
    assert len(server.asked_for(".onnx")) == 1
    await arrivals.aclose()


async def test_one_that_fails_is_left_alone_for_a_while_and_then_tried_again(
    voices: Voices, server: VoicesServer
) -> None:
    arrivals = Arrivals(voices, again_s=3600.0)
    server.always = lambda headers, reply: (
        reply._replace(status=503, body=b"") if ".onnx" in headers[":target"] else reply
    )
    told = await told_at_last(arrivals, FABER, "could not be fetched")
    assert isinstance(told, Awaited), "it is no fault of the job"
    asked = len(server.asked)
    assert "503" in (await arrivals.wanted(FABER)).message
    assert len(server.asked) == asked
    server.always = None
    arrivals._fetches[FABER].again_at_s = 0.0
    await told_at_last(arrivals, FABER, "is being fetched")
    await until(lambda: voices.has(FABER), "it is there", LIMIT_S)
    await arrivals.aclose()


async def test_without_any_server_the_job_waits_and_the_servers_are_left_alone(folder: Path) -> None:
    async with VoicesServer() as server:
        server.always = lambda _, reply: reply._replace(status=503, body=b"")
        arrivals = Arrivals(voices_at(folder, server.url), again_s=30)
        for _ in range(3):
            assert isinstance(await arrivals.wanted(FABER), Awaited)
        assert len(server.asked) == 1


async def test_an_unknown_voice_is_refused_at_once(voices: Voices) -> None:
    arrivals = Arrivals(voices)
    told = await arrivals.wanted("pt_BR-nobody-low")
    assert isinstance(told, Rejected)
    assert not arrivals.downloads()


async def test_closing_stops_and_keeps_what_is_there(voices: Voices, server: VoicesServer, folder: Path) -> None:
    arrivals = Arrivals(voices)
    server.always = lambda _, reply: reply._replace(body=reply.body[:300_000], stalls=len(reply.body) > 300_000)
    await told_at_last(arrivals, FABER, "50 %")
    await arrivals.aclose()
    await arrivals.aclose()
    assert not arrivals.downloads()
    assert (folder / f"{FABER}.onnx.part").stat().st_size == 300_000


class Verb:
    """Runs `topicd fetch` on a home whose voices come from the server."""

    def __init__(self, path: Path, server: VoicesServer) -> None:
        self.home = Home(path, {"TOPICD_VOICES_URL": server.url})

    async def run(self, *args: str) -> tuple[int | None, str, str]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(TOPICD), "fetch", *args, env=self.home.env, cwd=self.home.path, stdout=pipe, stderr=pipe
        )
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def verb(tmp_path: Path, server: VoicesServer) -> Verb:
    return Verb(tmp_path, server)


async def test_the_verb_lists_voices_by_language(verb: Verb, folder: Path) -> None:
    code, out, _ = await verb.run("voices")
    assert code == cli.OK
    assert [line.split()[:2] for line in out.splitlines()] == [[LESSAC, "en-US"], [FABER, "pt-BR"]]
    for tag in ("pt-BR", "pt", "PT_br"):
        assert [line.split()[0] for line in (await verb.run("voices", "--language", tag))[1].splitlines()] == [FABER]
    code, _, err = await verb.run("voices", "--language", "p")
    assert code == cli.FAILED
    assert "en-US, pt-BR" in err
    assert (await verb.run("voice", FABER))[:2] == (cli.OK, f"{folder / FABER}.onnx\n")
    assert (await verb.run("voices", "--language", "pt"))[1].endswith("here\n")
    told = json.loads((await verb.run("voices", "--json"))[1])
    assert {each["name"]: each["is_here"] for each in told} == {FABER: True, LESSAC: False}


async def test_the_verb_gets_what_there_is_and_names_what_is_near(verb: Verb, folder: Path) -> None:
    code, out, err = await verb.run("voice", "--quiet", LESSAC, "pt_BR-faber-hi")
    assert (code, out) == (cli.FAILED, f"{folder / LESSAC}.onnx\n")
    assert f"nearest: {FABER}" in err
