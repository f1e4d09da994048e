"""A download beside the work: a process that writes at a pace until it is told to stop, like one that fetches a model.

It begins at full speed until the kernel writes back by itself, as it does in the steady state of a long download; then
it prints `writing` and keeps the pace. On SIGTERM it prints the bytes a second it has kept, and removes its files.
With `--write-behind` each chunk is handed to the disk as soon as it is written (`sync_file_range`), and the one before
it is waited for, so that little is ever dirty and little stands in the disk's queue.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Final

FILE_BYTES_MAX: Final = 1_073_741_824
FILES_MAX: Final = 4
WARM_UP_BYTES_MAX: Final = 3_221_225_472
WARM_UP_S_MAX: Final = 20.0
WAIT_BEFORE: Final = 1
WRITE: Final = 2
WAIT_AFTER: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


def hand_over(fd: int, offset: int, length: int, flags: int) -> None:
    """Call sync_file_range(2) on one chunk."""
    span = (ctypes.c_int64(offset), ctypes.c_int64(length))
    if _libc.sync_file_range(fd, *span, ctypes.c_uint(flags)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def is_writing_back() -> bool:
    """Tell whether more is dirty than the kernel lets lie."""
    lines = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    of = {name: int(value) for name, value in lines}
    return of["nr_dirty"] > of["nr_dirty_background_threshold"]


class Download:
    """Files that grow, one after another; the oldest goes when there are too many."""

    def __init__(self, folder: Path, *, chunk_bytes: int, write_behind: bool) -> None:
        self.bytes = 0
        self._folder = folder
        self._write_behind = write_behind
        self._chunk = os.urandom(chunk_bytes)
        self._files: deque[Path] = deque()
        self._fd = -1
        self._offset = FILE_BYTES_MAX

    def go_on(self) -> None:
        """Write one chunk."""
        if self._offset >= FILE_BYTES_MAX:
            self._next_file()
        length = os.write(self._fd, self._chunk)
        if self._write_behind:
            hand_over(self._fd, self._offset, length, WRITE)
            if self._offset:
                hand_over(self._fd, self._offset - length, length, WAIT_BEFORE | WRITE | WAIT_AFTER)
        self._offset += length
        self.bytes += length

    def _next_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if len(self._files) == FILES_MAX:
            self._files.popleft().unlink()
        path = self._folder / f"download-{self.bytes}"
        self._fd, self._offset = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644), 0
        self._files.append(path)

    def remove(self) -> None:
        """Take the files away."""
        for path in self._files:
            path.unlink()


def warm_up(download: Download) -> None:
    """Write until the kernel writes back by itself."""
    end = time.monotonic() + WARM_UP_S_MAX
    while download.bytes < WARM_UP_BYTES_MAX and time.monotonic() < end and not is_writing_back():
        download.go_on()


def keep_pace(download: Download, bytes_a_second: float) -> None:
    """Write at a pace, for ever; a pause that the disk imposed is not made up for."""
    due = time.monotonic()
    while True:
        before = download.bytes
        download.go_on()
        due = max(due + (download.bytes - before) / bytes_a_second, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))


def stop(_number: int, _frame: FrameType | None) -> None:
    """End the loop."""
    raise SystemExit


def main() -> None:
    """Write until SIGTERM."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--bytes-a-second", type=float, default=200e6)
    options.add_argument("--chunk-bytes", type=int, default=1_048_576)
    options.add_argument("--write-behind", action="store_true")
    args = options.parse_args()
    signal.signal(signal.SIGTERM, stop)
    download = Download(args.folder, chunk_bytes=args.chunk_bytes, write_behind=args.write_behind)
    try:
        if not args.write_behind:
            warm_up(download)
        print("writing", flush=True)
        begun, before = time.monotonic(), download.bytes
        with contextlib.suppress(SystemExit):
            keep_pace(download, args.bytes_a_second)
        print((download.bytes - before) / (time.monotonic() - begun), flush=True)
    finally:
        download.remove()
    sys.exit(0)


if __name__ == "__main__":
    main()
