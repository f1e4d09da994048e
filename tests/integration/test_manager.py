"""What a real daemon tells a service manager, whose socket is ours; and when the watchdog is not fed."""

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.patient import BACKENDS
from rig.daemon import Home, running, until
from topicd import manager
from topicd.manager import STATUS_EACH_S, ServiceManager
from topicd.telemetry.events import Events

WATCHDOG_S = 0.4
BEATS = 4


class Manager:
    """A service manager's end of the socket: what it was told, one mapping a datagram, and when."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.address: str = sock.getsockname()
        self.told: list[tuple[float, dict[str, str]]] = []

    def hear(self) -> list[dict[str, str]]:
        """Take what has come and return all so far."""
        while True:
            try:
                text = self._sock.recv(65536, socket.MSG_DONTWAIT).decode()
            except BlockingIOError:
                return [each for _, each in self.told]
            self.told.append((time.monotonic(), dict(line.split("=", 1) for line in text.splitlines())))

    def statuses(self) -> list[str]:
        return [each["STATUS"] for each in self.hear() if "STATUS" in each]

    def beats(self) -> int:
        return sum(each.get("WATCHDOG") == "1" for each in self.hear())


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(sock)


@pytest.fixture
def managed(home: Home, told: Manager) -> Home:
    home.env["NOTIFY_SOCKET"] = told.address
    return home


def test_ready_is_told_when_topics_are_taken_and_stopping_when_it_ends(managed: Home, told: Manager) -> None:
    with running(managed) as daemon:
        until(lambda: any(each.get("READY") for each in told.hear()), "READY=1")
        before = list(itertools.takewhile(lambda each: "READY" not in each, told.hear()))
        assert before
        assert all("starting" in each["STATUS"] for each in before)
        assert int(before[0]["EXTEND_TIMEOUT_USEC"]) > 0
        assert daemon.stop() == 0
    last = told.hear()[-1]
    assert last["STOPPING"] == "1"
    assert int(last["EXTEND_TIMEOUT_USEC"]) >= 2 * 10 * 1_000_000
    assert told.beats() == 0  # nobody asked for it


def test_the_status_counts_jobs_and_is_not_told_where_nothing_happens(
    managed: Home, told: Manager, tmp_path: Path
) -> None:
    signs = tmp_path / "signs"
    signs.mkdir()
    with running(managed, PATIENT=str(signs), TOPICD_AUDIO_JOBS="1", TOPICD_SCRIPT_JOBS="8", **BACKENDS):
        (signs / "script.go").touch()
        for each in "abc":
            managed.drop(f"{each}.md", f"# {each}\n\nA topic.\n")
        until(lambda: "1 working, 2 waiting" in told.statuses(), "the counts")
        managed.drop("bad.md", b"\xff\xfe")
        until(lambda: "1 working, 2 waiting, 1 failed" in told.statuses(), "a failed one")
        for kind in ("audio", "image"):
            (signs / f"{kind}.go").touch()
        until(lambda: "0 working, 0 waiting, 1 failed" in told.statuses(), "the end")
        said = len(told.hear())
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: len(told.hear()) > said, "a word of an idle daemon", 2 * STATUS_EACH_S)
    times = [at for at, each in told.told if "STATUS" in each and "EXTEND_TIMEOUT_USEC" not in each]
    assert all(b - a > STATUS_EACH_S / 2 for a, b in itertools.pairwise(times[1:]))


def test_a_stage_that_waits_for_its_server_is_in_the_status(managed: Home, told: Manager, tmp_path: Path) -> None:
    env = {"TOPICD_AUDIO_BACKEND": "fakes.stubborn:Away", "FAKE_UP": str(tmp_path / "up")}
    with running(managed, **env):
        managed.drop("a.md", "# A\n\nA topic.\n")
        until(lambda: any("it is switched off" in each for each in told.statuses()), "the trouble")
        (tmp_path / "up").touch()
        until(lambda: told.statuses()[-1] == "0 working, 0 waiting", "the end of the trouble")


async def test_patience_is_asked_for_again_and_again_until_it_is_ready(
    told: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "EXTEND_EACH_S", 0.05)
    service = ServiceManager(work=str, trouble=lambda: ["the disk is full"])

    def extended() -> int:
        return sum("EXTEND_TIMEOUT_USEC" in each for each in told.hear())

    service.starting()
    await _until(lambda: extended() >= BEATS)
    assert set(told.statuses()) == {"starting; the disk is full"}
    service.ready([])
    until_ready = extended()
    await asyncio.sleep(0.2)
    assert extended() == until_ready
    service.stopping(1.0)


def test_the_watchdog_is_fed_by_the_daemon_it_was_promised_to(managed: Home, told: Manager) -> None:
    with running(managed, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6))):
        until(lambda: told.beats() >= BEATS, "the watchdog's food")
    at = [at for at, each in told.told if "WATCHDOG" in each]
    assert at == sorted(at)
    with running(managed, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)), WATCHDOG_PID="1"):
        before = told.beats()
        time.sleep(2 * WATCHDOG_S)
        assert told.beats() == before


def test_a_daemon_whose_event_loop_hangs_is_not_fed(managed: Home, told: Manager, tmp_path: Path) -> None:
    env = {"TOPICD_AUDIO_BACKEND": "fakes.stubborn:Blocking", "FAKE_BLOCKED": str(tmp_path / "blocked")}
    with running(managed, WATCHDOG_USEC=str(int(WATCHDOG_S * 1e6)), **env) as daemon:
        until(lambda: told.beats() >= BEATS, "the watchdog's food")
        managed.drop("a.md", "# A\n\nA topic.\n")
        until((tmp_path / "blocked").exists, "the hang")
        fed = told.beats()
        time.sleep(3 * WATCHDOG_S)
        assert told.beats() <= fed + 1
        daemon.stop(signal.SIGKILL)


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
async def test_a_daemon_of_which_a_part_has_ended_is_not_fed(
    how: str, told: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG_S * 1e6)))
    end = asyncio.Event()

    async def part() -> None:
        await end.wait()
        if how == "raises":
            raise RuntimeError("a planted fault")

    mortal = asyncio.create_task(part())
    other = asyncio.create_task(asyncio.Event().wait())
    service = ServiceManager(work=lambda: "", trouble=list)
    service.ready([mortal, other])  # type: ignore[list-item]  # what it returns is of no interest
    await _until(lambda: told.beats() >= BEATS)
    if how == "is cancelled":
        mortal.cancel()
    end.set()
    await asyncio.wait([mortal])
    fed = told.beats()
    await asyncio.sleep(3 * WATCHDOG_S)
    assert told.beats() == fed
    service.stopping(1.0)
    other.cancel()
    assert not mortal.cancelled() or how == "is cancelled"
    assert how != "raises" or mortal.exception()


async def test_a_status_is_told_once_and_a_tree_that_cannot_be_read_is_looked_at_again(
    told: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "STATUS_EACH_S", 0.05)
    faults = [OSError(5, "Input/output error")]

    def work() -> str:
        if faults:
            raise faults.pop()
        return "1 working, 0 waiting"

    service = ServiceManager(work=work, trouble=list)
    service.ready([])
    await _until(lambda: told.statuses()[-1] == "the spool cannot be read: Input/output error")
    events = Events([service])
    events.emit("storage.ok")
    await _until(lambda: told.statuses()[-1] == "1 working, 0 waiting")
    said = len(told.statuses())
    events.emit("storage.ok")
    await asyncio.sleep(0.3)
    assert len(told.statuses()) == said
    service.stopping(1.0)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - told by a socket's other end
            await asyncio.sleep(0.02)
