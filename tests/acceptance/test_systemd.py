"""The service as a person installs it, under a real systemd: what its scripts and units promise, each seen to hold."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fakes.patient import BACKENDS
from rig.daemon import FAKES, QUICK, until
from rig.engine import engine
from rig.pages import commands
from rig.systemd import HOME, SOURCE, UNIT, Machine, machine
from topicd import __version__

INSTALL_S = 300.0
SIGNS = f"{HOME}/signs"
FAST = {**FAKES, **QUICK, "PYTHONPATH": f"{SOURCE}/tests"}
PATIENT = {**FAST, **BACKENDS, "PATIENT": SIGNS}
# No setting of a test's own that is not a line of .env; small, since the embedded backends make it.
PERSONAL = {"TOPICD_IMAGE_WIDTH_PX": "256", "TOPICD_IMAGE_HEIGHT_PX": "256"}
AT_ONCE = "RestartSec=200ms"
WATCHDOG_S = 4  # it is fed twice as often, and a busy machine may let the daemon wait a second
WATCHDOG = f"WatchdogSec={WATCHDOG_S}s"
SMALL = "---\nscenes: 1\n---\n# Tides\n\nThe sea rises and falls twice a day.\n"
TOPIC = "# Sea\n\nA topic.\n"
UNITS = ("topicd.service", "topicd-backup.service", "topicd-backup.timer")
CHANGES = re.compile(r"^\+ ", re.MULTILINE)
NEXT = "/root/next"
PARTS = "scripts systemd daemon constraints.txt pyproject.toml README.md LICENSE .env.example"
VERSION = f"topicd {__version__}\n"
# A job in work, as older versions left it: no marker beside it, and in its job.json what is no longer there.
OLDER = f"""
import hashlib, json, pathlib
(folder,) = pathlib.Path("{HOME}/spool/audio").iterdir()
topic = (folder / "topic.md").read_bytes()
at = "2025-01-01T00:00:00.000Z"
(folder / "job.json").write_text(json.dumps({{
    "id": folder.name, "source": "from an older one.md", "sha256": hashlib.sha256(topic).hexdigest(),
    "bytes": len(topic), "accepted": at, "accepted_s": 1735689600.0, "attempts": {{"scripts": 1, "audio": 1}},
    "crashes": {{}}, "seconds": {{"scripts": 1.5}}, "begun": {{"stage": "audio", "run": "0" * 16, "at": at}},
    "not_before_s": 0.0, "last_error": None, "source_left": None}}))
"""
OURS = "/etc/systemd/system/topicd* /etc/topicd.env /opt/topicd /usr/local/bin/topicd /var/lib/topicd"
LEFT = f"ls -d {OURS} 2>/dev/null || true"


@dataclass
class Installed:
    """A machine after `install.sh --dry-run`, `install.sh` and `install.sh`; what was there before, what they said."""

    machine: Machine
    left_by_dry_run: str
    dry_run: str
    first: str
    second: str


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    with engine() as docker, machine(docker) as booted:
        install = f"{SOURCE}/scripts/install.sh"
        dry_run = booted.sh(f"{install} --dry-run")
        left = booted.sh(f"{LEFT}; getent passwd topicd || true")
        first, second = (booted.sh(install, limit_s=INSTALL_S) for _ in range(2))
        booted.sh("useradd --create-home --groups topicd alice; useradd --create-home bob")
        yield Installed(booted, left, dry_run, first, second)


@pytest.fixture
def sd(installed: Installed) -> Iterator[Machine]:
    """The machine, with the service stopped and its home empty."""
    installed.machine.fresh()
    yield installed.machine
    installed.machine.fresh()


def start(sd: Machine) -> str:
    """Start the service and return its process id."""
    sd.systemctl("start", UNIT)
    return sd.property("MainPID")


def at_work(sd: Machine, kind: str, *lines: str) -> str:
    """Start the service and bring one job to the middle of a kind of call; return the service's process id."""
    sd.sh(f"install -d -o topicd -g topicd {SIGNS}")
    sd.drop_in(PATIENT, AT_ONCE, *lines)
    pid = start(sd)
    sd.drop("sea.md", TOPIC)
    kinds = ["script", "audio", "image"]
    for each in kinds[: kinds.index(kind)]:
        sd.sh(f"touch {SIGNS}/{each}.go")
    until(lambda: sd.sh(f"ls {SIGNS}").find(f"{kind}.waiting") >= 0, f"a call of {kind}")
    return pid


def let_go(sd: Machine) -> None:
    sd.sh(f"touch {SIGNS}/script.go {SIGNS}/audio.go {SIGNS}/image.go")


def done(sd: Machine, limit_s: float = 60.0) -> str:
    """Wait for the one finished folder, and see that nothing of the job is anywhere else."""
    folder = sd.only("output", limit_s)
    until(lambda: not sd.sh(f"find {HOME}/spool -name '*.begun'"), "no marker is left")
    assert [sd.ids(place) for place in ("scripts", "audio", "images", "failed", "held")] == [[]] * 5
    sd.sh(f"cd {folder} && test -s manifest.json && test -s index.html && test -s audio.wav")
    return folder


def job(sd: Machine, folder: str) -> dict[str, object]:
    text = sd.sh(f"cat {folder}/job.json 2>/dev/null || echo '{{}}'")
    found: dict[str, object] = json.loads(text)
    return found


def test_a_dry_run_tells_what_an_install_does_and_does_nothing(installed: Installed) -> None:
    assert installed.left_by_dry_run == ""
    assert CHANGES.findall(installed.dry_run)
    assert installed.dry_run == installed.first


def test_a_second_install_changes_nothing(installed: Installed) -> None:
    assert not CHANGES.findall(installed.second), installed.second
    assert installed.machine.property("ActiveState") == "inactive"


def test_systemd_has_nothing_to_say_of_what_is_installed(sd: Machine) -> None:
    folder = f"/etc/systemd/system/{UNIT}.service.d"
    examples = sd.sh(f"cd {SOURCE}/systemd/{UNIT}.service.d && ls *.example").split()
    assert len(examples) == 2
    for each in examples:
        sd.sh(f"install -D -m 0644 {SOURCE}/systemd/{UNIT}.service.d/{each} {folder}/{each.removesuffix('.example')}")
    paths = [f"/etc/systemd/system/{unit}" for unit in UNITS]
    verified = sd.run("systemd-analyze", "verify", *paths, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_a_member_of_the_group_drops_a_topic_and_reads_the_folder(sd: Machine) -> None:
    sd.systemctl("start", UNIT)
    assert sd.property("StatusText") == "ready"
    sd.sh(f"umask 027; cat > {HOME}/input/small.md <<'END'\n{SMALL}\nEND", user="alice")
    folder = done(sd)
    assert sd.sh(f"stat -c %U {folder} {folder}/audio.wav {folder}/index.html").split() == [UNIT] * 3
    assert sd.run("cat", f"{folder}/index.html", user="alice").stdout.startswith("<!DOCTYPE html>")
    for command in (f"cat {folder}/index.html", f"ls {HOME}/input", f"touch {HOME}/input/x.md"):
        assert sd.run("sh", "-c", command, user="bob", check=False).returncode != 0
    until(lambda: sd.property("StatusText") == "0 working, 0 waiting", "the status of an idle daemon")
    complaints = [each["MESSAGE"] for each in sd.events() if int(each["PRIORITY"]) <= 4]
    assert complaints == []  # nothing that the sandbox refuses is wanted


def test_the_journal_has_each_events_fields(sd: Machine) -> None:
    sd.drop_in(FAST)
    pid = start(sd)
    sd.drop("sea.md", TOPIC)
    name = done(sd).rpartition("/")[2]
    entry = sd.event("job.done", job=name)
    assert (entry["_SYSTEMD_UNIT"], entry["SYSLOG_IDENTIFIER"], entry["_PID"]) == (f"{UNIT}.service", UNIT, pid)
    assert entry["TOPICD_OUTPUT"] == f"output/{name}"
    finished = {each["TOPICD_STAGE"] for each in sd.events("stage.finished") if each["TOPICD_JOB"] == name}
    assert finished == {"scripts", "audio", "images"}
    assert "topicd.service" in sd.run("journalctl", f"TOPICD_JOB={name}", "--output", "verbose", "--no-pager").stdout
    assert f"{entry['MESSAGE_ID']} topicd: " in sd.run("journalctl", "--list-catalog").stdout


def test_a_killed_daemon_is_started_again_and_goes_on(sd: Machine) -> None:
    pid = at_work(sd, "audio")
    sd.sh(f"kill -KILL {pid}")
    sd.comes_to("NRestarts", "1")
    sd.comes_to("ActiveState", "active")
    assert sd.property("MainPID") != pid
    let_go(sd)
    folder = done(sd)
    assert job(sd, folder)["crashes"] == {"audio": 1}


def test_a_stopped_process_is_found_by_the_watchdog(sd: Machine) -> None:
    pid = at_work(sd, "audio", WATCHDOG)
    sd.sh(f"kill -STOP {pid}")
    sd.comes_to("NRestarts", "1")
    let_go(sd)
    done(sd)
    assert any("Watchdog timeout" in each["MESSAGE"] for each in sd.events())


def test_an_event_loop_that_hangs_is_found_by_the_watchdog_and_told_where(sd: Machine) -> None:
    backend = {**FAST, "TOPICD_AUDIO_BACKEND": "fakes.stubborn:Blocking", "FAKE_BLOCKED": f"{HOME}/blocked"}
    sd.drop_in(backend, AT_ONCE, WATCHDOG)
    start(sd)
    sd.drop("sea.md", TOPIC)
    done(sd)
    assert sd.property("NRestarts") == "1"
    said = [each["MESSAGE"] for each in sd.events()]
    assert any("Watchdog timeout" in each for each in said)
    assert any("stubborn.py" in each for each in said)
    assert not sd.sh(f"ls {HOME} | grep core || true")


def test_a_daemon_that_works_outlives_its_watchdog(sd: Machine) -> None:
    pid = at_work(sd, "audio", WATCHDOG)
    time.sleep(3 * WATCHDOG_S)
    assert (sd.property("MainPID"), sd.property("NRestarts")) == (pid, "0")
    let_go(sd)
    done(sd)


@pytest.mark.parametrize("kind", ["script", "image"])
def test_a_stop_in_mid_work_loses_nothing(kind: str, sd: Machine) -> None:
    at_work(sd, kind)
    began_s = time.monotonic()
    sd.systemctl("stop", UNIT)
    assert time.monotonic() - began_s < 15
    assert (sd.property("Result"), sd.property("ExecMainStatus")) == ("success", "0")
    assert not sd.sh(f"find {HOME}/spool -name '*.begun'")
    let_go(sd)
    start(sd)
    kept = job(sd, done(sd))
    assert (kept.get("crashes", {}), kept.get("attempts", {})) == ({}, {})


def test_a_wrong_setting_ends_it_readably_and_it_is_not_started_again(sd: Machine) -> None:
    sd.drop_in({"TOPICD_SCENES": "many"}, AT_ONCE)
    assert sd.systemctl("start", UNIT, check=False).returncode != 0
    assert (sd.property("ExecMainStatus"), sd.property("SubState")) == ("78", "failed")
    time.sleep(1)  # five times what it waits with a restart
    assert (sd.property("NRestarts"), sd.property("SubState")) == ("0", "failed")
    assert any("TOPICD_SCENES='many'" in each["MESSAGE"] for each in sd.events())


def test_memory_that_runs_out_costs_a_worker_and_not_the_daemon(sd: Machine) -> None:
    sd.drop_in({"TOPICD_RETRY_FIRST_S": "600"}, "MemoryMax=160M")
    pid = start(sd)
    sd.drop("small.md", SMALL)
    told = sd.event("job.deferred")
    assert (told["TOPICD_CAUSE"], told["TOPICD_HINT"]) == ("worker_crashed", "Often the machine is out of memory.")
    assert (sd.property("MainPID"), sd.property("NRestarts")) == (pid, "0")
    until(lambda: sd.property("StatusText") == "0 working, 1 waiting", "the status")


def test_a_secret_comes_as_a_credential_and_is_seen_nowhere(sd: Machine) -> None:
    server = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(s): open('/run/asked', 'a').write(f'{s.headers[\"Authorization\"]}\\n'); s.send_error(503)\n"
        "    do_POST = do_GET\n"
        "h.HTTPServer(('127.0.0.1', 11434), H).serve_forever()"
    )
    sd.run("systemd-run", "--unit=asked", "--collect", "python3", "-c", server)
    try:
        sd.run("install", "-D", "-m", "0600", "/dev/stdin", "/etc/topicd/ollama-token", text="s3cret\n")
        sd.drop_in({"OLLAMA_BASE_URL": "http://127.0.0.1:11434", "TOPICD_DOWN_FIRST_S": "0.2"})
        folder = f"/etc/systemd/system/{UNIT}.service.d"
        sd.sh(f"cp {SOURCE}/systemd/{UNIT}.service.d/secrets.conf.example {folder}/secrets.conf")
        sd.systemctl("daemon-reload")
        pid = start(sd)
        sd.drop("sea.md", TOPIC)
        until(lambda: "Bearer s3cret" in sd.sh("cat /run/asked 2>/dev/null || true"), "a request with the token")
        assert "s3cret" not in sd.sh(
            f"systemctl show {UNIT}; tr '\\0' ' ' < /proc/{pid}/environ; cat /proc/{pid}/cmdline"
        )
        assert "s3cret" not in sd.log()
        until(lambda: "scripts waits" in sd.property("StatusText"), "the trouble in the status")
    finally:
        sd.systemctl("stop", "asked", check=False)
        sd.sh("rm -rf /etc/topicd /run/asked")


def test_a_backup_is_made_by_its_unit_and_can_be_restored(sd: Machine) -> None:
    at_work(sd, "audio")
    sd.systemctl("start", "topicd-backup")
    archive, beside = sd.sh("ls /var/backups/topicd/*").split()
    assert (archive[-7:], beside) == (".tar.gz", f"{archive}.sha256")
    assert sd.sh(f"stat -c %U:%a {archive}").strip() == f"{UNIT}:600"
    sd.run("env", "TOPICD_HOME=/tmp/drill", "topicd", "restore", archive)
    assert sd.sh("ls /tmp/drill/spool/audio").split() == sd.ids("audio")
    let_go(sd)
    done(sd)
    sd.systemctl("enable", "--now", "topicd-backup.timer")
    assert sd.property("NextElapseUSecRealtime", "topicd-backup.timer")
    assert sd.property("Persistent", "topicd-backup.timer") == "yes"
    sd.systemctl("disable", "--now", "topicd-backup.timer")
    sd.sh("rm -r /tmp/drill /var/backups/topicd")
    assert sd.systemctl("start", "topicd-backup", check=False).returncode != 0
    assert sd.property("ExecMainStatus", "topicd-backup") == "78"
    sd.sh("install -d -o topicd -g topicd -m 0750 /var/backups/topicd; systemctl reset-failed topicd-backup")


def test_an_upgrade_restarts_what_ran_and_goes_on_with_an_older_spool(sd: Machine) -> None:
    at_work(sd, "audio")
    sd.systemctl("stop", UNIT)
    sd.run("python3", "-c", OLDER, user=UNIT)
    sd.sh(f"rm {SIGNS}/audio.waiting")
    before = start(sd)
    until(lambda: "audio.waiting" in sd.sh(f"ls {SIGNS}"), "the job is in work")
    sd.sh(f"mkdir {NEXT}; cd {SOURCE}; cp -r {PARTS} {NEXT}; cp -al /opt/topicd /opt/aside")
    try:
        sd.sh(f"cd {NEXT}; sed -i 's/^__version__.*/__version__ = \"99.0.0\"/' daemon/topicd/__init__.py")
        sd.sh(f"cd {NEXT}; cp constraints.txt good.txt; sed -i 's/sha256:./sha256:_/' constraints.txt")
        broken = sd.run(f"{NEXT}/scripts/install.sh", check=False, limit_s=INSTALL_S)
        assert broken.returncode != 0
        assert (sd.property("MainPID"), sd.run("topicd", "--version").stdout) == (before, VERSION)
        said = sd.sh(f"cd {NEXT}; mv good.txt constraints.txt; scripts/install.sh", limit_s=INSTALL_S)
        assert "+ systemctl restart topicd\n" in said
        assert sd.run("topicd", "--version").stdout == "topicd 99.0.0\n"
        assert sd.event("daemon.starting", version="99.0.0")["_PID"] == sd.property("MainPID") != before
        assert len(sd.sh("ls /opt/topicd/versions").split()) == 1
        let_go(sd)
        kept = job(sd, done(sd))
        assert (kept["source"], kept.get("crashes", {})) == ("from an older one.md", {})
    finally:
        sd.sh(f"rm -rf /opt/topicd {NEXT}; mv /opt/aside /opt/topicd")


def test_the_commands_of_the_page_work_word_for_word(sd: Machine) -> None:
    asked = commands("docs/DEPLOYMENT.md", "systemd")
    assert asked[-1] == "scripts/uninstall.sh"
    wanted = [each for each in asked if not each.startswith(("apt install", "git pull", "scripts/uninstall.sh"))]
    assert len(asked) - len(wanted) == 3
    sd.drop_in(FAST)
    sd.sh("rm -f /var/backups/topicd/*")
    try:
        said = sd.sh(f"cd {SOURCE}; " + "\n".join(wanted), limit_s=INSTALL_S)
        assert "Restored" in said or "restored" in said
        assert sd.property("ActiveState") == "active"
        assert sd.property("MemoryMax") == str(6 << 30)
        done(sd)
        sd.sh(f'umask 077; cd {HOME}; echo "# Talk" > input/talk.txt', user="alice")
        until(lambda: "failed" in sd.sh(f"cd {HOME}; topicd status", user="alice"), "an unreadable topic is told")
    finally:
        sd.sh("rm -rf /var/lib/topicd.before; systemctl disable --now topicd topicd-backup.timer")


def test_one_person_runs_it_without_root_by_the_pages_words(sd: Machine) -> None:
    settings = "\n".join(f"{name}={value}" for name, value in PERSONAL.items())
    sd.sh(f"""
        loginctl enable-linger bob
        mkdir /home/bob/topicd /home/bob/topics
        cd {SOURCE} && cp -r {PARTS} Makefile /home/bob/topicd
        echo '{settings}' >/home/bob/topics/.env
        chown -R bob: /home/bob""")
    try:
        login = "export HOME=/home/bob XDG_RUNTIME_DIR=/run/user/$(id -u); cd ~/topicd\n"
        asked = "\n".join(commands("docs/DEPLOYMENT.md", "Laptop"))
        sd.sh(login + asked, user="bob", limit_s=INSTALL_S)
        sd.run("tee", "/home/bob/topics/input/tides.md", user="bob", text=SMALL)
        until(lambda: sd.sh("ls /home/bob/topics/output/*/index.html || true"), "a folder is made", INSTALL_S)
        said = sd.sh(login + "systemctl --user stop topicd; systemctl --user show topicd", user="bob")
        assert {"Result=success", "SubState=dead", "NRestarts=0"} <= set(said.splitlines())
    finally:
        sd.sh(
            "loginctl disable-linger bob; loginctl terminate-user bob || true; rm -rf /home/bob/topicd /home/bob/topics"
        )


def test_an_uninstall_keeps_what_people_made(sd: Machine) -> None:
    sd.drop_in(FAST)
    start(sd)
    sd.drop("sea.md", TOPIC)
    folder = done(sd)
    sd.systemctl("enable", UNIT)
    kept = sd.sh(f"cd {HOME} && find . -type f ! -name .lock | sort | xargs sha256sum; cat /etc/topicd.env")
    sd.sh("cp -al /opt/topicd /opt/aside")
    try:
        assert CHANGES.findall(sd.sh(f"{SOURCE}/scripts/uninstall.sh --dry-run"))
        assert sd.property("ActiveState") == "active"
        said = sd.sh(f"{SOURCE}/scripts/uninstall.sh")
        assert HOME in said
        assert sd.property("LoadState") == "not-found"
        assert sd.sh(LEFT).split() == ["/etc/systemd/system/topicd.service.d", "/etc/topicd.env", HOME]
        assert sd.sh(f"cd {HOME} && find . -type f ! -name .lock | sort | xargs sha256sum; cat /etc/topicd.env") == kept
        sd.sh(f"test -d {folder}; {SOURCE}/scripts/uninstall.sh")
    finally:
        sd.sh("rm -rf /opt/topicd; mv /opt/aside /opt/topicd")
        sd.sh(f"{SOURCE}/scripts/install.sh")
