"""A real nginx before a server: TLS, a password, nothing held back of a stream.

Owns the process and its configuration in a folder. Promises that it answers when it is handed over and is gone
afterwards. Needs no rights, touches nothing of a system's own nginx.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rig.daemon import until
from rig.ports import free_port
from rig.tls import Certificate

__all__ = ["PROGRAM", "free_port", "nginx", "serving"]

# Where Debian keeps it, an ordinary user's PATH does not lead.
PROGRAM: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
UP_S: Final = 30.0
# One process, so that its end is the end of all; temporary files where we may write.
FRAME: Final = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    log_format asked '$server_port $status $body_bytes_sent $uri '
        'range="$http_range" if_range="$http_if_range" auth="$http_authorization"';
    access_log {folder}/access.log asked;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""
PROXY: Final = """\
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate.file};
        ssl_certificate_key {certificate.key_file};
        auth_basic "models";
        auth_basic_user_file {folder}/users;
        client_max_body_size {body_bytes_max};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
            proxy_buffering off;
            proxy_read_timeout {read_timeout_s}s;
        }}
    }}
"""


@contextlib.contextmanager
def nginx(
    folder: Path,
    upstream: str,
    certificate: Certificate,
    *,
    login: str,
    read_timeout_s: int = 60,
    body_bytes_max: int = 1_048_576,
) -> Iterator[str]:
    """Run it before an upstream, such as `http://127.0.0.1:11434`; yield its host and port.

    Args:
        folder: for its files.
        upstream: what it hands requests on to; need not be there.
        certificate: the one it shows.
        login: `user:password`, the only one it lets in.
        read_timeout_s: how long the upstream may be silent.
        body_bytes_max: of a request.
    """
    assert PROGRAM, "nginx is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    user, _, password = login.partition(":")
    (folder / "users").write_text(f"{user}:{{PLAIN}}{password}\n")
    port = free_port()
    servers = PROXY.format(
        folder=folder,
        port=port,
        certificate=certificate,
        upstream=upstream,
        read_timeout_s=read_timeout_s,
        body_bytes_max=body_bytes_max,
    )
    with serving(folder, servers, port):
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def serving(folder: Path, servers: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run it with these `server` blocks, one of which listens on the port; yield its process.

    Its access log, `access.log` in the folder, has a line a request: port, status, bytes of the body, path, and the
    headers that matter to downloads.
    """
    assert PROGRAM, "nginx is not installed"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder, servers=servers))
    command = [PROGRAM, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "error.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: _takes(port, process, folder / "error.log"), "nginx takes connections", UP_S)
            yield process
        finally:
            process.kill()


def _takes(port: int, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, f"nginx has ended: {log.read_text()}"
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=UP_S):
        return True
    return False
