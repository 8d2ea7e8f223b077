"""From granules to cutouts: full-size granules beside the historical steps, and a month of a swath sensor."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import historical, swaths
from benchmarks.measure import Series, interleave, ratio
from benchmarks.results import Bar, Section, Table
from nenya.data import table
from nenya.granules.run import work
from nenya.granules.settings import Settings
from nenya.granules.sources import Source, expand

_GB = 1024**3
_APART = "two commands side by side, half of them each"


@dataclass(frozen=True)
class _Sizes:
    full: swaths.Size
    num_full: int
    quarter: swaths.Size
    month: int  # granules
    some: int  # granules of the month, for one process beside two
    rounds: int


_FULL = _Sizes(swaths.FULL, 20, swaths.QUARTER, 4320, some=600, rounds=3)
_QUICK = _Sizes(swaths.Size(400, 400), 1, swaths.Size(200, 160), 3, some=2, rounds=1)


@dataclass(frozen=True)
class _Month:
    seconds: float
    peak: int  # bytes, of the largest process
    cutouts: int


def measure(quick: bool, folder: Path) -> Section:
    """Core-seconds of a granule, beside the historical steps; a month in one process and in two."""
    sizes = _QUICK if quick else _FULL
    paths = swaths.write_many(folder / "full", sizes.num_full, sizes.full)
    measured: dict[str, list[float]] = {}
    for path in paths:  # in turn, a granule at a time
        for name, seconds in _one(path, folder / "parts").items():
            measured.setdefault(name, []).extend(seconds)
    shutil.rmtree(folder / "full")
    faster = ratio(measured["historical steps, plainly"], measured["--upstream"])
    rows = [
        [name, Series(values).text(".2f"), ratio(measured["historical steps, plainly"], values).text(".1f")]
        for name, values in measured.items()
    ]
    swaths.write_many(folder / "month", sizes.month, sizes.quarter, workers=1 if quick else os.cpu_count() or 1)
    month = folder / "month"
    whole = _month([month], folder / "whole", 2)
    again = _month([month], folder / "whole", 2)
    runs = [
        ["2 processes", f"{whole.seconds:.0f} s", f"{whole.peak / _GB:.2f} GB", f"{whole.cutouts:,}"],
        ["--resume of what is done", f"{again.seconds:.1f} s", f"{again.peak / _GB:.2f} GB", ""],
    ]
    some = sorted(month.iterdir())[: sizes.some]
    by_1, by_2 = folder / "by_1", folder / "by_2"
    beside = interleave(
        {
            "1 process": lambda: _seconds({by_1: (some, 1)}),
            "2 processes": lambda: _seconds({by_2: (some, 2)}),
            _APART: lambda: _seconds({folder / "even": (some[::2], 1), folder / "odd": (some[1::2], 1)}),
        },
        sizes.rounds,
    )
    speed = {name: ratio(beside["1 process"], values) for name, values in beside.items()}
    same = (by_1 / "cutouts.h5").read_bytes() == (by_2 / "cutouts.h5").read_bytes()
    return Section(
        "Granules to cutouts",
        f"Synthetic swaths of `benchmarks.swaths`, 30 % clear, gzip. Above: {sizes.num_full} granules of "
        f"{sizes.full.rows} x {sizes.full.columns} pixels, processor time of one process from file to part file, all "
        f"ways in turn for each granule. Below: {sizes.month} granules of {sizes.quarter.rows} x "
        f"{sizes.quarter.columns} by the command, windows of 64 that overlap by half, with merging and all output; "
        "memory is that of its largest process. Last: the first "
        f"{sizes.some} of them in turn, {sizes.rounds} rounds; commands that know nothing of each other tell what the "
        "machine's second core adds.",
        [
            Table(["way", "core-seconds a granule", "historical / this"], rows),
            Table(["a month", "time", "memory", "cutouts"], runs),
            Table(
                [f"{sizes.some} granules", "s", "1 process / this"],
                [[name, Series(values).text(".1f"), speed[name].text(".2f")] for name, values in beside.items()],
            ),
        ],
        [
            Bar.of("a full-size granule, default", Series(measured["default"]), 1.0, "s", at_most=True),
            Bar.of("historical steps, plainly / --upstream", faster, 4.0),
            Bar("a month, two processes", whole.seconds, 600.0, "s", at_most=True),
            Bar.of("two processes / one", speed["2 processes"], 1.8),
            Bar.of("two processes / two commands", ratio(beside[_APART], beside["2 processes"]), 0.95),
            Bar("memory of a process", whole.peak / _GB, 0.5, "GB", at_most=True),
            Bar("resume with nothing to do", again.seconds, 5.0, "s", at_most=True),
        ],
        [f"The cutout files of one and of two processes are {'the same' if same else 'NOT the same'}, byte for byte."],
    )


def _one(path: Path, scratch: Path) -> dict[str, list[float]]:
    """Processor time of each way with a granule."""
    (source,) = expand([path])
    scratch.mkdir(exist_ok=True)

    def ours(settings: Settings, source: Source = source) -> float:
        began = time.process_time()
        work(source, settings, str(scratch))
        return time.process_time() - began

    def theirs() -> float:
        began = time.process_time()
        historical.cutouts(path)
        return time.process_time() - began

    return interleave(
        {
            "default": lambda: ours(Settings()),
            "--upstream": lambda: ours(Settings(upstream=True)),
            "historical steps, plainly": theirs,
        },
        rounds=1,
    )


def _month(granules: Sequence[Path], folder: Path, workers: int) -> _Month:
    """Run the command, and see how long it took and how large its largest process was."""
    peak, began = 0, time.perf_counter()
    with _start(granules, folder, workers) as process:
        while process.poll() is None:
            peak = max([peak, *(_peak_of(number) for number in _family(process.pid))])
            time.sleep(0.05)
    took = time.perf_counter() - began
    _require_done(process)
    return _Month(took, peak, table.num_rows(table.beside(folder / "cutouts.h5")))


def _seconds(commands: Mapping[Path, tuple[Sequence[Path], int]]) -> float:
    """How long commands take that are started together: by the folder of each its granules and its processes."""
    for place in commands:
        shutil.rmtree(place, ignore_errors=True)  # of the round before
    began = time.perf_counter()
    running = [_start(granules, place, workers) for place, (granules, workers) in commands.items()]
    for process in running:
        process.wait()
        _require_done(process)
    return time.perf_counter() - began


def _start(granules: Sequence[Path], folder: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nenya", "cutouts", *map(str, granules), "--out", str(folder / "cutouts.h5")]
    command += ["--size", "64", "--workers", str(workers), "--resume"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])


def _require_done(process: subprocess.Popen[bytes]) -> None:
    if process.returncode != 0:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")


def _family(first: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{first}/task/{first}/children")
    with contextlib.suppress(OSError):
        return [first, *map(int, children.read_text().split())]
    return [first]


def _peak_of(process: int) -> int:
    """Most memory that a process has had [bytes]; 0 where that is not told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
