"""The scripts stage: `topic.md` → `script.md`, `scenes.json`.

Owns what a script must be to count: scenes with something to say, whole, without a model's thoughts or markup.
Promises that `scenes.json` holds all that the later stages need, so that they never read the topic again.
"""

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from topicd import job as files
from topicd.backends.base import Scene, Script, ScriptBackend, ScriptRequest
from topicd.errors import RetryLater
from topicd.job import Job, Scenes, SceneText
from topicd.stages.base import SEED_MASK, Units, made_by
from topicd.states import Stage
from topicd.telemetry.events import Events
from topicd.threads import offload
from topicd.topic import Topic, parse
from topicd.workspace import Workspace, digest

UNIT: Final = "script"
NARRATION_CHARS_MAX: Final = 5_000
PICTURE_CHARS_MAX: Final = 2_000
TITLE_CHARS_MAX: Final = 500
SCENES_HARD_MAX: Final = 100
UNSPEAKABLE: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
THOUGHT: Final = re.compile(r"</?think\b", re.IGNORECASE)


class ScriptsStage:
    """Asks for the script and keeps it."""

    def __init__(
        self,
        backend: ScriptBackend,
        *,
        events: Events,
        timeout_s: float,
        topic_bytes_max: int,
        scenes: int,
        scenes_max: int,
        language: str,
        voice: str,
        voices: Mapping[str, str],
    ) -> None:
        self.backend = backend
        self._events = events
        self._timeout_s = timeout_s
        self._topic_bytes_max = topic_bytes_max
        self._scenes = scenes
        self._scenes_max = scenes_max
        self._language = language
        self._voice = voice
        self._voices = voices

    async def run(self, job: Job, space: Workspace) -> None:
        """Make `script.md` and `scenes.json`, unless they are whole and made from this topic by this backend."""
        data = await space.topic(self._topic_bytes_max)
        topic = parse(data, scenes_max=self._scenes_max)
        request = self._request(topic, job)
        by = made_by(self.backend)
        voice = self._chosen_voice(topic, request.language)
        made_from = digest(request=asdict(request), voice=voice, by=by)
        units = Units(self._events, job, Stage.SCRIPTS, self.backend.name, of=1)
        if await offload(space.whole, files.SCENES, made_from) and await offload(space.whole, files.SCRIPT, made_from):
            units.kept(UNIT)
            return
        units.begin()
        script = await units.ask(self.backend.write, request, Script, unit=UNIT, timeout_s=self._timeout_s)
        check(script)
        scenes = Scenes(
            title=script.title,
            language=request.language,
            voice=voice,
            style=request.style,
            seed=request.seed,
            topic_sha256=hashlib.sha256(data).hexdigest(),
            scenes=tuple(SceneText(scene.narration.strip(), scene.picture.strip()) for scene in script.scenes),
        )
        for name, data in ((files.SCRIPT, markdown(scenes).encode()), (files.SCENES, files.encode(scenes))):
            await offload(space.keep, name, data, made_from=made_from, by=by, seconds=units.seconds, at=time.time())
        units.finished(UNIT)

    def _request(self, topic: Topic, job: Job) -> ScriptRequest:
        options = topic.options
        return ScriptRequest(
            title=topic.title,
            guidance=topic.text,
            language=options.language or self._language,
            scenes=options.scenes or min(self._scenes, self._scenes_max),
            style=options.style or "",
            seed=job_seed(job.id) if options.seed is None else options.seed,
        )

    def _chosen_voice(self, topic: Topic, language: str) -> str:
        return topic.options.voice or voice_of(language, self._voices) or self._voice


def voice_of(language: str, voices: Mapping[str, str]) -> str:
    """Return the voice of a language (BCP 47): its own, else that of all its kinds or of another, else none.

    So `pt` has a voice where `pt-BR` has one, and the other way round.
    """
    known = {name.lower(): voice for name, voice in voices.items()}
    others = (voice for name, voice in known.items() if primary(name) == primary(language))
    return known.get(language.lower()) or known.get(primary(language)) or next(others, "")


def primary(language: str) -> str:
    """Return the first part of a language's tag, in small letters (`pt` of `pt-BR`, and of a voice's `pt_BR`)."""
    return language.lower().replace("_", "-").partition("-")[0]


def job_seed(name: str) -> int:
    """Return a job's own seed, 0 … 2**31-1, the same after every restart."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:4]) & SEED_MASK


def check(script: Script) -> None:
    """Check a script before it counts.

    Raises:
        RetryLater: it is not made of text, is empty, oversized, or still carries a model's thoughts.
    """
    faults = _type_faults(script) or _faults(script)
    if faults:
        raise RetryLater(
            "script_unfit",
            f"the script is not fit to use: {faults[0]}",
            hint="another attempt may write a better one",
            unit=UNIT,
        )


def _type_faults(script: Script) -> list[str]:
    """What a backend of one's own may have put into a Script, that no type checker saw."""
    scenes: object = script.scenes
    if not isinstance(scenes, tuple | list):
        return [f"its scenes are {type(scenes).__name__}"]
    if not isinstance(script.title, str):
        return [f"its title is {type(script.title).__name__}"]
    faults = [f"a scene is {type(scene).__name__}" for scene in scenes if not isinstance(scene, Scene)]
    words: list[object] = [
        word for scene in scenes if isinstance(scene, Scene) for word in (scene.narration, scene.picture)
    ]
    return faults + [f"a scene's words are {type(word).__name__}" for word in words if not isinstance(word, str)]


def _faults(script: Script) -> list[str]:
    if not script.scenes or len(script.scenes) > SCENES_HARD_MAX:
        return [f"it has {len(script.scenes)} scenes"]
    if len(script.title) > TITLE_CHARS_MAX:
        return ["its title is too long"]
    faults = [] if script.title.strip() else ["it has no title"]
    if UNSPEAKABLE.search(script.title):
        faults.append("its title holds control characters")
    for number, scene in enumerate(script.scenes, 1):
        faults += [f"scene {number} {fault}" for fault in _scene_faults(scene)]
    return faults


def _scene_faults(scene: Scene) -> list[str]:
    if len(scene.narration) > NARRATION_CHARS_MAX or len(scene.picture) > PICTURE_CHARS_MAX:
        return ["is too long"]  # and is not searched: it may be of any length
    faults = [] if re.search(r"\w", scene.narration) else ["says nothing"]
    if UNSPEAKABLE.search(scene.narration + scene.picture):
        faults.append("holds control characters")
    if THOUGHT.search(scene.narration) or THOUGHT.search(scene.picture):
        faults.append("carries the model's thoughts")
    return faults


def markdown(scenes: Scenes) -> str:
    """Return the script as a person reads it."""
    parts = [f"# {scenes.title}\n"]
    for number, scene in enumerate(scenes.scenes, 1):
        parts.append(f"\n## Scene {number}\n\n{scene.narration}\n\n*Picture: {scene.picture}*\n")
    return "".join(parts)
