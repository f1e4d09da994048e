"""What can be set of the servers: where they are, what they are asked for, how often, and the secrets they want.

Owns the settings whose names other programs use too (`OLLAMA_BASE_URL`, `SSL_VERIFY`, …), their types, and
how lists, maps and headers are written in one line. Promises that a secret is a `SecretStr` and that no error here
repeats one. Never read by itself: `settings.py` is the whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode

SERVERS_MAX: Final = 16
HEADERS_MAX: Final = 20
RATE_PATTERN: Final = r"^([1-9]\d{0,3} ?/ ?(s|min|h|d))?$"
_URL_PATTERN: Final = r"^https?://[^\s/,]+[^\s,]*$"
_KEEP_ALIVE_PATTERN: Final = r"^(0|-1|[1-9]\d{0,5}[smh])$"
LANGUAGE_PATTERN: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"


SERVER_FORMS: Final = {
    RATE_PATTERN: "a number and a time, such as 10/min (s, min, h, d); or nothing",
    _URL_PATTERN: "an address begins with http:// or https://",
    _KEEP_ALIVE_PATTERN: "a time such as 5m (s, m, h), 0, or -1 for ever",
    LANGUAGE_PATTERN: "a tag such as en or pt-BR",
}
"""What a value that does not fit a pattern should look like."""


def listed(value: object) -> object:
    """Return what is parted by commas as a tuple."""
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def _mapped(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in filter(None, map(str.strip, value.split(",")))]
    if not all(name.strip() and given.strip() for name, _, given in pairs):
        raise ValueError("write it as en=one-voice,pt-BR=another")
    return {name.strip(): given.strip() for name, _, given in pairs}


def headers_of(secret: SecretStr) -> Mapping[str, str]:
    """Return the headers that a setting holds as a JSON object.

    Raises:
        ValueError: it is none; the words do not repeat it.
    """
    if not secret.get_secret_value():
        return {}
    try:
        value = json.loads(secret.get_secret_value())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or len(value) > HEADERS_MAX or not all(map(_is_header, value.items())):
        raise ValueError('write headers as {"X-Name": "value"}, in ASCII') from None
    return value


def _is_header(header: tuple[str, object]) -> bool:
    name, value = header
    is_name = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return is_name and isinstance(value, str) and value.isascii() and value.isprintable()


def _checked_headers(secret: SecretStr) -> SecretStr:
    headers_of(secret)
    return secret


def _checked_token(secret: SecretStr) -> SecretStr:
    if not (secret.get_secret_value().isascii() and secret.get_secret_value().isprintable()):
        raise ValueError("a token is printable ASCII")
    return secret


def _checked_port(url: str) -> str:
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of an address is a number from 1 to 65535")
    return url


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


OptionalPath = Annotated[Path | None, BeforeValidator(_empty_is_none)]
Url = Annotated[str, Field(pattern=_URL_PATTERN, max_length=500), AfterValidator(_checked_port)]
Urls = Annotated[tuple[Url, ...], NoDecode, BeforeValidator(listed), Field(max_length=SERVERS_MAX)]
Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN)]
Voice = Annotated[str, Field(max_length=100)]
Voices = Annotated[Mapping[Language, Voice], NoDecode, BeforeValidator(_mapped), Field(max_length=100)]
Rate = Annotated[str, Field(pattern=RATE_PATTERN)]
Token = Annotated[SecretStr, Field(max_length=8192), AfterValidator(_checked_token)]
Headers = Annotated[SecretStr, Field(max_length=65_536), AfterValidator(_checked_headers)]

_URLS: Final = "; several, with commas, share the work"
_TOKEN: Final = "secret sent to it as a bearer token; empty: none"  # noqa: S105 - words
_HEADERS: Final = 'secret headers sent to it, as {"X-Name": "value"}; empty: none'
_RATE: Final = "most calls to each in a time, such as 10/min (s, min, h, d); empty: any number"
_CALLS: Final = "calls to each of its servers at once; its stage has as many jobs in hand"


def _shared(name: str, default: object, description: str, **bounds: object) -> object:
    """Declare a setting whose name has no prefix because other programs use it too."""
    return Field(default, validation_alias=name, description=description, **bounds)  # type: ignore[call-overload]


class ServerSettings(BaseSettings):
    """The servers' part. Each description is the line that `.env.example` shows."""

    ollama_base_url: Urls = _shared("OLLAMA_BASE_URL", (), f"Ollama, such as http://gpu:11434{_URLS}")  # type: ignore[assignment]
    ollama_model: str = _shared("OLLAMA_MODEL", "llama3.2", "the model that writes scripts on Ollama", max_length=200)  # type: ignore[assignment]
    ollama_pull: bool = _shared("OLLAMA_PULL", default=False, description="true: pull the model where it is missing")  # type: ignore[assignment]
    ollama_keep_alive: str = _shared(
        "OLLAMA_KEEP_ALIVE",
        "5m",
        "how long it keeps the model loaded after a call: 5m, 0, or -1 for ever",
        pattern=_KEEP_ALIVE_PATTERN,
    )  # type: ignore[assignment]
    ollama_temperature: float = _shared("OLLAMA_TEMPERATURE", 0.7, "0 is the most predictable", ge=0, le=2)  # type: ignore[assignment]
    ollama_num_ctx: int = _shared(
        "OLLAMA_NUM_CTX", 8192, "tokens of prompt and answer together; more takes more memory", ge=512, le=1_048_576
    )  # type: ignore[assignment]
    ollama_num_predict: int = _shared("OLLAMA_NUM_PREDICT", 4096, "most tokens of an answer", ge=64, le=131_072)  # type: ignore[assignment]
    ollama_token: Token = _shared("OLLAMA_TOKEN", SecretStr(""), _TOKEN)  # type: ignore[assignment]
    ollama_headers: Headers = _shared("OLLAMA_HEADERS", SecretStr(""), _HEADERS)  # type: ignore[assignment]
    ollama_rate: Rate = _shared("OLLAMA_RATE", "", _RATE)  # type: ignore[assignment]
    ollama_calls: int = _shared("OLLAMA_CALLS", 1, _CALLS, ge=1, le=64)  # type: ignore[assignment]

    openai_base_url: Urls = _shared("OPENAI_BASE_URL", (), f"OpenAI chat API, such as http://gpu:8080/v1{_URLS}")  # type: ignore[assignment]
    openai_model: str = _shared("OPENAI_MODEL", "", "the model that writes there; empty: its only one", max_length=200)  # type: ignore[assignment]
    openai_temperature: float = _shared("OPENAI_TEMPERATURE", 0.7, "0 is the most predictable", ge=0, le=2)  # type: ignore[assignment]
    openai_max_tokens: int = _shared("OPENAI_MAX_TOKENS", 4096, "most tokens of an answer", ge=64, le=131_072)  # type: ignore[assignment]
    openai_api_key: Token = _shared("OPENAI_API_KEY", SecretStr(""), _TOKEN)  # type: ignore[assignment]
    openai_headers: Headers = _shared("OPENAI_HEADERS", SecretStr(""), _HEADERS)  # type: ignore[assignment]
    openai_rate: Rate = _shared("OPENAI_RATE", "", _RATE)  # type: ignore[assignment]
    openai_calls: int = _shared("OPENAI_CALLS", 1, _CALLS, ge=1, le=64)  # type: ignore[assignment]

    tts_base_url: Urls = _shared("TTS_BASE_URL", (), f"speech, such as http://gpu:5000 for Piper{_URLS}")  # type: ignore[assignment]
    tts_model: str = _shared("TTS_MODEL", "", "model, where an OpenAI speech API wants one", max_length=200)  # type: ignore[assignment]
    tts_voice: str = _shared(
        "TTS_VOICE", "", "voice of languages that TTS_VOICES does not name; empty: the server's own", max_length=100
    )  # type: ignore[assignment]
    tts_voices: Voices = _shared(
        "TTS_VOICES", {"pt-BR": "pt_BR-faber-medium"}, "voice of each language, as en=one-voice,pt-BR=another"
    )  # type: ignore[assignment]
    tts_token: Token = _shared("TTS_TOKEN", SecretStr(""), _TOKEN)  # type: ignore[assignment]
    tts_headers: Headers = _shared("TTS_HEADERS", SecretStr(""), _HEADERS)  # type: ignore[assignment]
    tts_rate: Rate = _shared("TTS_RATE", "", _RATE)  # type: ignore[assignment]
    tts_calls: int = _shared("TTS_CALLS", 1, _CALLS, ge=1, le=64)  # type: ignore[assignment]

    sd_enabled: bool = _shared(
        "SD_ENABLED", default=False, description="true: pictures come from SD_BASE_URL; false: cards are drawn"
    )  # type: ignore[assignment]
    sd_base_url: Urls = _shared("SD_BASE_URL", (), f"pictures, such as http://gpu:7860 for A1111{_URLS}")  # type: ignore[assignment]
    sd_model: str = _shared("SD_MODEL", "", "checkpoint or model; empty: the one that is loaded", max_length=300)  # type: ignore[assignment]
    sd_steps: int = _shared("SD_STEPS", 20, "steps of the sampler", ge=1, le=150)  # type: ignore[assignment]
    sd_cfg_scale: float = _shared("SD_CFG_SCALE", 7.0, "how closely the prompt is followed", ge=0, le=30)  # type: ignore[assignment]
    sd_sampler: str = _shared("SD_SAMPLER", "", "as the server names it; empty: the server's own", max_length=100)  # type: ignore[assignment]
    sd_prompt: str = _shared(
        "SD_PROMPT", "", "template of the prompt: $prompt, $style, $title; empty: $prompt, $style", max_length=2000
    )  # type: ignore[assignment]
    sd_negative_prompt: str = _shared(
        "SD_NEGATIVE_PROMPT", "", "template of what no picture should show; empty: nothing", max_length=2000
    )  # type: ignore[assignment]
    sd_token: Token = _shared("SD_TOKEN", SecretStr(""), _TOKEN)  # type: ignore[assignment]
    sd_headers: Headers = _shared("SD_HEADERS", SecretStr(""), _HEADERS)  # type: ignore[assignment]
    sd_rate: Rate = _shared("SD_RATE", "", _RATE)  # type: ignore[assignment]
    sd_calls: int = _shared("SD_CALLS", 1, _CALLS, ge=1, le=64)  # type: ignore[assignment]

    ssl_verify: bool = _shared(
        "SSL_VERIFY", default=True, description="false: do not check TLS certificates; warned of at every start"
    )  # type: ignore[assignment]
    ssl_ca_file: OptionalPath = _shared(
        "SSL_CA_FILE", None, "PEM file of a private certificate authority, trusted beside the system's"
    )  # type: ignore[assignment]
