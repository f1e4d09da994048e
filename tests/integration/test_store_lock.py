"""One daemon a home: the kernel's lock, held by real processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.pipeline import House
from topicd.lock import Taken
from topicd.store import Store

HOLDER = """
import pathlib, sys
from topicd.durable import Durable
from topicd.spool import Spool
from topicd.store import Store

home = pathlib.Path(sys.argv[1])
with Store(Spool(home=home, input_dir=home / "input", output_dir=home / "output"), Durable()).locked({"port": 7}):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    house = House(tmp_path / "home")
    house.drop()
    return house.store()


@contextmanager
def held_by_another(store: Store) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.spool.home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_daemon_is_told_who_holds_the_home(store: Store) -> None:
    with held_by_another(store) as process:
        with pytest.raises(Taken) as caught, store.locked({}):
            pass
        assert str(process.pid) in caught.value.message
        assert store.holder()["pid"] == process.pid
        assert store.holder()["port"] == 7


def test_after_a_kill_nobody_holds_the_home(store: Store) -> None:
    with held_by_another(store) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert store.spool.lock_file.stat().st_size > 0
        assert store.holder() == {}
        with store.locked({}):
            assert store.holder()["pid"] == os.getpid()
    assert store.holder() == {}


def test_the_holder_says_more_later(store: Store) -> None:
    with store.locked({"version": "1"}) as say:
        say({"port": 80})
        assert {**store.holder(), "pid": 0} == {"pid": 0, "run": store.run, "version": "1", "port": 80}
        say({})
        assert store.holder() == {"pid": os.getpid(), "run": store.run, "version": "1"}


def test_a_child_process_does_not_hold_the_home_for_its_parent(store: Store) -> None:
    with store.locked({}):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with store.locked({}):
            pass
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"\xff", b"[" * 4000])
def test_nonsense_in_the_lock_file_is_nobody(store: Store, said: bytes) -> None:
    with held_by_another(store):
        store.spool.lock_file.write_bytes(said)
        assert store.holder() == {}


def test_those_who_only_ask_keep_no_daemon_from_starting(store: Store) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            store.holder()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            with store.locked({}):
                pass
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def test_a_home_without_a_lock_file_has_no_holder(store: Store) -> None:
    assert store.holder() == {}
