"""Which trace a piece of work belongs to, and what a server is told of it.

Owns the ids. Promises that a job has one trace in every process and after every restart, since its id is made from the
job's own; that no two calls have one span. Never sends anything, never imports OpenTelemetry.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Final

JOBS_KEPT: Final = 4096
_traceparent: ContextVar[str] = ContextVar("traceparent", default="")


@lru_cache(maxsize=JOBS_KEPT)
def trace_id(job: str) -> str:
    """Return the trace of a job: 32 hexadecimal digits (W3C Trace Context, 3.2.2.3)."""
    return _digest(f"trace of {job}")[:32]


def root_id(job: str) -> str:
    """Return the span that all others of a job are under: 16 hexadecimal digits."""
    return _digest(f"root of {job}")[:16]


def new_span_id() -> str:
    """Return the id of one more span: 16 hexadecimal digits, never all zero."""
    while not any(data := os.urandom(8)):
        pass
    return data.hex()


def known(fields: Mapping[str, object]) -> Mapping[str, str]:
    """Return what is known of an event with these fields: the trace of its job."""
    job = fields.get("job")
    return {"trace_id": trace_id(job)} if isinstance(job, str) else {}


@contextlib.contextmanager
def calling(job: str, *, is_sent: bool) -> Iterator[str]:
    """Be in a call of a backend; yield its span's id.

    Args:
        job: whose call it is.
        is_sent: whether servers are told, by `traceparent`. A server that traces would otherwise take a trace that
            nobody records for its own.
    """
    span_id = new_span_id()
    before = _traceparent.set(f"00-{trace_id(job)}-{span_id}-01" if is_sent else "")
    try:
        yield span_id
    finally:
        _traceparent.reset(before)


def headers() -> dict[str, str]:
    """Return what a request is sent with: `traceparent` (W3C Trace Context, 3.2) in a call that is traced."""
    value = _traceparent.get()
    return {"traceparent": value} if value else {}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
