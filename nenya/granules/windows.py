"""Windows of a field: where they may lie, and how much of each is clear."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


def positions(length: int, size: int, step: int) -> Positions:
    """First pixels of the windows along an axis: 0, step, 2 step, ... as long as the window ends within it.

    Args:
        length: Pixels of the axis.
        size: Pixels of a window.
        step: Pixels from one to the next.

    Returns:
        [n] int64, empty where not one fits. No window wraps around an edge.
    """
    return np.arange(0, length - size + 1, step, dtype=np.int64)


def count_clear(clear: npt.NDArray[np.bool_], rows: Positions, columns: Positions, size: int) -> npt.NDArray[np.int64]:
    """Count the clear pixels of every window by an integral image.

    The image (summed-area table; Crow 1984) is needed only along the lines where windows begin or end, so the pixels
    between two such lines are summed first, and only those sums are accumulated.

    Args:
        clear: [H, W].
        rows: First rows of the windows [m].
        columns: First columns [n].
        size: Their side, pixels.

    Returns:
        [m, n] int64.
    """
    if not len(rows) or not len(columns):
        return np.zeros((len(rows), len(columns)), np.int64)
    row_lines, column_lines = (np.unique(np.concatenate([first, first + size])) for first in (rows, columns))
    pixels = clear[:, : column_lines[-1]].view(np.uint8)
    table = np.zeros((len(row_lines), len(column_lines)), np.int64)
    for line, (top, bottom) in enumerate(itertools.pairwise(row_lines.tolist()), start=1):
        kind = np.uint8 if bottom - top < 256 else np.uint16 if bottom - top < 65536 else np.int64
        strip = pixels[top:bottom].sum(axis=0, dtype=kind)
        table[line, 1:] = np.add.reduceat(strip, column_lines[:-1], dtype=np.int64)
    table = table.cumsum(axis=0).cumsum(axis=1)
    top, bottom = np.searchsorted(row_lines, rows), np.searchsorted(row_lines, rows + size)
    left, right = np.searchsorted(column_lines, columns), np.searchsorted(column_lines, columns + size)
    counts: npt.NDArray[np.int64] = (
        table[np.ix_(bottom, right)] - table[np.ix_(top, right)]
        - table[np.ix_(bottom, left)] + table[np.ix_(top, left)]
    )  # fmt: skip
    return counts


def enough(size: int, min_clear: float) -> int:
    """Smallest number of clear pixels of a window that is at least `min_clear` clear.

    Args:
        size: Side of the window, pixels.
        min_clear: Smallest clear fraction; of a share such as 0.95 the nearest decimal number is meant, so that
            a window of 95 clear pixels out of 100 is enough however 0.95 is rounded.
    """
    return int(np.ceil(size * size * min_clear - 1e-9 * size * size))
