"""What the script worker runs: one GGUF model in llama.cpp, on one thread.

Owns the runtime's parameters. Promises that an answer depends on its prompt and seed alone, not on earlier
calls. Imported in worker processes only.
"""

import secrets
from pathlib import Path
from typing import Any, Final

import xllamacpp

from topicd.errors import Unusable

CONTEXT_TOKENS: Final = 4_096
SAMPLING: Final = {
    "top_p": 0.9,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "dry_multiplier": 0.8,
    # A script is short: a model that thinks aloud would spend all its tokens on it.
    "chat_template_kwargs": {"enable_thinking": False},
    # A reused prompt prefix is computed in other batches and can change the text.
    "cache_prompt": False,
}


class Llama:
    """A loaded model.

    Args:
        model_file: path of a GGUF file.

    Raises:
        Unusable: the runtime cannot load the file (`model_unreadable`).
    """

    def __init__(self, model_file: str) -> None:
        try:
            self._server = xllamacpp.Server(_parameters(model_file))
        except RuntimeError as error:
            raise Unusable(
                "model_unreadable",
                f"{Path(model_file).name} cannot be loaded: {error}",
                hint="Name a GGUF file that llama.cpp can read in TOPICD_LLM_FILE.",
            ) from error

    def complete(
        self, *, system: str, user: str, opening: str, seed: int, tokens_max: int, temperature: float
    ) -> tuple[dict[str, object], bytes]:
        """Answer one question; the JSON holds `text` (what follows the opening), `tokens` and `seconds`."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if opening:
            messages.append({"role": "assistant", "content": opening})
        reply: dict[str, Any] = self._server.handle_chat_completions(
            {
                "messages": messages,
                "max_tokens": tokens_max,
                "seed": seed,
                "temperature": temperature,
                **SAMPLING,
            }
        )
        if "choices" not in reply:
            raise RuntimeError(str(reply.get("error", reply))[:300])
        text = str(reply["choices"][0]["message"].get("content") or "")
        return {
            "text": text.removeprefix(opening),
            "tokens": reply["usage"]["completion_tokens"],
            "seconds": reply["timings"]["predicted_ms"] / 1000,
        }, b""


def _parameters(model_file: str) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model_file
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    # A second thread spins while it waits and loses more than it gains on a busy machine.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.cache_ram_mib = 0
    parameters.cache_prompt = False
    # The runtime always listens on a loopback port as well; a key that nobody knows closes it.
    parameters.api_keys = [secrets.token_hex(32)]
    parameters.n_threads_http = 1
    return parameters
