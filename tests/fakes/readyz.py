"""A daemon's `/readyz`, as far as those who ask it need one: one answer to every request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer


class Answer(BaseHTTPRequestHandler):
    """Answers as a daemon's /readyz, or as nothing that a daemon would say."""

    status, body = 200, b'{"ok": true, "why": []}'

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        return None


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """Answer so for the length of a block; yield the port."""
    handler = type("Handler", (Answer,), {"status": status, "body": body})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
