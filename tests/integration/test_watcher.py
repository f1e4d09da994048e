import asyncio
import contextlib
import ctypes
import json
import os
import platform
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.inotify_c import InotifyFD

from rig.events import LIMIT_S
from topicd.errors import TopicdError
from topicd.inotify import NAMES_MAX
from topicd.watcher import Watched, Watcher

NEVER_S = 3_600.0
KINDS = ("input", "scripts", "audio")


class Recorder:
    """Events and hints, in the order in which they came."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.hints: list[tuple[str, str | None]] = []
        self.rescanned_at: list[int] = []
        self.on_hint: Callable[[str, str | None], None] = lambda _kind, _name: None

    def rescans(self) -> None:
        self.rescanned_at.append(len(self.hints))

    def emit(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields))

    def wake(self, kind: str, moved_name: str | None) -> None:
        self.hints.append((kind, moved_name))
        self.on_hint(kind, moved_name)

    def restarts(self) -> list[str]:
        return [fields["reason"] for name, fields in self.events if name == "watcher.restarted"]

    def troubles(self) -> list[TopicdError]:
        return [fields["error"] for name, fields in self.events if name == "watcher.trouble"]

    def causes(self) -> list[str]:
        return [error.cause for error in self.troubles()]


class Tree:
    """Watched directories, and what people do to them; blocking, because each is a system call or two."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.input, self.scripts, self.audio = (root / kind for kind in KINDS)
        self.aside = root / "aside"
        for path in (self.input, self.scripts, self.audio, self.aside):
            path.mkdir(parents=True)

    def watched(self) -> list[Watched]:
        return [Watched(self.root / kind, kind) for kind in KINDS]

    def write(self, path: Path, text: str = "topic") -> Path:
        path.write_text(text)
        return path

    def move_in(self, name: str) -> None:
        self.write(self.aside / name).rename(self.input / name)

    def listing(self) -> list[str]:
        return sorted(path.name for path in self.input.iterdir())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "home")


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if isinstance(thread, InotifyFD)}


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = readers()
    yield
    for thread in readers() - before:
        thread.join(LIMIT_S)  # it has been told to end
    assert readers() <= before


async def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel and in threads
            await asyncio.sleep(0.002)


def make(tree: Tree, seen: Recorder, mode: Any = "events", **seconds: float) -> Watcher:
    times = {"rescan_s": NEVER_S, "poll_s": NEVER_S, **seconds}
    return Watcher(watched=tree.watched(), mode=mode, wake=seen.wake, events=seen, rescans=seen.rescans, **times)


@contextlib.asynccontextmanager
async def watching(tree: Tree, seen: Recorder, mode: Any = "events", **seconds: float) -> AsyncIterator[Watcher]:
    watcher = make(tree, seen, mode, **seconds)
    watcher.start()
    async with running(watcher):
        yield watcher


@contextlib.asynccontextmanager
async def running(watcher: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


# What arrives


async def test_a_file_moved_in_is_hinted_by_name(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen) as watcher:
        tree.move_in("a.md")
        await until(lambda: bool(seen.hints))
        assert seen.hints == [("input", "a.md")]
        assert (watcher.mode, watcher.up, watcher.state.trouble) == ("events", True, "")
    assert seen.events == [("watcher.started", {"mode": "events"})]


async def test_a_name_that_is_not_utf8_round_trips(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen):
        tree.move_in(os.fsdecode(b"caf\xe9.md"))
        await until(lambda: bool(seen.hints))
        assert os.fsencode(str(seen.hints[0][1])) == b"caf\xe9.md"


async def test_a_file_that_arrives_before_run_is_hinted(tree: Tree, seen: Recorder) -> None:
    watcher = make(tree, seen)
    watcher.start()
    tree.move_in("a.md")
    async with running(watcher):
        await until(lambda: ("input", "a.md") in seen.hints)


@pytest.mark.parametrize("deed", ["written", "linked", "made readable", "directory moved in"])
async def test_everything_else_is_hinted_without_a_name(tree: Tree, seen: Recorder, deed: str) -> None:
    aside = tree.write(tree.aside / "a.md")
    silent = tree.write(tree.input / "silent.md")
    deeds: dict[str, Callable[[], object]] = {
        "written": lambda: tree.write(tree.input / "a.md"),
        "linked": lambda: os.link(aside, tree.input / "a.md"),
        "made readable": lambda: silent.chmod(0o600),
        "directory moved in": lambda: tree.aside.rename(tree.input / "aside"),
    }
    async with watching(tree, seen):
        deeds[deed]()
        await until(lambda: bool(seen.hints))
        assert set(seen.hints) == {("input", None)}


async def test_a_slow_writer_is_hinted_again_when_done(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen):
        descriptor = os.open(tree.input / "a.md", os.O_CREAT | os.O_WRONLY)
        await until(lambda: bool(seen.hints))
        seen.hints.clear()
        os.write(descriptor, b"topic")
        os.close(descriptor)
        await until(lambda: seen.hints == [("input", None)])


async def test_a_job_that_a_person_moves_is_hinted_on_both_sides(tree: Tree, seen: Recorder) -> None:
    (tree.scripts / "job").mkdir()
    async with watching(tree, seen):
        (tree.scripts / "job").rename(tree.audio / "job")
        await until(lambda: {("scripts", None), ("audio", None)} <= set(seen.hints))
        seen.hints.clear()
        (tree.audio / "job").rmdir()
        await until(lambda: seen.hints == [("audio", None)])


async def test_a_burst_becomes_few_hints(tree: Tree, seen: Recorder) -> None:
    for n in range(10_000):
        tree.write(tree.aside / f"{n}.md", "")
    async with watching(tree, seen) as watcher:
        assert watcher._reader
        for n in range(10_000):
            (tree.aside / f"{n}.md").rename(tree.input / f"{n}.md")
        tree.move_in("last.md")
        (tree.aside / "job").mkdir()
        (tree.aside / "job").rename(tree.scripts / "job")
        # The loop is held up until the reader's thread has heard all: what it takes meanwhile is no burst.
        end = time.monotonic() + LIMIT_S
        while "scripts" not in watcher._reader._inbox._batch:
            assert time.monotonic() < end
            time.sleep(0.01)  # noqa: ASYNC251 - to block is the point
        await until(lambda: any(hint in seen.hints for hint in [("input", None), ("input", "last.md")]))
        tree.move_in("after.md")
        await until(lambda: ("input", "after.md") in seen.hints)
    assert ("input", None) in seen.hints
    assert len(seen.hints) <= 3 * (NAMES_MAX + 1)


HELD_BACK_S = 0.4
"""Somewhat less than watchdog's observer holds events behind a file that was renamed away."""


async def test_claims_by_rename_do_not_hold_arrivals_back(tree: Tree, seen: Recorder) -> None:
    taken_s: dict[str, float] = {}

    def claim(_kind: str, name: str | None) -> None:
        if name:
            taken_s[name] = time.perf_counter()
            (tree.input / name).rename(tree.scripts / name)

    seen.on_hint = claim
    made_s: dict[str, float] = {}
    async with watching(tree, seen):
        for n in range(100):
            made_s[f"{n}.md"] = time.perf_counter()
            tree.move_in(f"{n}.md")
            await asyncio.sleep(0.003)  # an arrival now and then, with claims between
        await until(lambda: len(taken_s) == 100)
    assert statistics.median(taken_s[name] - made_s[name] for name in made_s) < HELD_BACK_S
    assert tree.listing() == []


async def test_the_hints_of_one_kind_survive_a_consumer_that_raises(tree: Tree, seen: Recorder) -> None:
    broken = {"input"}

    def fail(kind: str, _name: str | None) -> None:
        if kind in broken:
            raise RuntimeError("a bug in the consumer")

    seen.on_hint = fail
    async with watching(tree, seen, rescan_s=0.05, poll_s=0.05) as watcher:
        tree.move_in("a.md")
        (tree.scripts / "job").mkdir()
        (tree.scripts / "job").rename(tree.audio / "job")
        await until(lambda: seen.hints.count(("input", None)) >= 3 and ("input", "a.md") in seen.hints)
        assert {("scripts", None), ("audio", None)} <= set(seen.hints)
        assert (watcher.up, watcher.state.wake_failures, "input" in watcher.state.trouble) == (False, 1, True)
        assert watcher.state.hint
        broken.clear()
        await until(lambda: watcher.up)
        assert watcher.state.trouble == watcher.state.hint == ""
        broken.add("input")
        await until(lambda: not watcher.up)
        assert watcher.state.wake_failures == 2
    assert [(name, fields["directory"]) for name, fields in seen.events[1:]] == [("watcher.wake_failed", "input")] * 2


async def test_a_hint_that_works_at_an_event_does_not_hide_one_that_fails_at_others(tree: Tree, seen: Recorder) -> None:
    def fail(_kind: str, name: str | None) -> None:
        if name and name.startswith("bad"):
            raise RuntimeError("a bug in the consumer")

    seen.on_hint = fail
    async with watching(tree, seen):
        for n in range(20):
            tree.move_in(f"{'bad' if n % 2 else 'good'}-{n}.md")
            await until(lambda n=n: len(seen.hints) > n)  # type: ignore[misc]
    assert [name for name, _ in seen.events].count("watcher.wake_failed") == 1


async def test_names_that_begin_with_a_dot_wake_nobody(tree: Tree, seen: Recorder) -> None:
    marker = tree.write(tree.scripts / ".job.0.begun")
    async with watching(tree, seen):
        marker.rename(tree.audio / ".job.0.begun")
        (tree.audio / ".job.0.begun").unlink()
        hidden = tree.write(tree.input / ".a.md.part")
        tree.move_in("first.md")
        await until(lambda: ("input", "first.md") in seen.hints)
        assert seen.hints == [("input", "first.md")]
        hidden.rename(tree.input / "a.md")
        await until(lambda: ("input", "a.md") in seen.hints)
        (tree.scripts / "job").mkdir()
        (tree.scripts / "job").rename(tree.scripts / ".job")  # what leaves is told under its old name
        await until(lambda: ("scripts", None) in seen.hints)


async def test_after_the_end_there_are_no_hints(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen) as watcher:
        await asyncio.sleep(0)  # it has begun
    for _ in range(10):
        await asyncio.sleep(0)
    assert seen.hints == []
    assert not watcher.up


# What goes wrong


async def test_a_rescan_is_told_before_its_hints_and_an_event_is_not(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen):
        (tree.input / "a.md").touch()
        await until(lambda: bool(seen.hints))
        assert not seen.rescanned_at
    seen.hints.clear()
    async with watching(tree, seen, rescan_s=0.02):
        await until(lambda: len(seen.rescanned_at) >= 2)
    assert seen.rescanned_at[0] == 0


async def test_every_kind_is_hinted_at_every_rescan(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen, rescan_s=0.02):
        await until(lambda: seen.hints.count(("audio", None)) >= 3)
    assert seen.hints[:3] == [(kind, None) for kind in KINDS]


async def test_a_lost_event_queue_hints_every_kind(tree: Tree, seen: Recorder) -> None:
    queue_max = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())  # noqa: ASYNC240 - no disk
    if queue_max > 100_000:
        pytest.skip(f"an event queue of {queue_max} takes too long to fill")
    here, there = str(tree.scripts / "here"), str(tree.scripts / "there")
    (tree.scripts / "here").mkdir()
    async with watching(tree, seen) as watcher:
        assert watcher._reader
        with watcher._reader._inbox._lock:  # the reader thread waits here and the kernel's queue fills
            for _ in range(queue_max // 4 + 4_096):
                os.rename(here, there)  # noqa: PTH104 - tens of thousands of them
                os.rename(there, here)  # noqa: PTH104
        await until(lambda: {hint[0] for hint in seen.hints} == set(KINDS))
        assert watcher.up
        assert watcher.state.overflows == 1
    assert seen.restarts() == []
    assert seen.events[1:] == [("watcher.overflowed", {})], "once, not once a directory"


@pytest.mark.parametrize("deed", ["renamed", "deleted"])
async def test_a_directory_made_anew_is_watched_at_once(tree: Tree, seen: Recorder, deed: str) -> None:
    async with watching(tree, seen) as watcher:
        for times in range(1, 6):
            if deed == "renamed":
                tree.input.rename(tree.root / f"old-{times}")
            else:
                shutil.rmtree(tree.input)
            tree.input.mkdir()
            await until(lambda times=times: len(seen.restarts()) == times)  # type: ignore[misc]
            assert watcher.up
            tree.move_in(f"{times}.md")
            await until(lambda times=times: ("input", f"{times}.md") in seen.hints)  # type: ignore[misc]
    assert set(seen.restarts()) == {"directory_replaced"}
    assert seen.troubles() == []
    assert {("scripts", None), ("audio", None)} <= set(seen.hints)


async def test_a_directory_that_moves_away_and_back_stays_watched(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen):
        tree.input.rename(tree.root / "away")
        (tree.root / "away").rename(tree.input)
        await until(lambda: seen.restarts() == ["directory_replaced"] and ("audio", None) in seen.hints)
        seen.hints.clear()
        tree.move_in("a.md")
        await until(lambda: ("input", "a.md") in seen.hints)
        await asyncio.sleep(0.3)  # several times as long as a second look at once would take
        assert seen.hints == [("input", "a.md")]


async def test_a_swap_above_the_directories_is_found_at_the_next_rescan(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen, rescan_s=0.05, poll_s=0.05):
        tree.root.rename(tree.root.with_name("old"))
        await until(lambda: seen.causes() == ["directory_gone"])
        anew = Tree(tree.root)
        await until(lambda: bool(seen.restarts()))
        seen.hints.clear()
        anew.move_in("a.md")
        await until(lambda: ("input", "a.md") in seen.hints)


async def test_a_directory_that_is_gone_is_told_once_and_heals(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen, poll_s=0.02) as watcher:
        tree.input.rmdir()
        await until(lambda: seen.hints.count(("audio", None)) >= 5)
        assert seen.causes() == ["directory_gone"]
        assert str(tree.input) in seen.troubles()[0].hint
        assert (watcher.up, watcher.mode, str(tree.input) in watcher.state.trouble) == (False, "events", True)
        tree.input.mkdir()
        await until(lambda: seen.restarts() == ["directory_gone"])
        assert (watcher.up, watcher.state.trouble) == (True, "")
        tree.move_in("a.md")
        await until(lambda: ("input", "a.md") in seen.hints)
        tree.input.rename(tree.root / "old")
        tree.input.mkdir()
        await until(lambda: seen.restarts() == ["directory_gone", "directory_replaced"])


async def test_a_directory_missing_at_the_start_is_watched_when_it_comes(tree: Tree, seen: Recorder) -> None:
    tree.input.rmdir()
    tree.write(tree.input)  # a file where the directory should be is no better
    async with watching(tree, seen, poll_s=0.02):
        assert seen.causes() == ["directory_gone"]
        tree.input.unlink()
        tree.input.mkdir()
        await until(lambda: seen.restarts() == ["directory_gone"])
    assert [name for name, _ in seen.events] == ["watcher.started", "watcher.trouble", "watcher.restarted"]


async def test_a_link_to_a_directory_is_followed_and_so_is_its_new_target(tree: Tree, seen: Recorder) -> None:
    tree.input.rmdir()
    tree.input.symlink_to(tree.aside)
    (tree.root / "other").mkdir()
    async with watching(tree, seen, rescan_s=0.05):
        tree.write(tree.root / "a.md").rename(tree.aside / "a.md")
        await until(lambda: ("input", "a.md") in seen.hints)
        tree.input.unlink()
        tree.input.symlink_to(tree.root / "other")
        await until(lambda: bool(seen.restarts()))
        tree.write(tree.root / "b.md").rename(tree.root / "other" / "b.md")
        await until(lambda: ("input", "b.md") in seen.hints)


async def test_a_dead_reader_is_replaced_at_once_and_leaves_no_descriptor(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen) as watcher:
        assert watcher._reader
        before = descriptors()
        doomed = watcher._reader._fd
        directory = os.open(tree.root, os.O_RDONLY)
        os.dup2(directory, doomed._inotify_fd)  # its next read ends in EISDIR
        tree.move_in("a.md")
        await until(lambda: seen.restarts() == ["reader_died"])
        seen.hints.clear()
        tree.move_in("b.md")
        await until(lambda: ("input", "b.md") in seen.hints)
        assert (watcher.up, watcher.state.restarts) == (True, 1)
        os.close(directory)
        await until(lambda: descriptors() == before)


async def test_a_reader_that_dies_again_and_again_is_left_for_the_clock(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen, rescan_s=0.5, poll_s=0.02) as watcher:
        await until(lambda: ("audio", None) in seen.hints)  # well for a rescan
        for died in (1, 2):
            assert watcher._reader
            watcher._reader.died()  # as its thread tells it
            await until(lambda died=died: len(seen.events) == 1 + died)  # type: ignore[misc]
            watcher._retry_at += NEVER_S  # however slow this machine is, the second death is soon after the first
        assert (watcher.mode, watcher.up) == ("poll", True)
        assert (seen.restarts(), seen.causes()) == (["reader_died"], ["reader_died"])
        watcher._retry_at -= NEVER_S
        await until(lambda: seen.restarts() == ["reader_died"] * 2)
        assert (watcher.mode, watcher.state.trouble) == ("events", "")


async def test_a_file_system_that_hangs_is_told_once_and_holds_no_other_hint_back(tree: Tree, seen: Recorder) -> None:
    hanging: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    async with watching(tree, seen, rescan_s=0.05, poll_s=0.01) as watcher:
        watcher._looking = hanging  # a look that does not end
        await until(lambda: seen.hints.count(("audio", None)) >= 20)
        assert (seen.causes(), watcher.up) == (["directory_hangs"], False)
        assert watcher._retry_s == 0.1, "one trouble, one doubling"
        hanging.set_result(watcher._identities)
        await until(lambda: seen.restarts() == ["directory_hangs"])
        assert (watcher.up, watcher.state.trouble) == (True, "")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_is_left_by_restarts_or_by_the_end(tree: Tree, seen: Recorder) -> None:
    await asyncio.to_thread(os.getpid)  # the loop's own threads and pipes are there before the count
    before = descriptors()
    async with watching(tree, seen):
        open_by_one = descriptors()
        for times in range(1, 6):
            tree.input.rename(tree.root / f"old-{times}")
            tree.input.mkdir()
            await until(lambda times=times: len(seen.restarts()) == times)  # type: ignore[misc]
        await until(lambda: descriptors() == open_by_one)
    await until(lambda: descriptors() == before)


# Where events do not come


async def test_the_clock_alone_finds_a_directory_gone_and_back(tree: Tree, seen: Recorder) -> None:
    before = readers()
    async with watching(tree, seen, "poll", poll_s=0.02) as watcher:
        assert readers() == before
        await until(lambda: seen.hints.count(("audio", None)) >= 3)
        assert (watcher.mode, watcher.up) == ("poll", True)
        tree.input.rmdir()
        await until(lambda: seen.causes() == ["directory_gone"])
        assert not watcher.up
        tree.input.mkdir()
        await until(lambda: seen.restarts() == ["directory_gone"])
        assert watcher.up
    assert seen.events[0] == ("watcher.started", {"mode": "poll"})


async def test_out_of_descriptors_it_polls_says_so_and_heals(tree: Tree, seen: Recorder) -> None:
    watcher = make(tree, seen, rescan_s=2.0, poll_s=0.01)
    with no_more_descriptors():
        watcher.start()
    assert (watcher.mode, watcher.up) == ("poll", True)
    assert seen.causes() == ["instance_limit"]
    assert "fs.inotify.max_user_instances" in seen.troubles()[0].hint
    assert seen.events[1][1]["mode"] == "poll"
    async with running(watcher):
        await until(lambda: seen.restarts() == ["instance_limit"])
        assert (watcher.mode, watcher.state.trouble) == ("events", "")
        assert len(seen.hints) >= 3 * len(KINDS), "the clock brings hints while it waits to try again"
        seen.hints.clear()
        tree.move_in("a.md")
        await until(lambda: ("input", "a.md") in seen.hints)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_back_off_doubles_to_a_bound_and_starts_anew_when_well(tree: Tree, seen: Recorder) -> None:
    watcher = make(tree, seen, rescan_s=10.0)
    with no_more_descriptors():
        watcher.start()
    waits = []
    for _ in range(8):
        waits.append(watcher._retry_s)
        watcher._settle(watcher._error)
    assert waits == [20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 640.0, 640.0]
    watcher._settle(None)
    assert watcher._retry_s == 640.0, "a recovery that does not last does not start it anew"
    await watcher._check()
    assert watcher._retry_s == 10.0


async def test_a_directory_that_may_not_be_read_is_polled_until_it_may(seen: Recorder) -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)  # noqa: ASYNC240 - one system call
        tree = Tree(Path(root) / "home")
        watcher = make(tree, seen, rescan_s=0.05, poll_s=0.01)
        tree.input.chmod(0o311)
        with not_root():
            watcher.start()
        assert (watcher.mode, seen.causes()) == ("poll", ["directory_unreadable"])
        tree.input.chmod(0o700)
        async with running(watcher):
            await until(lambda: seen.restarts() == ["directory_unreadable"])
            tree.move_in("a.md")
            await until(lambda: ("input", "a.md") in seen.hints)


@contextlib.contextmanager
def not_root() -> Iterator[None]:
    euid = os.geteuid()
    if euid == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(euid)


async def test_the_self_test_passes_where_events_come_and_leaves_nothing(tree: Tree, seen: Recorder) -> None:
    async with watching(tree, seen, "auto") as watcher:
        await until(lambda: {hint[0] for hint in seen.hints} == set(KINDS))
        assert await watcher._self_test() is None
        assert tree.listing() == []
        assert watcher.mode == "events"
    assert seen.events == [("watcher.started", {"mode": "events"})]


def test_a_kernel_that_takes_watches_and_gives_no_events_is_polled(tree: Tree, seen: Recorder) -> None:
    machine = platform.machine()
    if machine not in SYSCALL_ADD_WATCH:
        pytest.skip(f"the number of inotify_add_watch on {machine} is not known here")
    failed: list[BaseException] = []

    async def watch() -> None:
        deny_silently(SYSCALL_ADD_WATCH[machine])
        async with watching(tree, seen, "auto", poll_s=0.02, rescan_s=NEVER_S) as watcher:
            await until(lambda: seen.causes() == ["no_events"])
            assert watcher.mode == "poll"
            seen.hints.clear()
            await until(lambda: seen.hints.count(("input", None)) >= 3)

    def run() -> None:
        try:
            asyncio.run(watch())
        except BaseException as error:  # noqa: BLE001 - carried to the test's own thread
            failed.append(error)

    thread = threading.Thread(target=run)  # the filter ends with this thread
    thread.start()
    thread.join(LIMIT_S)
    assert failed == []
    assert not thread.is_alive()
    assert tree.listing() == []


SYSCALL_ADD_WATCH = {"x86_64": 254, "aarch64": 27}


def deny_silently(syscall: int) -> None:
    """Have that system call do nothing and return 0, in this thread and those it starts (seccomp)."""
    load, jump_if, answer, errno_0, allow = 0x20, 0x15, 0x06, 0x0005_0000, 0x7FFF_0000
    steps = ((load, 0, 0, 0), (jump_if, 0, 1, syscall), (answer, 0, 0, errno_0), (answer, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    assert libc.prctl(22, 2, program, 0, 0) == 0, "PR_SET_SECCOMP"


# What needs a namespace of its own: limits and mounts. Each script prints the causes and reasons it saw.

PRELUDE = """
import asyncio, json, os, subprocess, sys, time
from pathlib import Path
from topicd.watcher import Watched, Watcher
root = Path(sys.argv[1])
said = []
class Events:
    def emit(self, name, /, **fields):
        error = fields.get("error")
        said.append([name, error.cause if error else fields.get("mode") or fields.get("reason")])
hints = []
def limit(path, value): Path("/proc/sys/user/" + path).write_text(str(value))
def sh(*argv): subprocess.run(argv, check=True)
def watcher(mode):
    return Watcher(watched=[Watched(root, "input")], mode=mode, rescan_s=0.05, poll_s=0.01, events=Events(),
                   wake=lambda kind, name: hints.append(name))
async def until(condition):
    async with asyncio.timeout(30):
        while not condition(): await asyncio.sleep(0.005)
async def heard():
    Path(root, ".a").write_text("x")
    Path(root, ".a").rename(root / "a")
"""
CAN_ENTER = (
    bool(shutil.which("unshare"))
    and not subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "true"], check=False, capture_output=True
    ).returncode
)
in_namespace = pytest.mark.skipif(not CAN_ENTER, reason="user namespaces are not to be had here")


def said_in_namespace(root: Path, script: str) -> list[list[str]]:
    argv = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        sys.executable,
        "-c",
        PRELUDE + script,
        str(root),
    ]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=2 * LIMIT_S)
    assert ended.returncode == 0, ended.stderr
    found: list[list[str]] = json.loads(ended.stdout)
    return found


@in_namespace
@pytest.mark.parametrize("resource_name", ["watches", "instances"])
def test_the_kernels_limits_are_told_once_and_it_heals_when_they_are_raised(tree: Tree, resource_name: str) -> None:
    script = f"""
async def main():
    limit("max_inotify_{resource_name}", 0)
    it = watcher("events")
    it.start()
    task = asyncio.create_task(it.run())
    await until(lambda: it._retry_s > 0.4)
    assert it.mode == "poll" and hints
    limit("max_inotify_{resource_name}", 100)
    await until(lambda: it.mode == "events")
    await heard()
    await until(lambda: "a" in hints)
    print(json.dumps(said))
    os._exit(0)
asyncio.run(main())
"""
    cause = {"watches": "watch_limit", "instances": "instance_limit"}[resource_name]
    expected = [["watcher.started", "poll"], ["watcher.trouble", cause], ["watcher.restarted", cause]]
    assert said_in_namespace(tree.input, script) == expected


@in_namespace
def test_an_unmounted_directory_is_noticed_and_what_lies_under_it_watched(tree: Tree) -> None:
    script = """
async def main():
    sh("mount", "-t", "tmpfs", "none", str(root))
    it = watcher("auto")
    it._rescan_s = 3600
    it.start()
    task = asyncio.create_task(it.run())
    await until(lambda: hints)
    sh("umount", str(root))
    await until(lambda: len(said) == 2)
    await heard()
    await until(lambda: "a" in hints)
    print(json.dumps(said))
    os._exit(0)
asyncio.run(main())
"""
    assert said_in_namespace(tree.input, script) == [
        ["watcher.started", "events"],
        ["watcher.restarted", "unmounted"],
    ]


@in_namespace
def test_a_mount_on_top_is_noticed_at_the_next_rescan(tree: Tree) -> None:
    script = """
async def main():
    it = watcher("events")
    it.start()
    task = asyncio.create_task(it.run())
    sh("mount", "-t", "tmpfs", "none", str(root))
    await until(lambda: len(said) == 2)
    await heard()
    await until(lambda: "a" in hints)
    print(json.dumps(said))
    os._exit(0)
asyncio.run(main())
"""
    expected = [["watcher.started", "events"], ["watcher.restarted", "directory_replaced"]]
    assert said_in_namespace(tree.input, script) == expected


@in_namespace
def test_a_read_only_directory_is_not_tested_and_not_blamed(tree: Tree) -> None:
    script = """
async def main():
    sh("mount", "-t", "tmpfs", "-o", "ro", "none", str(root))
    it = watcher("auto")
    it.start()
    async with asyncio.timeout(30):
        assert await it._self_test() is None
    assert it.mode == "events"
    print(json.dumps(said))
    os._exit(0)
asyncio.run(main())
"""
    assert said_in_namespace(tree.input, script) == [["watcher.started", "events"]]
