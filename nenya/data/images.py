"""Imagery as scientists have it: an HDF5 dataset of cutouts -> pixels ``[B, C, H, W]``, labels beside."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.attributes import declared
from nenya.data.axes import doubt, find_axes, scattered
from nenya.data.bounds import few
from nenya.data.chunks import ChunkReader
from nenya.data.codecs import require_codecs
from nenya.data.grids import require_cutouts
from nenya.data.hdf5 import contents, find_dataset, looking_into
from nenya.data.labels import read_labels
from nenya.data.opening import open_file
from nenya.data.pixels import Packing, is_usable, travelling_type
from nenya.data.pixels import ends as find_ends
from nenya.data.readers import Reader, open_reader
from nenya.data.sources import Sources
from nenya.data.unwritten import find_unwritten, require_written, written_only
from nenya.errors import DataError

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 2**20  # of raw pixels in memory at once while the file is looked through
_CHANGED = "The file was damaged, moved or replaced; check it with h5dump and start again with --resume."


class ImageFile:
    """One dataset of cutouts in an HDF5 file.

    A contiguous dataset is read cutout by cutout, a chunked one a chunk at a time; one of at most `cache_mb` is kept in
    memory as it is stored. The file opens on first use, once per process; a pickled `ImageFile` carries the path only.
    Any number of threads may read at once. What cannot be read is an error, never the end of the process, and never
    zeros in place of pixels.

    Missing pixels (NaN, infinite, equal to the dataset's ``_FillValue`` or ``missing_value`` attribute or to one of
    `missing`) become the mean of the channel's valid pixels in that cutout, NaN where it has none (no such cutout is
    `usable`). Attributes ``_Unsigned``, ``scale_factor`` and ``add_offset`` (NetCDF and CF packing) are applied, then
    `scale`.

    Args:
        path: The HDF5 file.
        key: The dataset: ``[N, H, W]`` or ``[N, C, H, W]``, or as `axes` says; any float or integer type.
        axes: The letters N, H, W and perhaps C in the order in which the axes lie in the file; None for the usual one.
            Where N is not the first of them, the dataset must fit into `cache_mb`.
        scale: Pixel values are multiplied by this.
        missing: Further marks of missing pixels, as the file stores them.
        max_nodata: Cutouts with a larger share of missing pixels, 0 to 1, or without a valid pixel in some channel,
            are not among `usable`.
        cache_mb: Largest dataset, in MB as stored in memory, that is kept there.
        num_threads: Threads that unpack chunks while the whole dataset is read: into memory, or for `usable`.

    Attributes:
        num_channels: C.
        height: H, pixels.
        width: W, pixels.
        dtype: Type of the stored pixels.
        num_bytes: Size of the dataset, as stored in memory.
        in_memory: Whether it is kept in memory.
        meaning: What the dataset's attributes say of the stored numbers.
        remarks: What is odd about attributes and shape, in words.
        packing: What the stored pixels mean: it makes float32 of those that `read_stored` gives.

    Raises:
        DataError: No such file, not HDF5, no such dataset, of wrong rank or type, empty, not whole (files that it takes
            pixels from are missing), a granule or a grid, of attributes that mean nothing, or packed by a codec that is
            not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        *,
        axes: str | None = None,
        missing: Sequence[float] = (),
        scale: float = 1.0,
        max_nodata: float = 0.5,
        cache_mb: int = 1024,
        num_threads: int = 1,
    ) -> None:
        self.path = Path(path)
        self.key = key
        self.scale = scale
        self.max_nodata = max_nodata
        self.num_threads = num_threads
        self._opened: tuple[int, Reader | None] = (-1, None)  # process and source
        self._usable: npt.NDArray[np.int64] | None = None
        self._ends: npt.NDArray[Any] | None = None  # [2, C]
        with looking_into(self.path) as file, contextlib.ExitStack() as stack:
            dataset = find_dataset(file, key, self.path)
            sources = stack.enter_context(contextlib.closing(Sources(dataset, self.path)))
            found = contents(dataset.file).datasets
            self._grid = require_cutouts(key, dataset, found, self.path, told=axes is not None)
            self._axes = find_axes(dataset, self.path, key, axes)
            self.shape = self._axes.shape_of(dataset.shape)
            require_codecs(dataset, self.path)
            self.dtype: np.dtype[Any] = dataset.dtype
            self.chunk_length: int | None = dataset.chunks[0] if dataset.chunks and self._axes.cutouts_first else None
            self.meaning = meaning = sources.meaning
            marks = meaning.marks + declared(missing, meaning, f"{self.path}: dataset {key!r}")
            is_gap = functools.partial(meaning.is_gap, marks=marks)
            self._unwritten = find_unwritten(dataset, sources, self._axes.order, is_gap)
            self.packing = Packing.of(
                meaning.dtype, marks, meaning.factor, meaning.offset, scale, unsigned_bits=meaning.unsigned_bits
            )
            self._travelling = travelling_type(self.dtype, meaning.dtype)
            odd = doubt(dataset, self.path) if axes is None else None
            self.remarks = meaning.remarks if odd is None else (*meaning.remarks, odd)
        _, self.num_channels, self.height, self.width = self.shape
        self.num_bytes = math.prod(self.shape) * self.dtype.itemsize
        self.in_memory = self.num_bytes <= cache_mb * 2**20
        if not (self.in_memory or self._axes.cutouts_first):
            raise scattered(self.path, key, self._axes, self.num_bytes, cache_mb)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_opened": (-1, None)}

    def __len__(self) -> int:
        """Number of cutouts in the file, usable or not."""
        return self.shape[0]

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Row numbers of the cutouts with few enough missing pixels, rising.

        The first call looks through the whole dataset, unless its type and attributes rule missing pixels out.

        Raises:
            DataError: No cutout is usable, or a part of the file cannot be read.
        """
        if self._usable is None:
            if self._grid is not None:
                logger.warning("%s: each field of the series %s is taken as a cutout", self.key, self._grid)
            require_written(self._unwritten, f"{self.path}: dataset {self.key!r}")
            rows, ends = self._look_through()
            self._usable = written_only(rows, self._unwritten, self.key)
            if ends is not None and len(self._usable):
                ends = ends[self._usable]
                self._ends = np.stack((ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)))
        return self._usable

    @property
    def ends(self) -> npt.NDArray[Any] | None:
        """Smallest and largest stored number of each channel of the usable cutouts [2, C]; None if none was looked at.

        Those that are not missing. Where the whole dataset is looked through, they cost a pass over what is read.
        """
        _ = self.usable  # the look that finds both
        return self._ends

    @property
    def num_left_out(self) -> int:
        """Number of cutouts that are not usable."""
        return len(self) - len(self.usable)

    @property
    def rows_per_read(self) -> int:
        """Number of cutouts that are stored together and cost as much to read as one of them.

        The length of a chunk; 1 where each can be read on its own: in memory, in one piece, in a chunk of its own.
        """
        return 1 if self.in_memory or self.chunk_length is None else self.chunk_length

    @property
    def is_chunked(self) -> bool:
        """Whether cutouts are read from the file in chunks, which may need unpacking."""
        return self.chunk_length is not None and not self.in_memory

    @property
    def row_bytes(self) -> int:
        """Size of a cutout as `read_stored` gives it."""
        return math.prod(self.shape[1:]) * self._travelling.itemsize

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read cutouts, gaps filled, scaled.

        Args:
            rows: Row numbers [B], any order, repetition allowed.

        Returns:
            Pixels [B, C, H, W], float32; always a new array.

        Raises:
            DataError: The file cannot be read any more.
        """
        pixels: npt.NDArray[np.float32] = self.to_float(torch.from_numpy(self.read_stored(rows))).numpy()
        return pixels

    def to_float(self, stored: Tensor) -> Tensor:
        """Make float32 of what `read_stored` gives: packing undone, gaps filled, scaled.

        Args:
            stored: Pixels as stored [B, C, H, W], on any device; not changed.

        Returns:
            [B, C, H, W], float32, on the same device; `stored` itself where there is nothing to do.
        """
        return self.packing.to_float(stored)

    def read_stored(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Read cutouts as they are stored, each chunk once.

        Args:
            rows: Row numbers [B], any order, repetition allowed.

        Returns:
            Pixels [B, C, H, W], in the file's type, native byte order; types that torch does not compute in are
            widened. Always a new array.

        Raises:
            DataError: The file cannot be read any more.
        """
        stored, parts = self._reading(rows)
        for part in parts:
            part()
        return self._arranged(stored)

    def begin_reading(self, rows: npt.NDArray[np.int64], threads: Executor) -> Callable[[], npt.NDArray[Any]]:
        """Let threads read cutouts as `read_stored` does, each chunk in one go.

        Args:
            rows: Row numbers [B], any order, repetition allowed.
            threads: They unpack the chunks.

        Returns:
            A function that waits until all are read and returns them; it raises what `read_stored` would.
        """
        stored, parts = self._reading(rows)
        futures = [threads.submit(part) for part in parts]

        def wait() -> npt.NDArray[Any]:
            for future in futures:
                future.result()
            return self._arranged(stored)

        return wait

    def labels(self, key: str) -> npt.NDArray[np.int64]:
        """Read the label of every cutout in the file.

        Args:
            key: Dataset of integers, [N] or [N, 1].

        Returns:
            Labels [N], int64.

        Raises:
            DataError: No such dataset, not integers, not one per cutout, or some are missing.
        """
        with looking_into(self.path) as file:
            dataset = find_dataset(file, key, self.path, wanted="labels")
            return read_labels(dataset, self.path, len(self), self.key)

    def _look_through(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any] | None]:
        """Rows with few enough missing pixels; smallest and largest number of each channel [N, 2, C], if looked at."""
        if not self.packing.may_miss:
            return np.arange(len(self)), None
        counts, ends = [], []
        for start, stop in self._blocks():
            stored = torch.from_numpy(self._read_block(start, stop))
            missing = self.packing.missing(stored)
            assert missing is not None
            counts.append(missing.sum(dim=(2, 3)).numpy())
            ends.append(torch.stack(find_ends(self.packing.numbers(stored), missing), dim=1).numpy())
        num_missing = np.concatenate(counts)  # [N, C]
        usable = np.flatnonzero(is_usable(num_missing, self.height * self.width, self.max_nodata))
        if not len(usable):
            share = num_missing.sum(axis=1) / np.prod(self.shape[1:])
            raise DataError(
                f"{self.path}: no cutout of {self.key!r} is usable: all {len(self)} miss more than max_nodata = "
                f"{self.max_nodata:g} of their pixels (the fullest misses {share.min():.0%}), or a whole channel. "
                "Raise max_nodata, or check the file."
            )
        if len(usable) < len(self):
            logger.warning(
                "%s: %d of %d cutouts are left out (rows %s): more than max_nodata = %g of their pixels are missing, "
                "or a whole channel is",
                self.key,
                len(self) - len(usable),
                len(self),
                few(np.setdiff1d(np.arange(len(self)), usable)),
                self.max_nodata,
            )
        return usable, np.concatenate(ends)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Row ranges that fit in memory and begin at a chunk's border."""
        unit = self.chunk_length or 1
        row_bytes = max(1, self.num_bytes // len(self))
        step = max(unit, _BLOCK_BYTES // row_bytes // unit * unit)
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))

    def _read_block(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read cutouts `start` to `stop`, which end at chunks' borders, as `read_stored` gives them."""
        with self._reads(lambda: f"{start} to {stop - 1}", "The file is damaged; copy or make it anew."):
            pixels = self._room(stop - start)
            self._source().read_run(start, stop, pixels, self.num_threads)
        return self._arranged(pixels)

    def _room(self, count: int) -> npt.NDArray[Any]:
        """An array for so many cutouts, each as it lies in the source."""
        frame = self._axes.frame_of(self.shape) if self._axes.cutouts_first else self.shape[1:]
        return np.empty((count, *frame), self._travelling)

    def _arranged(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Bring cutouts that were read one after another to [B, C, H, W]."""
        return self._axes.arrange(pixels) if self._axes.cutouts_first else pixels  # others are so in memory

    def _reading(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], list[Callable[[], None]]]:
        """An array for the pixels of `rows`, and the parts of the work that fill it, in any order."""
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        if len(rows) and rows.view(np.uint64).max() >= len(self):  # -1 is very large
            raise IndexError(f"rows {few(rows)} of {len(self)} cutouts")
        with self._reads(lambda: few(rows)):
            source = self._source()
            stored = self._room(len(rows))

        def checked(part: Callable[[], None]) -> None:
            with self._reads(lambda: few(rows)):
                part()

        return stored, [functools.partial(checked, part) for part in source.parts(rows, stored)]

    @contextlib.contextmanager
    def _reads(self, rows: Callable[[], str], advice: str = _CHANGED) -> Iterator[None]:
        """Say which rows could not be read."""
        found = f"{self.path}: dataset {self.key!r} cannot be read at rows"
        try:
            yield
        except MemoryError as error:
            raise DataError(
                f"{found} {rows()}: there is too little memory for it ({error}). Lower batch_size_train, window_mb or "
                "cache_mb."
            ) from error
        except (OSError, RuntimeError) as error:
            raise DataError(f"{found} {rows()}: {error}. {advice}") from error

    def _source(self) -> Reader:
        """The pixels: in memory, or in an open file; opened once per process."""
        pid, source = self._opened
        if source is None or pid != os.getpid():
            source = self._open_source()
            self._opened = os.getpid(), source  # in one step: other threads see all of it or nothing
        return source

    def _open_source(self) -> Reader:
        file = open_file(self.path)
        dataset = find_dataset(file, self.key, self.path)
        source = open_reader(
            dataset, self.path, in_memory=self.in_memory, num_threads=self.num_threads,
            arrange=None if self._axes.cutouts_first else self._axes.arrange,
        )  # fmt: skip
        if not isinstance(source, ChunkReader):  # which needs it
            file.close()
        return source
