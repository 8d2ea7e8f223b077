"""The grid that is laid over a map, as in the historical figures: n x n cells over its middle 99.9 %."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError

#: Percentiles of the coordinates between which the grid lies.
BETWEEN = (0.05, 99.95)
MOST = 100
_MANY = 2_000  # one of them is 0.05 %

Float = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grid:
    """Cells over a map, counted from the lower left: column by US0, row by US1.

    Attributes:
        x: Edges along US0 [n + 1].
        y: Edges along US1 [n + 1].
    """

    x: Float
    y: Float

    @classmethod
    def over(cls, coordinates: npt.NDArray[np.float32], side: int) -> Grid:
        """The grid over some places.

        Args:
            coordinates: [n, 2], at least one.
            side: Cells along each axis.

        Raises:
            OptionError: `side` is not 1 to 100.
        """
        if not 1 <= side <= MOST:
            raise OptionError(f"--grid: found {side}, expected 1 to {MOST} cells along a side.")
        # Among few, the percentiles would lie between the outermost places and the next, and cut off as many as four.
        between = BETWEEN if len(coordinates) >= _MANY else (0, 100)
        ends = np.percentile(coordinates.astype(np.float64), between, axis=0)
        # Places that are all the same get a grid around them.
        flat = ends[1] <= ends[0]
        ends += np.where(flat, [[-0.5], [0.5]], 0.0)
        x, y = (np.linspace(low, high, side + 1) for low, high in ends.T)
        return cls(x, y)

    @property
    def side(self) -> int:
        """Cells along each axis."""
        return len(self.x) - 1

    def cells(self, coordinates: npt.NDArray[np.float32]) -> Integers:
        """The cell of each place [n], ``row * side + column``; -1 outside the grid."""
        column, row = (
            self._place(edges, values) for edges, values in zip((self.x, self.y), coordinates.T, strict=True)
        )
        result: Integers = np.where((column >= 0) & (row >= 0), row * self.side + column, -1)
        return result

    def _place(self, edges: Float, values: npt.NDArray[np.float32]) -> Integers:
        found = np.searchsorted(edges, values, side="right") - 1
        found = np.where(values == edges[-1], self.side - 1, found)  # the last edge belongs to the last cell
        result: Integers = np.where((found >= 0) & (found < self.side), found, -1)
        return result
