"""Races: everybody at the spool at once, while the daemon works under load.

A person moves jobs about and edits topics; the verbs of the command line hold, release, retry, look, check and back up.
`RACE_S` says for how many seconds (everyday few; `RACE_S=180` for long), `SEED` where the dice start.
"""

import contextlib
import json
import os
import tarfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from subprocess import CompletedProcess
from typing import Self

import pytest

from rig.daemon import Home, load, running, until
from rig.load import LOAD, Feeder, marker_of, run_out, say
from rig.verbs import forked
from rig.verdict import check_end, check_logs, logged, speaking, story
from topicd.cli import EXIT_CODES
from topicd.states import SPOOL_PLACES, Aside, Stage

RACE_S = float(os.environ.get("RACE_S", "8"))
SEED = int(os.environ.get("SEED", "1"))
ROUNDS_MAX = 4
DONE, FAILED, NO_JOB, NOT_NOW, FOUND = 0, 1, 3, 4, 6

# What is to come to pass at least once; on a slow machine that takes longer.
WANTED = ("mv", "edit", "hold 0", "release 0", "retry 0")

# What a person's mv can bring about: a job in a stage whose inputs are not made, or are made from another script.
AUDIO_FIRST = "audio_of_another_script"
REASONS = {"product_missing", AUDIO_FIRST}


class Crowd:
    """Actors in threads, each doing its thing at random until the end.

    Attributes:
        calls: how often each thing was done, by its outcome.
        faults: what should not have happened.
        edits: marker → the texts that topic may have been given.
    """

    def __init__(self, home: Home, feeder: Feeder, *actors: Callable[["Crowd", Random], None]) -> None:
        self.home = home
        self.feeder = feeder
        self.backups = home.path.parent / "backups"
        self.calls = Counter[str]()
        self.faults: list[str] = []
        self.edits = defaultdict[str, list[bytes]](list)
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._act, args=(actor, Random(SEED * 100 + number)), name=actor.__name__)
            for number, actor in enumerate(actors)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _act(self, actor: Callable[["Crowd", Random], None], rng: Random) -> None:
        while not self._end.wait(rng.uniform(0.01, 0.2)):
            try:
                actor(self, rng)
            except Exception as error:  # noqa: BLE001 - told at the end of the test
                self.faults.append(f"{actor.__name__}: {error!r}")

    def job(self, rng: Random, *places: str) -> Path | None:
        """Return a job in one of the places, or a claim that is about to become one; None when there is none."""
        found = [self.home.spool / place / name for place in places for name in self.home.ids(place)]
        return rng.choice(found) if found else None


def move(crowd: Crowd, rng: Random) -> None:
    """Move a job somewhere else, as `mv` does."""
    job = crowd.job(rng, *SPOOL_PLACES)
    if job and (job / "topic.md").exists():
        with contextlib.suppress(FileNotFoundError):
            job.rename(crowd.home.spool / rng.choice(SPOOL_PLACES) / job.name)
            crowd.calls["mv"] += 1


def edit(crowd: Crowd, rng: Random) -> None:
    """Change a held job's topic, as editors do: a new file in its place, or the old one written over."""
    if job := crowd.job(rng, Aside.HELD):
        with contextlib.suppress(FileNotFoundError):
            topic = job / "topic.md"
            text = topic.read_bytes().replace(b"\nThe marker", b"\nOnce more.\nThe marker")
            crowd.edits[marker_of(text)].append(text)
            (replace if rng.random() < 0.5 else overwrite)(topic, text, crowd.home.path.parent / "edited.md")
            crowd.calls["edit"] += 1


def replace(topic: Path, text: bytes, aside: Path) -> None:
    aside.write_bytes(text)
    aside.rename(topic)


def overwrite(topic: Path, text: bytes, _: Path) -> None:
    with topic.open("r+b") as file:
        file.write(text)
        file.truncate()


def order(crowd: Crowd, rng: Random) -> None:
    """Give an order by the command line: to a job wherever it may be by then."""
    verb, places = rng.choice(
        [
            ("hold", [*Stage, Aside.FAILED]),
            ("release", [Aside.HELD]),
            ("retry", [*Stage, Aside.FAILED]),
            ("retry", [Aside.FAILED]),
        ]
    )
    if job := crowd.job(rng, *places):
        command(crowd, {DONE, NO_JOB, NOT_NOW}, verb, job.name)


def retry_all(crowd: Crowd, rng: Random) -> None:
    if rng.random() < 0.2:
        command(crowd, {DONE}, "retry", "--all")


def look(crowd: Crowd, rng: Random) -> None:
    job = crowd.job(rng, *SPOOL_PLACES)
    if job and rng.random() < 0.5:
        command(crowd, {DONE, NO_JOB}, "show", "--json", job.name)
    else:
        command(crowd, {DONE}, "status", "--json")


def check_up(crowd: Crowd, _: Random) -> None:
    """Look for faults; what a person's mv left, such as a job in failed/ without a reason, is one."""
    ended = command(crowd, {DONE, FOUND}, "fsck", "--json")
    crowd.calls.update(f"fsck: {finding['slug']}" for finding in json.loads(ended.stdout)["findings"])


def back_up(crowd: Crowd, _: Random) -> None:
    """Make a backup, and look whether what had been dropped is in it exactly once."""
    before = {topic.marker for topic in crowd.feeder.dropped}
    ended = command(crowd, {DONE, FAILED}, "backup", "--keep", "2", str(crowd.backups))
    if ended.returncode == DONE:
        found = Counter(packed(Path(ended.stdout.strip())))
        twice = [marker for marker, times in found.items() if times > 1]
        if twice or before - {*found}:
            crowd.faults.append(f"in a backup twice: {twice}, not at all: {before - {*found}}\n{ended.stderr}")


def packed(archive: Path) -> Iterator[str]:
    """Yield the markers of the topics in a backup."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith((".md", ".txt")) else None
            if file and (marker := marker_of(file.read())):
                yield marker


def command(crowd: Crowd, codes: set[int], *args: str) -> CompletedProcess[str]:
    """Run a verb to its end; note an exit code that is not among those expected, a traceback, or broken JSON."""
    ended = forked(crowd.home, *args)
    crowd.calls[f"{args[0]} {ended.returncode}"] += 1
    assert codes <= EXIT_CODES.keys(), f"{args[0]}: {codes} are not all documented"
    if ended.returncode not in codes or "Traceback" in ended.stderr:
        crowd.faults.append(f"{args}: exit code {ended.returncode}: {ended.stderr}\n{story(crowd.home, args[-1])}")
    elif "--json" in args and ended.stdout:
        json.loads(ended.stdout)
    return ended


@pytest.fixture
def loaded(home: Home) -> Home:
    """A home whose daemons have several jobs in hand in each stage."""
    home.env.update(LOAD)
    return home


def test_everybody_at_once_and_nothing_is_lost(loaded: Home) -> None:
    began = time.monotonic()
    help_text = loaded.topicd("--help").stdout
    verbs = [actor for verb, actor in LATER.items() if verb in help_text]
    feeder = Feeder(loaded, Random(SEED), backlog_max=16, topics_max=int(RACE_S * 8))
    crowd = Crowd(loaded, feeder, move, edit, order, order, retry_all, look, *verbs)
    crowd.backups.mkdir()
    with speaking(loaded, SEED):
        with running(loaded) as daemon:
            with feeder, crowd:
                time.sleep(RACE_S)
                until(lambda: all(crowd.calls[each] for each in WANTED), f"each of {WANTED} has come to pass")
            assert daemon.stop() == 0
        assert not crowd.faults, "\n".join(crowd.faults[:5])
        judge(loaded)
        let_all_go_on(loaded)
        assert check_end(loaded, feeder.dropped, edits=crowd.edits) == []
        check_logs(loaded)
        assert check_up not in verbs or loaded.topicd("fsck").returncode == DONE
    say(f"{RACE_S:g} s, {len(feeder.dropped)} topics, {time.monotonic() - began:.0f} s in all: {dict(crowd.calls)}")


LATER = {"fsck": check_up, "backup": back_up}


def test_no_verb_that_races_is_missing(home: Home) -> None:
    help_text = home.topicd("--help").stdout
    assert not [verb for verb in LATER if verb not in help_text]


def judge(home: Home) -> None:
    """Check that every error the daemon told of is one that a person's hand explains."""
    errors = [event for event in logged(home) if event["level"] == "error"]
    strange = [each for each in errors if each["event"] != "topicd.job.failed" or each["cause"] not in REASONS]
    assert not strange, f"{strange[:5]}\n{story(home, strange[0].get('job', 'error'))}"


def let_all_go_on(home: Home) -> None:
    """Release and retry what the crowd left, and run to the end, until nothing is put aside."""
    for _ in range(ROUNDS_MAX):
        for name in home.ids(Aside.HELD):
            ended = forked(home, "release", name)
            assert ended.returncode == DONE, ended.stderr
        assert forked(home, "retry", "--all").returncode == DONE
        run_out(home)
        for name in home.ids(Aside.FAILED):
            job = home.spool / Aside.FAILED / name
            if load(job / "reason.json")["cause"] == AUDIO_FIRST:  # what its hint says
                job.rename(home.spool / Stage.AUDIO / name)
        if not any(map(home.ids, SPOOL_PLACES)):
            return
