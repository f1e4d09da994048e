"""Word to the service manager: the sd_notify(3) protocol, by a plain datagram socket.

Owns the environment variables of that protocol. Promises never to raise and never to wait longer than it is told, which
is `SEND_TIMEOUT_S` as a rule; outside a service manager every call does nothing. systemd-python would add a compiled
dependency for the same one datagram. Never reads an answer, sends no file descriptors, and knows no `vsock:` addresses.
"""

import os
import socket
from contextlib import suppress
from typing import Final

SOCKET: Final = "NOTIFY_SOCKET"
SEND_TIMEOUT_S: Final = 1.0
VALUE_CHARS_MAX: Final = 1_000


def notify(timeout_s: float = SEND_TIMEOUT_S, /, **state: object) -> bool:
    """Send assignments such as `ready=1, status="3 jobs"`, all in one datagram.

    Args:
        timeout_s: how long it waits for a manager that is slow to read.
        state: names as in sd_notify(3), in either case; values are written on one line and cut at
            `VALUE_CHARS_MAX`.

    Returns:
        Whether there is a service manager and it was told.
    """
    if not is_managed():
        return False
    with suppress(OSError, ValueError):
        text = "\n".join(f"{name.upper()}={_line(value)}" for name, value in state.items())
        _send(os.environ[SOCKET], text, timeout_s)
        return True
    return False


def is_managed() -> bool:
    """Tell whether a service manager listens."""
    return os.environ.get(SOCKET, "").startswith(("/", "@"))


def watchdog_s() -> float | None:
    """Return the seconds within which `watchdog=1` is wanted again, or None when nobody waits for it."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with suppress(ValueError):
        wait_us = int(os.environ.get("WATCHDOG_USEC", ""))
        return wait_us / 1e6 if wait_us > 0 else None
    return None


def _line(value: object) -> str:
    """Return the value on one line: a line feed would begin an assignment of its own."""
    return " ".join(str(value)[:VALUE_CHARS_MAX].splitlines())


def _send(address: str, text: str, timeout_s: float) -> None:
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect(path)
        sock.sendall(text.encode("utf-8", "backslashreplace"))
