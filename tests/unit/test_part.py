"""A file on its way, through a power cut at any moment and through records that nobody wrote."""

import json
import random
from pathlib import Path

import pytest

from fakes.power import RecordingDisk, lay
from topicd.backends.part import Part
from topicd.durable import Durable

DATA = random.Random(3).randbytes(5_000)
OTHER = random.Random(4).randbytes(3_000)
URL = "http://a/file"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "file"


def held(target: Path) -> Part:
    part = Part.hold(target, Durable())
    assert part is not None
    return part


def begun(target: Path, durable: Durable, data: bytes, validator: str) -> Part:
    part = Part.hold(target, durable)
    assert part is not None
    part.begin(URL, validator=validator, total=len(data), digest="")
    return part


def test_whatever_a_power_cut_leaves_is_the_whole_file_or_a_part_that_can_be_gone_on_with(target: Path) -> None:
    disk = RecordingDisk()
    disk.watch(target.parent)
    durable = Durable(disk)
    part = begun(target, durable, OTHER, '"other"')
    part.append(OTHER[:1_000])
    part.checkpoint()
    part.append(OTHER[1_000:2_000])
    part.close()
    part = begun(target, durable, DATA, '"data"')  # the file has changed on the server
    for at in range(0, len(DATA), 1_500):
        part.append(DATA[at : at + 1_500])
        if at < 3_000:  # what follows is left to the end
            part.checkpoint()
    part.finish()
    part.close()

    wholes, files = 0, {'"other"': OTHER, '"data"': DATA, "": b""}
    platter, rng = disk.platter(), random.Random(1)
    for number, operation in enumerate(disk.operations):
        platter.apply(operation)
        for count, cut in enumerate(platter.cuts(rng, 60)):
            after = target.parent.parent / f"{number}-{count}"
            lay(platter.tree(disk.roots[target.parent], cut), after, {})
            if (after / target.name).exists():
                assert (after / target.name).read_bytes() == DATA
                wholes += 1
                continue
            found = held(after / target.name)
            assert found.path.read_bytes() == files[found.record.validator][: found.record.synced]
            found.close()
    assert wholes


def test_the_record_keeps_up_with_the_checkpoints(target: Path) -> None:
    part = begun(target, Durable(), DATA, '"data"')
    part.append(DATA[:100])
    part.checkpoint()
    part.append(DATA[100:200])
    part.close()
    again = held(target)
    assert (again.size, again.record.synced, again.path.stat().st_size) == (100, 100, 100)
    again.close()


def test_one_writer_at_a_time(target: Path) -> None:
    part = held(target)
    assert Part.hold(target, Durable()) is None
    part.close()
    held(target).close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 70_000,
        b"\xff",
        json.dumps({"url": URL, "validator": "", "total": 3, "digest": "", "synced": 101}).encode(),
        json.dumps({"url": URL, "validator": "", "total": 3, "digest": "", "synced": -1}).encode(),
        json.dumps({"url": URL, "validator": "", "total": 3, "digest": "", "synced": True}).encode(),
        json.dumps({"url": URL, "validator": "a\nb", "total": 3, "digest": "", "synced": 1}).encode(),
        json.dumps({"url": 1, "validator": "", "total": 3, "digest": "", "synced": 1}).encode(),
        json.dumps({"url": URL, "synced": 1}).encode(),
    ],
)
def test_a_record_that_cannot_be_true_is_worth_nothing(target: Path, said: bytes) -> None:
    target.with_name("file.part").write_bytes(DATA[:100])
    target.with_name("file.part.json").write_bytes(said)
    part = held(target)
    assert (part.size, part.path.read_bytes()) == (0, b"")
    part.close()
