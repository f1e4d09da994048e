"""Servers of `fakes` that a daemon in another process speaks to: they live in a thread's loop, and can go and return.

Promises that a server that returns has the port it had, and that the thread ends with the block.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from fakes.serving import Serving

LIMIT_S = 20.0


class Afield:
    """The loop in its thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="afield")
        self._up: list[Serving] = []
        self._kept = dict[Serving, socket.socket]()

    def start(self) -> None:
        """Let it run."""
        self._thread.start()

    def up(self, server: Serving) -> Serving:
        """Have a server listen, at the port it had before if it had one."""
        self._do(server.__aenter__())
        self._up.append(server)
        if server in self._kept:
            self._kept.pop(server).close()
        return server

    def down(self, server: Serving) -> None:
        """Have a server stop listening; its connections are cut, and nobody else is given its port meanwhile."""
        self._up.remove(server)
        self._do(server.__aexit__())
        self._kept[server] = bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that it can listen there again
        bound.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))

    def end(self) -> None:
        """Stop all of them, and the thread."""
        for server in tuple(self._up):
            self.down(server)
        for bound in self._kept.values():
            bound.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)


@contextmanager
def afield() -> Iterator[Afield]:
    """Give a loop for servers, for the length of a block."""
    servers = Afield()
    servers.start()
    try:
        yield servers
    finally:
        servers.end()
