"""The values in a job's directory: `job.json`, `reason.json`, `manifest.json`, `scenes.json`.

Owns their shapes and the way they are read from and turned into JSON. Promises that what is read is checked: a file
that is not what it should be raises `Damaged`, never a KeyError somewhere later. Never does I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

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
COUNT_MAX: Final = 1_000_000
WORDS_CHARS_MAX: Final = 200
MESSAGE_CHARS_MAX: Final = 4_000
_JOB_HEAD: Final = b'{\n "id": "'


class Damaged(Rejected):
    """A file of the job is not what the daemon left there. The job is kept for a person."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(
            "job_damaged",
            f"{name} is damaged: {why}",
            hint=f"look at {name} in the job's directory; restore it, or drop the topic again",
        )


Finite = Annotated[float, Field(allow_inf_nan=False, ge=0, le=TIME_MAX_S)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
TraceId = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]
InnerPath = Annotated[str, Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", max_length=255)]
"""A path that leads nowhere but into the job's directory."""


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
            message=error.message[:MESSAGE_CHARS_MAX],
            hint=error.hint[:MESSAGE_CHARS_MAX],
            next_try="" if next_try is None else rfc3339(next_try),
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What `job.json` holds. Not the stage: the directory does. Not that it is in work: a marker beside it does.

    Attributes:
        id: the directory's name; ids sort by time of acceptance.
        source: the file's name in `input/`, as it was dropped.
        sha256: of the topic as accepted; empty when it was not read.
        bytes: its size.
        accepted: when, RFC 3339.
        accepted_s: the same in seconds since the epoch.
        attempts: stage → attempts that ended in an error, and, of a job in hand, the one under way.
        crashes: stage → times a run of the daemon died in it.
        not_before_s: no attempt before this time, seconds since the epoch.
        last_error: the latest trouble; empty before any.
        source_left: (device, inode, mtime in ns) of the file still to be removed from an `input/` on another
            file system.
        trace_id: of the job's trace (`telemetry/tracing.py`), for who reads this file; empty in an older version's.
    """

    id: str
    source: str
    sha256: str
    bytes: int
    accepted: str
    accepted_s: Finite
    attempts: Mapping[str, Count] = field(default_factory=dict)
    crashes: Mapping[str, Count] = field(default_factory=dict)
    not_before_s: Finite = 0.0
    last_error: Trouble | None = None
    source_left: tuple[int, int, int] | None = None
    trace_id: TraceId = ""

    def begin(self, stage: str) -> Self:
        """Count an attempt at a stage."""
        attempts = {**self.attempts, stage: self.attempts.get(stage, 0) + 1}
        return replace(self, attempts=attempts, not_before_s=0.0, source_left=None)

    def crash(self, stage: str) -> Self:
        """Count a death in a stage."""
        return replace(self, crashes={**self.crashes, stage: self.crashes.get(stage, 0) + 1})

    def give_back(self, stage: str) -> Self:
        """Return the attempt in hand uncounted."""
        attempts = {**self.attempts, stage: self.attempts.get(stage, 0) - 1}
        return replace(self, attempts={key: count for key, count in attempts.items() if count > 0})

    def pass_on(self, stage: str) -> Self:
        """Return it as it is once a stage is done: what went wrong there has been overcome."""
        if self.attempts == {stage: 1} and self.last_error is None:
            return replace(self, attempts={})
        return replace(self.give_back(stage), not_before_s=0.0, last_error=None)

    def afresh(self) -> Self:
        """Forget attempts, crashes and waits, as a person asks for by `retry`."""
        return replace(self, attempts={}, crashes={}, not_before_s=0.0, last_error=None)


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

    path: InnerPath
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
    try:
        return to_json(value, indent=1) + b"\n"
    except PydanticSerializationError:  # a file name that is not UTF-8 came in as lone surrogates
        return (json.dumps(asdict(value), indent=1) + "\n").encode()


def is_torn(data: bytes) -> bool:
    """Tell what a power cut leaves of a job.json that was not fsynced: nothing, its beginning, or zeros."""
    if data.endswith(b"}\n") and b"\0" not in data:
        return False
    rest = data.replace(b"\0", b"")
    return rest.startswith(_JOB_HEAD) or _JOB_HEAD.startswith(rest) or (b"\0" in data and rest.endswith(b"}\n"))


def time_of(job_id: str) -> float | None:
    """Return the time of acceptance that an id tells, seconds since the epoch; None when it tells none."""
    try:
        return datetime.strptime(job_id[:22], "%Y%m%d-%H%M%S-%f").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def decode(kind: type[T], data: bytes, name: str) -> T:
    """Read a value back.

    Raises:
        Damaged: `data` is not the JSON of such a value; `name` is the file's.
    """
    try:
        return _readers()[kind].validate_python(json.loads(data))  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Damaged(name, f"{place[:WORDS_CHARS_MAX]}: {first['msg'][:WORDS_CHARS_MAX]}") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(name, f"not JSON: {str(error)[:WORDS_CHARS_MAX]}") from error
