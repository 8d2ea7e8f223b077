"""Reading cutouts in random order: Nenya's loader beside three ways in which it is commonly done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from benchmarks import conventional, imagery
from benchmarks.measure import Series, interleave, ratio, throughput
from benchmarks.parts.step import options
from benchmarks.results import Bar, Section, Table
from nenya.data.augment import NUM_VIEWS, TRAIN, Views
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.params import Params

Rows = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.float32]

BATCH = 64


@dataclass(frozen=True)
class _Sizes:
    num_cutouts: int
    rounds: int
    at_least: float  # seconds of each measurement


_FULL = _Sizes(4096, rounds=3, at_least=0.8)
_QUICK = _Sizes(192, rounds=1, at_least=0.0)


class Untouched(Views):
    """Views that are the cutouts as they were read, so that a pass over the loader is reading and nothing else."""

    def make(self, images: Tensor, rows: Tensor, epoch: int, stream: int = TRAIN) -> Tensor:
        """Return the images twice: [V, B, C, H, W]."""
        return images.expand(NUM_VIEWS, *images.shape)


def reading_loader(opt: Params) -> ViewLoader:
    """The loader of the options, made to read only."""
    loader = nenya_loader(opt)
    loader.views = Untouched(**vars(loader.views))
    return loader


def measure(quick: bool, folder: Path) -> Section:
    """Gzip chunks and contiguous pixels."""
    sizes = _QUICK if quick else _FULL
    layouts = {f"gzip, chunks of {imagery.CHUNK}": True, "contiguous": False}
    rows, bars = [], []
    for (layout, compressed), wanted in zip(layouts.items(), (20.0, 15.0), strict=True):
        file = imagery.write(folder / f"{layout}.h5", sizes.num_cutouts, compressed=compressed)
        speed = _compare(file, sizes)
        base = speed["file reopened for each"]
        rows += [
            [layout, name, Series(values).text(",.0f"), ratio(values, base).text(".1f")]
            for name, values in speed.items()
        ]
        bars.append(Bar.of(f"{layout}, nenya / reopened", ratio(speed["nenya"], base), wanted))
    return Section(
        "Reading",
        f"Random order from {sizes.num_cutouts} float32 cutouts of {imagery.SIZE} x {imagery.SIZE} that lie in the "
        f"system's file cache, batches of {BATCH}, `cache_mb: 0`; nenya by whole epochs of its loader without the "
        "views. The other ways run in one process, as within one worker of a DataLoader.",
        [Table(["layout", "way", "cutouts/s", "ratio"], rows)],
        bars,
    )


def _compare(file: Path, sizes: _Sizes) -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    loader = reading_loader(options(file, imagery.SIZE, BATCH))

    def epoch() -> int:
        return sum(len(batch.rows) for batch in loader)

    def batches(read: Callable[[Rows], Pixels]) -> float:
        return throughput(lambda: len(read(rng.choice(sizes.num_cutouts, BATCH, replace=False))), sizes.at_least)

    own = {name: imagery.copy(file, name) for name in ("reopened", "open", "fancy")}
    with h5py.File(own["open"], "r") as opened, h5py.File(own["fancy"], "r") as indexed:
        sides: dict[str, Callable[[], float]] = {
            "file reopened for each": lambda: batches(lambda rows: reopened(own["reopened"], rows)),
            "file kept open": lambda: batches(lambda rows: np.stack([opened["train"][row] for row in rows])),
            "one fancy index per batch": lambda: batches(lambda rows: fancy(indexed["train"], rows)),
            "nenya": lambda: throughput(epoch, sizes.at_least),
        }
        return interleave(sides, sizes.rounds)


def reopened(file: Path, rows: Rows) -> Pixels:
    """Read cutouts [B, 1, H, W], the file opened for each."""
    return np.stack([conventional.read_cutout(file, "train", int(row)) for row in rows])[:, None]


def fancy(dataset: h5py.Dataset, rows: Rows) -> Pixels:
    """Read cutouts [B, 1, H, W] by one index, which HDF5 wants sorted."""
    order = np.argsort(rows)
    return np.asarray(dataset[rows[order]])[np.argsort(order)]
