"""Readers of cutouts: from memory, from one piece of a file, or from chunks. All are used alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.bounds import require_memory
from nenya.data.chunks import ChunkReader
from nenya.data.codecs import require_codecs
from nenya.data.contiguous import ContiguousReader
from nenya.data.sources import Sources


class Reader(Protocol):
    """What reads cutouts, for any number of threads at once."""

    def parts(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[Any]) -> list[Callable[[], None]]:
        """The work of reading cutouts.

        Args:
            rows: Row numbers [B], any order, repetition allowed.
            pixels: Where they go [B, ...], of any type that holds them; contiguous.

        Returns:
            Functions that do a part of it each, in any order; they raise OSError where the file cannot be read.
        """

    def read_run(self, start: int, stop: int, pixels: npt.NDArray[Any], num_threads: int = 1) -> None:
        """Read cutouts that follow each other.

        Args:
            start: The first, at a chunk's border.
            stop: One more than the last, at a chunk's border or the end.
            pixels: Where they go [stop - start, ...], of any type that holds them; contiguous.
            num_threads: Threads that unpack chunks.

        Raises:
            OSError: The file cannot be read.
        """


class MemoryReader:
    """Takes cutouts from memory: a `Reader`.

    Args:
        pixels: All of them [N, ...].
    """

    def __init__(self, pixels: npt.NDArray[Any]) -> None:
        self.pixels = pixels

    def parts(self, rows: npt.NDArray[np.int64], pixels: npt.NDArray[Any]) -> list[Callable[[], None]]:
        """As `Reader.parts`."""

        def pick() -> None:
            pixels[...] = self.pixels[rows].reshape(pixels.shape)

        return [pick]

    def read_run(self, start: int, stop: int, pixels: npt.NDArray[Any], num_threads: int = 1) -> None:
        """As `Reader.read_run`."""
        pixels[...] = self.pixels[start:stop].reshape(pixels.shape)


def read_all(dataset: h5py.Dataset, path: Path) -> npt.NDArray[Any]:
    """Read a whole dataset of one axis or more, as stored; as `open_reader`."""
    reader = open_reader(dataset, path, in_memory=True, num_threads=1)
    assert isinstance(reader, MemoryReader)
    return reader.pixels


def open_reader(
    dataset: h5py.Dataset,
    path: Path,
    *,
    in_memory: bool,
    num_threads: int,
    arrange: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None,
) -> Reader:
    """Make the reader that fits a dataset.

    Args:
        dataset: Of an open file, which may be closed after; cutouts along the first axis, but for `arrange`.
        path: The file by which it was found, for messages.
        in_memory: Whether to keep all of it in memory.
        num_threads: Threads that unpack chunks while all of it is read.
        arrange: Brings the cutouts to the first axis, where they are along another one; only for what is in memory.

    Raises:
        DataError: A file with pixels of it is missing or too short, a codec is not installed, or memory is too small.
        OSError: It cannot be read.
    """
    require_codecs(dataset, path)
    sources = Sources(dataset, path)
    require_memory(dataset, path, whole=in_memory)
    reader: ContiguousReader | ChunkReader | None = ContiguousReader.of(dataset)
    if reader is None:
        sources.keep_open()
        reader = ChunkReader(dataset, sources)
    if not in_memory:
        assert arrange is None  # their cutouts would be spread over the whole file
        return reader
    pixels = np.empty(dataset.shape, dataset.dtype)
    reader.read_run(0, len(pixels), pixels, num_threads)
    sources.close()
    return MemoryReader(pixels if arrange is None else arrange(pixels))
