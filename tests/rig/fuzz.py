"""Ways to damage a file: its bytes, its JSON, and what stands in its place.

Strategies for hypothesis, and the means to put what they draw onto a disk. Knows nothing of jobs.
"""

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

Harm = Callable[[bytes], bytes]

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 2**63, 10**300, 10**4299])
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["", "../../etc/passwd", "/dev/zero", "\0", "\ud800", "x" * 10_000, "audio", "2026-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
HUGE = {
    "nested": b"[" * 100_000,
    "nested and closed": b'{"scenes":' + b"[" * 900 + b"]" * 900 + b"}",
    "long integer": b'{"bytes":' + b"9" * 100_000 + b"}",
    "long key": b'{"attempts":{"' + b"k" * 100_000 + b'":"x"}}',
    "zeros": bytes(4096),
    "not a number": b'{"accepted_s": NaN}',
}

MANY_KEYS = b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}"


def json_harms() -> st.SearchStrategy[Harm]:
    """Change one value somewhere in a JSON file, drop it, or add one."""
    return st.builds(
        lambda steps, value, way: lambda data: _changed(data, steps, value, way),
        st.lists(st.integers(0, 30), min_size=1, max_size=4),
        VALUES,
        st.sampled_from(["put", "drop", "add"]),
    )


def byte_harms() -> st.SearchStrategy[Harm]:
    """Change a file's bytes anyhow."""
    return st.one_of(
        st.binary(max_size=200).map(lambda new: lambda _: new),
        st.floats(0, 1).map(lambda part: lambda data: data[: int(len(data) * part)]),
        st.builds(
            lambda at, new: lambda data: data[: int(len(data) * at)] + new + data[int(len(data) * at) + len(new) :],
            st.floats(0, 1),
            st.binary(min_size=1, max_size=8),
        ),
        st.sampled_from(sorted(HUGE)).map(lambda name: lambda _: HUGE[name]),
    )


def _changed(data: bytes, steps: list[int], value: object, way: str) -> bytes:
    try:
        root = json.loads(data)
    except ValueError:
        return data + repr(value).encode("utf-8", "surrogatepass")
    parent, key, here = None, None, root
    for step in steps:
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        if not keys:
            break
        parent, key = here, keys[step % len(keys)]
        here = parent[key]
    if parent is None:
        return json.dumps(value).encode()
    if way == "drop":
        del parent[key]
    elif way == "add" and isinstance(parent, dict):
        parent[str(value)[:50]] = value
    else:
        parent[key] = value
    return json.dumps(root).encode()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def _device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _full_directory(path: Path) -> None:
    path.mkdir()
    (path / "mine.txt").write_text("a person's")


def _socket(path: Path) -> None:
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{fd}/{path.name}")
    finally:
        os.close(fd)


def _nothing(path: Path) -> None:
    assert not path.exists()


THINGS: dict[str, Callable[[Path], None]] = {
    "a link": _link,
    "a link to a device": _device_link,
    "a link to itself": _loop,
    "a dangling link": _dangling,
    "a directory": Path.mkdir,
    "a full directory": _full_directory,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "nothing": _nothing,
}


def put(path: Path, thing: str) -> None:
    """Put a thing in the place of a file or directory."""
    clear(path)
    path.parent.mkdir(exist_ok=True)
    THINGS[thing](path)


def clear(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
