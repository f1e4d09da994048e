"""Spans sent by OTLP over HTTP, with OpenTelemetry's own exporter.

Owns the exporter and its thread; OpenTelemetry's own environment variables, such as OTEL_BSP_SCHEDULE_DELAY, apply.
Promises never to keep the work it tells of waiting: spans wait in a queue with an end, what a receiver does not take is
dropped and counted, and the daemon's end waits for it a few seconds at most. Is imported only where traces are sent:
OpenTelemetry is an extra.
"""

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from requests.adapters import HTTPAdapter

from topicd.telemetry.traces import Span

SPANS_MAX: Final = 2048
BATCH_MAX: Final = 512
SEND_S: Final = 10.0
END_S: Final = 3.0

Lost = Callable[[int], None]


class Otlp:
    """A receiver of spans, such as Tempo or a collector.

    Args:
        url: its address without the path, such as `http://tempo:4318`; may hold user and password.
        version: of topicd.
        lost: told how many spans were not taken, in the exporter's thread.
        tls: which certificates are trusted.
    """

    def __init__(self, url: str, *, version: str, lost: Lost, tls: ssl.SSLContext) -> None:
        # What it says of a receiver that is away has an event of ours, once a batch; its own words name the address.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        session = requests.Session()
        session.mount("https://", _Trusting(tls))
        exporter = OTLPSpanExporter(
            endpoint=f"{url.rstrip('/')}/v1/traces", timeout=SEND_S, compression=Compression.Gzip, session=session
        )
        session.verify = tls.verify_mode is not ssl.CERT_NONE
        self._processor = BatchSpanProcessor(
            _Counted(exporter, lost),
            max_queue_size=SPANS_MAX,
            max_export_batch_size=BATCH_MAX,
        )
        self._resource = Resource.create({"service.name": "topicd", "service.version": version})
        self._scope = InstrumentationScope("topicd", version)

    def send(self, span: Span) -> None:
        """Put a span into the queue; when it is full, the oldest is dropped."""
        self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks; safe to call twice."""
        ending = threading.Thread(target=self._processor.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(END_S)

    def _readable(self, span: Span) -> ReadableSpan:
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace, span.id),
            parent=_context(span.trace, span.parent) if span.parent else None,
            resource=self._resource,
            attributes={**span.attributes, **({"error.type": span.error} if span.error else {})},
            kind=SpanKind.CLIENT if span.is_call else SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )


class _Trusting(HTTPAdapter):
    """Checks certificates as the daemon's other clients do."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)


class _Counted(SpanExporter):
    """Hands spans on, and tells of those that were not taken."""

    def __init__(self, exporter: SpanExporter, lost: Lost) -> None:
        self._exporter = exporter
        self._lost = lost

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._lost(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
