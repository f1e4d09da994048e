"""A disk that can lose power: each call is done and recorded, and what a power cut may leave is told for any moment.

`RecordingDisk` does the real thing on real files and takes note of it by inode, since paths move. `Platter` replays
what was noted up to a moment and knows what has arrived for good; its `cuts` are the legal states at that moment.

What is legal. A file that was written since its last fsync has its old bytes, a torn prefix, zeros in place of some
sectors or all of the new bytes, or all of them. A change of directory entries (create, mkdir, rename, unlink, rmdir)
that no fsync followed is there or not, each for itself, within a directory and across directories; a rename is one
change: the old name gone and the new one there, or neither. It lasts once either of its directories was fsynced after
it. An entry leads to an inode: what is in a directory whose own entry is lost, is lost. A file's fsync says nothing of
its entry. Changes of one name in one directory keep their order: the later one is there only with the earlier ones, so
that an entry whose creation is lost cannot be renamed or removed.

Never told: pages of one file in another order than a prefix or a hole of zeros, a disk that lies about a flush, rot, a
rename that is not atomic.
"""

import itertools
import os
import random
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from topicd.durable import Disk

Identity: TypeAlias = tuple[int, int]
SECTOR_BYTES = 512
"""What a disk writes whole: after a hole of zeros, the rest begins with a new one."""
OLD, TORN, ZEROS, WHOLE = FATES = ("old", "torn", "zeros", "whole")


class Node(NamedTuple):
    """An inode, as long as it lives; the kernel may use its number again, this one is not."""

    number: int
    is_folder: bool


class Change(NamedTuple):
    """A change of directory entries, all of it or nothing: what each name leads to from now on, None for nowhere."""

    text: str
    sets: tuple[tuple[Node, str, Node | None], ...]


class Write(NamedTuple):
    """Bytes put into a file."""

    text: str
    node: Node
    offset: int
    data: bytes


class Shorten(NamedTuple):
    """A file cut to a size."""

    text: str
    node: Node
    size: int


class Sync(NamedTuple):
    """An fsync."""

    text: str
    node: Node


Operation: TypeAlias = Change | Write | Shorten | Sync


class Leaf(NamedTuple):
    """A file in a tree."""

    node: Node
    data: bytes


Tree: TypeAlias = dict[str, "Tree | Leaf"]


class Cut(NamedTuple):
    """What became of all that was pending.

    Attributes:
        kept: the changes that survived, as numbers in `Platter.pending`.
        files: each file written since its last fsync: what became of it in one word, and its bytes.
    """

    kept: frozenset[int]
    files: Mapping[Node, tuple[str, bytes]]


class RecordingDisk(Disk):
    """Does and records every call; it does not really fsync.

    Attributes:
        operations: what was done, in order.
        kept: a second link to each file that somebody else made, so that a state built later has the same inode.
    """

    def __init__(self) -> None:
        self.operations = list[Operation]()
        self.entries = dict[Node, dict[str, Node]]()
        self.contents = dict[Node, bytes]()
        self.kept = dict[Node, Path]()
        self.roots = dict[Path, Node]()
        self._nodes = dict[Identity, Node]()
        self._numbers = itertools.count()

    def watch(self, root: Path) -> None:
        """Take a directory, and all in it, as what is on the disk at the beginning."""
        _beside(root).mkdir()
        self.roots[root] = self._new(root)
        self.roots[root] = self._survey(root)

    def platter(self) -> "Platter":
        """Return the disk as it was at the beginning."""
        return Platter(self.entries, self.contents)

    def unsynced(self, path: Path) -> None:
        """Tell it of a file that somebody else wrote and did not fsync, neither the file nor its directory."""
        self._enter("written elsewhere", path, self._new(path))
        node = self._node(path)
        self.operations.append(Write(f"write elsewhere {self._short(path)}", node, 0, path.read_bytes()))
        self._keep(path, node)

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._enter("create", path, self._new(path))
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        count = super().write(fd, data)
        node = self._nodes[_identity(os.fstat(fd))]
        self.operations.append(Write(f"write {count} {self._named(fd)}", node, offset, bytes(data[:count])))
        return count

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        node = self._nodes[_identity(os.fstat(fd))]
        self.operations.append(Shorten(f"cut to {size} {self._named(fd)}", node, size))

    def fsync(self, fd: int) -> None:
        self.operations.append(Sync(f"fsync {self._named(fd)}", self._nodes[_identity(os.fstat(fd))]))

    def rename(self, source: Path, target: Path) -> None:
        node, there, here = self._node(source), self._node(target.parent), self._node(source.parent)
        super().rename(source, target)
        text = f"rename {self._short(source)} -> {self._short(target)}"
        self.operations.append(Change(text, ((here, source.name, None), (there, target.name, node))))

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._enter("mkdir", path, self._new(path))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._enter("unlink", path, None)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._enter("rmdir", path, None)

    def _survey(self, path: Path) -> Node:
        node = self._new(path)
        if node.is_folder:
            self.entries[node] = {entry.name: self._survey(entry) for entry in sorted(path.iterdir())}
        else:
            self.contents[node] = path.read_bytes()
            self._keep(path, node)
        return node

    def _keep(self, path: Path, node: Node) -> None:
        root = next(root for root in self.roots if path.is_relative_to(root))
        self.kept[node] = _beside(root) / str(node.number)
        os.link(path, self.kept[node])

    def _enter(self, what: str, path: Path, node: Node | None) -> None:
        self.operations.append(Change(f"{what} {self._short(path)}", ((self._node(path.parent), path.name, node),)))

    def _new(self, path: Path) -> Node:
        found = path.lstat()
        self._nodes[_identity(found)] = Node(next(self._numbers), stat.S_ISDIR(found.st_mode))
        return self._nodes[_identity(found)]

    def _node(self, path: Path) -> Node:
        return self._nodes[_identity(path.lstat())]

    def _named(self, fd: int) -> str:
        return self._short(Path(f"/proc/self/fd/{fd}").readlink())

    def _short(self, path: Path) -> str:
        root = next((root for root in self.roots if path.is_relative_to(root)), path.parent)
        return f"{root.name}/{path.relative_to(root)}"


class Platter:
    """What has arrived for good, and what is pending, after some of the operations.

    Attributes:
        pending: changes of entries that a power cut may undo, oldest first.
    """

    def __init__(self, entries: Mapping[Node, Mapping[str, Node]], contents: Mapping[Node, bytes]) -> None:
        self.pending = list[Change]()
        self._entries = {node: dict(names) for node, names in entries.items()}
        self._synced = dict(contents)
        self._dirty = dict[Node, bytes]()

    def apply(self, operation: Operation) -> None:
        """Let one more operation happen."""
        if isinstance(operation, Change):
            self.pending.append(operation)
        elif isinstance(operation, Write):
            self._write(operation)
        elif isinstance(operation, Shorten):
            self._dirty[operation.node] = self._now(operation.node)[: operation.size]
        elif operation.node.is_folder:
            self._sync_folder(operation.node)
        elif operation.node in self._dirty:
            self._synced[operation.node] = self._dirty.pop(operation.node)

    def cuts(self, rng: random.Random, limit: int) -> Iterator[Cut]:
        """Yield legal outcomes of a power cut now.

        All of them, where there are at most `limit`; else as many: nothing survived, everything did, each one alone is
        missing or present (or some of these, where they do not fit), and others at random.
        """
        if 2 ** len(self.pending) * len(FATES) ** len(self._dirty) <= limit:
            yield from self._every(rng)
            return
        first, second, *others = self._marginal()
        room = limit - 2 if len(others) <= limit - 2 else limit // 2
        chosen = [first, second, *rng.sample(others, min(len(others), room))]
        yield from (self._cut(changes, fates, rng) for changes, fates in chosen)
        yield from (self._random(rng) for _ in range(limit - len(chosen)))

    def tree(self, root: Node, cut: Cut) -> Tree:
        """Return what is under a directory after a power cut."""
        entries = {node: dict(names) for node, names in self._entries.items()}
        for number in sorted(cut.kept):
            _apply(entries, self.pending[number])
        return self._grown(root, entries, cut)

    def told(self, cut: Cut, operations: Sequence[Operation]) -> str:
        """Return the operations, one a line, each with what became of it; `operations` are those applied."""
        fates = {id(change): "kept" if n in cut.kept else "LOST" for n, change in enumerate(self.pending)}
        lines = []
        for number, operation in enumerate(operations, 1):
            fate = fates.get(id(operation), "durable" if isinstance(operation, Change) else "")
            if isinstance(operation, Write | Shorten):
                fate = cut.files[operation.node][0] if operation.node in cut.files else "durable"
            lines.append(f"{number:5} {fate:8} {operation.text}")
        return "\n".join(lines)

    def _write(self, write: Write) -> None:
        old = self._now(write.node)
        self._dirty[write.node] = (
            old[: write.offset].ljust(write.offset, b"\0") + write.data + old[write.offset + len(write.data) :]
        )

    def _now(self, node: Node) -> bytes:
        return self._dirty.get(node, self._synced.get(node, b""))

    def _sync_folder(self, folder: Node) -> None:
        arrived = self._with_needs(
            {number for number, change in enumerate(self.pending) if any(folder == node for node, _, _ in change.sets)}
        )
        for number in sorted(arrived):
            _apply(self._entries, self.pending[number])
        self.pending = [change for number, change in enumerate(self.pending) if number not in arrived]

    def _needs(self) -> list[set[int]]:
        """Return for each pending change the earlier ones of the same names."""
        last, needs = dict[tuple[Node, str], int](), []
        for number, change in enumerate(self.pending):
            names = [(folder, name) for folder, name, _ in change.sets]
            needs.append({last[name] for name in names if name in last})
            last.update(dict.fromkeys(names, number))
        return needs

    def _with_needs(self, kept: set[int]) -> frozenset[int]:
        needs, closed = self._needs(), set(kept)
        for number in reversed(range(len(needs))):
            if number in closed:
                closed |= needs[number]
        return frozenset(closed)

    def _without(self, lost: int) -> frozenset[int]:
        """Return all changes but one and those that need it."""
        needs, gone = self._needs(), {lost}
        for number in range(lost + 1, len(needs)):
            if needs[number] & gone:
                gone.add(number)
        return frozenset(range(len(needs))) - gone

    def _every(self, rng: random.Random) -> Iterator[Cut]:
        numbers = range(len(self.pending))
        for chosen in itertools.product((False, True), repeat=len(self.pending)):
            kept = frozenset(itertools.compress(numbers, chosen))
            if kept == self._with_needs(set(kept)):
                for fates in itertools.product(FATES, repeat=len(self._dirty)):
                    yield self._cut(kept, fates, rng)

    def _marginal(self) -> Iterator[tuple[frozenset[int], tuple[str, ...]]]:
        every, files = frozenset(range(len(self.pending))), len(self._dirty)
        old, whole = (OLD,) * files, (WHOLE,) * files
        yield frozenset(), old
        yield every, whole
        for number in every:
            yield self._without(number), whole
            yield self._with_needs({number}), old
        for at in range(files):
            yield every, (*old[:at], WHOLE, *old[at + 1 :])
            for fate in (OLD, TORN, ZEROS):
                yield every, (*whole[:at], fate, *whole[at + 1 :])

    def _random(self, rng: random.Random) -> Cut:
        likely = rng.choice((0.25, 0.5, 0.75))
        kept = self._with_needs({number for number in range(len(self.pending)) if rng.random() < likely})
        return self._cut(kept, rng.choices(FATES, k=len(self._dirty)), rng)

    def _cut(self, kept: frozenset[int], fates: Sequence[str], rng: random.Random) -> Cut:
        files = zip(self._dirty.items(), fates, strict=True)
        return Cut(
            kept,
            {node: (fate, _fated(fate, self._synced.get(node, b""), data, rng)) for (node, data), fate in files},
        )

    def _grown(self, folder: Node, entries: Mapping[Node, Mapping[str, Node]], cut: Cut) -> Tree:
        tree = Tree()
        for name, node in entries.get(folder, {}).items():
            if node.is_folder:
                tree[name] = self._grown(node, entries, cut)
            else:
                tree[name] = Leaf(node, cut.files[node][1] if node in cut.files else self._synced.get(node, b""))
        return tree


def lay(tree: Tree, folder: Path, originals: Mapping[Node, Path]) -> None:
    """Put a tree on the disk; a whole file that has an original is a link to it, so that it has its inode and times."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in tree.items():
        path = folder / name
        if isinstance(found, dict):
            lay(found, path, originals)
        elif found.node in originals and originals[found.node].read_bytes() == found.data:
            os.link(originals[found.node], path)
        else:
            path.write_bytes(found.data)


def frozen(tree: Tree) -> object:
    """Return a tree as a value that can be compared and hashed; two states of the same names and bytes are one."""
    items = ((name, frozen(found) if isinstance(found, dict) else found.data) for name, found in tree.items())
    return tuple(sorted(items, key=lambda item: item[0]))


def _apply(entries: dict[Node, dict[str, Node]], change: Change) -> None:
    for folder, name, node in change.sets:
        if node is None:
            entries[folder].pop(name)
        else:
            entries.setdefault(folder, {})[name] = node


def _fated(fate: str, old: bytes, new: bytes, rng: random.Random) -> bytes:
    if fate in (OLD, WHOLE):
        return old if fate == OLD else new
    first = min(len(old), len(new))
    start = rng.choice((first, rng.randint(first, len(new))))
    if fate == TORN:
        return new[:start]
    end = rng.choice([*range(start - start % SECTOR_BYTES + SECTOR_BYTES, len(new), SECTOR_BYTES), len(new)])
    return new[:start].ljust(end, b"\0") + new[end:]


def _beside(root: Path) -> Path:
    return root.with_name(f"{root.name}.kept")


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino
