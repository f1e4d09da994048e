"""From settings to parts: which backend a stage gets, and every part's arguments.

Owns the meaning of `auto` and of a backend named by import path. Promises that nothing here starts a process,
opens a connection or touches the disk: it only builds. Heavy libraries stay unloaded until a backend that needs
them is asked.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from topicd import __version__, servers
from topicd.backends.base import AudioBackend, Backend, ImageBackend, ScriptBackend
from topicd.backends.embedded.worker import Worker
from topicd.backends.trust import trust
from topicd.errors import TopicdError, Unusable
from topicd.gpu import Gpu
from topicd.policy import Policy
from topicd.servers import Changed
from topicd.settings import Settings
from topicd.stages.audio import AudioStage
from topicd.stages.base import StageWork
from topicd.stages.images import ImagesStage
from topicd.stages.scripts import ScriptsStage
from topicd.states import Stage
from topicd.telemetry.events import Events

if TYPE_CHECKING:
    from topicd.backends.voices import Arrivals
    from topicd.telemetry.otlp import Otlp

PRESS_START_TIMEOUT_S: Final = 60.0
PRESS_REPLY_BYTES_MAX: Final = 1_048_576

NOTES: Final[Mapping[str, str]] = {
    "embedded-llm": "Draft: what the topic does not say itself comes from a very small language model: check it.",
    "cards": "The pictures are drawn illustrations of ideas, not photographs of the scenes.",
}

EMBEDDED: Final = "embedded"
JOBS_MAX: Final = 64

B = TypeVar("B", bound=Backend)
StageChanged = Callable[[Stage, str, TopicdError | None], None]


@dataclass(frozen=True, slots=True)
class Backends:
    """One backend a stage."""

    script: ScriptBackend
    audio: AudioBackend
    image: ImageBackend

    def each(self) -> Mapping[Stage, Backend]:
        """Return them by stage."""
        return {Stage.SCRIPTS: self.script, Stage.AUDIO: self.audio, Stage.IMAGES: self.image}


def receiver(settings: Settings, lost: Callable[[int], None]) -> "Otlp | None":
    """Return where spans are sent; None when nowhere.

    Raises:
        Unusable: OpenTelemetry is not installed, or the CA file cannot be used.
    """
    if not settings.traces_url:
        return None
    try:
        from topicd.telemetry.otlp import Otlp  # noqa: PLC0415 - OpenTelemetry; an extra, and 40 MB of memory
    except ModuleNotFoundError as error:
        hint = "pip install 'topicd[otel]', or empty TOPICD_TRACES_URL"
        raise Unusable("otel_missing", "OpenTelemetry is not installed.", hint=hint) from error
    tls = trust(verify=settings.ssl_verify, ca_file=settings.ssl_ca_file)
    return Otlp(settings.traces_url[0], version=__version__, lost=lost, tls=tls)


def policy(settings: Settings) -> Policy:
    """Return when to try again."""
    return Policy(
        attempts_max=settings.attempts_max,
        crashes_max=settings.crashes_max,
        retry_first_s=settings.retry_first_s,
        retry_max_s=settings.retry_max_s,
        down_first_s=settings.down_first_s,
        down_max_s=settings.down_max_s,
    )


def backends(settings: Settings, changed: StageChanged = lambda *_: None, events: Events | None = None) -> Backends:
    """Return the backends that the settings name.

    Args:
        settings: what a person set.
        changed: told, with the stage, when one server of several goes away and when it is back.
        events: told of what a backend fetches by itself; None: nothing is told.

    Raises:
        Unusable: a name is unknown, a server's address is missing, or a class of one's own cannot be loaded or is none.
    """
    return Backends(
        script=_choose(_script_choice(settings), partial(changed, Stage.SCRIPTS), settings),
        audio=_choose(_audio_choice(settings, events or Events([])), partial(changed, Stage.AUDIO), settings),
        image=_choose(_image_choice(settings), partial(changed, Stage.IMAGES), settings),
    )


def unused(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each address that is set and not used, and the setting that decides it."""
    for choice in (_script_choice(settings), _audio_choice(settings, Events([])), _image_choice(settings)):
        used = choice.kinds.get(choice.resolved)
        for name in sorted({kind.setting for kind in choice.kinds.values() if kind.urls}):
            if used is None or name != used.setting:
                yield name, choice.decided_by if choice.decided_by and choice.name == "auto" else choice.setting


def files(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield the files that are set and will be needed, each with its setting's name."""
    named = [
        ("SSL_CA_FILE", settings.ssl_ca_file, True),
        ("TOPICD_LLM_FILE", settings.llm_file, _script_choice(settings).resolved == EMBEDDED),
        ("TOPICD_VOICE_FILE", settings.voice_file, _audio_choice(settings, Events([])).resolved == EMBEDDED),
    ]
    yield from ((name, path) for name, path, is_needed in named if path and is_needed)


def press(settings: Settings) -> Worker:
    """Return the worker that the stages give their own heavy work to."""
    return Worker(
        "topicd.stages.press:Press",
        {},
        name="the press",
        idle_s=settings.worker_idle_s,
        start_timeout_s=PRESS_START_TIMEOUT_S,
        reply_bytes_max=PRESS_REPLY_BYTES_MAX,
    )


def works(settings: Settings, chosen: Backends, press: Worker, events: Events) -> Mapping[Stage, StageWork]:
    """Return the work of each stage."""
    return {
        Stage.SCRIPTS: ScriptsStage(
            chosen.script,
            events=events,
            timeout_s=settings.script_timeout_s,
            topic_bytes_max=settings.topic_bytes_max,
            scenes=settings.scenes,
            scenes_max=settings.scenes_max,
            language=settings.language,
            voice=settings.tts_voice,
            voices=settings.tts_voices,
        ),
        Stage.AUDIO: AudioStage(
            chosen.audio, press, events=events, timeout_s=settings.audio_timeout_s, scene_pause_s=settings.scene_pause_s
        ),
        Stage.IMAGES: ImagesStage(
            chosen.image,
            press,
            events=events,
            timeout_s=settings.image_timeout_s,
            width_px=settings.image_width_px,
            height_px=settings.image_height_px,
            notes=NOTES,
        ),
    }


def limits(settings: Settings, chosen: Backends) -> Mapping[Stage, int]:
    """Return how many jobs each stage has in hand at once: as many as its backend takes calls, unless fewer are set."""
    wanted = {Stage.SCRIPTS: settings.script_jobs, Stage.AUDIO: settings.audio_jobs, Stage.IMAGES: settings.image_jobs}
    return {
        stage: max(1, min(wanted[stage] or JOBS_MAX, backend.calls_max, JOBS_MAX))
        for stage, backend in chosen.each().items()
    }


def gpu(settings: Settings, events: Events) -> Gpu | None:
    """Return the turns of the stages that hold the GPU; None where it has room for all."""
    return Gpu(events=events) if settings.gpu_exclusive else None


@dataclass(frozen=True, slots=True)
class _Kind(Generic[B]):
    """Servers of one kind: the setting with their addresses, the addresses, and what makes the backend."""

    setting: str
    urls: tuple[str, ...]
    make: Callable[[Settings, Changed], B]


@dataclass(frozen=True, slots=True)
class _Choice(Generic[B]):
    """What a stage may have.

    Attributes:
        name: what a person set.
        auto: what `auto` means.
        decided_by: the setting that decides what `auto` means, where it is another.
    """

    name: str
    setting: str
    protocol: type
    embedded: Callable[[Settings], B]
    kinds: Mapping[str, _Kind[B]]
    auto: str
    decided_by: str = ""

    @property
    def resolved(self) -> str:
        return self.auto if self.name == "auto" else self.name


def _script_choice(settings: Settings) -> _Choice[ScriptBackend]:
    kinds = {
        "ollama": _Kind("OLLAMA_BASE_URL", settings.ollama_base_url, servers.ollama),
        "openai": _Kind("OPENAI_BASE_URL", settings.openai_base_url, servers.openai_chat),
    }
    return _Choice(
        name=settings.script_backend,
        setting="TOPICD_SCRIPT_BACKEND",
        protocol=ScriptBackend,
        embedded=_embedded_llm,
        kinds=kinds,
        auto=next((name for name, kind in kinds.items() if kind.urls), EMBEDDED),
    )


def _audio_choice(settings: Settings, events: Events) -> _Choice[AudioBackend]:
    return _Choice(
        name=settings.audio_backend,
        setting="TOPICD_AUDIO_BACKEND",
        protocol=AudioBackend,
        embedded=partial(_embedded_voice, events),
        kinds={
            "piper": _Kind("TTS_BASE_URL", settings.tts_base_url, servers.piper),
            "openai": _Kind("TTS_BASE_URL", settings.tts_base_url, servers.openai_speech),
        },
        auto="piper" if settings.tts_base_url else EMBEDDED,
    )


def _image_choice(settings: Settings) -> _Choice[ImageBackend]:
    return _Choice(
        name=settings.image_backend,
        setting="TOPICD_IMAGE_BACKEND",
        protocol=ImageBackend,
        embedded=_cards,
        kinds={
            "a1111": _Kind("SD_BASE_URL", settings.sd_base_url, servers.a1111),
            "openai": _Kind("SD_BASE_URL", settings.sd_base_url, servers.openai_images),
        },
        auto="a1111" if settings.sd_enabled else EMBEDDED,
        decided_by="SD_ENABLED",
    )


def _choose(choice: _Choice[B], changed: Changed, settings: Settings) -> B:
    name = choice.resolved
    if name == EMBEDDED:
        return choice.embedded(settings)
    if kind := choice.kinds.get(name):
        if not kind.urls:
            raise Unusable("settings", f"{choice.setting}: {name} needs an address", hint=f"set {kind.setting}")
        return kind.make(settings, changed)
    if ":" in name:
        return _own(name, choice.setting, choice.protocol)  # type: ignore[no-any-return]
    raise Unusable(
        "settings",
        f"{choice.setting}={name}: there is no such backend",
        hint=f"auto, embedded, {', '.join(choice.kinds)}, or package.module:Class",
    )


def _own(path: str, setting: str, protocol: type) -> Any:
    module, _, name = path.partition(":")
    try:
        backend = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise Unusable(
            "settings",
            f"{setting}={path}: cannot be loaded: {type(error).__name__}: {error}",
            hint="the module must be importable and the class take no arguments",
        ) from error
    if not isinstance(backend, protocol):
        hint = "docs/ARCHITECTURE.md, Backends, shows one that is"
        raise Unusable("settings", f"{setting}={path}: this is no {protocol.__name__}", hint=hint)
    return backend


def _embedded_llm(settings: Settings) -> ScriptBackend:
    from topicd.backends.embedded.llm import EmbeddedLLM  # noqa: PLC0415 - each backend is loaded only where it is used

    return EmbeddedLLM(
        model_file=settings.llm_file, call_timeout_s=settings.script_timeout_s, idle_s=settings.worker_idle_s
    )


def _embedded_voice(events: Events, settings: Settings) -> AudioBackend:
    from topicd.backends.embedded.voice import EmbeddedVoice  # noqa: PLC0415 - as above

    return EmbeddedVoice(
        voice_file=settings.voice_file,
        call_timeout_s=settings.audio_timeout_s,
        idle_s=settings.worker_idle_s,
        voices_dir=settings.voices_path,
        arrivals=partial(_arrivals, settings, events) if settings.voices_url else None,
    )


def _arrivals(settings: Settings, events: Events) -> "Arrivals":
    from topicd import sources  # noqa: PLC0415 - as above

    return sources.arrivals(settings, events)


def _cards(settings: Settings) -> ImageBackend:
    from topicd.backends.embedded.cards import Cards  # noqa: PLC0415 - as above

    return Cards(call_timeout_s=settings.image_timeout_s, idle_s=settings.worker_idle_s)
