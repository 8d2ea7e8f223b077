"""The files in which a dataset's pixels lie: its own, or others that it names; all there, whole, and watched.

HDF5 itself takes no offence: of a source file that is missing or too short, and of an open one that is cut short, it
gives the fill value or zeros.
"""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from nenya.data.bounds import num_bytes, require_plausible, require_sound_chunks, stored_bytes
from nenya.data.hdf5 import resolve_source
from nenya.data.opening import VDS_PREFIX, explain, locate, open_file, require_file
from nenya.data.virtual import MOST_PARTS, Part, cover_all, parts_of
from nenya.errors import DataError

_DEEPEST = 16  # virtual datasets of virtual datasets
_MOST_NAMED = 5  # missing sources in a message
_SPARE_FILES = 8  # that HDF5 and others may open besides


class _Watched(NamedTuple):
    """A file that must not become shorter.

    Attributes:
        name: Its path.
        place: Its descriptor, or its path where it is not kept open.
        size: Bytes that it must have.
    """

    name: str
    place: int | str
    size: int


class Sources:
    """All files that hold a dataset's pixels, kept open.

    Args:
        dataset: An open dataset.
        path: The file by which it was found, for messages.

    Attributes:
        stored: Bytes that the files hold of it.

    Raises:
        DataError: A file or a dataset that it takes pixels from is missing or too short, or does not cover it all; or
            the files hold far less than it declares.
    """

    def __init__(self, dataset: h5py.Dataset, path: Path) -> None:
        self.stored = 0
        self._watched: dict[str, _Watched] = {}
        self._files: list[h5py.File] = []
        self._datasets: list[h5py.Dataset] = []  # as long as they are open, HDF5 keeps open what they refer to
        self._parts: list[tuple[h5py.Dataset, list[tuple[Part, h5py.Dataset]]]] = []
        self._seen: set[tuple[int, int]] = set()
        self._add(dataset, path, ())
        require_plausible(_described(dataset, path), num_bytes(dataset), self.stored)

    def keep_open(self) -> None:
        """Let HDF5 open all sources of virtual datasets now: one that it fails to open later would read as fill.

        Raises:
            DataError: So many files cannot be open at once, or HDF5 takes another one than was found.
        """
        for dataset, parts in self._parts:
            _require_spare_files(dataset)
            for part, source in parts:
                _require_read(dataset, part, source)

    def require_whole(self) -> None:
        """Make sure, after reading, that no file has become shorter: HDF5 reads zeros beyond its end.

        Raises:
            OSError: One has.
        """
        for file in self._watched.values():
            size = os.stat(file.place).st_size
            if size < file.size:
                raise OSError(f"{file.name} was cut short: it has {size} bytes, of {file.size}")

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()

    def _add(self, dataset: h5py.Dataset, path: Path, within: tuple[tuple[int, int], ...]) -> None:
        """Look at one dataset and at those that it is made of."""
        info = h5py.h5o.get_info(dataset.id)
        identity = int(info.fileno), int(info.addr)
        if identity in within or len(within) >= _DEEPEST:
            raise DataError(f"{_described(dataset, path)} takes its pixels from itself. Make the file anew.")
        if identity in self._seen:
            return
        self._seen.add(identity)
        self._datasets.append(dataset)
        self._watch(dataset.file)
        if dataset.is_virtual:
            self._add_virtual(dataset, path, (*within, identity))
        elif dataset.external:
            self._add_raw(dataset, path)
        else:
            stored = stored_bytes(dataset)
            self.stored += stored
            require_plausible(_described(dataset, path), num_bytes(dataset), stored)
            if dataset.chunks:
                require_sound_chunks(_described(dataset, path), dataset)

    def _watch(self, file: h5py.File) -> None:
        name = os.fspath(file.filename)
        if name not in self._watched:
            place = file.id.get_vfd_handle() if file.driver == "sec2" else name
            self._watched[name] = _Watched(name, place, os.stat(place).st_size)

    def _add_raw(self, dataset: h5py.Dataset, path: Path) -> None:
        """Pixels that lie in plain files, one part after the other: relative names are of the current folder."""
        left = num_bytes(dataset)
        prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "")
        prefix = prefix.replace("${ORIGIN}", os.path.dirname(os.path.abspath(dataset.file.filename)))
        for name, offset, size in dataset.external:
            taken = min(left, size)
            left -= taken
            place = Path(name) if os.path.isabs(name) else Path(prefix, name)
            found = f"{_described(dataset, path)} lies in the file {name!r} (external raw storage)"
            try:
                require_file(place, "restore it, start in its folder, or set HDF5_EXTFILE_PREFIX to that")
                there = os.stat(place).st_size
            except DataError as error:
                raise DataError(f"{found}: {error}") from error
            if there < offset + taken:
                raise DataError(f"{found}, which has {there} bytes of {offset + taken}. Copy or make it anew.")
            if not os.access(place, os.R_OK):
                raise DataError(f"{found}: {explain(place, PermissionError(errno.EACCES, ''))}")
            self.stored += taken
            self._watched[f"{place}"] = _Watched(f"{place}", f"{place}", there)

    def _add_virtual(self, dataset: h5py.Dataset, path: Path, within: tuple[tuple[int, int], ...]) -> None:
        """Pixels that are parts of other datasets."""
        found = f"{_described(dataset, path)}, a virtual one,"
        parts: list[tuple[Part, h5py.Dataset]] = []
        missing: dict[str, str] = {}
        opened: dict[str, h5py.File] = {".": dataset.file}
        origin = os.fspath(dataset.file.filename)
        for part in parts_of(dataset, lambda name: os.path.exists(locate(name, origin, VDS_PREFIX))):
            if len(parts) + len(missing) > MOST_PARTS:
                raise DataError(f"{found} has more than {MOST_PARTS} parts. Copy the pixels into one file.")
            try:
                source, place = self._source(dataset, part, opened)
                parts.append((_within(part, source, place), source))
                self._add(source, place, within)
            except DataError as error:
                missing.setdefault(f"{part.file}: {part.dataset}", str(error))
        if missing:
            more = f" And {len(missing) - _MOST_NAMED} more." if len(missing) > _MOST_NAMED else ""
            raise DataError(
                f"{found} takes pixels from others that are missing or not whole, and would read as {_fill(dataset)}: "
                f"{' '.join(list(missing.values())[:_MOST_NAMED])}{more}"
            )
        if not cover_all(dataset.shape, [part for part, _ in parts]) and not _fill_is_marked(dataset):
            raise DataError(
                f"{found} is not covered by its {len(parts)} parts: the rest would read as {_fill(dataset)}. Make it "
                "anew with all sources, or shorter."
            )
        self._parts.append((dataset, parts))

    def _source(self, dataset: h5py.Dataset, part: Part, opened: dict[str, h5py.File]) -> tuple[h5py.Dataset, Path]:
        """The dataset that a part is taken from, and its file."""
        place = locate(part.file, dataset.file.filename, VDS_PREFIX)
        if part.file == ".":
            place = Path(os.fspath(dataset.file.filename))
        elif part.file not in opened:
            opened[part.file] = open_file(place, "restore it, or set HDF5_VDS_PREFIX to the folder where it is")
            self._files.append(opened[part.file])
        return resolve_source(opened[part.file], part.dataset, place), place


def _within(part: Part, source: h5py.Dataset, path: Path) -> Part:
    """The part as its source fills it.

    Raises:
        DataError: The source is smaller than the part.
    """
    shape = source.shape or ()
    found = f"dataset {part.dataset!r} of {path} has shape {shape}"
    if part.needed is None:
        if math.prod(shape) != part.size:
            raise DataError(f"{found}; expected {part.size} elements.")
        return part
    if len(shape) != len(part.needed) or any(size < needed for size, needed in zip(shape, part.needed, strict=True)):
        raise DataError(f"{found}; expected {part.needed} or more.")
    return part.within(shape)


def _require_read(dataset: h5py.Dataset, part: Part, source: h5py.Dataset) -> None:
    """Read the first element of a part both ways, so that HDF5 opens the source.

    Raises:
        DataError: HDF5 gives the fill value where the source has another one.
    """
    first = part.first(len(source.shape))
    if first is None or not all(at < size for at, size in zip(first[0], dataset.shape, strict=True)):
        return
    found, expected = np.asarray(dataset[first[0]]), np.asarray(source[first[1]]).astype(dataset.dtype)
    fill = np.asarray(dataset.fillvalue)
    if np.array_equal(found, fill, equal_nan=True) and not np.array_equal(expected, fill, equal_nan=True):
        raise DataError(
            f"{os.fspath(dataset.file.filename)}: HDF5 does not find {part.dataset!r} of {part.file!r}, from which a "
            "virtual dataset takes pixels. Set HDF5_VDS_PREFIX to the folder where it is."
        )


def _require_spare_files(dataset: h5py.Dataset) -> None:
    """Make sure that some more files can be opened: HDF5 opens each anew, before it finds that it has it open.

    Raises:
        DataError: They cannot.
    """
    spare = []
    try:
        spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(_SPARE_FILES)]
    except OSError as error:
        raise DataError(explain(Path(os.fspath(dataset.file.filename)), error)) from error
    finally:
        for descriptor in spare:
            os.close(descriptor)


def _described(dataset: h5py.Dataset, path: Path) -> str:
    return f"{path}: dataset {(dataset.name or '').lstrip('/')!r}"


def _fill(dataset: h5py.Dataset) -> str:
    return f"{dataset.fillvalue!s:.40}"


def _fill_is_marked(dataset: h5py.Dataset) -> bool:
    """Whether pixels that are not there read as missing ones: NaN, or a value that the file's attributes name."""
    fill = np.asarray(dataset.fillvalue)
    if fill.dtype.kind == "f" and np.isnan(fill).all():
        return True
    marks = [dataset.attrs[name] for name in ("_FillValue", "missing_value") if name in dataset.attrs]
    return any(np.asarray(mark).dtype.kind in "fiu" and bool((np.asarray(mark) == fill).any()) for mark in marks)
