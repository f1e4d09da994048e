"""The daemon's life on fake backends: topics in, folders out, and everything that can end it in between."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rig.daemon import FAKES, LIMIT_S, TESTS, TOPICD, Home, load, running, until

FILES = {
    "topic.md",
    "job.json",
    "script.md",
    "scenes.json",
    "audio.wav",
    "captions.vtt",
    "captions.srt",
    "manifest.json",
    "index.html",
}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mtime and bytes of every unit in a job's directory."""
    units = [*folder.glob("audio/*.wav"), *folder.glob("images/*.png"), *folder.glob("scenes.json")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in units}


def leftovers(home: Home) -> list[str]:
    return [
        str(path)
        for path in home.path.rglob("*")
        if path.name.endswith((".tmp", ".incoming")) or ".topicd-probe" in path.name
    ]


def test_a_topic_becomes_a_folder(home: Home) -> None:
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n\nThe Moon pulls.\n")
        daemon.event("job.done")
        folder = home.only("output")
        assert {path.name for path in folder.iterdir() if path.is_file()} >= FILES
        assert (folder / "topic.md").read_text() == "# Tides\n\nThe Moon pulls.\n"
        assert len(list(folder.glob("images/*.png"))) == 6
        assert daemon.stop() == 0
    assert not leftovers(home)
    assert not home.ids("scripts") + home.ids("audio") + home.ids("images")


def test_topics_dropped_while_it_was_down_are_taken_at_the_start(home: Home) -> None:
    for number in range(3):
        home.drop(f"{number}.txt", f"Topic {number}")
    assert home.topicd("run", "--once").returncode == 0
    assert len(home.ids("output")) == 3


def test_three_at_once(home: Home) -> None:
    with running(home, FAKE_SECONDS="0.05") as daemon:
        for name in ("a.md", "b.md", "c.md"):
            home.drop(name, f"# {name}\n")
        until(lambda: len(daemon.events("job.done")) == 3, "three jobs done")
        assert sorted(load(home.output / job / "job.json")["source"] for job in home.ids("output")) == [
            "a.md",
            "b.md",
            "c.md",
        ]


def test_two_files_of_one_name_are_two_jobs(home: Home) -> None:
    with running(home) as daemon:
        for text in ("# One\n", "# Two\n"):
            home.drop("same.md", text)
            until(lambda: not list(home.input.glob("*.md")), "the topic is taken")
        until(lambda: len(daemon.events("job.done")) == 2, "both are done")
        assert {load(home.output / job / "scenes.json")["title"] for job in home.ids("output")} == {"One", "Two"}


def test_a_file_still_being_written_is_left_until_it_is_whole(home: Home) -> None:
    with running(home) as daemon:
        with (home.input / "slow.md").open("w") as file:
            file.write("# Slow\n\nfirst half\n")
            file.flush()
            time.sleep(1.0)  # longer than settle_s: only the writer's open descriptor says it is not done
            # Each scan takes all that is ready: by the second one it would have been taken.
            home.drop("whole.md", "# Whole\n")
            daemon.event("job.accepted", source="whole.md")
            home.drop("later.md", "# Later\n")
            daemon.event("job.accepted", source="later.md")
            assert (home.input / "slow.md").exists()
            file.write("second half\n")
        job = daemon.event("job.accepted", source="slow.md")["job"]
        daemon.event("job.done", job=job)
        assert (home.output / job / "topic.md").read_text().endswith("second half\n")


@pytest.mark.parametrize("stage", ["scripts", "audio", "images"])
def test_killed_in_a_stage_it_goes_on_and_makes_nothing_twice(home: Home, stage: str) -> None:
    in_hand, units = {
        "scripts": ("script", 0),
        "audio": ("audio Tides, part 4.", 3),
        "images": ("image part 3", 5 + 3),
    }[stage]
    log = home.path / "calls"
    home.hold_calls(in_hand)
    with running(home, FAKE_LOG=str(log)) as daemon:
        home.drop("tides.md", "# Tides\n")
        until(lambda: log.exists() and in_hand in log.read_text().splitlines(), "the call to be cut off")
        daemon.close()  # SIGKILL
    home.let_calls_go()
    job = home.only(stage)
    before = snapshot(job)
    assert len(before.keys() - {"scenes.json"}) == units
    with running(home, FAKE_LOG=str(log)) as daemon:
        daemon.event("job.crashed", stage=stage)
        daemon.event("job.done")
    after = snapshot(home.only("output"))
    assert {path: after[path] for path in before} == before
    calls = log.read_text().splitlines()
    assert len(calls) - len(set(calls)) <= 1, "at most the unit in hand is made twice"
    assert load(home.only("output") / "job.json")["crashes"] == {stage: 1}
    assert not leftovers(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_mid_work_keeps_units_and_gives_the_attempt_back(home: Home, number: int) -> None:
    home.hold_calls("audio Tides, part 3.")
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("unit.finished", unit="audio/002")
        began = time.monotonic()
        assert daemon.stop(number) == 0
        assert time.monotonic() - began < 10
        daemon.event("job.given_back", stage="audio")
    home.let_calls_go()
    job = load(home.only("audio") / "job.json")
    assert job["attempts"] == {}
    assert not list((home.spool / "audio").glob(".*.begun"))
    kept = snapshot(home.only("audio"))
    assert "audio/002.wav" in kept
    with running(home) as daemon:
        daemon.event("job.done")
    after = snapshot(home.only("output"))
    assert {path: after[path] for path in kept} == kept
    assert load(home.only("output") / "job.json")["crashes"] == {}


def test_a_second_signal_ends_at_once(home: Home) -> None:
    log = home.path / "calls"
    env = {"TOPICD_AUDIO_BACKEND": "fakes.stubborn:Stubborn", "TOPICD_STOP_TIMEOUT_S": "60", "FAKE_LOG": str(log)}
    with running(home, **env) as daemon:
        home.drop("tides.md", "# Tides\n")
        until(lambda: log.exists() and "stubborn" in log.read_text(), "it is in the call that does not end")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.event("daemon.stopping")
        assert daemon.stop(signal.SIGTERM) in {128 + signal.SIGTERM, -signal.SIGTERM}


def test_a_second_daemon_on_the_home_is_refused(home: Home) -> None:
    with running(home) as daemon:
        second = home.topicd("run")
        assert second.returncode == 75
        assert f"process {daemon.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr


def test_a_job_that_kills_the_daemon_ends_as_a_crash_loop(home: Home) -> None:
    home.drop("poison.md", "# Poison\n")
    home.drop("good.md", "# Good\n")
    for _ in range(3):
        with running(home, TOPICD_AUDIO_BACKEND="fakes.stubborn:Poison") as daemon:
            assert daemon.process.wait(LIMIT_S) == -signal.SIGKILL
    with running(home) as daemon:
        daemon.event("job.failed", cause="crash_loop")
        home.only("output")  # by any of the four
    reason = home.reason()
    assert (reason["stage"], reason["cause"]) == ("audio", "crash_loop")
    assert reason["hint"]


def test_errors_are_tried_again_then_given_up_with_a_reason(home: Home) -> None:
    with running(home, TOPICD_AUDIO_BACKEND="fakes.stubborn:Failing", TOPICD_ATTEMPTS_MAX="3") as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("job.failed", cause="no_luck")
        assert len(daemon.events("job.deferred")) == 2
    reason = home.reason()
    assert {key: reason[key] for key in ("stage", "unit", "cause")} == {
        "stage": "audio",
        "unit": "audio/001",
        "cause": "no_luck",
    }
    again = home.topicd("retry", "--all", "--stage", "audio")
    assert again.returncode == 0, again.stderr
    assert home.topicd("run", "--once").returncode == 0
    assert home.ids("output")


def test_a_backend_that_is_away_costs_no_attempt(home: Home, tmp_path: Path) -> None:
    up = tmp_path / "up"
    with running(home, TOPICD_AUDIO_BACKEND="fakes.stubborn:Away", FAKE_UP=str(up), TOPICD_ATTEMPTS_MAX="1") as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("backend.unavailable", stage="audio")
        until(lambda: len(daemon.events("backend.unavailable")) >= 3, "several looks")
        until(lambda: not list((home.spool / "audio").glob(".*.begun")), "the attempt is given back")
        assert load(home.only("audio") / "job.json")["attempts"] == {}
        told = home.topicd("status")
        assert "audio waits: it is switched off" in told.stdout
        up.touch()
        daemon.event("backend.available", stage="audio")
        daemon.event("job.done")


def test_a_bug_fails_the_job_visibly_and_the_daemon_goes_on(home: Home) -> None:
    with running(home, TOPICD_IMAGE_BACKEND="fakes.stubborn:Buggy") as daemon:
        home.drop("tides.md", "# Tides\n")
        assert "ZeroDivisionError" in daemon.event("stage.bug")["traceback"]
        home.drop("more.md", "# More\n")
        until(lambda: len(daemon.events("job.failed")) == 2, "both fail")
        assert daemon.process.poll() is None
    assert {load(home.spool / "failed" / job / "reason.json")["cause"] for job in home.ids("failed")} == {"bug"}


def test_mv_is_a_control_interface(home: Home) -> None:
    home.hold_calls("audio Tides, part 2.")
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("unit.finished", unit="audio/001")
        name = home.ids("audio")[0]
        (home.spool / "audio" / name).rename(home.spool / "held" / name)
        daemon.event("job.moved_away", job=name)
        units = snapshot(home.spool / "held" / name)
        home.let_calls_go()
        (home.spool / "held" / name).rename(home.spool / "audio" / name)
        daemon.event("job.done")
        after = snapshot(home.output / name)
        assert {path: after[path] for path in units} == units
        assert load(home.output / name / "job.json")["crashes"] == {}


def test_hold_and_release_while_it_works(home: Home) -> None:
    home.hold_calls("audio Tides, part 2.")
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("unit.finished", unit="audio/001")
        held = home.topicd("hold", "tides")
        assert held.returncode == 0, held.stderr
        assert home.ids("held")
        daemon.event("job.moved_away")
        home.let_calls_go()
        assert home.topicd("release", "tides").returncode == 0
        daemon.event("job.done")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"TOPICD_SETTLE_S": "soon"}, ["TOPICD_SETTLE_S='soon'"]),
        ({"TOPICD_SETLE_S": "1"}, ["TOPICD_SETLE_S", "did you mean TOPICD_SETTLE_S"]),
        ({"TOPICD_SCENES": "0", "TOPICD_LOG_LEVEL": "loud"}, ["TOPICD_SCENES='0'", "TOPICD_LOG_LEVEL='loud'"]),
        ({"OLLAMA_BASE_URL": "gpu:11434"}, ["OLLAMA_BASE_URL='gpu:11434'"]),
        ({"TOPICD_SCRIPT_BACKEND": "nobody.home:Class"}, ["TOPICD_SCRIPT_BACKEND=nobody.home:Class"]),
        ({"TOPICD_AUDIO_BACKEND": "fakes.backends:FakeImage"}, ["TOPICD_AUDIO_BACKEND", "AudioBackend"]),
        ({"TOPICD_IMAGE_BACKEND": "a1111"}, ["a1111 needs an address", "SD_BASE_URL"]),
        ({"TOPICD_HOME": "/proc/nowhere"}, ["/proc/nowhere", "TOPICD_HOME"]),
    ],
)
def test_a_wrong_setting_stops_the_start_with_78(home: Home, env: dict[str, str], words: list[str]) -> None:
    done = home.topicd("run", "--once", env=env)
    assert done.returncode == 78, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_stops_the_start_with_78(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = home.topicd("run", "--once", env={"TOPICD_METRICS_PORT": port})
    assert done.returncode == 78
    assert port in done.stderr
    assert "TOPICD_METRICS_PORT" in done.stderr


def shown(home: Home, *command: str | Path) -> tuple[str, bytes]:
    """Run what shows a job's way, and keep the job in audio until that was shown; return stdout, and all of it."""
    out, every = home.path / "stdout", home.path / "shown"
    home.hold_calls("audio")
    with running(home), out.open("wb") as stdout, every.open("wb") as stderr:
        process = subprocess.Popen(command, env=home.env, cwd=home.path, stdout=stdout, stderr=stderr)
        until(lambda: b"audio" in out.read_bytes() + every.read_bytes() or process.poll() is not None, "audio is shown")
        home.let_calls_go()
        assert process.wait(LIMIT_S) == 0, every.read_text()
    return out.read_text(), out.read_bytes() + every.read_bytes()


def test_add_waits_and_prints_the_folder(home: Home) -> None:
    stdout, every = shown(home, TOPICD, "add", "why the sky is blue", "--wait")
    folder = Path(stdout.strip())
    assert folder.parent == home.output
    assert load(folder / "scenes.json")["title"] == "why the sky is blue"
    assert b" audio 1 of 5\n" in every, "plain lines of progress when not on a terminal"


def test_add_waits_and_tells_why_it_failed(home: Home) -> None:
    with running(home):
        done = home.topicd("add", "---\ncolour: red\n---\n# A topic\n", "--wait")
    assert done.returncode == 1
    assert "hint:" in done.stderr


def test_on_a_terminal_progress_is_one_line(home: Home) -> None:
    _, every = shown(home, "script", "-qec", f"{TOPICD} add 'the sky' --wait", "/dev/null")
    assert b"\r\x1b[K" in every
    assert b"audio" in every


def test_the_verbs_work_with_the_daemon_down(home: Home) -> None:
    home.drop("empty.md", "  \n")
    assert home.topicd("run", "--once").returncode == 0
    told = home.topicd("status", "--json")
    assert told.returncode == 0, told.stderr
    assert '"failed": 1' in told.stdout
    name = home.ids("failed")[0]
    assert home.topicd("show", "empty").stdout.startswith(f"job       {name}")
    assert home.topicd("hold", name).returncode == 0
    assert home.topicd("retry", name).returncode == 4
    (home.spool / "held" / name / "topic.md").write_text("# Mended\n")
    assert home.topicd("release", name).returncode == 0
    assert home.topicd("run", "--once").returncode == 0
    assert home.ids("output") == [name]
    assert home.topicd("show", "nobody").returncode == 3
    assert home.topicd("release", name).returncode == 4
    assert home.topicd("check").returncode == 0


def test_metrics_and_health_are_served(home: Home) -> None:
    with running(home) as daemon:
        home.drop("tides.md", "# Tides\n")
        daemon.event("job.done")
        port = load(home.spool / ".lock")["port"]
        text = subprocess.run(
            ["curl", "-sf", f"http://127.0.0.1:{port}/metrics"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert 'topicd_jobs{stage="done"} 1.0' in text
        assert "topicd_jobs_done_total 1.0" in text
        for path in ("healthz", "readyz"):
            subprocess.run(
                ["curl", "-sf", f"http://127.0.0.1:{port}/{path}"], capture_output=True, timeout=30, check=True
            )


def test_the_fakes_of_this_file_are_where_the_daemon_looks(home: Home) -> None:
    assert (TESTS / "fakes" / "stubborn.py").is_file()
    assert home.env["PYTHONPATH"] == FAKES["PYTHONPATH"]
