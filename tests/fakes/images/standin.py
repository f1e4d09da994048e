#!/usr/bin/python3
"""What stands in for a program of the monitoring: reads the files it is given, and says that it is ready.

The first argument is its port; the rest is what compose gives the real one. Ends with an error where a file that is
named is not there or may not be read, and where it could not keep what it gathers.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

READY = ("/ready", "/-/ready", "/api/health")


class Handler(BaseHTTPRequestHandler):
    """Says that it is ready, on the path where the real one does."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in READY else 404)
        self.end_headers()


def main(port: str, *args: str) -> None:
    named = [arg.rpartition("=")[2] for arg in args if arg.endswith((".yml", ".alloy"))]
    secrets = [value for name, value in os.environ.items() if name.endswith("__FILE")]
    folders = filter(None, os.environ.get("READ", "").split(":"))
    files = [str(path) for folder in folders for path in Path(folder).rglob("*") if path.is_file()]
    assert named or files, "nothing to read was given"
    for path in (*named, *secrets, *files):
        assert Path(path).read_text(), path
    for folder in filter(None, os.environ.get("WRITE", "").split(":")):
        Path(folder, ".written").touch()
    ThreadingHTTPServer(("", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
