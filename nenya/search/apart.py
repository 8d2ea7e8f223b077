"""Answers that lie apart: overlapping and consecutive cutouts would otherwise fill every answer.

From the nearest on, a row is taken unless it lies too near to the query or to a row that was taken before: nearer than
so many kilometres (great circle, centre to centre), or than so many hours. With both, each holds by itself. So the
nearest of a group of neighbours stays and stands for it, and whatever is left out lies near to something better that is
in the answer. Rows whose place (or time) is not known are left out, since nothing shows that they lie apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError
from nenya.search.facts import Facts
from nenya.search.vectors import Rows
from nenya.sphere import distance_km


@dataclass(frozen=True)
class Apart:
    """How far from each other, and from the query, the rows of an answer are at least.

    Attributes:
        km: Great-circle distance of the centres, kilometres; None for any.
        hours: Difference of the times; None for any.
    """

    km: float | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("min-distance-km", self.km), ("min-hours", self.hours)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"--{name}: found {value:g}, expected a number of 0 or more.")

    @property
    def asks(self) -> bool:
        """Whether there is anything to keep apart."""
        return bool(self.km) or bool(self.hours)


def thin(
    numbers: Rows, own: int, count: int, apart: Apart, facts: Facts, watch: Callable[[], None] | None = None
) -> Rows:
    """Which of some rows stay.

    Args:
        numbers: Rows, the nearest first [n].
        own: The query's row, from which they lie apart too; -1 where it is none.
        count: How many at most.
        apart: How far.
        facts: Places and times.
        watch: Called again and again; what it raises ends the work.

    Returns:
        Places in `numbers`, rising.
    """
    all_places = facts.places if apart.km else None
    all_times = facts.times if apart.hours else None
    places = all_places[numbers] if all_places is not None else np.zeros((len(numbers), 3))
    times = all_times[numbers] if all_times is not None else np.zeros(len(numbers), "datetime64[us]")
    left = np.isfinite(places).all(axis=1) & ~np.isnat(times)
    if own >= 0:
        if all_places is not None:
            left &= ~(distance_km(places, all_places[own]) < (apart.km or 0))
        if all_times is not None:
            left &= ~_within(times, all_times[own], apart.hours or 0)
    chosen: list[int] = []
    while left.any() and len(chosen) < count:
        if watch is not None:
            watch()
        first = int(np.argmax(left))
        chosen.append(first)
        left[first] = False
        if all_places is not None:
            left &= distance_km(places, places[first]) >= (apart.km or 0)
        if all_times is not None:
            left &= ~_within(times, times[first], apart.hours or 0)
    return np.array(chosen, np.int64)


def _within(times: npt.NDArray[np.datetime64], one: np.datetime64, hours: float) -> npt.NDArray[np.bool_]:
    """Which times are less than so many hours from one; none, where that is not known."""
    apart = np.abs(times - one)
    return np.asarray(~np.isnat(apart) & (apart.astype(np.int64) < hours * 3.6e9))
