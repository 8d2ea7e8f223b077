"""Draw the same points with libraries in a browser: time to the first picture, time of a frame, size of the script.

(cd portal-web/compare && npm ci && python measure.py [NUMBER_OF_POINTS])
"""

import gzip
import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent


def main() -> None:
    """Build each page, open it twice, and print the best of each figure."""
    number = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    build = HERE / "build"
    build.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--allow-file-access-from-files"]
        )
        for name, asked in (("own", "&plain"), ("own", ""), ("regl", ""), ("deck", "")):
            script = build / f"{name}.out.js"
            command = ["npx", "esbuild", f"{name}.js", "--bundle", "--minify", "--format=iife", f"--outfile={script}"]
            subprocess.run(command, cwd=HERE, check=True, capture_output=True)
            (build / f"{name}.html").write_text(f'<!doctype html><body><script src="{script.name}"></script></body>')
            size = len(script.read_bytes()), len(gzip.compress(script.read_bytes()))
            runs = []
            for _ in range(2):
                page = browser.new_page(viewport={"width": 820, "height": 640})
                page.goto(f"{(build / name).as_uri()}.html?n={number}{asked}")
                page.wait_for_selector("body[data-done]", timeout=300_000)
                runs.append(json.loads(page.get_attribute("body", "data-done") or "{}"))
                page.close()
            best = {key: min(run[key] for run in runs) for key in runs[0]}
            print(
                f"{name}{asked} {number} points: {best}, bundle {size[0] / 1e3:.0f} kB ({size[1] / 1e3:.0f} kB gzip)",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main()
