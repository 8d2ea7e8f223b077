"""Whether time per sample and memory stay as they are while the file grows a hundredfold."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import imagery
from benchmarks.measure import Series, fresh, interleave, ratio, throughput
from benchmarks.parts.reading import reading_loader
from benchmarks.parts.step import options
from benchmarks.results import Bar, Section, Table
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step

BATCH = 64
IMAGE_SIZE = 64  # pixels
SMALL_WINDOW_MB = 4  # less than the smallest file, so that the windows of chunks are as large in all of them


@dataclass(frozen=True)
class _Sizes:
    counts: tuple[int, ...]
    rounds: int
    settle: float  # seconds of each pass before it is measured, until reading ahead and using up keep step
    at_least: float  # seconds that are measured
    steps: int  # of the run whose memory is measured
    run_image_size: int  # pixels


_FULL = _Sizes((2_000, 20_000, 200_000), rounds=3, settle=0.5, at_least=2.0, steps=12, run_image_size=16)
_QUICK = _Sizes((128, 256), rounds=1, settle=0.0, at_least=0.0, steps=1, run_image_size=4)


def measure(quick: bool, folder: Path) -> Section:
    """Files of growing size, the same work on each."""
    sizes = _QUICK if quick else _FULL
    files = {
        f"{count:,}": imagery.write(folder / f"{count}.h5", count, compressed=True, dtype="uint8")
        for count in sizes.counts
    }
    reading = _rates({name: reading_loader(_growth_options(file, IMAGE_SIZE)) for name, file in files.items()}, sizes)
    path = _rates({name: nenya_loader(_growth_options(file, IMAGE_SIZE)) for name, file in files.items()}, sizes)
    peaks = {
        name: fresh(
            "benchmarks.parts.growth:prepare_run",
            in_process=quick,
            file=str(file),
            steps=sizes.steps,
            image_size=sizes.run_image_size,
        )
        for name, file in files.items()
    }
    first, last = next(iter(files)), list(files)[-1]
    rows = [
        [
            name,
            f"{file.stat().st_size / 1e6:,.0f}",
            Series(reading[name]).text(",.0f"),
            Series(path[name]).text(",.0f"),
            ratio(path[name], path[first]).text(".2f"),
            f"{peaks[name].added / 1e6:,.0f}",
            f"{peaks[name].total / 1e6:,.0f}",
        ]
        for name, file in files.items()
    ]
    drift = max(abs(ratio(path[name], path[first]).median - 1) for name in files)
    window = f", `window_mb: {SMALL_WINDOW_MB}`, which even the smallest file fills"
    heads = ["MB", "read, cutouts/s", "read and views, cutouts/s", "ratio", "run, added MB", "run, peak MB"]
    return Section(
        "Growth",
        f"uint8 cutouts of {imagery.SIZE} x {imagery.SIZE} in gzip chunks of {imagery.CHUNK}, `cache_mb: 0`{window}; "
        f"the data path alone, at views of {IMAGE_SIZE} pixels. The run is {sizes.steps} steps of ResNet-18 at "
        f"{sizes.run_image_size} pixels and batch {BATCH} in a fresh process.",
        [Table(["cutouts", *heads], rows)],
        [
            Bar(f"largest change of the data path's rate from {first} cutouts", drift, 0.10, "%", at_most=True),
            Bar(f"peak memory of a run, {last} / {first}", peaks[last].total / peaks[first].total, 1.05, at_most=True),
        ],
    )


def _rates(loaders: dict[str, ViewLoader], sizes: _Sizes) -> dict[str, list[float]]:
    def measure_one(loader: ViewLoader) -> float:
        # anew each time: a pass that waits while another is measured would read ahead for nothing
        with contextlib.closing(_endless(loader)) as stream:
            throughput(lambda: next(stream), sizes.settle)
            return throughput(lambda: next(stream), sizes.at_least)

    return interleave({name: functools.partial(measure_one, loader) for name, loader in loaders.items()}, sizes.rounds)


def _endless(loader: ViewLoader) -> Generator[int, None, None]:
    """The sizes of batches, one epoch after the other: a short pass is not held against a small file."""
    while True:
        for batch in loader:
            yield len(batch.rows)


def prepare_run(file: str, steps: int, image_size: int) -> Callable[[], object]:
    """A few steps of training, loader and model included."""
    opt = _growth_options(Path(file), image_size)

    def run() -> Any:  # noqa: ANN401
        loader = nenya_loader(opt)
        loader.max_batches = steps
        model, criterion = set_model(opt, cuda_use=False)
        step = Step.from_options(opt, torch.device("cpu"))
        return train_epoch(loader, model, criterion, set_optimizer(opt, model), 1, step, Schedule.from_options(opt))

    return run


def _growth_options(file: Path, image_size: int) -> Params:
    opt = options(file, image_size, BATCH)
    opt.window_mb = SMALL_WINDOW_MB
    return opt
