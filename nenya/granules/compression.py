"""Chunks of cutouts packed by gzip on several cores, written as HDF5 would write them itself.

HDF5 works under one lock and packs on one core; here the chunks are packed by threads, in the format of HDF5's own
filters (byte shuffling, then deflate), and written in order.
"""

from __future__ import annotations

import zlib
from collections import deque
from concurrent.futures import Executor, Future
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.granules.containers import Array

_LEVEL = 1  # of gzip: higher ones take twice the time and more for a few per cent
_AHEAD = 8  # chunks that wait to be packed or written


class ChunkedWriter:
    """Fills a dataset from its first row on.

    Args:
        file: The open HDF5 file.
        name: The dataset's name.
        shape: Its final shape.
        dtype: Type of its numbers.
        length: Rows of a chunk.
        fill: Its fill value; None for HDF5's own.
        pool: Threads that pack.

    Attributes:
        dataset: The dataset.
    """

    def __init__(
        self,
        file: h5py.File,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        length: int,
        fill: float | None,
        pool: Executor,
    ) -> None:
        self._length = min(length, shape[0])
        self.dataset = file.create_dataset(
            name, shape, dtype, chunks=(self._length, *shape[1:]), shuffle=True, compression="gzip",
            compression_opts=_LEVEL, fillvalue=fill,
        )  # fmt: skip
        self._fill = 0 if fill is None else fill
        self._pool = pool
        self._waiting: deque[tuple[int, Future[bytes]]] = deque()
        self._rest: list[Array] = []
        self._rows = 0  # in self._rest
        self._next = 0  # first row of the next chunk

    def append(self, rows: Array) -> None:
        """Add rows."""
        self._rest.append(rows)
        self._rows += len(rows)
        if self._rows >= self._length:
            together = np.concatenate(self._rest)
            whole = len(together) // self._length * self._length
            for start in range(0, whole, self._length):
                self._submit(together[start : start + self._length])
            self._rest, self._rows = [together[whole:]], len(together) - whole

    def finish(self) -> None:
        """Write what is left; the last chunk is filled up."""
        if self._rows:
            left = np.concatenate(self._rest)
            last: npt.NDArray[Any] = np.full((self._length, *left.shape[1:]), self._fill, left.dtype)
            last[: len(left)] = left
            self._submit(last)
        while self._waiting:
            self._write()

    def _submit(self, chunk: Array) -> None:
        self._waiting.append((self._next, self._pool.submit(_pack, chunk)))
        self._next += self._length
        while len(self._waiting) > _AHEAD:
            self._write()

    def _write(self) -> None:
        start, packed = self._waiting.popleft()
        self.dataset.id.write_direct_chunk((start, *(0,) * (self.dataset.ndim - 1)), packed.result())


def _pack(chunk: Array) -> bytes:
    stored = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
    size = stored.dtype.itemsize
    shuffled = stored.view(np.uint8).reshape(-1, size).T if size > 1 else stored
    return zlib.compress(np.ascontiguousarray(shuffled).data, _LEVEL)
