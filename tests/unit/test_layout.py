import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import topicd

TOP = Path(__file__).resolve().parents[2]
PACKAGE = TOP / "daemon" / "topicd"
# Tries what switching verification off does.
UNVERIFIED = {"test_backends_http.py"}
OURS = ("daemon", "tests", "bench", "scripts", "examples")

MODULE_LINES_MAX = 350
FUNCTION_LINES_MAX = 60
DOCSTRING_SENTENCES_MIN = 2
LINT_SECONDS_MAX = 120

# The door to the spool, and what it and the downloads stand on.
# The layout tries by a real rename of a probe whether two directories are on one file system.
MOVERS = {"store.py", "durable.py", "layout.py"}
SYNCERS = {"durable.py"}
MOVES = {"os.rename", "os.renames", "os.replace", "shutil.move"}
SYNCS = {"os.fsync", "os.fdatasync", "os.sync"}

VERSION = re.compile(r"^## \[(\d[^\]]*)\]", re.MULTILINE)


def sources(top: Path) -> list[Path]:
    found = sorted(path for path in top.rglob("*.py") if "__pycache__" not in path.parts)
    assert found, f"nothing to check under {top}"
    return found


PACKAGE_SOURCES = sources(PACKAGE)
OUR_SOURCES = [path for name in OURS if (TOP / name).is_dir() for path in (TOP / name).rglob("*.py")]


def name_of(path: Path) -> str:
    return str(path.relative_to(TOP))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# Checks: each takes a source and tells what is wrong with it


def long_functions(tree: ast.Module) -> list[str]:
    return [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]


def sentences(tree: ast.Module) -> int:
    return len(re.findall(r"[.!?](?=\s|$)", ast.get_docstring(tree) or ""))


def has_code(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body)


def full_names(tree: ast.Module) -> Iterator[str]:
    """Give each dotted name and each imported one in full, whatever it was renamed to."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = ast.unparse(node.value)
            first, dot, rest = base.partition(".")
            yield f"{known.get(first, first)}{dot}{rest}.{node.attr}"


def path_moves(tree: ast.Module) -> list[str]:
    """Find `path.rename(target)` and `path.replace(target)`; a string's `replace` takes two arguments."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("rename", "replace")
        and len(node.args) == 1
        and not node.keywords
    ]


def moves(tree: ast.Module) -> list[str]:
    return sorted(MOVES.intersection(full_names(tree))) + path_moves(tree)


def syncs(tree: ast.Module) -> list[str]:
    return sorted(SYNCS.intersection(full_names(tree)))


def is_false(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def unverified(tree: ast.Module) -> list[str]:
    return [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Call)
            and any(keyword.arg == "verify" and is_false(keyword.value) for keyword in node.keywords)
        )
        or (
            isinstance(node, ast.Dict)
            and any(
                isinstance(key, ast.Constant) and key.value == "verify" and is_false(value)
                for key, value in zip(node.keys, node.values, strict=True)
            )
        )
    ]


def patches(tree: ast.Module) -> list[str]:
    return [name for name in full_names(tree) if re.search(r"(?:^|\.)(?:mock|mocker)\.patch(?:\.|$)", name)]


def newest_version(changelog: str) -> str:
    found = VERSION.search(changelog)
    assert found, "no heading like ## [1.2.3]"
    return found[1]


# The repository


def test_imports_run_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=LINT_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=name_of)
def test_modules_and_functions_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX
    assert long_functions(tree_of(path)) == []


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=name_of)
def test_a_module_opens_with_its_contract(path: Path) -> None:
    tree = tree_of(path)
    if path.name == "__init__.py" and not has_code(tree):
        return
    assert sentences(tree) >= DOCSTRING_SENTENCES_MIN


@pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=name_of)
def test_only_the_store_moves_and_only_durable_syncs(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    assert name in MOVERS or moves(tree_of(path)) == []
    assert name in SYNCERS or syncs(tree_of(path)) == []


@pytest.mark.parametrize("path", OUR_SOURCES, ids=name_of)
def test_nothing_goes_unverified_or_patched(path: Path) -> None:
    tree = tree_of(path)
    assert path.name in UNVERIFIED or unverified(tree) == []
    assert patches(tree) == []


def test_something_was_checked() -> None:
    assert {PACKAGE / "errors.py", PACKAGE / "backends" / "base.py"} <= set(PACKAGE_SOURCES)
    assert {Path(__file__).resolve(), PACKAGE / "errors.py"} <= set(OUR_SOURCES)


def test_changelog_and_package_agree() -> None:
    assert newest_version((TOP / "CHANGELOG.md").read_text(encoding="utf-8")) == topicd.__version__


# The checks themselves: a planted fault is found, its innocent neighbour is not


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nos.rename(a, b)", ["os.rename"]),
        ("import os as o\nrun(o.replace, a, b)", ["os.replace"]),
        ("from os import replace as put\nput(a, b)", ["os.replace"]),
        ("import shutil\nshutil.move(a, b)", ["shutil.move"]),
        ("path.rename(target)", ["path.rename(target)"]),
        ("(a / b).replace(c)", ["(a / b).replace(c)"]),
        ("text.replace('a', 'b')\ndataclasses.replace(job, stage=1)\nnow.replace(tzinfo=None)", []),
    ],
)
def test_moves_are_found(source: str, found: list[str]) -> None:
    assert moves(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nos.fsync(fd)", ["os.fsync"]),
        ("from os import fdatasync as flush", ["os.fdatasync"]),
        ("import os as o\nthread(o.fsync, 3)", ["os.fsync"]),
        ("durable.fsync(fd)", []),
    ],
)
def test_syncs_are_found(source: str, found: list[str]) -> None:
    assert syncs(ast.parse(source)) == found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("httpx.get(url, verify=False)", 1),
        ("httpx.get(url, **{'verify': False})", 1),
        ("httpx.get(url, verify=context)\n{'verify': True}", 0),
    ],
)
def test_unverified_calls_are_found(source: str, count: int) -> None:
    assert len(unverified(ast.parse(source))) == count


@pytest.mark.parametrize(
    "source",
    [
        "from unittest import mock\nmock.patch('a.b')",
        "from unittest import mock as m\nm.patch.object(a, 'b')",
        "from unittest.mock import patch",
        "import unittest.mock\nunittest.mock.patch.dict(a)",
        "def test(mocker): mocker.patch('a')",
    ],
)
def test_patches_are_found(source: str) -> None:
    assert patches(ast.parse(source))


def test_an_http_patch_is_no_mock() -> None:
    assert patches(ast.parse("client.patch(url)\nfrom unittest.mock import ANY")) == []


def test_long_functions_are_found() -> None:
    body = "    x = 1\n"
    source = "def fits():\n" + body * 59 + "class A:\n  async def grows(self):\n" + body * 60
    assert long_functions(ast.parse(source)) == ["grows has 61 lines"]


@pytest.mark.parametrize(
    ("docstring", "count"),
    [("One sentence.", 1), ("One.\n\nTwo of topicd.errors!", 2), ("No end, 1.5", 0), ("", 0)],
)
def test_sentences_are_counted(docstring: str, count: int) -> None:
    assert sentences(ast.parse(repr(docstring))) == count


def test_a_module_without_docstring_has_no_sentence() -> None:
    assert sentences(ast.parse("x = 1")) == 0


@pytest.mark.parametrize("code", ["def f(): ...", "async def f(): ...", "class A: ..."])
def test_code_is_found(code: str) -> None:
    assert has_code(ast.parse(code))
    assert not has_code(ast.parse('"""Words."""\n__version__ = "1"'))


@pytest.mark.parametrize("before", ["", "# Changelog\n\n## [Unreleased]\n\n### Added\n- x\n\n"])
def test_the_newest_version_is_read(before: str) -> None:
    assert newest_version(before + "## [0.2.0] - 2026-11-22\n\n## [0.1.0] - 2026-11-01\n") == "0.2.0"


@pytest.mark.parametrize("text", ["", "## [Unreleased]\n", "see ## [1.0.0]\n"])
def test_a_changelog_without_version_fails(text: str) -> None:
    with pytest.raises(AssertionError, match="no heading"):
        newest_version(text)


def test_an_empty_tree_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nothing to check"):
        sources(tmp_path)
