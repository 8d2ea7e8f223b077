"""Virtual datasets: of which parts of which files one is made up, and whether they are all of it.

Source: the HDF5 reference manual, H5Pset_virtual, and the RFC "HDF5 Virtual Dataset".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

MOST_PARTS = 100_000
_LONGEST_GAP = 16  # numbers of source files behind the last that are looked for
_MOST_CELLS = 2 * 10**7  # of the map that shows gaps


@dataclass(frozen=True)
class Slab:
    """Indices along one axis: `count` blocks, `stride` apart; a count of None goes on without end."""

    start: int
    stride: int
    count: int | None
    block: int

    @property
    def end(self) -> int | None:
        """One more than the last index."""
        return None if self.count is None else self.start + (self.count - 1) * self.stride + self.block

    def cut(self, size: int) -> Slab:
        """The blocks that begin before an axis of `size` ends."""
        begun = max(0, -(-(size - self.start) // self.stride))
        return replace(self, count=begun if self.count is None else min(begun, self.count))

    def indices(self, size: int) -> slice | npt.NDArray[np.intp]:
        """Those that lie within an axis of `size`."""
        slab = self.cut(size)
        assert slab.count is not None
        if slab.count <= 1 or slab.stride == slab.block:
            return slice(slab.start, min(size, slab.start + slab.count * slab.block))
        starts = slab.start + slab.stride * np.arange(slab.count)
        found = (starts[:, None] + np.arange(slab.block)).reshape(-1)
        return found[found < size]

    def fills(self, size: int) -> bool:
        """Whether they are all of an axis of `size`."""
        found = self.indices(size)
        return found.start == 0 and found.stop == size if isinstance(found, slice) else len(found) == size


class Part(NamedTuple):
    """A part of a virtual dataset.

    Attributes:
        file: The source file as it is named, "." for the virtual dataset's own.
        dataset: The source dataset.
        place: Where the part lies in the virtual dataset, for each axis; None where it is no regular pattern.
        source: What is taken of the source dataset, for each axis; None where it is no regular pattern.
        needed: The smallest shape of the source dataset that holds all that is taken; None where all of it is taken,
            whatever its shape.
        size: Number of elements; None where that depends on the source dataset.
    """

    file: str
    dataset: str
    place: tuple[Slab, ...] | None
    source: tuple[Slab, ...] | None
    needed: tuple[int, ...] | None
    size: int | None

    def within(self, shape: tuple[int, ...]) -> Part:
        """The part as far as a source dataset of a shape, whose length may be open, fills it."""
        if self.place is None or self.source is None or all(slab.count is not None for slab in self.place):
            return self
        taken = [_length(slab, size) for slab, size in zip(self.source, shape, strict=True) if slab.count is None]
        place = tuple(
            slab if slab.count is not None else replace(slab, count=-(-sum(taken) // slab.block)) for slab in self.place
        )
        return self._replace(place=place)

    def first(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The first element of the part, in the virtual dataset and in a source dataset with so many axes."""
        if self.place is None or (self.source is None and self.needed is not None):
            return None
        taken = (0,) * rank if self.needed is None else tuple(slab.start for slab in self.source or ())
        return tuple(slab.start for slab in self.place), taken


def parts_of(dataset: h5py.Dataset, exists: Callable[[str], bool]) -> Iterator[Part]:
    """The parts of a virtual dataset, those without end as far as it reaches.

    Of numbered source files HDF5 takes those before the first that is missing, and the dataset ends there. Here it
    reaches as far as it did when it was made, or as there are files close behind the gap.

    Args:
        dataset: A virtual dataset, whose shape was not asked for yet: HDF5 forgets then with what shape it was made.
        exists: Whether there is a source file of a name.

    Yields:
        Its parts.
    """
    mappings = dataset.virtual_sources()
    shapes = [mapping.vspace.shape for mapping in mappings if len(mapping.vspace.shape)]
    reach = tuple(map(max, zip(*shapes, dataset.shape, strict=True))) if shapes else dataset.shape
    for mapping in mappings:
        if mapping.vspace.get_select_type() == h5py.h5s.SEL_NONE:
            continue
        place, source = _slabs(mapping.vspace), _slabs(mapping.src_space)
        needed: tuple[int, ...] | None
        if mapping.src_space.get_select_type() == h5py.h5s.SEL_ALL:
            needed = None
        elif source is None:
            needed = tuple(last + 1 for last in mapping.src_space.get_select_bounds()[1])
        else:
            needed = tuple(slab.end or 0 for slab in source)
        endless = place is not None and any(slab.count is None for slab in place)
        size = None if endless else mapping.vspace.get_select_npoints()
        part = Part(mapping.file_name, mapping.dset_name, place, source, needed, size)
        if endless and (_is_pattern(part.file) or _is_pattern(part.dataset)):
            yield from _blocks(part, reach, exists)
        else:
            yield part._replace(file=_named(part.file, 0), dataset=_named(part.dataset, 0))


def _slabs(space: h5py.h5s.SpaceID) -> tuple[Slab, ...] | None:
    """What is selected, axis by axis; None where it is no regular pattern."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return tuple(Slab(0, 1, 1, size) for size in space.shape)
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    slabs = []
    for start, stride, count, block in zip(*space.get_regular_hyperslab(), strict=True):
        if h5py.h5s.UNLIMITED in (count, block):
            slabs.append(Slab(start, 1, None, 1) if block == h5py.h5s.UNLIMITED else Slab(start, stride, None, block))
        else:
            slabs.append(Slab(start, stride, count, block))
    return tuple(slabs)


def _is_pattern(name: str) -> bool:
    return bool(re.search(r"%b", name.replace("%%", "")))


def _named(name: str, block: int) -> str:
    """A source's name, whose ``%b`` stands for the number of a block."""
    return re.sub(r"%[%b]", lambda found: "%" if found[0] == "%%" else str(block), name)


def _blocks(part: Part, reach: tuple[int, ...], exists: Callable[[str], bool]) -> Iterator[Part]:
    """The parts of a pattern of names: one for each block."""
    assert part.place is not None
    axis = next(axis for axis, slab in enumerate(part.place) if slab.count is None)
    slab = part.place[axis]
    count = slab.cut(reach[axis]).count or 0
    if _is_pattern(part.file):
        behind = range(count + 1, count + _LONGEST_GAP + 1)
        count = next((number + 1 for number in reversed(behind) if exists(_named(part.file, number))), count)
    for number in range(count):
        place = (*part.place[:axis], Slab(slab.start + number * slab.stride, 1, 1, slab.block), *part.place[axis + 1 :])
        size = math.prod((each.count or 0) * each.block for each in place)
        yield part._replace(
            file=_named(part.file, number), dataset=_named(part.dataset, number), place=place, size=size
        )


def _length(slab: Slab, size: int) -> int:
    """How many indices of a slab without end lie within an axis of `size`."""
    found = slab.indices(size)
    return max(0, found.stop - found.start) if isinstance(found, slice) else len(found)


def cover_all(shape: tuple[int, ...], parts: Sequence[Part]) -> bool:
    """Whether every element of a virtual dataset lies in one of its parts.

    Where parts are of no regular pattern, or too small for a map of them, their sizes are added up.

    Args:
        shape: Of the virtual dataset.
        parts: Its parts, each within its source dataset.
    """
    places = [part.place for part in parts if part.place is not None]
    cut = [axis for axis, size in enumerate(shape) if not all(place[axis].fills(size) for place in places)]
    sizes = [shape[axis] for axis in cut]
    if len(places) < len(parts) or math.prod(sizes) > _MOST_CELLS:
        return sum(_size(part, shape) for part in parts) >= math.prod(shape)
    covered = np.zeros(sizes, bool)  # without an axis that is cut, one element
    for place in places:
        indices = [place[axis].indices(shape[axis]) for axis in cut]
        if all(isinstance(found, slice) for found in indices):
            covered[tuple(indices)] = True
        else:
            covered[np.ix_(*(np.r_[found] for found in indices))] = True
    return bool(covered.all())


def _size(part: Part, shape: tuple[int, ...]) -> int:
    if part.size is not None:
        return part.size
    assert part.place is not None
    return math.prod(_length(slab, size) for slab, size in zip(part.place, shape, strict=True))
