"""The three stages on real files and a real press: what is made again, what is kept, what never counts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.backends import FakeAudio, FakeImage, FakeScript, tone
from rig.power import QuickDisk
from topicd.backends.base import Scene, Script, ScriptRequest, Speech, SpeechRequest
from topicd.backends.embedded.worker import Worker
from topicd.durable import Durable
from topicd.errors import Rejected, RetryLater
from topicd.job import Job
from topicd.stages.audio import AudioStage
from topicd.stages.base import StageWork
from topicd.stages.images import ImagesStage
from topicd.stages.scripts import ScriptsStage
from topicd.states import Stage
from topicd.telemetry.events import Event, Events
from topicd.workspace import Workspace

JOB = Job("20260101-000000-000000-sea", "sea.md", "", 0, "2026-01-01T00:00:00.000Z", 0.0)


class Teller(FakeScript):
    """Tells what it is told to tell."""

    def __init__(self) -> None:
        self.words = ["The sea is salt.", "Rivers bring it."]

    async def write(self, request: ScriptRequest) -> Script:
        return Script(request.title, tuple(Scene(each, "a wave") for each in self.words))


class Speaker(FakeAudio):
    """Speaks at some pace, which is its model."""

    def __init__(self) -> None:
        self.pace_s = 0.05
        self.peak = 8000

    def provenance(self) -> dict[str, str]:
        return {"model": f"{self.pace_s}"}

    async def speak(self, request: SpeechRequest) -> Speech:
        return Speech(tone(self.pace_s * len(request.text), peak=self.peak))


@dataclass
class Desk:
    """One job's directory and the three stages that work on it."""

    path: Path
    press: Worker
    teller: Teller = field(default_factory=Teller)
    speaker: Speaker = field(default_factory=Speaker)
    made: set[str] = field(default_factory=set)

    def see(self, event: Event) -> None:
        if event.name == "unit.finished":
            self.made.add(str(event.fields["unit"]))

    async def run(self, *stages: Stage) -> set[str]:
        """Run some stages, as after a restart. Returns the units that were made."""
        events, self.made = Events([self]), set()
        works: dict[Stage, StageWork] = {
            Stage.SCRIPTS: ScriptsStage(
                self.teller,
                events=events,
                timeout_s=30,
                topic_bytes_max=4096,
                scenes=2,
                scenes_max=3,
                language="en",
                voice="",
                voices={},
            ),
            Stage.AUDIO: AudioStage(self.speaker, self.press, events=events, timeout_s=30, scene_pause_s=0.1),
            Stage.IMAGES: ImagesStage(
                FakeImage(), self.press, events=events, timeout_s=30, width_px=64, height_px=64, notes={}
            ),
        }
        for stage in stages or Stage:
            await works[stage].run(JOB, Workspace(self.path, Durable(QuickDisk())))
        return self.made

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def mend(self, last: str) -> None:
        """Change the topic, and what the last scene will say."""
        (self.path / "topic.md").write_text(f"# The sea\n\n{last}\n")
        self.teller.words[-1] = last


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    press = Worker(
        "topicd.stages.press:Press", {}, name="press", idle_s=600, start_timeout_s=60, reply_bytes_max=1_048_576
    )
    path = tmp_path / JOB.id
    path.mkdir()
    (path / "topic.md").write_text("# The sea\n")
    yield Desk(path, press)
    await press.aclose()


async def test_what_is_whole_is_not_made_again(desk: Desk) -> None:
    assert len(await desk.run()) == 6
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in desk.path.rglob("*") if path.is_file()}
    assert await desk.run() == set()
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in desk.path.rglob("*") if path.is_file()}
    assert after == before


async def test_what_is_made_from_a_text_that_changed_is_made_again_and_nothing_else(desk: Desk) -> None:
    await desk.run()
    before = desk.read("audio.wav")
    desk.mend("Rain takes it.")
    assert await desk.run() == {"script", "audio/002", "images/002"}
    assert b"Rain takes it." in desk.read("scenes.json")
    assert b"Rain takes it." in desk.read("captions.vtt")
    assert b"Rain takes it." in desk.read("index.html")
    assert desk.read("audio.wav") != before


async def test_audio_that_another_voice_speaks_is_joined_anew(desk: Desk) -> None:
    await desk.run()
    before = desk.read("audio.wav"), desk.read("index.html")
    desk.speaker.pace_s = 0.06
    assert await desk.run() == {"audio/001", "audio/002"}
    assert desk.read("audio.wav") != before[0]
    assert desk.read("index.html") != before[1]


async def test_a_job_with_a_harmed_product_does_not_leave_the_last_stage(desk: Desk) -> None:
    await desk.run()
    (desk.path / "script.md").write_bytes(b"harmed")
    with pytest.raises(Rejected) as caught:
        await desk.run(Stage.IMAGES)
    assert caught.value.cause == "product_missing"


async def test_audio_of_another_script_is_refused(desk: Desk) -> None:
    await desk.run(Stage.SCRIPTS, Stage.AUDIO)
    desk.mend("Rain takes it.")
    await desk.run(Stage.SCRIPTS)
    with pytest.raises(Rejected) as caught:
        await desk.run(Stage.IMAGES)
    assert caught.value.cause == "audio_of_another_script"


async def test_a_script_with_a_models_thoughts_does_not_count(desk: Desk) -> None:
    desk.teller.words[0] = "<think>What is salt?</think>"
    with pytest.raises(RetryLater):
        await desk.run(Stage.SCRIPTS)
    assert [path.name for path in desk.path.iterdir()] == ["topic.md"]


async def test_silence_does_not_count(desk: Desk) -> None:
    desk.speaker.peak = 0
    with pytest.raises(RetryLater):
        await desk.run(Stage.SCRIPTS, Stage.AUDIO)
    assert not (desk.path / "audio").exists()
