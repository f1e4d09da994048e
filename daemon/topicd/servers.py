"""From settings to backends that speak with servers: clients, pools, and what each is made with.

Owns which setting goes to which server, and that several addresses are a pool. Promises that nothing here connects:
that is left to the first call. Never knows which stage gets a backend: `build.py` does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import SecretStr

from topicd.backends.base import AudioBackend, Backend, ImageBackend, ScriptBackend
from topicd.backends.circuit import Circuit
from topicd.backends.limits import Rate
from topicd.backends.picturing import PromptTemplates, check_template
from topicd.backends.pool import OPENS_FOR, AudioPool, ImagePool, ScriptPool
from topicd.errors import TopicdError, Unusable
from topicd.settings import Settings
from topicd.settings_servers import headers_of

if TYPE_CHECKING:
    from topicd.backends.client import Client

CONNECT_TIMEOUT_S: Final = 10.0
BODY_BYTES_MAX: Final = 134_217_728
TRIES_MAX: Final = 3

B = TypeVar("B", bound=Backend)
Changed = Callable[[str, TopicdError | None], None]
"""Told when one server of several goes away (with the trouble) and when it is back (with None)."""


@dataclass(frozen=True, slots=True)
class _Servers:
    """Those of one kind: the settings that their clients have in common."""

    urls: Sequence[str]
    headers: Mapping[str, str]
    rate: str
    calls_max: int
    read_timeout_s: float
    total_timeout_s: float


def ollama(settings: Settings, changed: Changed) -> ScriptBackend:
    """Return Ollama."""
    from topicd.backends.ollama import Ollama  # noqa: PLC0415 - each backend is loaded only where it is used

    servers = _Servers(
        urls=settings.ollama_base_url,
        headers=_headers(settings.ollama_token, settings.ollama_headers),
        rate=settings.ollama_rate,
        calls_max=settings.ollama_calls,
        read_timeout_s=settings.script_silence_s,
        total_timeout_s=settings.script_timeout_s,
    )

    def made(client: "Client", _: str) -> ScriptBackend:
        return Ollama(
            client,
            model=settings.ollama_model,
            temperature=settings.ollama_temperature,
            num_ctx=settings.ollama_num_ctx,
            num_predict=settings.ollama_num_predict,
            keep_alive=settings.ollama_keep_alive,
            prompts_dir=settings.prompts_path,
            pull=settings.ollama_pull,
            calls_max=settings.ollama_calls,
        )

    return _one_or_pool(ScriptPool, made, servers, settings, changed)


def openai_chat(settings: Settings, changed: Changed) -> ScriptBackend:
    """Return a server with OpenAI's chat API."""
    from topicd.backends.openai_chat import OpenAIChat  # noqa: PLC0415 - as above

    servers = _Servers(
        urls=settings.openai_base_url,
        headers=_headers(settings.openai_api_key, settings.openai_headers),
        rate=settings.openai_rate,
        calls_max=settings.openai_calls,
        read_timeout_s=settings.script_silence_s,
        total_timeout_s=settings.script_timeout_s,
    )

    def made(client: "Client", url: str) -> ScriptBackend:
        return OpenAIChat(
            client,
            model=settings.openai_model,
            prefix=_prefix(url),
            calls_max=settings.openai_calls,
            holds_gpu=settings.gpu_exclusive,
            temperature=settings.openai_temperature,
            max_tokens=settings.openai_max_tokens,
            prompts_dir=settings.prompts_path,
        )

    return _one_or_pool(ScriptPool, made, servers, settings, changed)


def piper(settings: Settings, changed: Changed) -> AudioBackend:
    """Return Piper by HTTP."""
    from topicd.backends.piper import PiperHTTP  # noqa: PLC0415 - as above

    def made(client: "Client", _: str) -> AudioBackend:
        return PiperHTTP(client, voice=settings.tts_voice, calls_max=settings.tts_calls)

    return _one_or_pool(AudioPool, made, _speech_servers(settings), settings, changed)


def openai_speech(settings: Settings, changed: Changed) -> AudioBackend:
    """Return a server with OpenAI's speech API."""
    from topicd.backends.openai_speech import OpenAISpeech  # noqa: PLC0415 - as above

    def made(client: "Client", url: str) -> AudioBackend:
        return OpenAISpeech(
            client,
            model=settings.tts_model,
            voice=settings.tts_voice,
            prefix=_prefix(url),
            calls_max=settings.tts_calls,
            holds_gpu=False,
        )

    return _one_or_pool(AudioPool, made, _speech_servers(settings), settings, changed)


def a1111(settings: Settings, changed: Changed) -> ImageBackend:
    """Return a server with the AUTOMATIC1111 API."""
    from topicd.backends.a1111 import A1111  # noqa: PLC0415 - as above

    templates = _templates(settings)

    def made(client: "Client", _: str) -> ImageBackend:
        return A1111(
            client,
            model=settings.sd_model,
            steps=settings.sd_steps,
            cfg_scale=settings.sd_cfg_scale,
            sampler=settings.sd_sampler,
            templates=templates,
            calls_max=settings.sd_calls,
        )

    return _one_or_pool(ImagePool, made, _image_servers(settings), settings, changed)


def openai_images(settings: Settings, changed: Changed) -> ImageBackend:
    """Return a server with OpenAI's images API."""
    from topicd.backends.openai_images import OpenAIImages  # noqa: PLC0415 - as above

    templates = _templates(settings)

    def made(client: "Client", url: str) -> ImageBackend:
        return OpenAIImages(
            client,
            model=settings.sd_model,
            prefix=_prefix(url),
            calls_max=settings.sd_calls,
            holds_gpu=settings.gpu_exclusive,
            templates=templates,
        )

    return _one_or_pool(ImagePool, made, _image_servers(settings), settings, changed)


def _templates(settings: Settings) -> PromptTemplates:
    """Return the templates of pictures' prompts.

    Raises:
        Unusable: one has a placeholder that is none.
    """
    for name, text in (("SD_PROMPT", settings.sd_prompt), ("SD_NEGATIVE_PROMPT", settings.sd_negative_prompt)):
        try:
            check_template(text)
        except ValueError as error:
            raise Unusable("settings", f"{name}: {error}", hint="see docs/BACKENDS.md, Pictures") from error
    return PromptTemplates(settings.sd_prompt, settings.sd_negative_prompt)


def _speech_servers(settings: Settings) -> _Servers:
    return _Servers(
        urls=settings.tts_base_url,
        headers=_headers(settings.tts_token, settings.tts_headers),
        rate=settings.tts_rate,
        calls_max=settings.tts_calls,
        read_timeout_s=settings.audio_timeout_s,
        total_timeout_s=settings.audio_timeout_s,
    )


def _image_servers(settings: Settings) -> _Servers:
    return _Servers(
        urls=settings.sd_base_url,
        headers=_headers(settings.sd_token, settings.sd_headers),
        rate=settings.sd_rate,
        calls_max=settings.sd_calls,
        read_timeout_s=settings.image_timeout_s,
        total_timeout_s=settings.image_timeout_s,
    )


def _one_or_pool(
    pool: Callable[[Sequence[B], Sequence[Circuit], Sequence[str]], B],
    made: Callable[["Client", str], B],
    servers: _Servers,
    settings: Settings,
    changed: Changed,
) -> B:
    clients = [_client(url, servers, settings) for url in servers.urls]
    backends = [made(client, url) for client, url in zip(clients, servers.urls, strict=True)]
    if len(backends) == 1:
        return backends[0]
    names = [client.server for client in clients]
    return pool(backends, [_circuit(settings, name, changed) for name in names], names)


def _circuit(settings: Settings, server: str, changed: Changed) -> Circuit:
    return Circuit(
        first_s=settings.down_first_s,
        max_s=settings.down_max_s,
        changed=lambda trouble: changed(server, trouble),
        opens_for=OPENS_FOR,
    )


def _client(url: str, servers: _Servers, settings: Settings) -> "Client":
    from topicd.backends.client import Client  # noqa: PLC0415 - as above

    return Client(
        base_url=url,
        verify=settings.ssl_verify,
        ca_file=settings.ssl_ca_file,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        read_timeout_s=min(servers.read_timeout_s, servers.total_timeout_s),
        total_timeout_s=servers.total_timeout_s,
        body_bytes_max=BODY_BYTES_MAX,
        tries_max=TRIES_MAX,
        headers=servers.headers,
        calls_max=servers.calls_max,
        rate=Rate.parse(servers.rate) if servers.rate else None,
        circuit=Circuit(first_s=settings.down_first_s, max_s=settings.down_max_s),
    )


def _headers(token: SecretStr, headers: SecretStr) -> Mapping[str, str]:
    bearer = token.get_secret_value()
    return {**({"Authorization": f"Bearer {bearer}"} if bearer else {}), **headers_of(headers)}


def _prefix(url: str) -> str:
    """Return what stands before the API's paths: people write such addresses with `/v1` and without."""
    return "" if url.rstrip("/").endswith("/v1") else "/v1"
