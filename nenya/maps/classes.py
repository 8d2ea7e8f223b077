"""Classes of DT, each with a map of its own: cutouts of strong gradients would otherwise crowd out all others.

The bins are the historical ones, with the lower edge in and the upper edge out, so that every DT from 0 up is in one,
and in one only. The two historical classes that overlap these, ``DT10`` and ``all``, are none here: the latter is the
map without ``--by``.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.maps.store import ALL
from nenya.search.facts import Facts

#: Centre and half width of each class, K; None: no upper edge.
BINS: dict[str, tuple[float, float | None]] = {
    "DT0": (0.25, 0.25),
    "DT1": (0.75, 0.25),
    "DT15": (1.25, 0.25),
    "DT2": (2.0, 0.5),
    "DT4": (3.25, 0.75),
    "DT5": (4.0, None),
}


def edges(name: str) -> tuple[float, float]:
    """Lower edge, which is in the class, and upper edge, which is not; K."""
    centre, half = BINS[name]
    return (centre, math.inf) if half is None else (centre - half, centre + half)


def label(name: str) -> str:
    """What a class is called for people."""
    if name == ALL:
        return "all cutouts"
    low, high = edges(name)
    return f"DT from {low:g} K" if high == math.inf else f"DT {low:g} to {high:g} K"


def of_rows(facts: Facts) -> npt.NDArray[np.int64]:
    """The class of each row by its DT [N], as its place in `BINS`; -1 where DT is not known or below 0.

    Raises:
        DataError: The table has no DT.
    """
    if "DT" not in facts.names or facts.column("DT").dtype.kind not in "fiu":
        raise DataError(f"--by DT: {facts.path} has no column DT of numbers.")
    values = facts.column("DT").astype(np.float64)
    lower = [edges(name)[0] for name in BINS]
    found = np.searchsorted(lower, values, side="right") - 1
    classes: npt.NDArray[np.int64] = np.where(np.isfinite(values), found, -1).astype(np.int64)
    return classes
