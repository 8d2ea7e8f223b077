"""Chunks of an HDF5 dataset, unpacked on several cores."""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.codecs import gzip_filters, inflate, outermost_filter, require_bounded
from nenya.data.sources import Sources

_CHECKSUM_BYTES = 4  # of Fletcher's, behind the chunk
_TASK_BYTES = 2**20  # that a thread reads at least, of a long run


class ChunkReader:
    """Reads the cutouts that are stored together, a whole row of chunks at a time.

    HDF5 works under one lock, so its own decompression keeps one core busy. Where the codec is gzip, with or without
    byte shuffling and checksums, the chunk is taken as it lies in the file and unpacked here, where threads run side by
    side. All else (another codec, a chunk that was never written) is HDF5's work.

    Args:
        dataset: An open dataset, cutouts along its first axis.
        sources: The files in which its pixels lie; None: they are not watched.

    Attributes:
        length: Cutouts in one row of chunks; 1 in a dataset without chunks.
    """

    def __init__(self, dataset: h5py.Dataset, sources: Sources | None = None) -> None:
        self._dataset = dataset
        self._sources = sources
        self._shape: tuple[int, ...] = dataset.shape
        self._dtype: np.dtype[Any] = dataset.dtype
        self._chunk: tuple[int, ...] = dataset.chunks or (1, *dataset.shape[1:])
        self.length: int = self._chunk[0]
        self._filters = gzip_filters(dataset)
        self._outermost = outermost_filter(dataset) if dataset.chunks else 0

    def __len__(self) -> int:
        """Number of cutouts."""
        return self._shape[0]

    def parts(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[Any]) -> list[Callable[[], None]]:
        """The work of reading cutouts: as for `ContiguousReader`, each chunk once and in a part of its own."""
        if not len(rows):
            return []
        numbers = rows // self.length
        order = np.argsort(numbers, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
        return [functools.partial(self._pick, rows, places, pixels) for places in groups]

    def _pick(self, rows: npt.NDArray[np.int64], places: npt.NDArray[np.intp], pixels: npt.NDArray[Any]) -> None:
        """Read the rows at some places, which lie in the same chunk."""
        start = int(rows[places[0]]) // self.length * self.length
        block = self.read(start, min(start + self.length, len(self)))
        pixels[places] = block[rows[places] - start].reshape(len(places), *pixels.shape[1:])

    def read_run(self, start: int, stop: int, pixels: npt.NDArray[Any], num_threads: int = 1) -> None:
        """Read cutouts `start` to `stop`, which end at chunks' borders: as for `ContiguousReader`.

        Args:
            start: The first.
            stop: One more than the last.
            pixels: Where they go [stop - start, ...], of any type that holds them.
            num_threads: Threads that unpack.

        Raises:
            OSError: They cannot be read; the message names them.
        """
        row_bytes = math.prod(self._shape[1:]) * self._dtype.itemsize
        step = self.length * max(1, _TASK_BYTES // (self.length * row_bytes))

        def fill(first: int) -> None:
            for begin in range(first, min(first + step, stop), self.length):
                block = self.read(begin, min(begin + self.length, stop))
                pixels[begin - start : begin - start + len(block)] = block.reshape(len(block), *pixels.shape[1:])

        with ThreadPoolExecutor(num_threads, thread_name_prefix="nenya-unpack") as threads:
            list(threads.map(fill, range(start, stop, step)))  # which raises what they raise

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read cutouts that are stored together.

        Args:
            start: The first, a multiple of `length`.
            stop: One more than the last: of the same row of chunks, or of any in a dataset without chunks.

        Returns:
            Pixels [stop - start, ...], in the file's type; perhaps read-only.

        Raises:
            OSError: They cannot be read; the message names them.
        """
        try:
            if self._filters:
                pixels = self._unpack(start, stop)
            else:
                if self._outermost:
                    self._require_bounded(start)
                pixels = np.asarray(self._dataset[start:stop])
            if self._sources is not None:
                self._sources.require_whole()
        except (OSError, RuntimeError) as error:
            raise OSError(f"reading rows {start} to {stop - 1} fails: {error}") from error
        return pixels

    def _corners(self, start: int) -> Iterator[tuple[int, ...]]:
        """The indices of the first elements of a row's chunks."""
        frame = zip(self._shape[1:], self._chunk[1:], strict=True)
        return itertools.product((start,), *(range(0, size, step) for size, step in frame))

    def _unpack(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Unpack the chunks of cutouts `start` to `stop`."""
        if self._chunk[1:] == self._shape[1:]:
            chunk = self._unpack_one((start, *(0 for _ in self._shape[1:])))
            return np.asarray(self._dataset[start:stop]) if chunk is None else chunk[: stop - start]
        pixels = np.empty((stop - start, *self._shape[1:]), self._dtype)
        for corner in self._corners(start):
            region = tuple(slice(at, at + n) for at, n in zip(corner[1:], self._chunk[1:], strict=True))
            place, chunk = pixels[:, *region], self._unpack_one(corner)
            if chunk is None:
                # What could not be unpacked is asked of HDF5, which knows unwritten chunks and explains damage.
                place[...] = self._dataset[start:stop, *region]
            else:
                place[...] = chunk[tuple(slice(n) for n in place.shape)]  # a chunk at the edge is stored in full size
        return pixels

    def _require_bounded(self, start: int) -> None:
        """Make sure that the chunks that HDF5 is going to unpack say that they are of their size, where they say it.

        Raises:
            OSError: One says that it is larger; HDF5 would make room for all that.
        """
        size = math.prod(self._chunk) * self._dtype.itemsize
        for corner in self._corners(start):
            try:
                skipped, data = self._dataset.id.read_direct_chunk(corner)
            except (OSError, RuntimeError):  # never written
                continue
            if not skipped:
                require_bounded(self._outermost, data, size)

    def _unpack_one(self, corner: tuple[int, ...]) -> npt.NDArray[Any] | None:
        """One chunk in full size, by the indices of its first element; None if it is not there or not gzip.

        Raises:
            OSError: It is not of the size that it should have.
        """
        size = math.prod(self._chunk) * self._dtype.itemsize
        try:
            skipped, data = self._dataset.id.read_direct_chunk(corner)
        except (OSError, RuntimeError):
            return None
        # HDF5 leaves out a filter that would make the chunk larger, and notes that in a bit.
        filters = [code for position, code in enumerate(self._filters) if not skipped >> position & 1]
        if h5py.h5z.FILTER_FLETCHER32 in filters:
            if h5py.h5z.FILTER_DEFLATE not in filters:
                return None
            data = data[:-_CHECKSUM_BYTES]  # gzip has one of its own
        if h5py.h5z.FILTER_DEFLATE in filters:
            try:
                data = inflate(data, size)
            except zlib.error:
                return None
        if len(data) != size:
            raise OSError(f"a chunk of {size} bytes is found to have {len(data)}")
        pixels = np.frombuffer(self._unshuffled(data) if h5py.h5z.FILTER_SHUFFLE in filters else data, self._dtype)
        return pixels.reshape(self._chunk)

    def _unshuffled(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Undo HDF5's byte shuffling: first bytes of all elements, then second bytes, ... -> elements."""
        planes = np.frombuffer(data, np.uint8).reshape(self._dtype.itemsize, -1)
        return np.stack(list(planes), axis=1).reshape(-1)  # several times as fast as a copy of `planes.T`
