"""All that can be set, in one frozen tree.

Owns every setting's name, unit, bounds and reason. Promises that a wrong value, or a `TOPICD_` name that does
not exist, is told in one readable line each before anything starts. Never read by anything but the command line
and what builds the daemon.

Settings come from the environment, then from the files that `NAME_FILE` names for secrets, then from systemd's
credentials, then from a file `.env` in the current directory, then from the defaults. Names that other
programs use too are in `settings_servers.py` and kept as they are; all others begin with `TOPICD_`.
"""

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from topicd import env_file, settings_faults
from topicd.errors import Unusable
from topicd.secret_files import SecretFiles
from topicd.settings_servers import SERVER_FORMS, Language, OptionalPath, ServerSettings, Urls, listed

PREFIX = "TOPICD_"
ENV_FILE = Path(".env")
CREDENTIALS = "CREDENTIALS_DIRECTORY"
HOSTS_MAX = 32
VOICES_URL = "https://huggingface.co/rhasspy/piper-voices/resolve/main"


_HOST = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_BACKEND = r"^(auto|[a-z0-9]+|[\w.]+:\w+)$"
FORMS = {
    **SERVER_FORMS,
    _HOST: "names such as topicd.example.org, in small letters",
    _BACKEND: "a name such as auto or embedded, or package.module:Class",
}
OTHERS = ("OLLAMA_MODELS", "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENAI_API_BASE", "OPENAI_API_TYPE")
"""Names like ours that other programs read."""
NEAR = 0.85

HostName = Annotated[str, Field(pattern=_HOST)]
HostNames = Annotated[tuple[HostName, ...], NoDecode, BeforeValidator(listed), Field(max_length=HOSTS_MAX)]
BackendName = Annotated[str, Field(pattern=_BACKEND)]


class Settings(ServerSettings):
    """The settings, checked and frozen. Each description is the line that `.env.example` shows."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    home: Path = Field(Path(), description="directory that holds input/, spool/, output/ and cache/")
    input_dir: OptionalPath = Field(None, description="where topics are dropped; empty: input/ under the home")
    output_dir: OptionalPath = Field(None, description="where finished folders go; empty: output/ under the home")

    script_backend: BackendName = Field("auto", description="auto, embedded, ollama, openai, or package.module:Class")
    audio_backend: BackendName = Field("auto", description="auto, embedded, piper, openai, or package.module:Class")
    image_backend: BackendName = Field("auto", description="auto, embedded, a1111, openai, or package.module:Class")

    llm_file: OptionalPath = Field(None, description="GGUF file for the embedded LLM; empty: the small bundled one")
    voice_file: OptionalPath = Field(
        None, description="Piper voice (.onnx) for the embedded voice; empty: the bundled one"
    )
    voices_url: Urls = Field(
        (VOICES_URL,),
        description="where Piper's voices.json and voices are; several: mirrors; empty: no voice is fetched",
    )
    voices_bytes_max: int = Field(
        4_294_967_296, ge=0, le=1 << 50, description="what voices may take on the disk in bytes; more is refused"
    )
    worker_idle_s: float = Field(60.0, ge=1, le=86_400, description="seconds an idle worker process is kept")

    prompts_dir: OptionalPath = Field(
        None, description="prompts of your own, such as pt-BR.txt; empty: prompts/ under the home"
    )
    gpu_exclusive: bool = Field(
        default=False, description="true: stages whose servers share one GPU take turns and free its memory"
    )

    language: Language = Field("en", description="language of topics that name none")
    scenes: int = Field(5, ge=1, le=50, description="scenes in a script when the topic names no number")
    scenes_max: int = Field(20, ge=1, le=50, description="most scenes a topic may ask for")
    scene_pause_s: float = Field(0.6, ge=0, le=10, description="seconds of silence between scenes")
    image_width_px: int = Field(1280, ge=256, le=2048, multiple_of=8, description="width of pictures in pixels")
    image_height_px: int = Field(720, ge=256, le=2048, multiple_of=8, description="height of pictures in pixels")

    topic_bytes_max: int = Field(65_536, ge=64, le=1_048_576, description="largest topic file in bytes")
    settle_s: float = Field(0.5, ge=0, le=60, description="seconds a file that was written in place must be quiet")
    rescan_s: float = Field(
        60.0, ge=1, le=3600, description="seconds between looks at the directories, whatever events say"
    )
    watch_mode: Literal["auto", "events", "poll"] = Field(
        "auto", description="auto, events, or poll where events do not come"
    )
    poll_s: float = Field(2.0, ge=0.2, le=60, description="seconds between looks when polling")

    script_jobs: int = Field(
        0, ge=0, le=64, description="most jobs in the scripts stage at once; 0: as many as its backend takes calls"
    )
    audio_jobs: int = Field(
        0, ge=0, le=64, description="most jobs in the audio stage at once; 0: as many as its backend takes calls"
    )
    image_jobs: int = Field(
        0, ge=0, le=64, description="most jobs in the images stage at once; 0: as many as its backend takes calls"
    )
    script_timeout_s: float = Field(
        900.0, ge=1, le=86_400, description="longest a backend may take for one script, in seconds"
    )
    script_silence_s: float = Field(
        300.0, ge=1, le=86_400, description="longest silence of a server that writes a script, in seconds"
    )
    audio_timeout_s: float = Field(
        300.0, ge=1, le=86_400, description="longest a backend may take for one scene's audio, in seconds"
    )
    image_timeout_s: float = Field(
        600.0, ge=1, le=86_400, description="longest a backend may take for one picture, in seconds"
    )

    attempts_max: int = Field(4, ge=1, le=100, description="attempts at one stage of a job before it goes to failed/")
    crashes_max: int = Field(
        3, ge=1, le=100, description="times a job may take the daemon down with it before it goes to failed/"
    )
    retry_first_s: float = Field(
        30.0, ge=0, le=86_400, description="seconds before the second attempt; doubles each time"
    )
    retry_max_s: float = Field(3600.0, ge=0, le=604_800, description="longest wait between attempts, in seconds")
    down_first_s: float = Field(
        5.0, ge=0.1, le=3600, description="seconds a stage waits when its backend is away; doubles each time"
    )
    down_max_s: float = Field(
        60.0, ge=0.1, le=3600, description="longest wait between looks at a backend that is away, in seconds"
    )

    min_free_bytes: int = Field(
        268_435_456, ge=0, le=1 << 50, description="free disk space in bytes below which work pauses"
    )
    stop_timeout_s: float = Field(10.0, ge=1, le=600, description="seconds that work in hand has to stop in")

    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        max_length=255,
        description="address that the page, /metrics, /healthz and /readyz listen on",
    )
    metrics_port: int = Field(9469, ge=0, le=65_535, description="their port; 0: any free one")
    page_hosts: HostNames = Field(
        (), description="names by which a browser may ask for the page, such as topicd.example.org; with commas"
    )
    command: str = Field(
        "topicd", max_length=200, description="how people call topicd for this home; the page shows it in commands"
    )
    traces_url: Urls = Field(
        (),
        max_length=1,
        description="where traces are sent by OTLP over HTTP, such as http://tempo:4318; empty: nowhere",
    )
    log_format: Literal["auto", "json", "text", "journal"] = Field(
        "auto", description="auto (journal under systemd, text on a terminal, else json), json, text or journal"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first."""
        del file_secret_settings
        credentials = os.environ.get(CREDENTIALS)
        given = (SecretsSettingsSource(settings_cls, secrets_dir=credentials),) if credentials else ()
        return init_settings, env_settings, SecretFiles(settings_cls, ENV_FILE), *given, dotenv_settings

    @property
    def input_path(self) -> Path:
        """Where topics are dropped."""
        return self.input_dir or self.home / "input"

    @property
    def output_path(self) -> Path:
        """Where finished folders go."""
        return self.output_dir or self.home / "output"

    @property
    def voices_path(self) -> Path:
        """Where voices are that a topic may name."""
        return self.home / "cache" / "voices"

    @property
    def models_path(self) -> Path:
        """Where fetched models are."""
        return self.home / "cache" / "models"

    @property
    def prompts_path(self) -> Path:
        """Where a person's own prompts are, if there are any."""
        return self.prompts_dir or self.home / "prompts"


def env_name(name: str, info: FieldInfo) -> str:
    """Return the environment variable of a field."""
    return str(info.validation_alias) if info.validation_alias else PREFIX + name.upper()


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment and `.env`.

    Raises:
        Unusable: with one line a fault in the message.
    """
    if faults := list(env_file.faults(ENV_FILE)):
        raise Unusable("settings", "\n".join(faults), hint="see .env.example for every setting and its bounds")
    faults = list(_unknown_names(environ))
    try:
        settings = Settings()
    except Unusable as error:
        faults.append(error.message)
    except SettingsError as error:
        faults.append(f"{error}: {error.__cause__}")
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        faults += list(_told(error))
    if faults:
        raise Unusable("settings", "\n".join(faults), hint="see .env.example for every setting and its bounds")
    return settings


def _unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    """A name nobody reads is a misspelt setting, silently without effect: say so."""
    known = _known()
    for name in sorted({*environ, *env_file.values(ENV_FILE)}):
        upper = name.upper()
        if upper.startswith(PREFIX) and upper not in known:
            near = difflib.get_close_matches(
                upper.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], n=1
            )
            yield f"{name}: there is no such setting" + (f"; did you mean {_prefixed(near[0], known)}?" if near else "")


def misspelt(environ: Mapping[str, str] = os.environ) -> Iterator[tuple[str, str]]:
    """Yield each name that is set, that nobody reads and that is close to a setting's, with that one.

    No fault, for other programs' settings begin like those of the servers.
    """
    known = {name for name in _known() if not name.startswith(PREFIX)}
    heads = tuple({f"{name.partition('_')[0]}_" for name in known})
    secrets = {f"{env_name(*field)}_FILE" for field in Settings.model_fields.items() if is_secret(field[1])}
    for name in sorted({*environ, *env_file.values(ENV_FILE)}):
        upper = name.upper()
        if upper.startswith(heads) and upper not in {*known, *secrets, *OTHERS} and (near := _near(upper, known)):
            yield name, near


def _near(name: str, known: Collection[str]) -> str:
    """Return the known name that has all words of this one and more, or nearly the same letters; empty when none."""
    longer = sorted(each for each in known if {*name.split("_")} < {*each.split("_")})
    return next(iter(longer or difflib.get_close_matches(name, known, n=1, cutoff=NEAR)), "")


def _known() -> set[str]:
    return {env_name(name, info) for name, info in Settings.model_fields.items()}


def _told(error: ValidationError | OSError | UnicodeDecodeError) -> Iterator[str]:
    if not isinstance(error, ValidationError):
        yield f"{ENV_FILE}: {error}"
        return
    names = {name: env_name(name, info) for name, info in Settings.model_fields.items()}
    secrets = {each for name, info in Settings.model_fields.items() if is_secret(info) for each in (name, names[name])}
    for fault in error.errors(include_url=False):
        place = str(fault["loc"][0]) if fault["loc"] else "settings"
        name = names.get(place, place if place.isupper() else PREFIX + place.upper())
        why = settings_faults.why(fault, FORMS)
        if place in secrets:
            yield f"{name}: {why}"
            continue
        yield f"{name}={settings_faults.shown(str(fault['input']))!r}: {why}"


def is_secret(info: FieldInfo) -> bool:
    """Tell whether a setting must not be shown."""
    return info.annotation is SecretStr


def _prefixed(name: str, known: Collection[str]) -> str:
    return name if name in known else PREFIX + name


def example() -> str:
    """Return the text of `.env.example`: every setting with its default, bounds and reason."""
    lines = [
        "# Settings of topicd. Copy to .env, or set in the environment (which wins). Every line here is a default.",
        "# Made from the code by `make env-example`; a test holds it to the code.",
    ]
    # topicd's own first, then those that it shares with others.
    for name, info in sorted(Settings.model_fields.items(), key=lambda field: field[1].validation_alias is not None):
        lines += ["", f"# {info.description}{limits(info)}", f"#{env_name(name, info)}={plain(info.default)}"]
    return "\n".join(lines) + "\n"


def plain(value: object) -> str:
    """Return a setting's value as it is written in `.env`; a secret is written, too."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            return ",".join(value)
        case Mapping():
            return ",".join(f"{key}={each}" for key, each in value.items())
        case _:
            return "" if value is None else str(value)


def limits(info: FieldInfo) -> str:
    """Return the least and the most a setting may be, in brackets; empty where it is no number."""
    found = {key: getattr(rule, key) for rule in info.metadata for key in ("ge", "le") if hasattr(rule, key)}
    return f" ({plain(found['ge'])} … {plain(found['le'])})" if len(found) == 2 else ""  # noqa: PLR2004 - both ends
