"""Ports for servers that tests start as processes of their own, or leave away.

Owns the choice. Promises that while this process lives no other test process of this user chooses the same, and that
the kernel hands it to nobody who asks for any: neither before its server has started nor while that is down.
"""

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO, Final

FOLDER: Final = Path(tempfile.gettempdir()) / f"topicd-ports-{os.geteuid()}"
FIRST: Final = 10_000
ANY: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_held: Final = list[IO[str]]()


def free_port() -> int:
    """Return a port that nobody listens on, below those that the kernel gives to whoever asks for any."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    end = int(ANY.read_text().split()[0])
    for port in random.sample(range(FIRST, end), end - FIRST):
        if _is_free(port):
            return port
    raise AssertionError(f"all ports from {FIRST} to {end} are taken")


def _is_free(port: int) -> bool:
    """Tell whether a port is free; if so, its lock is held until this process ends."""
    lock = (FOLDER / f"{port}").open("w")
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        socket.create_server(("127.0.0.1", port)).close()
        _held.append(lock)
        return True
    lock.close()
    return False
