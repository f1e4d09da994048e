"""The values in a job's directory: `job.json`, `reason.json`, `manifest.json`, `scenes.json`.

Owns their shapes and the way they are read from and turned into JSON. Promises that what is read is checked: a file
that is not what it should be raises `Damaged`, never a KeyError somewhere later. Never does I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from topicd.errors import Rejected, TopicdError
from topicd.telemetry.events import rfc3339

TOPIC: Final = "topic.md"
JOB: Final = "job.json"
REASON: Final = "reason.json"
SCRIPT: Final = "script.md"
SCENES: Final = "scenes.json"
MANIFEST: Final = "manifest.json"
AUDIO: Final = "audio.wav"
PAGE: Final = "index.html"

TIME_MAX_S: Final = 253_402_300_799
"""The end of the year 9999, the last that RFC 3339 can write."""
JSON_BYTES_MAX: Final = 4_194_304


class Damaged(Rejected):
    """A file of the job is not what the daemon left there. The job is kept for a person."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            "job_damaged",
            f"{name} is damaged: {why}",
            hint=f"look at {name} in the job's directory; restore it, or drop the topic again",
        )


Finite = Annotated[float, Field(allow_inf_nan=False, ge=0, le=TIME_MAX_S)]


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error as it is kept on disk and shown to a person.

    Attributes:
        at: when, RFC 3339.
        stage: in which stage.
        unit: in which unit; empty for the stage itself.
        cause: short slug.
        message: one sentence.
        hint: what a person can do; may be empty.
        next_try: when it is tried next, RFC 3339; empty when it is not.
    """

    at: str
    stage: str
    unit: str
    cause: str
    message: str
    hint: str = ""
    next_try: str = ""

    @classmethod
    def of(cls, error: TopicdError, *, stage: str, at: float, next_try: float | None = None) -> Self:
        """Make it from an error; times in seconds since the epoch."""
        return cls(
            at=rfc3339(at),
            stage=stage,
            unit=error.unit,
            cause=error.cause,
            message=error.message,
            hint=error.hint,
            next_try="" if next_try is None else rfc3339(next_try),
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt that has begun and not ended.

    Attributes:
        stage: of which stage.
        run: which run of the daemon began it; another run's means that run died in the work.
        at: when, RFC 3339.
    """

    stage: str
    run: str
    at: str


@dataclass(frozen=True, slots=True)
class Job:
    """What `job.json` holds. Not the stage: the directory does.

    Attributes:
        id: the directory's name; ids sort by time of acceptance.
        source: the file's name in `input/`, as it was dropped.
        sha256: of the topic as accepted; empty when it was not read.
        bytes: its size.
        accepted: when, RFC 3339.
        accepted_s: the same in seconds since the epoch.
        attempts: stage → attempts spent.
        crashes: stage → times a run of the daemon died in it.
        seconds: stage → how long its successful attempt took.
        begun: the attempt in hand.
        not_before_s: no attempt before this time, seconds since the epoch.
        last_error: the latest trouble; empty before any.
        source_left: (device, inode, mtime in ns) of the file still to be removed from an `input/` on another
            file system.
    """

    id: str
    source: str
    sha256: str
    bytes: int
    accepted: str
    accepted_s: Finite
    attempts: Mapping[str, int] = field(default_factory=dict)
    crashes: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    begun: Begun | None = None
    not_before_s: Finite = 0.0
    last_error: Trouble | None = None
    source_left: tuple[int, int, int] | None = None

    def begin(self, stage: str, *, run: str, at: float) -> Self:
        """Count an attempt at a stage. One that another run began and never ended becomes a crash instead."""
        attempts, crashes = self.attempts.get(stage, 0) + 1, self.crashes.get(stage, 0)
        if self.begun and self.begun.stage == stage:  # counted already: it ended without a word
            attempts -= 1
            crashes += self.begun.run != run
        return replace(
            self,
            attempts={**self.attempts, stage: attempts},
            crashes={**self.crashes, stage: crashes} if crashes else self.crashes,
            begun=Begun(stage, run, rfc3339(at)),
            not_before_s=0.0,
            source_left=None,
        )

    def is_suspect(self, stage: str, run: str) -> bool:
        """Tell whether the job was in work in this stage when a daemon other than `run` died."""
        died = self.begun is not None and self.begun.stage == stage and self.begun.run != run
        return died or self.crashes.get(stage, 0) > 0

    def give_back(self, stage: str) -> Self:
        """Return the attempt in hand uncounted."""
        spent = max(0, self.attempts.get(stage, 0) - 1)
        return replace(self, attempts={**self.attempts, stage: spent}, begun=None)

    def afresh(self) -> Self:
        """Forget attempts, crashes and waits, as a person asks for by `retry`."""
        return replace(self, attempts={}, crashes={}, begun=None, not_before_s=0.0)


@dataclass(frozen=True, slots=True)
class Product:
    """One entry of the manifest.

    Attributes:
        path: relative to the job's directory.
        sha256: of the file.
        bytes: its size.
        made_from: digest of all that decided it: text, backend, model, voice, seed.
        by: what made it: backend, model, voice, parameters; no secrets.
        seconds: how long it took.
        at: when it was kept, RFC 3339.
    """

    path: str
    sha256: str
    bytes: int
    made_from: str
    by: Mapping[str, str]
    seconds: float
    at: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` holds: the products of a job, by path."""

    job: str
    products: tuple[Product, ...] = ()

    def get(self, path: str) -> Product | None:
        """Return the entry of a path."""
        return next((product for product in self.products if product.path == path), None)

    def having(self, product: Product) -> Self:
        """Return it with a product added, or put in the place of an older one."""
        others = (other for other in self.products if other.path != product.path)
        return replace(self, products=tuple(sorted((*others, product), key=lambda entry: entry.path)))


@dataclass(frozen=True, slots=True)
class SceneText:
    """A scene in `scenes.json`."""

    narration: str
    picture: str


@dataclass(frozen=True, slots=True)
class Scenes:
    """What `scenes.json` holds: the script, what the later stages need of the options, and of which topic it is."""

    title: str
    language: str
    voice: str
    style: str
    seed: int
    scenes: tuple[SceneText, ...]
    topic_sha256: str = ""


T = TypeVar("T", Job, Manifest, Scenes, Trouble)


@cache
def _readers() -> Mapping[type, TypeAdapter[Any]]:
    return {kind: TypeAdapter(kind) for kind in (Job, Manifest, Scenes, Trouble)}


def encode(value: Job | Manifest | Scenes | Trouble) -> bytes:
    """Return the value as the bytes of its file: indented JSON, UTF-8, a newline at the end."""
    raw = asdict(value)
    try:
        return (json.dumps(raw, indent=1, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8 came in as lone surrogates
        return (json.dumps(raw, indent=1) + "\n").encode()


def decode(kind: type[T], data: bytes, name: str) -> T:
    """Read a value back.

    Raises:
        Damaged: `data` is not the JSON of such a value; `name` is the file's.
    """
    try:
        return _readers()[kind].validate_python(json.loads(data))  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Damaged(name, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(name, f"not JSON: {error}") from error
