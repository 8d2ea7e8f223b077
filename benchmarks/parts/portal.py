"""The portal in a browser: from the address to the picture, frames of a moving view, a lasso, cutouts, memory."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.measure import rows_asked
from benchmarks.results import Bar, Section, Table
from nenya.latents.store import About, Latents, create
from nenya.maps import run as maps
from nenya.maps import store
from nenya.search.facts import Facts
from nenya.search.vectors import Vectors

_DIMS, _SIDE = 16, 16
_MB = 2**20
_BLOCK = 2**16

#: Keeps the time between frames, from when it is called.
_FRAMES = """() => {
    window.frames = [];
    let last = performance.now();
    const step = () => {
        const now = performance.now();
        window.frames.push(now - last);
        last = now;
        requestAnimationFrame(step);
    };
    step();
}"""
#: Asks for 100 pictures, as the gallery does, and waits until they are decoded.
_PICTURES = """async (numbers) => {
    const begun = performance.now();
    const token = new URLSearchParams(location.search).get("token");
    const headers = {Authorization: `Bearer ${token}`};
    const answer = await fetch(`api/sheet?numbers=${numbers}&side=64`, {headers});
    await createImageBitmap(await answer.blob());
    return performance.now() - begun;
}"""


@dataclass(frozen=True)
class _Sizes:
    points: tuple[int, ...]
    visits: int
    drag: float  # seconds


_BAR_POINTS = 1_000_000
_FULL = _Sizes((100_000, _BAR_POINTS), visits=3, drag=2.0)
_QUICK = _Sizes((2_000,), visits=1, drag=0.2)


@dataclass(frozen=True)
class Visit:
    """What a browser saw; milliseconds."""

    drawn: float
    ready: float
    frame: float
    slowest: float
    lasso: float
    pictures: float


@dataclass(frozen=True)
class Figures:
    """A run of `rows` points: seconds until the server answers, its memory in MB before and after, and the visits."""

    rows: int
    started: float
    held: float
    peak: float
    visits: tuple[Visit, ...]

    def middle(self, name: str) -> float:
        """The median over the visits."""
        return statistics.median(getattr(visit, name) for visit in self.visits)


def measure(quick: bool, folder: Path) -> Section:
    """Open runs of made points in chromium, without a graphics card; NENYA_BENCH_ROWS replaces their numbers."""
    title = "Portal"
    chromium = find_chromium()
    if chromium is None:
        return Section(title, "The page in a browser.", skipped="chromium is not installed")
    found = []
    sizes = _QUICK if quick else _FULL
    for rows in rows_asked(sizes.points):
        place = folder / str(rows)
        place.mkdir()
        write(place, rows)
        found.append(visit_all(place, rows, chromium, sizes))
        shutil.rmtree(place)
    lines = [
        [
            f"{one.rows:,}", f"{one.started:.1f} s", f"{one.middle('drawn') / 1e3:.2f} s",
            f"{one.middle('ready') / 1e3:.2f} s", f"{one.middle('frame'):.0f} ms ({one.middle('slowest'):.0f} ms)",
            f"{one.middle('lasso'):.0f} ms", f"{one.middle('pictures'):.0f} ms", f"{one.held:.0f} MB",
            f"{one.peak - one.held:.0f} MB",
        ]
        for one in found
    ]  # fmt: skip
    bars = [
        bar
        for one in found
        if one.rows == _BAR_POINTS
        for bar in (
            Bar(f"{_BAR_POINTS:,} points, first drawn", one.middle("drawn") / 1e3, 5.0, "s", at_most=True),
            Bar("frames while it moves", 1e3 / one.middle("frame"), 30.0, "/s"),
            Bar("lasso over all", one.middle("lasso"), 300.0, "ms", at_most=True),
            Bar("100 pictures", one.middle("pictures"), 500.0, "ms", at_most=True),
            Bar("memory of the server beyond what it holds", one.peak - one.held, 200.0, "MB", at_most=True),
        )
    ]
    return Section(
        title,
        f"Made points: latents of {_DIMS} numbers, cutouts of {_SIDE} x {_SIDE} pixels, a table of five columns, a map "
        "by principal components. Chromium at 1280 x 720 without a graphics card, beside the server on the same cores; "
        f"medians of {sizes.visits} visits. From the address to the first picture, and until the page is ready; frames "
        "while the map is dragged about; a lasso, from its end until all is selected; a gallery's 100 pictures.",
        [
            Table(
                ["points", "server ready", "first drawn", "page ready", "frame, median (slowest)", "lasso",
                 "100 pictures", "server holds", "more at its peak"],
                lines,
            )
        ],
        bars,
    )  # fmt: skip


def find_chromium() -> str | None:
    """The browser, if there is one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


def write(folder: Path, rows: int) -> None:
    """Write cutouts, table, latents and map."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((rows, 3)).astype(np.float32)
    cutouts = folder / "cutouts.h5"
    wave = np.sin(np.arange(_SIDE * _SIDE, dtype=np.float32).reshape(_SIDE, _SIDE) / 9)
    with h5py.File(cutouts, "w") as file:
        pixels = file.create_dataset("train", (rows, 1, _SIDE, _SIDE), np.float32)
        for start in range(0, rows, _BLOCK):
            pixels[start : start + _BLOCK] = 290 + hidden[start : start + _BLOCK, :1, None, None] * wave
    options = {"images_file": str(cutouts)}
    about = About("h", "last.pth", "", options, str(cutouts), {}, {}, "float32", 1, "benchmark")
    places = create(folder / "latents.h5", about, {"train": (rows, _DIMS)}, "float32", {"train": np.ones(rows, bool)})
    latents = np.tanh(hidden @ rng.standard_normal((3, _DIMS)).astype(np.float32))
    with (folder / "latents.h5").open("r+b") as file:
        file.seek(places["train"])
        file.write(latents.astype(np.float32).tobytes())
    number = np.arange(rows)
    columns = {
        "pp_type": np.ones(rows, np.int64),
        "pp_idx": number,
        "lat": np.degrees(np.arcsin(rng.uniform(-1, 1, rows))),
        "lon": rng.uniform(-180, 180, rows),
        "datetime": np.datetime64("2020-01-01", "us") + number * np.timedelta64(1, "m"),
        "DT": np.abs(hidden[:, 0]),
        "clear_fraction": rng.uniform(0.95, 1, rows),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "cutouts.parquet", row_group_size=_BLOCK)
    vectors = Vectors(Latents(folder / "latents.h5"))
    facts = Facts(folder / "cutouts.parquet", vectors)
    made = maps.make(vectors, facts, method="pca")
    store.write(folder / "map.parquet", made.about, made.placed, made.layouts, vectors, facts)


def visit_all(folder: Path, rows: int, chromium: str, sizes: _Sizes) -> Figures:
    """Start a portal, and visit it, each time by a browser that knows nothing of it yet."""
    from playwright.sync_api import sync_playwright

    began = time.perf_counter()
    with serve(folder) as (process, address):
        started = time.perf_counter() - began
        held = _memory(process.pid, "VmRSS")
        with sync_playwright() as playwright:
            seen = []
            for _ in range(sizes.visits):
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 720})
                seen.append(_visit(page, address, rows, sizes.drag))
                browser.close()
        return Figures(rows, started, held, _memory(process.pid, "VmHWM"), tuple(seen))


def _visit(page: Any, address: str, rows: int, drag: float) -> Visit:  # noqa: ANN401  # playwright's page
    page.goto(address)
    page.wait_for_selector("body[data-ready]", timeout=300_000)
    ready = page.evaluate("performance.now()")
    page.wait_for_timeout(1000 * drag)
    drawn = page.evaluate("performance.getEntriesByName('map drawn')[0].startTime")
    box = page.locator("[data-view=map]").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    _turn(page, middle, 40, drag, _FRAMES)
    frames = page.evaluate("window.frames")[3:]
    page.keyboard.press("l")
    _turn(page, middle, 0.45 * min(box["width"], box["height"]), drag)
    page.wait_for_timeout(1000 * drag)
    lasso = page.evaluate("Math.max(...performance.getEntriesByName('filter').map((one) => one.duration))")
    numbers = ",".join(str(number) for number in np.linspace(0, rows - 1, 100).astype(int))
    return Visit(drawn, ready, statistics.median(frames), max(frames), lasso, page.evaluate(_PICTURES, numbers))


def _turn(page: Any, middle: tuple[float, float], radius: float, drag: float, before: str = "") -> None:  # noqa: ANN401
    """Drag in a circle for some seconds."""
    page.mouse.move(middle[0] + radius, middle[1])
    page.mouse.down()
    if before:
        page.evaluate(before)
    began, angle = time.perf_counter(), 0.0
    while angle < 6:
        angle = 6 / drag * (time.perf_counter() - began)
        page.mouse.move(middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle))
    page.mouse.up()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A portal on a folder, while it is wanted: its process and its address."""
    command = [sys.executable, "-m", "nenya", "portal", str(folder), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"{' '.join(command)} printed no address: run it, to see why")
            yield process, address
        finally:
            process.terminate()


def _memory(process: int, name: str) -> float:
    """A line of what the system tells of a process's memory [MB]."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024 / _MB
