"""Backup while a daemon works, loss of its home, restore into a new one, and the daemon there goes on."""

import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

from rig.daemon import FAKES, QUICK, Home, running, until

TOP = Path(__file__).resolve().parents[2]
ROUNDS = 3
TOPICS_A_ROUND = 8
STAGES = ("spool/scripts/", "spool/audio/", "spool/images/")
LOAD = {
    "FAKE_SECONDS": "0.1",
    "TOPICD_SCENES": "2",
    "TOPICD_SCRIPT_JOBS": "3",
    "TOPICD_AUDIO_JOBS": "3",
    "TOPICD_IMAGE_JOBS": "3",
}


def titles(home: Home) -> Counter[str]:
    """Return the topics that are anywhere in a home, by their title."""
    found = [*home.input.glob("*.md"), *home.spool.glob("*/*/topic.md"), *home.output.glob("*/topic.md")]
    return Counter(path.read_text().splitlines()[0] for path in found)


def members(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


def script(home: Home, name: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOP / "scripts" / name, *map(str, args)],
        env=home.env,
        cwd=home.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def restored(archive: Path, path: Path) -> Home:
    """Restore into a new home and let a daemon there run to the end."""
    home = Home(path, {**FAKES, **QUICK, **LOAD, "FAKE_SECONDS": "0"})
    path.mkdir()
    done = script(home, "restore.sh", archive)
    assert done.returncode == 0, done.stderr
    assert home.topicd("fsck").returncode == 0
    assert home.topicd("run", "--once").returncode == 0
    return home


def check(home: Home, wanted: set[str]) -> None:
    """Check that every topic that was there before the backup ended exactly once, and every product is sound."""
    found = titles(home)
    assert wanted <= {*found}, f"lost: {wanted - {*found}}"
    assert {*found.values()} == {1}, f"twice: {found}"
    assert sum(found.values()) == len(home.ids("output")) + len(home.ids("held"))
    checked = home.topicd("fsck")
    assert (checked.returncode, "all is well" in checked.stdout) == (0, True), checked.stdout


def test_a_home_comes_back_from_a_backup_made_in_mid_flight(home: Home, tmp_path: Path) -> None:
    home.env |= LOAD
    folder, archives = tmp_path / "backups", list[tuple[Path, set[str]]]()
    folder.mkdir()
    ever = {"# Held"}
    home.hold_calls("Held")
    with running(home) as daemon:
        home.drop("held.md", "# Held\n")
        held = daemon.event("job.accepted")["job"]
        assert home.topicd("hold", str(held)).returncode == 0
        home.hold_calls(f"topic {TOPICS_A_ROUND - 1}, part 2.")  # so that some are in mid-flight, however late it is
        for number in range(ROUNDS):
            dropped = [f"# Round {number}, topic {n}" for n in range(TOPICS_A_ROUND)]
            for n, title in enumerate(dropped):
                home.drop(f"{number}-{n}.md", f"{title}\n")
            until(lambda some=number * 4 + 1: len(daemon.events("job.done")) >= some, "some are done")  # type: ignore[misc]
            ever |= {*dropped}
            done = script(home, "backup.sh", folder, "--keep", 2)
            assert done.returncode == 0, done.stderr
            archives.append((Path(done.stdout.strip()), {*ever}))
    in_flight = [name for archive, _ in archives[-2:] for name in members(archive) if name.startswith(STAGES)]
    assert in_flight, "the backups were made in mid-flight"
    assert all(any(f"spool/held/{held}/" in name for name in members(archive)) for archive, _ in archives[-2:])
    shutil.rmtree(home.path)
    assert len([*folder.glob("*.tar.gz")]) == 2, "the oldest is gone"
    for number, (archive, before) in enumerate(archives[-2:]):
        check(restored(archive, tmp_path / f"restored-{number}"), before)
