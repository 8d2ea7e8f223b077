"""Bounds before work: what a file declares beside what it holds, and beside the memory there is."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import torch

from nenya.errors import DataError
from nenya.machine.memory import free_memory

#: Pixels that unpack to more than this are looked at, and refused where they are more than so many times the bytes
#: stored: one value over and over. Imagery compresses by a factor of 2 to 20; gzip cannot do better than 1,032.
LARGE = 256 * 2**20
MOST_FOLD = 500
#: So many chunks may be declared and never written; to ask for each of more takes minutes.
MOST_UNWRITTEN = 10**6
_SPARE = 2**16  # by which a stored chunk may be larger than its pixels, besides a fifth of them
_MOST_EXTENTS = 10_000
_COPIES = 4  # of a chunk or a cutout, while it is unpacked and converted beside the one in use


def num_bytes(dataset: h5py.Dataset) -> int:
    """Size of a dataset's pixels in memory, as stored."""
    return math.prod(dataset.shape or (0,)) * int(dataset.dtype.itemsize)


def chunk_bytes(dataset: h5py.Dataset) -> int:
    """Size of an unpacked chunk; 0 without chunks."""
    return math.prod(dataset.chunks) * int(dataset.dtype.itemsize) if dataset.chunks else 0


def stored_bytes(dataset: h5py.Dataset) -> int:
    """Bytes that the file holds of a dataset of its own, in chunks or in one piece.

    A file may have holes, which take no room on the disk and read as zeros.
    """
    stored = int(dataset.id.get_storage_size())
    offset = dataset.id.get_offset()
    if offset is None or stored <= LARGE:
        return stored
    return _without_holes(os.fspath(dataset.file.filename), offset, stored)


def _without_holes(path: str, offset: int, size: int) -> int:
    """Bytes of a piece of a file that are really there, as far as the system tells; at least enough of them."""
    if not hasattr(os, "SEEK_DATA"):
        return size
    there, place, end = 0, offset, offset + size
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return size
    try:
        for _ in range(_MOST_EXTENTS):
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
            if begin >= end or there * MOST_FOLD >= size:
                break
            place = os.lseek(descriptor, begin, os.SEEK_HOLE)
            there += min(place, end) - begin
    except OSError as error:
        return there if error.errno == errno.ENXIO else size  # no more data; or a file system that does not tell
    finally:
        os.close(descriptor)
    return there


def num_chunks(dataset: h5py.Dataset) -> list[int]:
    """Number of chunks along each axis, written or not."""
    return [-(-size // length) for size, length in zip(dataset.shape, dataset.chunks, strict=True)]


def require_plausible(found: str, unpacked: int, stored: int) -> None:
    """Make sure that a small file does not unpack to an enormous amount.

    Args:
        found: What it is about, for the message.
        unpacked: Bytes in memory.
        stored: Bytes in the file.

    Raises:
        DataError: It does.
    """
    if unpacked > LARGE and unpacked > MOST_FOLD * stored:
        raise DataError(
            f"{found} declares {in_words(unpacked)} of pixels, but {in_words(stored)} are stored: almost all of it was "
            "never written, or is one and the same value. Check how the file was made; write only what there is."
        )


def require_sound_chunks(found: str, dataset: h5py.Dataset) -> None:
    """Make sure that the stored chunks of a dataset can be what it declares.

    Raises:
        DataError: They unpack to an enormous amount, or are larger than what they unpack to.
    """
    count, stored, size = dataset.id.get_num_chunks(), dataset.id.get_storage_size(), chunk_bytes(dataset)
    declared = math.prod(num_chunks(dataset))
    if declared > MOST_UNWRITTEN and 2 * count < declared:
        raise DataError(
            f"{found} declares {declared} chunks, of which {count} were ever written. Check how the file was made; "
            "write only what there is, in chunks of a whole cutout or more."
        )
    require_plausible(found, count * size, stored)
    if stored > count * (1.2 * size + _SPARE):
        raise DataError(
            f"{found} has chunks of {in_words(size)} of pixels, stored in {in_words(stored // count)} each: packed, "
            "they cannot be larger. The file is damaged; copy or make it anew."
        )


def few(rows: npt.NDArray[np.int64]) -> str:
    """Row numbers for a message: the first of them."""
    shown = ", ".join(str(row) for row in rows[:8])
    return shown + (", ..." if len(rows) > 8 else "")


def require_memory(dataset: h5py.Dataset, path: Path, *, whole: bool) -> None:
    """Make sure that what has to be in memory at once fits.

    Args:
        dataset: Cutouts along its first axis.
        path: The file, for the message.
        whole: Whether all of it is kept in memory.

    Raises:
        DataError: It does not; the message says what takes how much.
    """
    free = free_memory(torch.device("cpu"))
    if free is None:
        return
    size, count = num_bytes(dataset), dataset.shape[0]
    needs = {
        f"chunks of shape {dataset.chunks}, each unpacked as a whole. Rewrite it with shorter ones (h5repack -l "
        "NAME:CHUNK=...)": _COPIES * chunk_bytes(dataset),
        f"cutouts of shape {dataset.shape[1:]}. Cut them smaller": _COPIES * size // count,
        "at most cache_mb, so that it is to stay in memory. Lower cache_mb": size if whole else 0,
    }
    for what, needed in needs.items():
        if needed > free:
            raise DataError(
                f"{path}: dataset {dataset.name.lstrip('/')!r} needs {in_words(needed)} of memory, and "
                f"{in_words(free)} are free here: it has {what}."
            )


def in_words(size: int) -> str:
    """A size for a message."""
    units = ("bytes", "KB", "MB", "GB", "TB", "PB", "EB")
    power = min(max(0, size.bit_length() - 1) // 10, len(units) - 1)
    return f"{size / 2 ** (10 * power):.4g} {units[power]}"
