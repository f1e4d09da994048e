"""A running daemon on disks that fall ill and are cured: it pauses, says so once, loses nothing and goes on by itself.

`SICK=all` runs every illness at every moment, on every file system, instead of a few of each.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import pytest

from rig.daemon import Daemon, running, until
from rig.disks import (
    ANY_FSYNC,
    bound,
    cpu_seconds,
    ext4,
    full,
    need_root,
    need_tracer,
    read_only,
    spoiled,
    tmpfs,
    without_inodes,
)
from rig.ward import INPUT, KINDS, Ward
from topicd.gate import FRESH_S, LOOK_AGAIN_S

ALL = os.environ.get("SICK") == "all"
AT_ONCE = 6
HOLD_S = 4.5
FLAP_S = 7 * LOOK_AGAIN_S
CPU_SHARE_MAX = 0.25
LEFT_BYTES = 1 << 20
MIN_FREE_BYTES = 4 << 20
SLOW_FSYNC_US = 300_000
SLOW_ACCEPT_MAX_S = 60.0
ANSWER_MAX_S = 10.0
STOP_MAX_S = 30.0
CUT_OFF = "20260101-000000-000000-cut-off"


RENAMES = "?rename,?renameat,?renameat2"
DEATHS = {
    "before the copy (S1)": ("input", RENAMES, "input/sea.md"),
    "after the copy (S7)": ("input", "?unlink,?unlinkat", "input/sea.md"),
    "before the publish (S5)": ("images", RENAMES, "output/.{job}.incoming"),
    "after the publish (S6)": ("images", "?unlink,?unlinkat", "spool/images/{job}/manifest.json"),
    "at the end of the publish (S6)": ("images", "?rmdir,?unlinkat", "spool/images/{job}"),
}

Begun = Mapping[str, Future[None]]
Cure = AbstractContextManager[object]


@dataclass(frozen=True)
class Illness:
    """What befalls the disk.

    Attributes:
        causes: one of which the daemon tells.
        befall: makes the disk ill for the length of a block.
        env: settings that belong to it.
    """

    causes: tuple[str, ...]
    befall: Callable[[Ward, Daemon], Cure]
    env: tuple[tuple[str, str], ...] = ()


def failing_fsync(ward: Ward, daemon: Daemon) -> Cure:
    return spoiled(daemon.process.pid, ward.home.logs / "trace", f"{ANY_FSYNC}:error=EIO")


ILLNESSES = {
    "no bytes": Illness(("disk_full",), lambda ward, _: full(ward.home.path)),
    "no inodes": Illness(("disk_full",), lambda ward, _: without_inodes(ward.home.path)),
    "few bytes": Illness(
        ("disk_low",),
        lambda ward, _: full(ward.home.path, but_bytes=LEFT_BYTES),
        (("TOPICD_MIN_FREE_BYTES", str(MIN_FREE_BYTES)),),
    ),
    "read-only": Illness(("read_only",), lambda ward, _: read_only(ward.home.path)),
    "failing fsync": Illness(("io_error",), failing_fsync),
}


def healthy_disk(path: Path, aside: Path, kind: str) -> AbstractContextManager[Path]:
    return tmpfs(path) if kind == "tmpfs" else ext4(path, aside / "image")


def fall_ill_and_be_cured(folder: Path, name: str, moment: str, disk: str) -> None:
    illness = ILLNESSES[name]
    with healthy_disk(folder / "home", folder, disk):
        ward = Ward(folder / "home", folder / "aside", **dict(illness.env))
        with running(ward.home) as daemon:
            ward.come_to(moment)
            with illness.befall(ward, daemon):
                time.sleep(FRESH_S)  # the gate may go by its last look for that long
                if moment == "input":
                    ward.arrive("sea")
                ward.let_go()
                told = daemon.event("storage.trouble", limit_s=20)
                assert told["cause"] in illness.causes
                assert told["hint"]
                stay_ill(ward, daemon)
            daemon.event("storage.ok")
            daemon.event("job.done")
            assert ward.readiness() == (200, [])
            assert "topicd_storage_ok 1.0" in ward.get("metrics")[1]
            check_told_once(daemon)
            assert daemon.stop() == 0
        ward.check_end()
    check_trace(ward.home.logs / "trace")


def stay_ill(ward: Ward, daemon: Daemon) -> None:
    """See that for a while the daemon is up, not ready, says why where one looks, and neither works nor spins."""
    used = cpu_seconds(daemon.process.pid)
    end = time.monotonic() + HOLD_S
    while time.monotonic() < end:
        assert ward.get("healthz")[0] == 200
        code, whys = ward.readiness()
        assert code == 503
        assert whys
        time.sleep(0.5)
    assert cpu_seconds(daemon.process.pid) - used < CPU_SHARE_MAX * HOLD_S
    assert "topicd_storage_ok 0.0" in ward.get("metrics")[1]
    status = ward.home.topicd("status")
    assert status.returncode == 0, status.stderr
    said = without_figures(status.stdout)
    assert all(without_figures(why) in said for why in whys), status.stdout
    assert not daemon.events("job.done")


def without_figures(text: str) -> str:
    """What is free changes from one look to the next."""
    return re.sub(r"[\d,]+", "", text)


def check_told_once(daemon: Daemon) -> None:
    counts = {
        name: len(daemon.events(name))
        for name in ("storage.trouble", "storage.ok", "intake.trouble", "job.failed", "job.deferred", "job.crashed")
    }
    assert counts == {**dict.fromkeys(counts, 0), "storage.trouble": 1, "storage.ok": 1}, daemon.log()


def check_trace(trace: Path) -> None:
    """No file whose fsync failed was put in place."""
    if not trace.exists():
        return
    lines = trace.read_text().splitlines()
    failed = {line.partition("<")[2].partition(">")[0] for line in lines if "(INJECTED)" in line and "sync(" in line}
    assert failed
    renamed = {line.split('"')[1] for line in lines if "rename(" in line}
    assert not {path for path in failed & renamed if path.endswith(".tmp")}


def start_on_an_ill_disk(folder: Path, illness: str) -> None:
    with tmpfs(folder / "home"):
        ward = Ward(folder / "home", folder / "aside")
        ward.let_go()
        assert ward.home.topicd("run", "--once").returncode == 0
        (ward.home.spool / "scripts" / CUT_OFF).mkdir()  # S1, so that recovery has something to write
        ward.prepare("sea")
        ward.arrive("sea")
        with contextlib.ExitStack() as end:
            with read_only(ward.home.path) if illness == "read-only" else full(ward.home.path):
                daemon = Daemon(ward.home)
                end.callback(daemon.close)
                told = daemon.event("storage.trouble")
                assert told["cause"] in ILLNESSES[illness].causes
                stay_ill(ward, daemon)
            daemon.event("storage.ok")
            daemon.event("job.done")
            assert len(daemon.events("storage.trouble")) == 1
            assert daemon.stop() == 0
        ward.check_end()


@contextlib.contextmanager
def apart(ward: Ward) -> Iterator[None]:
    """Put input/ and output/ elsewhere: a bind mount of the same disk, and a tmpfs."""
    with bound(ward.home.path / "elsewhere", ward.home.input), tmpfs(ward.home.output):
        yield


def die_between_two_file_systems(folder: Path, death: str) -> None:
    moment, calls, path = DEATHS[death]
    ward = Ward(folder / "home", folder / "aside")
    ward.home.path.mkdir()
    with apart(ward):
        with running(ward.home) as daemon:
            ward.come_to(moment)
            where = ward.home.path / path.format(job="".join(ward.home.ids("images")))
            with spoiled(daemon.process.pid, folder / "trace", f"{calls}:signal=SIGKILL", "-P", where):
                if moment == "input":
                    ward.arrive("sea")
                ward.let_go()
                assert daemon.process.wait(60) == -signal.SIGKILL
        with running(ward.home) as daemon:
            until(lambda: len(ward.home.ids("output")) == 1 and not list(ward.home.input.glob("*.md")), "one job")
            until(lambda: not any(ward.home.ids(stage) for stage in KINDS), "nothing waits")
            assert daemon.stop() == 0
        ward.check_end()


def fill_an_output_of_its_own(folder: Path) -> None:
    ward = Ward(folder / "home", folder / "aside")
    ward.home.path.mkdir()
    with apart(ward), running(ward.home) as daemon:
        ward.come_to("images")
        with full(ward.home.output):
            ward.let_go()
            daemon.event("storage.trouble", cause="disk_full")
            time.sleep(FLAP_S)
            assert len(daemon.events("storage.trouble")) <= 2
            assert not daemon.events("job.failed")
        daemon.event("job.done")
        assert daemon.stop() == 0
        ward.check_end()


def fail_to_synchronise_a_directory(folder: Path) -> None:
    ward = Ward(folder / "home", folder / "aside")
    ward.home.path.mkdir()
    with running(ward.home) as daemon:
        ward.come_to("scripts")
        target = ward.home.spool / "audio"
        with spoiled(daemon.process.pid, folder / "trace", f"{ANY_FSYNC}:error=EIO", "-P", target):
            ward.let_go()
            daemon.event("storage.trouble", cause="io_error")
            time.sleep(HOLD_S)
            assert len(daemon.events("storage.trouble")) <= 2
        daemon.event("job.done")
        assert not daemon.events("job.failed")
        assert daemon.stop() == 0
    ward.check_end()


def be_slow(folder: Path) -> None:
    topics = 5
    ward = Ward(folder / "home", folder / "aside", TOPICD_SCENES="1")
    ward.home.path.mkdir()
    with running(ward.home) as daemon:
        for number in range(topics):
            ward.prepare(f"{number}")
        with spoiled(daemon.process.pid, folder / "trace", f"{ANY_FSYNC}:delay_exit={SLOW_FSYNC_US}"):
            ward.let_go()
            for number in range(topics):
                ward.arrive(f"{number}")
            answers_s = list[float]()
            while not answers_s or len(daemon.events("job.accepted")) < topics:
                asked = time.monotonic()
                assert ward.get("healthz")[0] == 200
                answers_s.append(time.monotonic() - asked)
                time.sleep(0.1)
                assert sum(answers_s) + 0.1 * len(answers_s) < SLOW_ACCEPT_MAX_S
            # One of them may be late for the machine's sake. A loop that waited for the disk would be late with most.
            assert median(answers_s) < SLOW_FSYNC_US / 1e6
            assert max(answers_s) < ANSWER_MAX_S
            daemon.event("stage.finished")
            assert daemon.stop(limit_s=STOP_MAX_S) == 0
    with running(ward.home) as daemon:
        until(lambda: len(ward.home.ids("output")) == topics, "all are done")
        assert not daemon.events("job.crashed")
        assert daemon.stop() == 0
    ward.check_end(topics)


def lose_the_spool_for_a_while(folder: Path) -> None:
    ward = Ward(folder / "home", folder / "aside")
    ward.home.path.mkdir()
    with contextlib.ExitStack() as mount:
        mount.enter_context(bound(folder / "real", ward.home.spool))
        with running(ward.home) as daemon:
            ward.come_to("audio")
            ward.prepare("more")
            mount.close()
            ward.arrive("more")
            ward.let_go()
            daemon.event("storage.trouble")
            end = time.monotonic() + HOLD_S
            while time.monotonic() < end:
                assert ward.readiness()[0] == 503
                time.sleep(0.2)
            assert not list(ward.home.spool.iterdir()), "nothing is put where the spool is not"
            assert (ward.home.input / "more.md").is_file()
            assert not daemon.events("storage.ok")
            mount.enter_context(bound(folder / "real", ward.home.spool))
            until(lambda: len(ward.home.ids("output")) == 2, "both are done")
            assert len(daemon.events("storage.ok")) == 1
            causes = [event["cause"] for event in daemon.events("storage.trouble")]
            assert len(causes) == len({*causes})
            assert not daemon.events("job.failed")
            assert daemon.stop() == 0
            ward.check_end(2)


STAGE_CASES = [
    ("no inodes", "scripts", "tmpfs"),
    ("few bytes", "scripts", "tmpfs"),
    ("no bytes", "audio", "ext4"),
    ("failing fsync", "images", "tmpfs"),
    ("no bytes", INPUT, "tmpfs"),
]
# With few bytes left the last stage's work still ends: only what would begin is kept waiting. To a read-only input/ no
# topic can come.
EVERY_CASE = [
    (name, moment, disk)
    for name, moment, disk in product(ILLNESSES, (INPUT, *KINDS), ("tmpfs", "ext4"))
    if (name, moment) not in {("few bytes", "images"), ("read-only", INPUT)}
]
SCENARIOS: dict[str, Callable[[Path], None]] = {
    "a full output of its own": fill_an_output_of_its_own,
    **{
        f"{name} under {moment} on {disk}": partial(fall_ill_and_be_cured, name=name, moment=moment, disk=disk)
        for name, moment, disk in (EVERY_CASE if ALL else STAGE_CASES)
    },
    **{
        f"{illness} at the start": partial(start_on_an_ill_disk, illness=illness)
        for illness in ("read-only", "no bytes", *(["no inodes"] if ALL else []))
    },
    **{
        f"killed {death}": partial(die_between_two_file_systems, death=death)
        for death in (DEATHS if ALL else ("after the copy (S7)", "before the publish (S5)"))
    },
    "a directory that cannot be synchronised": fail_to_synchronise_a_directory,
    "every fsync is slow": be_slow,
    "the spool is unmounted and comes back": lose_the_spool_for_a_while,
}


@pytest.fixture(scope="module")
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    """Begin every scenario that was asked for, some at once: each mostly waits."""
    need_root()
    need_tracer()
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    names = [str(item.callspec.params["name"]) for item in items if item.module is request.module]
    with ThreadPoolExecutor(AT_ONCE) as wards:
        yield {name: wards.submit(SCENARIOS[name], tmp_path_factory.mktemp("ward")) for name in names}


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_ill_disk_costs_nothing(name: str, begun: Begun) -> None:
    begun[name].result()
