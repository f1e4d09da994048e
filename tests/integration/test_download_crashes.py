"""A download that is killed, or loses power, again and again: what comes in the end is one whole file.

Kills end real processes; power cuts are those that the model of a disk allows (`fakes/power.py`).
"""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from fakes.file_server import FileServer, Reply
from fakes.power import RecordingDisk, frozen, lay
from rig.events import until
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits
from topicd.durable import Disk, Durable
from topicd.errors import TopicdError

SIZE: Final = 2_400_000
ONE = random.Random(21).randbytes(SIZE)
TWO = random.Random(22).randbytes(SIZE)
LARGE = random.Random(23).randbytes(1_000_000) * 24
TLS = ssl.create_default_context()
LIMIT_S = 120.0
SWIFT = Limits(
    connect_s=20, stall_s=20, tries_max=3, wait_s=0.01, free_bytes_min=0, checkpoint_bytes=1, total_s=LIMIT_S
)
KILLS = int(os.environ.get("KILLS", "20"))
CHAINS = int(os.environ.get("POWER_SEEDS", "1")) * 12


class NoWait(Disk):
    """A disk that is not waited for."""

    def fsync(self, fd: int) -> None:
        del fd


@pytest.fixture
async def server() -> AsyncIterator[FileServer]:
    async with FileServer(ONE) as made:
        yield made


def left(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


async def fetched(target: Path, server: FileServer, digest: str = "", disk: Disk | None = None) -> bytes:
    downloads = Downloads(tls=TLS, limits=SWIFT, durable=Durable(disk or NoWait()))
    try:
        return (await downloads.fetch(File(target, [url(server)], digest))).read_bytes()
    finally:
        downloads.close()


def url(server: FileServer) -> str:
    return f"http://127.0.0.1:{server.port}/file"


def until_byte(at: int, *, stalls: bool = False) -> Callable[[dict[str, str], Reply], Reply]:
    """Send no byte of the file from `at` on."""

    def wrong(headers: dict[str, str], reply: Reply) -> Reply:
        first = int(headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-")) if reply.status == 206 else 0
        return reply._replace(body=reply.body[: max(0, at - first)], stalls=stalls)

    return wrong


KILLED = """
import asyncio, ssl, sys
from pathlib import Path
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits
limits = Limits(stall_s=60, free_bytes_min=0, checkpoint_bytes=1)
file = File(Path(sys.argv[1]), [sys.argv[2]])
asyncio.run(Downloads(tls=ssl.create_default_context(), limits=limits).fetch(file))
"""


async def test_killed_at_many_bytes_in_a_row_it_comes_whole(tmp_path: Path, server: FileServer) -> None:
    server.data = LARGE
    target = tmp_path / "file"
    part = target.with_name("file.part")
    rng = random.Random(24)
    for at in sorted(rng.sample(range(len(LARGE)), KILLS)):
        server.wrongs = [until_byte(at, stalls=True)]
        asked = len(server.asked)
        process = subprocess.Popen([sys.executable, "-c", KILLED, target, url(server)])  # noqa: ASYNC220 - quick
        try:
            # What was there may reach further than this byte, and then nothing comes.
            await until(
                lambda: len(server.asked) > asked and part.stat().st_size >= at,  # noqa: B023 - awaited here
                "it came to there",
                LIMIT_S,
            )
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert await fetched(target, server) == LARGE
    assert left(target) == {"file"}
    starts = [int(asked["range"].removeprefix("bytes=").rstrip("-")) for asked in server.asked if "range" in asked]
    assert len(starts) > KILLS // 2
    assert starts == sorted(starts)


async def test_a_power_cut_at_any_moment_of_a_whole_download(tmp_path: Path, server: FileServer) -> None:
    """One that is cut, whose file changes on the server, that is cut again, and ends."""
    home = tmp_path / "home"
    home.mkdir()
    disk = RecordingDisk()
    disk.watch(home)
    server.wrongs = [until_byte(1_300_000), *[lambda _, reply: reply._replace(status=404)]]
    with pytest.raises(TopicdError):
        await fetched(home / "file", server, disk=disk)
    server.data, server.etag, server.wrongs = TWO, '"two"', [until_byte(1_700_000)]
    assert await fetched(home / "file", server, disk=disk) == TWO
    assert [asked.get("range") for asked in server.asked] == [None, *["bytes=1300000-"] * 2, "bytes=1700000-"]

    platter, rng = disk.platter(), random.Random(25)
    seen, numbers, is_resumed = set[object](), itertools.count(), 0
    for operation in disk.operations:
        platter.apply(operation)
        for cut in platter.cuts(rng, 8):
            tree = platter.tree(disk.roots[home], cut)
            if (state := frozen(tree)) in seen:
                continue
            seen.add(state)
            after = tmp_path / f"{next(numbers)}"
            lay(tree, after, {})
            server.asked.clear()
            assert await fetched(after / "file", server) == TWO
            assert left(after / "file") == {"file"}
            is_resumed += any("range" in asked for asked in server.asked)
    assert len(seen) > 30
    assert is_resumed > 10


async def interrupted(home: Path, server: FileServer, rng: random.Random, digest: str) -> Path:
    """Go on with what is in a home until some moment; return a home as a power cut then leaves it."""
    disk = RecordingDisk()
    disk.watch(home)
    if rng.random() < 0.4 and not digest:
        server.data, server.etag = (TWO, '"two"') if server.data is ONE else (ONE, '"one"')
    server.wrongs = [until_byte(rng.randrange(SIZE)) for _ in range(rng.randrange(3))]
    if rng.random() < 0.5:
        server.wrongs.append(lambda _, reply: reply._replace(status=404))
    with contextlib.suppress(TopicdError):
        await fetched(home / "file", server, digest, disk)
    platter = disk.platter()
    for operation in disk.operations[: rng.randrange(len(disk.operations) + 1)]:
        platter.apply(operation)
    after = home.with_name(f"{home.name}+")
    lay(platter.tree(disk.roots[home], rng.choice([*platter.cuts(rng, 8)])), after, {})
    return after


@pytest.mark.parametrize("digest", ["", f"sha256:{hashlib.sha256(ONE).hexdigest()}"], ids=["no digest", "digest"])
async def test_one_power_cut_after_another(tmp_path: Path, server: FileServer, digest: str) -> None:
    for seed in range(CHAINS):
        rng = random.Random(seed)
        home = tmp_path / f"{seed}-"
        home.mkdir()
        for _ in range(4):
            if (home / "file").exists():
                break
            home = await interrupted(home, server, rng, digest)
        server.wrongs = []
        assert await fetched(home / "file", server, digest) in ([ONE] if digest else [ONE, TWO]), f"seed {seed}"
        assert left(home / "file") == {"file"}, f"seed {seed}"
