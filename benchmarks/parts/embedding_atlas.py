"""The portal beside embedding-atlas: the same points in the same browser, to the first picture, and the memory.

embedding-atlas (https://apple.github.io/embedding-atlas) is looked for on the PATH, or at the address that the
environment variable EMBEDDING_ATLAS names. Its own requirements are heavy, so it best lies in an environment of its
own. From 0.25 on it draws by WebGPU alone, with 16-bit floats in shaders, which chromium has only with a graphics card;
0.22 falls back to WebGL.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Series, ratio, rows_asked
from benchmarks.parts import portal
from benchmarks.results import Section, Table

_VISITS = 3
_POINTS = (100_000, 1_000_000)
_QUICK_POINTS = (2_000,)
_PATIENCE = 300.0  # seconds for a picture
_DRAWN = 0.01  # of the pixels of the map differ from its ground


@dataclass(frozen=True)
class _Side:
    """Who shows the points: a server, and where on its page the map is."""

    name: str
    serve: Callable[[Path], contextlib.AbstractContextManager[tuple[Any, str]]]
    map: str


def measure(quick: bool, folder: Path) -> Section:
    """Open the same map in both, in turn."""
    title = "Portal and embedding-atlas"
    chromium, command = portal.find_chromium(), find_command()
    if chromium is None or command is None:
        missing = "chromium" if chromium is None else "embedding-atlas"
        return Section(title, "The same points in both.", skipped=f"{missing} is not installed")
    version = subprocess.run([command, "--version"], capture_output=True, text=True).stdout.split()[-1]
    sides = (
        _Side("nenya portal", portal.serve, "[data-view=map]"),
        _Side(f"embedding-atlas {version}", lambda place: _atlas(command, place), "canvas"),
    )
    lines = []
    for rows in rows_asked(_QUICK_POINTS if quick else _POINTS):
        place = folder / str(rows)
        place.mkdir()
        portal.write(place, rows)
        seen: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
        for _ in range(1 if quick else _VISITS):
            for side in sides:
                seen[side.name].append(_visit(side, place, chromium))
        ours = seen[sides[0].name]
        for name, visits in seen.items():
            seconds, megabytes = ([visit[number] for visit in visits] for number in (0, 1))
            times = ratio(seconds, [visit[0] for visit in ours]).text(".1f")
            lines.append([f"{rows:,}", name, Series(seconds).text(".2f"), times, Series(megabytes).text(".0f")])
        shutil.rmtree(place)
    return Section(
        title,
        "The made points and the map of the section before, in turn, chromium at 1280 x 720 without a graphics card; "
        "seconds from the server's address to a screenshot with points on the map, and then the memory of the server "
        "and the browser together (proportional set size). embedding-atlas reads the map's table and copies it into a "
        "database in the browser; the portal's page takes the places of the points and fetches the rest when asked.",
        [Table(["points", "", "first picture, s", "ratio", "memory, MB"], lines)],
    )


def find_command() -> str | None:
    """Where embedding-atlas is, if it is installed."""
    return os.environ.get("EMBEDDING_ATLAS") or shutil.which("embedding-atlas")


def _visit(side: _Side, place: Path, chromium: str) -> tuple[float, float]:
    """Seconds to the first picture, and megabytes then."""
    from playwright.sync_api import sync_playwright

    with side.serve(place) as (_, address), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        began = time.perf_counter()
        page.goto(address)
        while not _drawn(page, side.map):
            if time.perf_counter() - began > _PATIENCE:
                raise RuntimeError(f"{side.name} drew nothing in {_PATIENCE:.0f} s")
        seconds = time.perf_counter() - began
        memory = _memory_of_children()
        browser.close()
    return seconds, memory


def _drawn(page: Any, selector: str) -> bool:  # noqa: ANN401  # playwright's page
    """Whether the middle of the map shows more than its ground."""
    from PIL import Image

    found = page.locator(selector).first
    box = found.bounding_box() if found.count() else None
    if box is None or box["width"] < 100 or box["height"] < 100:
        return False
    middle = {"x": box["x"] + box["width"] / 4, "y": box["y"] + box["height"] / 4}
    clip = middle | {"width": box["width"] / 2, "height": box["height"] / 2}
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return len(colours) > 1 and 1 - counts.max() / counts.sum() > _DRAWN


def _memory_of_children() -> float:
    """What all processes that this one has started hold, shared pages shared out among those who share them [MB]."""
    import psutil

    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


@contextlib.contextmanager
def _atlas(command: str, place: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = [command, str(place / "map.parquet"), "--x", "US0", "--y", "US1", "--host", "127.0.0.1"]
    asked += ["--port", str(port), "--no-auto-port"]
    address = f"http://127.0.0.1:{port}/"
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(address):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(asked)} ended: run it, to see why")
                time.sleep(0.1)
            yield process, address
        finally:
            process.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False
