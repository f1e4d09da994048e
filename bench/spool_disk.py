"""The file systems that the spool benchmark runs on: what they are, and a journaled ext4 of its own on a loop device.

Promises that what it mounts is unmounted, detached and removed, whatever happens in between. The loop device reads and
writes its image with direct I/O where the file system under it can: without, each flush would fsync the whole image,
every other process's data in it included, which no disk does.
"""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

IMAGE_BYTES: Final = 6_442_450_944
"""Sparse: it takes what is written."""
UNMOUNT_TRIES_MAX: Final = 3


class NoMount(Exception):
    """This machine or user cannot mount a file system of its own."""


def describe(folder: Path) -> str:
    """Return in a few words the file system of a directory and whether it has a journal."""
    kind, device = _mount_of(folder)
    if kind not in {"ext4", "ext3"}:
        return f"{kind} ({device})"
    return f"{kind} {_journal(device)}{_loop(device)} ({device})"


@contextlib.contextmanager
def journaled_ext4(near: Path) -> Iterator[Path]:
    """Make a journaled ext4 in a sparse file in a directory, mount it, and take it away at the end.

    Raises:
        NoMount: it needs root, loop devices and e2fsprogs.
    """
    with tempfile.TemporaryDirectory(dir=near) as name:
        image, mounted = Path(name, "image"), Path(name, "mounted")
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _do("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        with contextlib.ExitStack() as stack:
            device = _do("losetup", "--find", "--show", image).strip()
            stack.callback(subprocess.run, ["losetup", "--detach", device], check=False)
            with contextlib.suppress(NoMount):
                _do("losetup", "--direct-io=on", device)
            stack.callback(_unmount, mounted)
            _do("mount", device, mounted)
            yield mounted


def _do(*command: str | Path) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise NoMount(f"{command[0]} is not there") from error
    except subprocess.CalledProcessError as error:
        raise NoMount(f"{command[0]}: {error.stderr.strip()}") from error


def _unmount(mounted: Path) -> None:
    for attempt in range(UNMOUNT_TRIES_MAX):
        if not mounted.is_mount():
            return
        lazily = ["-l"] if attempt == UNMOUNT_TRIES_MAX - 1 else []
        subprocess.run(["umount", *lazily, mounted], check=False, capture_output=True)


def _mount_of(folder: Path) -> tuple[str, str]:
    """Return the type and the device of a directory's file system, as the kernel lists them."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            kind, source = after.split()[:2]
            return kind, _device(source, wanted)
    return "unknown", wanted


def _device(source: str, number: str) -> str:
    block = Path("/sys/dev/block") / number
    return f"/dev/{block.resolve().name}" if block.exists() else source


def _loop(device: str) -> str:
    direct = Path("/sys/block", Path(device).name, "loop", "dio")
    if not direct.exists():
        return ""
    return f" on a loop device with {'direct' if direct.read_text().strip() == '1' else 'cached'} I/O"


def _journal(device: str) -> str:
    """Tell from the running journals, which need no right to see, whether a device has one."""
    journals = Path("/proc/fs/jbd2")
    if not journals.is_dir():
        return "(whether it has a journal cannot be seen)"
    name = Path(device).name
    has_one = any(entry.name.rpartition("-")[0] == name for entry in journals.iterdir())
    return "with a journal" if has_one else "without a journal"
