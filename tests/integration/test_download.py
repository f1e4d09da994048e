"""Downloads against servers that keep to RFC 9110, and against servers that do not."""

import asyncio
import hashlib
import json
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.file_server import FileServer, Reply, Wrong
from rig.events import LIMIT_S, until
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits, Progress
from topicd.backends.part import Part
from topicd.durable import Durable
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable

DATA = random.Random(5).randbytes(3_000_000)
OTHER = random.Random(6).randbytes(3_000_000)
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
SWIFT = Limits(connect_s=20, stall_s=60, total_s=LIMIT_S, tries_max=3, anew_max=2, wait_s=0.01, free_bytes_min=0)
SHORT_OF_PATIENCE = replace(SWIFT, stall_s=2)
HALF = len(DATA) // 2


def less(count: int) -> Wrong:
    """Break off before so many bytes of the body."""
    return lambda _, reply: reply._replace(body=reply.body[:-count])


def saying(**headers: str) -> Wrong:
    """Say other headers; an empty one is left out."""

    def wrong(_: dict[str, str], reply: Reply) -> Reply:
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        said = {name: value for name, value in {**reply.headers, **named}.items() if value}
        return reply._replace(headers=said)

    return wrong


def whole(_: dict[str, str], reply: Reply) -> Reply:
    """Ignore the range, as a proxy may."""
    return Reply(200, {"Content-Length": str(len(DATA)), "ETag": '"one"'}, DATA) if reply.status == 206 else reply


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer(DATA) as made:
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "voice.onnx"


class Rig:
    """Fetches one target."""

    def __init__(self, target: Path, limits: Limits = SWIFT) -> None:
        self.target = target
        self.limits = limits
        self.progress = Progress()

    async def fetch(self, *servers: FileServer, digest: str = "", size: int | None = None) -> bytes:
        downloads = Downloads(tls=ssl.create_default_context(), limits=self.limits)
        urls = [f"http://127.0.0.1:{server.port}/voice.onnx?signed=yes" for server in servers]
        try:
            async with asyncio.timeout(LIMIT_S):
                path = await downloads.fetch(File(self.target, urls, digest, size), self.progress)
        finally:
            downloads.close()
        return path.read_bytes()

    def left(self) -> set[str]:
        return {path.name for path in self.target.parent.iterdir()}

    def record(self) -> dict[str, object]:
        found = json.loads(self.target.with_name("voice.onnx.part.json").read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def rig(target: Path) -> Rig:
    return Rig(target)


async def half_done(rig: Rig, server: FileServer, digest: str = "") -> None:
    """Leave half of the file as a part."""
    before, server.always = server.always, None
    server.wrongs = [less(len(DATA) - HALF), *[lambda _, reply: reply._replace(status=404)] * 9]
    with pytest.raises(TopicdError):
        await rig.fetch(server, digest=digest)
    assert rig.record()["synced"] == HALF
    server.wrongs, server.always = [], before
    server.asked.clear()
    rig.progress = Progress()


async def test_a_file_arrives_whole_and_leaves_nothing_beside_it(rig: Rig, server: FileServer) -> None:
    assert await rig.fetch(server, digest=DIGEST, size=len(DATA)) == DATA
    assert rig.left() == {"voice.onnx"}
    assert (rig.progress.have, rig.progress.total, rig.progress.digest) == (len(DATA), len(DATA), DIGEST)
    assert server.asked[0]["accept-encoding"] == "identity"
    assert "range" not in server.asked[0]


async def test_what_is_there_is_not_asked_for_again(rig: Rig, server: FileServer) -> None:
    rig.target.write_bytes(DATA)
    assert await rig.fetch(server, digest=DIGEST) == DATA
    assert server.asked == []


async def test_what_a_killed_writer_left_beside_a_finished_file_goes(rig: Rig, server: FileServer) -> None:
    rig.target.write_bytes(DATA)
    for name in ("voice.onnx.part.json", ".voice.onnx.part.json.12ab.tmp"):
        rig.target.with_name(name).write_bytes(b"{")
    rig.target.with_name("voice.json").write_bytes(b"{")
    assert await rig.fetch(server, digest=DIGEST) == DATA
    assert rig.left() == {"voice.onnx", "voice.json"}


async def test_another_file_by_that_name_is_told_and_left(rig: Rig, server: FileServer) -> None:
    rig.target.write_bytes(OTHER)
    with pytest.raises(Unusable, match="another file"):
        await rig.fetch(server, digest=DIGEST)
    assert rig.target.read_bytes() == OTHER


@pytest.mark.parametrize("digest", ["", DIGEST])
async def test_what_is_no_file_is_never_taken_for_it(rig: Rig, server: FileServer, digest: str) -> None:
    rig.target.mkdir()
    with pytest.raises(Unusable, match="another file"):
        await rig.fetch(server, digest=digest)
    assert server.asked == []


async def test_a_cut_is_gone_on_with(rig: Rig, server: FileServer) -> None:
    server.wrongs = [less(len(DATA) - HALF)]
    assert await rig.fetch(server) == DATA
    assert [asked.get("range") for asked in server.asked] == [None, f"bytes={HALF}-"]
    assert server.asked[1]["if-range"] == '"one"'
    assert (rig.progress.resumed, rig.progress.received) == (1, len(DATA))


async def test_another_run_goes_on_where_the_last_one_ended(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    assert await rig.fetch(server) == DATA
    assert [asked["range"] for asked in server.asked] == [f"bytes={HALF}-"]
    assert rig.progress.received == len(DATA) - HALF


async def test_a_part_is_cut_to_what_its_record_vouches_for(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    with rig.target.with_name("voice.onnx.part").open("ab") as part:
        part.write(b"\0" * 70_000)
    assert await rig.fetch(server) == DATA


async def test_a_file_that_changed_in_between_is_never_mixed(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    server.data, server.etag = OTHER, '"two"'
    assert await rig.fetch(server) == OTHER


@pytest.mark.parametrize("digest", ["the same", "a new one"])
async def test_a_large_part_thrown_away_while_it_is_hashed_costs_nothing_else(rig: Rig, digest: str) -> None:
    large = random.Random(8).randbytes(1_000_000) * 48
    wanted = f"sha256:{hashlib.sha256(large).hexdigest()}"
    async with FileServer(large, '"two"') as server:
        part = Part.hold(rig.target, Durable())
        assert part is not None
        url, known = f"http://127.0.0.1:{server.port}/voice.onnx", wanted if digest == "the same" else ""
        part.begin(url, validator='"one"', total=len(large), digest=known)
        part.append(large[::-1][:-1])
        part.checkpoint()
        part.close()
        assert await rig.fetch(server, digest=wanted) == large
        assert len(server.asked) == 1
        assert rig.progress.digest == wanted


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
async def test_without_a_strong_validator_it_begins_again(rig: Rig, server: FileServer, etag: str) -> None:
    server.etag = etag
    await half_done(rig, server)
    assert await rig.fetch(server) == DATA
    assert all("range" not in asked for asked in server.asked)


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
async def test_a_digest_does_in_its_place(rig: Rig, server: FileServer, etag: str) -> None:
    server.etag = etag
    await half_done(rig, server, DIGEST)
    assert await rig.fetch(server, digest=DIGEST) == DATA
    assert [asked["range"] for asked in server.asked] == [f"bytes={HALF}-"]
    assert "if-range" not in server.asked[0]


async def test_with_a_digest_what_was_mixed_is_found_out_and_fetched_anew(rig: Rig, server: FileServer) -> None:
    server.etag = ""
    await half_done(rig, server, DIGEST)
    part = rig.target.with_name("voice.onnx.part")
    part.write_bytes(OTHER[:HALF])
    assert await rig.fetch(server, digest=DIGEST) == DATA


async def test_a_proxy_that_ignores_the_range_costs_a_beginning_and_no_mixture(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    server.always = whole
    assert await rig.fetch(server) == DATA


async def test_a_server_that_begins_again_for_ever_is_left(rig: Rig, server: FileServer) -> None:
    server.always = lambda headers, reply: less(1_000_000)(headers, whole(headers, reply))
    with pytest.raises(RetryLater):
        await rig.fetch(server)
    assert len(server.asked) <= 2 + SWIFT.tries_max
    assert rig.left() == {"voice.onnx.part", "voice.onnx.part.json"}


@pytest.mark.parametrize(
    "wrong",
    [
        saying(content_range=f"bytes {HALF - 1}-{len(DATA) - 1}/{len(DATA)}", content_length=""),
        saying(content_range=f"bytes {HALF}-{len(DATA) - 1}/{len(DATA) + 1}"),
        saying(content_range=f"bytes {HALF}-{len(DATA) - 1}/*"),
        saying(content_range="bytes nonsense"),
        saying(content_range=""),
        saying(content_range=f"bytes {HALF}-{len(DATA) + 9}/{len(DATA)}"),
        saying(content_length="17"),
        saying(etag='"another"'),
        lambda _, reply: reply._replace(status=200),
        lambda _, reply: Reply(416, {"Content-Range": "bytes */7", "Content-Length": "0"}, reply.body[:0]),
    ],
    ids=["earlier", "longer", "unknown", "nonsense", "none", "beyond", "length", "etag", "200 of a part", "416"],
)
async def test_a_part_that_does_not_fit_is_not_appended(rig: Rig, server: FileServer, wrong: Wrong) -> None:
    await half_done(rig, server)
    server.wrongs = [wrong]
    assert await rig.fetch(server) == DATA
    assert [asked.get("range") for asked in server.asked] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "wrong", [saying(content_type="multipart/byteranges; boundary=x"), saying(content_encoding="gzip")]
)
async def test_what_cannot_be_read_is_tried_again_from_there(rig: Rig, server: FileServer, wrong: Wrong) -> None:
    await half_done(rig, server)
    server.wrongs = [wrong]
    assert await rig.fetch(server) == DATA
    assert [asked.get("range") for asked in server.asked] == [f"bytes={HALF}-"] * 2


async def test_all_there_and_416_is_done(rig: Rig, server: FileServer) -> None:
    server.wrongs = [saying(content_length="")]  # ends with its connection, so its length is not known
    assert await rig.fetch(server, digest=DIGEST) == DATA


async def test_a_body_without_a_length_is_no_success_when_cut(rig: Rig, server: FileServer) -> None:
    server.wrongs = [lambda headers, reply: saying(content_length="")(headers, less(HALF)(headers, reply))]
    assert await rig.fetch(server, digest=DIGEST) == DATA
    assert len(server.asked) == 2


async def test_a_body_without_length_and_digest_is_refused(rig: Rig, server: FileServer) -> None:
    server.always = saying(content_length="")
    with pytest.raises(Unusable, match="how long"):
        await rig.fetch(server)
    assert "voice.onnx" not in rig.left()


@pytest.mark.parametrize(
    "length",
    [f"+{len(DATA)}", f"{len(DATA):_}", f"{len(DATA):030}", f"{len(DATA)}\r\nContent-Length: {HALF}"],
    ids=["sign", "underscores", "zeros", "two"],
)
async def test_a_length_that_is_none_makes_no_cut_body_whole(rig: Rig, server: FileServer, length: str) -> None:
    server.always = lambda _, reply: reply._replace(headers={"Content-Length": length}, body=DATA[:HALF])
    with pytest.raises(Unusable, match="how long"):
        await rig.fetch(server)
    assert "voice.onnx" not in rig.left()


async def test_a_length_that_is_said_twice_is_one(rig: Rig, server: FileServer) -> None:
    server.always = saying(content_length=f"{len(DATA)}\r\nContent-Length: {len(DATA)}")
    assert await rig.fetch(server) == DATA


async def test_garbage_behind_the_end_is_not_taken(rig: Rig, server: FileServer) -> None:
    server.always = lambda _, reply: reply._replace(body=reply.body + b"garbage")
    assert await rig.fetch(server) == DATA


async def test_silence_ends_an_attempt_and_not_the_download(rig: Rig, server: FileServer) -> None:
    rig.limits = SHORT_OF_PATIENCE
    server.wrongs = [lambda headers, reply: less(HALF)(headers, reply)._replace(stalls=True)]
    assert await rig.fetch(server) == DATA
    assert rig.progress.resumed == 1


async def test_a_trickle_is_not_waited_for_for_ever(rig: Rig, server: FileServer) -> None:
    server.always = lambda _, reply: reply._replace(body=reply.body[:10])
    with pytest.raises(RetryLater):
        await rig.fetch(server)
    assert len(server.asked) == SWIFT.tries_max
    assert "voice.onnx" not in rig.left()


async def test_another_file_than_the_digest_says_is_never_put_in_place(rig: Rig, server: FileServer) -> None:
    server.data = OTHER
    with pytest.raises(Unusable, match="digest"):
        await rig.fetch(server, digest=DIGEST)
    assert "voice.onnx" not in rig.left()
    assert len(server.asked) == 1


async def test_a_mirror_that_has_another_file_is_passed_over(rig: Rig, server: FileServer) -> None:
    async with FileServer(OTHER) as wrong, FileServer(OTHER[:-1]) as short:
        assert await rig.fetch(wrong, short, server, digest=DIGEST, size=len(DATA)) == DATA


async def test_mirrors_go_on_with_the_same_part(rig: Rig, server: FileServer) -> None:
    async with FileServer(DATA, '"elsewhere"') as mirror:
        server.always = less(len(DATA) - HALF)
        assert await rig.fetch(server, mirror, digest=DIGEST) == DATA
        assert mirror.asked[0]["range"] == f"bytes={HALF}-"
        assert "if-range" not in mirror.asked[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_refusal_is_not_tried_again(rig: Rig, server: FileServer, status: int) -> None:
    server.always = lambda _, reply: reply._replace(status=status)
    with pytest.raises(Unusable):
        await rig.fetch(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_server_in_trouble_is_tried_again(rig: Rig, server: FileServer, status: int) -> None:
    server.wrongs = [lambda _, reply: reply._replace(status=status)]
    assert await rig.fetch(server) == DATA


async def test_no_server_at_all_ends(rig: Rig, server: FileServer) -> None:
    await server.__aexit__()
    with pytest.raises(Unavailable, match="refuses"):
        await rig.fetch(server)


async def test_redirects_are_followed_anew_and_credentials_stay_at_home(rig: Rig, server: FileServer) -> None:
    async with FileServer(b"") as front:
        front.always = lambda _, reply: reply._replace(
            status=302, headers={"Location": f"http://127.0.0.1:{server.port}/signed", "Content-Length": "0"}
        )
        server.wrongs = [less(HALF)]
        downloads = Downloads(tls=ssl.create_default_context(), limits=SWIFT)
        file = File(rig.target, [f"http://me:secret@127.0.0.1:{front.port}/a"], secret={"X-Token": "token"})
        await downloads.fetch(file)
        downloads.close()
    assert rig.target.read_bytes() == DATA
    assert len(front.asked) == len(server.asked) == 2
    assert all(asked["authorization"].startswith("Basic ") and asked["x-token"] == "token" for asked in front.asked)
    assert all("authorization" not in asked and "x-token" not in asked for asked in server.asked)


async def test_redirects_have_an_end(rig: Rig, server: FileServer) -> None:
    server.always = lambda _, reply: reply._replace(status=302, headers={"Location": "/again", "Content-Length": "0"})
    with pytest.raises(Unusable, match="without end"):
        await rig.fetch(server)


async def test_the_record_has_nothing_secret(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    assert rig.record()["url"] == f"http://127.0.0.1:{server.port}/voice.onnx"


async def test_too_large_is_refused_before_it_comes(rig: Rig, server: FileServer) -> None:
    rig.limits = replace(SWIFT, bytes_max=1_000_000)
    with pytest.raises(Unusable, match="more than"):
        await rig.fetch(server)
    assert rig.progress.received == 0


async def test_a_second_caller_waits_and_finds_it_done(target: Path, server: FileServer) -> None:
    server.wrongs = [lambda headers, reply: less(HALF)(headers, reply)._replace(stalls=True)]
    one, two = Rig(target, SHORT_OF_PATIENCE), Rig(target, SHORT_OF_PATIENCE)
    fetched = await asyncio.gather(one.fetch(server), two.fetch(server))
    assert set(fetched) == {DATA}
    assert len(server.asked) == 2
    assert one.left() == {"voice.onnx"}


async def test_who_waits_goes_on_with_the_part_of_one_that_is_gone(rig: Rig, server: FileServer) -> None:
    await half_done(rig, server)
    held = Part.hold(rig.target, Durable())
    assert held is not None
    waiting = asyncio.create_task(rig.fetch(server))
    await until(lambda: rig.progress.note == "another process fetches it", "it waits")
    held.close()
    assert await waiting == DATA
    assert rig.progress.received == len(DATA) - HALF


async def test_cancelled_it_ends_at_once_and_keeps_what_it_has(rig: Rig, server: FileServer) -> None:
    server.wrongs = [lambda headers, reply: less(HALF)(headers, reply)._replace(stalls=True)]
    fetching = asyncio.create_task(rig.fetch(server))
    await until(lambda: rig.progress.have == HALF, "half is there")
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(fetching, SWIFT.stall_s / 2)
    assert rig.record()["synced"] == HALF


async def test_the_whole_has_a_limit(rig: Rig, server: FileServer) -> None:
    rig.limits = replace(SWIFT, total_s=0.3)
    server.always = lambda _, reply: reply._replace(body=b"", stalls=True)
    with pytest.raises(RetryLater, match="longer"):
        await rig.fetch(server)


async def test_a_full_disk_is_a_pause(rig: Rig, server: FileServer) -> None:
    rig.limits = replace(SWIFT, free_bytes_min=2**60, pause_s=0.01)
    fetching = asyncio.create_task(rig.fetch(server))
    await until(lambda: "more than are free" in rig.progress.note, "it waits for space")
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    rig.limits = SWIFT
    assert await rig.fetch(server) == DATA


KILLED = """
import asyncio, ssl, sys
from pathlib import Path
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits
limits = Limits(stall_s=60, free_bytes_min=0, checkpoint_bytes=1)
file = File(Path(sys.argv[1]), [sys.argv[2]])
asyncio.run(Downloads(tls=ssl.create_default_context(), limits=limits).fetch(file))
"""


@pytest.mark.parametrize("at", [0, 1, 700_000, HALF, len(DATA) - 1])
async def test_killed_at_any_byte_the_next_one_goes_on(rig: Rig, server: FileServer, at: int) -> None:
    server.wrongs = [lambda _, reply: reply._replace(body=reply.body[:at], stalls=True)]
    command = [sys.executable, "-c", KILLED, str(rig.target), f"http://127.0.0.1:{server.port}/voice.onnx"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    part = rig.target.with_name("voice.onnx.part")
    await until(lambda: bool(server.asked) and part.exists() and part.stat().st_size == at, "it came to there")
    if at > 2_000_000:
        await until(lambda: rig.record()["synced"], "a checkpoint")
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    assert await rig.fetch(server) == DATA
    assert at <= 2_000_000 or rig.progress.received < len(DATA)
    assert rig.left() == {"voice.onnx"}


def test_what_cannot_be_asked_for_is_told(target: Path) -> None:
    for url in ("", "ftp://a/b", "http://", "http://a:b/", "https://a/\n", "http://a b/"):
        with pytest.raises(Unusable, match="not an http"):
            File(target, [url])
    for name in ("a.part", "a.part.json"):
        with pytest.raises(Unusable, match="on its way"):
            File(target.with_name(name), ["http://a/b"])
    for digest in ("sha256:", "sha1:" + "0" * 40, "sha256:" + "G" * 64, "0" * 64):
        with pytest.raises(Unusable, match="digest"):
            File(target, ["http://a/b"], digest)
