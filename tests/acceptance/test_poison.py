"""Backends that misbehave in every way, in the installed daemon: each costs its own job and nothing else.

One daemon takes every poison of every stage at once, with good topics among them. Those that kill the daemon, or that
must not hold up its end, have daemons of their own.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from fakes.piper_server import PiperServer
from fakes.poison import TWO_GB, Boastful, Sync
from rig.daemon import FAKES, QUICK, Daemon, Home, load, running, until
from topicd.backends.base import Script, ScriptRequest
from topicd.errors import RetryLater, Unusable
from topicd.servers import BODY_BYTES_MAX
from topicd.stages.ask import ask
from topicd.stages.base import made_by

POISONS = {
    "TOPICD_SCRIPT_BACKEND": "fakes.poison:Scripts",
    "TOPICD_AUDIO_BACKEND": "fakes.poison:Audio",
    "TOPICD_IMAGE_BACKEND": "fakes.poison:Images",
    "TOPICD_SCENES": "2",
}
MANY = {
    "TOPICD_SCRIPT_JOBS": "64",
    "TOPICD_AUDIO_JOBS": "64",
    "TOPICD_IMAGE_JOBS": "64",
    # Longer than the workers that die need to start, all at once on a slow machine.
    "TOPICD_SCRIPT_TIMEOUT_S": "20",
    "TOPICD_AUDIO_TIMEOUT_S": "20",
    "TOPICD_IMAGE_TIMEOUT_S": "20",
    "TOPICD_ATTEMPTS_MAX": "1",
}
LARGE = os.environ.get("FUZZ") == "large"
CRASHES_MAX = 3
END_LIMIT_S = 25.0
REASON_BYTES_MAX = 20_000
LINE_CHARS_MAX = 100_000
RESIDENT_BYTES_MAX = 1_000_000_000
IN_EVERY_STAGE = {
    "forever": "timeout",
    "slowly": "timeout",
    "exit": "backend_misbehaved",
    "interrupt": "backend_misbehaved",
    "odd": "backend_misbehaved",
    "leave": "backend_misbehaved",
    "cancelled": "backend_misbehaved",
    "suicide": "backend_misbehaved",
    "none": "backend_misbehaved",
    "text": "backend_misbehaved",
    "coroutine": "backend_misbehaved",
    "long": "backend_misbehaved",
    "longbug": "bug",
    "mute": "bug",
    "wordless": "bug",
    "unprintable": "backend_misbehaved",
    "never": "busy",
    "whenever": "busy",
    "abort": "worker_crashed",
    "flood": "worker_reply",
}
IN_ONE_STAGE = {
    "scripts": dict.fromkeys(("huge", "endless", "strings", "inner", "scenes", "nan", "surrogate"), "script_unfit"),
    "audio": {
        "huge": "audio_too_large",
        "stubborn": "timeout",
        **dict.fromkeys(("inner", "cues", "nan", "late", "strings"), "audio_unfit"),
    },
    "images": {"huge": "image_too_large", **dict.fromkeys(("inner", "strings", "noise"), "image_unfit")},
}
CASES = [
    (stage, kind, cause) for stage, own in IN_ONE_STAGE.items() for kind, cause in {**IN_EVERY_STAGE, **own}.items()
]


TITLES = ["Good 0", "Good 1", *(f"Poison {stage} {kind}" for stage, kind, _ in CASES), "Good 2", "Good 3"]
STOP_TIMEOUT_S = 2


class Ward(NamedTuple):
    """A home, its daemon, and when everything was dropped."""

    home: Home
    daemon: Daemon

    def job(self, title: str) -> str:
        """Return the id of the job of a title."""
        return str(self.daemon.event("job.accepted", source=f"{TITLES.index(title):03}.md")["job"])


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A daemon that is given every poison at once, with good topics before and after them."""
    home = Home(tmp_path_factory.mktemp("poison") / "home", {**FAKES, **QUICK, **POISONS, **MANY})
    home.path.mkdir()
    for number, title in enumerate(TITLES):
        home.drop(f"{number:03}.md", f"# {title}\n")
    with running(home) as daemon:
        yield Ward(home, daemon)


@pytest.mark.parametrize(("stage", "kind", "cause"), CASES, ids=[f"{stage}-{kind}" for stage, kind, _ in CASES])
def test_it_fails_with_its_cause_in_words_of_bounded_size(ward: Ward, stage: str, kind: str, cause: str) -> None:
    job = ward.job(f"Poison {stage} {kind}")
    ward.daemon.event("job.failed", job=job)
    folder = ward.home.spool / "failed" / job
    reason, kept = load(folder / "reason.json"), load(folder / "job.json")
    assert (reason["stage"], reason["cause"]) == (stage, cause), reason
    assert (folder / "reason.json").stat().st_size < REASON_BYTES_MAX
    assert (kept["attempts"][stage], kept["crashes"]) == (1, {})
    begun = [event["stage"] for event in ward.daemon.events("stage.started") if event["job"] == job]
    assert begun.count(stage) == 1


@pytest.mark.parametrize("title", ["Good 0", "Good 1", "Good 2", "Good 3"])
def test_the_good_among_them_are_done(ward: Ward, title: str) -> None:
    ward.daemon.event("job.done", job=ward.job(title))


def test_after_all_of_them_the_daemon_is_small_and_tidy_and_takes_the_next(ward: Ward) -> None:
    home, daemon = ward
    until(lambda: len(home.ids("failed")) == len(CASES), "every poison in failed/")
    home.drop("next.md", "# Next\n")
    daemon.event("job.done", job=daemon.event("job.accepted", source="next.md")["job"])
    assert resident_bytes_max(daemon.process.pid) < RESIDENT_BYTES_MAX
    log = next(home.path.glob("log-*.jsonl")).read_text()
    assert max(map(len, log.splitlines())) < LINE_CHARS_MAX
    assert not [path for path in home.path.rglob("*") if path.name.endswith(".tmp")]
    assert max(path.stat().st_size for path in home.path.rglob("*") if path.is_file()) < LINE_CHARS_MAX * 100
    status = home.topicd("status")
    assert status.returncode == 0, status.stderr


def resident_bytes_max(pid: int) -> int:
    """Return the most memory that a process ever had, without its children's."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("stage", ["scripts", "audio", "images"] if LARGE else ["images"])
def test_one_that_kills_the_daemon_fails_alone(home: Home, stage: str) -> None:
    """Each death takes others' work in hand with it; they finish, and only the guilty one is a crash loop."""
    home.drop("0.md", f"# Poison {stage} kill\n")
    for number in range(1, 3):
        home.drop(f"{number}.md", f"# Good {number}\n")
    env = {**POISONS, "FAKE_SECONDS": "0.1", **{f"TOPICD_{kind}_JOBS": "4" for kind in ("SCRIPT", "AUDIO", "IMAGE")}}
    deaths = 0
    while (code := run_to_the_end(home, env)) != 0:
        deaths += 1
        assert code == -signal.SIGKILL
        assert deaths <= CRASHES_MAX
    assert deaths == CRASHES_MAX
    reason = home.reason()
    assert (reason["stage"], reason["cause"]) == (stage, "crash_loop")
    jobs = [load(home.output / job / "job.json") for job in home.ids("output")]
    assert len(jobs) == 2
    assert any(job["crashes"] for job in jobs), "others were in hand at a death"
    assert all(sum(job["crashes"].values()) < CRASHES_MAX for job in jobs)


def run_to_the_end(home: Home, env: dict[str, str]) -> int:
    """Run a daemon until it has nothing left to do, or is dead."""
    daemon = Daemon(home, "--once", **env)
    try:
        return daemon.process.wait(60)
    finally:
        daemon.close()


@pytest.mark.parametrize(
    "kind",
    [
        *(["forever", "slowly"] if LARGE else []),
        "stubborn",
        "thread",
    ],
)
def test_it_ends_in_time_whatever_a_backend_is_at(home: Home, kind: str) -> None:
    log = home.path / "calls"
    with running(home, **POISONS, TOPICD_STOP_TIMEOUT_S=str(STOP_TIMEOUT_S), FAKE_LOG=str(log)) as daemon:
        home.drop("0.md", f"# Poison audio {kind}\n")
        until(lambda: log.exists() and f"audio {kind}" in log.read_text(), "the backend is at it")
        assert daemon.stop(limit_s=END_LIMIT_S) == 0
        job = load(home.only("audio") / "job.json")
        assert (job["attempts"], job["crashes"]) == ({}, {})
    with running(home) as daemon:
        daemon.event("job.done")


def test_it_ends_in_time_though_a_backend_cannot_be_closed(home: Home) -> None:
    env = {"TOPICD_AUDIO_BACKEND": "fakes.poison:Lingering", "TOPICD_STOP_TIMEOUT_S": str(STOP_TIMEOUT_S)}
    with running(home, **env) as daemon:
        assert daemon.stop(limit_s=END_LIMIT_S) == 0


def test_threads_that_never_return_do_not_hold_up_the_others(home: Home) -> None:
    env = {"TOPICD_AUDIO_JOBS": "64", "TOPICD_AUDIO_TIMEOUT_S": "1", "TOPICD_ATTEMPTS_MAX": "1"}
    with running(home, **POISONS, **env) as daemon:
        for number in range(40):
            home.drop(f"{number}.md", "# Poison audio thread\n")
        until(lambda: len(daemon.events("job.failed")) == 40, "all are given up")
        home.drop("good.md", "# Good\n")
        daemon.event("job.done")


class Flood(PiperServer):
    """Speaks without end.

    Attributes:
        sent: bytes that went out.
    """

    sent = 0

    async def _synthesize(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(OSError):
            while self.sent < TWO_GB:
                await response.write(bytes(1_048_576))
                self.sent += 1_048_576
        return response


async def test_an_answer_of_2_gb_is_cut_at_its_limit_and_never_held(home: Home) -> None:
    async with Flood() as server:
        env = {"TOPICD_AUDIO_BACKEND": "piper", "TTS_BASE_URL": server.url, "TOPICD_ATTEMPTS_MAX": "1"}
        with running(home, **env) as daemon:
            home.drop("0.md", "# Sea\n")
            failed = await asyncio.to_thread(daemon.event, "job.failed")
            assert resident_bytes_max(daemon.process.pid) < 3 * BODY_BYTES_MAX
    assert failed["cause"] == "answer_too_large"
    assert server.sent < 2 * BODY_BYTES_MAX


async def test_a_backend_that_is_not_async_is_told_of() -> None:
    request = ScriptRequest(title="Sea", guidance="", language="en", scenes=1, style="", seed=0)
    with pytest.raises(RetryLater, match="awaited") as caught:
        await ask(Sync().write, request, Script, unit="script", timeout_s=60)  # type: ignore[arg-type]
    assert caught.value.cause == "backend_misbehaved"


def test_a_provenance_that_no_manifest_holds_is_told_of_before_any_work() -> None:
    with pytest.raises(Unusable, match="provenance"):
        made_by(Boastful())
