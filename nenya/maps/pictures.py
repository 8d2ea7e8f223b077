"""Pictures of a map: its gallery of real cutouts, and where regions or seasons are frequent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.drawing import picture
from nenya.maps.grid import Grid
from nenya.maps.ratios import Ratios
from nenya.search.gallery import Field, Pixels, centred, limits_of
from nenya.search.vectors import Vectors

_MOST_PIXELS = 64  # of a cutout's longer side in the gallery
_GAP = 2  # pixels between two
_MOST_RATIO = 2.0  # where the colour scale of the ratios ends

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sheet:
    """The rows of one map, for a picture.

    Attributes:
        label: What they are.
        numbers: Rows that are on the map [n].
        coordinates: Where [n, 2].
        grid: The grid over it.
        cells: The cell of each [n]; -1 outside the grid.
    """

    label: str
    numbers: Integers
    coordinates: npt.NDArray[np.float32]
    grid: Grid
    cells: Integers

    @classmethod
    def of(cls, label: str, numbers: Integers, coordinates: npt.NDArray[np.float32], side: int) -> Sheet:
        """Lay a grid over some rows."""
        grid = Grid.over(coordinates, side)
        return cls(label, numbers, coordinates, grid, grid.cells(coordinates))

    def nearest_to_centres(self) -> dict[int, int]:
        """For each cell that has any the row nearest to its centre; of equals the first."""
        inside = np.flatnonzero(self.cells >= 0)
        row, column = np.divmod(self.cells[inside], self.grid.side)
        x, y = ((edges[:-1] + edges[1:]) / 2 for edges in (self.grid.x, self.grid.y))
        wide, high = (np.diff(edges)[0] for edges in (self.grid.x, self.grid.y))
        places = self.coordinates[inside].astype(np.float64)
        away = ((places[:, 0] - x[column]) / wide) ** 2 + ((places[:, 1] - y[row]) / high) ** 2
        order = np.lexsort((inside, away, self.cells[inside]))
        cells, firsts = np.unique(self.cells[inside][order], return_index=True)
        return dict(zip(cells.tolist(), self.numbers[inside[order[firsts]]].tolist(), strict=True))


def draw_gallery(path: Path, sheet: Sheet, vectors: Vectors, pixels: Pixels) -> None:
    """Draw a grid of real cutouts, each the nearest to the centre of its cell; cells without any are blank.

    All have one colour scale. Where the training took the mean from each cutout, so does the picture.

    Args:
        path: The PNG file.
        sheet: The map.
        vectors: The latents.
        pixels: The cutouts.

    Raises:
        NenyaError: A cutout cannot be read, or the file cannot be written.
    """
    chosen = sheet.nearest_to_centres()
    fields = {
        cell: _thinned(centred(pixels.read(*vectors.where(number)), pixels.demeaned)) for cell, number in chosen.items()
    }
    side = max(max(field.shape) for field in fields.values()) + _GAP
    count = sheet.grid.side
    canvas = np.full((count * side, count * side), np.nan, np.float32)
    known = np.zeros(canvas.shape, bool)
    for cell, field in fields.items():
        row, column = divmod(cell, count)
        top = (count - 1 - row) * side + (side - field.shape[0]) // 2
        left = column * side + (side - field.shape[1]) // 2
        part = np.s_[top : top + field.shape[0], left : left + field.shape[1]]
        canvas[part], known[part] = field, True
    low, high = limits_of(list(fields.values()), pixels.demeaned)
    width = min(16.0, max(6.0, count * side / 100))
    with picture(path, (width + 1.2, width + 0.6), 130, layout="constrained") as figure:
        axis = figure.subplots()
        ends = (sheet.grid.x[0], sheet.grid.x[-1], sheet.grid.y[0], sheet.grid.y[-1])
        image = axis.imshow(
            np.ma.masked_invalid(canvas), cmap="RdYlBu_r", vmin=low, vmax=high, interpolation="nearest",
            extent=ends, aspect="auto",
        )  # fmt: skip
        image.cmap.set_bad((0, 0, 0, 0))
        # Missing pixels of a cutout are grey; cells without a cutout are white.
        grey = np.zeros((*canvas.shape, 4), np.float32)
        grey[known & np.isnan(canvas)] = (0.75, 0.75, 0.75, 1)
        axis.imshow(grey, interpolation="nearest", extent=ends, aspect="auto")
        axis.set(xlabel="US0", ylabel="US1", title=f"{sheet.label} ({len(sheet.numbers):,})")
        what = "difference from the cutout's mean" if pixels.demeaned else "value"
        bar = figure.colorbar(image, ax=axis, shrink=0.8, aspect=30)
        bar.ax.set_ylabel(f"{what}{f' [{pixels.unit}]' if pixels.unit else ''}", parse_math=False)


def _thinned(field: Field) -> Field:
    """A field of at most 64 pixels along a side: every second, third, ... pixel, so that no gap is smeared."""
    step = -(-max(field.shape) // _MOST_PIXELS)
    return field[::step, ::step]


def draw_ratios(path: Path, found: Sequence[tuple[Sheet, Sequence[Ratios]]], what: str) -> None:
    """Draw the ratios: a row of panels for each group, a column for each map.

    Cells whose interval holds 1 are pale: there the group is about as frequent as elsewhere, or there are too few.

    Args:
        path: The PNG file.
        found: Each map with the ratios of the groups.
        what: What is compared, for the colour bar.

    Raises:
        NenyaError: The file cannot be written.
    """
    num_rows = len(found[0][1])
    across = len(found) if len(found) > 1 else min(num_rows, 4)
    panels = [(sheet, one) for row in range(num_rows) for sheet, ratios in found for one in [ratios[row]]]
    down = -(-len(panels) // across)
    with picture(path, (3.0 * across + 1, 2.9 * down + 0.3), 110, layout="constrained") as figure:
        axes = figure.subplots(down, across, squeeze=False).ravel()
        mesh: Any = None
        for axis in axes[len(panels) :]:
            axis.axis("off")
        for axis, (sheet, one) in zip(axes, panels, strict=False):
            side = sheet.grid.side
            axis.set_facecolor("0.85")  # cells without cutouts; white is a ratio of 1
            there = np.where(one.counts > 0, 1.0, np.nan).reshape(side, side)
            axis.pcolormesh(sheet.grid.x, sheet.grid.y, np.ma.masked_invalid(there), cmap="binary", vmin=1, vmax=2)
            sure = (one.low > 1) | (one.high < 1)
            for part, alpha in ((sure, 1.0), (~sure, 0.3)):
                values = np.ma.masked_invalid(np.where(part, one.ratio, np.nan).reshape(side, side))
                drawn = axis.pcolormesh(
                    sheet.grid.x, sheet.grid.y, values, cmap="RdBu_r", vmin=0, vmax=_MOST_RATIO, alpha=alpha
                )  # fmt: skip
                mesh = drawn if alpha == 1.0 else mesh
            title = one.group.label if len(found) == 1 else f"{one.group.label}, {sheet.label}"
            axis.set_title(f"{title} ({one.inside.sum():,})", fontsize=8, parse_math=False)
            axis.tick_params(labelsize=6)
        bar = figure.colorbar(mesh, ax=axes.tolist(), shrink=0.8, aspect=30, extend="max")
        bar.ax.set_ylabel(f"share of the {what}'s cutouts\nover the share of all", fontsize=8)
        figure.suptitle("pale: the interval of 95 % holds 1; grey: no cutouts", fontsize=8)
