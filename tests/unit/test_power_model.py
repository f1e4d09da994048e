"""The model of a power cut is itself held to what it says."""

import itertools
import os
import random
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from fakes.power import Cut, Leaf, Platter, RecordingDisk, Tree, frozen, lay
from rig.power import together
from topicd.durable import Durable

Work = Callable[[RecordingDisk, Path], None]


def recorded(root: Path, work: Work) -> tuple[RecordingDisk, Platter]:
    disk = RecordingDisk()
    disk.watch(root)
    work(disk, root)
    platter = disk.platter()
    for operation in disk.operations:
        platter.apply(operation)
    return disk, platter


def flat(tree: Tree, under: str = "") -> dict[str, bytes]:
    found = dict[str, bytes]()
    for name, entry in tree.items():
        found |= {under + name: entry.data} if isinstance(entry, Leaf) else flat(entry, f"{under}{name}/")
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "a" / "old").write_bytes(b"old")
    return root


def states(root: Path, work: Work, limit: int = 10_000) -> list[dict[str, bytes]]:
    """Return every state that the model tells of after some work, each once."""
    disk, platter = recorded(root, work)
    node, rng = disk.roots[root], random.Random(1)
    trees = {frozen(tree): flat(tree) for tree in (platter.tree(node, cut) for cut in platter.cuts(rng, limit))}
    return list(trees.values())


def write(disk: RecordingDisk, path: Path, data: bytes, *, sync: bool = False) -> None:
    fd = disk.create(path)
    disk.write(fd, memoryview(data))
    if sync:
        disk.fsync(fd)
    disk.close(fd)


def sync(disk: RecordingDisk, path: Path) -> None:
    Durable(disk).sync(path)


def test_what_nobody_touched_is_there(root: Path) -> None:
    assert states(root, lambda _disk, _root: None) == [{"a/old": b"old"}]


def test_a_file_without_any_fsync_is_absent_empty_torn_zeroed_or_whole(root: Path) -> None:
    found = [state.get("a/new") for state in states(root, lambda disk, root: write(disk, root / "a/new", b"12345678"))]
    assert None in found
    assert b"" in found
    assert b"12345678" in found
    assert any(data and len(data) == 8 and b"\0" in data for data in found)


def test_torn_bytes_are_a_prefix(root: Path) -> None:
    _, platter = recorded(root, lambda disk, root: write(disk, root / "a/new", b"12345678"))
    cuts = [cut for seed in range(50) for cut in platter.cuts(random.Random(seed), 100)]
    torn = {data for cut in cuts for fate, data in cut.files.values() if fate == "torn"}
    assert len(torn) > 3
    assert all(b"12345678".startswith(data) for data in torn)


def test_an_fsync_of_a_file_keeps_its_bytes_but_not_its_name(root: Path) -> None:
    found = states(root, lambda disk, root: write(disk, root / "a/new", b"1234", sync=True))
    assert {state.get("a/new") for state in found} == {None, b"1234"}


def test_an_fsync_of_a_directory_keeps_the_name_but_not_the_bytes(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        write(disk, root / "a/new", b"1234")
        sync(disk, root / "a")

    found = {state.get("a/new") for state in states(root, work)}
    assert None not in found
    assert {b"", b"1234"} <= found


def test_a_rename_is_one_thing(root: Path) -> None:
    def move(disk: RecordingDisk, root: Path) -> None:
        disk.rename(root / "a/old", root / "b/new")

    assert states(root, move) == [{"a/old": b"old"}, {"b/new": b"old"}]


@pytest.mark.parametrize("synced", ["a", "b"])
def test_either_directory_keeps_a_rename(root: Path, synced: str) -> None:
    def move_for_good(disk: RecordingDisk, root: Path) -> None:
        disk.rename(root / "a/old", root / "b/new")
        sync(disk, root / synced)

    assert states(root, move_for_good) == [{"b/new": b"old"}]


def test_what_is_in_a_directory_that_is_lost_is_lost(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.mkdir(root / "a/job")
        disk.rename(root / "a/old", root / "a/job/topic")
        sync(disk, root / "a/job")

    found = states(root, work)
    assert {} in found
    assert {"a/job/topic": b"old"} in found


def test_a_directory_moved_for_good_is_there_though_its_making_was_never_synced(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.mkdir(root / "a/job")
        write(disk, root / "a/job/file", b"1", sync=True)
        sync(disk, root / "a/job")
        disk.rename(root / "a/job", root / "b/job")
        sync(disk, root / "b")

    assert states(root, work) == [{"a/old": b"old", "b/job/file": b"1"}]


def test_changes_of_different_names_come_in_any_order_those_of_one_name_in_theirs(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        for name in ("x", "y"):
            write(disk, root / f"a/{name}", name.encode(), sync=True)
        for name in ("x", "y"):
            disk.rename(root / f"a/{name}", root / "a/old")

    found = [(state.get("a/old"), "a/x" in state, "a/y" in state) for state in states(root, work)]
    assert (b"old", False, True) in found, "the later file alone"
    assert (b"old", True, False) in found
    assert (b"x", False, True) in found
    assert (b"y", True, False) not in found, "the second replaced the first"
    assert (b"y", False, False) in found


def test_a_removal_may_be_undone_and_what_was_removed_is_whole_then(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.unlink(root / "a/old")
        disk.rmdir(root / "a")

    found = states(root, work)
    assert len(found) == 3, "all there, an empty directory, nothing"
    assert [state for state in found if state] == [{"a/old": b"old"}]


def test_a_file_under_a_name_used_again_is_another_file(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.unlink(root / "a/old")
        write(disk, root / "a/old", b"new", sync=True)

    found = [state.get("a/old") for state in states(root, work)]
    assert set(found) == {b"old", None, b"new"}


def test_what_somebody_else_wrote_is_not_on_the_disk_yet(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        (root / "a/theirs").write_bytes(b"theirs")
        disk.unsynced(root / "a/theirs")

    found = {state.get("a/theirs") for state in states(root, work)}
    assert {None, b"", b"theirs"} <= found


def _many(disk: RecordingDisk, root: Path) -> None:
    for number in range(12):
        disk.mkdir(root / f"a/{number}")
    write(disk, root / "a/file", b"12345678")


def test_a_sample_holds_the_extremes_and_each_one_alone(root: Path) -> None:
    _, platter = recorded(root, _many)
    every = frozenset(range(13))
    cuts = list(platter.cuts(random.Random(1), 60))
    assert len(cuts) == 60
    kept = {cut.kept for cut in cuts}
    assert {frozenset(), every} <= kept
    assert {every - {number} for number in every} <= kept
    assert {frozenset({number}) for number in every} <= kept
    assert {fate for cut in cuts for fate, _ in cut.files.values()} == {"old", "torn", "zeros", "whole"}


def test_one_seed_gives_one_sample(root: Path) -> None:
    _, platter = recorded(root, _many)
    first, again, other = (list(platter.cuts(random.Random(seed), 60)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_state_is_laid_on_the_disk_with_the_inodes_that_were_there(root: Path, tmp_path: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.rename(root / "a/old", root / "b/old")

    before = (root / "a/old").stat()
    disk, platter = recorded(root, work)
    lay(platter.tree(disk.roots[root], Cut(frozenset(), {})), tmp_path / "laid", disk.kept)
    after = (tmp_path / "laid/a/old").stat()
    assert (tmp_path / "laid/b").is_dir()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not os.path.lexists(tmp_path / "laid/b/old")


def test_a_story_tells_what_became_of_each_operation(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        disk.mkdir(root / "b/kept")
        sync(disk, root / "b")
        write(disk, root / "a/file", b"1")
        disk.mkdir(root / "a/lost")

    disk, platter = recorded(root, work)
    (cut,) = [
        cut
        for cut in platter.cuts(random.Random(1), 100)
        if cut.kept == {0} and [fate for fate, _ in cut.files.values()] == ["whole"]
    ]
    told = [line.split()[1:3] for line in platter.told(cut, disk.operations).splitlines()]
    assert told == [
        ["durable", "mkdir"],
        ["fsync", "root/b"],
        ["kept", "create"],
        ["whole", "write"],
        ["LOST", "mkdir"],
    ]


def _claiming(disk: RecordingDisk, root: Path, name: str) -> Generator[tuple[Path, ...], None, str]:
    disk.mkdir(root / "b" / name)
    yield (root / "b",)
    write(disk, root / "b" / name / "file", name.encode())
    yield (root / "b" / name, root / "b" / name / "file")
    return name


@pytest.mark.parametrize("seed", range(10))
def test_works_driven_together_share_their_fsyncs_and_are_each_on_the_disk_at_their_end(root: Path, seed: int) -> None:
    names = ["x", "y", "z"]

    def work(disk: RecordingDisk, root: Path) -> None:
        works = [_claiming(disk, root, name) for name in names]
        assert together(works, Durable(disk), random.Random(seed)) == names

    assert states(root, work) == [{"a/old": b"old", **{f"b/{name}/file": name.encode() for name in names}}]


def test_works_driven_together_go_through_each_other_in_many_ways(tmp_path: Path) -> None:
    orders = set()
    for seed in range(10):
        root = tmp_path / f"{seed}"
        (root / "b").mkdir(parents=True)
        disk = RecordingDisk()
        disk.watch(root)
        together([_claiming(disk, root, name) for name in "xyz"], Durable(disk), random.Random(seed))
        orders.add(tuple(operation.text.partition("/")[2] for operation in disk.operations))
    assert len(orders) > 5
    assert min(map(len, orders)) < max(map(len, orders)), "a group shares the fsync of b"


def test_every_state_of_a_small_disk_is_told_of(root: Path) -> None:
    def work(disk: RecordingDisk, root: Path) -> None:
        for name in ("x", "y", "z"):
            disk.mkdir(root / "a" / name)

    disk, platter = recorded(root, work)
    kept = {cut.kept for cut in platter.cuts(random.Random(1), 8)}
    assert kept == {frozenset(some) for count in range(4) for some in itertools.combinations(range(3), count)}
    assert len(disk.operations) == 3
