"""Fixtures for every tier, and the rule that a skip in CI is a failure."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from rig.daemon import FAKES, QUICK, Home

# Without a deadline: machines are noisy.
hypothesis.settings.register_profile("usual", deadline=None)
hypothesis.settings.register_profile("large", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("large" if os.environ.get("FUZZ") == "large" else "usual")

# What a shell starts in the background ignores Ctrl-C, and so would what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With NO_SKIPS set, what would be skipped fails: a machine that lacks a part must not look green."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and skips are failures here: {call.excinfo and call.excinfo.value}"
    return report


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose backends are fakes and whose waits are short."""
    return Home(tmp_path / "home", {**FAKES, **QUICK})


@pytest.fixture(autouse=True)
def _made(request: pytest.FixtureRequest) -> None:
    if "home" in request.fixturenames:
        request.getfixturevalue("home").path.mkdir(exist_ok=True)
