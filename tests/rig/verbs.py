"""Verbs of the command line in processes that are forked with their libraries loaded.

A verb that is started from nothing spends most of its time on imports. Races want many verbs at once, so these are
forked from a server that has imported everything; each is a process of its own.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess

from rig.daemon import LIMIT_S, Home

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__, "topicd.cli"])


SERVER_LOST = 255
"""What multiprocessing says of a process of which the fork server could not tell the end."""


def forked(home: Home, *args: str) -> CompletedProcess[str]:
    """Run one verb to its end, as `Home.topicd` does."""
    with tempfile.TemporaryDirectory() as aside:
        said = [Path(aside, "out"), Path(aside, "err")]
        process = _SERVER.Process(target=_verb, args=(dict(home.env), home.path, args, said))
        process.start()
        process.join(LIMIT_S)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"not within {LIMIT_S:g} s: topicd {args}")
        out, err = (path.read_text() if path.exists() else "" for path in said)
        code = process.exitcode
        process.close()
    if code == SERVER_LOST and not err:
        return home.topicd(*args)
    return CompletedProcess(args, code, out, err)


def _verb(env: Mapping[str, str], folder: Path, args: tuple[str, ...], said: list[Path]) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    for fd, path in enumerate(said, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    from topicd import cli  # noqa: PLC0415 - only where the server has loaded it

    sys.exit(cli.main(args))
