"""What `status` and `show` tell: the same keys whatever state a job is in, and nothing but what the tree holds."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.readyz import answering
from topicd import __version__
from topicd.durable import Durable
from topicd.job import Trouble
from topicd.report import LISTED_MAX, Report, status_text
from topicd.spool import DONE, Found, NoSuchJob, Spool
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Store

TOP = Path(__file__).resolve().parents[2]
STATUS = {"version", "home", "daemon", "ready", "watcher", "servers", "downloads", "warnings", "jobs"} | {
    "open",
    "failed",
    "held",
    "input",
    "free_bytes",
}
STATUS_DAEMON = {"pid", "host", "port", "version"}
STATUS_READY = {"ok", "why"}
STATUS_JOBS = {"scripts", "audio", "images", "failed", "held", "output"}
STATUS_OPEN = {"job", "stage", "state", "source", "error", "hint", "next_try", "unit", "n", "of", "seconds_left"}
STATUS_FAILED = {"job", "at", "stage", "unit", "cause", "message", "hint", "next_try"}
STATUS_HELD = {"job", "source"}
STATUS_INPUT = {"waiting", "ignored", "error"}
STATUS_IGNORED = {"name", "kind"}
SHOW = {
    "job",
    "place",
    "path",
    "state",
    "source",
    "sha256",
    "trace_id",
    "bytes",
    "accepted",
    "attempts",
    "crashes",
    "seconds",
    "downloads",
    "not_before",
    "last_error",
    "reason",
    "progress",
    "products",
}
SHOW_DAMAGED = {"job", "place", "path", "damaged", "reason", "progress", "products", "seconds", "downloads"}
TROUBLE = {"at", "stage", "unit", "cause", "message", "hint", "next_try"}
PROGRESS = {"unit", "n", "of"}
PRODUCT = {"path", "sha256", "bytes", "made_from", "by", "seconds", "at"}

LATE = Trouble("2026-01-01T00:00:00.000Z", "audio", "audio/001", "timeout", "too late", "wait", "")


class Desk:
    """A home whose jobs are in every state."""

    def __init__(self, home: Path) -> None:
        self.spool = Spool(home=home, input_dir=home / "input", output_dir=home / "output")
        self.store = Store(self.spool, Durable())
        self.store.open()
        self.report = Report(self.spool, self.store)

    def job(self, name: str = "a.md", stage: str = Stage.SCRIPTS) -> Found:
        (self.spool.input / name).write_text("# Topic\n")
        job = self.store.claim(self.spool.input / name, sha256="", size=8)
        for each in Stage:
            if each == stage:
                break
            self.store.finish(each, self.store.begin(each, job.id).job)
        return self.spool.find(job.id)

    def working(self) -> Found:
        found = self.job("working.md", Stage.AUDIO)
        self.store.begin(Stage.AUDIO, found.id)
        return found

    def deferred(self) -> Found:
        found = self.job("deferred.md", Stage.AUDIO)
        later = time.time() + 600
        self.store.defer(
            Stage.AUDIO, self.store.begin(Stage.AUDIO, found.id).job, replace(LATE, next_try="2099-01-01"), later
        )
        return found

    def failed(self) -> Found:
        found = self.job("failed.md", Stage.AUDIO)
        self.store.fail(Stage.AUDIO, self.store.begin(Stage.AUDIO, found.id).job, LATE)
        return self.spool.find(found.id)

    def held(self) -> Found:
        return self.store.hold(self.job("held.md", Stage.IMAGES))

    def done(self) -> Found:
        return self.job("done.md", DONE)

    def with_product(self) -> Found:
        found = self.job("product.md", Stage.AUDIO)
        space = self.store.workspace(Stage.AUDIO, found.id)
        space.keep("audio/001.wav", b"RIFF", made_from="x", by={"backend": "fake"}, seconds=0.5, at=time.time())
        return found

    def unreasoned(self) -> Found:
        found = self.failed()
        (found.path / "reason.json").unlink()
        return found

    def damaged(self) -> Found:
        found = self.job("damaged.md")
        (found.path / "job.json").write_text("[")
        return found

    def damaged_manifest(self) -> Found:
        found = self.job("manifest.md", Stage.AUDIO)
        (found.path / "manifest.json").write_text("{")
        return found


STATES: dict[str, Callable[[Desk], Found]] = {
    "waiting": Desk.job,
    "working": Desk.working,
    "deferred": Desk.deferred,
    "failed": Desk.failed,
    "held": Desk.held,
    "done": Desk.done,
}
ODD: dict[str, Callable[[Desk], Found]] = {
    "with a product": Desk.with_product,
    "without a reason": Desk.unreasoned,
    "with a damaged manifest": Desk.damaged_manifest,
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "home")


def read(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as a program reads it."""
    text = json.dumps(document)
    assert text.isascii()
    back: dict[str, Any] = json.loads(text)
    return back


@contextmanager
def locked(desk: Desk, **said: object) -> Iterator[None]:
    """Hold the home as a daemon does, from a process's other descriptor."""
    with desk.store.locked(said) as say:
        say(said)
        yield


def test_an_empty_home_has_every_key(desk: Desk) -> None:
    told = read(desk.report.status())
    assert set(told) == STATUS
    assert set(told["jobs"]) == STATUS_JOBS
    assert set(told["input"]) == STATUS_INPUT
    assert (told["daemon"], told["ready"], told["open"], told["failed"]) == (None, None, [], [])
    assert told["version"] == __version__
    assert told["home"] == str(desk.spool.home)
    assert told["free_bytes"] > 0


def test_a_home_that_is_not_there_yet_is_told(tmp_path: Path) -> None:
    spool = Spool(home=tmp_path, input_dir=tmp_path / "input", output_dir=tmp_path / "output")
    told = read(Report(spool, Store(spool, Durable())).status())
    assert set(told) == STATUS
    assert told["input"]["error"] == "No such file or directory"
    assert not list(tmp_path.iterdir()), "looking makes nothing"


@pytest.mark.parametrize("state", STATES)
def test_each_state_has_its_word_and_the_same_keys(desk: Desk, state: str) -> None:
    found = STATES[state](desk)
    with locked(desk, port=1):
        shown, told = read(desk.report.show(found)), read(desk.report.status())
    assert set(shown) == SHOW
    assert (shown["job"], shown["state"], shown["place"]) == (found.id, state, found.place)
    assert Path(shown["path"]).is_dir()
    check_inner(shown)
    check_lines(told)
    assert sum(told["jobs"].values()) == 1
    if found.place in list(Stage):
        assert [line["state"] for line in told["open"]] == [state]


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_has_the_same_keys_too(desk: Desk, odd: str) -> None:
    found = ODD[odd](desk)
    shown, told = read(desk.report.show(found)), read(desk.report.status())
    assert set(shown) == SHOW
    check_inner(shown)
    check_lines(told)


def test_a_damaged_job_is_shown_as_such(desk: Desk) -> None:
    found = desk.damaged()
    shown, told = read(desk.report.show(found)), read(desk.report.status())
    assert set(shown) == SHOW_DAMAGED
    assert "job.json is damaged" in shown["damaged"]
    check_lines(told)
    assert [line["state"] for line in told["open"]] == ["damaged"]


def check_inner(shown: dict[str, Any]) -> None:
    for key, keys in (("reason", TROUBLE), ("last_error", TROUBLE), ("progress", PROGRESS)):
        assert shown[key] is None or set(shown[key]) == keys, key
    for product in shown["products"] or []:
        assert set(product) == PRODUCT


def check_lines(told: dict[str, Any]) -> None:
    assert set(told) == STATUS
    for line in told["open"]:
        assert set(line) == STATUS_OPEN
    for line in told["failed"]:
        assert set(line) == STATUS_FAILED
    for line in told["held"]:
        assert set(line) == STATUS_HELD


def test_a_failure_is_told_with_the_words_of_its_reason(desk: Desk) -> None:
    found = desk.failed()
    [line] = read(desk.report.status())["failed"]
    assert line == {
        "job": found.id,
        "at": LATE.at,
        "stage": "audio",
        "unit": "audio/001",
        "cause": "timeout",
        "message": "too late",
        "hint": "wait",
        "next_try": "",
    }
    assert read(desk.report.show(found))["reason"]["message"] == "too late"


def test_an_attempt_of_a_dead_daemon_is_no_work(desk: Desk) -> None:
    found = desk.working()
    assert desk.report.show(found)["state"] == "waiting"
    other = Store(desk.spool, Durable())
    with other.locked({"port": 1}):
        assert desk.report.show(found)["state"] == "waiting"


def test_a_wait_that_is_over_is_none(desk: Desk) -> None:
    found = desk.job()
    begun = desk.store.begin(Stage.SCRIPTS, found.id).job
    desk.store.defer(Stage.SCRIPTS, begun, LATE, time.time() - 1)
    assert desk.report.show(found)["state"] == "waiting"


def test_progress_counts_units(desk: Desk) -> None:
    found = desk.job(stage=Stage.AUDIO)
    space = desk.store.workspace(Stage.AUDIO, found.id)
    scenes = {"title": "T", "language": "en", "voice": "", "style": "", "seed": 1}
    text = json.dumps({**scenes, "scenes": [{"narration": "N", "picture": "P"}] * 3})
    keep = {"made_from": "x", "by": {"backend": "fake"}, "seconds": 0.5, "at": time.time()}
    space.keep("scenes.json", text.encode(), **keep)  # type: ignore[arg-type]
    space.keep("audio/001.wav", b"RIFF", **keep)  # type: ignore[arg-type]
    assert desk.report.show(found)["progress"] == {"unit": "audio", "n": 1, "of": 3}
    [line] = desk.report.status()["open"]
    assert (line["unit"], line["n"], line["of"]) == ("audio", 1, 3)


SCENES_3 = {"title": "T", "language": "en", "voice": "", "style": "", "seed": 1} | {
    "scenes": [{"narration": "N", "picture": "P"}] * 3
}


def test_the_seconds_of_a_unit_count_once_and_stages_have_their_order(desk: Desk) -> None:
    found = desk.job(stage=Stage.AUDIO)
    desk.store.begin(Stage.AUDIO, found.id)
    space = desk.store.workspace(Stage.AUDIO, found.id)
    for path, data, made_from, seconds in (
        ("audio/001.json", b"[]", "scene 1", 2.0),
        ("audio/001.wav", b"RIFF", "scene 1", 2.5),
        ("script.md", b"# T", "topic", 8.0),
        ("scenes.json", json.dumps(SCENES_3).encode(), "topic", 8.25),
    ):
        space.keep(path, data, made_from=made_from, by={}, seconds=seconds, at=time.time())
    with locked(desk, run=desk.store.run):
        seconds_told = desk.report.show(found)["seconds"]
        [line] = desk.report.status()["open"]
    assert list(seconds_told.items()) == [("scripts", 8.25), ("audio", 2.5)]
    assert (line["n"], line["seconds_left"]) == (1, 5.0)


def test_held_jobs_are_named(desk: Desk) -> None:
    found = desk.held()
    told = desk.report.status()
    assert told["held"] == [{"job": found.id, "source": "held.md"}]
    assert f"held    {found.id}  (from held.md)" in list(status_text(told))


def test_a_name_of_no_job_is_told_where_each_can_be_found(desk: Desk) -> None:
    with pytest.raises(NoSuchJob) as caught:
        desk.spool.find("nobody")
    assert "open, failed or held" in caught.value.hint
    assert str(desk.spool.output) in caught.value.hint


def test_the_keys_of_status_are_those_of_the_documentation(desk: Desk) -> None:
    text = (TOP / "docs" / "ARCHITECTURE.md").read_text()
    rows = text.partition("<!-- status keys: begin -->")[2].partition("<!-- status keys: end -->")[0].splitlines()[3:]
    keys = {key for row in rows for key in re.findall("`([a-z_]+)`", row.split("|")[1])}
    assert keys == set(desk.report.status())


def test_only_so_many_are_listed_and_all_are_counted(desk: Desk) -> None:
    for place in SPOOL_PLACES:
        for number in range(LISTED_MAX + 5):
            (desk.spool.place(place) / f"2026-{number:03}").mkdir()
    for number in range(LISTED_MAX + 5):
        (desk.spool.input / f"{number}.part").touch()
    told = desk.report.status()
    lists = (told["open"], told["failed"], told["held"], told["input"]["ignored"])
    assert [len(each) for each in lists] == [LISTED_MAX] * 4
    assert told["jobs"] == {**dict.fromkeys(map(str, SPOOL_PLACES), LISTED_MAX + 5), "output": 0}
    assert told["failed"][-1]["job"] == f"2026-{LISTED_MAX + 4:03}", "the latest failures"


def test_what_waits_in_input_is_counted_and_what_stays_is_named(desk: Desk) -> None:
    (desk.spool.input / "a.md").write_text("# A\n")
    (desk.spool.input / "folder").mkdir()
    told = read(desk.report.status())["input"]
    assert told == {"waiting": 1, "ignored": [{"name": "folder", "kind": "directory"}], "error": ""}
    assert set(told["ignored"][0]) == STATUS_IGNORED


def test_looking_changes_nothing(desk: Desk) -> None:
    for make in STATES.values():
        make(desk)
    before = {path: path.lstat().st_mtime_ns for path in desk.spool.home.rglob("*")}
    desk.report.status()
    for place in (*SPOOL_PLACES, DONE):
        for name in desk.spool.ids(place):
            desk.report.show(Found(place, name, desk.spool.place(place) / name))
    assert {path: path.lstat().st_mtime_ns for path in desk.spool.home.rglob("*")} == before


def test_a_job_that_moves_between_two_looks_is_no_error(desk: Desk) -> None:
    found = desk.job()
    desk.store.hold(found)
    assert desk.report.show(found)["damaged"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"ok": true, "why": []}', {"ok": True, "why": []}),
        (503, b'{"ok": false, "why": ["audio waits: off"]}', {"ok": False, "why": ["audio waits: off"]}),
        (200, b"<html>", None),
        (200, b"[1]", None),
        (200, b'{"ok": true', None),
        (200, b"\xff" * 100, None),
        (200, b"[" * 65_000, None),
        (200, b"{}", None),
        (200, b'{"ok": "x", "why": 3}', None),
    ],
)
def test_whatever_answers_at_the_daemons_port_is_told_in_one_form(
    desk: Desk, status: int, body: bytes, expected: dict[str, Any] | None
) -> None:
    with answering(status, body) as port, locked(desk, version="1", host="127.0.0.1", port=port):
        told = read(desk.report.status())
    assert set(told["daemon"]) == STATUS_DAEMON
    assert set(told["ready"]) == STATUS_READY
    assert isinstance(told["ready"]["ok"], bool)
    assert all(isinstance(why, str) for why in told["ready"]["why"])
    if expected is not None:
        assert told["ready"] == expected
    else:
        assert told["ready"]["ok"] is False
        assert told["ready"]["why"]


WATCHER = {
    "mode": "poll",
    "up": True,
    "trouble": "No more.",
    "hint": "sysctl",
    "restarts": 1,
    "overflows": 2,
    "wake_failures": 3,
    "cause": "watch_limit",
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (WATCHER, WATCHER),
        ({**WATCHER, "new": 1}, WATCHER),
        ({key: WATCHER[key] for key in WATCHER if key != "cause"}, {**WATCHER, "cause": ""}),
        ({**WATCHER, "restarts": "1"}, None),
        ({"mode": "poll"}, None),
        ([1], None),
    ],
)
def test_the_watcher_is_told_as_the_daemon_tells_it_or_not_at_all(desk: Desk, said: Any, expected: Any) -> None:
    body = json.dumps({"ok": True, "why": [], "watcher": said}).encode()
    with answering(200, body) as port, locked(desk, version="1", host="127.0.0.1", port=port):
        assert read(desk.report.status())["watcher"] == expected


SERVER = {
    "stage": "scripts",
    "server": "gpu:11434",
    "state": "open",
    "since": "2026-01-01T00:00:00.000Z",
    "trouble": "away",
    "calls": 1,
    "waiting": 2,
    "note": "pulling llama3.2: 34 %",
    "cause": "connect_refused",
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([SERVER], [SERVER]),
        ([{**SERVER, "new": 1}, {"stage": "audio"}, 3], [SERVER]),
        ([{key: SERVER[key] for key in SERVER if key != "cause"}], [{**SERVER, "cause": ""}]),
        ([{**SERVER, "since": None}], []),
        ({"a": 1}, []),
        (None, []),
    ],
)
def test_the_servers_are_told_as_the_daemon_tells_them(desk: Desk, said: Any, expected: Any) -> None:
    body = json.dumps({"ok": True, "why": [], "servers": said, "warnings": ["beware", 1]}).encode()
    with answering(200, body) as port, locked(desk, version="1", host="127.0.0.1", port=port):
        told = read(desk.report.status())
    assert told["servers"] == expected
    assert told["warnings"] == ["beware"]


DOWNLOAD = {"name": "pt_BR-faber-medium", "have": 500_000, "total": 2_000_000, "rate": 1e6, "note": "waits"}


@pytest.mark.parametrize(
    ("said", "expected", "line"),
    [
        (DOWNLOAD, DOWNLOAD, "fetches pt_BR-faber-medium: 25 % of 2.0 MB, 1.0 MB/s; waits"),
        ({**DOWNLOAD, "total": None, "new": 1}, {**DOWNLOAD, "total": None}, "fetches pt_BR-faber-medium: 0.5 MB, 1.0"),
        ({**DOWNLOAD, "have": "much"}, None, ""),
        (3, None, ""),
    ],
)
def test_the_downloads_are_told_as_the_daemon_tells_them(desk: Desk, said: Any, expected: Any, line: str) -> None:
    body = json.dumps({"ok": True, "why": [], "downloads": [said]}).encode()
    with answering(200, body) as port, locked(desk, version="1", host="127.0.0.1", port=port):
        told = read(desk.report.status())
    assert told["downloads"] == ([expected] if expected else [])
    assert line in "\n".join(status_text(told))


def test_each_server_has_a_line(desk: Desk) -> None:
    well = {**SERVER, "state": "closed", "since": "", "trouble": "", "note": ""}
    body = json.dumps({"ok": True, "why": [], "servers": [SERVER, well], "warnings": ["beware"]}).encode()
    with answering(200, body) as port, locked(desk, version="1", host="127.0.0.1", port=port):
        lines = list(status_text(read(desk.report.status())))
    assert [line for line in lines if line.startswith("server")] == [
        "server  gpu:11434 for scripts: open since 2026-01-01T00:00:00.000Z: away; pulling llama3.2: 34 %",
        "server  gpu:11434 for scripts: well, 1 under way, 2 waiting",
    ]
    assert "        warning: beware" in lines


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9/"),  # noqa: S104 - a value to be read
        ("::", "http://[::1]:9/"),
        ("fd00::1", "http://[fd00::1]:9/"),
        ("gpu", "http://gpu:9/"),
    ],
)
def test_the_page_has_an_address_that_can_be_opened(desk: Desk, host: str, url: str) -> None:
    told = {**desk.report.status(), "daemon": {"pid": 7, "host": host, "port": 9, "version": "1"}}
    assert f"daemon  running, process 7, {url}" in list(status_text(told))


def test_a_daemon_that_does_not_answer_is_told(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with locked(desk, version="1", host="127.0.0.1", port=port):
        told = read(desk.report.status())
    assert told["ready"]["ok"] is False
    assert "does not answer" in told["ready"]["why"][0]


def test_a_name_of_any_bytes_is_told_in_ascii(desk: Desk) -> None:
    found = desk.job("\udcff\x1b[31m.md")
    shown = desk.report.show(found)
    assert json.loads(json.dumps(shown))["source"] == "\udcff\x1b[31m.md"
    assert json.dumps(shown).isascii()


def test_the_key_sets_are_of_the_places_that_exist() -> None:
    assert {*map(str, SPOOL_PLACES), DONE} == STATUS_JOBS
    assert str(Aside.HELD) in STATUS_JOBS


@pytest.mark.parametrize(
    ("free", "words"),
    [(1_500_000_000, "1.5 GB"), (1_000_000_000, "1.0 GB"), (999_000_000, "999.0 MB"), (40_000, "0.0 MB")],
)
def test_free_space_is_told_in_a_unit_that_shows_it(desk: Desk, free: int, words: str) -> None:
    assert f"disk    {words} free" in list(status_text({**desk.report.status(), "free_bytes": free}))


def test_what_the_watcher_lacks_is_told_once(desk: Desk) -> None:
    told = {
        **desk.report.status(),
        "ready": {"ok": False, "why": ["No more.", "audio waits: off (turn it on)"]},
        "watcher": {**WATCHER, "up": False},
    }
    lines = list(status_text(told))
    assert lines.count("        ! No more.") == 1
    assert lines.count("        ! audio waits: off (turn it on)") == 1
