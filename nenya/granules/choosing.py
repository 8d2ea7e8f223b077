"""Which windows of a field are clear enough. What rules most of them out is read first, the rest only where it matters.

On the grid, every window that is clear enough is a cutout: none is preferred to its neighbours. Where only one of
several may stay (the historical steps keep one in each cell), it is the clearest; of equally clear ones the one nearest
to the middle of the cell, then the one with the smaller row, then the smaller column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nenya.granules.containers import Array
from nenya.granules.granule import Coordinates, Granule
from nenya.granules.planes import Plane
from nenya.granules.settings import Settings
from nenya.granules.windows import Positions, count_clear, enough, positions

Mask = npt.NDArray[np.bool_]

_BAND_PIXELS = 18 * 2**20  # of a field in memory at once: a swath of VIIRS in one piece


@dataclass
class Tally:
    """What was seen while choosing, for the log.

    Attributes:
        windows: Windows of the grid.
        kept: Windows that are clear enough.
        most_clear: Clear pixels of the clearest window seen.
        any_clear: Whether there was a clear pixel at all.
        out_of_range: Pixels that only the file's valid range takes away.
        lost_to_range: Windows that it takes away.
        placeless: Windows that are clear enough, but for pixels without latitude or longitude.
    """

    windows: int = 0
    kept: int = 0
    most_clear: int = 0
    any_clear: bool = False
    out_of_range: int = 0
    lost_to_range: int = 0
    placeless: int = 0


@dataclass
class Chosen:
    """Windows of a band of rows, clear enough, in the order of rows, then columns.

    Attributes:
        first_row: Row of the granule that is the band's first.
        rows: First rows of the windows within the band [n].
        columns: First columns [n].
        clear: Clear pixels of each [n].
        pixels: The stored pixels, loaded there.
        valid: Which pixels are clear; right within the windows.
        coordinates: Loaded there.
        quality: Quality levels, loaded there; None where there are none.
    """

    first_row: int
    rows: Positions
    columns: Positions
    clear: npt.NDArray[np.int64]
    pixels: Plane
    valid: Mask
    coordinates: Coordinates
    quality: Plane | None


def bands(height: int, width: int, settings: Settings) -> list[tuple[slice, Positions]]:
    """Cut a field into bands of rows that fit in memory, each with the first rows of its windows, within the band.

    Args:
        height: Rows of the field.
        width: Columns.
        settings: Size and step of the windows.
    """
    rows = positions(height, settings.size, settings.step)
    most = max(settings.size, _BAND_PIXELS // max(1, width))
    found: list[tuple[slice, Positions]] = []
    while len(rows):
        fitting = rows[rows + settings.size <= rows[0] + most]
        start, end = int(fitting[0]), int(fitting[-1]) + settings.size
        # the whole field in one piece also has the rows below its last window
        found.append((slice(start, height if len(fitting) == len(rows) and start == 0 else end), fitting - start))
        rows = rows[len(fitting) :]
    return found


def choose(granule: Granule, time: int, band: slice, rows: Positions, settings: Settings, tally: Tally) -> Chosen:
    """Find the windows of a band that are clear enough.

    Args:
        granule: The granule.
        time: Number of the field.
        band: Its rows that are looked at.
        rows: First rows of the windows, within the band.
        settings: Size, step, clear fraction, quality.
        tally: Counts are added to it.
    """
    columns = positions(granule.shape[1], settings.size, settings.step)
    sieve = _Sieve(rows, columns, settings, (band.stop - band.start, granule.shape[1]))
    quality = granule.quality(time, band)
    if quality is not None:
        levels = granule.levels
        assert levels is not None
        sieve.pass_on(quality, lambda stored: levels.good(stored, settings.quality))
    for flag in granule.flags:
        sieve.pass_on(granule.flag(flag, time, band), lambda stored, flag=flag: ~flag.is_set(stored))  # type: ignore[misc]
    pixels = granule.pixels(time, band)
    before = sieve.valid
    sieve.pass_on(pixels, granule.decoder.measured)
    _count_out_of_range(granule, pixels, before, sieve, tally)
    clear, most_clear = len(sieve.places[0]), sieve.most_clear
    coordinates = granule.coordinates(band)
    known = coordinates.known()
    if known is not None:
        sieve.also(known)
    if isinstance(coordinates.latitude, Plane) and isinstance(coordinates.longitude, Plane):
        sieve.pass_on(coordinates.latitude, np.isfinite)
        sieve.pass_on(coordinates.longitude, np.isfinite)
    tally.windows += len(rows) * len(columns)
    tally.kept += len(sieve.places[0])
    tally.placeless += clear - len(sieve.places[0])
    tally.most_clear = max(tally.most_clear, most_clear)
    tally.any_clear |= sieve.any_clear
    assert sieve.valid is not None
    down, across = sieve.places
    chosen = Chosen(
        band.start, rows[down], columns[across], sieve.counts[down, across], pixels, sieve.valid, coordinates, quality
    )
    if quality is not None:
        quality.load_windows(chosen.rows, chosen.columns, settings.size)
    return chosen


@dataclass
class _Sieve:
    """Pixels that are clear so far, and the windows that may still be clear enough."""

    rows: Positions
    columns: Positions
    settings: Settings
    shape: tuple[int, int]
    valid: Mask | None = None
    any_clear: bool = False
    most_clear: int = 0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def __post_init__(self) -> None:
        self.counts = np.full((len(self.rows), len(self.columns)), self.settings.size**2, np.int64)

    @property
    def places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Numbers of the rows and columns of the grid whose windows may still do."""
        down, across = np.nonzero(self.counts >= enough(self.settings.size, self.settings.min_clear))
        return down, across

    def pass_on(self, plane: Plane, test: Callable[[Array], Mask]) -> None:
        """Keep the pixels that pass a test; look only where a window may still do."""
        if self.valid is None:
            self.valid = test(plane.load())
        else:
            down, across = self.places
            if not len(down):  # nothing can come of it any more: what was counted last tells why
                return
            plane.load_windows(self.rows[down], self.columns[across], self.settings.size)
            rest = np.zeros_like(self.valid)
            for part in plane.loaded:
                rest[part] = self.valid[part] & test(plane.values[part])
            self.valid = rest
        self._count()

    def also(self, mask: Mask) -> None:
        """Keep the pixels of a mask."""
        assert self.valid is not None
        if not len(self.places[0]):
            return
        self.valid = self.valid & mask
        self._count()

    def _count(self) -> None:
        assert self.valid is not None
        first = not self.any_clear
        self.counts = count_clear(self.valid, self.rows, self.columns, self.settings.size)
        self.most_clear = int(self.counts.max(initial=0))
        if first:
            self.any_clear = bool(self.valid.any())


def _count_out_of_range(granule: Granule, pixels: Plane, before: Mask | None, sieve: _Sieve, tally: Tally) -> None:
    """Count what only the file's valid range takes away: it is easily overlooked."""
    decoder = granule.decoder
    if not np.isfinite([decoder.lowest, decoder.highest]).any():
        return
    outside = 0
    for part in pixels.loaded:
        stored = pixels.values[part]
        if _may_be_outside(stored, decoder.lowest, decoder.highest, decoder.fills):
            lost = decoder.outside_valid_range(stored)
            outside += int(np.count_nonzero(lost if before is None else lost & before[part]))
    if not outside:
        return
    tally.out_of_range += outside
    without = np.zeros_like(sieve.valid)
    for part in pixels.loaded:
        fine = decoder.without_valid_range.measured(pixels.values[part])
        without[part] = fine if before is None else fine & before[part]
    counts = count_clear(without, sieve.rows, sieve.columns, sieve.settings.size)
    needed = enough(sieve.settings.size, sieve.settings.min_clear)
    tally.lost_to_range += int(np.count_nonzero(counts >= needed)) - len(sieve.places[0])


def _may_be_outside(stored: Array, lowest: float, highest: float, fills: tuple[int | float, ...]) -> bool:
    """Whether a number beyond the range is there that is no fill value; cheap where there is none."""
    beyond = int(np.count_nonzero(stored < lowest)) + int(np.count_nonzero(stored > highest))
    if not beyond:
        return False
    known = sum(int(np.count_nonzero(stored == fill)) for fill in fills if fill < lowest or fill > highest)
    return beyond > known


def one_in_each_cell(chosen: Chosen, cell: int) -> npt.NDArray[np.int64]:
    """Of the windows of a band, one for each cell: the clearest, then the one nearest to the cell's middle.

    Cells are squares of `cell` pixels, in which the windows' first pixels are.

    Returns:
        Numbers of the windows that stay, rising.
    """
    rows, columns = chosen.rows + chosen.first_row, chosen.columns
    off = np.abs(rows % cell - cell / 2) + np.abs(columns % cell - cell / 2)
    order = np.lexsort((columns, rows, off, -chosen.clear, columns // cell, rows // cell))
    cells = np.stack([rows[order] // cell, columns[order] // cell], axis=1)
    first = np.ones(len(order), np.bool_)
    first[1:] = (cells[1:] != cells[:-1]).any(axis=1)
    return np.sort(order[first])
