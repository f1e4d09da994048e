"""What runs inside a worker process: builds one object and answers calls to its methods until its input ends.

Owns the frame format and the life of the child. Promises that the child dies with its parent, that native
libraries which print or read cannot touch the protocol, and that each request gets exactly one reply, also an
error. Never imports anything heavy itself; the target does.

A frame is two lengths (header, body), a JSON header and raw bytes. The first request carries the target's
options and is answered once the target is built; each later one names a method and its keyword arguments.
"""

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

from topicd.durable import is_storage_trouble, told_of
from topicd.errors import RetryLater, TopicdError, Unusable

PREFIX: Final = struct.Struct(">IQ")
HEADER_BYTES_MAX: Final = 4 * 1024 * 1024
ERROR_CHARS_MAX: Final = 500
INSTALL_HINT: Final = "pip install 'topicd[embedded]', or choose another backend"

_PR_SET_PDEATHSIG: Final = 1
_EXIT_ORPHAN: Final = 3
# Terminals and service managers signal the whole group: whether work in hand ends is the daemon's decision.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def encode(header: Mapping[str, object], body: bytes = b"") -> bytes:
    """Return one frame.

    Raises:
        ValueError: the header is not JSON or longer than `HEADER_BYTES_MAX`.
    """
    text = json.dumps(header).encode()
    if len(text) > HEADER_BYTES_MAX:
        raise ValueError(f"a header of {len(text)} bytes is over the limit of {HEADER_BYTES_MAX}")
    return PREFIX.pack(len(text), len(body)) + text + body


def describe(error: BaseException) -> dict[str, object]:
    """Return the error as JSON: its own words for an error of topicd, type and text for any other."""
    if isinstance(error, OSError) and is_storage_trouble(error):
        error = told_of(error)
    if not isinstance(error, TopicdError):
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
        error = RetryLater("worker_error", text)
    return {
        "class": type(error).__name__,
        "cause": error.cause,
        "message": error.message,
        "hint": error.hint,
        "unit": error.unit,
        "after_s": getattr(error, "after_s", None),
    }


def build(target: str, options: Mapping[str, object]) -> object:
    """Return an instance of `module:Class`, built from the options.

    Raises:
        Unusable: a package it needs is not installed.
    """
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(**options)
    except ImportError as error:
        raise Unusable("embedded_missing", f"A package is missing: {error}.", hint=_install_hint(error)) from error


def _install_hint(error: ImportError) -> str:
    """Return what to install: a shared library comes from the system, not from the package index."""
    if "libgomp" in str(error):
        return "apt install libgomp1"
    return "install that library with the system's packages" if ".so" in str(error) else INSTALL_HINT


def answer(instance: object, request: Mapping[str, Any]) -> bytes:
    """Call the method that the request names and return the reply's frame; an error becomes its reply."""
    try:
        method, payload = request["method"], request["payload"]
        if method.startswith("_"):
            raise AttributeError(f"{method} is not public")  # noqa: TRY301 - answered like any other failure
        header, body = getattr(instance, method)(**payload)
        return encode({"result": header}, body)
    except Exception as error:  # noqa: BLE001 - the parent decides what each error means
        return encode({"error": describe(error)})


def main() -> int:
    """Serve the parent (second argument) with the target (first argument); return the exit code."""
    target, parent_pid = sys.argv[1], int(sys.argv[2])
    _die_with(parent_pid)
    _reset_signals()
    faulthandler.enable()
    requests, replies = _take_pipes()
    first = _read(requests)
    if first is None:
        return 0
    sys.path[:] = first["sys_path"]
    try:
        instance = build(target, first["options"])
    except Exception as error:  # noqa: BLE001 - the parent decides what each error means
        _write(replies, encode({"error": describe(error)}))
        return 1
    _write(replies, encode({"result": {}}))
    while (request := _read(requests)) is not None:
        _write(replies, answer(instance, request))
    return 0


def _die_with(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        # It died before prctl could arm the signal.
        os._exit(_EXIT_ORPHAN)


def _reset_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol off the standard descriptors: prints go to stderr, reads find nothing."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, replies


def _read(requests: BinaryIO) -> dict[str, Any] | None:
    prefix = requests.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header_bytes, _ = PREFIX.unpack(prefix)
    text = requests.read(header_bytes)
    return dict(json.loads(text)) if len(text) == header_bytes else None


def _write(replies: BinaryIO, frame: bytes) -> None:
    replies.write(frame)
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
