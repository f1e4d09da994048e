"""Faults planted on purpose: some of them are tried here, and all are seen to fit; `make mutants` tries all."""

import ast
from pathlib import Path

import pytest

from rig.faults import FAULTS, Fault
from rig.trial import TESTS, copy, places, plant, sources, try_out, verdict

QUICK = (
    "claim by copy and unlink",
    "recovery deletes jobs without job.json",
    "attempts not counted before the work",
    "job.json written in place, past the disk",
    "a file's directory not synced",
    "a failed fsync told to one of two who asked for that path",
    "a product taken for whole by its size alone",
)


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_fault_is_caught(name: str, tmp_path: Path) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    plant(fault, tmp_path)
    code, said = try_out([fault.caught_by], tmp_path)
    assert verdict(code, said) == "caught", said[-2000:]


def test_without_a_fault_the_copy_passes(tmp_path: Path) -> None:
    copy(tmp_path)
    code, said = try_out([fault.caught_by for fault in FAULTS if fault.name == QUICK[1]], tmp_path)
    assert verdict(code, said) == "survived", said[-2000:]


def test_every_fault_fits_in_one_place_and_is_still_a_program() -> None:
    texts = sources()
    for fault in FAULTS:
        found = places(fault, texts)
        assert len(found) == 1, f"{fault.name}: fits {len(found)} times"
        changed = texts[found[0]].replace(fault.old, fault.new)
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(texts[found[0]])), fault.name


def test_every_fault_has_its_own_name_and_a_test_that_is_there() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    functions = {test: _functions(test) for test in {fault.caught_by.split("::")[0] for fault in FAULTS}}
    for fault in FAULTS:
        file, _, test = fault.caught_by.partition("::")
        assert test.split("[")[0].rpartition("::")[2] in functions[file], fault.caught_by


def _functions(test: str) -> set[str]:
    tree = ast.parse((TESTS / test).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (1, "F\n1 failed in 1.2s", "caught"),
        (1, "F\n1 failed, 3 passed in 1.2s", "caught"),
        (0, ".\n1 passed in 1.2s", "survived"),
        (0, "s\n1 skipped in 1.2s", "no verdict: 1 skipped in 1.2s"),
        (1, "E\n1 error in 1.2s", "no verdict: 1 error in 1.2s"),
        (1, "FE\n1 failed, 1 error in 1.2s", "no verdict: 1 failed, 1 error in 1.2s"),
        (4, "no tests ran in 0.1s\nERROR: not found", "no verdict: ERROR: not found"),
        (None, "no end within 9 s", "no end within 9 s"),
    ],
)
def test_only_a_failed_test_has_caught_a_fault(code: int | None, said: str, told: str) -> None:
    assert verdict(code, said) == told


def test_a_trial_that_hangs_is_ended(tmp_path: Path) -> None:
    (hanging,) = [fault for fault in FAULTS if fault.name == "no round after the first has ended"]
    plant(hanging, tmp_path)
    code, said = try_out([hanging.caught_by], tmp_path, limit_s=0.5)
    assert (code, said) == (None, "no end within 0.5 s")


def test_a_fault_that_fits_nowhere_is_seen() -> None:
    assert places(Fault("x", "there is no such text", "", ""), sources()) == []
