"""From settings to parts: which backend a stage gets, and every part's arguments.

Owns the meaning of `auto` and of a backend named by import path. Promises that nothing here starts a process,
opens a connection or touches the disk: it only builds. Heavy libraries stay unloaded until a backend that needs
them is asked.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from topicd.backends.base import AudioBackend, Backend, ImageBackend, ScriptBackend
from topicd.backends.embedded.worker import Worker
from topicd.errors import Unusable
from topicd.policy import Policy
from topicd.settings import Settings
from topicd.stages.audio import AudioStage
from topicd.stages.base import StageWork
from topicd.stages.images import ImagesStage
from topicd.stages.scripts import ScriptsStage
from topicd.states import Stage
from topicd.telemetry.events import Events

if TYPE_CHECKING:
    from topicd.backends.client import Client

CONNECT_TIMEOUT_S: Final = 10.0
BODY_BYTES_MAX: Final = 134_217_728
PRESS_START_TIMEOUT_S: Final = 60.0
PRESS_REPLY_BYTES_MAX: Final = 1_048_576
TRIES_MAX: Final = 3

NOTES: Final[Mapping[str, str]] = {
    "embedded-llm": "Draft: what the topic does not say itself comes from a very small language model: check it.",
    "cards": "The pictures are drawn illustrations of ideas, not photographs of the scenes.",
}

B = TypeVar("B", bound=Backend)


@dataclass(frozen=True, slots=True)
class Backends:
    """One backend a stage."""

    script: ScriptBackend
    audio: AudioBackend
    image: ImageBackend

    def each(self) -> Mapping[Stage, Backend]:
        """Return them by stage."""
        return {Stage.SCRIPTS: self.script, Stage.AUDIO: self.audio, Stage.IMAGES: self.image}


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


def backends(settings: Settings) -> Backends:
    """Return the backends that the settings name.

    Raises:
        Unusable: a name is unknown, a server's address is missing, or a class of one's own cannot be loaded or is none.
    """
    return Backends(
        script=_choose(
            settings.script_backend,
            setting="TOPICD_SCRIPT_BACKEND",
            protocol=ScriptBackend,
            embedded=lambda: _embedded_llm(settings),
            server=("ollama", "OLLAMA_BASE_URL", settings.ollama_base_url, lambda: _ollama(settings)),
            wanted=bool(settings.ollama_base_url),
        ),
        audio=_choose(
            settings.audio_backend,
            setting="TOPICD_AUDIO_BACKEND",
            protocol=AudioBackend,
            embedded=lambda: _embedded_voice(settings),
            server=("piper", "TTS_BASE_URL", settings.tts_base_url, lambda: _piper(settings)),
            wanted=bool(settings.tts_base_url),
        ),
        image=_choose(
            settings.image_backend,
            setting="TOPICD_IMAGE_BACKEND",
            protocol=ImageBackend,
            embedded=lambda: _cards(settings),
            server=("a1111", "SD_BASE_URL", settings.sd_base_url, lambda: _a1111(settings)),
            wanted=settings.sd_enabled,
        ),
    )


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
    """Return how many jobs each stage has in hand at once."""
    wanted = {Stage.SCRIPTS: settings.script_jobs, Stage.AUDIO: settings.audio_jobs, Stage.IMAGES: settings.image_jobs}
    return {stage: max(1, min(wanted[stage], backend.calls_max)) for stage, backend in chosen.each().items()}


def _choose(
    name: str,
    *,
    setting: str,
    protocol: type,
    embedded: Callable[[], B],
    server: tuple[str, str, str, Callable[[], B]],
    wanted: bool,
) -> B:
    kind, url_setting, url, of_server = server
    if name == "auto":
        name = kind if wanted else "embedded"
    if name == "embedded":
        return embedded()
    if name == kind:
        if not url:
            raise Unusable("settings", f"{setting}: {kind} needs an address", hint=f"set {url_setting}")
        return of_server()
    if ":" in name:
        return _own(name, setting, protocol)  # type: ignore[no-any-return]
    raise Unusable(
        "settings",
        f"{setting}={name}: there is no such backend",
        hint=f"auto, embedded, {kind}, or package.module:Class",
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


def _embedded_voice(settings: Settings) -> AudioBackend:
    from topicd.backends.embedded.voice import EmbeddedVoice  # noqa: PLC0415 - as above

    return EmbeddedVoice(
        voice_file=settings.voice_file, call_timeout_s=settings.audio_timeout_s, idle_s=settings.worker_idle_s
    )


def _cards(settings: Settings) -> ImageBackend:
    from topicd.backends.embedded.cards import Cards  # noqa: PLC0415 - as above

    return Cards(call_timeout_s=settings.image_timeout_s, idle_s=settings.worker_idle_s)


def _ollama(settings: Settings) -> ScriptBackend:
    from topicd.backends.ollama import Ollama  # noqa: PLC0415 - as above

    return Ollama(_client(settings, settings.ollama_base_url, settings.script_timeout_s), model=settings.ollama_model)


def _piper(settings: Settings) -> AudioBackend:
    from topicd.backends.piper import PiperHTTP  # noqa: PLC0415 - as above

    return PiperHTTP(_client(settings, settings.tts_base_url, settings.audio_timeout_s))


def _a1111(settings: Settings) -> ImageBackend:
    from topicd.backends.a1111 import A1111  # noqa: PLC0415 - as above

    return A1111(_client(settings, settings.sd_base_url, settings.image_timeout_s))


def _client(settings: Settings, base_url: str, total_timeout_s: float) -> "Client":
    from topicd.backends.client import Client  # noqa: PLC0415 - as above

    return Client(
        base_url=base_url,
        verify=settings.ssl_verify,
        ca_file=settings.ssl_ca_file,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        read_timeout_s=total_timeout_s,
        total_timeout_s=total_timeout_s,
        body_bytes_max=BODY_BYTES_MAX,
        tries_max=TRIES_MAX,
    )
