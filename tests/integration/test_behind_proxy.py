"""The page behind nginx, by the configuration that docs/DEPLOYMENT.md gives: TLS, a password, its name, and live."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rig.nginx import PROGRAM, free_port, serving
from rig.pages import blocks_of
from rig.site import LIMIT_S, Site, news
from rig.tls import Authority

pytestmark = pytest.mark.skipif(not PROGRAM, reason="nginx is not installed")

NAME = "topicd.home.lan"
LOGIN = ("joe", "secret")


def server_block(folder: Path, port: int, upstream: int, authority: Authority) -> str:
    """Return the page's configuration, with places and ports of this machine."""
    (given,) = blocks_of("docs/DEPLOYMENT.md", "Behind a proxy")
    certificate = authority.server(f"DNS:{NAME},IP:127.0.0.1")
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/topicd.home.lan.crt": str(certificate.file),
        "/etc/ssl/topicd.home.lan.key": str(certificate.key_file),
        "/etc/nginx/topicd.users": str(folder / "users"),
        "127.0.0.1:9469": f"127.0.0.1:{upstream}",
    }
    block = "\n".join(given.lines)
    for old, new in changes.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    return block


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path / "home", hosts=(NAME,))
    await made.start()
    yield made
    await made.server.stop()


@contextmanager
def visitor(folder: Path, site: Site) -> Iterator[httpx.AsyncClient]:
    """Someone who trusts the authority and asks for the name, which leads to this machine."""
    folder.mkdir()
    (folder / "users").write_text("{}:{{PLAIN}}{}\n".format(*LOGIN))
    authority = Authority(folder / "authority")
    port = free_port()
    trust = ssl.create_default_context(cafile=authority.ca_file)
    with serving(folder, server_block(folder, port, site.port, authority), port):
        yield httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", headers={"Host": NAME}, verify=trust, trust_env=False, timeout=LIMIT_S
        )


async def test_the_page_comes_with_the_password_and_not_without(tmp_path: Path, site: Site) -> None:
    with visitor(tmp_path / "nginx", site) as client:
        async with client:
            assert (await client.get("/")).status_code == 401
            answer = await client.get("/", auth=LOGIN)
    assert answer.status_code == 200
    assert "Nothing to do" in answer.text


async def test_the_page_is_live(tmp_path: Path, site: Site) -> None:
    with visitor(tmp_path / "nginx", site) as client:
        async with client, client.stream("GET", "/events", auth=LOGIN) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            lines = answer.aiter_lines()
            first = await news(lines)
            site.finish_something()
            assert await news(lines) != first


async def test_a_name_that_was_not_given_is_refused(site: Site) -> None:
    assert (await site.get("/", host=NAME)).status_code == 200
    assert (await site.get("/", host="elsewhere.example")).status_code == 421
