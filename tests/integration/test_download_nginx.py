"""Downloads from the real nginx: ranges, validators, proxies, caches, TLS, mirrors, full disks, kills, many at once.

nginx's own access log tells what was asked for and how much was sent.
"""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import pytest

from rig.daemon import TOPICD, Home
from rig.disks import full, regrown, tmpfs
from rig.events import until
from rig.nginx import PROGRAM, free_port, serving
from rig.tls import Authority
from topicd import cli
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits, Progress
from topicd.backends.trust import trust
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable

DATA = random.Random(11).randbytes(4_000_000)
OTHER = DATA[::-1]
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
MIB = 1 << 20
OLD_S = 7200
OLD_AT_S = int(time.time()) - OLD_S
LIMIT_S = 120.0
QUICK = Limits(stall_s=60.0, connect_s=20.0, tries_max=4, wait_s=0.02, wait_s_max=0.1, free_bytes_min=0)
PATIENT = replace(QUICK, tries_max=2000)
CHECKED = trust(verify=True, ca_file=None)


class Asked(NamedTuple):
    """A line of the access log."""

    status: int
    sent: int
    path: str
    headers: str


class Site:
    """An nginx with a folder of files; in its `server` blocks, `$port$`, `$root$` and the like are filled in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.port, self.second = free_port(), free_port()
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.put("file", DATA)

    def put(self, name: str, data: bytes, *, at_s: float = OLD_AT_S) -> None:
        """Have a file that is hours old, so that its Last-Modified is a strong validator."""
        path = self.root / name
        path.write_bytes(data)
        os.utime(path, (at_s, at_s))

    def start(self, blocks: str) -> None:
        """Run it, with a new access log."""
        names = {"port": self.port, "second": self.second, "root": self.root, "folder": self.folder}
        for name, value in names.items():
            blocks = blocks.replace(f"${name}$", str(value))
        (self.folder / "access.log").unlink(missing_ok=True)
        self._process = self._running.enter_context(serving(self.folder, blocks, self.port))

    def stop(self) -> None:
        """Kill it, whatever it is sending."""
        self._running.close()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have it send nothing for the length of a block, so that nothing ends meanwhile."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def restart(self, blocks: str) -> None:
        self.stop()
        self.start(blocks)

    def url(self, name: str = "file", port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}/{name}"

    def log(self, port: int = 0) -> list[Asked]:
        rows = [line.split(" ", 4) for line in (self.folder / "access.log").read_text().splitlines()]
        wanted = str(port or self.port)
        return [Asked(int(row[1]), int(row[2]), row[3], row[4]) for row in rows if row[0] == wanted]

    async def asked(self, count: int = 1, port: int = 0) -> list[Asked]:
        """Return all requests since the start; nginx writes a line when it has sent the last byte, or a bit later."""
        await until(lambda: len(self.log(port)) >= count, "nginx has logged it", LIMIT_S)
        found = self.log(port)
        assert len(found) == count
        return found


def etag(data: bytes, at_s: int = OLD_AT_S) -> str:
    """Return the ETag that nginx makes, as its log escapes it."""
    return f"\\x22{at_s:x}-{len(data):x}\\x22"


def ranged(size: int, if_range: str = "-") -> str:
    return f'range="bytes={size}-" if_range="{if_range}"'


PLAIN = "server { listen 127.0.0.1:$port$; root $root$; }"
SLOW = "server { listen 127.0.0.1:$port$; root $root$; limit_rate_after 1m; limit_rate 1m; }"
BEHIND = "server { listen 127.0.0.1:$second$; root $root$; }"
PROXY = "server { listen 127.0.0.1:$port$; location / { proxy_pass http://127.0.0.1:$second$; %s } }"


def having(block: str, more: str) -> str:
    return block.replace("root ", f"{more} root ")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    made = Site(tmp_path / "site")
    yield made
    made.stop()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "got"


def left(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def has(target: Path) -> bool:
    return target.exists()


async def fetched(file: File, told: Progress | None = None, limits: Limits = QUICK) -> bytes:
    """Fetch it, and see that nothing is left beside it."""
    with contextlib.closing(Downloads(tls=CHECKED, limits=limits)) as downloads:
        path = await asyncio.wait_for(downloads.fetch(file, told), LIMIT_S)
    assert left(path) == {path.name}
    return path.read_bytes()


@contextlib.asynccontextmanager
async def fetching(file: File, told: Progress, limits: Limits = QUICK) -> AsyncIterator["asyncio.Task[bytes]"]:
    """Have it under way, with half a megabyte there."""
    task = asyncio.create_task(fetched(file, told, limits))
    try:
        await until(lambda: told.have >= 500_000, "a part is there", LIMIT_S)
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def part_of(file: File) -> int:
    """Leave a part by a fetch that is cancelled; return how long it is."""
    async with fetching(file, Progress()):
        pass
    size = file.target.with_name("got.part").stat().st_size
    assert 500_000 <= size < len(DATA)
    return size


@pytest.mark.parametrize("data", [DATA, b"x", b""], ids=["large", "a byte", "empty"])
async def test_a_whole_file_is_one_request(site: Site, target: Path, data: bytes) -> None:
    site.put("file", data)
    site.start(PLAIN)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert await fetched(File(target, [site.url()], digest)) == data
    assert [(each.status, each.sent) for each in await site.asked()] == [(200, len(data))]


async def test_a_cancelled_one_goes_on_by_range_with_its_etag(site: Site, target: Path) -> None:
    file, told = File(target, [site.url()]), Progress()
    site.start(SLOW)
    size = await part_of(file)
    site.restart(PLAIN)
    assert await fetched(file, told) == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent) == (206, len(DATA) - size)
    assert ranged(size, etag(DATA)) in asked.headers
    assert (told.resumed, told.received) == (1, len(DATA) - size)


async def test_by_last_modified_alone_it_goes_on(site: Site, target: Path) -> None:
    file = File(target, [site.url()])
    site.start(having(SLOW, "etag off;"))
    size = await part_of(file)
    site.restart(having(PLAIN, "etag off;"))
    assert await fetched(file) == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent) == (206, len(DATA) - size)
    assert ranged(size, formatdate(OLD_AT_S, usegmt=True)) in asked.headers


@pytest.mark.parametrize("more", ["etag off;", 'etag off; add_header ETag W/\\"weak\\";'], ids=["too new", "weak"])
@pytest.mark.parametrize("digest", ["", SHA256], ids=["no digest", "digest"])
async def test_without_a_strong_validator_only_a_digest_lets_it_go_on(
    site: Site, target: Path, more: str, digest: str
) -> None:
    file = File(target, [site.url()], digest)
    site.put("file", DATA, at_s=time.time())
    site.start(having(SLOW, more))
    size = await part_of(file)
    site.restart(having(PLAIN, more))
    assert await fetched(file) == DATA
    [asked] = await site.asked()
    expected = (206, ranged(size)) if digest else (200, 'range="-" if_range="-"')
    assert (asked.status, expected[1] in asked.headers) == (expected[0], True)


@pytest.mark.parametrize("more", ["", "etag off;"], ids=["etag", "date"])
async def test_a_file_that_changed_meanwhile_is_had_whole(site: Site, target: Path, more: str) -> None:
    file = File(target, [site.url()])
    site.start(having(SLOW, more))
    size = await part_of(file)
    site.stop()
    site.put("file", OTHER, at_s=OLD_AT_S + 1)
    site.start(having(PLAIN, more))
    assert await fetched(file) == OTHER
    [asked] = await site.asked()
    assert (asked.status, f'range="bytes={size}-"' in asked.headers) == (200, True)


async def test_a_file_that_shrinks_while_it_is_sent_is_had_as_it_is_then(site: Site, target: Path) -> None:
    site.start(SLOW)
    told = Progress()
    async with fetching(File(target, [site.url()]), told) as task:
        site.put("file", OTHER[:MIB], at_s=OLD_AT_S + 1)
        assert await task == OTHER[:MIB]
    first, second = await site.asked(2)
    assert (first.status, second.status) == (200, 200)
    assert first.sent < len(DATA)


async def test_a_file_that_is_shorter_now_and_not_the_wanted_one_is_refused(site: Site, target: Path) -> None:
    file = File(target, [site.url()], SHA256)
    site.put("file", DATA, at_s=time.time())
    site.start(having(SLOW, "etag off;"))
    await part_of(file)
    site.stop()
    site.put("file", DATA[:100_000])
    site.start(having(PLAIN, "etag off;"))
    with pytest.raises(Unusable, match="digest"):
        await fetched(file)
    assert [each.status for each in await site.asked(2)] == [416, 200]
    assert not has(target)


@pytest.mark.parametrize("digest", ["", SHA256], ids=["no digest", "digest"])
async def test_a_server_without_ranges_costs_a_beginning(site: Site, target: Path, digest: str) -> None:
    file = File(target, [site.url()], digest)
    site.start(SLOW)
    size = await part_of(file)
    site.restart(having(PLAIN, "max_ranges 0;"))
    assert await fetched(file) == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent, f'range="bytes={size}-"' in asked.headers) == (200, len(DATA), True)


@pytest.mark.parametrize("digest", ["", SHA256], ids=["no digest", "digest"])
async def test_a_proxy_that_drops_the_range_costs_a_beginning(site: Site, target: Path, digest: str) -> None:
    file = File(target, [site.url()], digest)
    site.start(SLOW)
    await part_of(file)
    site.restart(BEHIND + PROXY % 'proxy_set_header Range ""; proxy_force_ranges off; max_ranges 0;')
    assert await fetched(file) == DATA
    [asked] = await site.asked(port=site.second)
    assert (asked.status, 'range="-"' in asked.headers) == (200, True)


@pytest.mark.parametrize("more", ["", "etag off;"], ids=["etag", "date"])
async def test_a_proxy_that_drops_only_the_condition_mixes_nothing(site: Site, target: Path, more: str) -> None:
    file = File(target, [site.url()])
    site.start(having(SLOW, more))
    size = await part_of(file)
    site.stop()
    site.put("file", OTHER, at_s=OLD_AT_S + 1)
    site.start(having(BEHIND, more) + PROXY % 'proxy_set_header If-Range "";')
    assert await fetched(file) == OTHER
    first, second = await site.asked(2, site.second)
    assert (first.status, ranged(size) in first.headers) == (206, True)
    assert (second.status, 'range="-"' in second.headers) == (200, True)


CACHE = "proxy_cache_path $folder$/kept keys_zone=kept:1m; proxy_cache kept; proxy_cache_valid 200 206 1h;"


async def test_a_caching_proxy_is_gone_on_with_from_what_it_keeps(site: Site, target: Path) -> None:
    file, told = File(target, [site.url()]), Progress()
    slow = "limit_rate_after 1m; limit_rate 1m;"
    site.start(CACHE + BEHIND + PROXY % slow)
    async with fetching(file, told):
        await site.asked(port=site.second)
    size = target.with_name("got.part").stat().st_size
    site.restart(CACHE + BEHIND + PROXY % "")
    assert await fetched(file) == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent) == (206, len(DATA) - size)


async def test_a_cache_of_slices_of_two_files_gives_neither(site: Site, target: Path) -> None:
    slices = "slice 1m; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range;"
    file = File(target, [site.url()])
    site.start(CACHE + BEHIND + PROXY % f"{slices} limit_rate_after 1m; limit_rate 1m;")
    await part_of(file)
    site.stop()
    site.put("file", OTHER, at_s=OLD_AT_S + 1)
    site.start(CACHE + BEHIND + PROXY % slices)
    with pytest.raises(RetryLater):
        await fetched(file)
    assert not has(target)
    site.stop()
    shutil.rmtree(site.folder / "kept")
    site.start(CACHE + BEHIND + PROXY % slices)
    assert await fetched(file) == OTHER


async def test_a_server_that_packs_is_not_asked_to(site: Site, target: Path) -> None:
    data = DATA[:100_000] + b" " * 900_000
    site.put("file", data)
    site.start(having(PLAIN, "gzip on; gzip_types *; gzip_min_length 1;"))
    assert await fetched(File(target, [site.url()])) == data
    [asked] = await site.asked()
    assert asked.sent == len(data)


async def test_what_is_packed_whatever_was_asked_is_never_taken(site: Site, target: Path) -> None:
    site.put("file.gz", gzip.compress(DATA))
    site.start(having(PLAIN, "gzip_static always;"))
    with pytest.raises(RetryLater) as told:
        await fetched(File(target, [site.url()]))
    assert told.value.cause == "bad_answer"
    assert not has(target)


UNPACKS = "gzip_static always; gunzip on;"


async def test_an_answer_in_chunks_has_an_end(site: Site, target: Path) -> None:
    site.put("file.gz", gzip.compress(DATA))
    site.start(having(PLAIN, UNPACKS))
    assert await fetched(File(target, [site.url()])) == DATA


async def test_an_answer_without_length_and_chunks_wants_a_digest(site: Site, target: Path) -> None:
    site.put("file.gz", gzip.compress(DATA))
    site.start(having(PLAIN, f"{UNPACKS} chunked_transfer_encoding off;"))
    with pytest.raises(Unusable, match="how long"):
        await fetched(File(target, [site.url()]))
    assert not has(target)
    assert await fetched(File(target, [site.url()], SHA256)) == DATA


async def test_a_server_that_dies_amid_a_body_and_comes_back_is_gone_on_with(site: Site, target: Path) -> None:
    site.start(SLOW)
    told = Progress()
    async with fetching(File(target, [site.url()]), told, PATIENT) as task:
        site.stop()
        await until(lambda: "refuses" in told.note, "it says that the server is away", LIMIT_S)
        size = told.have
        site.start(PLAIN)
        assert await task == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent) == (206, len(DATA) - size)


async def test_no_more_at_once_than_are_wanted(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    zone = "limit_conn_zone $binary_remote_addr zone=callers:1m;"
    site.start(zone + having(SLOW, "limit_conn callers 3;").replace("limit_rate 1m", "limit_rate 4m"))
    told = [Progress() for _ in range(6)]
    files = [File(tmp_path / "cache" / f"got-{n}", [site.url()]) for n in range(6)]
    with contextlib.closing(Downloads(tls=CHECKED, limits=QUICK, at_once=3)) as downloads:
        fetches = [downloads.fetch(file, each) for file, each in zip(files, told, strict=True)]
        all_of_them = asyncio.gather(*fetches)
        await until(lambda: sum(each.have > 0 for each in told) == 3, "three are under way", LIMIT_S)
        assert sum(each.note == "waits for its turn" for each in told) == 3
        await all_of_them
    assert all(file.target.read_bytes() == DATA for file in files)
    assert {each.status for each in await site.asked(6)} == {200}, "nginx had more than three at once"


@pytest.mark.parametrize("trouble", ["dead", "404", "another file"])
async def test_a_mirror_serves_where_the_first_does_not(site: Site, target: Path, trouble: str) -> None:
    site.start(PLAIN)
    site.put("other", OTHER)
    first = {"dead": site.url(port=free_port()), "404": site.url("none"), "another file": site.url("other")}[trouble]
    assert await fetched(File(target, [first, site.url()], SHA256)) == DATA


async def test_a_mirror_with_another_etag_goes_on_with_the_part_of_one_that_dies(
    site: Site, target: Path, tmp_path: Path
) -> None:
    mirror = Site(tmp_path / "mirror")
    mirror.put("file", DATA, at_s=OLD_AT_S - 5)
    site.start(SLOW)
    with contextlib.closing(mirror._running):
        mirror.start(PLAIN)
        told = Progress()
        async with fetching(File(target, [site.url(), mirror.url()], SHA256), told) as task:
            site.stop()
            assert await task == DATA
        [asked] = await mirror.asked()
    size = len(DATA) - asked.sent
    assert (asked.status, ranged(size) in asked.headers) == (206, True)
    assert told.received == len(DATA)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def with_tls(authority: Authority, more: str = "", *, port: str = "$port$", names: str = "") -> str:
    certificate = authority.server(names) if names else authority.server()
    keys = f"ssl_certificate {certificate.file}; ssl_certificate_key {certificate.key_file};"
    return f"server {{ listen 127.0.0.1:{port} ssl; {keys} root $root$; {more} }}"


async def secure(authority: Authority, file: File, told: Progress | None = None) -> bytes:
    trusted = trust(verify=True, ca_file=authority.ca_file)
    with contextlib.closing(Downloads(tls=trusted, limits=QUICK)) as downloads:
        return (await asyncio.wait_for(downloads.fetch(file, told), LIMIT_S)).read_bytes()


async def test_a_certificate_for_another_host_is_refused(site: Site, target: Path, authority: Authority) -> None:
    site.start(with_tls(authority, names="DNS:elsewhere.example"))
    with pytest.raises(TopicdError) as told:
        await secure(authority, File(target, [f"https://127.0.0.1:{site.port}/file"]))
    assert told.value.cause == "tls_untrusted"
    assert site.log() == []


async def test_over_tls_a_cancelled_one_keeps_only_what_was_sent(
    site: Site, target: Path, authority: Authority
) -> None:
    """A socket that is shut down under OpenSSL would hand out what is still coded."""
    site.start(with_tls(authority, "limit_rate_after 512k; limit_rate 512k;"))
    file = File(target, [f"https://127.0.0.1:{site.port}/file"])
    sizes = [0]
    for _ in range(4):
        told = Progress()
        task = asyncio.create_task(secure(authority, file, told))
        await until(lambda: told.have > sizes[-1] + 262_144, "it goes on", LIMIT_S)  # noqa: B023 - awaited here
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        part = target.with_name("got.part").read_bytes()
        assert part == DATA[: len(part)]
        sizes.append(len(part))
    assert sizes == sorted(set(sizes))
    site.restart(with_tls(authority))
    assert await secure(authority, file) == DATA


@pytest.mark.parametrize("first", ["https", "http"])
async def test_https_never_leads_to_http(site: Site, target: Path, authority: Authority, first: str) -> None:
    """Straight, or after http has led to https."""
    to_plain = "location /moved { return 302 http://127.0.0.1:$second$/file; }"
    to_tls = "location /moved { return 302 https://127.0.0.1:$port$/moved; }"
    site.start(with_tls(authority, to_plain) + having(BEHIND, to_tls))
    port = site.port if first == "https" else site.second
    with pytest.raises(Unusable) as told:
        await secure(authority, File(target, [f"{first}://127.0.0.1:{port}/moved"]))
    assert (told.value.cause, told.value.message.endswith("from https to http.")) == ("redirected", True)
    assert all(each.path == "/moved" for each in site.log(site.second))


@pytest.mark.parametrize("secret", ["Bearer secret", "Basic"])
async def test_a_secret_goes_to_its_own_origin_and_no_other(
    site: Site, target: Path, authority: Authority, secret: str
) -> None:
    within, away = "location /moved { return 307 /on; }", "location /on { return 302 https://localhost:$second$/file; }"
    site.start(with_tls(authority, within + away) + with_tls(authority, port="$second$"))
    login, headers = ("", {"Authorization": secret}) if " " in secret else ("me:secret@", {})
    expected = secret if headers else f"Basic {base64.b64encode(b'me:secret').decode()}"
    file = File(target, [f"https://{login}127.0.0.1:{site.port}/moved"], secret=headers)
    assert await secure(authority, file) == DATA
    assert [(each.path, f'auth="{expected}"' in each.headers) for each in await site.asked(2)] == [
        ("/moved", True),
        ("/on", True),
    ]
    [asked] = await site.asked(port=site.second)
    assert (asked.status, 'auth="-"' in asked.headers) == (200, True)


async def test_redirects_in_a_ring_end(site: Site, target: Path) -> None:
    site.start("server { listen 127.0.0.1:$port$; location / { return 302 /file; } }")
    with pytest.raises(Unusable) as told:
        await fetched(File(target, [site.url()]))
    assert told.value.cause == "redirected"
    await site.asked(11)


async def test_nobody_there_is_told(site: Site, target: Path) -> None:
    with pytest.raises(Unavailable):
        await fetched(File(target, [site.url()]))


async def test_a_disk_that_fills_up_is_a_pause_that_space_ends(site: Site, tmp_path: Path) -> None:
    site.start(SLOW)
    with tmpfs(tmp_path / "small", size="6m") as disk:
        told = Progress()
        file = File(disk / "got", [site.url()], SHA256)
        async with fetching(file, told, replace(PATIENT, pause_s=0.05)) as task:
            with full(disk):
                await until(lambda: bool(told.note), "it says why it pauses", LIMIT_S)
                assert "space" in told.note
                have = told.have
            assert have < len(DATA)
            assert await task == DATA
        first, second = await site.asked(2)
    assert (first.status, second.status) == (200, 206)
    assert told.resumed == 1


class Verb:
    """`topicd fetch url` as processes on one home."""

    def __init__(self, path: Path, site: Site) -> None:
        path.mkdir(exist_ok=True)
        self.home = Home(path, {})
        self.site = site
        self.target = path / "cache" / "file"
        self.part = path / "cache" / "file.part"
        self.record = path / "cache" / "file.part.json"

    async def begin(self, *args: str, url: str = "", **env: str) -> asyncio.subprocess.Process:
        command = [str(TOPICD), "fetch", "url", url or self.site.url(), *args]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, env={**self.home.env, **env}, cwd=self.home.path, stdout=pipe, stderr=pipe
        )

    async def run(self, *args: str, url: str = "", **env: str) -> tuple[int | None, str, str]:
        return await self.end(await self.begin(*args, url=url, **env))

    async def end(self, process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
        out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode, out.decode(), err.decode()

    async def says(self, process: asyncio.subprocess.Process, words: str) -> None:
        """Wait for the next line that it says, which has these words."""
        assert process.stderr
        assert words in (await asyncio.wait_for(process.stderr.readline(), LIMIT_S)).decode()

    async def has(self, least: int) -> None:
        await until(lambda: self.part.exists() and self.part.stat().st_size >= least, "a part is there", LIMIT_S)


@pytest.fixture
def verb(tmp_path: Path, site: Site) -> Verb:
    return Verb(tmp_path / "home", site)


async def test_killed_in_the_middle_the_next_one_goes_on_from_the_last_checkpoint(verb: Verb, site: Site) -> None:
    data = random.Random(12).randbytes(80 * MIB)
    site.put("file", data)
    site.start(SLOW.replace("limit_rate_after 1m", "limit_rate_after 72m"))
    known = ("--sha256", hashlib.sha256(data).hexdigest(), "--quiet")
    process = await verb.begin(*known)
    await until(lambda: verb.record.exists() and '"synced": 0' not in verb.record.read_text(), "a checkpoint", LIMIT_S)
    await verb.has(70 * MIB)
    process.kill()
    await verb.end(process)
    site.restart(PLAIN)
    code, _, err = await verb.run(*known)
    assert (code, err) == (cli.OK, "")
    assert left(verb.target) == {"file"}
    [asked] = await site.asked()
    size = len(data) - asked.sent
    assert asked.status == 206
    assert size >= 64 * MIB


async def test_interrupted_it_goes_on_where_it_was(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    process = await verb.begin()
    await verb.has(500_000)
    process.send_signal(signal.SIGINT)
    code, out, err = await verb.end(process)
    assert (code, out) == (cli.INTERRUPTED, "")
    assert "the same command goes on" in err
    size = verb.part.stat().st_size
    site.restart(PLAIN)
    assert (await verb.run())[:2] == (cli.OK, f"{verb.target}\n")
    assert verb.target.read_bytes() == DATA
    [asked] = await site.asked()
    assert (asked.status, asked.sent) == (206, len(DATA) - size)


async def test_two_processes_at_one_file_cost_one_transfer(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    first = await verb.begin()
    await verb.has(500_000)
    with site.frozen():
        second = await verb.begin()
        await verb.says(second, "another process fetches it")
    ends = await asyncio.gather(verb.end(first), verb.end(second))
    assert [end[:2] for end in ends] == [(cli.OK, f"{verb.target}\n")] * 2
    assert not any("another process fetches it" in err for _, _, err in ends), "it is told once"
    assert verb.target.read_bytes() == DATA
    assert left(verb.target) == {"file"}
    assert [(each.status, each.sent) for each in await site.asked()] == [(200, len(DATA))]


async def test_the_one_that_waits_goes_on_when_the_other_is_killed(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    first = await verb.begin("--quiet")
    await verb.has(500_000)
    with site.frozen():
        second = await verb.begin()
        await verb.says(second, "another process fetches it")
        first.kill()
        await verb.end(first)
    assert (await verb.end(second))[0] == cli.OK
    assert verb.target.read_bytes() == DATA
    assert left(verb.target) == {"file"}


async def test_a_wrong_digest_leaves_nothing_by_the_name(verb: Verb, site: Site) -> None:
    site.start(PLAIN)
    code, out, err = await verb.run("--sha256", "0" * 64)
    assert (code, out) == (cli.FAILED, "")
    assert "hint:" in err
    assert left(verb.target) == {"file.part", "file.part.json"}
    assert verb.part.stat().st_size == 0
    assert (await verb.run("--sha256", SHA256.removeprefix("sha256:")))[0] == cli.OK


async def test_an_authority_that_is_not_trusted_is_told_with_what_to_set(
    verb: Verb, site: Site, authority: Authority
) -> None:
    site.start(with_tls(authority))
    url = f"https://127.0.0.1:{site.port}/file"
    code, _, err = await verb.run(url=url)
    assert code == cli.FAILED
    assert "hint: set SSL_CA_FILE" in err
    assert not verb.target.exists()
    assert (await verb.run(url=url, SSL_CA_FILE=str(authority.ca_file)))[0] == cli.OK
    assert verb.target.read_bytes() == DATA


async def test_a_disk_that_is_too_small_is_told_and_waited_for(site: Site, tmp_path: Path) -> None:
    site.start(PLAIN)
    with tmpfs(tmp_path / "home", size="2m") as disk:
        verb = Verb(disk, site)
        process = await verb.begin()
        await verb.says(process, "bytes more than are free")
        regrown(disk, size="8m")
        assert (await verb.end(process))[0] == cli.OK
        assert verb.target.read_bytes() == DATA
