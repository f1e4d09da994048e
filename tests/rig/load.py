"""Load on a real daemon: topics that are told apart, a feeder that drops them, the end of what it left.

Each topic holds a marker that is nowhere else, so that a file that holds it is that topic, whatever its name and place.
What must be true of them is in `rig.verdict`.
"""

import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple, Self

from rig.daemon import Daemon, Home
from topicd.states import Stage

SCENES = 2
LOAD = {
    "TOPICD_SCENES": str(SCENES),
    "TOPICD_SCRIPT_JOBS": "4",
    "TOPICD_AUDIO_JOBS": "4",
    "TOPICD_IMAGE_JOBS": "4",
    "TOPICD_ATTEMPTS_MAX": "20",
    "FAKE_SECONDS": "0.01",
}
PROBE_OLD_S = 3600.0
RUN_OUT_LIMIT_S = 300.0

MARKER = re.compile(rb"The marker is ([0-9a-f]{16})\.")


class Topic(NamedTuple):
    """What was dropped."""

    name: str
    title: str
    marker: str

    @property
    def data(self) -> bytes:
        """The file's bytes; the marker comes last, so that a torn file does not hold it."""
        return f"# {self.title}\n\nOf a kind with {self.name}.\nThe marker is {self.marker}.\n".encode()


class Feeder:
    """Drops topics from a thread, some by rename, some by copying slowly, while the backlog is short.

    Attributes:
        dropped: the topics that are whole in `input/`, or were.
    """

    def __init__(self, home: Home, rng: Random, *, backlog_max: int, topics_max: int) -> None:
        self.dropped: list[Topic] = []
        self._home = home
        self._rng = rng
        self._backlog_max = backlog_max
        self._topics_max = topics_max
        self._aside = home.input.with_name("aside")
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="feeder")

    def __enter__(self) -> Self:
        self._aside.mkdir(exist_ok=True)
        self._home.input.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._end.wait(self._rng.uniform(0.005, 0.05)):
                if len(self.dropped) < self._topics_max and backlog(self._home) < self._backlog_max:
                    self._drop(len(self.dropped))
        except BaseException as error:  # noqa: BLE001 - raised again where the test can see it
            self._error = error

    def _drop(self, number: int) -> None:
        target = self._free_name(number)
        topic = Topic(target.name, f"Topic {number:05}", self._rng.randbytes(8).hex())
        if self._rng.random() < 0.3:
            self._copy_slowly(topic.data, target)
        else:
            whole = self._aside / target.name
            whole.write_bytes(topic.data)
            whole.rename(target)
        self.dropped.append(topic)

    def _free_name(self, number: int) -> Path:
        """Return a name that is used again and again, if nothing of that name waits now."""
        again = self._home.input / f"again-{number % 5}.txt"
        return self._home.input / f"topic-{number:05}.md" if again.exists() else again

    def _copy_slowly(self, data: bytes, target: Path) -> None:
        with target.open("xb", buffering=0) as file:
            file.write(data[:20])
            time.sleep(self._rng.uniform(0.02, 0.3))
            file.write(data[20:])


def backlog(home: Home) -> int:
    """Return how many topics wait or are in work."""
    return sum(len(home.ids(stage)) for stage in Stage) + sum(1 for _ in home.input.iterdir())


def processes(home: Home) -> list[int]:
    """Return the processes that live with this home: daemons, their workers, verbs of the command line."""
    said = f"TOPICD_HOME={home.path}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if said in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def run_out(home: Home) -> Daemon:
    """Run a daemon until nothing is left to do.

    Probes left by a death are made old first: recovery leaves young ones alone, which a `topicd check` may be using.
    """
    for path in everything(home):
        if ".topicd-probe-" in path.name:
            os.utime(path, (time.time() - PROBE_OLD_S,) * 2)
    daemon = Daemon(home, "--once")
    try:
        code = daemon.process.wait(RUN_OUT_LIMIT_S)
    finally:
        daemon.close()
    assert code == 0, f"run --once ended with {code}:\n{daemon.log()}"
    return daemon


def everything(home: Home) -> Iterator[Path]:
    """Yield every file and directory of a home, wherever its `input/` and `output/` are."""
    for root in (home.path, home.input, home.output):
        if root == home.path or not root.is_relative_to(home.path):
            yield from root.rglob("*")


def marker_of(data: bytes) -> str:
    """Return the marker in a topic's bytes; empty when they are torn."""
    found = MARKER.search(data)
    return found[1].decode() if found else ""


def say(figures: str) -> None:
    """Tell what a test did; `pytest -s` shows it."""
    sys.stdout.write(f"\n{figures}\n")
