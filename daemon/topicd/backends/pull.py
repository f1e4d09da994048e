"""A model's way from Ollama's registry to its server, in the background.

Owns the one task that pulls, and what is told of it. Promises one pull at a time; that a stream which ends by its time
limit or a broken connection is taken up again (Ollama goes on where it was) as long as the download grows; that a
failure is told with Ollama's words, once at least, and that the next try comes no sooner than `again_after_s` later.
Never makes anyone wait for its end.
"""

import asyncio
import contextlib
from typing import Final

from topicd.backends.classify import excerpt
from topicd.backends.client import Client, Json
from topicd.errors import RetryLater, TopicdError, Unavailable, Unusable

ASK_AFTER_S: Final = 5.0
PAUSE_S_MAX: Final = 60.0
STALLS_MAX: Final = 5
"""Restarts in a row that bring nothing."""

_LAYERS_MAX: Final = 256
_BYTES_MAX: Final = 2**63
_MB: Final = 10**6
_GB: Final = 10**9


class Pull:
    """Pulls one model.

    Args:
        client: the server; whoever made it closes it.
        model: as `ollama pull` takes it.
        again_after_s: how long a failure, or a success that did not help, is left alone.
        pause_s: before a stream that ended is taken up again.
    """

    def __init__(self, client: Client, model: str, *, again_after_s: float = 60.0, pause_s: float = 1.0) -> None:
        self._client = client
        self._model = model
        self._named = excerpt(model)
        self._again_after_s = again_after_s
        self._pause_s = pause_s
        self._task: asyncio.Task[None] | None = None
        self._layers: dict[str, tuple[int, int]] = {}
        self._status = ""
        self._most = 0
        self._failure = ""
        self._is_told = True
        self._again_at = 0.0

    @property
    def note(self) -> str:
        """Return what it is busy with, for a person; empty when it is not."""
        return f"pulling {self._named}: {self._progress()}" if self._is_running() else ""

    def check(self) -> None:
        """Do nothing when no pull is under way.

        Raises:
            Unavailable: one is.
        """
        if self._is_running():
            raise self._under_way()

    def wanted(self) -> TopicdError:
        """Return what to tell whoever misses the model; begin to pull it when that is due."""
        if not self._is_running():
            if not self._is_told or asyncio.get_running_loop().time() < self._again_at:
                return self._failed()
            self._layers, self._most, self._status = {}, 0, "asking for it"
            self._task = asyncio.create_task(self._run())
        return self._under_way()

    async def aclose(self) -> None:
        """Stop pulling. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def _under_way(self) -> Unavailable:
        message = f"Ollama pulls {self._named}: {self._progress()}"
        return Unavailable("model_pulling", message, hint="work goes on by itself afterwards", after_s=ASK_AFTER_S)

    def _failed(self) -> Unusable:
        self._is_told = True
        message = f"Ollama cannot pull {self._named}: {self._failure}"
        hint = "check the model's name, and that Ollama reaches its registry and has room; it is tried again"
        return Unusable("pull_failed", message, hint=hint)

    async def _run(self) -> None:
        try:
            await self._pulled()
        except TopicdError as error:
            self._failure, self._is_told = error.message, False
        else:
            # Told only to whoever misses the model still; without it, they would pull for ever.
            self._failure, self._is_told = "it says that it did, and does not find it.", True
        self._again_at = asyncio.get_running_loop().time() + self._again_after_s

    async def _pulled(self) -> None:
        stalls = -1  # the first stream is no restart
        while True:
            before = self._most
            try:
                return await self._stream()
            except TopicdError as error:
                stalls = 0 if self._most > before else stalls + 1
                if stalls >= STALLS_MAX or not _is_passing(error):
                    raise
                asked_s = getattr(error, "after_s", None) or 0.0
            await asyncio.sleep(min(max(self._pause_s, asked_s), PAUSE_S_MAX))

    async def _stream(self) -> None:
        lines = self._client.post_lines("/api/pull", {"model": self._model}, is_work=False)
        async with contextlib.aclosing(lines):
            async for line in lines:
                if "error" in line:
                    raise Unusable("pull_failed", excerpt(str(line["error"])))
                if line.get("status") == "success":
                    return
                self._note(line)
        raise RetryLater("answer_cut", "it ended without saying that it is done.")

    def _note(self, line: dict[str, Json]) -> None:
        self._status = excerpt(str(line.get("status") or "")) or self._status
        digest = line.get("digest")
        if isinstance(digest, str) and (digest in self._layers or len(self._layers) < _LAYERS_MAX):
            self._layers[digest] = (_bytes(line.get("completed")), _bytes(line.get("total")))
            self._most = max(self._most, self._completed())

    def _completed(self) -> int:
        return sum(min(completed, total) for completed, total in self._layers.values())

    def _progress(self) -> str:
        total = sum(total for _, total in self._layers.values())
        return f"{100 * self._completed() // total} % of {_size(total)}" if total else self._status


def _is_passing(error: TopicdError) -> bool:
    """Tell what ends a stream, and not the pull; hours of progress may well outgrow the limit of one answer."""
    return isinstance(error, RetryLater | Unavailable) or error.cause == "answer_too_large"


def _bytes(value: Json) -> int:
    return value if isinstance(value, int) and 0 <= value <= _BYTES_MAX else 0


def _size(total: int) -> str:
    return f"{total / _GB:.1f} GB" if total >= _GB else f"{total / _MB:.0f} MB"
