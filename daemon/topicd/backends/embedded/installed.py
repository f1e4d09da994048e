"""Where installed model packages keep their files, and how files are named in provenance.

Promises to import nothing of those packages and to read no weights. Never loads a model.
"""

import importlib.metadata
from pathlib import Path

from topicd.backends.embedded.worker_main import INSTALL_HINT
from topicd.errors import Unusable


def package_file(package: str, name: str) -> Path:
    """Return the path of a file that a package installed.

    Raises:
        Unusable: the package or the file is missing (`embedded_missing`).
    """
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(name)))
    except importlib.metadata.PackageNotFoundError as error:
        raise Unusable("embedded_missing", f"{package} is not installed.", hint=INSTALL_HINT) from error
    if not path.is_file():
        raise Unusable("embedded_missing", f"{package} lacks its file {name}.", hint=INSTALL_HINT)
    return path


def version(package: str) -> str:
    """Return a package's version, or `missing`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def file_identity(path: Path) -> str:
    """Return a file's name and size in bytes, or say that it is missing; its content is not read."""
    try:
        return f"{path.name}, {path.stat().st_size} bytes"
    except OSError:
        return f"{path.name}, missing"
