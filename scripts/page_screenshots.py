#!/usr/bin/env python3
"""Write docs/overview.png and docs/job.png: the daemon's pages as a browser shows them. Needs Chromium.

Usage: page_screenshots.py URL, a running daemon's address such as http://127.0.0.1:9469 with finished jobs, by
`make screenshots`.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
DOCS = Path(__file__).resolve().parent.parent / "docs"
SETTLED_MS = 2_500


def main() -> int:
    """Take both."""
    url = sys.argv[1].rstrip("/")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1120, "height": 760}, locale="en")
        page.goto(f"{url}/")
        page.wait_for_timeout(SETTLED_MS)
        take(page, "overview.png")
        page.goto(f"{url}/gallery")
        page.click(".cards a")
        page.wait_for_timeout(SETTLED_MS)
        take(page, "job.png")
        browser.close()
    return 0


def take(page: Page, name: str) -> None:
    """Save what is seen, small."""
    Image.open(io.BytesIO(page.screenshot())).quantize(256).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
