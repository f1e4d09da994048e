"""What a backend is: three Protocols, and the values that go in and come out.

Owns the contract between the stages and whatever does the generating. Promises that a backend knows nothing of jobs,
directories or retries: a request goes in, a product comes out, or an error of `topicd.errors` says what should be done.
Never does I/O.

A backend of your own is a class with these methods and a constructor without arguments; name it by import path in
`TOPICD_SCRIPT_BACKEND`, `TOPICD_AUDIO_BACKEND` or `TOPICD_IMAGE_BACKEND` (`package.module:Class`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Scene:
    """One paragraph of the script with its picture prompt.

    Attributes:
        narration: what is spoken, plain sentences.
        picture: what the picture should show, a short phrase.
    """

    narration: str
    picture: str


@dataclass(frozen=True, slots=True)
class Script:
    """A narration script: a title and at least one scene."""

    title: str
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, slots=True)
class ScriptRequest:
    """What a script is asked to be.

    Attributes:
        title: the topic's title.
        guidance: the rest of the topic, possibly empty.
        language: BCP 47 tag (`en`, `pt-BR`).
        scenes: how many scenes, ≥ 1.
        style: free words on manner, possibly empty.
        seed: 0 … 2**31-1; the same request with the same seed gives the same script where the backend can.
    """

    title: str
    guidance: str
    language: str
    scenes: int
    style: str
    seed: int


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """What is to be spoken: one scene's narration.

    Attributes:
        text: plain sentences, not empty.
        language: BCP 47 tag.
        voice: a voice's name, or empty for the backend's own.
        seed: as in `ScriptRequest`.
    """

    text: str
    language: str
    voice: str
    seed: int


@dataclass(frozen=True, slots=True)
class Speech:
    """Spoken narration.

    Attributes:
        wav: a RIFF WAVE file, PCM 16 bit.
        cues: (start_s, end_s, words) of each sentence, ascending, when the backend knows them; may be empty.
    """

    wav: bytes
    cues: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """What is to be pictured: one scene, or the title.

    Attributes:
        prompt: the scene's picture phrase; the title itself for the title card.
        narration: the scene's narration, for backends that read more than the prompt; empty for the title card.
        title: the script's title.
        is_title: whether this is the title card.
        width_px: wanted width.
        height_px: wanted height.
        style: free words on manner, possibly empty.
        seed: differs from scene to scene.
        job_seed: the same for all pictures of a job, so that they can share a palette.
    """

    prompt: str
    narration: str
    title: str
    is_title: bool
    width_px: int
    height_px: int
    style: str
    seed: int
    job_seed: int


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file as bytes: PNG, JPEG or WebP; the images stage checks it and keeps it as PNG."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """What a backend said of itself when asked.

    Attributes:
        summary: one line for a person (`SmolLM2-135M-Instruct, draft quality, English only`).
        details: what else it said, JSON values.
    """

    summary: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of one server a backend speaks to.

    Attributes:
        server: host and port, without user and password.
        state: of its circuit breaker: `closed` (calls go through), `open` (none does), `half-open` (one is trying).
        since_s: since when it is not closed, seconds since the epoch; None while it is closed.
        trouble: why it is not closed, one sentence; empty while it is closed.
        calls: how many calls are under way.
        waiting: how many calls wait for a place, or for the rate limit.
        note: what it is busy with, for a person (`pulling llama3.2: 34 %`); may be empty.
        waited_s: how long calls have waited for the rate limit, together.
        cause: the cause of the trouble; empty while it is closed.
    """

    server: str
    state: str
    since_s: float | None = None
    trouble: str = ""
    calls: int = 0
    waiting: int = 0
    note: str = ""
    waited_s: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class DownloadState:
    """How far a download is.

    Attributes:
        name: of what is fetched.
        have: bytes that are there.
        total: bytes of the whole; None when not known.
        rate: bytes a second that came so far.
        note: what it waits for, for a person; empty while it receives.
    """

    name: str
    have: int
    total: int | None
    rate: float
    note: str


@runtime_checkable
class HasDownloads(Protocol):
    """What a backend that fetches by itself what it lacks tells beside the Protocol of its stage."""

    def downloads(self) -> Sequence[DownloadState]:
        """Return how far each download is."""
        ...


@runtime_checkable
class HasServers(Protocol):
    """What a backend by HTTP tells beside the Protocol of its stage."""

    def servers(self) -> Sequence[ServerState]:
        """Return the state of each server, without asking any."""
        ...


@runtime_checkable
class Frees(Protocol):
    """What a backend that holds the GPU can do beside the Protocol of its stage."""

    async def free(self) -> None:
        """Let go of the GPU's memory; the next call loads what it needs again.

        Raises:
            TopicdError: the server did not do it.
        """
        ...


@runtime_checkable
class Backend(Protocol):
    """What every backend states and can do.

    Attributes:
        name: stable, low in number: a metric label (`embedded-llm`, `ollama`).
        calls_max: how many calls at once it takes.
        holds_gpu: whether it occupies the GPU while loaded.
    """

    name: str
    calls_max: int
    holds_gpu: bool

    def provenance(self) -> Mapping[str, str]:
        """Return all that changes its products, beside the request: model, voice, parameters. No secrets."""
        ...

    async def probe(self) -> Probe:
        """Ask it what it is, with a small real call where that is cheap.

        Raises:
            Unavailable: it does not answer.
            Unusable: it answers, but lacks a package, model, voice or password.
        """
        ...

    async def aclose(self) -> None:
        """Let go of processes and connections. Safe to call twice."""
        ...


@runtime_checkable
class ScriptBackend(Backend, Protocol):
    """Writes scripts."""

    async def write(self, request: ScriptRequest) -> Script:
        """Return a script, or raise RetryLater, Unavailable, Rejected or Unusable. Cancelling it stops the work."""
        ...


@runtime_checkable
class AudioBackend(Backend, Protocol):
    """Speaks narration."""

    async def speak(self, request: SpeechRequest) -> Speech:
        """Return the speech, or raise RetryLater, Unavailable, Rejected or Unusable. Cancelling it stops the work."""
        ...


@runtime_checkable
class ImageBackend(Backend, Protocol):
    """Draws pictures."""

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the picture, or raise RetryLater, Unavailable, Rejected or Unusable. Cancelling it stops the work."""
        ...
