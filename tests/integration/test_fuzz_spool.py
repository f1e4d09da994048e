"""Harmed job directories in a real spool, with the real engine and stages: no harm reaches another job.

A job of each stage is made once; each case is a copy of it, harmed, beside an unharmed one.
"""

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.backends import FakeAudio, FakeImage, FakeScript
from rig.daemon import TOPICD, Home
from rig.fuzz import HUGE, THINGS, Harm, byte_harms, clear, json_harms, put
from topicd.backends.embedded.worker import Worker
from topicd.durable import Durable
from topicd.engine import Engine
from topicd.gate import StorageGate
from topicd.intake import look
from topicd.policy import Policy
from topicd.spool import DONE, Spool
from topicd.stages.audio import AudioStage
from topicd.stages.images import ImagesStage
from topicd.stages.scripts import ScriptsStage
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store
from topicd.telemetry.events import Event, Events

LIMIT_S = 60.0
ATTEMPTS_MAX = 2
STARTS_MAX = 3 * (ATTEMPTS_MAX + 2)
POLICY: Final = Policy(
    attempts_max=ATTEMPTS_MAX, crashes_max=3, retry_first_s=0.0, retry_max_s=0.0, down_first_s=0.1, down_max_s=5.0
)
LARGE = os.environ.get("FUZZ") == "large"
FEW = settings(
    max_examples=150 if LARGE else 5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
MINE, OTHERS = "20260101-000000-000000-mine", "20260101-000000-000001-others"
JSON_FILES = ("job.json", "manifest.json", "scenes.json", "reason.json", "audio/001.json", "timeline.json")
FILES = (
    *JSON_FILES,
    "topic.md",
    "script.md",
    "audio",
    "audio/001.wav",
    "audio.wav",
    "captions.vtt",
    "images",
    "images/title.png",
    "index.html",
)


@dataclass
class Kept:
    """A sink that keeps what it sees."""

    events: list[Event] = field(default_factory=list)

    def see(self, event: Event) -> None:
        self.events.append(event)

    def names_of(self, job: str) -> Counter[str]:
        """Return how often each event told of a job."""
        return Counter(event.name for event in self.events if event.fields.get("job") == job)


class Bench:
    """One event loop and one press for all cases; a home of its own for each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = asyncio.Runner()
        self.lost = list[str]()
        self.press = Worker(
            "topicd.stages.press:Press", {}, name="press", idle_s=600, start_timeout_s=60, reply_bytes_max=1_048_576
        )
        self._cases = 0
        loop = self.runner.get_loop()
        loop.set_exception_handler(lambda _, context: self.lost.append(str(context.get("exception") or context)))

    def close(self) -> None:
        self.runner.run(self.press.aclose())
        self.runner.close()

    def spool(self) -> Spool:
        """Return a new home's."""
        self._cases += 1
        home = self.root / str(self._cases)
        spool = Spool(home=home, input_dir=home / "input", output_dir=home / "output")
        Store(spool, Durable()).open()
        return spool

    def template(self, stage: Stage) -> Path:
        """Return a job that waits in a stage, made once."""
        path = self.root / f"template-{stage}"
        if not path.exists():
            self._make_templates()
        return path

    def run(self, spool: Spool, done: Callable[[Kept], bool]) -> Kept:
        """Run recovery and an engine until a condition holds."""
        kept = Kept()
        self.lost.clear()
        self.runner.run(self._run(spool, kept, done))
        assert not self.lost, "an error that nobody told of"
        return kept

    async def _run(self, spool: Spool, kept: Kept, done: Callable[[Kept], bool]) -> None:
        store, events = Store(spool, Durable()), Events([kept])
        store.recover()
        gate = StorageGate(root=spool.root, durable=store.durable, events=events, min_free_bytes=0)
        engine = Engine(
            store=store,
            works=self._works(events),
            limits=dict.fromkeys(Stage, 2),
            events=events,
            gate=gate,
            policy=POLICY,
        )
        task = asyncio.create_task(engine.run())
        end = time.monotonic() + LIMIT_S
        try:
            while not done(kept):
                assert not task.done(), task.exception()
                assert time.monotonic() < end, [event.message[:200] for event in kept.events[-8:]]
                await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _works(self, events: Events) -> dict[Stage, Any]:
        return {
            Stage.SCRIPTS: ScriptsStage(
                FakeScript(),
                events=events,
                timeout_s=30,
                topic_bytes_max=65_536,
                scenes=1,
                scenes_max=3,
                language="en",
                voice="",
                voices={},
            ),
            Stage.AUDIO: AudioStage(FakeAudio(), self.press, events=events, timeout_s=30, scene_pause_s=0.1),
            Stage.IMAGES: ImagesStage(
                FakeImage(), self.press, events=events, timeout_s=30, width_px=64, height_px=64, notes={}
            ),
        }

    def _make_templates(self) -> None:
        for stage in Stage:
            spool = self.spool()
            (spool.input / "sea.md").write_text("# The sea\n\nIt is salt.\n")
            job = Store(spool, Durable()).claim(spool.input / "sea.md", sha256="", size=24)
            self.run(spool, lambda _, spool=spool, stage=stage: bool(spool.ids(stage)))  # type: ignore[misc]
            shutil.copytree(spool.place(stage) / job.id, self.root / f"template-{stage}")

    def place(self, spool: Spool, stage: Stage, name: str) -> Path:
        """Put a copy of the template into a stage."""
        path = spool.place(stage) / name
        shutil.copytree(self.template(stage), path)
        for each in ("job.json", "manifest.json"):
            file = path / each
            if file.exists():
                old = self._id(stage)
                file.write_bytes(file.read_bytes().replace(old.encode(), name.encode("utf-8", "surrogateescape")))
        return path

    def _id(self, stage: Stage) -> str:
        return str(json.loads((self.template(stage) / "job.json").read_bytes())["id"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("fuzz"))
    yield bench
    bench.close()


def where(spool: Spool, name: str) -> list[str]:
    """Return the places that hold a job."""
    return [str(place) for place in (*SPOOL_PLACES, DONE) if os.path.lexists(spool.place(place) / name)]


def ended(spool: Spool, kept: Kept, name: str) -> bool:
    """Tell whether nothing more is to be expected of a job: it is done, it failed, or it can be moved nowhere."""
    return where(spool, name) in ([str(Aside.FAILED)], [DONE]) or "move_refused" in [
        event.fields.get("cause") for event in kept.events if event.fields.get("job") == name
    ]


def check(bench: Bench, spool: Spool, jobs: Collection[str]) -> None:
    """Run it: the other job is done, the harmed ones end, and each is told of."""
    kept = bench.run(
        spool, lambda kept: where(spool, OTHERS) == [DONE] and all(ended(spool, kept, job) for job in jobs)
    )
    for job in jobs:
        check_told(spool, kept, job)
    shutil.rmtree(spool.home)


def check_told(spool: Spool, kept: Kept, job: str) -> None:
    names = kept.names_of(job)
    assert names["stage.started"] <= STARTS_MAX, names
    [place] = where(spool, job)
    if place != DONE:
        assert names["job.failed"] + names["job.damaged"] >= 1, names
    if place == Aside.FAILED:
        reason = spool.read_reason(spool.place(Aside.FAILED) / job)
        assert reason
        assert reason.message


def harmed(bench: Bench, stage: Stage, harms: Sequence[tuple[str, Harm]]) -> None:
    """Check a spool with a job for each harm to a file."""
    spool = bench.spool()
    bench.place(spool, stage, OTHERS)
    jobs = [f"20260101-000000-{number:06}-mine" for number in range(len(harms))]
    for job, (name, harm) in zip(jobs, harms, strict=True):
        harm_file(bench.place(spool, stage, job) / name, harm)
    check(bench, spool, jobs)


@FEW
@given(st.sampled_from(list(Stage)), st.lists(st.tuples(st.sampled_from(FILES), byte_harms()), min_size=4, max_size=8))
def test_any_bytes_in_any_file(bench: Bench, stage: Stage, harms: list[tuple[str, Harm]]) -> None:
    harmed(bench, stage, harms)


@FEW
@given(
    st.sampled_from(list(Stage)), st.lists(st.tuples(st.sampled_from(JSON_FILES), json_harms()), min_size=4, max_size=8)
)
def test_any_json_in_any_file(bench: Bench, stage: Stage, harms: list[tuple[str, Harm]]) -> None:
    harmed(bench, stage, harms)


def harm_file(path: Path, harm: Harm) -> None:
    """Harm a file, or make one of what the harm makes of nothing."""
    old = path.read_bytes() if path.is_file() else b'{"a": 1}'
    clear(path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(harm(old))


@pytest.mark.parametrize("stage", list(Stage))
def test_anything_in_the_place_of_any_file(bench: Bench, stage: Stage) -> None:
    """All at once: a job for each pair of a file and a thing in its place."""
    spool = bench.spool()
    bench.place(spool, stage, OTHERS)
    names = {}
    pairs = [(name, thing) for name in FILES for thing in THINGS]
    if not LARGE:  # each file once, and over the stages each thing in turn
        pairs = pairs[list(Stage).index(stage) * 3 :: len(THINGS) + 1]
    for number, (name, thing) in enumerate(pairs):
        job = f"20260101-000000-{number:06}-mine"
        put(bench.place(spool, stage, job) / name, thing)
        names[job] = (name, thing)
    gone = {job for job, what in names.items() if what == ("topic.md", "nothing")}
    kept = bench.run(spool, lambda kept: all(ended(spool, kept, job) for job in {*names, OTHERS} - gone))
    assert where(spool, OTHERS) == [DONE]
    for job, what in names.items():
        assert kept.names_of(job)["stage.started"] <= STARTS_MAX, what
    shutil.rmtree(spool.home)


@pytest.mark.parametrize("name", HUGE)
def test_a_damaged_job_file_is_kept_as_it_was(bench: Bench, name: str) -> None:
    spool = bench.spool()
    mine, _ = bench.place(spool, Stage.AUDIO, MINE), bench.place(spool, Stage.AUDIO, OTHERS)
    before = {path.name: path.read_bytes() for path in mine.iterdir() if path.is_file()}
    before["job.json"] = HUGE[name] + b"}"  # not torn by a power cut, which would end otherwise
    (mine / "job.json").write_bytes(before["job.json"])
    kept = bench.run(spool, lambda kept: where(spool, OTHERS) == [DONE] and ended(spool, kept, MINE))
    assert where(spool, MINE) in ([str(Aside.FAILED)], [DONE])
    if where(spool, MINE) == [Aside.FAILED]:
        folder = spool.place(Aside.FAILED) / MINE
        after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        reason = spool.read_reason(folder)
        assert reason
        assert reason.cause == "job_damaged"
        assert {**after, **before} == after
        assert kept.names_of(MINE)["job.damaged"] == 1


NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: not {*b"/\0"} & {*name} and name[:1] != b".")
NAMED = [
    "-rf",
    "two\nlines",
    "é" * 127,
    "e\u0301\u202emd.\u202c",
    "\udcff\udcfe",
    " ",
    "*",
    "x.tmp",
    "n" * 255,
    "a" * 232,
]


@FEW
@given(
    st.lists(
        st.tuples(NAMES.map(os.fsdecode) | st.sampled_from(NAMED), st.booleans()),
        min_size=4,
        max_size=8,
        unique_by=lambda pair: pair[0],
    )
)
def test_directories_of_any_name_that_a_person_made(bench: Bench, made: list[tuple[str, bool]]) -> None:
    spool = bench.spool()
    bench.place(spool, Stage.AUDIO, OTHERS)
    for name, has_job in made:
        shutil.copytree(bench.template(Stage.AUDIO), spool.place(Stage.AUDIO) / name)
        if not has_job:
            (spool.place(Stage.AUDIO) / name / "job.json").unlink()
    check(bench, spool, [name for name, _ in made])


@FEW
@given(name=st.binary(min_size=1, max_size=252).filter(lambda name: not {*b"/\0"} & {*name} and name[:1] not in b".~"))
def test_a_topic_of_any_name_is_claimed_and_its_name_is_kept(bench: Bench, name: bytes) -> None:
    spool = bench.spool()
    source = spool.input / os.fsdecode(name + b".md")
    source.write_text("# The sea\n")
    [(found, _)], _ = look(spool.input)
    assert found == source.name
    job = Store(spool, Durable()).claim(source, sha256="", size=10)
    path = spool.place(Stage.SCRIPTS) / job.id
    assert spool.read_job(path).source == source.name
    assert job.id.isascii()
    assert not source.exists()
    shutil.rmtree(spool.home)


@pytest.mark.parametrize("thing", [each for each in THINGS if each != "nothing"])
def test_what_is_no_job_in_a_stage_is_left_alone(bench: Bench, thing: str) -> None:
    spool = bench.spool()
    bench.place(spool, Stage.SCRIPTS, OTHERS)
    for stage in Stage:
        put(spool.place(stage) / "thing", thing)
    bench.run(spool, lambda _: where(spool, OTHERS) == [DONE])
    assert os.path.lexists(spool.place(Stage.AUDIO) / "thing")


def immutable(path: Path, *, on: bool) -> bool:
    """Forbid or allow every change of a directory; False where that is not possible."""
    return subprocess.run(["chattr", "+i" if on else "-i", path], check=False, capture_output=True).returncode == 0


def test_a_job_that_cannot_be_changed_or_moved_holds_up_nobody(bench: Bench) -> None:
    spool = bench.spool()
    mine, _ = bench.place(spool, Stage.AUDIO, MINE), bench.place(spool, Stage.AUDIO, OTHERS)
    if os.geteuid() != 0 or shutil.which("chattr") is None or not immutable(mine, on=True):
        pytest.skip("needs root, chattr(1) and a file system that knows it")
    try:
        kept = bench.run(spool, lambda kept: where(spool, OTHERS) == [DONE] and ended(spool, kept, MINE))
        assert where(spool, MINE) == [Stage.AUDIO]
        assert kept.names_of(MINE)["stage.started"] <= STARTS_MAX
    finally:
        immutable(mine, on=False)


WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.mark.parametrize("stage", [Stage.SCRIPTS, Stage.IMAGES])
def test_a_job_that_cannot_be_read_holds_up_nobody(home: Home, stage: Stage) -> None:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads everything; setpriv(1) changes that")
    home.drop("good.md", "# Good\n")
    shut = home.spool / stage / MINE
    shut.mkdir(parents=True)
    (shut / "topic.md").write_text("# Shut\n")
    shut.chmod(0)
    prefix = list(WITHOUT_RIGHTS) if os.geteuid() == 0 else []
    run: list[str | Path] = [*prefix, TOPICD, "run", "--once"]
    done = subprocess.run(run, env=home.env, cwd=home.path, capture_output=True, timeout=LIMIT_S, check=False)
    shut.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert len(home.ids("output")) == 1
    assert (shut / "topic.md").read_text() == "# Shut\n"
