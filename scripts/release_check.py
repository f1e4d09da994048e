#!/usr/bin/env python3
"""Tell whether version, changelog and tag agree: `scripts/release_check.py [v1.2.3]`; with `--notes`, what is in it.

The version is that of the package. A release has a heading `## [1.2.3] - 2026-11-27` at the changelog's top, below an
empty `## [Unreleased]`; without a tag, what is not released yet may stand there.
"""

import re
import sys
from datetime import date
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
SEMVER = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?"
HEADING = re.compile(rf"^## \[({SEMVER})\] - (\d{{4}}-\d{{2}}-\d{{2}})$", re.MULTILINE)
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def faults(version: str, changelog: str, tag: str = "") -> list[str]:
    """Return what does not agree, a sentence each."""
    found = [] if re.fullmatch(SEMVER, version) else [f"{version} is no semantic version"]
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if unreleased is None:
        found.append("the changelog has no heading [Unreleased]")
    found += [
        f"{kind} is no kind of change"
        for kind in re.findall(r"^### (.*)$", changelog, re.MULTILINE)
        if kind not in KINDS
    ]
    releases = HEADING.findall(changelog)
    for number, day in releases:
        try:
            date.fromisoformat(day)
        except ValueError:
            found.append(f"{number} has no day: {day}")
    if not tag:
        return found
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, the version {version}")
    if not releases or releases[0][0] != version:
        found.append(f"the changelog's newest release is {releases[0][0] if releases else 'none'}, not {version}")
    if unreleased and unreleased[1].strip():
        found.append("what the release has still stands under [Unreleased]")
    return found


def notes(changelog: str, tag: str) -> str:
    """Return what the changelog says of a release, without its heading and without the links at its end."""
    section = rf"^## \[{re.escape(tag.removeprefix('v'))}\] - \S+\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)"
    found = re.search(section, changelog, re.MULTILINE | re.DOTALL)
    return found[1].strip() + "\n" if found else ""


def main(*words: str) -> int:
    """Print what does not agree, or a release's notes; return how many faults that are."""
    changelog = (TOP / "CHANGELOG.md").read_text()
    tag = words[-1] if words else ""
    if "--notes" in words:
        said = notes(changelog, tag)
        sys.stdout.write(said)
        return not said
    source = (TOP / "daemon" / "topicd" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    told = faults(version[1] if version else "", changelog, tag)
    sys.stderr.writelines(f"{fault}\n" for fault in told)
    return len(told)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
