"""A real daemon as a test sees it: the installed command, a home, its log as events, its end.

Every wait has a limit and a condition. What was started is ended by its process id, whatever the test does.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

TOPICD = Path(sys.executable).with_name("topicd")
TESTS = Path(__file__).resolve().parents[1]
FAKES = {
    "TOPICD_SCRIPT_BACKEND": "fakes.backends:FakeScript",
    "TOPICD_AUDIO_BACKEND": "fakes.backends:FakeAudio",
    "TOPICD_IMAGE_BACKEND": "fakes.backends:FakeImage",
    "TOPICD_IMAGE_WIDTH_PX": "256",
    "TOPICD_IMAGE_HEIGHT_PX": "256",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
}
QUICK = {
    "TOPICD_RETRY_FIRST_S": "0.2",
    "TOPICD_DOWN_FIRST_S": "0.2",
    "TOPICD_SETTLE_S": "0.1",
    "TOPICD_RESCAN_S": "2",
}
LIMIT_S = 60.0

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """Return the condition's first true value."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.02)
    return value


class Home:
    """A home directory and the command line on it; `logs`, where its logs go, may be outside."""

    def __init__(self, path: Path, env: Mapping[str, str], *, logs: Path | None = None) -> None:
        self.path = path
        self.logs = logs or path
        self.input = path / "input"
        self.output = path / "output"
        self.spool = path / "spool"
        self._held = self.logs / ".held"
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TOPICD_")},
            "TOPICD_HOME": str(path),
            "TOPICD_METRICS_PORT": "0",
            "TOPICD_LOG_FORMAT": "json",
            "TOPICD_MIN_FREE_BYTES": "0",
            "TOPICD_VOICES_URL": "",  # no test asks a server that it did not start
            "FAKE_HOLD": str(self._held),
            **env,
        }

    def topicd(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run one verb to its end."""
        return subprocess.run(
            [TOPICD, *args],
            env={**self.env, **(env or {})},
            cwd=self.logs,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def ids(self, place: str) -> list[str]:
        """Return the jobs in a place."""
        folder = self.output if place == "output" else self.spool / place
        return (
            sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
            if folder.is_dir()
            else []
        )

    def only(self, place: str, limit_s: float = LIMIT_S) -> Path:
        """Wait for the one job in a place and return its directory."""
        found = until(lambda: self.ids(place), f"a job in {place}", limit_s)
        assert len(found) == 1, found
        return (self.output if place == "output" else self.spool / place) / found[0]

    def drop(self, name: str, data: bytes | str) -> None:
        """Move a whole file into input/."""
        self.input.mkdir(parents=True, exist_ok=True)
        aside = self.path / f".{time.monotonic_ns()}"
        aside.write_bytes(data.encode() if isinstance(data, str) else data)
        aside.rename(self.input / name)

    def hold_calls(self, text: str) -> None:
        """Let calls of the fakes wait whose words have this text in them; those of another text go on.

        What a test does in the middle of a call is then done in its middle, however slow the machine is.
        """
        aside = self._held.with_suffix(".new")
        aside.write_text(text)
        aside.rename(self._held)

    def let_calls_go(self) -> None:
        """Let every call go on."""
        self._held.unlink()

    def reason(self, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """Wait for the one failed job and return its reason."""
        reason: dict[str, Any] = load(self.only("failed", limit_s) / "reason.json")
        return reason


class Daemon:
    """`topicd run` as a process; `under` is a command that runs it, such as a tracer."""

    def __init__(self, home: Home, *args: str, under: Sequence[str] = (), **env: str) -> None:
        self.home = home
        self._log_path = home.logs / f"log-{time.monotonic_ns()}.jsonl"
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*under, TOPICD, "run", *args], env={**home.env, **env}, cwd=home.logs, stderr=log, stdout=log
            )

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the events so far, of one name if given."""
        whole = self._log_path.read_bytes().rpartition(b"\n")[0]  # what is written just now may be cut anywhere
        every = [json.loads(line) for line in whole.decode().splitlines() if line.endswith("}")]
        return [event for event in every if event.get("event") == f"topicd.{name}" or not name]

    def event(self, name: str, limit_s: float = LIMIT_S, **fields: object) -> dict[str, Any]:
        """Wait for an event with these fields."""

        def found() -> dict[str, Any] | None:
            has_ended = self.process.poll() is not None  # before the look: its last words are then in the log
            hits = [event for event in self.events(name) if fields.items() <= event.items()]
            if not hits and has_ended:
                raise AssertionError(f"ended with {self.process.returncode} without {name} {fields}:\n{self.log()}")
            return hits[0] if hits else None

        try:
            got = until(found, f"{name} {fields}", limit_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from error
        assert got is not None
        return got

    def log(self) -> str:
        """Return the end of the log."""
        return self._log_path.read_text()[-6000:]

    def stop(self, number: int = signal.SIGTERM, limit_s: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(limit_s)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(home: Home, *args: str, **env: str) -> Iterator[Daemon]:
    """Run a daemon, ready, for the length of a block."""
    daemon = Daemon(home, *args, **env)
    try:
        daemon.event("daemon.ready")
        yield daemon
    finally:
        daemon.close()


def load(path: Path) -> Any:
    """Return a JSON file's value."""
    return json.loads(path.read_text())
