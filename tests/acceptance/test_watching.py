"""What can befall a watch, done to a running daemon: it heals by itself, says so once, and no topic waits for longer
than a rescan.

`WATCH_BURST` is how many topics arrive while the daemon is stopped; where it is set, the slowest test is run too.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rig.daemon import TESTS, Daemon, Home, load, running, until

RESCAN_S = 1.0
WITHIN_S = 1.1 * RESCAN_S + 15.0  # a rescan, and what a loaded machine needs for the claim
BURST = int(os.environ.get("WATCH_BURST", "100"))
QUEUE = Path("/proc/sys/fs/inotify/max_queued_events")

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
CAN_ENTER = (
    bool(shutil.which("unshare") and shutil.which("nsenter"))
    and not subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode
)
in_namespace = pytest.mark.skipif(not CAN_ENTER, reason="user namespaces are not to be had here")

PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
CAN_TRACE = bool(shutil.which("strace")) and (
    os.geteuid() == 0 or not PTRACE_SCOPE.exists() or PTRACE_SCOPE.read_text().strip() == "0"
)
needs_fuse = pytest.mark.skipif(
    not (shutil.which("bindfs") and os.access("/dev/fuse", os.R_OK | os.W_OK)), reason="no FUSE here"
)


@pytest.fixture
def home(home: Home) -> Home:
    """A home with a short rescan, and a first stage that is busy with its first job."""
    home.env |= {"TOPICD_RESCAN_S": str(RESCAN_S), "TOPICD_POLL_S": "0.5", "FAKE_SECONDS": "3600"}
    return home


def long_run(test: Callable[..., None]) -> Callable[..., None]:
    """Leave a test out of the everyday run."""
    test.__test__ = "WATCH_BURST" in os.environ  # type: ignore[attr-defined]
    return test


@contextmanager
def running_under(home: Home, *under: str, **env: str) -> Iterator[Daemon]:
    daemon = Daemon(home, under=under, **env)
    try:
        daemon.event("daemon.ready")
        yield daemon
    finally:
        daemon.close()


def enter(daemon: Daemon) -> list[str]:
    return ["nsenter", "-t", str(daemon.process.pid), "-U", "-m", "--preserve-credentials"]


def inside(daemon: Daemon, *command: str) -> None:
    """Run a command in the daemon's own namespaces."""
    subprocess.run([*enter(daemon), *command], check=True, timeout=30)


def drop_inside(daemon: Daemon, name: str) -> None:
    """Move a topic into input/ as the daemon sees it, whatever is mounted there."""
    folder = Path(f"/proc/{daemon.process.pid}/root{daemon.home.input}")
    (folder / f".{name}").write_text(f"# {name}\n")
    (folder / f".{name}").rename(folder / name)


def accepted(daemon: Daemon, name: str) -> None:
    daemon.event("job.accepted", WITHIN_S, source=name)


def status(home: Home) -> dict[str, Any]:
    told = json.loads(home.topicd("status", "--json").stdout)
    assert isinstance(told, dict)
    return told


def get(home: Home, path: str) -> str:
    port = load(home.spool / ".lock")["port"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return str(answer.read().decode())


def watcher(home: Home) -> dict[str, Any]:
    """What the daemon tells of its watcher."""
    told = json.loads(get(home, "readyz"))["watcher"]
    assert isinstance(told, dict)
    return told


def is_watcher(home: Home, **expected: object) -> bool:
    return expected.items() <= watcher(home).items()


def metric(home: Home, sample: str) -> float:
    lines = dict(line.rsplit(" ", 1) for line in get(home, "metrics").splitlines() if not line.startswith("#"))
    return float(lines[f"topicd_watcher_{sample}"])


def said(daemon: Daemon) -> list[str]:
    """What the watcher said since it started, as event and cause or reason."""
    events = [event for event in daemon.events() if event["event"].startswith("topicd.watcher.")]
    return [
        " ".join([e["event"].split(".")[2], str(e.get("reason") or e.get("cause") or "")]).strip() for e in events[1:]
    ]


def inotify_instances(daemon: Daemon) -> int:
    """Return how many the daemon has open; other descriptors come and go meanwhile."""
    count = 0
    for path in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += "inotify" in os.readlink(path)  # noqa: PTH115 - no path
    return count


def fill_the_queue(home: Home) -> None:
    """Make more events than the kernel keeps; what comes after them makes none."""
    here, there = str(home.spool / "scripts" / "here"), str(home.spool / "scripts" / "there")
    Path(here).mkdir()
    for _ in range(int(QUEUE.read_text()) // 4 + 1_024):
        os.rename(here, there)  # noqa: PTH104 - thousands of them
        os.rename(there, here)  # noqa: PTH104
    Path(here).rmdir()


@pytest.mark.skipif(int(QUEUE.read_text()) > 100_000, reason="an event queue this long takes too long to fill")
def test_topics_that_come_while_it_is_stopped_are_all_accepted_though_their_events_are_lost(home: Home) -> None:
    # No self-test and no rescan: what leads to a scan of input/ after the first topic is the overflow alone.
    with running(home, TOPICD_RESCAN_S="3600", TOPICD_WATCH_MODE="events") as daemon:
        home.drop("first.md", "# First\n")
        accepted(daemon, "first.md")
        daemon.event("stage.started")
        daemon.process.send_signal(signal.SIGSTOP)
        fill_the_queue(home)
        for number in range(BURST):
            home.drop(f"{number:06}.md", f"# Topic {number}\n")
        daemon.process.send_signal(signal.SIGCONT)
        until(lambda: not list(home.input.iterdir()), "input/ is empty", 60 + BURST / 50)
        until(lambda: len(daemon.events("job.accepted")) > BURST, "all are accepted")
        sources = Counter(event["source"] for event in daemon.events("job.accepted"))
        assert sources == Counter(["first.md", *(f"{number:06}.md" for number in range(BURST))])
        assert said(daemon) == ["overflowed"]
        assert "events were lost" not in daemon.log(), "watchdog has its own words for it"
        assert is_watcher(home, mode="events", up=True, trouble="", overflows=1, restarts=0)
        assert metric(home, "overflows_total") == 1
        assert "1 overflows" in home.topicd("status").stdout
        assert status(home)["watcher"] == watcher(home)


@pytest.mark.parametrize("deed", ["renamed", "deleted"])
def test_input_made_anew_is_watched_anew(home: Home, deed: str) -> None:
    with running(home) as daemon:
        home.drop("before.md", "# Before\n")
        accepted(daemon, "before.md")
        if deed == "renamed":
            home.input.rename(home.path / "old")
        else:
            home.input.rmdir()
        home.input.mkdir()
        home.drop("after.md", "# After\n")
        accepted(daemon, "after.md")
        until(lambda: is_watcher(home, mode="events", up=True, trouble="", restarts=1), "watched anew")
        # A machine under load may see the moment between.
        assert said(daemon) in (
            ["restarted directory_replaced"],
            ["trouble directory_gone", "restarted directory_gone"],
        )
        reason = said(daemon)[-1].split()[1]
        assert metric(home, f'restarts_total{{reason="{reason}"}}') == 1


def test_while_input_is_gone_it_says_so_once_and_what_to_do(home: Home) -> None:
    with running(home) as daemon:
        home.input.rmdir()
        until(lambda: not watcher(home)["up"], "it is noticed", WITHIN_S)
        told = watcher(home)
        assert str(home.input) in told["trouble"]
        assert told["hint"] == f"Make it again: mkdir {home.input}"
        text = home.topicd("status").stdout
        assert "watcher DOWN" in text
        assert told["hint"] in text
        assert json.loads(get(home, "healthz")) == {"ok": False, "why": [told["trouble"]]}
        assert metric(home, 'up{mode="events"}') == metric(home, 'up{mode="poll"}') == 0
        home.input.mkdir()
        home.drop("after.md", "# After\n")
        accepted(daemon, "after.md")
        until(lambda: is_watcher(home, mode="events", up=True, trouble="", hint=""), "it is well again", WITHIN_S)
        assert said(daemon) == ["trouble directory_gone", "restarted directory_gone"]
        assert json.loads(get(home, "healthz"))["ok"] is True


def test_a_stage_made_anew_is_watched_anew(home: Home) -> None:
    home.hold_calls("audio")
    with running(home, FAKE_SECONDS="0") as daemon:
        home.drop("a.md", "# A\n")
        daemon.event("stage.started", stage="audio")
        job = home.only("audio").name
        assert home.topicd("hold", job).returncode == 0
        audio = home.spool / "audio"
        audio.rename(home.path / "old")
        audio.mkdir()
        until(lambda: is_watcher(home, up=True, restarts=1), "watched anew", WITHIN_S)
        (home.spool / "held" / job).rename(audio / job)  # only the watch, or a rescan, can tell of this
        until(lambda: len(daemon.events("stage.started")) == 3, "the job goes on", WITHIN_S)
        assert daemon.events("stage.started")[-1]["stage"] == "audio"
        assert said(daemon)[-1].startswith("restarted directory_")


@in_namespace
def test_a_mount_over_input_its_end_and_another_are_each_followed(home: Home) -> None:
    other = home.path / "other"
    other.mkdir()
    folder = str(home.input)
    with running_under(home, *NAMESPACE) as daemon:
        for number, command in enumerate(
            (("mount", "-t", "tmpfs", "none", folder), ("umount", folder), ("mount", "--bind", str(other), folder)), 1
        ):
            inside(daemon, *command)
            drop_inside(daemon, f"{number}.md")
            accepted(daemon, f"{number}.md")
            until(lambda number=number: is_watcher(home, restarts=number, up=True), "watched anew")  # type: ignore[misc]
        first, second, third = said(daemon)
        assert (first, third) == ("restarted directory_replaced",) * 2
        # A rescan may see that another directory is there before the kernel's word of it is read.
        assert second in {"restarted unmounted", "restarted directory_replaced"}
        assert not list(other.iterdir())


@in_namespace
@pytest.mark.parametrize("kind", ["watches", "instances"])
def test_out_of_watches_it_polls_and_goes_back_to_events(home: Home, kind: str) -> None:
    limit = f"/proc/sys/user/max_inotify_{kind}"
    cause = {"watches": "watch_limit", "instances": "instance_limit"}[kind]
    few = {"watches": 2, "instances": 0}[kind]
    with running_under(home, *NAMESPACE, "sh", "-c", f'echo {few} > {limit}; exec "$@"', "sh") as daemon:
        home.drop("polled.md", "# Polled\n")
        accepted(daemon, "polled.md")
        assert is_watcher(home, mode="poll", up=True, restarts=0)
        assert f"max_user_{kind}" in watcher(home)["hint"]
        assert "watcher by poll" in home.topicd("status").stdout
        assert metric(home, 'up{mode="poll"}') == 1
        inside(daemon, "sh", "-c", f"echo 100 > {limit}")
        until(lambda: is_watcher(home, mode="events", trouble="", restarts=1), "it watches by events")
        assert said(daemon) == [f"trouble {cause}", f"restarted {cause}"]


@in_namespace
def test_a_directory_made_anew_when_no_watch_is_left_is_polled(home: Home) -> None:
    limit = "/proc/sys/user/max_inotify_watches"
    with running_under(home, *NAMESPACE) as daemon:
        inside(daemon, "sh", "-c", f"echo 2 > {limit}")
        assert is_watcher(home, mode="events", trouble="")
        home.input.rename(home.path / "old")  # the new one cannot be watched
        home.input.mkdir()
        home.drop("again.md", "# Again\n")
        accepted(daemon, "again.md")
        until(lambda: is_watcher(home, mode="poll", up=True), "it polls", WITHIN_S)
        inside(daemon, "sh", "-c", f"echo 100 > {limit}")
        until(lambda: is_watcher(home, mode="events", trouble="", restarts=1), "it watches by events again")
        # A machine under load may see the moment between.
        assert said(daemon) in (
            ["trouble watch_limit", "restarted directory_replaced"],
            ["trouble directory_gone", "trouble watch_limit", "restarted directory_gone"],
        )


def test_a_handler_that_raises_is_told_once_and_called_again(home: Home) -> None:
    deaf = home.path / "deaf"
    with running_under(home, sys.executable, str(TESTS / "fakes" / "deaf_app.py"), FAKE_DEAF=str(deaf)) as daemon:
        deaf.touch()
        home.drop("a.md", "# A\n")
        until(lambda: not watcher(home)["up"], "it is noticed", WITHIN_S)
        assert "input" in watcher(home)["trouble"]
        told = daemon.event("watcher.wake_failed", directory="input")
        assert "a planted fault" in told["error"]
        home.drop("b.md", "# B\n")
        until(lambda: metric(home, "wake_failures_total") == 1, "counted")
        deaf.unlink()
        accepted(daemon, "a.md")
        accepted(daemon, "b.md")
        until(lambda: is_watcher(home, up=True, trouble="", hint="", wake_failures=1), "well again", WITHIN_S)
        assert said(daemon) == ["wake_failed unexpected"]


def test_by_the_clock_alone_nothing_is_missed_and_nothing_watched(home: Home) -> None:
    with running(home, TOPICD_WATCH_MODE="poll") as daemon:
        for name in ("a.md", "b.md"):
            home.drop(name, "# A\n")
            accepted(daemon, name)
        assert inotify_instances(daemon) == 0
        assert is_watcher(home, mode="poll", up=True, trouble="", restarts=0)
        assert metric(home, 'up{mode="poll"}') == 1
        assert said(daemon) == []


@in_namespace
@needs_fuse
def test_on_fuse_it_polls_and_a_server_that_dies_is_told_and_healed(home: Home) -> None:
    far = home.path / "far"
    far.mkdir()
    with running_under(home, *NAMESPACE) as daemon:
        server = subprocess.Popen([*enter(daemon), "bindfs", "-f", str(far), str(home.input)])
        try:
            daemon.event("watcher.trouble", cause="remote_file_system")
            (far / "elsewhere.md").write_text("# Elsewhere\n")  # by another machine, as it were
            accepted(daemon, "elsewhere.md")
            assert is_watcher(home, mode="poll", up=True)
            assert "watch mode to poll" in watcher(home)["hint"]
        finally:
            server.kill()
            server.wait(30)
        daemon.event("watcher.trouble", cause="directory_gone")
        assert is_watcher(home, up=False)
        inside(daemon, "umount", "-l", str(home.input))
        until(lambda: is_watcher(home, mode="events", up=True, trouble=""), "events come again")
        home.drop("here.md", "# Here\n")
        accepted(daemon, "here.md")
        assert said(daemon)[:2] == ["trouble remote_file_system", "trouble directory_gone"]
        assert [line.split()[0] for line in said(daemon)[2:]] == ["restarted"]


@in_namespace
@needs_fuse
@long_run
def test_while_input_hangs_the_stages_are_still_looked_at(home: Home) -> None:
    far = home.path / "far"
    far.mkdir()
    with running_under(home, *NAMESPACE, TOPICD_WATCH_MODE="poll") as daemon:
        home.drop("first.md", "# First\n")
        job = daemon.event("stage.started", stage="scripts")["job"]
        server = subprocess.Popen([*enter(daemon), "bindfs", "-f", str(far), str(home.input)])
        try:
            daemon.event("watcher.restarted", reason="directory_replaced")
            server.send_signal(signal.SIGSTOP)
            daemon.event("watcher.trouble", cause="directory_hangs")
            assert is_watcher(
                home, mode="poll", up=False, trouble="A directory's file system has not answered for 5 s."
            )
            (home.spool / "scripts" / job).rename(home.spool / "held" / job)
            daemon.event("job.moved_away", WITHIN_S, job=job)
            (home.spool / "held" / job).rename(home.spool / "scripts" / job)
            until(lambda: len(daemon.events("stage.started")) == 2, "it goes on", WITHIN_S)
            server.send_signal(signal.SIGCONT)
            (far / "second.md").write_text("# Second\n")
            accepted(daemon, "second.md")
            until(lambda: is_watcher(home, up=True, trouble=""), "it is well again", WITHIN_S)
            assert said(daemon)[1:] == ["trouble directory_hangs", "restarted directory_hangs"]
        finally:
            server.kill()
            server.wait(30)


@contextmanager
def reads_failing(daemon: Daemon) -> Iterator[None]:
    """Have the first read from inotify of every thread end in EIO."""
    inject = ["-e", "trace=read", "-P", "anon_inode:inotify", "-e", "inject=read:error=EIO:when=1"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", *inject, "-p", str(daemon.process.pid)], stderr=subprocess.PIPE
    )
    try:
        until(lambda: f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{daemon.process.pid}/status").read_text(), "attached")
        yield
    finally:
        tracer.terminate()
        _, error = tracer.communicate(timeout=30)
    assert not error, error


@pytest.mark.skipif(not CAN_TRACE, reason="no strace here, or it may not attach to another process")
def test_a_reader_that_dies_is_replaced_and_one_that_keeps_dying_is_left_for_the_clock(home: Home) -> None:
    with running(home) as daemon:
        with reads_failing(daemon):
            home.drop("first.md", "# First\n")  # the event that ends the reader
            accepted(daemon, "first.md")
            daemon.event("watcher.restarted", reason="reader_died")
            home.drop("second.md", "# Second\n")
            accepted(daemon, "second.md")
            daemon.event("watcher.trouble", cause="reader_died")
            home.drop("third.md", "# Third\n")
            accepted(daemon, "third.md")
        until(lambda: is_watcher(home, mode="events", up=True, trouble=""), "events come again")
        home.drop("fourth.md", "# Fourth\n")
        accepted(daemon, "fourth.md")
        assert said(daemon)[:2] == ["restarted reader_died", "trouble reader_died"]
        assert all(line.startswith("{") for line in daemon.log().splitlines()[1:]), "no thread's own last words"
        assert metric(home, 'restarts_total{reason="reader_died"}') == watcher(home)["restarts"]
        assert inotify_instances(daemon) == 1
