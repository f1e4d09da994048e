"""The parent's side of a worker process: one child at a time, started when called, ended when idle.

Owns the child's whole life. Promises that the event loop is never blocked, that a cancelled or late call
leaves no process at work, that a crash costs one call and no more, and that memory held for a child is bounded.
Never imports what the child runs.
"""

import asyncio
import json
import os
import signal
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from topicd.backends.embedded import worker_main as wire
from topicd.errors import Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable

STDERR_BYTES_KEPT: Final = 2_000
END_TIMEOUT_S: Final = 2.0

# onnxruntime reports home unless told not to before it is loaded, and writes a device id into the home directory.
_QUIET: Final = {"ORT_DISABLE_TELEMETRY": "1"}
_CHUNK_BYTES: Final = 64 * 1024
_ERRORS: Final[dict[str, type[TopicdError]]] = {
    kind.__name__: kind for kind in (RetryLater, Unavailable, Rejected, Unusable, StorageTrouble)
}


_children: "Final[weakref.WeakSet[_Child]]" = weakref.WeakSet()


def count() -> int:
    """Return how many worker processes live, of any backend in this process."""
    return sum(child.alive for child in tuple(_children))


class Worker:
    """Calls methods of an object that lives in a process of its own.

    Args:
        target: `package.module:Class`; built in the child with the options as keyword arguments.
        options: JSON values.
        name: what messages call it.
        idle_s: seconds without a call after which the child is ended.
        start_timeout_s: seconds the child may take to import and build its target.
        reply_bytes_max: bytes of header and body that one reply may have.
    """

    def __init__(
        self,
        target: str,
        options: Mapping[str, object],
        *,
        name: str,
        idle_s: float,
        start_timeout_s: float,
        reply_bytes_max: int,
    ) -> None:
        self._target, self._options, self._name = target, dict(options), name
        self._idle_s, self._start_timeout_s, self._reply_bytes_max = idle_s, start_timeout_s, reply_bytes_max
        self._lock = asyncio.Lock()
        self._child: _Child | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id; None when none is running."""
        return self._child.pid if self._child and self._child.alive else None

    async def call(
        self, method: str, payload: Mapping[str, object], *, timeout_s: float
    ) -> tuple[dict[str, object], bytes]:
        """Call a method of the target and return its JSON header and bytes. Calls wait for one another.

        Args:
            method: a public method of the target.
            payload: its keyword arguments, JSON values.
            timeout_s: seconds for the call itself, once the child is up.

        Raises:
            RetryLater: the child crashed (`worker_crashed`), was late (`worker_timeout`), raised
                (`worker_error`) or broke the protocol (`worker_reply`).
            Unusable: a package the target needs is missing (`embedded_missing`).
            TopicdError: whatever error of that tree the target raised.
        """
        request = wire.encode({"method": method, "payload": dict(payload)})
        async with self._lock:
            self._stop_timer()
            try:
                child = await self._running()
                reply = await self._exchange(child, request, timeout_s=timeout_s)
            except BaseException:
                await self._end(kill=True)
                raise
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._idle_passed)
        return _result(reply)

    async def aclose(self) -> None:
        """End the child, and a call in hand with it. Safe to call twice; a later call starts a new child."""
        if self._child is not None and self._lock.locked():
            self._child.kill()
        async with self._lock:
            self._stop_timer()
            await self._end(kill=False)

    async def _running(self) -> "_Child":
        if self._child is not None and self._child.alive:
            return self._child
        await self._end(kill=True)
        self._child = await _Child.spawn(self._target)
        first = wire.encode({"options": self._options, "sys_path": sys.path})
        _result(await self._exchange(self._child, first, timeout_s=self._start_timeout_s))
        return self._child

    async def _exchange(self, child: "_Child", request: bytes, *, timeout_s: float) -> tuple[dict[str, object], bytes]:
        try:
            async with asyncio.timeout(timeout_s):
                return await child.exchange(request, self._reply_bytes_max)
        except TimeoutError as error:
            raise RetryLater("worker_timeout", f"{self._name} gave no answer in {timeout_s:g} s.") from error
        except ValueError as error:
            raise RetryLater("worker_reply", f"{self._name} gave an answer out of bounds: {error}.") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            # Not killed: asking whether it still lives would take its exit code from the loop.
            await child.end(kill=False)
            hint = "Often the machine is out of memory." if child.exit_code == -signal.SIGKILL else ""
            raise RetryLater("worker_crashed", f"{self._name} {child.obituary()}", hint=hint) from error

    def _idle_passed(self) -> None:
        self._timer = None
        self._ending = asyncio.get_running_loop().create_task(self._end_if_idle())

    async def _end_if_idle(self) -> None:
        async with self._lock:
            if self._timer is None:
                await self._end(kill=False)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _end(self, *, kill: bool) -> None:
        if self._child is not None:
            try:
                await self._child.end(kill=kill)
            finally:
                self._child = None


class _Child:
    """One process, its pipes and the last of what it wrote to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError("a worker is started with three pipes")
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._stderr_tail = bytearray()
        self._draining = asyncio.create_task(self._drain(process.stderr))
        _children.add(self)

    @classmethod
    async def spawn(cls, target: str) -> "_Child":
        """Start a child; a group of its own keeps the terminal's signals from it until it can ignore them."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # without it the current directory, where people drop files, would be searched for modules
            "-m",
            wire.__name__,
            target,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_CHUNK_BYTES,
            process_group=0,
            env={**os.environ, **_QUIET},
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    @property
    def alive(self) -> bool:
        return self._process.returncode is None and not self._stdout.at_eof()

    async def exchange(self, request: bytes, reply_bytes_max: int) -> tuple[dict[str, object], bytes]:
        self._stdin.write(request)
        await self._stdin.drain()
        header_bytes, body_bytes = wire.PREFIX.unpack(await self._stdout.readexactly(wire.PREFIX.size))
        if header_bytes + body_bytes > reply_bytes_max:
            raise ValueError(f"{header_bytes + body_bytes} bytes, at most {reply_bytes_max} are taken")
        header = _object(await self._stdout.readexactly(header_bytes))
        return header, await self._stdout.readexactly(body_bytes)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, *, kill: bool) -> None:
        """Close its input, which ends an idle child; kill it if asked or slow; wait until it is gone."""
        self._stdin.close()
        if kill:
            self.kill()
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._gone()
        except TimeoutError:
            # It hangs, or a process of its own holds its pipes: waiting for their end could last for ever.
            self.kill()
            with suppress(TimeoutError):  # one that the kernel cannot kill (a dead NFS server) is left to it
                async with asyncio.timeout(END_TIMEOUT_S):
                    await self._process.wait()
            self._draining.cancel()
        except asyncio.CancelledError:
            self.kill()
            raise

    def obituary(self) -> str:
        """Say how it died, with the end of its stderr; for after `end`."""
        code = self.exit_code
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"was killed by {_signal_name(-code)}"
        tail = self._stderr_tail.decode(errors="replace").strip()
        return f"{how}: {tail}" if tail else f"{how}."

    async def _gone(self) -> None:
        while await self._stdout.read(_CHUNK_BYTES):
            pass
        await asyncio.shield(self._draining)
        await self._process.wait()

    async def _drain(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(_CHUNK_BYTES):
            self._stderr_tail += chunk
            del self._stderr_tail[:-STDERR_BYTES_KEPT]


def _object(text: bytes) -> dict[str, object]:
    """Return the JSON object of a reply's header.

    Raises:
        ValueError: it is none.
    """
    try:
        header = json.loads(text)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004 - a broken answer, not a mistake of the caller
    return header


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _result(reply: tuple[dict[str, object], bytes]) -> tuple[dict[str, object], bytes]:
    header, body = reply
    error = header.get("error")
    if isinstance(error, dict):
        raise _revived(error)
    result = header.get("result")
    return (result if isinstance(result, dict) else {}), body


def _revived(error: dict[str, object]) -> TopicdError:
    kind = _ERRORS.get(str(error.get("class")), RetryLater)
    cause, message = str(error.get("cause")), str(error.get("message"))
    words = {"hint": str(error.get("hint", "")), "unit": str(error.get("unit", ""))}
    after_s = error.get("after_s")
    if issubclass(kind, (RetryLater, Unavailable)) and isinstance(after_s, (int, float)):
        return kind(cause, message, **words, after_s=float(after_s))
    return kind(cause, message, **words)
