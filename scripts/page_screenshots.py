#!/usr/bin/env python3
"""Write docs/overview.png and docs/job.png: a daemon's pages while it works, as a browser shows them. Needs Chromium.

Starts a daemon with the embedded backends on a home of its own, drops a few topics, waits until one is finished, one
has failed and others are in work, and takes the pictures: about a minute. `make screenshots` runs it.

Usage: page_screenshots.py [FOLDER], which then gets every page at three widths, light and dark, too.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

TOP = Path(__file__).resolve().parent.parent
TOPICD = Path(sys.executable).with_name("topicd")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
BYTES_MAX = 300_000
WIDTHS_PX = (1280, 768, 360)
LIMIT_S = 180.0
SETTLED_MS = 1_500
PLAYED_MS = 4_000

NOTES = {
    "why-the-sky-is-blue": (
        "Sunlight holds every colour at once.",
        "Air scatters blue light far more than red.",
        "At sunset the light crosses more air, and the blue is gone before it reaches us.",
    ),
    "how-bread-rises": (
        "Yeast eats the sugar in the flour.",
        "It breathes out gas, which the dough holds like a balloon.",
        "The oven sets the bubbles for good.",
    ),
    "how-a-lighthouse-is-seen": (
        "A lens bends the light into one flat beam.",
        "The beam turns, so that a ship sees a flash.",
        "The time between flashes tells which lighthouse it is.",
    ),
    "why-leaves-turn-red": (
        "In autumn a tree takes the green out of its leaves.",
        "Yellow was there all the time.",
        "Red is made anew, as a shade against the sun.",
    ),
    "what-makes-the-wind": (
        "The sun warms some ground more than other ground.",
        "Warm air rises, and cooler air flows in below.",
        "That flow is the wind.",
    ),
}
TOO_MANY = "---\nscenes: 400\n---\n# Everything there is\n\nAll of it.\n"


@contextmanager
def daemon(home: Path) -> Iterator[str]:
    """Run a daemon for the length of a block, and give the address of its page."""
    env = {**os.environ, "TOPICD_HOME": str(home), "TOPICD_METRICS_PORT": "0", "TOPICD_ATTEMPTS_MAX": "1"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([TOPICD, "run"], env=env, stderr=log, stdout=log)
    try:
        lock = home / "spool" / ".lock"
        until(lambda: lock.is_file() and b"port" in lock.read_bytes(), "the daemon answers")
        yield f"http://127.0.0.1:{json.loads(lock.read_bytes())['port']}/"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


def until(condition, what: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - any callable
    """Wait for a condition."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"not within {LIMIT_S:g} s: {what}")
        time.sleep(0.1)


def drop(home: Path, name: str, text: str) -> None:
    """Move a topic into input/."""
    aside = home / f".{name}"
    aside.write_text(text)
    aside.rename(home / "input" / f"{name}.md")


def jobs(folder: Path) -> list[Path]:
    """Return the jobs in a folder."""
    return [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []


def main() -> int:
    """Take the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="topicd-") as root, sync_playwright() as playwright:
        home = Path(root)
        with daemon(home) as url:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
            until((home / "input").is_dir, "input/ is there")
            drop(home, "tides", (TOP / "examples" / "tides.md").read_text())
            drop(home, "everything", TOO_MANY)
            until(lambda: jobs(home / "output"), "one is finished")
            for name, notes in NOTES.items():
                title = name.replace("-", " ").capitalize()
                drop(home, name, f"# {title}\n\n" + "".join(f"- {note}\n" for note in notes))
            until(lambda: jobs(home / "spool" / "images") and jobs(home / "spool" / "audio"), "all lanes have work")
            overview(browser, url)
            job(browser, url)
            if folder:
                every(browser, url, folder, jobs(home / "spool" / "failed")[0].name)
            browser.close()
    return 0


def overview(browser: Browser, url: str) -> None:
    """Take the overview."""
    page = browser.new_page(viewport={"width": 1200, "height": 860}, locale="en")
    page.goto(url)
    page.wait_for_timeout(SETTLED_MS)
    save(page, TOP / "docs" / "overview.png")
    page.close()


def job(browser: Browser, url: str) -> None:
    """Take the newest finished job, playing."""
    page = browser.new_page(viewport={"width": 1200, "height": 980}, locale="en")
    page.goto(urljoin(url, "gallery"))
    page.click(".cards a")
    page.wait_for_selector("#listen audio")
    page.evaluate("document.querySelector('#listen audio').play()")
    page.wait_for_timeout(PLAYED_MS)
    page.evaluate("document.querySelector('#listen audio').pause()")
    page.wait_for_timeout(SETTLED_MS)
    save(page, TOP / "docs" / "job.png")
    page.close()


def every(browser: Browser, url: str, folder: Path, failed: str) -> None:
    """Take all pages as different people see them."""
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page()
    page.goto(urljoin(url, "gallery"))
    done = page.get_attribute(".cards a", "href") or ""
    page.close()
    paths = {"overview": "", "gallery": "gallery", "job": done, "failed": f"jobs/{failed}", "none": "none"}
    for width in WIDTHS_PX:
        for scheme, language in (("light", "en"), ("dark", "pt-BR")):
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                locale=language,  # type: ignore[arg-type]
            )
            page = context.new_page()
            for name, path in paths.items():
                page.goto(urljoin(url, path))
                page.wait_for_timeout(SETTLED_MS // 2)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
            context.close()


def save(page: Page, target: Path) -> None:
    """Save what is seen, small."""
    Image.open(io.BytesIO(page.screenshot())).quantize(256).save(target, optimize=True)
    if target.stat().st_size > BYTES_MAX:
        raise SystemExit(f"{target.name} has {target.stat().st_size:,} bytes; the most is {BYTES_MAX:,}")


if __name__ == "__main__":
    sys.exit(main())
