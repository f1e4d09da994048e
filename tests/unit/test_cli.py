"""The command line: its help, its exit codes, its JSON, and that nothing a file name holds reaches the terminal raw."""

import argparse
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.readyz import answering
from rig.daemon import FAKES, LIMIT_S, QUICK, TOPICD, Home, running, until
from rig.disks import full, read_only, tmpfs
from topicd import __version__, cli, home, settings
from topicd import job as files
from topicd.durable import Durable
from topicd.job import Job, Trouble
from topicd.progress import Asked, Meter
from topicd.spool import DONE, Found, Spool
from topicd.states import Aside, Stage
from topicd.store import Store

CHECK = {"ok", "checks"}
CHECK_LINE = {"name", "ok", "text", "hint", "seconds"}
STATUS = {"version", "home", "daemon", "ready", "watcher", "servers", "downloads", "warnings", "jobs"} | {
    "open",
    "failed",
    "held",
    "input",
    "free_bytes",
}
VERBS = (
    "run",
    "add",
    "status",
    "show",
    "retry",
    "hold",
    "release",
    "check",
    "prompt",
    "fetch",
    "fsck",
    "backup",
    "restore",
)
RAW = "\x1b[31mred\a\u202e\x07\x9b2J"
UNSAFE = ("\x1b", "\a", "\u202e", "\x9b")
LATE = Trouble("2026-01-01T00:00:00.000Z", "audio", "audio/001", "timeout", "too late", "look at the server", "")


class Desk:
    """A home, the command line on it in this process, and the store behind its back."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.spool = Spool(home=path, input_dir=path / "input", output_dir=path / "output")
        self.store = Store(self.spool, Durable())
        self.store.open()
        self._capsys = capsys

    def run(self, *args: str) -> tuple[int, str, str]:
        """Run one verb; returns exit code, standard output, standard error."""
        self._capsys.readouterr()
        try:
            code = cli.main(args)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    def job(self, name: str = "a.md", stage: str = Stage.SCRIPTS) -> Found:
        (self.spool.input / name).write_text("# Topic\n")
        job = self.store.claim(self.spool.input / name, sha256="", size=8)
        for each in Stage:
            if each == stage:
                break
            self.store.finish(each, self.store.begin(each, job.id).job)
        return self.spool.find(job.id)

    def failed(self, name: str = "failed.md", trouble: Trouble = LATE) -> Found:
        found = self.job(name, Stage.AUDIO)
        self.store.fail(Stage.AUDIO, self.store.begin(Stage.AUDIO, found.id).job, trouble)
        return self.spool.find(found.id)

    def deferred(self) -> Found:
        found = self.job("deferred.md", Stage.AUDIO)
        begun = self.store.begin(Stage.AUDIO, found.id).job
        self.store.defer(Stage.AUDIO, begun, replace(LATE, next_try="2099-01-01T00:00:00.000Z"), time.time() + 1e6)
        return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    for name in list(os.environ):
        if name.startswith(("TOPICD_", "OLLAMA_", "TTS_", "SD_", "SSL_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOPICD_HOME", str(home))
    monkeypatch.setenv("TOPICD_MIN_FREE_BYTES", "0")
    for name, value in FAKES.items():
        if name.startswith("TOPICD_"):
            monkeypatch.setenv(name, value)
    return Desk(home, capsys)


@pytest.fixture
def process(tmp_path: Path) -> Home:
    """The installed command, for what only a process can show."""
    home = Home(tmp_path / "process", {**FAKES, **QUICK})
    home.path.mkdir()
    return home


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def verbs() -> dict[str, argparse.ArgumentParser]:
    [choices] = [action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)]
    return choices


def test_the_verbs_are_these() -> None:
    assert tuple(verbs()) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_help_that_helps(desk: Desk, verb: str) -> None:
    code, out, _ = desk.run(verb, "--help")
    assert code == 0
    description = verbs()[verb].description or ""
    assert len(description) > 20
    assert description.splitlines()[0] in out
    assert "Args:" not in out
    for action in actions(verbs()[verb]):
        assert action.help, action
        assert max(map(len, out.splitlines())) <= 120
    assert verbs()[verb].description.splitlines()[0].rstrip(".") in " ".join(desk.run("--help")[1].split())  # type: ignore[union-attr]


def test_the_help_has_the_table_of_exit_codes(desk: Desk) -> None:
    code, out, _ = desk.run("--help")
    assert code == 0
    for number, meaning in cli.EXIT_CODES.items():
        assert f"  {number:<4} {meaning}" in out
    assert set(cli.EXIT_CODES) == {0, 1, 2, 3, 4, 5, 6, 75, 78, 130}
    assert ".env.example" in out


def test_the_version(desk: Desk) -> None:
    assert desk.run("--version") == (0, f"topicd {__version__}\n", "")


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("dance",),
        ("show",),
        ("hold",),
        ("retry",),
        ("retry", "x", "--all"),
        ("retry", "--all", "--stage", "cooking"),
        ("add",),
        ("status", "--xml"),
    ],
)
def test_2_a_wrong_command_line(desk: Desk, args: Sequence[str]) -> None:
    code, out, err = desk.run(*args)
    assert (code, out) == (cli.USAGE, "")
    assert "usage: topicd" in err


@pytest.mark.parametrize("verb", ["show", "hold", "release", "retry"])
def test_3_no_job_or_several_of_that_name(desk: Desk, verb: str) -> None:
    code, out, err = desk.run(verb, "nobody")
    assert (code, out) == (cli.NO_JOB, "")
    assert "no job matches 'nobody'" in err
    assert "topicd status" in err
    one, two = desk.job("tides-1.md"), desk.job("tides-2.md")
    code, _, err = desk.run(verb, "tides")
    assert code == cli.NO_JOB
    assert one.id in err
    assert two.id in err


def test_4_a_job_that_is_not_where_that_can_be_done(desk: Desk) -> None:
    done, waiting = desk.job("done.md", DONE), desk.job("waiting.md")
    held = desk.store.hold(desk.job("held.md"))
    for args in (("retry", done.id), ("hold", done.id), ("release", done.id), ("release", waiting.id)):
        code, out, err = desk.run(*args)
        assert (code, out) == (cli.NOT_NOW, ""), args
        assert args[1] in err
    code, _, err = desk.run("retry", held.id)
    assert code == cli.NOT_NOW
    assert "topicd release" in err


def test_75_a_home_that_is_taken(desk: Desk) -> None:
    with desk.store.locked({}):
        done = subprocess.run(
            [TOPICD, "run", "--once"],
            env={**os.environ, "PYTHONPATH": FAKES["PYTHONPATH"], "TOPICD_METRICS_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == cli.TAKEN, done.stderr
    assert str(os.getpid()) in done.stderr


@pytest.mark.parametrize("verb", [("status",), ("show", "x"), ("add", "x"), ("check",)])
def test_78_a_wrong_setting(desk: Desk, verb: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPICD_SCENES", "many")
    code, out, err = desk.run(*verb)
    assert (code, out) == (cli.CONFIG, "")
    assert "TOPICD_SCENES='many'" in err


def test_1_check_finds_something_wrong(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPICD_MIN_FREE_BYTES", str(1 << 50))
    code, out, _ = desk.run("check")
    assert code == cli.FAILED
    assert "BAD  disk" in out
    assert "hint: free some space" in out


def test_check_says_of_a_read_only_home_that_it_is_one(desk: Desk) -> None:
    with read_only(desk.path):
        code, out, _ = desk.run("check")
    assert code == cli.FAILED
    assert "BAD  home      Read-only file system" in out
    assert "hint: mount the file system writable" in out


def test_check_says_of_a_full_home_that_it_is_one(desk: Desk) -> None:
    with tmpfs(desk.path):
        desk.store.open()
        with full(desk.path):
            code, out, _ = desk.run("check")
        assert code == cli.FAILED
        assert "BAD  home      No space left on device" in out
        assert not list(desk.path.rglob(".topicd-probe*"))
        assert "ok   home" in desk.run("check")[1]


def test_add_on_a_read_only_disk_says_so_and_what_to_do(desk: Desk) -> None:
    with read_only(desk.path):
        code, out, err = desk.run("add", "why the sky is blue")
    assert (code, out) == (cli.FAILED, "")
    assert err.startswith("topicd: Read-only file system: ")
    assert err.endswith("hint: mount the file system writable\n")


def test_add_on_a_full_disk_says_so_and_leaves_nothing(desk: Desk) -> None:
    with tmpfs(desk.path):
        desk.store.open()
        with full(desk.path):
            code, out, err = desk.run("add", "why the sky is blue")
        assert (code, out) == (cli.FAILED, "")
        assert "No space left on device" in err
        assert err.endswith("hint: free some space\n")
        assert not list(desk.spool.input.iterdir())


@pytest.mark.parametrize("given", ["", " \n"])
def test_add_of_nothing_names_no_topic(desk: Desk, given: str) -> None:
    code, out, err = desk.run("add", given)
    assert (code, out) == (cli.USAGE, "")
    assert err.startswith("topicd: that names no topic\n  hint: ")


@pytest.mark.parametrize("args", [("status",), ("status", "--json"), ("fsck",), ("backup", "aside")])
def test_a_spool_that_is_gone_is_told(desk: Desk, args: Sequence[str], tmp_path: Path) -> None:
    desk.spool.root.rename(tmp_path / "aside")
    code, out, err = desk.run(*args)
    assert (code, out) == (cli.CONFIG, "")
    assert f"there is no spool in {desk.path}\n  hint: put it back" in err
    assert "TOPICD_HOME" in err


@pytest.mark.parametrize("args", [("status",), ("fsck",), ("backup", "aside")])
def test_before_the_first_run_it_is_told_that_there_was_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, args: Sequence[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TOPICD_HOME", str(tmp_path / "new"))
    (tmp_path / "aside").mkdir()
    assert desk.run("add", "why the sky is blue")[0] == 0
    code, out, err = desk.run(*args)
    assert (code, out) == (cli.CONFIG, "")
    assert "1 topic waits in input/" in err
    assert "no daemon has run here yet: `topicd run`; or name the home with TOPICD_HOME" in err


@pytest.mark.parametrize(("where", "why"), [("/proc/x", "No such file"), ("/etc/passwd", "is not a directory")])
def test_78_a_home_that_cannot_be_made(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str, why: str, process: Home
) -> None:
    monkeypatch.setenv("TOPICD_HOME", where)
    code, out, err = desk.run("add", "why the sky is blue")
    assert (code, out) == (cli.CONFIG, "")
    assert err.startswith("topicd: cannot make ")
    assert why in err
    process.env["TOPICD_HOME"] = where
    done = process.topicd("run", "--once")
    assert done.returncode == cli.CONFIG
    assert why in done.stderr


def test_what_the_command_line_is_told_has_no_python_in_it(desk: Desk) -> None:
    err = desk.run("retry", "--all", "--stage", "foo")[2]
    assert "(choose from 'scripts', 'audio', 'images')" in err or "(choose from scripts, audio, images)" in err
    for count in ("x", "0", "1_0", "9" * 5000):
        err = desk.run("backup", "aside", "--keep", count)[2]
        assert "a number from 1 to 100,000 is wanted" in err


@pytest.mark.parametrize(("verb", "expected"), [("retry", True), ("release", True), ("nothing", False)])
def test_who_sends_a_job_on_its_way_is_told_that_no_daemon_runs(desk: Desk, verb: str, *, expected: bool) -> None:
    found = desk.failed()
    if verb == "release":
        found = desk.store.hold(found)
    args = {"retry": ("retry", "--all"), "release": ("release", found.id)}
    if verb == "nothing":
        desk.run("retry", "--all")
        args["nothing"] = ("retry", "--all")
    assert ("no daemon is running here" in desk.run(*args[verb])[2]) is expected
    again = desk.store.hold(desk.job("again.md"))
    with desk.store.locked({}):
        assert "no daemon" not in desk.run("release", again.id)[2]


def test_a_restore_names_the_home_that_is_to_be_looked_at(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "archives").mkdir()
    archive = desk.run("backup", str(tmp_path / "archives"))[1].strip()
    elsewhere, here = tmp_path / "a new home", tmp_path / "here"
    monkeypatch.setenv("TOPICD_HOME", str(elsewhere))
    named = f"TOPICD_HOME='{elsewhere}' topicd"
    assert f"next: {named} fsck; {named} check; then start the daemon on that home" in desk.run("restore", archive)[2]
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("TOPICD_HOME", ".")
    assert "next: topicd fsck; topicd check; then start the daemon\n" in desk.run("restore", archive)[2]


def test_a_backup_on_a_full_disk_names_the_directory(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    with tmpfs(folder), full(folder):
        code, out, err = desk.run("backup", str(folder))
    assert (code, out) == (cli.FAILED, "")
    assert err == f"topicd: No space left on device: {folder}\n  hint: free some space\n"


def test_130_ctrl_c_while_waiting_and_the_topic_stays(process: Home) -> None:
    with subprocess.Popen(
        [TOPICD, "add", "why the sky is blue", "--wait"],
        env=process.env,
        cwd=process.path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stderr
        assert "waiting to be taken" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=LIMIT_S)
    assert waiting.returncode == cli.INTERRUPTED
    assert "Traceback" not in err
    assert out == ""
    assert [path.name for path in process.input.iterdir()] == ["why-the-sky-is-blue.md"]
    assert "the job goes on" in err


def test_add_wait_shows_what_keeps_the_daemon_from_it(process: Home) -> None:
    process.env["TOPICD_MIN_FREE_BYTES"] = str(1 << 50)
    with (
        running(process),
        subprocess.Popen(
            [TOPICD, "add", "why the sky is blue", "--wait"],
            env=process.env,
            cwd=process.path,
            stderr=subprocess.PIPE,
            text=True,
        ) as waiting,
    ):
        assert waiting.stderr
        assert waiting.stderr.readline().endswith("waiting to be taken\n")
        assert re.search(r"waiting to be taken: [\d,]+ bytes are free in", waiting.stderr.readline())
        waiting.send_signal(signal.SIGINT)
        assert len(waiting.communicate(timeout=LIMIT_S)[1].splitlines()) < 3


def test_a_trouble_whose_figures_change_is_one_line_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    meter = Meter(out)
    meter.show("", 0, 0)
    for free in ("1,234", "1,111", "999"):
        meter.show("", 0, 0, f"{free} bytes are free")
    meter.show("scripts", 0, 1)
    meter.show("scripts", 1, 2)
    assert [line.partition(" s  ")[2] for line in out.getvalue().splitlines()] == [
        "waiting to be taken",
        "waiting to be taken: 1,234 bytes are free",
        "scripts 1 of 1",
        "scripts 2 of 2",
    ]


def test_a_stage_that_waits_is_no_news_for_a_job_in_another(desk: Desk) -> None:
    whys = ["audio waits: gpu:5000 is away", "the disk is full"]
    body = json.dumps({"ok": False, "why": whys}).encode()
    with answering(503, body) as port, desk.store.locked({"host": "127.0.0.1", "port": port}):
        asked = Asked(desk.store, every_s=0.0)
        assert asked.why("scripts") == "the disk is full"
        assert asked.why("audio") == "; ".join(whys)


def test_130_ctrl_c_while_everything_is_loaded_is_no_traceback() -> None:
    program = (
        "import sys\n"
        "class Hasty:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'topicd.settings':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Hasty())\n"
        "from topicd.entry import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (cli.INTERRUPTED, b"", b"")
    assert "topicd.entry" in TOPICD.read_text()


@pytest.mark.parametrize(
    ("args", "what", "said"),
    [
        (("fsck",), "topicd.fsck.check", "nothing was changed"),
        (("fsck", "--repair"), "topicd.fsck.repair", "what was repaired stays so"),
        (("backup", "."), "topicd.backup._Backup.run", "no archive that is not whole was left"),
        (("restore", "x.tar.gz"), "topicd.restore.restore", "no job was put in place; the same command begins anew"),
        (("check",), "topicd.checks.run", "no job was touched"),
    ],
)
def test_130_ctrl_c_says_what_it_has_left(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, args: Sequence[str], what: str, said: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(what, interrupted)
    before = {*Path().rglob("*")}
    assert desk.run(*args) == (cli.INTERRUPTED, "", f"stopped; {said}\n")
    assert {*Path().rglob("*")} == before


def test_ctrl_c_in_a_restore_that_has_put_jobs_in_place_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        desk.job()
        raise KeyboardInterrupt

    monkeypatch.setattr("topicd.restore.restore", interrupted)
    code, _, err = desk.run("restore", "x.tar.gz")
    assert code == cli.INTERRUPTED
    assert err == "stopped; the home has a part of the backup: empty input/, spool/ and output/ first\n"


def test_a_restore_of_what_is_no_archive_says_that_and_not_how_to_trust_it(desk: Desk) -> None:
    Path("notes.md").write_text("# Notes\n")
    Path("notes.gz").write_bytes(gzip.compress(b"# Notes\n"))
    for name in ("notes.md", "notes.gz"):
        code, out, err = desk.run("restore", name)
        assert (code, out) == (cli.USAGE, "")
        assert err.startswith(f"topicd: {name} is no backup: it is no gzipped tar archive\n  hint: name a topicd-")
    code, _, err = desk.run("restore", "nope.tar.gz")
    assert code == cli.USAGE
    assert "there is no such archive: nope.tar.gz\n  hint: " in err


def test_a_prompt_that_is_the_general_one_is_told(desk: Desk) -> None:
    assert desk.run("prompt", "pt-BR")[2] == ""
    assert desk.run("prompt", "en-GB")[2] == ""
    code, out, err = desk.run("prompt", "xx")
    assert (code, out) == (0, desk.run("prompt", "en")[1])
    assert err == "there is no prompt for xx; this is the general one\n"
    for name in ("../../etc", "en_US", "english!"):
        code, out, err = desk.run("prompt", name)
        assert (code, out) == (cli.USAGE, "")
        assert err == f"topicd: {name!r} is no language\n  hint: a tag such as en or pt-BR\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "The topic has no words"),
        (b" \n\n", "The topic has no words"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not plain text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100_000), "is not plain text"),
    ],
)
def test_add_of_what_is_no_text_is_refused_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, data: bytes, said: str
) -> None:
    Path("picture.png").write_bytes(data)
    for given, name in (("-", "standard input"), ("picture.png", "picture.png")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code, out, err = desk.run("add", given)
        assert (code, out) == (cli.USAGE, "")
        assert err.startswith(f"topicd: {name}: ")
        assert said in err
        assert "hint: " in err
    assert desk.run("add", "/dev/null")[0] == cli.USAGE
    assert not dropped(desk)


def test_status_as_json(desk: Desk) -> None:
    desk.failed()
    desk.deferred()
    desk.job("\udcff.md")
    code, out, err = desk.run("status", "--json")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert set(json.loads(out)) == STATUS


def test_show_as_json(desk: Desk) -> None:
    found = desk.failed()
    code, out, _ = desk.run("show", found.id, "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["job"], told["state"], told["reason"]["hint"]) == (found.id, "failed", "look at the server")


def test_check_as_json(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_VERIFY", "false")
    code, out, _ = desk.run("check", "--json")
    assert code == 0
    told = json.loads(out)
    assert set(told) == CHECK
    assert told["ok"] is True
    assert [each["name"] for each in told["checks"]] == ["home", "disk", "tls", "scripts", "audio", "images"]
    for each in told["checks"]:
        assert set(each) == CHECK_LINE
        assert isinstance(each["seconds"], float)


def test_a_servers_setting_that_is_misspelt_is_told_wherever_a_person_looks(process: Home, desk: Desk) -> None:
    Path(".env").write_text("OLLAMA_BASEURL=http://gpu:11434\n")
    assert "ok   unused    OLLAMA_BASEURL is set and not used\n" in desk.run("check")[1]
    words = "OLLAMA_BASEURL is set and not used; was OLLAMA_BASE_URL meant?"
    process.env["OLLAMA_BASEURL"] = "http://gpu:11434"
    with running(process) as daemon:
        assert daemon.event("setting.unused")["message"] == words
        assert f"warning: {words}" in process.topicd("status").stdout
        ready = daemon.event("daemon.ready")
        port = json.loads(process.topicd("status", "--json").stdout)["daemon"]["port"]
        assert ready["page"] == f"http://127.0.0.1:{port}/"
        assert ready["page"] in ready["message"]


def test_78_a_file_that_is_not_there(process: Home) -> None:
    process.env["SSL_CA_FILE"] = "/nowhere/ca.pem"
    done = process.topicd("run", "--once")
    assert done.returncode == cli.CONFIG
    assert done.stderr.startswith("topicd: SSL_CA_FILE=/nowhere/ca.pem: there is no such file\n  hint: ")
    assert "home" in process.topicd("check").stdout


def test_check_leaves_nothing_behind(desk: Desk) -> None:
    before = sorted(desk.path.rglob("*"))
    assert desk.run("check")[0] == 0
    assert sorted(desk.path.rglob("*")) == before


def test_show_of_a_done_job(desk: Desk) -> None:
    found = desk.job("done.md", DONE)
    code, out, _ = desk.run("show", found.id)
    assert code == 0
    assert f"place     {DONE}/  (done)" in out
    assert "error" not in out


def test_show_of_a_failed_job_says_why_and_what_to_do(desk: Desk) -> None:
    out = desk.run("show", desk.failed().id)[1]
    assert "error     audio audio/001: too late" in out
    assert "hint      look at the server" in out
    assert "(failed)" in out


def test_show_of_a_held_job(desk: Desk) -> None:
    out = desk.run("show", desk.store.hold(desk.job()).id)[1]
    assert "place     held/  (held)" in out


def test_show_of_a_deferred_job_says_when_it_is_tried_next(desk: Desk) -> None:
    out = desk.run("show", desk.deferred().id)[1]
    assert "(deferred)" in out
    assert re.search(r"^not before \d{4}-", out, re.MULTILINE)
    assert "next try  2099-01-01T00:00:00.000Z" in out


def test_show_of_a_damaged_job(desk: Desk) -> None:
    found = desk.job()
    (found.path / "job.json").write_text("[")
    code, out, _ = desk.run("show", found.id)
    assert code == 0
    assert "(damaged)" in out
    assert "job.json is damaged" in out


@pytest.mark.parametrize("value", ["1e300", "Infinity", "-1e300", "NaN"])
def test_show_of_a_job_with_an_impossible_time(desk: Desk, value: str) -> None:
    found = desk.job()
    path = found.path / "job.json"
    path.write_text(path.read_text().replace('"not_before_s": 0.0', f'"not_before_s": {value}'))
    assert desk.run("show", found.id)[0] == 0
    code, out, _ = desk.run("show", found.id, "--json")
    assert code == 0
    json.loads(out, parse_constant=pytest.fail)
    assert desk.run("status")[0] == 0


def test_show_finds_a_job_by_any_part_that_fits_no_other(desk: Desk) -> None:
    tides, dunes = desk.job("tides.md"), desk.job("dunes.md")
    assert f"job       {tides.id}" in desk.run("show", "tide")[1]
    assert f"job       {dunes.id}" in desk.run("show", dunes.id)[1]


def test_status_says_what_waits_works_failed_and_is_done(desk: Desk) -> None:
    desk.failed()
    desk.deferred()
    desk.job("done.md", DONE)
    (desk.spool.input / "folder").mkdir()
    out = desk.run("status")[1]
    assert "daemon  not running" in out
    assert "jobs    0 scripts, 1 audio, 0 images, 1 failed, 0 held, 1 done" in out
    assert "folder: directory, left alone" in out
    assert "too late  (next try 2099" in out
    assert "hint: look at the server" in out


def test_retry_hold_and_release_say_where_the_job_is_now(desk: Desk) -> None:
    found = desk.failed()
    assert desk.run("retry", found.id)[:2] == (0, f"{found.id}  goes on in scripts/\n")
    assert desk.run("hold", found.id)[:2] == (0, f"{found.id}  held\n")
    assert desk.run("release", found.id)[:2] == (0, f"{found.id}  goes on in scripts/\n")


def test_retry_all_of_one_stage(desk: Desk) -> None:
    audio = desk.failed("one.md")
    desk.failed("two.md", replace(LATE, stage="images"))
    code, out, _ = desk.run("retry", "--all", "--stage", "audio")
    assert code == 0
    assert out.split()[0] == audio.id
    assert len(desk.spool.ids(Aside.FAILED)) == 1
    code, out, err = desk.run("retry", "--all", "--stage", "scripts")
    assert (code, out) == (0, "")
    assert "nothing has failed in scripts" in err


def test_no_file_name_reaches_the_terminal_raw(desk: Desk) -> None:
    found = desk.job(f"{RAW}.md")
    (desk.spool.input / f"{RAW}.part").touch()
    (desk.spool.place(Aside.FAILED) / f"{RAW}-failed").mkdir()
    (desk.spool.place(Stage.AUDIO) / f"{RAW}-waiting").mkdir()
    for args in (("status",), ("show", found.id), ("show", "J-failed"), ("show", "J-waiting"), ("show", RAW)):
        code, out, err = desk.run(*args)
        assert code in {0, 3}, args
        assert not [each for each in UNSAFE if each in out + err], args


@pytest.mark.parametrize("verb", ["retry", "hold", "release"])
def test_no_job_name_reaches_the_terminal_raw(desk: Desk, verb: str) -> None:
    place = {"retry": Aside.FAILED, "hold": Stage.SCRIPTS, "release": Aside.HELD}[verb]
    folder = desk.spool.place(place) / f"odd-{RAW}"
    folder.mkdir()
    (folder / "topic.md").write_text("# T\n")
    code, out, err = desk.run(verb, "odd-")
    assert code == 0, err
    assert not [each for each in UNSAFE if each in out + err]


def test_no_reason_reaches_the_terminal_raw(desk: Desk) -> None:
    found = desk.failed("x.md", replace(LATE, message=f"it says {RAW}", hint=f"try {RAW}", unit=RAW))
    for args in (("status",), ("show", found.id)):
        _, out, err = desk.run(*args)
        assert not [each for each in UNSAFE if each in out + err], args
    assert "\\x1b[31mred" in desk.run("show", found.id)[1]


def test_add_wait_tells_a_reason_without_what_it_holds_raw(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    found = desk.failed("x.md", replace(LATE, message=f"it says {RAW}", hint=f"try {RAW}", unit=RAW))
    cli._print_reason(home.Home.of(settings.load()), found)
    err = capsys.readouterr().err
    assert "it says" in err
    assert not [each for each in UNSAFE if each in err]


def dropped(desk: Desk) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in desk.spool.input.iterdir()}


def test_add_a_file_keeps_its_name_and_bytes(desk: Desk, tmp_path: Path) -> None:
    topic = tmp_path / "tides.txt"
    topic.write_bytes(b"# Mar\xe9\r\n")
    code, out, err = desk.run("add", str(topic))
    assert (code, out) == (0, f"{desk.spool.input}/tides.txt\n")
    assert "no daemon is running here" in err
    assert dropped(desk) == {"tides.txt": b"# Mar\xe9\r\n"}
    assert topic.exists()


def test_add_a_file_twice_replaces_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "tides.md").write_text("# One\n")
    desk.run("add", "tides.md")
    (tmp_path / "tides.md").write_text("# Two\n")
    code, out, _ = desk.run("add", "tides.md")
    assert code == 0
    assert sorted(dropped(desk).values()) == [b"# One\n", b"# Two\n"]
    assert Path(out.strip()).read_bytes() == b"# Two\n"


def test_add_a_file_of_another_name_makes_it_a_topics(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("# Notes\n")
    desk.run("add", "notes")
    assert dropped(desk) == {"notes.md": b"# Notes\n"}


@pytest.mark.parametrize("name", [".hidden.md", "~$lock.md", ".md"])
def test_a_file_that_is_added_is_one_that_will_be_taken(desk: Desk, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("# T\n")
    code, out, err = desk.run("add", name)
    assert code == 0, err
    assert not Path(out.strip()).name.startswith((".", "~$")), "the daemon leaves such names alone"


@pytest.mark.parametrize("name", ["n" * 252 + ".md", "é" * 126 + ".md", "n" * 255])
def test_add_a_file_with_the_longest_name(desk: Desk, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("# Long\n")
    code, _, err = desk.run("add", name)
    assert code == 0, err
    assert list(dropped(desk).values()) == [b"# Long\n"]


def test_add_text(desk: Desk) -> None:
    code, out, _ = desk.run("add", "why the sky is blue")
    assert (code, out) == (0, f"{desk.spool.input}/why-the-sky-is-blue.md\n")
    assert dropped(desk) == {"why-the-sky-is-blue.md": b"why the sky is blue"}


@pytest.mark.parametrize("text", ["x" * 5000, "line one\nline two", "a/b", "\udcff", "n" * 300])
def test_add_any_text(desk: Desk, text: str) -> None:
    code, _, err = desk.run("add", text)
    assert code == 0, err
    assert list(dropped(desk).values()) == [os.fsencode(text)]


@pytest.mark.parametrize(
    "text", ["meu tema.md", "/nowhere/foo.pdf", "notas.markdown", "~/x.docx", "picture.png", "./nada", "  "]
)
def test_what_looks_like_a_file_that_is_not_there_is_no_topic(desk: Desk, text: str) -> None:
    assert desk.run("add", text)[0] == cli.USAGE
    assert dropped(desk) == {}


def test_add_from_standard_input(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# Mar\xe9\n")))
    assert desk.run("add", "-")[0] == 0
    assert dropped(desk) == {"stdin.md": b"# Mar\xe9\n"}


def test_add_a_file_that_is_not_there(desk: Desk) -> None:
    code, out, err = desk.run("add", "nowhere/tides.md")
    assert (code, out) == (cli.USAGE, "")
    assert "nowhere/tides.md: there is no such file" in err
    assert "hint: to pass the topic itself" in err
    assert not dropped(desk)


def test_add_a_directory_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("folder", "folder/", str(tmp_path / "folder")):
        code, out, err = desk.run("add", name)
        assert (code, out) == (cli.USAGE, ""), name
        assert "is a directory\n  hint: name a file in it" in err
    assert not dropped(desk)


def huge_file() -> str:
    with Path("huge.md").open("wb") as file:
        file.truncate(1 << 40)
    return "huge.md"


@pytest.mark.parametrize("where", ["a file", "standard input", "text"])
def test_add_of_too_much_is_refused_before_it_is_dropped(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("TOPICD_TOPIC_BYTES_MAX", "4096")
    many = b"x" * 5000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(many)))
    Path("many.md").write_bytes(many)
    args = {"a file": "many.md", "standard input": "-", "text": many.decode()}
    code, out, err = desk.run("add", args[where])
    assert code != 0
    assert out == ""
    assert "4,096" in err
    assert not dropped(desk)


def test_add_reads_no_more_than_a_topic_may_have(desk: Desk) -> None:
    program = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from topicd.cli import main\n"
        f"sys.exit(main(['add', {huge_file()!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
    assert not dropped(desk)


def test_add_prints_a_path_of_any_bytes(process: Home) -> None:
    topic = process.path / "\udcff.md"
    topic.write_text("# T\n")
    for extra in (
        {},
        {"PYTHONIOENCODING": "utf-8:strict"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = subprocess.run(
            [TOPICD, "add", topic],
            env={**process.env, **extra},
            cwd=process.path,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr


def test_add_wait_of_a_job_that_fails_says_why(process: Home) -> None:
    with subprocess.Popen([TOPICD, "run"], env=process.env, cwd=process.path, stderr=subprocess.DEVNULL) as daemon:
        try:
            until((process.spool / ".lock").exists, "the daemon")
            done = process.topicd("add", "---\nscenes: many\n---\n", "--wait")
        finally:
            daemon.terminate()
            daemon.wait(LIMIT_S)
    assert done.returncode == cli.FAILED
    assert done.stdout == ""
    assert "is in failed/" in done.stderr
    assert "scenes must be a whole number" in done.stderr
    assert "hint: " in done.stderr


def buffered(home: Home) -> dict[str, str]:
    """Return the environment in which output is written when it is flushed, as it is for a person."""
    return {name: value for name, value in home.env.items() if name != "PYTHONUNBUFFERED"}


def closed_reader(home: Home, *args: str) -> tuple[int, bytes]:
    """Run a verb whose standard output nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [TOPICD, *args],
            env=buffered(home),
            cwd=home.path,
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize("args", [("status",), ("status", "--json"), ("check",), ("--help",)])
def test_a_reader_that_goes_away_is_no_fault(process: Home, args: Sequence[str]) -> None:
    assert process.topicd("check").returncode == 0
    code, err = closed_reader(process, *args)
    assert (code, err) == (0, b"")


def test_status_through_head(process: Home) -> None:
    for number in range(300):
        (process.spool / "failed" / f"2026-{number:04}").mkdir(parents=True)
    done = subprocess.run(
        ["sh", "-c", f"{TOPICD} status | head -n 1"],
        env=buffered(process),
        cwd=process.path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout.startswith("home    ")
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["hold", "retry", "release"])
def test_a_job_of_which_there_are_two_is_left_alone(desk: Desk, verb: str) -> None:
    found = desk.failed()
    (desk.spool.place(Aside.HELD) / found.id / "in-the-way").mkdir(parents=True)
    code, out, err = desk.run(verb, found.id)
    assert (code, out) == (cli.NO_JOB, "")
    assert err == f"topicd: {found.id} is in failed/ and in held/\n  hint: see `topicd fsck`\n"


WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")


@pytest.mark.parametrize("args", [("status",), ("show", "x"), ("retry", "--all"), ("check",), ("add", "x y")])
def test_a_spool_that_may_not_be_read_is_told_in_one_line(process: Home, args: Sequence[str]) -> None:
    assert process.topicd("check").returncode == 0
    process.spool.chmod(0)
    done = subprocess.run(
        [*(WITHOUT_RIGHTS if os.geteuid() == 0 else ()), TOPICD, *args],
        env=process.env,
        cwd=process.path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    process.spool.chmod(0o755)
    assert "Traceback" not in done.stderr
    assert done.returncode not in {0, cli.USAGE}
    assert "ermission denied" in done.stdout + done.stderr


def test_status_of_five_thousand_jobs_is_quick(desk: Desk) -> None:
    fill(desk.spool, 5000)
    began = time.process_time()  # what others make it wait for does not count
    code, out, _ = desk.run("status")
    inside_s = time.process_time() - began
    assert code == 0
    assert "2500 scripts, 0 audio, 0 images, 1250 failed, 0 held, 1250 done" in out
    began = time.monotonic()
    done = subprocess.run([TOPICD, "status"], capture_output=True, timeout=LIMIT_S, check=False)
    whole_s = time.monotonic() - began
    assert done.returncode == 0
    print(f"status of 5,000 jobs: {inside_s:.3f} s, as a command {whole_s:.3f} s")  # noqa: T201 - a figure
    assert inside_s < 5


def fill(spool: Spool, count: int) -> None:
    for number in range(count):
        place = (Stage.SCRIPTS, Aside.FAILED, Stage.SCRIPTS, DONE)[number % 4]
        name = f"20260101-000000-{number:06}-topic"
        folder = spool.place(place) / name
        folder.mkdir()
        job: Any = Job(name, "a.md", "", 8, "2026-01-01T00:00:00.000Z", 1.7e9)
        (folder / files.JOB).write_bytes(files.encode(job))
        (folder / files.TOPIC).write_text("# T\n")
