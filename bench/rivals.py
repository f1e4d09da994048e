"""What topicd's spool is measured against: a SQLite state table, persist-queue and huey, doing the same durable work.

The work: accept a topic of about 200 bytes, three stages that do nothing, done; each step is durable before the next
one of that job begins. Promises that each rival runs in the fastest form that keeps that, and that `check` finds every
job done in what is on the disk. All three are SQLite inside: journal_mode=WAL, synchronous=FULL, verified.

What "in flight" means for them: so many jobs are accepted, then all of them go through the first stage, and so on.
Each step stays a transaction of its own, for SQLite has one writer at a time; workers are threads that share the jobs.
"""

import importlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

STAGES: Final = ("scripts", "audio", "images")
BUSY_TIMEOUT_S: Final = 60.0
EMPTY_LOOK_S: Final = 0.0005
FULL: Final = 2


class Missing(Exception):
    """A package that only the benchmark needs is not installed."""


class Contestant(Protocol):
    """One way to keep the state of jobs.

    Attributes:
        fsyncs: how many it counted itself in `run`; None when it does not count.
    """

    fsyncs: int | None

    def prepare(self, folder: Path, topics: Sequence[bytes]) -> None:
        """Make an empty store in a folder and get the topics ready; not timed."""
        ...

    def run(self, in_flight: int) -> None:
        """Do every job, so many at once at most; timed."""
        ...

    def check(self) -> None:
        """Raise AssertionError unless every job is done, by a new look at the disk."""
        ...


def package(name: str) -> ModuleType:
    """Return a package that only the benchmark needs.

    Raises:
        Missing: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Missing(f"{name} is not installed: make bench installs it") from error


def windows(topics: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    """Yield the topics in groups of a size."""
    return (topics[start : start + size] for start in range(0, len(topics), size))


def share(work: Callable[[Sequence[bytes], int], None], topics: Sequence[bytes], in_flight: int, workers: int) -> None:
    """Let threads do equal parts of the topics, and raise what any of them raised."""
    workers = max(1, min(workers, in_flight))
    if workers == 1:
        work(topics, in_flight)
        return
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def part(number: int) -> None:
        try:
            work(topics[number::workers], in_flight // workers)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            errors.put(error)

    threads = [threading.Thread(target=part, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not errors.empty():
        raise errors.get()


def assert_full(connection: sqlite3.Connection) -> None:
    """Check that a connection waits for the disk at each commit."""
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (FULL,)


class SqliteTable:
    """A table of jobs with their state; a commit for each step.

    Args:
        workers: threads, each with a connection of its own.
        counts_attempts: whether the begin of each stage is a commit too, as it is in topicd.
        grouped: whether one commit carries a whole window's step: group commit, for comparison.
    """

    def __init__(self, *, workers: int = 1, counts_attempts: bool = False, grouped: bool = False) -> None:
        self.fsyncs: int | None = None
        self._workers = workers
        self._counts_attempts = counts_attempts
        self._grouped = grouped
        self._topics: Sequence[bytes] = ()
        self._path = Path()

    def prepare(self, folder: Path, topics: Sequence[bytes]) -> None:
        """Make the table."""
        self._path, self._topics = folder / "jobs.db", topics
        connection = self._connect()
        connection.execute(
            "CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT NOT NULL, attempts INTEGER NOT NULL, topic BLOB)"
        )
        assert_full(connection)
        connection.close()

    def run(self, in_flight: int) -> None:
        """Insert, then update three times."""
        share(self._work, self._topics, in_flight, self._workers)

    def check(self) -> None:
        """Count what is done."""
        connection = self._connect()
        done = connection.execute("SELECT count(*) FROM job WHERE state = 'done' AND length(topic) > 0").fetchone()
        connection.close()
        assert done == (len(self._topics),), done

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _work(self, topics: Sequence[bytes], in_flight: int) -> None:
        connection = self._connect()
        for window in windows(topics, max(1, in_flight)):
            ids = self._step(connection, [partial(_accept, connection, topic) for topic in window])
            for stage, after in zip(STAGES, (*STAGES[1:], "done"), strict=True):
                if self._counts_attempts:
                    self._step(connection, [partial(_begin, connection, stage, job) for job in ids])
                self._step(connection, [partial(_move, connection, stage, after, job) for job in ids])
        connection.close()

    def _step(self, connection: sqlite3.Connection, verbs: Sequence[Callable[[], int]]) -> list[int]:
        if not self._grouped:
            return [verb() for verb in verbs]
        connection.execute("BEGIN IMMEDIATE")
        done = [verb() for verb in verbs]
        connection.execute("COMMIT")
        return done


def _accept(connection: sqlite3.Connection, topic: bytes) -> int:
    done = connection.execute("INSERT INTO job (state, attempts, topic) VALUES (?, 0, ?)", (STAGES[0], topic))
    return done.lastrowid or 0


def _begin(connection: sqlite3.Connection, stage: str, job: int) -> int:
    connection.execute("UPDATE job SET attempts = attempts + 1 WHERE id = ? AND state = ?", (job, stage))
    return job


def _move(connection: sqlite3.Connection, stage: str, after: str, job: int) -> int:
    connection.execute("UPDATE job SET state = ? WHERE id = ? AND state = ?", (after, job, stage))
    return job


class PersistQueue:
    """Three of persist-queue's SQLiteAckQueue: put into the first; get, put into the next, ack.

    Args:
        workers: threads that share the three queues.
    """

    def __init__(self, *, workers: int = 1) -> None:
        self.fsyncs: int | None = None
        self._workers = workers
        self._topics: Sequence[bytes] = ()
        self._folder = Path()
        self._queues: list[Any] = []

    def prepare(self, folder: Path, topics: Sequence[bytes]) -> None:
        """Make the queues."""
        self._folder, self._topics = folder, topics
        self._queues = self._open()
        for each in self._queues:
            assert_full(each._putter)  # noqa: SLF001 - it has no other way to tell how durable it is

    def run(self, in_flight: int) -> None:
        """Put, and three times get and ack."""
        share(self._work, self._topics, in_flight, self._workers)

    def check(self) -> None:
        """Count what was acknowledged in each queue."""
        for each in self._queues:
            each.close()
        for each in self._open():
            assert each.acked_count() == len(self._topics), each.acked_count()
            each.close()

    def _open(self) -> list[Any]:
        kind = package("persistqueue").SQLiteAckQueue
        return [kind(str(self._folder / stage), multithreading=True, timeout=BUSY_TIMEOUT_S) for stage in STAGES]

    def _work(self, topics: Sequence[bytes], in_flight: int) -> None:
        for window in windows(topics, max(1, in_flight)):
            for topic in window:
                self._queues[0].put(topic)
            for mine, after in zip(self._queues, (*self._queues[1:], None), strict=True):
                for _ in window:
                    self._pass_on(mine, after)

    def _pass_on(self, mine: Any, after: Any) -> None:
        item = mine.get(raw=True, timeout=BUSY_TIMEOUT_S)
        if after is not None:
            after.put(item["data"])
        mine.ack(item)


class Huey:
    """Three of huey's tasks, each of which enqueues the next; the last one's result says that the job is done.

    A task is dequeued and executed through huey's own calls; its consumer polls, which would only be slower. A task in
    hand is gone from its table: a SIGKILL loses it.

    Args:
        workers: threads that dequeue and execute.
    """

    def __init__(self, *, workers: int = 1) -> None:
        self.fsyncs: int | None = None
        self._workers = workers
        self._topics: Sequence[bytes] = ()
        self._path = Path()
        self._huey: Any = None
        self._accept: Callable[[bytes], object] = bool

    def prepare(self, folder: Path, topics: Sequence[bytes]) -> None:
        """Make the tables and the tasks."""
        self._path, self._topics = folder / "huey.db", topics
        self._huey = package("huey").SqliteHuey(filename=str(self._path), fsync=True, timeout=BUSY_TIMEOUT_S)
        assert_full(self._huey.storage.conn)
        task = self._huey.task()

        def images(topic: bytes) -> bool:
            return len(topic) > 0

        def audio(topic: bytes) -> None:
            third(topic)

        def scripts(topic: bytes) -> None:
            second(topic)

        third, second, self._accept = task(images), task(audio), task(scripts)

    def run(self, in_flight: int) -> None:
        """Enqueue, and execute three tasks."""
        share(self._work, self._topics, in_flight, self._workers)

    def check(self) -> None:
        """Count the results."""
        self._huey.storage.close()
        connection = sqlite3.connect(self._path)
        done = connection.execute("SELECT (SELECT count(*) FROM kv), (SELECT count(*) FROM task)").fetchone()
        connection.close()
        assert done == (len(self._topics), 0), done

    def _work(self, topics: Sequence[bytes], in_flight: int) -> None:
        for window in windows(topics, max(1, in_flight)):
            for topic in window:
                self._accept(topic)
            for _ in range(len(window) * len(STAGES)):
                self._huey.execute(self._next())

    def _next(self) -> object:
        end = time.monotonic() + BUSY_TIMEOUT_S
        while (task := self._huey.dequeue()) is None:
            assert time.monotonic() < end, "huey's queue stays empty"
            time.sleep(EMPTY_LOOK_S)
        return task


def topics(count: int) -> list[bytes]:
    """Return topics of about 200 bytes, each another."""
    text = (
        b"For curious readers of about twelve. Say where the salt comes from, why lakes are fresh, and end with a tip."
    )
    return [
        b"# Why the sea is salty, %d of %d, asked by %d\n\n%s\n" % (n, count, os.getpid(), text) for n in range(count)
    ]
