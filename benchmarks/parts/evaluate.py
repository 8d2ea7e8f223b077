"""`nenya evaluate` on many latents: time, and the largest memory, of the whole command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.measure import rows_asked
from benchmarks.results import Bar, Section, Table
from nenya.latents import store

_DIMS = 512
_ROWS = (100_000, 1_000_000)
_QUICK = (1_500,)
_BLOCK = 50_000  # rows that are drawn at once
_MB = 2**20

#: Runs the command and tells its largest memory.
_COMMAND = (
    "import resource, sys; from nenya.cli import _run; code = _run(sys.argv[1:]); "
    "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
)


def measure(quick: bool, folder: Path) -> Section:
    """Time and memory at some numbers of rows; NENYA_BENCH_ROWS=100000,10000000 replaces them."""
    counts = rows_asked(_QUICK if quick else _ROWS)
    measured = {}
    for count in counts:
        path = write(folder / f"latents_{count}.h5", count)
        measured[count] = run(path)
        path.unlink()
    rows = [[f"{count:,}", f"{seconds:.1f} s", f"{peak / _MB:.0f} MB"] for count, (seconds, peak) in measured.items()]
    bars = []
    if 1_000_000 in measured:
        bars.append(Bar("1,000,000 latents", measured[1_000_000][0], 120.0, "s", at_most=True))
    if len(measured) > 1:
        grown = (measured[counts[-1]][1] - measured[counts[0]][1]) / _MB
        bars.append(Bar("memory more than with the fewest", grown, 200.0, "MB", at_most=True))
    return Section(
        "Evaluating latents",
        f"`nenya evaluate --no-encode` on synthetic latents of {_DIMS} dimensions in float16 whose variance falls as "
        "1 / mode, without cutouts and table: from the command to its three files, in a process of its own.",
        [Table(["latents", "time", "memory"], rows)],
        bars,
    )


def write(path: Path, count: int) -> Path:
    """Write latents of a known spectrum, a block at a time."""
    about = store.About(
        space="h", model="none.pth", model_digest="", options={}, cutouts="none.h5", cutouts_digest={}, table={},
        precision="float32", views=1, version="benchmark",
    )  # fmt: skip
    usable = {"train": np.ones(count, dtype=bool)}
    places = store.create(path, about, {"train": (count, _DIMS)}, "float16", usable)
    scale = (np.arange(1, _DIMS + 1) ** -0.5).astype(np.float32)
    rng = np.random.default_rng(0)
    with path.open("r+b") as file:
        file.seek(places["train"])
        for start in range(0, count, _BLOCK):
            rows = rng.standard_normal((min(_BLOCK, count - start), _DIMS), dtype=np.float32)
            file.write((rows * scale).astype(np.float16).tobytes())
    return path


def run(path: Path) -> tuple[float, int]:
    """Seconds and bytes of the command."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "evaluate", str(path), "--no-encode", "--out", str(path.with_suffix(".html"))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    (peak,) = re.findall(r"^peak (\d+)$", done.stderr, flags=re.MULTILINE)
    law = json.loads(path.with_suffix(".json").read_text())["latents"][0]["alpha_req"]
    assert abs(law - 1) < 0.1, law
    return seconds, int(peak) * 1024
