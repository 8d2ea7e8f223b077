"""Large batches in pieces (`accumulate`): memory and time of an update beside the whole batch at once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import imagery
from benchmarks.measure import Peak, Series, fresh, interleave, ratio
from benchmarks.parts.step import options
from benchmarks.results import Section, Table
from nenya.data.loaders import nenya_loader
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.epoch import train_epoch
from nenya.training.ledger import Pass
from nenya.training.optim import Schedule, set_optimizer
from nenya.training.step import Step


@dataclass(frozen=True)
class _Sizes:
    batch: int  # cutouts in an update, whatever the number of pieces
    pieces: tuple[int, ...]
    image_size: int  # pixels
    rounds: int


_FULL = _Sizes(256, (1, 2, 4, 8), image_size=32, rounds=3)
_QUICK = _Sizes(8, (1, 2), image_size=8, rounds=1)


def measure(quick: bool, folder: Path) -> Section:
    """One update of the weights, by the number of pieces."""
    sizes = _QUICK if quick else _FULL
    section = Section(
        "Gradient accumulation",
        f"One update of ResNet-18 at {sizes.image_size} x {sizes.image_size} pixels from {sizes.batch} cutouts, whole "
        "or in pieces, each run in a fresh process; the gradient is that of the whole batch's loss either way. "
        "Gradients and momentum, which the first update makes, are in the memory.",
    )
    file = imagery.write(folder / "cutouts.h5", sizes.batch, compressed=True)

    def update(pieces: int) -> Peak:
        return fresh(
            "benchmarks.parts.accumulate:prepare",
            in_process=quick,
            file=str(file),
            batch=sizes.batch,
            pieces=pieces,
            image_size=sizes.image_size,
        )

    sides: dict[str, Callable[[], Peak]] = {str(k): functools.partial(update, k) for k in sizes.pieces}
    measured = interleave(sides, sizes.rounds)
    times = {name: [peak.seconds for peak in peaks] for name, peaks in measured.items()}
    memory = {name: [float(peak.added) for peak in peaks] for name, peaks in measured.items()}
    whole = str(sizes.pieces[0])
    rows = [
        [
            name,
            Series(times[name]).text(),
            ratio(times[name], times[whole]).text(".2f"),
            Series([added / 1e6 for added in memory[name]]).text(",.0f"),
            ratio(memory[name], memory[whole]).text(".2f"),
        ]
        for name in sides
    ]
    section.tables = [Table(["accumulate", "s", "ratio", "added MB", "ratio"], rows)]
    return section


def run_options(file: Path, batch: int, pieces: int, image_size: int) -> Params:
    """Options whose update takes `batch` cutouts in so many pieces."""
    opt = options(file, image_size, batch, "auto")
    opt.accumulate = pieces
    return opt


def prepare(file: str, batch: int, pieces: int, image_size: int) -> Callable[[], Pass]:
    """One update, loader and model made before it."""
    opt = run_options(Path(file), batch, pieces, image_size)
    torch.manual_seed(0)
    loader = nenya_loader(opt)
    model, criterion = set_model(opt, cuda_use=False)
    optimizer = set_optimizer(opt, model)

    step = Step.from_options(opt, torch.device("cpu"))
    updates = 0

    def count(*_: object) -> None:
        nonlocal updates
        updates += 1

    optimizer.register_step_post_hook(count)

    def update() -> Pass:
        done = train_epoch(loader, model, criterion, optimizer, 1, step, Schedule.from_options(opt))
        assert updates == 1, f"{updates} updates of {batch} cutouts in {pieces} pieces where one was meant"
        return done

    return update
