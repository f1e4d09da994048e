"""Downloads from the real nginx: ranges, validators, proxies, TLS, redirects, mirrors, and many at once.

nginx's own access log tells what was asked for and how much was sent.
"""

import asyncio
import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rig.daemon import TOPICD, Home
from rig.events import until
from rig.nginx import PROGRAM, free_port, serving
from rig.tls import Authority
from topicd import cli
from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits, Progress
from topicd.backends.trust import trust
from topicd.errors import TopicdError, Unavailable, Unusable

DATA = random.Random(11).randbytes(4_000_000)
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
OLD_S = 7200
LIMIT_S = 40.0
QUICK = Limits(stall_s=2.0, connect_s=2.0, tries_max=4, wait_s=0.02, wait_s_max=0.1, free_bytes_min=0)
CHECKED = trust(verify=True, ca_file=None)


class Site:
    """An nginx with a folder of files; `blocks` are its servers, `{port}` and `{root}` filled in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.port, self.second, self.third = free_port(), free_port(), free_port()
        self._running = ExitStack()
        self.put("file", DATA)

    def put(self, name: str, data: bytes, *, age_s: int = OLD_S) -> None:
        """Have a file that is hours old, so that its Last-Modified is a strong validator."""
        path = self.root / name
        path.write_bytes(data)
        os.utime(path, (time.time() - age_s, time.time() - age_s))

    def start(self, blocks: str) -> None:
        names = {"port": self.port, "second": self.second, "third": self.third, "root": self.root}
        for name, value in names.items():
            blocks = blocks.replace(f"${name}$", str(value))
        self.process = self._running.enter_context(serving(self.folder, blocks, self.port))

    def stop(self) -> None:
        self._running.close()
        self._running = ExitStack()

    def url(self, name: str = "file", port: int = 0) -> str:
        return f"http://127.0.0.1:{port or self.port}/{name}"

    def asked(self, port: int = 0) -> list[dict[str, str]]:
        """Return the requests that are done, in order."""
        lines = (self.folder / "access.log").read_text().splitlines()
        rows = [line.split(" ", 4) for line in lines]
        wanted = str(port or self.port)
        return [
            {"status": status, "sent": sent, "path": path, "headers": headers}
            for listens, status, sent, path, headers in rows
            if listens == wanted
        ]


PLAIN = "server { listen 127.0.0.1:$port$; root $root$; }"
SLOW = "server { listen 127.0.0.1:$port$; root $root$; limit_rate 1m; limit_rate_after 1m; }"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    made = Site(tmp_path / "site")
    yield made
    made.stop()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "got"


def downloads(at_once: int = 2, limits: Limits = QUICK) -> Downloads:
    return Downloads(tls=CHECKED, limits=limits, at_once=at_once)


async def part_of(site: Site, target: Path, digest: str = "", *, least: int = 500_000) -> int:
    """Leave a part of the file by a fetch that is cancelled; return how long it is."""
    told = Progress()
    task = asyncio.create_task(downloads().fetch(File(target, [site.url()], digest), told))
    await until(lambda: told.have >= least, "a part is there", LIMIT_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    size = target.with_name("got.part").stat().st_size
    assert least <= size < len(DATA)
    return size


async def fetched(site: Site, target: Path, digest: str = "") -> Progress:
    told = Progress()
    await downloads().fetch(File(target, [site.url()], digest), told)
    assert is_data(target)
    assert {path.name for path in siblings(target)} == {"got", "site"}
    return told


def is_data(target: Path) -> bool:
    return target.read_bytes() == DATA


def siblings(target: Path) -> list[Path]:
    return list(target.parent.iterdir())


async def test_a_whole_file_is_one_request(site: Site, target: Path) -> None:
    site.start(PLAIN)
    await fetched(site, target, SHA256)
    assert [(each["status"], each["sent"]) for each in site.asked()] == [("200", str(len(DATA)))]


async def test_a_cancelled_one_goes_on_by_range_with_its_validator(site: Site, target: Path) -> None:
    site.start(SLOW)
    size = await part_of(site, target)
    site.stop()
    site.start(PLAIN)
    told = await fetched(site, target)
    last = site.asked()[-1]
    assert (last["status"], last["sent"]) == ("206", str(len(DATA) - size))
    assert f'range="bytes={size}-"' in last["headers"]
    assert 'if_range="-"' not in last["headers"]
    assert (told.resumed, told.received) == (1, len(DATA) - size)


async def test_by_last_modified_alone_it_goes_on(site: Site, target: Path) -> None:
    site.start(SLOW.replace("root ", "etag off; root "))
    size = await part_of(site, target)
    site.stop()
    site.start(PLAIN.replace("root ", "etag off; root "))
    await fetched(site, target)
    last = site.asked()[-1]
    assert last["status"] == "206"
    assert f'range="bytes={size}-"' in last["headers"]
    assert "GMT" in last["headers"]


async def test_by_a_last_modified_of_this_second_it_begins_again(site: Site, target: Path) -> None:
    site.start(SLOW.replace("root ", "etag off; root "))
    (site.root / "file").touch()
    await part_of(site, target)
    site.stop()
    site.start(PLAIN.replace("root ", "etag off; root "))
    await fetched(site, target)
    assert site.asked()[-1]["status"] == "200"


async def test_a_file_that_changed_meanwhile_is_had_whole(site: Site, target: Path) -> None:
    site.start(SLOW)
    site.put("file", DATA[::-1], age_s=2 * OLD_S)
    await part_of(site, target)
    site.stop()
    site.put("file", DATA)
    site.start(PLAIN)
    await fetched(site, target)
    assert site.asked()[-1]["status"] == "200"


@pytest.mark.parametrize("digest", ["", SHA256])
async def test_a_server_without_ranges_costs_a_beginning(site: Site, target: Path, digest: str) -> None:
    site.start(SLOW)
    await part_of(site, target, digest)
    site.stop()
    site.start(PLAIN.replace("root ", "max_ranges 0; root "))
    await fetched(site, target, digest)
    last = site.asked()[-1]
    assert ("bytes=" in last["headers"], last["status"]) == (True, "200")


async def test_a_proxy_that_drops_the_range_costs_a_beginning(site: Site, target: Path) -> None:
    site.start(SLOW)
    await part_of(site, target)
    site.stop()
    behind = PLAIN.replace("$port$", "$second$")
    dropping = 'proxy_pass http://127.0.0.1:$second$; proxy_set_header Range ""; proxy_set_header If-Range "";'
    site.start(f"{behind}\nserver {{ listen 127.0.0.1:$port$; location / {{ {dropping} }} }}")
    await fetched(site, target)
    assert site.asked()[-1]["status"] == "200"
    assert 'range="-"' in site.asked(site.second)[-1]["headers"]


async def test_a_proxy_that_packs_is_not_asked_to(site: Site, target: Path) -> None:
    site.put("file.txt", DATA[:100_000] + b" " * 900_000)
    site.start(PLAIN.replace("root ", "gzip on; gzip_types *; gzip_min_length 1; root "))
    path = await downloads().fetch(File(target, [site.url("file.txt")]))
    assert path.read_bytes() == DATA[:100_000] + b" " * 900_000
    assert site.asked()[-1]["sent"] == "1000000"


async def test_a_server_that_dies_amid_a_body_and_comes_back_is_gone_on_with(site: Site, target: Path) -> None:
    site.start(SLOW)
    told = Progress()
    patient = Limits(stall_s=5.0, connect_s=2.0, tries_max=200, wait_s=0.05, wait_s_max=0.1, free_bytes_min=0)
    task = asyncio.create_task(downloads(limits=patient).fetch(File(target, [site.url()]), told))
    await until(lambda: told.have >= 500_000, "a part is there", LIMIT_S)
    site.stop()
    await until(lambda: bool(told.note), "it says that the server is away", LIMIT_S)
    site.start(PLAIN)
    await asyncio.wait_for(task, LIMIT_S)
    assert is_data(target)
    assert site.asked()[-1]["status"] == "206"


async def test_no_more_at_once_than_are_wanted(site: Site, tmp_path: Path) -> None:
    site.start(SLOW + "")
    fetches = downloads(at_once=3)
    told = [Progress() for _ in range(6)]
    tasks = [
        asyncio.create_task(fetches.fetch(File(tmp_path / f"got-{n}", [site.url()]), each))
        for n, each in enumerate(told)
    ]
    await until(lambda: sum(each.have > 0 for each in told) == 3, "three are under way", LIMIT_S)
    assert sum(each.note == "waits for its turn" for each in told) == 3
    await asyncio.gather(*tasks)
    assert all((tmp_path / f"got-{n}").read_bytes() == DATA for n in range(6))
    assert len(site.asked()) == 6


@pytest.mark.parametrize("trouble", ["dead", "404", "another file"])
async def test_a_mirror_serves_where_the_first_does_not(site: Site, target: Path, trouble: str) -> None:
    site.start(PLAIN)
    site.put("other", DATA[::-1])
    first = {"dead": site.url(port=free_port()), "404": site.url("none"), "another file": site.url("other")}[trouble]
    path = await downloads().fetch(File(target, [first, site.url()], SHA256))
    assert path.read_bytes() == DATA


async def test_a_mirror_with_another_validator_goes_on_with_the_part(site: Site, target: Path) -> None:
    site.start(f"{SLOW}\n{PLAIN.replace('$port$', '$second$')}")
    size = await part_of(site, target, SHA256)
    site.put("file", DATA, age_s=2 * OLD_S)
    told = Progress()
    await downloads().fetch(File(target, [site.url(port=site.second)], SHA256), told)
    assert is_data(target)
    assert (told.received, site.asked(site.second)[-1]["status"]) == (len(DATA) - size, "206")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "site" / "tls")


def with_tls(authority: Authority, more: str) -> str:
    certificate = authority.server()
    keys = f"ssl_certificate {certificate.file}; ssl_certificate_key {certificate.key_file};"
    return f"server {{ listen 127.0.0.1:$port$ ssl; {keys} root $root$; {more} }}"


async def secure(authority: Authority, url: str, target: Path, **secret: str) -> Path:
    trusted = trust(verify=True, ca_file=authority.ca_file)
    return await Downloads(tls=trusted, limits=QUICK).fetch(File(target, [url], secret=secret))


async def test_a_private_authority_is_trusted_and_no_other(site: Site, target: Path, authority: Authority) -> None:
    site.start(with_tls(authority, ""))
    url = f"https://127.0.0.1:{site.port}/file"
    with pytest.raises(TopicdError) as told:
        await downloads().fetch(File(target, [url]))
    assert told.value.cause == "tls_untrusted"
    assert "SSL_CA_FILE" in told.value.hint
    assert (await secure(authority, url, target)).read_bytes() == DATA


async def test_https_never_leads_to_http(site: Site, target: Path, authority: Authority) -> None:
    to_plain = "location /moved { return 302 http://127.0.0.1:$second$/file; }"
    site.start(f"{with_tls(authority, to_plain)}\n{PLAIN.replace('$port$', '$second$')}")
    with pytest.raises(Unusable) as told:
        await secure(authority, f"https://127.0.0.1:{site.port}/moved", target)
    assert told.value.cause == "redirected"
    assert not site.asked(site.second)


async def test_a_secret_does_not_follow_to_another_origin(site: Site, target: Path) -> None:
    moved = "location /moved { return 302 http://127.0.0.1:$second$/file; } root $root$;"
    site.start(f"server {{ listen 127.0.0.1:$port$; {moved} }}\n{PLAIN.replace('$port$', '$second$')}")
    file = File(target, [site.url("moved")], secret={"Authorization": "Bearer secret"})
    assert (await downloads().fetch(file)).read_bytes() == DATA
    assert 'auth="Bearer secret"' in site.asked()[-1]["headers"]
    assert 'auth="-"' in site.asked(site.second)[-1]["headers"]


async def test_redirects_in_a_ring_end(site: Site, target: Path) -> None:
    site.start("server { listen 127.0.0.1:$port$; location / { return 302 /file; } }")
    with pytest.raises(Unusable) as told:
        await downloads().fetch(File(target, [site.url()]))
    assert told.value.cause == "redirected"
    assert len(site.asked()) == 11


async def test_nobody_there_is_told(site: Site, target: Path) -> None:
    with pytest.raises(Unavailable):
        await downloads().fetch(File(target, [site.url()]))


class Verb:
    """`topicd fetch url` as processes on one home."""

    def __init__(self, path: Path, site: Site) -> None:
        path.mkdir()
        self.home = Home(path, {})
        self.site = site
        self.target = path / "cache" / "file"

    async def begin(self, *args: str) -> asyncio.subprocess.Process:
        command = [str(TOPICD), "fetch", "url", self.site.url(), "--quiet", *args]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, env=self.home.env, cwd=self.home.path, stdout=pipe, stderr=pipe
        )

    async def end(self, process: asyncio.subprocess.Process) -> int | None:
        await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode


@pytest.fixture
def verb(tmp_path: Path, site: Site) -> Verb:
    return Verb(tmp_path / "home", site)


async def test_killed_in_the_middle_the_next_one_goes_on(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    part = verb.target.with_name("file.part")
    sizes = list[int]()
    for _ in range(2):
        process = await verb.begin()
        least = (sizes[-1] if sizes else 0) + 300_000
        await until(lambda: part.exists() and part.stat().st_size >= least, "it has grown", LIMIT_S)  # noqa: B023 - awaited here
        process.kill()
        await verb.end(process)
        sizes.append(part.stat().st_size)
    site.stop()
    site.start(PLAIN)
    assert await verb.end(await verb.begin()) == cli.OK
    assert verb.target.read_bytes() == DATA
    assert {path.name for path in siblings(verb.target)} == {"file"}


async def test_interrupted_it_goes_on_where_it_was(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    part = verb.target.with_name("file.part")
    process = await verb.begin()
    await until(lambda: part.exists() and part.stat().st_size >= 500_000, "a part is there", LIMIT_S)
    process.send_signal(signal.SIGINT)
    assert await verb.end(process) == cli.INTERRUPTED
    size = part.stat().st_size
    site.stop()
    site.start(PLAIN)
    assert await verb.end(await verb.begin()) == cli.OK
    last = site.asked()[-1]
    assert (last["status"], last["sent"]) == ("206", str(len(DATA) - size))


async def test_two_processes_at_one_file_cost_one_transfer(verb: Verb, site: Site) -> None:
    site.start(SLOW)
    both = [await verb.begin(), await verb.begin()]
    assert [await verb.end(process) for process in both] == [cli.OK, cli.OK]
    assert verb.target.read_bytes() == DATA
    assert [each["status"] for each in site.asked()] == ["200"]


async def test_a_wrong_digest_leaves_nothing_by_the_name(verb: Verb, site: Site) -> None:
    site.start(PLAIN)
    process = await verb.begin("--sha256", "0" * 64)
    _, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode == cli.FAILED
    assert b"hint:" in err
    assert not verb.target.exists()


@pytest.mark.parametrize("seed", range(4))
async def test_killed_at_any_byte_it_comes_whole(verb: Verb, site: Site, seed: int) -> None:
    """A process is killed when so many bytes are there; what is there in the end is the file."""
    site.start("server { listen 127.0.0.1:$port$; root $root$; limit_rate 4m; limit_rate_after 256k; }")
    part = verb.target.with_name("file.part")
    for at in sorted(random.Random(seed).sample(range(len(DATA)), 3)):
        process = await verb.begin("--sha256", SHA256.partition(":")[2])
        await until(
            lambda: verb.target.exists() or (part.exists() and part.stat().st_size >= at),  # noqa: B023 - awaited here
            "it has grown",
            LIMIT_S,
        )
        if process.returncode is None:
            process.kill()
        await verb.end(process)
    assert await verb.end(await verb.begin("--sha256", SHA256.partition(":")[2])) == cli.OK
    assert verb.target.read_bytes() == DATA
    assert {path.name for path in siblings(verb.target)} == {"file"}
    shutil.rmtree(verb.home.path)
