"""Which cutouts are landmarks: a seeded sample, spread evenly over place and month where the table tells them.

Cutouts are sorted into cells of equal area, about 10 degrees wide, and months of the year. Each cell gives one cutout
after the other in turn, until there are enough; within a cell, and in the last turn among the cells, the content of the
latents decides with the seed. So the sample depends neither on the order of the rows nor on how they are read, and no
latent is in it twice.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nenya.search.facts import Facts

_BANDS = 18  # of equal area, from pole to pole
_AROUND = 36  # cells of a band
_UNKNOWN = -1

Integers = npt.NDArray[np.int64]


def cells(facts: Facts | None, count: int) -> Integers:
    """The cell of place and month of each row [N]; rows of which one is not known share a cell of the other."""
    place = np.full(count, _UNKNOWN, np.int64)
    month = np.full(count, _UNKNOWN, np.int64)
    if facts is not None and facts.has_places:
        latitude, longitude = (facts.column(name).astype(np.float64) for name in ("lat", "lon"))
        known = np.isfinite(latitude) & np.isfinite(longitude)
        north = np.sin(np.radians(np.clip(latitude[known], -90, 90)))
        band = np.clip((north + 1) / 2 * _BANDS, 0, _BANDS - 1).astype(np.int64)
        around = np.minimum(np.mod(longitude[known], 360) / 360 * _AROUND, _AROUND - 1).astype(np.int64)
        place[known] = band * _AROUND + around
    if facts is not None and facts.has_times:
        known = ~np.isnat(facts.times)
        month[known] = facts.times[known].astype("datetime64[M]").astype(np.int64) % 12
    return (place + 1) * 13 + month + 1


def choose(members: Integers, marks: npt.NDArray[np.uint64], cell: Integers, most: int) -> Integers:
    """Choose landmarks.

    Args:
        members: The rows of the map [n].
        marks: Of each member, a random number that its content decides [n].
        cell: Of each member [n].
        most: How many at most.

    Returns:
        The rows, in an order that their content decides.
    """
    order = np.lexsort((members, marks))
    first = np.concatenate([[True], np.diff(marks[order]) != 0])[: len(order)]
    order = order[first]
    if len(order) > most:
        by_cell = order[np.argsort(cell[order], kind="stable")]
        starts = np.flatnonzero(np.diff(cell[by_cell], prepend=cell[by_cell[0]] - 1))
        turn = np.arange(len(by_cell)) - np.repeat(starts, np.diff([*starts, len(by_cell)]))
        chosen = by_cell[np.lexsort((marks[by_cell], turn))[:most]]
        order = chosen[np.argsort(marks[chosen])]
    rows: Integers = members[order]
    return rows
