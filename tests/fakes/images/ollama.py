#!/opt/topicd/bin/python
"""The program `ollama`, as far as a container of it is used: `serve`, `pull MODEL`, `show MODEL`, by its HTTP API."""

import json
import os
import sys
import urllib.request

from aiohttp import web

from fakes.ollama_server import OllamaServer, script_answer

HOST = os.environ["OLLAMA_HOST"].removeprefix("http://").replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - what it is told to listen on


def ask(path: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{HOST}{path}", data=data, timeout=10) as answer:
        return bytes(answer.read())


def main(verb: str, model: str = "") -> int:
    if verb == "serve":
        web.run_app(OllamaServer(models=(), answers=(script_answer(2),)).app, port=11434)
    elif verb == "pull":
        return int(b'"success"' not in ask("/api/pull", {"model": model}))
    elif verb == "show":
        return int(model not in str(ask("/api/tags")))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
