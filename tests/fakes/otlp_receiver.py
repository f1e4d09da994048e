"""A receiver of OTLP over HTTP, as a collector is one: it parses what comes, and can refuse or say nothing.

Owns the life of the server, in a thread. Promises that what it has taken is whole: a body that is no request of
OpenTelemetry's own protocol is an error.
"""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Span:
    """One span as it came."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.start_ns: int = span.start_time_unix_nano
        self.end_ns: int = span.end_time_unix_nano
        self.is_error: bool = span.status.code == span.status.STATUS_CODE_ERROR
        self.attributes = _plain(span.attributes)
        self.resource = resource


class OtlpReceiver:
    """What came, and how it answers.

    Attributes:
        spans: all that were taken, in order.
        status: what it answers; not 200: nothing is taken.
        requests: how many there were.
        is_silent: set: it reads, takes nothing and says nothing.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.status = 200
        self.requests = 0
        self.is_silent = threading.Event()
        self.over = threading.Event()
        self.url = ""

    def take(self, path: str, data: bytes) -> int:
        """Take a request, and return the status of the answer."""
        self.requests += 1
        if self.is_silent.is_set():
            self.over.wait()
            return 503
        if path != "/v1/traces":
            return 404
        if self.status == 200:
            for group in ExportTraceServiceRequest.FromString(data).resource_spans:
                about = _plain(group.resource.attributes)
                self.spans += [Span(span, about) for scope in group.scope_spans for span in scope.spans]
        return self.status


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """Let one listen, for the length of a block."""
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                data = gzip.decompress(data)
            self.send_response(receiver.take(self.path, data))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """A client that has gone is no news."""

    with Server(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.over.set()
            server.shutdown()
            thread.join()


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
