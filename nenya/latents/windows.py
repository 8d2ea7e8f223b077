"""Cutouts in the file's order: large windows are read, the next while the last is used, and cut into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nenya.data.cutouts import Cutouts

#: Bytes of a window, as stored, at least; two are in memory.
_WINDOW_BYTES = 16 * 2**20
#: A window that does not end with a chunk reads it a second time, so it has several.
_CHUNKS = 4


class Block(NamedTuple):
    """Rows of a file that are encoded together.

    Attributes:
        start: The first row.
        stop: One more than the last.
        used: Which of them can be used, counted from `start`.
    """

    start: int
    stop: int
    used: npt.NDArray[np.int64]


Span = tuple[int, int]


def spans_of_blocks(rows: Sequence[Span], size: int, num_rows: int) -> list[Span]:
    """Cut spans of rows, which begin and end with blocks, into blocks: they lie at the multiples of `size`."""
    return [(at, min(at + size, num_rows)) for start, stop in rows for at in range(start, stop, size)]


def read_blocks(
    images: Cutouts, usable: npt.NDArray[np.bool_], spans: Sequence[Span], threads: Executor
) -> Iterator[tuple[Block, npt.NDArray[Any]]]:
    """Read blocks of cutouts.

    Args:
        images: The cutouts.
        usable: Which can be used [N]; the others are not read.
        spans: First row of each block and the row after its last, rising.
        threads: They read and unpack.

    Yields:
        Each block, and the stored pixels of its usable cutouts [b, C, H, W].

    Raises:
        DataError: The file cannot be read.
    """
    windows = _windows(images, spans)
    if not windows:
        return
    coming = images.begin_reading(_used(usable, windows[0]), threads)
    for number, window in enumerate(windows):
        pixels = coming()
        if number + 1 < len(windows):
            coming = images.begin_reading(_used(usable, windows[number + 1]), threads)
        at = 0
        for start, stop in window:
            used = np.flatnonzero(usable[start:stop])
            yield Block(start, stop, used), pixels[at : at + len(used)]
            at += len(used)


def _used(usable: npt.NDArray[np.bool_], window: Sequence[Span]) -> npt.NDArray[np.int64]:
    """The usable rows of a window, rising."""
    return np.concatenate([start + np.flatnonzero(usable[start:stop]) for start, stop in window])


def _windows(images: Cutouts, spans: Sequence[Span]) -> list[list[Span]]:
    """Put blocks together to windows, which end where a chunk does if blocks and chunks meet within a few."""
    size = max((stop - start for start, stop in spans), default=1)
    together, row_bytes = images.rows_per_read, max(1, images.row_bytes)
    rows = max(size, _CHUNKS * together if together > 1 else 1, _WINDOW_BYTES // row_bytes)
    meet = math.lcm(size, together)
    unit = meet if meet <= 2 * rows else size
    rows = -(-rows // unit) * unit
    windows: list[list[Span]] = []
    for start, stop in spans:
        if not windows or start // rows != windows[-1][0][0] // rows:
            windows.append([])
        windows[-1].append((start, stop))
    return windows
