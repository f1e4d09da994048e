"""The folder of voices, and how a missing one comes into it: asked for in the catalogue, fetched, there or not at all.

Owns the one fetch a voice, in the background, and what whoever misses the voice is told. Promises that a voice under
its name is whole as the catalogue's digests say; that a voice which nobody has is told at once, with the nearest names;
that a fetch which failed is not begun again sooner than `again_s` later; and that voices take no more than `bytes_max`
of the disk. Never makes a job wait inside a call.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from topicd.backends.base import DownloadState
from topicd.backends.catalogue import Catalogue, Voice
from topicd.backends.files import File, Progress
from topicd.errors import Awaited, Rejected, StorageTrouble, TopicdError
from topicd.threads import offload

NAME: Final = re.compile(r"(?!\.)[A-Za-z0-9_.-]{1,80}")
LOOK_S_MIN: Final = 2.0
LOOK_S_MAX: Final = 30.0
FETCHES_KEPT_MAX: Final = 100
_HINT: Final = "it is tried again by itself; `topicd fetch voice` shows how it goes"


class Fetcher(Protocol):
    """What fetches a file."""

    async def fetch(self, file: File, progress: Progress | None = None) -> Path:
        """Return the path of the whole, verified file."""
        ...


class Voices:
    """A folder of voices.

    Args:
        folder: where they are, `NAME.onnx` with `NAME.onnx.json`.
        catalogue: what can be fetched.
        fetcher: fetches it.
        bytes_max: what all voices may take on the disk.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, fetcher: Fetcher, *, bytes_max: int) -> None:
        self.folder: Final = folder
        self.catalogue: Final = catalogue
        self._fetcher = fetcher
        self._bytes_max = bytes_max

    async def find(self, name: str) -> Voice:
        """Return a voice of the catalogue.

        Raises:
            Rejected: the catalogue has none of that name.
            RetryLater, Unavailable, Unusable: the catalogue cannot be had.
        """
        return await offload(self._find, name)

    async def listed(self) -> Mapping[str, Voice]:
        """Return all voices of the catalogue.

        Raises:
            RetryLater, Unavailable, Unusable: it cannot be had.
        """
        return await offload(self._listed)

    async def get(self, voice: Voice, progress: Progress | None = None) -> Path:
        """Return the voice's model; fetch what is missing of it.

        Raises:
            Rejected: there is no room for it.
            TopicdError: as `Downloads.fetch`.
        """
        told = progress or Progress()
        path = self.folder / f"{voice.name}.onnx"
        await offload(self._check_room, voice)
        for file in voice.files:
            urls = [f"{base}/{file.path}" for base in self.catalogue.bases]
            await self._fetcher.fetch(File(self.folder / file.name, urls, f"md5:{file.md5}", file.size_bytes), told)
        return path

    def has(self, name: str) -> bool:
        """Tell whether a voice is there."""
        return NAME.fullmatch(name) is not None and is_voice(self.folder / f"{name}.onnx")

    def _listed(self) -> Mapping[str, Voice]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.catalogue.voices()

    def _find(self, name: str) -> Voice:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.catalogue.find(name)

    def _check_room(self, voice: Voice) -> None:
        if self.has(voice.name):
            return
        taken = sum(path.stat().st_size for path in self.folder.glob("*.onnx"))
        if taken + voice.size_bytes > self._bytes_max:
            message = f"voices take {taken} bytes; with {voice.name} it would be more than {self._bytes_max}."
            hint = f"remove some from {self.folder}, or raise TOPICD_VOICES_BYTES_MAX"
            raise Rejected("voices_full", message, hint=hint)


@dataclass(slots=True)
class _Fetch:
    """One voice on its way.

    Attributes:
        told: how far its present file is.
        task: None once it has ended.
        trouble: why it did not come; None while that is not known.
        again_at_s: when it may be begun again, on the clock of `time.monotonic`.
        wait_s: how long a failure is left alone.
    """

    wait_s: float
    told: Progress = field(default_factory=Progress)
    task: asyncio.Task[None] | None = None
    trouble: TopicdError | None = None
    again_at_s: float = 0.0
    begun_s: float = field(default_factory=time.monotonic)


class Arrivals:
    """Voices on their way, each fetched in the background.

    Args:
        voices: the folder.
        again_s: how long a failure is left alone; doubles up to `again_s_max`.
        again_s_max: the longest.
    """

    def __init__(self, voices: Voices, *, again_s: float = 30.0, again_s_max: float = 1800.0) -> None:
        self._voices = voices
        self._again_s = again_s
        self._again_s_max = again_s_max
        self._fetches = dict[str, _Fetch]()

    async def wanted(self, name: str) -> TopicdError:
        """Return what to tell whoever misses a voice; begin to fetch it when that is due."""
        fetch = self._fetches.get(name)
        if fetch and fetch.task:
            return _under_way(name, fetch)
        if fetch and time.monotonic() < fetch.again_at_s:
            return _failed(name, fetch)
        fetch = fetch or self._new(name)
        try:
            voice = await self._voices.find(name)
        except Rejected as error:
            return error
        except TopicdError as error:
            self._leave(fetch, error)
            return _failed(name, fetch)
        if not fetch.task:  # another may have begun it meanwhile
            fetch.begun_s, fetch.told = time.monotonic(), Progress(note="begins")
            fetch.task = asyncio.create_task(self._run(voice, fetch))
        return _under_way(name, fetch)

    def downloads(self) -> Sequence[DownloadState]:
        """Return how far each is."""
        return [_state(name, fetch) for name, fetch in self._fetches.items() if fetch.task]

    async def aclose(self) -> None:
        """Stop; what is there is kept. Safe to call twice."""
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _new(self, name: str) -> _Fetch:
        idle = [known for known, fetch in self._fetches.items() if not fetch.task]
        for known in idle[: max(0, len(self._fetches) + 1 - FETCHES_KEPT_MAX)]:
            del self._fetches[known]
        self._fetches[name] = fetch = _Fetch(self._again_s)
        return fetch

    async def _run(self, voice: Voice, fetch: _Fetch) -> None:
        try:
            await self._voices.get(voice, fetch.told)
        except TopicdError as error:
            self._leave(fetch, error)
        except OSError as error:
            self._leave(fetch, StorageTrouble("disk_error", f"{voice.name} cannot be kept: {error.strerror or error}"))
        else:
            self._fetches.pop(voice.name, None)
        finally:
            fetch.task = None

    def _leave(self, fetch: _Fetch, error: TopicdError) -> None:
        fetch.trouble = error
        fetch.again_at_s = time.monotonic() + fetch.wait_s
        fetch.wait_s = min(2 * fetch.wait_s, self._again_s_max)


def is_voice(file: Path) -> bool:
    """Tell whether a model is there, with what describes it beside it."""
    try:
        return file.is_file() and Path(f"{file}.json").is_file()
    except OSError:
        return False


def names_in(folder: Path) -> Iterator[str]:
    """Yield the names of the voices in a folder, in no order."""
    with contextlib.suppress(OSError):
        for file in folder.glob("*.onnx"):
            if NAME.fullmatch(file.stem) and is_voice(file):
                yield file.stem


def _under_way(name: str, fetch: _Fetch) -> Awaited:
    told = fetch.told
    share = f": {100 * told.have // told.total} % of {told.total / 1e6:.0f} MB" if told.total else ""
    note = f" ({told.note})" if told.note else ""
    message = f"The voice {name} is being fetched{share}{note}."
    left_s = _left_s(fetch)
    return Awaited("voice_fetching", message, hint=_HINT, after_s=min(max(left_s, LOOK_S_MIN), LOOK_S_MAX))


def _left_s(fetch: _Fetch) -> float:
    """Return about how long it takes still; zero when nobody knows."""
    told = fetch.told
    if not told.total or not told.received:
        return 0.0
    return (told.total - told.have) * (time.monotonic() - fetch.begun_s) / told.received


def _failed(name: str, fetch: _Fetch) -> TopicdError:
    """Return why it did not come. It is no fault of the job, which waits: a person may mend it meanwhile."""
    trouble = fetch.trouble or TopicdError("voice_fetching", "it is not known why.")
    if isinstance(trouble, Rejected):
        return trouble
    message = f"The voice {name} could not be fetched: {trouble.message}"
    after_s = max(fetch.again_at_s - time.monotonic(), LOOK_S_MIN)
    return Awaited("voice_fetching", message, hint=trouble.hint or _HINT, after_s=after_s)


def _state(name: str, fetch: _Fetch) -> DownloadState:
    told = fetch.told
    rate = told.received / max(time.monotonic() - fetch.begun_s, 1.0)
    return DownloadState(name, told.have, told.total, rate, told.note)
