"""An archive being written: a gzipped tar of regular files, hashed as it goes to the disk.

Owns the form that `archive.py` names. Promises that a file which turns out shorter than it was leaves the archive
whole, and is told; that no member is kept in memory; and that writing ends before the disk is filled. Never opens or
renames a file.
"""

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import time
from pathlib import Path
from typing import BinaryIO, Final

from topicd.durable import free_bytes
from topicd.errors import StorageTrouble
from topicd.pinned import Open

COMPRESS_LEVEL: Final = 1


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # bytes or a view of them
        self.sha256.update(view)
        return self._file.write(view)


class _Exactly:
    """An open file read to the length that was promised; what it lacks is read as zeros, and told."""

    def __init__(self, one: Open) -> None:
        self._fd = one.fd
        self._left = one.size
        self.is_cut = False

    def read(self, count: int) -> bytes:
        wanted = min(count, self._left)
        data = b""
        with contextlib.suppress(OSError):
            data = b"" if self.is_cut else os.read(self._fd, wanted)
        self.is_cut = self.is_cut or (wanted > 0 and not data)
        self._left -= len(data) if data else wanted
        return data or bytes(wanted)


class Packer:
    """The archive. `file` must take all that is written to it, as a buffered one does."""

    def __init__(self, file: BinaryIO, folder: Path, min_free_bytes: int) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._out = _Hashed(file)
        self._zip = gzip.GzipFile(fileobj=self._out, mode="wb", compresslevel=COMPRESS_LEVEL, filename="")
        self._tar = tarfile.open(fileobj=self._zip, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see close

    @property
    def sha256(self) -> str:
        """The digest of what was written."""
        return self._out.sha256.hexdigest()

    def close(self) -> None:
        """Write the archive's end.

        Raises:
            OSError: the disk does not take it.
        """
        try:
            self._tar.close()
        finally:
            self._zip.close()

    def room(self) -> None:
        """See that the disk has room for more.

        Raises:
            StorageTrouble: it has less than it is to keep free.
        """
        if free_bytes(self._folder) < self._min_free_bytes:
            what = f"less than {self._min_free_bytes:,} bytes are free in {self._folder}"
            raise StorageTrouble("disk_full", what, hint="free some space, or remove older backups")

    def put(self, name: str, data: bytes) -> None:
        """Add a file of these bytes."""
        self._add(name, len(data), time.time(), io.BytesIO(data))

    def copy(self, name: str, one: Open) -> bool:
        """Add an open file. Tells whether it had the length that it had at first."""
        source = _Exactly(one)
        self._add(name, one.size, one.mtime, source)
        return not source.is_cut

    def _add(self, name: str, size: int, mtime: float, source: object) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, mtime, 0o644
        self._tar.addfile(member, source)  # type: ignore[arg-type]  # it only reads
        self._tar.members = []  # type: ignore[attr-defined]  # it would keep each for a later look
