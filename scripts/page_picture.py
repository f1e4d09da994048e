#!/usr/bin/env python3
"""Write docs/page.png: a finished page as a browser shows it, playing. Needs Chromium.

Usage: page_picture.py FOLDER, a finished folder such as the one that `make demo` printed.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
PLAYED_MS = 6_000
TARGET = Path(__file__).resolve().parent.parent / "docs" / "page.png"


def main() -> int:
    """Play for some seconds, then take the picture."""
    page_path = Path(sys.argv[1]).resolve() / "index.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1120, "height": 800})
        page.goto(page_path.as_uri())
        page.keyboard.press("Space")
        page.wait_for_timeout(PLAYED_MS)
        shot = page.screenshot()
        browser.close()
    Image.open(io.BytesIO(shot)).quantize(256).save(TARGET, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
