"""Disks that fall ill on demand: small file systems, read-only covers, ballast, and a tracer that spoils system calls.

Each is a context manager that takes away what it made, in a test that failed too. A machine where this may not be done
skips the test.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOOL_LIMIT_S = 30.0
ATTACH_LIMIT_S = 30.0
BLOCK_BYTES = 4096
INODES_MAX = 100_000
ANY_FSYNC = "?fsync,?fdatasync"


def need_root() -> None:
    """Skip where this user may not mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")


@contextlib.contextmanager
def mounted(target: Path, *arguments: object) -> Iterator[Path]:
    """Mount something for the length of a block.

    Args:
        target: where; made if it is not there.
        arguments: of mount(8), without the target.
    """
    need_root()
    target.mkdir(parents=True, exist_ok=True)
    done = _tool("mount", *arguments, target)
    if done.returncode:
        pytest.skip(f"this root may not mount: {done.stderr.strip()}")
    try:
        yield target
    finally:
        unmount(target)


def unmount(target: Path) -> None:
    """Take the uppermost mount away at once, whoever uses it."""
    _tool("umount", "--lazy", target, check=True)


@contextlib.contextmanager
def tmpfs(target: Path, *, size: str = "16m", inodes: int = 1000) -> Iterator[Path]:
    """Mount a tmpfs of a size and a number of inodes."""
    with mounted(target, "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs"):
        yield target


def regrown(target: Path, *, size: str) -> None:
    """Give a tmpfs another size while it is used."""
    _tool("mount", "-o", f"remount,size={size}", target, check=True)


@contextlib.contextmanager
def ext4(target: Path, image: Path, *, size_bytes: int = 32 << 20, inodes: int = 1024) -> Iterator[Path]:
    """Mount a journalled ext4 that lives in a file and keeps no blocks back for root."""
    need_root()
    image.parent.mkdir(parents=True, exist_ok=True)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    made = _tool("mkfs.ext4", "-q", "-F", "-m", "0", "-N", inodes, image)
    if made.returncode:
        pytest.skip(f"no ext4 can be made here: {made.stderr.strip()}")
    with mounted(target, "-o", "loop", image):
        yield target


@contextlib.contextmanager
def bound(source: Path, target: Path) -> Iterator[Path]:
    """Mount a directory over another: a rename between the two fails with EXDEV, though the disk is one."""
    source.mkdir(parents=True, exist_ok=True)
    with mounted(target, "--bind", source):
        yield target


@contextlib.contextmanager
def read_only(target: Path) -> Iterator[Path]:
    """Make a directory read-only for whoever comes by its path, though files in it are open for writing."""
    with mounted(target, "--bind", target):
        _tool("mount", "-o", "remount,bind,ro", target, check=True)
        yield target


@contextlib.contextmanager
def full(folder: Path, *, but_bytes: int = 0) -> Iterator[Path]:
    """Use up a file system's last byte, or leave some."""
    ballast = folder / ".ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(BLOCK_BYTES))
    if but_bytes:
        os.truncate(ballast, max(0, ballast.stat().st_size - but_bytes))
    try:
        yield folder
    finally:
        ballast.unlink()


@contextlib.contextmanager
def without_inodes(folder: Path) -> Iterator[Path]:
    """Use up a file system's last inode."""
    ballast = folder / ".ballast"
    ballast.mkdir()
    with contextlib.suppress(OSError):
        for number in range(INODES_MAX):
            (ballast / f"{number}").touch()
    try:
        yield folder
    finally:
        shutil.rmtree(ballast)


@contextlib.contextmanager
def spoiled(pid: int, trace: Path, inject: str, *options: str | Path) -> Iterator[Path]:
    """Spoil system calls of a running process and its threads; see strace(1), `inject`.

    Args:
        pid: of the process.
        trace: where the calls that were seen are written, one a line.
        inject: what to do with which calls, such as `fsync:error=EIO`.
        options: more of strace's, such as `-P PATH`, to aim.
    """
    need_tracer()
    calls = inject.partition(":")[0]
    command = ["strace", "-f", "-y", "-o", trace, "-e", f"trace={calls},?rename,?unlink,?rmdir"]
    tracer = subprocess.Popen(
        [*map(str, command), "-e", f"inject={inject}", *map(str, options), "-p", str(pid)],
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: _is_traced(pid), f"strace on {pid}")
        yield trace
    finally:
        if tracer.poll() is None:
            tracer.terminate()
            tracer.wait(TOOL_LIMIT_S)


def need_tracer() -> None:
    """Skip where strace is missing or may not trace."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    if _tool("strace", "-qq", "-o", os.devnull, "true").returncode:
        pytest.skip("strace may not trace here")


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_traced(pid: int) -> bool:
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


def _tool(*command: object, check: bool = False) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=TOOL_LIMIT_S, check=check
    )


def _wait(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + ATTACH_LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"not within {ATTACH_LIMIT_S:g} s: {what}"
        time.sleep(0.02)
