"""One inotify instance, its reader thread, and the bounded way from that thread to the event loop.

Owns watchdog's `InotifyFD` from opening to closing. Promises that the events of all directories reach the
loop in one call, however many they are, that an overflow and the thread's own death hint every directory and
are told, and that what the kernel refuses is raised as an error with words for a person. Knows the file systems
where events do not tell all. Never looks into a directory, never decides what an event means; drops what happens
to names that begin with a dot, which are neither topics nor jobs.

It does without watchdog's observer: that holds every event behind a file that was renamed away for half a
second, and renaming files away is how topics are claimed.
"""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from topicd.errors import StorageTrouble, TopicdError, Unusable

Batch = dict[str, dict[str | None, None]]
"""For each kind an ordered set: names of files that moved in, and None for all else that happened."""

NAMES_MAX: Final = 1_024
"""Names kept for one directory until the loop takes them; the rest become one None."""

Doubt = Literal["reader_died", "unmounted", "directory_replaced"]

POLL_HINT: Final = "Topics are found at intervals instead; set the watch mode to poll to make this the rule."

_JOIN_S: Final = 1.0
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_REMOTE: Final = frozenset(
    ("9p", "ceph", "cifs", "fakeowner", "fuse", "nfs", "nfs4", "prl_fs", "smb3", "vboxsf", "virtiofs")
)

# IN_ATTRIB: chmod can make an unreadable topic readable, and the watcher's self-test needs it.
# The end of a directory needs no bit: the kernel always sends IN_IGNORED.
_ALWAYS: Final = (
    InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_MOVE_SELF
    | InotifyConstants.IN_ONLYDIR
)
# IN_CREATE: a hard link gives nothing else.
_INPUT_MASK: Final = Mask(_ALWAYS | InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_CREATE)
_STAGE_MASK: Final = Mask(_ALWAYS | InotifyConstants.IN_MOVED_FROM | InotifyConstants.IN_DELETE)


class Inbox:
    """What the reader thread has put and the loop has not taken: bounded, one notification outstanding.

    Args:
        notify: called in the putting thread for the first event since the last `take`.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._batch: Batch = {}
        self._notified = False

    def put(self, kind: str, name: str, *, moved_in: bool) -> None:
        """Note an event. A name stays noted only while nothing else happens to that file."""
        with self._lock:
            names = self._batch.setdefault(kind, {})
            names.pop(name, None)
            names[name if moved_in and len(names) < NAMES_MAX else None] = None
            first, self._notified = not self._notified, True
        if first:
            self._notify()

    def take(self) -> Batch:
        """Return what was put since the last call."""
        with self._lock:
            batch, self._batch, self._notified = self._batch, {}, False
        return batch


class _Callback:
    """One directory's events, in the reader thread: an exception here would end that thread."""

    def __init__(self, kind: str, reader: "Reader") -> None:
        self._kind = kind
        self._reader = reader

    def on_event(self, event: InotifyEvent) -> None:
        if event.name.startswith(b"."):  # markers come and go in the stages by the thousand
            return
        if event.mask & InotifyConstants.IN_UNMOUNT:
            self._reader.doubt("unmounted")
        elif event.is_move_self:
            self._reader.doubt("directory_replaced")
        moved_in = event.is_moved_to and not event.mask & InotifyConstants.IN_ISDIR
        self._reader.hear(self._kind, os.fsdecode(event.name), moved_in=moved_in)

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        del wd
        self._reader.doubt("directory_replaced")
        self._reader.hear(self._kind, "", moved_in=False)

    def on_queue_overflow(self) -> None:
        """Nothing: the thread tells the reader, once for all directories."""


class _Thread(InotifyFD):
    """Reads for a `Reader`, and tells it of what watchdog only logs: an overflow, and its own end by an error."""

    def __init__(self, reader: "Reader") -> None:
        super().__init__()
        self._reader = reader

    def run(self) -> None:
        try:
            super().run()
        except Exception:  # noqa: BLE001 - whatever it was, a new thread is the answer
            with self._lock:
                self._is_reading = False  # so that close() gives the descriptors back itself
            self._reader.died()

    def handle_event(self, event: InotifyEvent) -> None:
        if event.is_queue_overflow:
            self._reader.overflow()
        else:
            super().handle_event(event)


class Reader:
    """An open inotify instance and its thread.

    Args:
        deliver: called on the event loop that runs now, with what happened since its last call.
        overflowed: called there once for each time that the kernel dropped events.

    Attributes:
        doubted: why a watch cannot be trusted now; empty while all can.

    Raises:
        Unusable: there are no more inotify instances for this user, or no more open files for this process.
        StorageTrouble: the kernel refuses for another reason.
    """

    def __init__(self, deliver: Callable[[Batch], None], overflowed: Callable[[], None]) -> None:
        self.doubted: Doubt | Literal[""] = ""
        self._loop = asyncio.get_running_loop()
        self._deliver = deliver
        self._overflowed = overflowed
        self._kinds: list[str] = []
        self._inbox = Inbox(self._notify)
        self._closing = False
        try:
            self._fd = _Thread(self)
            self._fd.start()
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            raise _refusal(error) from error

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._fd.is_alive()

    def watch(self, path: Path, kind: str) -> None:
        """Add a directory.

        Args:
            path: the directory; a symbolic link to one is followed.
            kind: `input`, where files arrive, or the name of a stage, where job directories come and go.

        Raises:
            Unusable: there are no more watches for this user, or the directory is not readable.
            StorageTrouble: the kernel refuses for another reason.
        """
        self._kinds.append(kind)
        mask = _INPUT_MASK if kind == "input" else _STAGE_MASK
        try:
            callback = _Callback(kind, self)
            wd = self._fd.add_callback(os.fsencode(path), mask, callback, CallbackId(id(callback)))
            if wd == -1:  # the one refusal that InotifyFD does not raise
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        except OSError as error:
            raise _refusal(error) from error

    def doubt(self, reason: Doubt) -> None:
        """Say that a watch is no longer to be trusted; the first reason stands. In the reader thread."""
        self.doubted = self.doubted or reason

    def hear(self, kind: str, name: str, *, moved_in: bool) -> None:
        """Pass an event on. In the reader thread."""
        if not self._closing:
            self._inbox.put(kind, name, moved_in=moved_in)

    def overflow(self) -> None:
        """Say that events were lost. In the reader thread."""
        self._soon(self._overflowed)
        self._hear_all()

    def died(self) -> None:
        """Say that no more events will be read. In the reader thread, at its end."""
        self.doubted = "reader_died"
        self._hear_all()

    def close(self) -> None:
        """End the thread and give the descriptors back. Nothing is delivered for what happens from now on."""
        self._closing = True
        self._fd.stop()
        self._fd.join(_JOIN_S)

    def _hear_all(self) -> None:
        for kind in tuple(self._kinds):
            self.hear(kind, "", moved_in=False)

    def _notify(self) -> None:
        self._soon(self._hand_over)

    def _soon(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed before us
            self._loop.call_soon_threadsafe(call)

    def _hand_over(self) -> None:
        self._deliver(self._inbox.take())


def _refusal(error: OSError | RuntimeError) -> TopicdError:
    match getattr(error, "errno", None):
        case errno.ENOSPC:
            hint = "sudo sysctl fs.inotify.max_user_watches=524288"
            return Unusable("watch_limit", "The kernel grants this user no more inotify watches.", hint=hint)
        case errno.EMFILE:
            message = "No more inotify instances for this user, or open files for this process."
            hint = "sudo sysctl fs.inotify.max_user_instances=1024, or a higher limit of open files"
            return Unusable("instance_limit", message, hint=hint)
        case errno.EACCES:
            message = f"Not readable: {getattr(error, 'filename', '')}."
            return Unusable("directory_unreadable", message, hint="Give the daemon's user r, w and x on it.")
    return StorageTrouble("watch_failed", f"The directories cannot be watched: {error}.")


def remote_trouble(paths: Sequence[Path]) -> TopicdError | None:
    """Return the trouble of a directory where another machine's changes give no events; no self-test can show that."""
    try:
        mountinfo = _MOUNTINFO.read_text(errors="replace")
        types = {path: _file_system(path.stat().st_dev, mountinfo) for path in paths}
    except OSError:
        return None
    for path, name in types.items():
        if name.partition(".")[0] in _REMOTE:
            message = f"{path} is on {name}, where changes made elsewhere give no events."
            return Unusable("remote_file_system", message, hint=POLL_HINT)
    return None


def _file_system(device: int, mountinfo: str) -> str:
    """Return the type of the file system with that device number (`ext4`, `fuse.sshfs`), or nothing."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mountinfo.splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            return source.split()[0]
    return ""
