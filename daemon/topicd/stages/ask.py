"""How a stage asks a backend, and what comes of it whatever the backend does instead of answering.

Owns the wait for an answer, and the words of what went wrong. Promises that the wait ends soon after its limit, or
after being cancelled, though the backend may not stop; that nothing a backend raises can end the daemon; that an
error which comes out has words of bounded size and a wait that a clock can hold. Never tries again.
"""

import asyncio
import contextlib
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from topicd.errors import Awaited, Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable

CANCEL_TIMEOUT_S: Final = 5.0
WORDS_CHARS_MAX: Final = 4_000
AFTER_S_MAX: Final = 604_800.0

_CAUSE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

# The loop itself holds only weak references to its tasks.
_abandoned: Final = set[asyncio.Task[object]]()

Q = TypeVar("Q")
T = TypeVar("T")


async def ask(method: Callable[[Q], Awaitable[T]], request: Q, kind: type[T], *, unit: str, timeout_s: float) -> T:
    """Wait for a backend's answer, within a limit, and check that it is of the right type.

    A backend that goes on after being cancelled is waited for no longer than `CANCEL_TIMEOUT_S`.

    Args:
        method: of the backend.
        request: its argument.
        kind: what it must return.
        unit: what is being made, for the words of an error.
        timeout_s: the limit, in seconds.

    Raises:
        RetryLater: it took too long, returned something else, or raised what no backend may.
        TopicdError: what the backend raised, with the unit filled in.
        Exception: any other error that the backend raised.
    """
    # In a task of its own, what a backend does to its task is done to nobody else.
    task = asyncio.create_task(_call(method, request))
    try:
        done, _ = await asyncio.wait([task], timeout=timeout_s)
    except asyncio.CancelledError:
        await _stop(task)
        raise
    if not done:
        await _stop(task)
        raise RetryLater(
            "timeout",
            f"the backend did not answer within {timeout_s:g} s{'' if task.done() else ', and does not stop'}",
            hint="if it is only slow, raise the stage's TOPICD_…_TIMEOUT_S",
            unit=unit,
        )
    return _answer(task, kind, unit)


async def _call(method: Callable[[Q], Awaitable[T]], request: Q) -> T:
    try:
        call = method(request)
        if not inspect.isawaitable(call):
            raise _misbehaved(f"the backend returned {type(call).__name__} without being awaited")
        return await call
    except (SystemExit, KeyboardInterrupt) as error:  # asyncio would let these end the daemon
        raise _misbehaved(f"the backend raised {type(error).__name__}") from error


async def _stop(task: asyncio.Task[T]) -> None:
    task.cancel()
    try:
        await asyncio.wait([task], timeout=CANCEL_TIMEOUT_S)
    finally:
        _abandoned.add(task)
        task.add_done_callback(_forget)


def _forget(task: asyncio.Task[T]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not log it as lost


def _answer(task: asyncio.Task[T], kind: type[T], unit: str) -> T:
    if task.cancelled():
        raise _misbehaved("the backend cancelled its own work", unit)
    if (error := task.exception()) is not None:
        told = _told(error, unit)
        if told is error:
            raise told
        raise told from error
    answer = task.result()
    if isinstance(answer, kind):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    raise _misbehaved(f"the backend returned {type(answer).__name__}, not {kind.__name__}", unit)


def _told(error: BaseException, unit: str) -> Exception:
    """Return what may leave here in the place of what a backend raised."""
    if isinstance(error, TopicdError):
        return _bounded(error, unit)
    if isinstance(error, TimeoutError):
        return RetryLater("timeout", f"the backend gave up waiting: {text(error)}", unit=unit)
    if not isinstance(error, Exception):
        return _misbehaved(f"the backend raised {type(error).__name__}", unit)
    with contextlib.suppress(Exception):
        if len(str(error)) <= WORDS_CHARS_MAX:
            return error
    return RuntimeError(f"{type(error).__name__}: {text(error)}")


def _bounded(error: TopicdError, unit: str) -> TopicdError:
    """Return the error, or one of its kind where its words or its wait are not what they should be."""
    said = [getattr(error, name, "") for name in ("cause", "message", "hint", "unit")]
    cause, message, hint = [text(word) for word in said[:3]]
    cause = cause if _CAUSE.fullmatch(cause) else "backend_misbehaved"
    unit = text(said[3]) or unit
    after_s = getattr(error, "after_s", None)
    if said[:3] == [cause, message, hint] and after_s == _wait_s(after_s):
        error.unit = unit
        return error
    if isinstance(error, RetryLater):
        return RetryLater(cause, message, hint=hint, unit=unit, after_s=_wait_s(after_s))
    if isinstance(error, Awaited):
        return Awaited(cause, message, hint=hint, unit=unit, after_s=_wait_s(after_s) or 0.0)
    if isinstance(error, Unavailable):
        return Unavailable(cause, message, hint=hint, unit=unit, after_s=_wait_s(after_s))
    kind = next((kind for kind in (Rejected, Unusable, StorageTrouble) if isinstance(error, kind)), TopicdError)
    return kind(cause, message, hint=hint, unit=unit)


def _wait_s(after_s: object) -> float | None:
    if not isinstance(after_s, int | float) or not math.isfinite(after_s):
        return None
    return min(max(after_s, 0.0), AFTER_S_MAX)


def text(value: object) -> str:
    """Return the words of a value that a backend made: a string, cut to size."""
    try:
        words = str(value)
    except Exception:  # noqa: BLE001 - a backend's object may raise anything
        words = f"<{type(value).__name__}>"
    return words if len(words) <= WORDS_CHARS_MAX else f"{words[:WORDS_CHARS_MAX]}…"


def _misbehaved(what: str, unit: str = "") -> RetryLater:
    hint = "this is a fault of the backend; if it is your own class, mend it"
    return RetryLater("backend_misbehaved", what, hint=hint, unit=unit)
