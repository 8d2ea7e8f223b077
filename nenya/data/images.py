"""Imagery as scientists have it: an HDF5 dataset of cutouts -> float32 ``[B, C, H, W]``, gaps filled, labels beside."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.errors import DataError

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 64 * 2**20  # of raw pixels in memory at once while the file is looked through
_FILL_ATTRIBUTES = ("_FillValue", "missing_value")


class ImageFile:
    """One dataset of cutouts in an HDF5 file.

    A contiguous dataset is memory-mapped, a chunked one read a chunk at a time; one of at most `cache_mb` is kept in
    memory as it is stored. The file opens on first use, once per process; a pickled `ImageFile` carries the path only.

    Missing pixels (NaN, infinite, or equal to the dataset's ``_FillValue`` or ``missing_value`` attribute) become the
    mean of the channel's valid pixels in that cutout. Attributes ``scale_factor`` and ``add_offset`` (CF packing) are
    applied, then `scale`.

    Args:
        path: The HDF5 file.
        key: The dataset: ``[N, H, W]`` or ``[N, C, H, W]``, any float or integer type.
        scale: Pixel values are multiplied by this.
        max_nodata: Cutouts with a larger share of missing pixels, 0 to 1, or without a valid pixel in some channel,
            are not among `usable`.
        cache_mb: Largest dataset, in MB as stored in memory, that is kept there.

    Attributes:
        num_channels: C.
        height: H, pixels.
        width: W, pixels.
        dtype: Type of the stored pixels.
        num_bytes: Size of the dataset, as stored in memory.
        in_memory: Whether it is kept in memory.

    Raises:
        DataError: No such file, not HDF5, no such dataset, of wrong rank or type, or empty.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: str,
        *,
        scale: float = 1.0,
        max_nodata: float = 0.5,
        cache_mb: int = 1024,
    ) -> None:
        self.path = Path(path)
        self.key = key
        self.scale = scale
        self.max_nodata = max_nodata
        self._opened: tuple[int, npt.NDArray[Any] | h5py.Dataset | None] = (-1, None)  # process and source
        self._usable: npt.NDArray[np.int64] | None = None
        with _open(self.path) as file:
            dataset = _find(file, key, self.path)
            self.shape = _cutout_shape(dataset, self.path, key)
            self.dtype: np.dtype[Any] = dataset.dtype
            self.chunk_length: int | None = dataset.chunks[0] if dataset.chunks else None
            self._fill = [number for name in _FILL_ATTRIBUTES for number in _numbers(dataset, name, self.path)]
            self._factor = _number(dataset, "scale_factor", self.path, default=1.0)
            self._offset = _number(dataset, "add_offset", self.path, default=0.0)
        _, self.num_channels, self.height, self.width = self.shape
        self.num_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.in_memory = self.num_bytes <= cache_mb * 2**20

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
            self._usable = self._look_through()
        return self._usable

    @property
    def num_left_out(self) -> int:
        """Number of cutouts that are not usable."""
        return len(self) - len(self.usable)

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Read cutouts, gaps filled, scaled.

        Args:
            rows: Row numbers [B], any order, repetition allowed.

        Returns:
            Pixels [B, C, H, W], float32; always a new array.

        Raises:
            DataError: The file cannot be read any more.
        """
        try:
            return self._to_float(self._read_stored(np.asarray(rows)))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.path}: dataset {self.key!r} cannot be read at rows {_few(rows)}: {error}. "
                "The file was damaged, moved or replaced; check it with h5dump and start again with --resume."
            ) from error

    def labels(self, key: str) -> npt.NDArray[np.int64]:
        """Read the label of every cutout in the file.

        Args:
            key: Dataset of integers, [N] or [N, 1].

        Returns:
            Labels [N], int64.

        Raises:
            DataError: No such dataset, not integers, or not one per cutout.
        """
        with _open(self.path) as file:
            dataset = _find(file, key, self.path, wanted="labels")
            found = f"{self.path}: labels {key!r} are {dataset.dtype} of shape {dataset.shape}"
            if dataset.dtype.kind not in "iub":
                raise DataError(f"{found}; expected integers. Number the classes 0, 1, 2, ...")
            if dataset.shape not in ((len(self),), (len(self), 1)):
                raise DataError(f"{found}; expected ({len(self)},), one for each cutout of {self.key!r}.")
            labels = np.asarray(dataset[...], dtype=np.int64).reshape(-1)
        if labels.min() < 0:
            raise DataError(
                f"{found}; {(labels < 0).sum()} of them are negative. Expected classes 0, 1, 2, ...: cutouts without a "
                "label would count as one more class, so leave them out."
            )
        return labels

    def _to_float(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        missing = self._missing(stored)
        # float64 only where packing needs it: a float32 product would round values near 300 K to a few 1e-5 K
        packed = (self._factor, self._offset, self.scale) != (1.0, 0.0, 1.0)
        values = (stored.astype(np.float64) * self._factor + self._offset) * self.scale if packed else stored
        with np.errstate(over="ignore"):  # what is beyond float32's range is missing
            pixels = values.astype(np.float32)
        if missing is not None and missing.any():
            _fill_with_mean(pixels, missing)
        return pixels

    def _missing(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
        """Mask of missing pixels, or None where the type and the attributes rule them out."""
        is_float = self.dtype.kind == "f"
        if not is_float and not self._fill:
            return None
        with np.errstate(over="ignore"):  # a float64 beyond float32's range is no measurement either
            missing = ~np.isfinite(stored.astype(np.float32)) if is_float else np.zeros(stored.shape, dtype=bool)
        for value in self._fill:
            missing |= stored == (self.dtype.type(value) if is_float else value)
        return missing

    def _look_through(self) -> npt.NDArray[np.int64]:
        if self.dtype.kind != "f" and not self._fill:
            return np.arange(len(self))
        shares, empty_channel = [], []
        for start, stop in self._blocks():
            missing = self._missing(self._read_block(start, stop))
            assert missing is not None
            shares.append(missing.mean(axis=(1, 2, 3)))  # in one go: a mean of means is off by a rounding
            empty_channel.append(np.any(missing.all(axis=(2, 3)), axis=1))
        share = np.concatenate(shares)
        usable = np.flatnonzero((share <= self.max_nodata) & ~np.concatenate(empty_channel))
        if not len(usable):
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
                _few(np.setdiff1d(np.arange(len(self)), usable)),
                self.max_nodata,
            )
        return usable

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Row ranges that fit in memory and begin at a chunk's border."""
        unit = self.chunk_length or 1
        row_bytes = max(1, self.num_bytes // len(self))
        step = max(unit, _BLOCK_BYTES // row_bytes // unit * unit)
        for start in range(0, len(self), step):
            yield start, min(start + step, len(self))

    def _read_block(self, start: int, stop: int) -> npt.NDArray[Any]:
        try:
            pixels = self._source()[start:stop]
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.path}: dataset {self.key!r} cannot be read at rows {start} to {stop - 1}: {error}. "
                "The file is damaged; copy or make it anew."
            ) from error
        return np.asarray(pixels).reshape(stop - start, *self.shape[1:])

    def _read_stored(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        source = self._source()
        if isinstance(source, np.ndarray):
            return source[rows].reshape(len(rows), *self.shape[1:])
        # Decompression works on whole chunks: touch each once and pick all rows that lie in it.
        length = self.chunk_length or 1
        stored = np.empty((len(rows), *source.shape[1:]), self.dtype)
        for chunk in np.unique(rows // length):
            places = np.flatnonzero(rows // length == chunk)
            start = int(chunk) * length
            stored[places] = source[start : start + length][rows[places] - start]
        return stored.reshape(len(rows), *self.shape[1:])

    def _source(self) -> npt.NDArray[Any] | h5py.Dataset:
        """The pixels: in memory, memory-mapped, or as an open dataset; opened once per process."""
        pid, source = self._opened
        if source is None or pid != os.getpid():
            source = self._open_source()
            self._opened = os.getpid(), source  # in one step: other threads see all of it or nothing
        return source

    def _open_source(self) -> npt.NDArray[Any] | h5py.Dataset:
        file = _open(self.path)
        dataset = _find(file, self.key, self.path)
        pixels = dataset[...] if self.in_memory else _memory_map(dataset, self.path)
        if pixels is None:
            return dataset  # which keeps the file open
        file.close()
        return pixels


def dataset_names(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The datasets of an HDF5 file and their shapes, by full name without the leading slash.

    Raises:
        DataError: No such file, or not HDF5.
    """
    with _open(Path(path)) as file:
        return _names(file)


def has_dataset(path: str | os.PathLike[str], key: str) -> bool:
    """Whether an HDF5 file has a dataset under a key, links included.

    Raises:
        DataError: No such file, or not HDF5.
    """
    with _open(Path(path)) as file:
        return isinstance(file.get(key), h5py.Dataset) if key else False


def _names(file: h5py.File) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names[name] = item.shape

    file.visititems(note)
    return names


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise DataError(f"no image file at {path.absolute()}: check images_file and data_folder.")
    if path.is_dir():
        raise DataError(f"{path.absolute()} is a folder; expected an HDF5 file: check images_file.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        kind = "a damaged HDF5 file" if _has_signature(path) else "not an HDF5 file"
        raise DataError(f"{path.absolute()} cannot be opened: {kind} ({error}).") from error


def _has_signature(path: Path) -> bool:
    try:
        return bool(h5py.is_hdf5(path))
    except OSError:
        return False


def _find(file: h5py.File, key: str, path: Path, wanted: str = "cutouts") -> h5py.Dataset:
    item = file.get(key) if key else None
    if isinstance(item, h5py.Dataset):
        return item
    there = ", ".join(f"{name} {shape}" for name, shape in _names(file).items()) or "no datasets at all"
    what = "is a group, not a dataset" if isinstance(item, h5py.Group) else "is not there"
    option = "train_key or valid_key" if wanted == "cutouts" else "label_key (a name with {key} in it serves both sets)"
    raise DataError(f"{path}: dataset {key!r} for the {wanted} {what}. The file holds: {there}. Set {option}.")


def _cutout_shape(dataset: h5py.Dataset, path: Path, key: str) -> tuple[int, int, int, int]:
    """Check rank, type and size; return (N, C, H, W)."""
    shape: tuple[int, ...] = dataset.shape or ()
    found = f"{path}: dataset {key!r} is {dataset.dtype} of shape {shape}"
    if dataset.dtype.kind not in "fiub":
        raise DataError(f"{found}; expected float or integer pixels.")
    if len(shape) not in (3, 4):
        raise DataError(f"{found}; expected [N, H, W] or [N, C, H, W].")
    if 0 in shape:
        raise DataError(f"{found}: it holds no pixels. Check how the file was made.")
    count, channels, height, width = shape if len(shape) == 4 else (shape[0], 1, *shape[1:])
    if width <= 4 < min(channels, height) or width <= 16 < height == channels:
        raise DataError(f"{found}, which looks like [N, H, W, C]; expected [N, C, H, W]: move the channels forward.")
    if min(height, width) < 4:
        raise DataError(f"{found}: cutouts of {height} x {width} pixels are too small; expected at least 4 x 4.")
    return count, channels, height, width


def _memory_map(dataset: h5py.Dataset, path: Path) -> npt.NDArray[Any] | None:
    """Map an uncompressed contiguous dataset; None where its bytes do not lie in the file in one piece."""
    if dataset.chunks is not None or dataset.external is not None or dataset.is_virtual:
        return None
    offset = dataset.id.get_offset()
    if offset is None:  # compact layout, or space that was never written
        return None
    mapped: npt.NDArray[Any] = np.memmap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
    return mapped


def _fill_with_mean(pixels: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_]) -> None:
    """Replace missing pixels by the mean of the channel's valid pixels, in place (the array is the caller's own)."""
    valid = np.where(missing, 0.0, pixels.astype(np.float64))
    count = np.maximum((~missing).sum(axis=(2, 3)), 1)
    mean = (valid.sum(axis=(2, 3)) / count).astype(np.float32)
    np.copyto(pixels, mean[:, :, None, None], where=missing)


def _numbers(dataset: h5py.Dataset, name: str, path: Path) -> list[float]:
    """The numbers in an attribute, which files store as a scalar or as an array; none where it is not there."""
    if name not in dataset.attrs:
        return []
    value = dataset.attrs[name]
    try:
        return [float(number) for number in np.asarray(value).reshape(-1)]
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: dataset {dataset.name[1:]!r}: attribute {name} is {value!r}; expected a number. "
            "Correct or remove it."
        ) from error


def _number(dataset: h5py.Dataset, name: str, path: Path, default: float) -> float:
    """The one number in an attribute."""
    numbers = _numbers(dataset, name, path) or [default]
    if len(numbers) > 1:
        raise DataError(
            f"{path}: dataset {dataset.name[1:]!r}: attribute {name} has {len(numbers)} values; expected one."
        )
    return numbers[0]


def _few(rows: npt.NDArray[np.int64]) -> str:
    shown = ", ".join(str(row) for row in rows[:8])
    return shown + (", ..." if len(rows) > 8 else "")
