"""What a file declares and was never written: it reads as the fill value, which nothing tells from measurements.

HDF5 writes a dataset chunk by chunk, and notes which chunks there are.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.bounds import few, num_chunks
from nenya.data.sources import Sources, identity_of
from nenya.data.virtual import Part, Slab
from nenya.errors import DataError

logger = logging.getLogger(__name__)

_Indices = tuple[npt.NDArray[np.intp], ...]  # that are looked at, rising, along each axis
_Found = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]  # lacks something that is no gap; has something
_MOST_NAMED = 8


class Unwritten(NamedTuple):
    """Cutouts of which the file does not hold all.

    Attributes:
        whole: Of which nothing was ever written [N].
        partly: Of which some was not, and would read as a number that is not marked as missing [N].
        channels: Numbers of the channels that were never written in any cutout.
        fill: What they would read as.
    """

    whole: npt.NDArray[np.bool_]
    partly: npt.NDArray[np.bool_]
    channels: tuple[int, ...]
    fill: str

    @property
    def rows(self) -> npt.NDArray[np.bool_]:
        """Which of the cutouts must not be used [N]."""
        return self.whole | self.partly

    def say(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> str:
        """What of some of them is not there."""
        what = "parts of them were"
        if self.whole[rows].all():
            what = "they were"
        elif self.whole[rows].any():
            what = "they, or parts of them, were"
        elif self.channels:
            named = ", ".join(map(str, self.channels[:_MOST_NAMED]))
            what = f"channels {named} were" if len(self.channels) > 1 else f"channel {named} was"
        return f"{what} never written and would read as the fill value {self.fill}"


def find_unwritten(
    dataset: h5py.Dataset,
    sources: Sources,
    order: str = "N",
    is_gap: Callable[[object], bool] = lambda fill: False,
) -> Unwritten | None:
    """Find the cutouts of which the file, or the files that it takes pixels from, do not hold all.

    Args:
        dataset: Of cutouts, or of what belongs to each.
        sources: The files that hold it, open.
        order: The letters N (cutouts) and C (channels, where there is such an axis) among those of its axes.
        is_gap: Whether a fill value marks missing pixels, so that it does no harm.

    Returns:
        What was not written; None where all was, or where the files do not tell.
    """
    look = _Look(sources, is_gap)
    if not look.is_needed():
        return None
    region = tuple(np.arange(size) for size in dataset.shape)
    lacking, written = look.along(dataset, region, order.index("N"))
    if written.all() and not lacking.any():
        return None
    channels: tuple[int, ...] = ()
    if "C" in order:
        channels = tuple(np.flatnonzero(~look.along(dataset, region, order.index("C"))[1]).tolist())
    return Unwritten(~written, lacking & written, channels, look.fill)


def require_written(unwritten: Unwritten | None, found: str) -> None:
    """Make sure that something was written.

    Args:
        unwritten: What `find_unwritten` gives.
        found: What it is about, for the message.

    Raises:
        DataError: Nothing was, or of no cutout all.
    """
    if unwritten is None or not unwritten.rows.all():
        return
    count = len(unwritten.whole)
    if unwritten.whole.all():
        raise DataError(
            f"{found} was never written: all {count} cutouts would read as the fill value. Check how the file was made."
        )
    raise DataError(
        f"{found} has {count} cutouts, and none is whole: {unwritten.say(unwritten.rows)}. Check "
        f"how the file was made. If {unwritten.fill} marks missing pixels, declare it: "
        f'"missing": [{unwritten.fill}].'
    )


def written_only(rows: npt.NDArray[np.int64], unwritten: Unwritten | None, key: str) -> npt.NDArray[np.int64]:
    """Leave out the cutouts that were never written, or not as a whole, with a warning.

    Args:
        rows: Row numbers, rising.
        unwritten: What `find_unwritten` gives.
        key: Name of the dataset, for the message.
    """
    if unwritten is None or not (left_out := rows[unwritten.rows[rows]]).size:
        return rows
    logger.warning(
        "%s: %d of %d cutouts are left out (rows %s): %s",
        key,
        len(left_out),
        len(unwritten.whole),
        few(left_out),
        unwritten.say(left_out),
    )
    return rows[~unwritten.rows[rows]]


class _Look:
    """Looks for what was not written, through virtual datasets to those that hold pixels themselves."""

    def __init__(self, sources: Sources, is_gap: Callable[[object], bool]) -> None:
        self._sources = sources
        self._is_gap = is_gap
        self._grids: dict[tuple[int, int], npt.NDArray[np.bool_] | None] = {}
        self.fill = ""

    def is_needed(self) -> bool:
        """Whether anything at all was not written."""
        return any(_lacks_chunks(dataset) for dataset in self._sources.holders)

    def along(self, dataset: h5py.Dataset, region: _Indices, axis: int | None) -> _Found:
        """What lacks something, and what has something, for each index along an axis of a region.

        Args:
            dataset: The dataset.
            region: What of it is looked at.
            axis: The axis; None: of all of the region together [1].
        """
        parts = self._sources.virtual.get(identity_of(dataset))
        if parts is not None:
            return self._of_parts(dataset, parts, region, axis)
        count = 1 if axis is None else len(region[axis])
        grid = self._grid(dataset)
        if grid is None:
            return np.zeros(count, bool), np.ones(count, bool)
        lengths = dataset.chunks or dataset.shape
        chunks = [
            np.unique(indices // length, return_inverse=True) for indices, length in zip(region, lengths, strict=True)
        ]
        cells = grid[np.ix_(*(numbers for numbers, _ in chunks))]
        others = tuple(each for each in range(cells.ndim) if each != axis)
        lacking, written = (~cells).any(axis=others), cells.any(axis=others)
        if not written.all() or lacking.any():
            self.fill = self.fill or f"{dataset.fillvalue!s:.40}"
        if self._is_gap(dataset.fillvalue):
            lacking = np.zeros_like(lacking)
        if axis is None:
            return lacking.reshape(1), written.reshape(1)
        return lacking[chunks[axis][1]], written[chunks[axis][1]]

    def _of_parts(
        self, dataset: h5py.Dataset, parts: list[tuple[Part, h5py.Dataset]], region: _Indices, axis: int | None
    ) -> _Found:
        count = 1 if axis is None else len(region[axis])
        lacking, written = np.zeros(count, bool), np.zeros(count, bool)
        for part, source in parts:
            places, taken, pairs = _matched(part, dataset.shape, source.shape)
            chosen = [np.isin(place, indices) for place, indices in zip(places, region, strict=True)]
            if not all(some.any() for some in chosen):
                continue
            inner = list(taken)
            for mine, theirs in pairs.items():
                inner[theirs] = taken[theirs][chosen[mine]]
            here = pairs.get(axis) if axis is not None else None
            rows = [0] if axis is None else np.searchsorted(region[axis], places[axis][chosen[axis]])
            lacks, has = self.along(source, tuple(inner), here)
            lacking[rows] |= lacks
            written[rows] |= has
        return lacking, written

    def _grid(self, dataset: h5py.Dataset) -> npt.NDArray[np.bool_] | None:
        """Which chunks there are; None where all are."""
        identity = identity_of(dataset)
        if identity not in self._grids:
            self._grids[identity] = _stored(dataset) if _lacks_chunks(dataset) else None
        return self._grids[identity]


def _lacks_chunks(dataset: h5py.Dataset) -> bool:
    if dataset.external:
        return False
    if not dataset.chunks:
        return not dataset.id.get_storage_size()
    return int(dataset.id.get_num_chunks()) < math.prod(num_chunks(dataset))


def _stored(dataset: h5py.Dataset) -> npt.NDArray[np.bool_]:
    """Which chunks of a dataset are stored, along each axis; without chunks, its one piece."""
    if not dataset.chunks:
        return np.zeros((1,) * len(dataset.shape), bool)
    grid = np.zeros(num_chunks(dataset), bool)

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        place = tuple(at // length for at, length in zip(chunk.chunk_offset, dataset.chunks, strict=True))
        if all(at < size for at, size in zip(place, grid.shape, strict=True)):  # not so after it was made shorter
            grid[place] = True

    dataset.id.chunk_iter(note)
    return grid


def _matched(part: Part, shape: tuple[int, ...], source: tuple[int, ...]) -> tuple[_Indices, _Indices, dict[int, int]]:
    """Where a part lies, what is taken, and which axis of the one runs along which of the other.

    Axes of one element pair with none: a channel, or a cutout that is a dataset of its own. Where the pattern is not
    regular, everything is paired with everything.
    """
    whole = tuple(np.arange(size) for size in shape), tuple(np.arange(size) for size in source)
    if part.place is None or (part.source is None and part.needed is not None):
        return *whole, {}
    places = _listed(part.place, shape)
    taken = whole[1] if part.needed is None else _listed(part.source or (), source)
    long, others = ([axis for axis, found in enumerate(each) if len(found) > 1] for each in (places, taken))
    pairs = dict(zip(long, others, strict=False))
    if len(long) != len(others) or any(len(places[mine]) > len(taken[theirs]) for mine, theirs in pairs.items()):
        return places, taken, {}
    cut = {theirs: taken[theirs][: len(places[mine])] for mine, theirs in pairs.items()}
    return places, tuple(cut.get(axis, found) for axis, found in enumerate(taken)), pairs


def _listed(slabs: tuple[Slab, ...], shape: tuple[int, ...]) -> _Indices:
    found = []
    for slab, size in zip(slabs, shape, strict=True):
        indices = slab.indices(size)
        found.append(np.arange(size)[indices] if isinstance(indices, slice) else indices)
    return tuple(found)
