"""Take the pictures of the portal for README and docs/portal.md, from a static page.

    python -m docs.figures.portal TWO_SCENES/atlas [FOLDER]

TWO_SCENES is what examples/two_scenes.py has left; FOLDER is docs/pictures by default. It needs chromium.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.parts.portal import find_chromium

REST = 900  # ms, until the page has drawn


def main() -> None:
    """Open the page three times: with a lasso, with a query in the dark, and as on a telephone."""
    address = (Path(sys.argv[1]) / "index.html").absolute().as_uri()
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parents[1] / "pictures"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        wide: dict[str, Any] = {"viewport": {"width": 1280, "height": 720}}
        for name, options, act in (
            ("light", wide | {"color_scheme": "light"}, lasso),
            ("dark", wide | {"color_scheme": "dark"}, query),
            ("phone", {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}, tap),
        ):
            page = browser.new_context(**options).new_page()
            page.goto(address)
            page.wait_for_selector("body[data-ready]")
            page.wait_for_timeout(REST)
            act(page)
            page.wait_for_timeout(REST)
            page.screenshot(path=out / f"portal-{name}.png")
        browser.close()


def lasso(page: Page) -> None:
    """Choose a part of the map, and point at one of its cutouts."""
    box = page.locator("[data-view=map]").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.45 * box["height"]
    page.keyboard.press("l")
    page.mouse.move(x + 80, y)
    page.mouse.down()
    for step in range(1, 50):
        angle = 2 * math.pi * step / 50
        page.mouse.move(x + 80 * math.cos(angle), y + 70 * math.sin(angle))
    page.mouse.up()
    page.keyboard.press("v")
    page.wait_for_timeout(REST)
    page.mouse.move(x + 8, y + 4)


def query(page: Page) -> None:
    """Ask for what is like the cutout in the middle, and show the table."""
    page.locator("[data-view=map]").focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(REST)
    page.keyboard.press("t")
    page.locator("h1").click()


def tap(page: Page) -> None:
    """The same by touch."""
    page.locator("[data-view=map]").tap()
    page.locator("[data-tab=like]:visible").tap()


if __name__ == "__main__":
    main()
