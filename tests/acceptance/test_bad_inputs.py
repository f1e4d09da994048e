"""What people drop that is no topic: each ends with its own cause or stays where it is, and the next good one is done.

One daemon takes them all, one after another: nothing in this file may end it or hold it up.
"""

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from rig.daemon import FAKES, LIMIT_S, QUICK, TOPICD, Daemon, Home, load, running, until

BYTES_MAX = 4096
IS_ROOT = os.geteuid() == 0
# Root reads everything but for these: without them an unreadable file is one.
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@dataclass
class Desk:
    """A daemon and the person who drops things on it."""

    home: Home
    daemon: Daemon
    numbers: Iterator[int]

    def drop(self, name: str, data: bytes | str) -> None:
        self.home.drop(name, data)

    def job(self, source: str) -> str:
        """Wait until the one job of a file is accepted and return its id."""
        accepted = self.daemon.event("job.accepted", source=source.encode("utf-8", "backslashreplace").decode())
        return str(accepted["job"])

    def refused(self, name: str, data: bytes | str) -> dict[str, Any]:
        """Drop a file that is no topic and return why; what was dropped is kept byte for byte."""
        self.drop(name, data)
        folder = self.home.spool / "failed" / self.job(name)
        until((folder / "reason.json").is_file, f"{name} in failed/")
        assert (folder / "topic.md").read_bytes() == (data.encode() if isinstance(data, str) else data)
        assert load(folder / "job.json")["source"] == name
        assert not (self.home.input / name).exists()
        reason: dict[str, Any] = load(folder / "reason.json")
        assert (reason["stage"], reason["next_try"]) == ("scripts", "")
        assert reason["message"]
        assert reason["hint"]
        return reason

    def done(self, name: str, data: bytes | str = "# Good\n\nIt is.\n") -> Path:
        """Drop a good topic and return its folder."""
        self.drop(name, data)
        return self.finished(name)

    def finished(self, source: str) -> Path:
        folder = self.home.output / self.job(source)
        self.daemon.event("job.done", job=folder.name)
        return folder

    def goes_on(self) -> None:
        """The daemon is up, and a good topic is done."""
        assert self.daemon.process.poll() is None, self.daemon.log()
        self.done(f"good-{next(self.numbers)}.md")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the log's lines that tell of a name in input/."""
        return [event for event in self.daemon.events() if event.get("name") == name]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Daemon]]:
    home = Home(tmp_path_factory.mktemp("bad") / "home", {**FAKES, **QUICK, "TOPICD_SCENES": "1"})
    home.path.mkdir()
    with running(home, TOPICD_TOPIC_BYTES_MAX=str(BYTES_MAX), TOPICD_SCENES_MAX="7") as daemon:
        yield home, daemon


NUMBERS = count()


@pytest.fixture
def desk(house: tuple[Home, Daemon]) -> Iterator[Desk]:
    desk = Desk(*house, NUMBERS)
    yield desk
    clear(desk.home.input)
    desk.goes_on()


def words(reason: dict[str, Any], cause: str, *expected: str) -> None:
    assert reason["cause"] == cause, reason
    for word in expected:
        assert word in reason["message"] + reason["hint"], reason


def test_an_empty_file(desk: Desk) -> None:
    words(desk.refused("empty.md", b""), "topic_empty")


def test_a_blank_file(desk: Desk) -> None:
    words(desk.refused("blank.txt", " \n\t\r\n\n\u00a0\n"), "topic_empty")


def test_only_front_matter(desk: Desk) -> None:
    words(desk.refused("front-only.md", "---\nscenes: 2\n---\n"), "topic_empty")


def test_front_matter_with_a_title_is_a_topic(desk: Desk) -> None:
    folder = desk.done("titled.md", "---\ntitle: Dunes\n---\n")
    assert load(folder / "scenes.json")["title"] == "Dunes"


def test_what_is_not_text(desk: Desk) -> None:
    words(
        desk.refused("picture.md", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + os.urandom(900)), "topic_not_text", "plain text"
    )


def test_what_is_not_utf_8(desk: Desk) -> None:
    words(desk.refused("mare.md", "# A maré\n".encode("latin-1")), "topic_not_utf8", "0xE9", "offset 7", "Latin-1")


def test_a_file_over_the_limit(desk: Desk) -> None:
    words(
        desk.refused("long.md", b"x" * (BYTES_MAX + 1)), "topic_too_large", "4,097", "4,096", "TOPICD_TOPIC_BYTES_MAX"
    )


def test_a_file_of_just_the_limit_is_a_topic(desk: Desk) -> None:
    desk.done("brim.md", b"# Brim\n\n" + b"x" * (BYTES_MAX - 8))


def test_a_huge_sparse_file_is_refused_without_being_read(desk: Desk) -> None:
    aside = desk.home.path / "sparse"
    with aside.open("wb") as file:
        file.truncate(1 << 40)
    aside.rename(desk.home.input / "sparse.md")
    folder = desk.home.spool / "failed" / desk.job("sparse.md")
    until((folder / "reason.json").is_file, "the reason")
    words(load(folder / "reason.json"), "topic_too_large", "1,099,511,627,776")


def test_broken_front_matter_says_the_line(desk: Desk) -> None:
    words(desk.refused("broken.md", "---\nscenes: 2\ntitle: [a\n---\n# T\n"), "front_matter_broken", "line 4")


def test_front_matter_that_is_never_closed(desk: Desk) -> None:
    words(desk.refused("open.md", "---\nscenes: 2\n# T\n"), "front_matter_broken", "line 1", "never closed")


def test_an_unknown_key_says_line_and_key(desk: Desk) -> None:
    reason = desk.refused("key.md", "---\nscenes: 2\nsceens: 3\n---\n# T\n")
    words(reason, "front_matter_unknown", "line 3", "sceens", "Did you mean scenes?")


@pytest.mark.parametrize("value", ["many", "0", "8", "-1", "2.5", "[1, 2]", '"3"', "1e999", "yes"])
def test_a_wrong_value_says_line_and_bounds(desk: Desk, value: str) -> None:
    reason = desk.refused(f"value-{next(NUMBERS)}.md", f"---\nscenes: {value}\n---\n# T\n")
    words(reason, "front_matter_value", "line 2", "scenes", "1 to 7")


def test_a_yaml_bomb_is_refused(desk: Desk) -> None:
    bomb = "---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n# T\n"
    words(desk.refused("bomb.md", bomb), "front_matter_broken", "anchors")


NAMES = [
    "two\nlines.md",
    "x...md",
    "a..b.txt",
    "-rf.md",
    "--help.txt",
    "\x1b[31mred\x1b[0m\a.md",
    "🌊 tides 🌊.md",
    "maré.MD",
    " leading and trailing .md",
    "%s{0}$HOME`id`;'\".md",
    "topic.md",
    "job.json.md",
    f"{'n' * 252}.md",
    f"{'é' * 126}.md",
    f"{'n' * 251}.txt",
    "\udcff\udcfe.md",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[1:-1][:30])
def test_any_name_is_a_job(desk: Desk, name: str) -> None:
    folder = desk.done(name, "# Good\n")
    assert load(folder / "job.json")["source"] == name
    assert folder.name.isascii()
    assert folder.name.replace("-", "").isalnum()
    assert not (desk.home.input / name).exists()


def test_two_files_of_one_name_are_two_jobs(desk: Desk) -> None:
    for text in ("# One\n", "# Two\n"):
        desk.drop("twin.md", text)
        until(lambda: not (desk.home.input / "twin.md").exists(), "the topic is taken")
    until(lambda: len(twins(desk)) == 2, "both are accepted")
    for job in twins(desk):
        desk.daemon.event("job.done", job=job)
    assert {load(desk.home.output / job / "scenes.json")["title"] for job in twins(desk)} == {"One", "Two"}


def twins(desk: Desk) -> list[str]:
    return [event["job"] for event in desk.daemon.events("job.accepted") if event["source"] == "twin.md"]


ACCEPTED = {
    "utf-16-le": b"\xff\xfe" + "# Mar\u00e9\n\nSobe.\n".encode("utf-16-le"),
    "utf-16-be": b"\xfe\xff" + "# Mar\u00e9\n\nSobe.\n".encode("utf-16-be"),
    "utf-8-bom": b"\xef\xbb\xbf" + "# Mar\u00e9\n\nSobe.\n".encode(),
    "crlf": "# Mar\u00e9\r\n\r\nSobe.\r\n".encode(),
    "cr": "# Mar\u00e9\r\rSobe.\r".encode(),
    "bom-crlf-front": b"\xef\xbb\xbf" + "---\r\nscenes: 1\r\n---\r\n# Mar\u00e9\r\n".encode(),
    "no-newline": "Mar\u00e9".encode(),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_every_form_of_text_is_taken_and_kept_as_it_came(desk: Desk, form: str) -> None:
    folder = desk.done(f"{form}.md", ACCEPTED[form])
    assert load(folder / "scenes.json")["title"] == "Mar\u00e9"
    assert (folder / "topic.md").read_bytes() == ACCEPTED[form]


class Pry:
    """Waits in a process of its own to write to a FIFO; it gets through only when somebody opens the other end."""

    def __init__(self, fifo: Path) -> None:
        os.mkfifo(fifo)
        self._writer = subprocess.Popen(["sh", "-c", 'echo; exec 3>"$1"', "sh", fifo], stdout=subprocess.PIPE)
        assert self._writer.stdout
        self._writer.stdout.readline()
        # An opening before it waits would not be noticed; it has nothing else to sleep for.
        stat = Path(f"/proc/{self._writer.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "the writer waits")

    @property
    def was_opened(self) -> bool:
        return self._writer.poll() is not None

    def close(self) -> None:
        self._writer.kill()
        self._writer.communicate()


@pytest.fixture
def pried(tmp_path: Path) -> Iterator[tuple[Path, Pry]]:
    pry = Pry(tmp_path / "pried")
    yield tmp_path / "pried", pry
    pry.close()


def test_the_pry_notices_an_opening(pried: tuple[Path, Pry]) -> None:
    path, pry = pried
    assert not pry.was_opened
    until(lambda: opened(path, pry), "the writer gets through")


def opened(path: Path, pry: Pry) -> bool:
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    return pry.was_opened


def put_kinds(folder: Path, aside: Path, fifo: Path) -> dict[str, str]:
    """Put one thing of each kind that is no file into a folder; returns the kind of each name."""
    target = aside / "target.md"
    target.write_text("# Not dropped\n")
    (aside / "inner").mkdir()
    (aside / "inner" / "deep.md").write_text("# Deep\n")
    (folder / "link.md").symlink_to(target)
    (folder / "pried-link.md").symlink_to(fifo)
    (folder / "dangling.md").symlink_to(aside / "nowhere")
    (folder / "link-to-directory.md").symlink_to(aside / "inner")
    shutil.copytree(aside / "inner", folder / "directory.md")
    fifo.rename(folder / "pipe.md")
    fifo.symlink_to(folder / "pipe.md")
    bind(folder, "socket.md")
    kinds = dict.fromkeys(("link.md", "pried-link.md", "dangling.md", "link-to-directory.md"), "symbolic link")
    kinds |= {"directory.md": "directory", "pipe.md": "named pipe", "socket.md": "socket"}
    if IS_ROOT:
        with contextlib.suppress(PermissionError):
            os.mknod(folder / "device.md", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            kinds["device.md"] = "device"
    return kinds


def test_what_is_no_file_is_never_opened_stays_and_is_told_once(
    desk: Desk, tmp_path: Path, pried: tuple[Path, Pry]
) -> None:
    fifo, pry = pried
    kinds = put_kinds(desk.home.input, tmp_path, fifo)
    desk.goes_on()
    for name in kinds:
        until(lambda name=name: desk.lines(name), f"a line that tells of {name}")  # type: ignore[misc]
    for _ in range(3):
        desk.goes_on()  # with a scan of its own
        assert {name: len(desk.lines(name)) for name in kinds} == dict.fromkeys(kinds, 1)
    assert not pry.was_opened
    told = load_status(desk.home)["input"]
    assert {each["name"]: each["kind"] for each in told["ignored"]} == kinds
    assert told["waiting"] == 0
    text = desk.home.topicd("status").stdout
    for name, kind in kinds.items():
        assert f"{name}: {kind}, left alone" in text
    assert {entry.name for entry in desk.home.input.iterdir()} == set(kinds)
    assert (tmp_path / "target.md").read_text() == "# Not dropped\n"
    assert not {event["source"] for event in desk.daemon.events("job.accepted")} & {*kinds, "target.md", "deep.md"}


def bind(folder: Path, name: str) -> None:
    """Make a socket; by way of a descriptor, for a socket's path is short."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def load_status(home: Home) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(home.topicd("status", "--json").stdout)
    return status


def test_names_that_are_no_topics_stay(desk: Desk) -> None:
    hidden = {".x.md", ".DS_Store", "._tides.md"}
    seen = {"x.md~", "x.part", "x.md.tmp", "Thumbs.db", "desktop.ini", "~$x.md", "x"}
    for name in hidden | seen:
        desk.drop(name, "# Not a topic\n")
    desk.goes_on()
    status = load_status(desk.home)["input"]
    assert {each["name"] for each in status["ignored"]} == seen
    assert status["waiting"] == 0
    assert {entry.name for entry in desk.home.input.iterdir()} == hidden | seen
    assert not {event["source"] for event in desk.daemon.events("job.accepted")} & (hidden | seen)
    told = [event["message"] for event in desk.daemon.events("intake.ignored") if event["name"] in seen]
    assert len(told) == len(seen)
    assert not [message for message in told if "is a not" in message]


def once(home: Home) -> None:
    """Run the daemon to the end of its work as a user whom file modes bind."""
    prefix = list(WITHOUT_RIGHTS) if IS_ROOT else []
    done = subprocess.run(
        [*prefix, TOPICD, "run", "--once"],
        env=home.env,
        cwd=home.path,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    IS_ROOT and shutil.which("setpriv") is None, reason="root reads everything; setpriv(1) changes that"
)
def test_an_unreadable_file_fails_until_it_can_be_read(home: Home) -> None:
    home.drop("secret.md", "# Secret\n")
    (home.input / "secret.md").chmod(0)
    home.drop("good.md", "# Good\n")
    for _ in range(2):  # the second time as the person's `retry` without the `chmod`
        once(home)
        words(home.reason(), "topic_unreadable", "chmod")
        topic = home.only("failed") / "topic.md"
        assert topic.stat().st_mode & 0o777 == 0
        assert load(home.only("output") / "job.json")["source"] == "good.md"
        assert home.topicd("retry", "--all").returncode == 0
    topic = home.only("scripts") / "topic.md"
    topic.chmod(0o644)
    assert topic.read_text() == "# Secret\n"
    once(home)
    assert len(home.ids("output")) == 2


def ask(home: Home, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{load(home.spool / '.lock')['port']}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


def is_ready(home: Home, *, ready: bool) -> bool:
    """Tell whether `/readyz` and the gauge both say so."""
    gauge = f"\ntopicd_ready {float(ready)}\n"
    return ask(home, "readyz")[0] == (200 if ready else 503) and gauge in ask(home, "metrics")[1]


def test_without_input_nothing_is_ready_and_the_gauge_agrees(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {**FAKES, **QUICK})
    home.path.mkdir()
    with running(home):
        until(lambda: is_ready(home, ready=True), "ready")
        home.input.rmdir()
        until(lambda: is_ready(home, ready=False), "not ready")
        [why] = json.loads(ask(home, "readyz")[1])["why"]
        assert str(home.input) in why
        assert home.topicd("status").stdout.count(why) == 1
        home.input.mkdir()
        until(lambda: is_ready(home, ready=True), "ready again")


def test_a_spool_moved_away_under_the_daemon_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", {**FAKES, **QUICK})
    home.path.mkdir()
    with running(home):
        home.spool.rename(tmp_path / "aside")
        done = home.topicd("status")
        (tmp_path / "aside").rename(home.spool)
    assert (done.returncode, done.stdout) == (78, "")
    assert "there is no spool in" in done.stderr
