"""Two-dimensional fields of a granule, of which only those parts are unpacked that are needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.granules.containers import Array, Variable

_LEAST = 64  # rows of a tile: thinner chunks, and what has none, are read in bands of several
_PLAIN = 256  # rows of a tile of what is stored without chunks


class Plane:
    """A field ``[rows, columns]`` of a variable, at one time.

    It is held in an array of its own size, of which only the tiles that were loaded take memory.

    Args:
        read: Gives a part of it: rows, columns -> array.
        shape: Rows and columns.
        dtype: Type of its numbers.
        tile: Rows and columns that are stored, and so unpacked, together.

    Attributes:
        values: The field; of undefined content where it is not loaded.
    """

    def __init__(
        self,
        read: Callable[[slice, slice], Array],
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        tile: tuple[int, int],
    ) -> None:
        self._read = read
        self._tile = (min(max(1, tile[0]), shape[0]), min(max(1, tile[1]), shape[1]))
        self._loaded = np.zeros([-(-length // side) for length, side in zip(shape, self._tile, strict=True)], np.bool_)
        self.values: Array = np.empty(shape, dtype)

    def load(self) -> Array:
        """Load all of it."""
        self._fetch(~self._loaded)
        return self.values

    def load_windows(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], size: int) -> None:
        """Load the tiles that windows touch.

        Args:
            rows: First row of each window [n].
            columns: First column of each [n].
            size: Their side.
        """
        height, width = self._tile
        wanted = np.zeros_like(self._loaded)
        spans = np.stack(
            [rows // height, (rows + size - 1) // height, columns // width, (columns + size - 1) // width], axis=1
        )
        for top, bottom, left, right in np.unique(spans, axis=0):
            wanted[top : bottom + 1, left : right + 1] = True
        self._fetch(wanted & ~self._loaded)

    @property
    def loaded(self) -> list[tuple[slice, slice]]:
        """The parts that are loaded, as rows and columns."""
        return [self._part(row, left, right) for row, left, right in _runs(self._loaded)]

    def _fetch(self, wanted: npt.NDArray[np.bool_]) -> None:
        for row, left, right in _runs(wanted):
            part = self._part(row, left, right)
            self.values[part] = self._read(*part)
        self._loaded |= wanted

    def _part(self, row: int, left: int, right: int) -> tuple[slice, slice]:
        height, width = self._tile
        rows, columns = self.values.shape
        return (
            slice(row * height, min(rows, (row + 1) * height)),
            slice(left * width, min(columns, right * width)),
        )


def _runs(marked: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Stretches of marked tiles: row of tiles, first, end."""
    runs = []
    for row in range(len(marked)):
        for is_marked, group in itertools.groupby(range(marked.shape[1]), key=lambda column: bool(marked[row, column])):
            if is_marked:
                columns = list(group)
                runs.append((row, columns[0], columns[-1] + 1))
    return runs


def plane_of(
    variable: Variable,
    row: int,
    column: int,
    others: dict[int, int],
    band: slice,
    convert: Callable[[Array], Array] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Plane:
    """A band of rows of a variable at one time, with rows first whatever order its dimensions have.

    Args:
        variable: The variable.
        row: Its dimension that is the rows.
        column: Its dimension that is the columns.
        others: Where it is read along its other dimensions.
        band: First and end row.
        convert: Applied to what is read.
        dtype: Type after that; None for the variable's.

    Returns:
        The plane, whose first row is the band's.
    """

    def read(rows: slice, columns: slice) -> Array:
        index: list[slice | int] = [others.get(axis, 0) for axis in range(len(variable.shape))]
        index[row] = slice(band.start + rows.start, band.start + rows.stop)
        index[column] = columns
        part = variable.read(tuple(index))
        part = part if row < column else part.T
        return convert(part) if convert else part

    height, width = band.stop - band.start, variable.shape[column]
    tile = (_PLAIN, width)
    if variable.chunks is not None:
        tile = (variable.chunks[row], variable.chunks[column])
        tile = (tile[0] * -(-_LEAST // tile[0]), tile[1])
        if band.start % tile[0]:
            tile = (height, tile[1])
    return Plane(read, (height, width), variable.dtype if dtype is None else dtype, tile)
