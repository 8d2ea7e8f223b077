"""The files in which a dataset's pixels lie: its own, or others that it names; all there, whole, and watched.

HDF5 itself takes no offence: of a source file that is missing or too short, and of an open one that is cut short, it
gives the fill value or zeros.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from nenya.data.attributes import Meaning, read_meaning, says_meaning
from nenya.data.bounds import num_bytes, require_plausible, require_sound_chunks, stored_bytes
from nenya.data.hdf5 import resolve_source
from nenya.data.meanings import Source, join
from nenya.data.opening import VDS_PREFIX, explain, locate, open_file, require_file
from nenya.data.virtual import MOST_PARTS, Part, cover_all, parts_of
from nenya.errors import DataError

_DEEPEST = 16  # virtual datasets of virtual datasets
_MOST_NAMED = 5  # missing sources in a message
_MOST_KEPT = 128  # plain files, besides those of HDF5
_SPARE_FILES = 8  # that HDF5 and others may open besides


Identity = tuple[int, int]  # file and place in it


class _Watched(NamedTuple):
    """A file that must not become shorter, nor another one.

    Attributes:
        name: Its path.
        place: Its descriptor; its path where HDF5 opens it anew for each look.
        size: Bytes that it must have.
        identity: Its device and number there, which no other file has while it is kept open.
    """

    name: str
    place: int | str
    size: int
    identity: tuple[int, int]


class Sources:
    """All files that hold a dataset's pixels, kept open.

    Args:
        dataset: An open dataset.
        path: The file by which it was found, for messages.

    Attributes:
        stored: Bytes that the files hold of it.
        meaning: What its attributes say of the stored numbers, or those of its sources where it is virtual.
        holders: The datasets that hold the pixels: itself, or those at the end of virtual ones.
        virtual: The parts of each virtual dataset, by its identity.

    Raises:
        DataError: A file or a dataset that it takes pixels from is missing or too short, or does not cover it all; the
            files hold far less than it declares; or attributes mean nothing, or contradict each other.
    """

    def __init__(self, dataset: h5py.Dataset, path: Path) -> None:
        self.stored = 0
        self._watched: dict[str, _Watched] = {}
        self._files: list[h5py.File] = []
        self._datasets: list[h5py.Dataset] = []  # as long as they are open, HDF5 keeps open what they refer to
        self._descriptors: list[int] = []
        self._close = weakref.finalize(self, _close_all, self._descriptors)
        self._meanings: dict[Identity, Meaning] = {}
        self.holders: list[h5py.Dataset] = []
        self.virtual: dict[Identity, list[tuple[Part, h5py.Dataset]]] = {}
        self.meaning = self._add(dataset, path, ())
        require_plausible(_described(dataset, path), num_bytes(dataset), self.stored)

    def keep_open(self) -> None:
        """Let HDF5 open all sources of virtual datasets now: one that it fails to open later would read as fill.

        Raises:
            DataError: So many files cannot be open at once, or HDF5 takes another one than was found.
        """
        for dataset in self._datasets:
            if parts := self.virtual.get(identity_of(dataset)):
                _require_spare_files(dataset)
                for part, source in parts:
                    _require_read(dataset, part, source)

    def require_whole(self) -> None:
        """Make sure, after reading, that no file has become shorter, or another one: HDF5 reads zeros beyond its end.

        Raises:
            OSError: One has.
        """
        for file in self._watched.values():
            found = os.stat(file.place)
            if (found.st_dev, found.st_ino) != file.identity:
                raise OSError(f"{file.name} was replaced by another file")
            if found.st_size < file.size:
                raise OSError(f"{file.name} was cut short: it has {found.st_size} bytes, of {file.size}")

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()
        self._close()

    def _add(self, dataset: h5py.Dataset, path: Path, within: tuple[Identity, ...]) -> Meaning:
        """Look at one dataset and at those that it is made of; what its numbers mean."""
        identity = identity_of(dataset)
        if identity in within or len(within) >= _DEEPEST:
            raise DataError(f"{_described(dataset, path)} takes its pixels from itself. Make the file anew.")
        if identity in self._meanings:
            return self._meanings[identity]
        self._datasets.append(dataset)
        self._watch(dataset.file)
        if dataset.is_virtual:
            self._meanings[identity] = self._add_virtual(dataset, path, (*within, identity))
            return self._meanings[identity]
        self._meanings[identity] = meaning = _meaning(dataset, path)
        self.holders.append(dataset)
        if dataset.external:
            self._add_raw(dataset, path)
        else:
            stored = stored_bytes(dataset)
            self.stored += stored
            require_plausible(_described(dataset, path), num_bytes(dataset), stored)
            if dataset.chunks:
                require_sound_chunks(_described(dataset, path), dataset)
        return meaning

    def _watch(self, file: h5py.File) -> None:
        name = os.fspath(file.filename)
        if name not in self._watched:
            place = file.id.get_vfd_handle() if file.driver == "sec2" else name
            found = os.stat(place)
            self._watched[name] = _Watched(name, place, found.st_size, (found.st_dev, found.st_ino))

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
                there = self._keep(place)
            except DataError as error:
                raise DataError(f"{found}: {error}") from error
            if there < offset + taken:
                raise DataError(f"{found}, which has {there} bytes of {offset + taken}. Copy or make it anew.")
            self.stored += taken

    def _keep(self, place: Path) -> int:
        """Keep a plain file open, so that one that takes its name later is told from it; its size.

        Raises:
            DataError: It cannot be opened.
        """
        if watched := self._watched.get(f"{place}"):
            return watched.size
        try:
            descriptor = os.open(place, os.O_RDONLY)
        except OSError as error:
            raise DataError(explain(place, error)) from error
        there = os.fstat(descriptor)
        if len(self._descriptors) < _MOST_KEPT:
            self._descriptors.append(descriptor)
        else:
            os.close(descriptor)
        self._watched[f"{place}"] = _Watched(f"{place}", f"{place}", there.st_size, (there.st_dev, there.st_ino))
        return there.st_size

    def _add_virtual(self, dataset: h5py.Dataset, path: Path, within: tuple[Identity, ...]) -> Meaning:
        """Pixels that are parts of other datasets; what they mean."""
        found = f"{_described(dataset, path)}, a virtual one,"
        parts: list[tuple[Part, h5py.Dataset]] = []
        missing: dict[str, str] = {}
        opened: dict[str, h5py.File] = {".": dataset.file}
        found_in: dict[tuple[str, str], tuple[h5py.Dataset, Path]] = {}  # many parts may be of one source
        origin = os.fspath(dataset.file.filename)
        for part in parts_of(dataset, lambda name: os.path.exists(locate(name, origin, VDS_PREFIX))):
            if len(parts) + len(missing) > MOST_PARTS:
                raise DataError(f"{found} has more than {MOST_PARTS} parts. Copy the pixels into one file.")
            try:
                name = part.file, part.dataset
                if name not in found_in:
                    found_in[name] = self._source(dataset, part, opened)
                source, place = found_in[name]
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
        meaning = join(_meaning(dataset, path), says_meaning(dataset), self._say(parts), found)
        if not cover_all(dataset.shape, [part for part, _ in parts]) and not meaning.is_gap(dataset.fillvalue):
            raise DataError(
                f"{found} is not covered by its {len(parts)} parts: the rest would read as {_fill(dataset)}. Make it "
                "anew with all sources, or shorter."
            )
        self.virtual[within[-1]] = parts
        return meaning

    def _say(self, parts: list[tuple[Part, h5py.Dataset]]) -> Iterator[Source]:
        """What the sources of a virtual dataset say of their numbers, each once."""
        for identity, (part, source) in {identity_of(source): (part, source) for part, source in parts}.items():
            meaning = self._meanings[identity]
            speaks = says_meaning(source) or not meaning.is_plain
            yield Source(f"{part.dataset!r} of {os.fspath(source.file.filename)}", meaning, speaks)

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


def _meaning(dataset: h5py.Dataset, path: Path) -> Meaning:
    """What a dataset's own attributes say; of what are no numbers, nothing."""
    return read_meaning(dataset, path) if dataset.dtype.kind in "fiub" else Meaning(dataset.dtype, dataset.dtype)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def identity_of(dataset: h5py.Dataset) -> Identity:
    """What tells a dataset from all others that are open, whatever it is called."""
    info = h5py.h5o.get_info(dataset.id)
    return int(info.fileno), int(info.addr)
