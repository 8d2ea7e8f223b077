"""Chunks packed by gzip, unpacked by a faster library than the one in HDF5, where it is installed.

Most granules are packed so, and unpacking is most of the time that they take. ISA-L unpacks the same format in about
half the time.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data import codecs
from nenya.data.codecs import is_stored_plainly

Array = npt.NDArray[Any]
Index = tuple[slice | int, ...]

_DEFLATE, _SHUFFLE = 1, 2  # numbers of HDF5's filters


def reader(dataset: h5py.Dataset) -> Callable[[Index], Array] | None:
    """A function that reads parts of a dataset as indexing does; None where HDF5 has to do it itself.

    Args:
        dataset: An open dataset.
    """
    inflate = _inflate()
    if inflate is None or dataset.chunks is None or dataset.dtype.kind not in "iuf" or not is_stored_plainly(dataset):
        return None
    filters = [code for code, _ in codecs.filters_of(dataset)]
    if filters not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]):
        return None
    return functools.partial(_read, dataset, inflate, filters[0] == _SHUFFLE)


@functools.cache
def _inflate() -> Callable[[bytes, int], bytes] | None:
    try:
        library = importlib.import_module("isal.isal_zlib")
    except ImportError:
        return None
    return functools.partial(codecs.inflate, library=library)


def _read(dataset: h5py.Dataset, inflate: Callable[[bytes, int], bytes], shuffled: bool, index: Index) -> Array:
    """Read a part: slices of step 1, or whole numbers, which drop their axis."""
    chunk = dataset.chunks
    starts = [part if isinstance(part, int) else part.indices(length)[0]
              for part, length in zip(index, dataset.shape, strict=True)]  # fmt: skip
    stops = [part + 1 if isinstance(part, int) else part.indices(length)[1]
             for part, length in zip(index, dataset.shape, strict=True)]  # fmt: skip
    found = np.empty([max(0, stop - start) for start, stop in zip(starts, stops, strict=True)], dataset.dtype)
    grid = [range(start // side * side, stop, side) for start, stop, side in zip(starts, stops, chunk, strict=True)]
    for corner in itertools.product(*grid):
        within = tuple(
            slice(max(start - first, 0), min(stop - first, side))
            for start, stop, first, side in zip(starts, stops, corner, chunk, strict=True)
        )
        target = tuple(
            slice(first + part.start - start, first + part.stop - start)
            for start, first, part in zip(starts, corner, within, strict=True)
        )
        found[target] = _chunk(dataset, inflate, shuffled, corner)[within]
    result: Array = found[tuple(0 if isinstance(part, int) else slice(None) for part in index)]
    return result


def _chunk(
    dataset: h5py.Dataset, inflate: Callable[[bytes, int], bytes], shuffled: bool, corner: tuple[int, ...]
) -> npt.NDArray[Any]:
    info = dataset.id.get_chunk_info_by_coord(corner)
    if info.byte_offset is None or info.filter_mask:  # never written, or written without a filter
        part = tuple(slice(first, first + side) for first, side in zip(corner, dataset.chunks, strict=True))
        whole = np.empty(dataset.chunks, dataset.dtype)
        there = dataset[part]
        whole[tuple(slice(0, length) for length in there.shape)] = there
        return whole
    size = dataset.dtype.itemsize
    num_bytes = size * math.prod(dataset.chunks)
    try:
        plain = np.frombuffer(inflate(dataset.id.read_direct_chunk(corner)[1], num_bytes), np.uint8)
    except Exception as error:  # the library's own kinds of error
        raise OSError(f"a chunk of {dataset.name} cannot be unpacked: {error}") from error
    if plain.size != num_bytes:
        raise OSError(f"a chunk of {dataset.name} has {plain.size} bytes, which is not its size")
    if shuffled and size > 1:
        planes = plain.reshape(size, -1)
        plain = np.empty((planes.shape[1], size), np.uint8)
        for place in range(size):
            plain[:, place] = planes[place]
    values: npt.NDArray[Any] = plain.reshape(-1).view(dataset.dtype).reshape(dataset.chunks)
    return values
