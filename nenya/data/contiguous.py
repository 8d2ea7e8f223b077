"""Pixels that lie in a file in one piece, one cutout after the other: read straight into the place where they go."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.codecs import is_stored_plainly

_BLOCK_BYTES = 8 * 2**20  # of pixels that are read at once to be converted


class ContiguousReader:
    """Reads cutouts by their places in a file.

    Nothing is mapped into memory: to touch a mapped pixel ends the process where the file has been cut short or the
    disk fails, while a read is an error. The file stays open, so that one that takes its name later changes nothing.
    Any number of threads may read at once.

    Args:
        path: The file.
        offset: Where the pixels begin, bytes.
        shape: Of all pixels, cutouts along the first axis.
        dtype: Of the pixels in the file.

    Raises:
        OSError: The file cannot be opened, or ends before its pixels do.
    """

    length = 1

    def __init__(self, path: str | os.PathLike[str], offset: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # closed with the reader
        self._descriptor = self._file.fileno()
        self._close = weakref.finalize(self, self._file.close)
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._offset = offset
        self._row_bytes = math.prod(shape[1:]) * self._dtype.itemsize
        self._one_at_a_time = threading.Lock()
        self._end = offset + len(self) * self._row_bytes
        self._require_bytes(self._end)

    def __len__(self) -> int:
        """Number of cutouts."""
        return self._shape[0]

    @classmethod
    def of(cls, dataset: h5py.Dataset) -> ContiguousReader | None:
        """A reader of a dataset, if its pixels lie in its file in one piece, as NumPy has them.

        The file is the one that HDF5 has open: a dataset behind a link lies in another one than that by which it was
        found, and a path may lead to another file by now.

        Raises:
            OSError: As for the class.
        """
        file = dataset.file
        if dataset.chunks or dataset.is_virtual or dataset.external or file.driver != "sec2":
            return None
        offset = dataset.id.get_offset()  # None in compact layout, or where nothing was ever written
        if offset is None or not is_stored_plainly(dataset):
            return None
        reader = cls(file.filename, offset, dataset.shape, dataset.dtype)
        if os.path.samestat(os.fstat(reader._descriptor), os.fstat(file.id.get_vfd_handle())):
            return reader
        reader.close()
        return None

    def close(self) -> None:
        """Close the file."""
        self._close()

    def parts(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[Any]) -> list[Callable[[], None]]:
        """The work of reading cutouts.

        Args:
            rows: Row numbers [B], any order, repetition allowed.
            pixels: Where they go [B, ...], of any type that holds them; contiguous.

        Returns:
            Functions that do a part of it each, in any order; they raise OSError where the file cannot be read.
        """
        return [lambda: self._pick(rows, pixels)] if len(rows) else []

    def read_run(self, start: int, stop: int, pixels: npt.NDArray[Any], num_threads: int = 1) -> None:
        """Read cutouts `start` to `stop`.

        Args:
            start: The first.
            stop: One more than the last.
            pixels: Where they go [stop - start, ...], of any type that holds them; contiguous.
            num_threads: Not used: the disk is what takes time.

        Raises:
            OSError: The file cannot be read, or ends before its pixels do.
        """
        if pixels.dtype == self._dtype:
            self._fill(_as_bytes(pixels), self._offset + start * self._row_bytes)
            return
        step = max(1, _BLOCK_BYTES // self._row_bytes)
        for first in range(start, stop, step):
            block = np.empty((min(step, stop - first), *self._shape[1:]), self._dtype)
            self._fill(_as_bytes(block), self._offset + first * self._row_bytes)
            pixels[first - start : first - start + len(block)] = block.reshape(len(block), *pixels.shape[1:])

    def _pick(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[Any]) -> None:
        """Read cutouts: those that follow each other at once."""
        if pixels.dtype != self._dtype:
            stored = np.empty(pixels.shape, self._dtype)
            self._pick(rows, stored)
            pixels[...] = stored
            return
        size, target = self._row_bytes, _as_bytes(pixels)
        start = 0
        for end in [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]:
            self._fill(target[start * size : end * size], self._offset + int(rows[start]) * size)
            start = end

    def _fill(self, buffer: memoryview, place: int) -> None:
        """Fill a buffer from a place in the file on; the system gives less than asked for at its end, or above 2 GB."""
        done = self._read(buffer, place)
        while done < len(buffer):
            more = self._read(buffer[done:], place + done)
            if more == 0:
                self._require_bytes(place + done + 1)
                raise OSError(f"{self._file.name} gives nothing from byte {place + done} on")
            done += more

    def _read(self, buffer: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [buffer], place)
        with self._one_at_a_time:  # Windows has one place in a file where it is read
            self._file.seek(place)
            return self._file.readinto(buffer) or 0

    def _require_bytes(self, needed: int) -> None:
        """Make sure that the file is not shorter than it must be.

        Raises:
            OSError: It is.
        """
        size = os.fstat(self._descriptor).st_size
        if size < needed:
            raise OSError(f"{self._file.name} has {size} bytes, and its pixels end at byte {self._end}")


def _as_bytes(pixels: npt.NDArray[Any]) -> memoryview:
    """The bytes of a contiguous array, to write to."""
    return pixels.reshape(-1).view(np.uint8).data
