"""Events: what can happen, named once, and how it reaches every sink.

Owns the names, levels, sentences and fields of all events. Promises that one `emit` reaches each sink, that
a sink that raises breaks neither the caller nor the other sinks, and that an event always carries exactly
the fields it is listed with, so that a log query or an alert can rely on them. Never counts or decides: the
sinks do what is theirs.
"""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from string import Formatter
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

Level = Literal["debug", "info", "warning", "error"]

TRACEBACK_CHARS_MAX: Final = 16_000

_EXPANDED: Final = frozenset({"error", "next_try"})
_AS_THEY_ARE: Final = (str, int)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_log = logging.getLogger(__name__)


class EventSpec:
    """What is fixed about one kind of event.

    Attributes:
        level: how much it matters.
        message: the sentence for a person, with `{field}`s.
        fields: the fields it carries, in order; `error` takes an exception and expands to several.
    """

    def __init__(self, level: Level, message: str, fields: tuple[str, ...]) -> None:
        self.level: Final = level
        self.message: Final = message
        self.fields: Final = fields
        self.names: Final = frozenset(fields)
        self.expands: Final = not _EXPANDED.isdisjoint(fields)
        parts = [(text, name) for text, name, _, _ in Formatter().parse(message)]
        self._asked: Final = [name for _, name in parts if name]
        self._template: Final = "".join(text.replace("%", "%%") + ("%s" if name else "") for text, name in parts)

    def sentence(self, fields: Mapping[str, object]) -> str:
        """Return the message with the fields filled in."""
        return self._template % tuple(
            [value if isinstance(value := fields[name], _AS_THEY_ARE) else _words(value) for name in self._asked]
        )


class Event(NamedTuple):
    """One thing that happened, as the sinks see it.

    Attributes:
        name: a key of `EVENTS`.
        fields: its fields, with `error` expanded to `error` (a sentence), `cause`, `error_class` and, when
            there is one, `hint`, `unit` and `traceback` (strings all).
        context: what holds wherever it happened, such as `trace_id`; empty where nothing is known.
    """

    name: str
    fields: Mapping[str, object]
    context: Mapping[str, str] = _NOTHING

    @property
    def level(self) -> Level:
        """How much it matters."""
        return EVENTS[self.name].level

    @property
    def message(self) -> str:
        """Its sentence, filled in; may hold any character that a file name can hold."""
        return EVENTS[self.name].sentence(self.fields)


class Sink(Protocol):
    """Something that wants to see every event. May be called from any thread."""

    def see(self, event: Event) -> None:
        """Take note of one event; quick, and without waiting for anything."""
        ...


@runtime_checkable
class _Explained(Protocol):
    """The shape of `topicd.errors.TopicdError`, which this layer does not import."""

    cause: str
    message: str
    hint: str
    unit: str


def _spec(level: Level, message: str, fields: str = "") -> EventSpec:
    return EventSpec(level, message, tuple(fields.split()))


EVENTS: Final[Mapping[str, EventSpec]] = MappingProxyType(
    {
        "daemon.starting": _spec("info", "topicd {version} starts in {home}", "version home"),
        "daemon.ready": _spec(
            "info", "ready after {seconds} s, {jobs} jobs to do; the page: {page}", "seconds jobs page"
        ),
        "daemon.stopping": _spec("info", "stopping on {signal}", "signal"),
        "daemon.stopped": _spec("info", "stopped in {seconds} s", "seconds"),
        "tls.unverified": _spec("warning", "certificates of servers are not checked: SSL_VERIFY is off"),
        "setting.unused": _spec("warning", "{name} is set and not used; was {meant} meant?", "name meant"),
        "job.accepted": _spec("info", "{job}: accepted from {source}", "job source bytes pickup_s"),
        "intake.rescanned": _spec("debug", "{found} topics that no file event had told of", "found"),
        "intake.ignored": _spec("warning", "{name}: {kind}, left where it is", "name kind"),
        "intake.trouble": _spec("warning", "{name} cannot be taken: {error}", "name error"),
        "stage.started": _spec("info", "{job}: {stage} begins, attempt {attempt}", "job stage attempt"),
        "unit.finished": _spec(
            "info",
            "{job}: {unit} made by {backend} in {seconds} s ({n} of {of})",
            "job stage unit n of seconds backend",
        ),
        "unit.kept": _spec("debug", "{job}: {unit} is there already", "job stage unit"),
        "stage.finished": _spec("info", "{job}: {stage} finished in {seconds} s", "job stage seconds"),
        "job.deferred": _spec(
            "warning",
            "{job}: {stage} put off after attempt {attempt}: {error}; next try {next_try}",
            "job stage error attempt next_try",
        ),
        "job.waiting": _spec("info", "{job}: {stage} waits: {error}; next look {next_try}", "job stage error next_try"),
        "job.failed": _spec("error", "{job}: {stage} failed: {error} (attempt {attempt})", "job stage error attempt"),
        "job.done": _spec("info", "{job}: done in {seconds} s: {output}", "job seconds output"),
        "job.crashed": _spec("warning", "{job}: {stage} was cut off, {crashes} so far", "job stage crashes"),
        "job.given_back": _spec("info", "{job}: {stage} stopped, attempt given back", "job stage"),
        "job.moved_away": _spec("info", "{job}: moved away from {stage} by someone", "job stage"),
        "job.damaged": _spec("error", "{job}: damaged in {stage}: {error}", "job stage error"),
        "recovery.removed": _spec("info", "left over from a crash: {what}", "what"),
        "backend.asked": _spec(
            "debug",
            "{job}: {backend} asked for {unit}: {outcome} after {seconds} s",
            "job stage unit backend outcome seconds span_id",
        ),
        "backend.unavailable": _spec(
            "warning",
            "{stage} waits for {backend}: {error}; next try {next_try}",
            "stage backend error next_try",
        ),
        "backend.available": _spec("info", "{stage} has {backend}, after {seconds} s", "stage backend seconds"),
        "server.down": _spec("warning", "{stage} goes on without {server}: {error}", "stage server error"),
        "server.up": _spec("info", "{stage} has {server} again", "stage server"),
        "gpu.passed": _spec("info", "{stage} has the GPU; {before} has freed it", "stage before"),
        "gpu.not_freed": _spec("warning", "{before} did not free the GPU: {error}", "before error"),
        "stage.bug": _spec("error", "{job}: a bug in {stage}: {error}", "job stage error"),
        "download.started": _spec("info", "{file}: is fetched", "file"),
        "download.resumed": _spec("info", "{file}: goes on at {have} bytes", "file have"),
        "download.progress": _spec(
            "info", "{file}: {have} of {total} bytes, {rate} bytes/s {note}", "file have total bytes rate note"
        ),
        "download.finished": _spec("info", "{file}: is there after {seconds} s", "file bytes seconds"),
        "download.failed": _spec("warning", "{file}: was not fetched: {error}", "file bytes error"),
        "download.stopped": _spec("info", "{file}: stopped; what is there is kept", "file bytes"),
        "watcher.started": _spec("info", "watching by {mode}", "mode"),
        "watcher.rescanned": _spec("debug", "every directory is looked at, by the clock"),
        "watcher.restarted": _spec("warning", "watching anew: {reason}", "reason"),
        "watcher.trouble": _spec("warning", "watching by {mode} has trouble: {error}", "error mode"),
        "watcher.overflowed": _spec("warning", "more file events than the kernel keeps; every directory is looked at"),
        "watcher.wake_failed": _spec(
            "error", "a bug: no scan of {directory} could be asked for: {error}", "directory error"
        ),
        "storage.trouble": _spec("error", "everything waits for the disk: {error}", "error"),
        "storage.ok": _spec("info", "the disk is well again"),
        "traces.lost": _spec("warning", "{count} spans were not taken by the receiver of traces", "count"),
        "log.repeated": _spec(
            "warning", "{count} more of {of} in a minute, not shown: {cause}", "of count cause stage"
        ),
    }
)


class Events:
    """The one way to say that something happened.

    Args:
        sinks: who sees each event, in this order.
        context: returns what else is known of an event with these fields, such as the `trace_id` of its job.
        is_traced: whether a sink sends traces, so that servers are to be told which one they are asked for.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        context: Callable[[Mapping[str, object]], Mapping[str, str]] | None = None,
        *,
        is_traced: bool = False,
    ) -> None:
        self._sinks = tuple(sinks)
        self.is_traced: Final = is_traced
        self._context = context
        self._reported: set[tuple[int, str]] = set()

    def emit(self, name: str, /, **fields: object) -> None:
        """Let every sink see one event.

        Args:
            name: a key of `EVENTS`.
            fields: exactly the fields it is listed with. `error` is an exception; `next_try` may be seconds
                since the epoch and is then written as RFC 3339. None where there is no value.

        Raises:
            KeyError: no event has this name.
            TypeError: a field is unknown or missing, or `error` is no exception.
        """
        spec = EVENTS[name]
        if fields.keys() != spec.names:
            raise TypeError(f"{name} takes the fields {spec.fields}, not {tuple(fields)}")
        told = _all_expanded(fields) if spec.expands else fields
        event = Event(name, told, self._known(name, told) if self._context else _NOTHING)
        for sink in self._sinks:
            try:
                sink.see(event)
            except Exception:  # noqa: BLE001 - a sink's fault must not stop the work it watches
                self._report(sink, name)

    def _known(self, name: str, fields: Mapping[str, object]) -> Mapping[str, str]:
        try:
            return self._context(fields) if self._context else _NOTHING
        except Exception:  # noqa: BLE001 - as of a sink
            self._report(self._context, name)
            return _NOTHING

    def _report(self, who: object, name: str) -> None:
        if (id(who), name) not in self._reported:
            self._reported.add((id(who), name))
            _log.exception("%s cannot take %s; not said again", type(who).__name__, name)


def rfc3339(epoch_s: float) -> str:
    """Return a time, in seconds since the epoch, as RFC 3339 in UTC with milliseconds and `Z`."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _all_expanded(given: Mapping[str, object]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for field, value in given.items():
        fields |= _expanded(field, value)
    return fields


def _expanded(field: str, value: object) -> dict[str, object]:
    if field == "error":
        return _told(value)
    if field == "next_try" and isinstance(value, int | float):
        return {field: rfc3339(value)}
    return {field: value}


def _told(error: object) -> dict[str, object]:
    if not isinstance(error, BaseException):
        raise TypeError(f"error takes an exception, not {type(error).__name__}")
    name = type(error).__name__
    if isinstance(error, _Explained):
        told: dict[str, object] = {"error": error.message, "cause": error.cause, "error_class": name}
        return told | {k: v for k, v in (("hint", error.hint), ("unit", error.unit)) if v}
    summary = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS_MAX:]
    return {"error": summary, "cause": "unexpected", "error_class": name, "traceback": trace}


def _words(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"
    return str(value)
