"""sd_notify with real sockets."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from topicd.telemetry.sdnotify import SEND_TIMEOUT_S, VALUE_CHARS_MAX, notify, watchdog_s

LIMIT_S = 30.0


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@topicd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield sock


def test_one_call_is_one_datagram(manager: socket.socket) -> None:
    assert notify(ready=1, STATUS="3 jobs")
    assert manager.recv(4096) == b"READY=1\nSTATUS=3 jobs"


def test_a_value_cannot_assign_another(manager: socket.socket) -> None:
    assert notify(status="a\nMAINPID=1\r\nb\u2028c\udcff")
    assert manager.recv(4096) == rb"STATUS=a MAINPID=1 b c\udcff"


def test_a_value_is_cut(manager: socket.socket) -> None:
    assert notify(status="x" * 1_000_000)
    assert manager.recv(1_000_000) == b"STATUS=" + b"x" * VALUE_CHARS_MAX


def test_a_manager_that_does_not_read_holds_nobody_up_for_long(manager: socket.socket) -> None:
    began_s = time.monotonic()
    sent = 0
    while notify(watchdog=1):
        sent += 1
        assert sent < 100_000
    assert sent > 0
    assert time.monotonic() - began_s < SEND_TIMEOUT_S + LIMIT_S
    assert manager.recv(100) == b"WATCHDOG=1"
    assert notify(watchdog=1)


def test_a_manager_that_reads_late_is_still_told(manager: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, suppress(BlockingIOError):
        filler.setblocking(False)  # noqa: FBT003 - the library's signature
        filler.connect(manager.getsockname())
        while True:
            filler.send(b"X=1")
    reader = threading.Timer(0.1, manager.recv, [100])
    reader.start()
    try:
        assert notify(LIMIT_S, ready=1)  # the reader's thread may be later yet
    finally:
        reader.join()


@pytest.mark.parametrize(
    "address", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens", "/" + "x" * 200, "@"]
)
def test_without_a_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify(ready=1)


def test_without_the_variable_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(ready=1)


@pytest.mark.parametrize(
    ("usec", "pid", "wanted_s"),
    [
        ("30000000", None, 30.0),
        pytest.param("500000", str(os.getpid()), 0.5, id="ours"),
        ("30000000", "1", None),
        ("0", None, None),
        ("-5", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_asked_for_by_the_manager(
    usec: str | None, pid: str | None, wanted_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_s() == wanted_s
