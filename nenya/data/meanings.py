"""What the numbers of a virtual dataset mean, beside what its sources say of theirs.

HDF5 takes pixels from the sources and leaves their attributes behind: packed numbers would be taken as they are, and
marks of missing pixels as measurements.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from nenya.data.attributes import Meaning, as_stored, fit
from nenya.errors import DataError

_MEND = "Give the virtual dataset the attributes that are true of all its parts, or copy the pixels into one dataset."


class Source(NamedTuple):
    """What a source of a virtual dataset says of its numbers.

    Attributes:
        name: Of the dataset and its file, for messages.
        meaning: What its attributes say.
        speaks: Whether it has such attributes.
    """

    name: str
    meaning: Meaning
    speaks: bool


def join(own: Meaning, speaks: bool, sources: Iterable[Source], found: str) -> Meaning:
    """What the numbers of a virtual dataset mean.

    Args:
        own: What its own attributes say.
        speaks: Whether it has such attributes: then those of the sources must not contradict them.
        sources: Its sources.
        found: Names it, for the message.

    Returns:
        Its own meaning, or the one that all its sources have where it says nothing itself.

    Raises:
        DataError: Its sources say something else, or not all the same, or their numbers do not fit into its type.
    """
    first: Source | None = None
    for source in sources:
        if not _keeps(source.meaning.stored, own.stored):
            raise DataError(
                f"{found} is {own.stored}, and takes pixels from {source.name}, which is {source.meaning.stored}: its "
                "numbers do not all fit. Make the virtual dataset of the sources' type."
            )
        if speaks:
            if source.speaks and not _agrees(source.meaning, own):
                raise DataError(
                    f"{found} has {_say(own)}, and takes pixels from {source.name}, which has "
                    f"{_say(source.meaning)}: only the virtual dataset's own attributes would count. {_MEND}"
                )
            continue
        first = first or source
        if not _is_same(source.meaning, first.meaning):
            raise DataError(
                f"{found} has no attributes of its own, and its sources do not agree: {first.name} has "
                f"{_say(first.meaning)}, {source.name} has {_say(source.meaning)}. {_MEND}"
            )
    if speaks or first is None or not first.speaks:
        return own
    return _adopted(own, first, found)


def _adopted(own: Meaning, source: Source, found: str) -> Meaning:
    """The meaning of the sources, for a virtual dataset that says nothing.

    Raises:
        DataError: Its type has not the same bits, or not the numbers that mark missing pixels.
    """
    theirs = source.meaning
    dtype = own.dtype
    if theirs.is_reinterpreted:
        dtype = theirs.dtype
        if (own.stored.kind, own.stored.itemsize) != (theirs.stored.kind, theirs.stored.itemsize):
            raise DataError(
                f"{found} is {own.stored}, and {source.name} is {theirs.stored} with the attribute _Unsigned. {_MEND}"
            )
    marks = [fit(mark, dtype) for mark in theirs.marks]
    said = _say(theirs)
    remark = f"it is virtual and has no attributes of its own: its sources' are used ({said})"
    return dataclasses.replace(
        own,
        dtype=dtype,
        marks=tuple(mark for mark in marks if mark is not None),
        factor=theirs.factor,
        offset=theirs.offset,
        valid_range=own.valid_range or theirs.valid_range,
        remarks=(*own.remarks, *theirs.remarks, *([remark] if said != _NOTHING else [])),
    )


def _keeps(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether numbers stay what they are on their way into another type, but for the digits that float32 has not."""
    if target.kind == "f":
        return source.kind in "fiub"
    return bool(np.can_cast(source, target, "safe"))


def _is_same(one: Meaning, other: Meaning) -> bool:
    return _packing(one) == _packing(other) and _marks(one) == _marks(other)


def _agrees(source: Meaning, own: Meaning) -> bool:
    """Whether a source's numbers mean what a virtual dataset says, which may name more marks."""
    return _packing(source) == _packing(own) and _marks(source) <= _marks(own)


def _packing(meaning: Meaning) -> tuple[float, float, str]:
    return meaning.factor, meaning.offset, meaning.dtype.kind if meaning.is_reinterpreted else ""


def _marks(meaning: Meaning) -> set[float]:
    """Marks, with as many digits as count; what is not finite is missing anyway."""
    kind = meaning.dtype if meaning.dtype.kind == "f" else np.dtype(np.float64)
    return {as_stored(mark, kind) for mark in meaning.marks if math.isfinite(mark)}


_NOTHING = "none that change what the numbers mean"


def _say(meaning: Meaning) -> str:
    """The attributes, in words."""
    marks = ", ".join(f"{mark:.9g}" for mark in meaning.marks[:4]) + (", ..." if len(meaning.marks) > 4 else "")
    said = [
        f"scale_factor {meaning.factor:g}" * (meaning.factor != 1.0),
        f"add_offset {meaning.offset:g}" * (meaning.offset != 0.0),
        f"missing pixels marked by {marks}" if marks else "",
        f"_Unsigned ({meaning.dtype})" * meaning.is_reinterpreted,
    ]
    return ", ".join(filter(None, said)) or _NOTHING
