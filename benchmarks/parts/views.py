"""Making the two views: one warp of the whole batch beside scikit-image, a cutout at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks import conventional, imagery
from benchmarks.measure import Series, interleave, ratio, throughput
from benchmarks.parts.step import SHIFT, WINDOW, options
from benchmarks.results import Bar, Section, Table
from nenya.data.augment import Views
from nenya.data.images import ImageFile

SIZE = 64  # pixels, of the views


def measure(quick: bool, folder: Path) -> Section:
    """Both views of a batch in memory, as Nenya and as the conventional pipeline make them."""
    batch_size, rounds, at_least = (8, 1, 0.0) if quick else (256, 5, 0.5)
    file = imagery.write(folder / "cutouts.h5", batch_size, compressed=False)
    pixels = ImageFile(file, "train").read(np.arange(batch_size))
    images, rows = torch.from_numpy(pixels), torch.arange(batch_size)
    views = Views.from_options(options(file, SIZE, batch_size), imagery.SIZE, imagery.SIZE)

    def ours() -> int:
        views.make(images, rows, epoch=1)
        return batch_size

    def one_thread() -> float:
        with _threads(1):
            return throughput(ours, at_least)

    def theirs() -> int:
        for image in pixels[:, 0]:
            for _ in range(2):
                conventional.random_view(image, WINDOW, SHIFT, SIZE)
        return batch_size

    sides: dict[str, Callable[[], float]] = {
        "scikit-image, per cutout": lambda: throughput(theirs, at_least),
        "nenya, one thread": one_thread,
        "nenya": lambda: throughput(ours, at_least),
    }
    for run in sides.values():
        run()
    speed = interleave(sides, rounds)
    base = speed["scikit-image, per cutout"]
    table = [[name, Series(values).text(",.0f"), ratio(values, base).text(".1f")] for name, values in speed.items()]
    return Section(
        "Views",
        f"Two views of {SIZE} x {SIZE} of each of {batch_size} cutouts in memory: flips, any angle, a window of "
        f"{WINDOW} pixels shifted by up to {SHIFT}, resized, demeaned. scikit-image interpolates twice and on one "
        "thread, as it does within one worker of a DataLoader; Nenya interpolates once, on all threads.",
        [Table(["", "cutouts/s", "ratio"], table)],
        [Bar.of("views, nenya / scikit-image", ratio(speed["nenya"], base), 10)],
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
