"""Blocking work beside the event loop.

Owns the threads for it, and what cancelling means there. Promises that work which has begun is waited for to its end,
whatever happens to the caller, so that nobody finds it half-done. Never limits how long that takes.
"""

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Final, ParamSpec, TypeVar

from topicd.durable import told_of
from topicd.errors import StorageTrouble

THREADS_MAX: Final = 8

P = ParamSpec("P")
R = TypeVar("R")


async def offload(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run blocking work in a thread, whole: cancelling the caller waits for its end before it takes effect."""
    try:
        future = asyncio.get_running_loop().run_in_executor(threads(), partial(work, *args, **kwargs))
    except RuntimeError as error:
        raise no_threads() from error
    return await uncut(future)


def no_threads() -> StorageTrouble:
    """Return the trouble of a process that may start no more threads."""
    return told_of(OSError(errno.EAGAIN, "cannot start a thread", "this process"))


@cache
def threads() -> ThreadPoolExecutor:
    """Return threads of our own: the loop's belong to backends too, and a call that never returns keeps its thread."""
    return ThreadPoolExecutor(THREADS_MAX, "topicd")


async def uncut(future: "asyncio.Future[R]") -> R:
    """Wait for what goes on in another thread; a cancelled caller waits for its end before that takes effect."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not log it as lost
        raise


async def whole(work: Awaitable[R]) -> R:
    """Run what must not be cut in two, such as a move and the word of it; a cancelled caller waits for its end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.result()
        raise
