"""Chunks of an HDF5 dataset: the codecs they need, and unpacking them on several cores."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.errors import DataError


class ChunkReader:
    """Reads the cutouts that are stored together, a whole row of chunks at a time.

    HDF5 works under one lock, so its own decompression keeps one core busy. Where the codec is gzip, with or without
    byte shuffling, the chunk is taken as it lies in the file and unpacked here, where threads run side by side. All
    else (another codec, checksums, a chunk that was never written) is HDF5's work.

    Args:
        dataset: An open dataset, cutouts along its first axis.

    Attributes:
        length: Cutouts in one row of chunks; 1 in a dataset without chunks.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self._shape: tuple[int, ...] = dataset.shape
        self._dtype: np.dtype[Any] = dataset.dtype
        self._chunk: tuple[int, ...] = dataset.chunks or (1, *dataset.shape[1:])
        self.length: int = self._chunk[0]
        self._filters = _gzip_filters(dataset)

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
            pixels = self._unpack(start, stop) if self._filters else None
            # What could not be unpacked is asked of HDF5, which knows unwritten chunks and explains damage.
            return np.asarray(self._dataset[start:stop]) if pixels is None else pixels
        except (OSError, RuntimeError) as error:
            raise OSError(f"reading rows {start} to {stop - 1} fails: {error}") from error

    def _unpack(self, start: int, stop: int) -> npt.NDArray[Any] | None:
        """Unpack the chunks of cutouts `start` to `stop`; None if one of them is not what it should be."""
        frame = self._shape[1:]
        if self._chunk[1:] == frame:
            chunk = self._unpack_one((start, *(0 for _ in frame)))
            return None if chunk is None else chunk[: stop - start]
        pixels = np.empty((stop - start, *frame), self._dtype)
        for corner in itertools.product(*(range(0, n, step) for n, step in zip(frame, self._chunk[1:], strict=True))):
            chunk = self._unpack_one((start, *corner))
            if chunk is None:
                return None
            place = pixels[:, *(slice(at, at + n) for at, n in zip(corner, self._chunk[1:], strict=True))]
            place[...] = chunk[tuple(slice(n) for n in place.shape)]  # a chunk at the edge is stored in full size
        return pixels

    def _unpack_one(self, corner: tuple[int, ...]) -> npt.NDArray[Any] | None:
        """One chunk in full size, by the indices of its first element; None if it is not there or not gzip.

        Raises:
            OSError: It is not of the size that it should have.
        """
        size = int(np.prod(self._chunk)) * self._dtype.itemsize
        filters = self._filters
        try:
            skipped, data = self._dataset.id.read_direct_chunk(corner)
            # HDF5 leaves out a filter that would make the chunk larger, and notes that in a bit.
            filters = tuple(code for position, code in enumerate(filters) if not skipped >> position & 1)
            if h5py.h5z.FILTER_DEFLATE in filters:
                data = zlib.decompress(data, bufsize=size)  # other threads run meanwhile
        except (OSError, RuntimeError, zlib.error):
            return None
        if len(data) != size:
            raise OSError(f"a chunk of {size} bytes is found to have {len(data)}")
        pixels = np.frombuffer(self._unshuffled(data) if h5py.h5z.FILTER_SHUFFLE in filters else data, self._dtype)
        return pixels.reshape(self._chunk)

    def _unshuffled(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Undo HDF5's byte shuffling: first bytes of all elements, then second bytes, ... -> elements."""
        planes = np.frombuffer(data, np.uint8).reshape(self._dtype.itemsize, -1)
        return np.stack(list(planes), axis=1).reshape(-1)  # several times as fast as a copy of `planes.T`


def is_stored_plainly(dataset: h5py.Dataset) -> bool:
    """Whether the bytes in the file are those of the NumPy type: HDF5 has types that NumPy has not, e.g. of 12 bits."""
    return bool(h5py.h5t.py_create(dataset.dtype, logical=True) == dataset.id.get_type())


def require_codecs(dataset: h5py.Dataset, path: Path) -> None:
    """Make sure that HDF5 can unpack a dataset; the package with more codecs is imported where one needs it.

    Raises:
        DataError: A codec is not installed.
    """
    unknown = [(code, name) for code, name in _filters(dataset) if not h5py.h5z.filter_avail(code)]
    if not unknown:
        return
    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # registers its codecs with HDF5
    for code, name in unknown:
        if not h5py.h5z.filter_avail(code):
            raise DataError(
                f"{path}: dataset {dataset.name[1:]!r} is compressed with {name or 'a codec'} (HDF5 filter {code}), "
                "which is not installed here. Expected a codec of HDF5's own or of hdf5plugin: pip install "
                "'nenya[codecs]', or rewrite the file with h5repack -f GZIP=1."
            )


def _filters(dataset: h5py.Dataset) -> list[tuple[int, str]]:
    """Number and name of the filters that a chunk went through, in the order of writing."""
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(position) for position in range(properties.get_nfilters())]
    return [(code, name.decode(errors="replace")) for code, _, _, name in filters]


def _gzip_filters(dataset: h5py.Dataset) -> tuple[int, ...]:
    """The filters of a dataset that `ChunkReader` undoes itself; none where it had better not.

    Only with gzip, whose checksum tells a chunk that is not what it seems.
    """
    filters = tuple(code for code, _ in _filters(dataset))
    known = ((h5py.h5z.FILTER_DEFLATE,), (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE))
    return filters if filters in known and is_stored_plainly(dataset) else ()
