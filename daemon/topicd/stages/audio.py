"""The audio stage: `scenes.json` → `audio/001.wav` and `001.json` …, `audio.wav`, captions, `timeline.json`.

Owns what narration must be to count, how scenes are joined, and where captions get their times: from the exact
number of samples. Promises that one scene is one unit.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from topicd import job as files
from topicd.backends.base import AudioBackend, Speech, SpeechRequest
from topicd.backends.embedded.worker import Worker
from topicd.job import Job, Scenes
from topicd.stages.base import PRESS_TIMEOUT_S, SEED_MASK, Units, aside, made_by
from topicd.stages.captions import SceneSpeech, cues_from_scenes, to_srt, to_vtt
from topicd.stages.wav import check_speech
from topicd.states import Stage
from topicd.telemetry.events import Events
from topicd.threads import offload
from topicd.workspace import Workspace, digest, read_limited

FOLDER: Final = "audio"
VTT: Final = "captions.vtt"
SRT: Final = "captions.srt"
TIMELINE: Final = "timeline.json"
SPEECH_BYTES_MAX: Final = 134_217_728
DERIVED: Final = (VTT, SRT, TIMELINE, files.AUDIO)


class AudioStage:
    """Asks for each scene's speech, keeps it, joins it."""

    def __init__(
        self, backend: AudioBackend, press: Worker, *, events: Events, timeout_s: float, scene_pause_s: float
    ) -> None:
        self.backend = backend
        self._press = press
        self._events = events
        self._timeout_s = timeout_s
        self._pause_s = scene_pause_s

    async def run(self, job: Job, space: Workspace) -> None:
        """Make the scenes' audio that is not whole, then what is joined from it."""
        scenes = await offload(space.scenes)
        by = made_by(self.backend)
        units = Units(self._events, job, Stage.AUDIO, self.backend.name, of=len(scenes.scenes))
        for number in range(1, len(scenes.scenes) + 1):
            await self._unit(number, scenes, by, space, units)
        wanted = {name for number in range(1, len(scenes.scenes) + 1) for name in _names(number)}
        await offload(space.drop_others, FOLDER, wanted)
        await self._join(scenes, space)

    async def _unit(self, number: int, scenes: Scenes, by: dict[str, str], space: Workspace, units: Units) -> None:
        wav_name, cues_name = _names(number)
        unit = wav_name.removesuffix(".wav")
        request = SpeechRequest(
            text=scenes.scenes[number - 1].narration,
            language=scenes.language,
            voice=scenes.voice,
            seed=(scenes.seed + number) & SEED_MASK,
        )
        made_from = digest(request=asdict(request), by=by)
        if await offload(space.whole, wav_name, made_from) and await offload(space.whole, cues_name, made_from):
            units.kept(unit)
            return
        units.begin()
        speech = await units.ask(self.backend.speak, request, Speech, unit=unit, timeout_s=self._timeout_s)
        await offload(check_speech, speech, text=request.text, unit=unit, bytes_max=SPEECH_BYTES_MAX)
        cues = json.dumps(speech.cues).encode()
        for name, data in ((cues_name, cues), (wav_name, speech.wav)):
            await offload(space.keep, name, data, made_from=made_from, by=by, seconds=units.seconds, at=time.time())
        units.finished(unit)

    async def _join(self, scenes: Scenes, space: Workspace) -> None:
        names = [_names(number) for number in range(1, len(scenes.scenes) + 1)]
        entries = [space.manifest.get(name) for pair in names for name in pair]
        made_from = digest(
            parts=[entry.sha256 for entry in entries if entry],
            script=await offload(space.digest_of, files.SCENES),
            pause_s=self._pause_s,
        )
        if all([await offload(space.whole, name, made_from) for name in DERIVED]):
            return
        begun = time.monotonic()
        script = await offload(space.digest_of, files.SCENES)
        paths = [str(space.path / wav) for wav, _ in names]
        async with aside(space, files.AUDIO) as target:
            payload = {"paths": paths, "pause_s": self._pause_s, "target": str(target)}
            placed, _ = await self._press.call("join", payload, timeout_s=PRESS_TIMEOUT_S)
            spoken = await offload(_placed, scenes, placed, [space.path / cues for _, cues in names])
            for name, data in _captions(spoken, script).items():
                seconds = time.monotonic() - begun
                await offload(space.keep, name, data, made_from=made_from, by={}, seconds=seconds, at=time.time())
            seconds, at = time.monotonic() - begun, time.time()
            await offload(space.adopt, files.AUDIO, target, made_from=made_from, by={}, seconds=seconds, at=at)


def _names(number: int) -> tuple[str, str]:
    return f"{FOLDER}/{number:03}.wav", f"{FOLDER}/{number:03}.json"


def _placed(scenes: Scenes, placed: Mapping[str, Any], cue_paths: Sequence[Path]) -> list[SceneSpeech]:
    """Return the scenes as they lie in the joined audio, with the voice's own sentence times."""
    every_cues = [json.loads(read_limited(path, files.JSON_BYTES_MAX)) for path in cue_paths]
    parts = zip(scenes.scenes, placed["starts_s"], placed["durations_s"], every_cues, strict=True)
    return [
        SceneSpeech(scene.narration, start_s, duration_s, tuple((start, end, words) for start, end, words in cues))
        for scene, start_s, duration_s, cues in parts
    ]


def _captions(spoken: Sequence[SceneSpeech], script: str) -> dict[str, bytes]:
    """Return the files of the captions; `script` is the digest of the script that they are of."""
    cues = cues_from_scenes(spoken)
    timeline = {
        "script": script,
        "starts_s": [each.start_s for each in spoken],
        "cues": [[cue.start_s, cue.end_s, cue.text] for cue in cues],
    }
    return {VTT: to_vtt(cues).encode(), SRT: to_srt(cues).encode(), TIMELINE: json.dumps(timeline).encode()}
