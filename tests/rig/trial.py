"""The way to plant a fault in a copy of the package, and to try a test on it.

A fault counts as caught only when the named test fails: an error before it, a skip or a hang proves nothing.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import topicd
from rig.faults import Fault

PACKAGE = Path(topicd.__file__).parent
TESTS = Path(__file__).resolve().parents[1]
LIMIT_S = 120
WAIT_LIMIT_S = 15
QUICKLY = (
    "-p",
    "no:cacheprovider",
    "-p",
    "no:hypothesispytest",
    "-p",
    "no:anyio",
    "-o",
    "addopts=--import-mode=importlib",
)


def sources() -> dict[Path, str]:
    """Return the text of every module of the package."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


def places(fault: Fault, texts: Mapping[Path, str]) -> list[Path]:
    """Return the module of each place where the text that is right is found."""
    return [path for path, text in texts.items() for _ in range(text.count(fault.old))]


def copy(root: Path) -> None:
    """Put a copy of the package into a directory, with its compiled modules: they are known by time and size."""
    shutil.copytree(PACKAGE, root / PACKAGE.name, ignore=shutil.ignore_patterns("*.pyc.*"))


def plant(fault: Fault, root: Path) -> None:
    """Put a copy of the package with the fault into a directory."""
    copy(root)
    (found,) = places(fault, sources())
    module = root / PACKAGE.name / found.relative_to(PACKAGE)
    for compiled in (module.parent / "__pycache__").glob(f"{module.stem}.*"):
        compiled.unlink()
    module.write_text(module.read_text(encoding="utf-8").replace(fault.old, fault.new), encoding="utf-8")


def try_out(tests: Iterable[str], root: Path, limit_s: float = LIMIT_S) -> tuple[int | None, str]:
    """Run tests against the package in a directory. Returns pytest's exit code, None at the limit, and what it said."""
    scratch = root / "scratch"
    scratch.mkdir(exist_ok=True)
    env = {key: value for key, value in os.environ.items() if key != "NO_SKIPS" and not key.startswith("PYTEST_")}
    env["WAIT_LIMIT_S"] = str(WAIT_LIMIT_S)
    env |= {"PYTHONPATH": str(root), "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", *QUICKLY, f"--basetemp={scratch / 'tmp'}"]
    trial = subprocess.Popen(
        [*command, *(f"{TESTS}/{test}" for test in tests)],
        env=env,
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = trial.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, f"no end within {limit_s:g} s"
    else:
        return trial.returncode, said
    finally:
        with contextlib.suppress(ProcessLookupError):  # what the test left running, too
            os.killpg(trial.pid, signal.SIGKILL)
        trial.communicate()


def verdict(code: int | None, said: str) -> str:
    """Return what a trial came to: `caught`, `survived`, or what kept the test from telling."""
    last = said.strip().rpartition("\n")[2]
    if code is None:
        return said
    if code == 1 and re.search(r"\b1 failed\b", last) and "error" not in last:
        return "caught"
    return "survived" if code == 0 and " passed" in last else f"no verdict: {last}"
