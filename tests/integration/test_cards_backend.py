import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from topicd.backends.base import ImageBackend, PictureRequest
from topicd.backends.embedded.cards import Cards
from topicd.backends.embedded.cards.backend import PACKAGES, SUMMARY
from topicd.backends.embedded.cards.draw import draw_card
from topicd.errors import Rejected, RetryLater, Unavailable, Unusable

REQUEST = PictureRequest(
    prompt="the moon over a calm sea",
    narration="Twice a day the sea rises \ud83c and falls.",
    title="How tides work",
    is_title=False,
    width_px=320,
    height_px=256,
    style="",
    seed=12,
    job_seed=3,
)
LIMIT_S = 60.0


@pytest.fixture
async def cards() -> AsyncIterator[Cards]:
    backend = Cards(call_timeout_s=LIMIT_S, idle_s=LIMIT_S)
    yield backend
    await backend.aclose()


def exists(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_is_an_image_backend() -> None:
    backend = Cards(call_timeout_s=1, idle_s=1)
    assert isinstance(backend, ImageBackend)
    assert (backend.name, backend.calls_max, backend.holds_gpu) == ("cards", 1, False)


async def test_the_worker_draws_what_the_function_draws(cards: Cards) -> None:
    picture = await cards.draw(REQUEST)
    assert picture.data == draw_card(REQUEST)
    assert Image.open(io.BytesIO(picture.data)).size == (320, 256)


async def test_one_process_draws_many_cards_and_ends_with_the_backend(cards: Cards) -> None:
    await cards.draw(REQUEST)
    pid = cards._worker.pid
    await asyncio.gather(*(cards.draw(replace(REQUEST, seed=seed)) for seed in range(3)))
    assert cards._worker.pid == pid != os.getpid()
    await cards.aclose()
    await cards.aclose()
    assert not exists(pid)


async def test_a_probe_draws_and_says_what_cards_are(cards: Cards) -> None:
    probe = await cards.probe()
    assert probe.summary == SUMMARY
    assert isinstance(probe.details["specimen_bytes"], int)
    assert probe.details["specimen_bytes"] > 10_000


async def test_a_size_out_of_bounds_is_rejected_across_the_process_border(cards: Cards) -> None:
    with pytest.raises(Rejected) as caught:
        await cards.draw(replace(REQUEST, width_px=10))
    assert caught.value.cause == "picture_size"


async def test_a_draw_over_its_time_is_retried_later_and_a_probe_finds_it_unavailable() -> None:
    hasty = Cards(call_timeout_s=0.0001, idle_s=LIMIT_S)
    with pytest.raises(RetryLater) as late:
        await hasty.draw(REQUEST)
    with pytest.raises(Unavailable) as away:
        await hasty.probe()
    await hasty.aclose()
    assert late.value.cause == away.value.cause == "worker_timeout"


async def test_a_missing_package_is_named_with_what_to_install(
    cards: Cards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "resvg_py.py").write_text("raise ModuleNotFoundError(\"No module named 'resvg_py'\")\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unusable) as caught:
        await cards.probe()
    assert caught.value.cause == "embedded_missing"
    assert "resvg_py" in caught.value.message
    assert "pip install 'topicd[embedded]'" in caught.value.hint


async def test_cancelling_a_draw_ends_the_work(cards: Cards) -> None:
    await cards.draw(REQUEST)
    pid = cards._worker.pid
    task = asyncio.create_task(cards.draw(replace(REQUEST, width_px=4096, height_px=4096)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not exists(pid)
    assert (await cards.draw(REQUEST)).data == draw_card(REQUEST)


def test_provenance_names_the_drawing_and_the_packages() -> None:
    provenance = Cards(call_timeout_s=1, idle_s=1).provenance()
    assert provenance["backend"] == "cards"
    assert provenance["drawing"]
    assert "missing" not in [provenance[package] for package in PACKAGES]


def test_the_daemon_s_side_imports_nothing_heavy() -> None:
    program = (
        "import sys, topicd.backends.embedded.cards\n"
        "print(sorted({'PIL', 'resvg_py', 'py_phosphor_icons', 'fontpkg_inter'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
