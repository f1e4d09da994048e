"""Real kills: a daemon under load that dies again and again, at random moments and at chosen system calls.

`KILLS` says how many deaths (everyday few; `KILLS=200` takes minutes), `SEED` where the dice start.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from rig.daemon import Daemon, Home, load, until
from rig.load import LOAD, Feeder, processes, run_out, say
from rig.pipeline import other_file_system
from rig.verdict import check_end, check_instant, check_logs, logged, speaking
from topicd.states import Stage

KILLS = int(os.environ.get("KILLS", "15"))
KILLS_APART = int(os.environ.get("KILLS", "4"))
TRACED = int(os.environ.get("KILLS", "10"))
SEED = int(os.environ.get("SEED", "1"))
CRASHES_MAX = 3
HIT_S = 4.0
CALLS = {
    "rename": ("?rename,?renameat,?renameat2", 12),
    "fsync": ("?fsync,?fdatasync,?syncfs", 24),
    "mkdir": ("?mkdir,?mkdirat", 6),
    "unlink": ("?unlink,?unlinkat,?rmdir", 6),
    "openat": ("?open,?openat", 700),
}


@pytest.fixture
def loaded(home: Home) -> Home:
    """A home whose daemons have several jobs in hand in each stage."""
    home.env.update(LOAD)
    return home


@pytest.fixture
def strace() -> str:
    """The tracer, where it is installed and allowed to trace."""
    found = shutil.which("strace")
    if not found:
        pytest.skip("strace is not installed")
    tried = subprocess.run([found, "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace cannot trace here: {tried.stderr}")
    return found


def test_killed_at_random_every_topic_ends_once_and_whole(loaded: Home) -> None:
    hits = kill_often(loaded, KILLS)
    assert hits["in work"] >= KILLS // 3, f"the daemon was mostly idle when it was killed: {hits}"
    assert hits["with a worker"], f"no daemon that was killed had a worker process: {hits}"


def test_killed_at_random_with_input_and_output_on_another_disk(loaded: Home) -> None:
    far = other_file_system(loaded.path.parent)
    if far is None:
        pytest.skip("no other file system to rename to")
    loaded.input, loaded.output = far / "input", far / "output"
    loaded.env.update(TOPICD_INPUT_DIR=str(loaded.input), TOPICD_OUTPUT_DIR=str(loaded.output))
    try:
        hits = kill_often(loaded, KILLS_APART)
    finally:
        shutil.rmtree(far)
    assert hits["in work"] >= KILLS_APART // 3, f"the daemon was mostly idle when it was killed: {hits}"


def test_killed_at_chosen_system_calls_every_topic_ends_once_and_whole(loaded: Home, strace: str) -> None:
    rng, began = Random(SEED), time.monotonic()
    hits = Counter[str]()
    with speaking(loaded, SEED):
        with Feeder(loaded, Random(SEED + 1), backlog_max=12, topics_max=TRACED * 8) as feeder:
            for number in range(TRACED):
                name = list(CALLS)[number % len(CALLS)]
                hits[name if kill_at(loaded, strace, name, rng) else "none"] += 1
                bury(loaded, feeder)
        killed_s = time.monotonic() - began
        crash_loops = finish(loaded, feeder)
    say(
        f"{TRACED} deaths at calls {dict(hits)} in {killed_s:.0f} s, {len(feeder.dropped)} topics, "
        f"{crash_loops} crash loops, {time.monotonic() - began:.0f} s"
    )
    assert hits["none"] <= TRACED // 2, f"most daemons were not hit: {hits}"


def kill_often(home: Home, kills: int) -> Counter[str]:
    """Kill daemons under load, then run to the end and check it. Returns what was hit how often."""
    rng, began, hits = Random(SEED), time.monotonic(), Counter[str]()
    with speaking(home, SEED):
        with Feeder(home, Random(SEED + 1), backlog_max=12, topics_max=kills * 8) as feeder:
            for _ in range(kills):
                hits.update(kill_once(home, rng))
                bury(home, feeder)
        killed_s = time.monotonic() - began
        crash_loops = finish(home, feeder)
    done, all_s = len(feeder.dropped), time.monotonic() - began
    say(
        f"{kills} kills {dict(hits)} in {killed_s:.0f} s, {done} topics, {crash_loops} crash loops, "
        f"{all_s:.0f} s in all, {done / all_s:.1f} topics a second"
    )
    return hits


def kill_once(home: Home, rng: Random) -> Iterator[str]:
    """Start a daemon and kill it: one in six before it is ready, else up to 1.5 s after. Yields what it hit."""
    daemon = Daemon(home)
    try:
        if early := rng.random() < 1 / 6:
            time.sleep(rng.uniform(0.05, 0.6))
        else:
            daemon.event("daemon.ready")
            time.sleep(rng.uniform(0.003, 0.15) if rng.random() < 1 / 2 else rng.uniform(0.15, 1.5))
        assert daemon.process.poll() is None, f"it died by itself:\n{daemon.log()}"
        if len(processes(home)) > 1:
            yield "with a worker"
    finally:
        daemon.close()
    if early:
        yield "starting"
    else:
        yield "in work" if any(map(home.ids, Stage)) else "idle"


def kill_at(home: Home, strace: str, name: str, rng: Random) -> bool:
    """Start a daemon that dies at the n-th call of a kind in one of its threads; tell whether that came to pass."""
    calls, n_max = CALLS[name]
    inject = f"inject={calls}:signal=KILL:when={rng.randint(1, n_max)}"
    tracer = (strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}", "-e", inject)
    daemon = Daemon(home, under=tracer)
    until(lambda: daemon.process.poll() is not None or daemon.events("daemon.ready"), "it works, or is dead")
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.process.wait(HIT_S)
    if was_hit := daemon.process.poll() is not None:
        assert daemon.process.returncode == -signal.SIGKILL, f"{inject}: it died of something else:\n{daemon.log()}"
    for pid in processes(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.process.wait()
    return was_hit


def bury(home: Home, feeder: Feeder) -> None:
    """Check what a death left: no process, and every topic in one place."""
    until(lambda: not processes(home), f"the end of the dead daemon's workers {processes(home)}", 20)
    check_instant(home, list(feeder.dropped))


def finish(home: Home, feeder: Feeder) -> int:
    """Run to the end and check it; retry what the many deaths sent to failed/. Returns how many jobs that were."""
    run_out(home)
    failed = check_end(home, feeder.dropped)
    for path in failed:
        reason, job = load(path / "reason.json"), load(path / "job.json")
        assert reason["cause"] == "crash_loop", f"{path}: {reason}"
        assert job["crashes"][reason["stage"]] >= CRASHES_MAX, f"{path}: {job}"
    if failed:
        assert home.topicd("retry", "--all").returncode == 0
        run_out(home)
        assert check_end(home, feeder.dropped) == []
    assert not processes(home)
    check_logs(home)
    check_done_once(home)
    return len(failed)


def check_done_once(home: Home) -> None:
    twice = [job for job, n in Counter(each["job"] for each in logged(home, "job.done")).items() if n > 1]
    assert not twice, f"done more than once: {twice}"
