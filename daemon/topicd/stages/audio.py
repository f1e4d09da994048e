"""The audio stage: `scenes.json` → `audio/001.wav` …, `audio.wav`, `captions.vtt`, `captions.srt`.

Owns what narration must be to count, how scenes are joined, and where captions get their times: from the exact
number of samples. Promises that one scene is one unit.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from topicd import job as files
from topicd.backends.base import AudioBackend, Speech, SpeechRequest
from topicd.durable import offload
from topicd.job import Job, Scenes
from topicd.stages.base import SEED_MASK, Units, ask, made_by
from topicd.stages.captions import SceneSpeech, cues_from_scenes, to_srt, to_vtt
from topicd.stages.wav import Wave, check_speech, join, read_wave
from topicd.states import Stage
from topicd.telemetry.events import Events
from topicd.workspace import Workspace, digest

FOLDER: Final = "audio"
VTT: Final = "captions.vtt"
SRT: Final = "captions.srt"
TIMELINE: Final = "timeline.json"
SPEECH_BYTES_MAX: Final = 134_217_728


class AudioStage:
    """Asks for each scene's speech, keeps it, joins it."""

    def __init__(self, backend: AudioBackend, *, events: Events, timeout_s: float, scene_pause_s: float) -> None:
        self.backend = backend
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
        await offload(self._join, scenes, space)

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
        speech = await ask(self.backend.speak(request), Speech, unit=unit, timeout_s=self._timeout_s)
        await offload(check_speech, speech, text=request.text, unit=unit, bytes_max=SPEECH_BYTES_MAX)
        cues = json.dumps(speech.cues).encode()
        for name, data in ((cues_name, cues), (wav_name, speech.wav)):
            await offload(space.keep, name, data, made_from=made_from, by=by, seconds=units.seconds, at=time.time())
        units.finished(unit)

    def _join(self, scenes: Scenes, space: Workspace) -> None:
        names = [_names(number) for number in range(1, len(scenes.scenes) + 1)]
        entries = [space.manifest.get(name) for pair in names for name in pair]
        made_from = digest(parts=[entry.sha256 for entry in entries if entry], pause_s=self._pause_s)
        derived = (VTT, SRT, TIMELINE, files.AUDIO)
        if all(space.whole(name, made_from) for name in derived):
            return
        begun = time.monotonic()
        waves = [read_wave(space.read(wav, SPEECH_BYTES_MAX)) for wav, _ in names]
        spoken = timeline(
            waves, scenes, [json.loads(space.read(cues, files.JSON_BYTES_MAX)) for _, cues in names], self._pause_s
        )
        cues = cues_from_scenes(spoken)
        data = {
            VTT: to_vtt(cues).encode(),
            SRT: to_srt(cues).encode(),
            TIMELINE: json.dumps(
                {
                    "starts_s": [each.start_s for each in spoken],
                    "cues": [[cue.start_s, cue.end_s, cue.text] for cue in cues],
                }
            ).encode(),
            files.AUDIO: join(waves, self._pause_s),
        }
        for name in derived:
            seconds = time.monotonic() - begun
            space.keep(name, data[name], made_from=made_from, by={}, seconds=seconds, at=time.time())


def _names(number: int) -> tuple[str, str]:
    return f"{FOLDER}/{number:03}.wav", f"{FOLDER}/{number:03}.json"


def timeline(
    waves: Sequence[Wave], scenes: Scenes, cues: Sequence[Sequence[tuple[float, float, str]]], pause_s: float
) -> list[SceneSpeech]:
    """Place each scene in the joined audio, in seconds from its start."""
    placed, start_s = list[SceneSpeech](), 0.0
    for wave, scene, exact in zip(waves, scenes.scenes, cues, strict=True):
        exact_cues = tuple((float(start), float(end), str(words)) for start, end, words in exact)
        placed.append(SceneSpeech(scene.narration, start_s, wave.seconds, exact_cues))
        start_s += wave.seconds + wave.round_s(pause_s)
    return placed
