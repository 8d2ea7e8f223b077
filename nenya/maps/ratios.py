"""Where on a map the cutouts of a region, or of a season, are more frequent than elsewhere.

For each cell of the map's grid:

    ratio = (share of the region's cutouts that are in the cell) / (share of all cutouts that are in the cell)

With n cutouts in the cell, of which n_r are in the region, this is the share n_r / n over the region's share of all
cutouts. Its uncertainty is that of the first: the Wilson interval (1927) of 95 %. It holds for cutouts that are
independent. Cutouts that overlap, or follow each other by hours, are not, so that the interval is then too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.maps.grid import Grid
from nenya.maps.regions import Region
from nenya.search.facts import Facts

_Z = 1.959964  # of the normal distribution, 95 %
#: Months of the seasons, as they are called in both hemispheres.
SEASONS: Mapping[str, tuple[int, ...]] = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Some of the cutouts.

    Attributes:
        name: As "gulfstream" or "DJF".
        label: The name for people.
        inside: Which rows [N].
    """

    name: str
    label: str
    inside: Bool


@dataclass(frozen=True)
class Ratios:
    """How frequent a group is in each cell; NaN where a cell is empty, or the group is.

    Attributes:
        group: The group.
        counts: All cutouts [side * side].
        inside: Those of the group.
        ratio: As above.
        low: Lower end of its interval of 95 %.
        high: Upper end.
    """

    group: Group
    counts: Integers
    inside: Integers
    ratio: Float
    low: Float
    high: Float


def of_group(group: Group, known: Bool, numbers: Integers, cells: Integers, grid: Grid) -> Ratios:
    """Compute the ratios of a group on one map.

    Args:
        group: The group.
        known: Of which rows it is known whether they belong to one [N]; the others do not count.
        numbers: The rows on the map [n].
        cells: Their cells [n]; -1 outside the grid.
        grid: The grid.
    """
    counted = known[numbers] & (cells >= 0)
    where, inside = cells[counted], group.inside[numbers[counted]]
    most = grid.side**2
    counts = np.bincount(where, minlength=most).astype(np.int64)
    of_group_ = np.bincount(where[inside], minlength=most).astype(np.int64)
    share = of_group_.sum() / max(1, counts.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = wilson(of_group_, counts)
        ratio = of_group_ / counts / share
        return Ratios(group, counts, of_group_, _finite(ratio), _finite(low / share), _finite(high / share))


def _finite(values: Float) -> Float:
    result: Float = np.where(np.isfinite(values), values, np.nan)
    return result


def wilson(inside: Integers, counts: Integers) -> tuple[Float, Float]:
    """Ends of the interval of 95 % for a share of which `inside` of `counts` were seen."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = inside / counts
        weight = _Z**2 / counts
        middle = (share + weight / 2) / (1 + weight)
        half = _Z / (1 + weight) * np.sqrt(share * (1 - share) / counts + weight / counts / 4)
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def regional(facts: Facts, chosen: Sequence[Region]) -> tuple[list[Group], Bool]:
    """The cutouts of some regions, and those whose place is known [N].

    Raises:
        DataError: The table has no places.
    """
    if not facts.has_places:
        raise DataError(f"--regions: {facts.path} has no places: it has no columns lat and lon of numbers.")
    latitude, longitude = (facts.column(name).astype(np.float64) for name in ("lat", "lon"))
    groups = [Group(one.name, one.label, one.contains(longitude, latitude)) for one in chosen]
    return groups, np.isfinite(latitude) & np.isfinite(longitude)


def seasonal(facts: Facts) -> tuple[list[Group], Bool]:
    """The cutouts of each season, and those whose time is known [N].

    Raises:
        DataError: The table has no times.
    """
    known = ~np.isnat(facts.times)
    month = np.where(known, facts.times.astype("datetime64[M]").astype(np.int64) % 12 + 1, 0)
    return [Group(name, name, np.isin(month, months) & known) for name, months in SEASONS.items()], known
