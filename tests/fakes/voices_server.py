"""A server with Piper's catalogue and its voices, as rhasspy/piper-voices has them.

Owns the list's shape. Promises digests and sizes of what it really serves. Never lists what it has not, unless told.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fakes.file_server import FileServer, Reply


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def entry(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the list says of a voice whose files are at these paths."""
    code = name.partition("-")[0]
    return {
        "key": name,
        "name": name.split("-")[1],
        "language": {"code": code, "family": code[:2], "region": code[3:]},
        "quality": "medium",
        "num_speakers": 1,
        "speaker_id_map": {},
        "files": {path: {"size_bytes": len(data), "md5_digest": md5(data)} for path, data in files.items()},
        "aliases": [],
    }


class VoicesServer(FileServer):
    """Serves voices and their list below `/voices`.

    Attributes:
        files: by path.
        voices: the list.
    """

    def __init__(self) -> None:
        super().__init__(b"")
        self.files = dict[str, bytes]()
        self.voices = dict[str, Any]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/voices/"

    def add(self, name: str, model: bytes, described: bytes) -> None:
        """Have a voice."""
        folder = "/".join([name[:2], name.partition("-")[0], *name.split("-")[1:]])
        card = b"a model card"
        files = {f"{folder}/{name}.onnx": model, f"{folder}/{name}.onnx.json": described, f"{folder}/MODEL_CARD": card}
        self.files |= files
        self.voices[name] = entry(name, files)

    def honest(self, headers: dict[str, str]) -> Reply:
        """Return what RFC 9110 wants, of the file at the path."""
        path = headers[":target"].removeprefix("/voices/")
        listed = json.dumps(self.voices).encode()
        data = listed if path == "voices.json" else self.files.get(path)
        if data is None:
            return Reply(404, {"Content-Length": "0"}, b"")
        self.data, self.etag = data, f'"{md5(data)}"'
        if headers.get("if-none-match") == self.etag:
            return Reply(304, {"ETag": self.etag}, b"")
        return super().honest(headers)

    def asked_for(self, ending: str) -> list[dict[str, str]]:
        """Return the requests for a path with that ending."""
        return [asked for asked in self.asked if asked[":target"].endswith(ending)]
