"""Numbers that stand apart from all others, as marks of missing pixels do that no attribute declares.

All functions here are pure: numbers in, what stands apart out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

#: A value is frequent with this share of the numbers; measurements seldom repeat one so often, ...
FREQUENT = 1e-3
#: ... and with so many of them: the few largest of a heavy tail are each found once.
REPEATED = 5
#: A frequent value stands apart where the gap to the others is larger than so many times their range,
GAP_OF_FREQUENT = 1.0
#: a rare one where it is larger than this: no measurement of the ocean has such an outlier.
GAP_OF_RARE = 10.0
#: Among fewer other values (masks, classes, binary images) nothing counts as standing apart.
LEAST_OTHERS = 8
#: Numbers are absurd that are so many times farther from the median than others that differ from it.
ABSURD = 1e6

_MOST_MARKS = 3  # values that stand apart together at one end: -999, -998 and -997
_ROUNDS = 4


@dataclass(frozen=True)
class Extreme:
    """Values at one end that stand apart from the others.

    Attributes:
        values: The values, the outermost first.
        count: How many numbers are one of them.
        share: Of all numbers, 0 to 1.
        following: The next value inwards.
    """

    values: tuple[float, ...]
    count: int
    share: float
    following: float

    @property
    def is_frequent(self) -> bool:
        """Whether the values come so often that they are no measurements."""
        return _is_frequent(self.count, self.share, len(self.values))


@dataclass(frozen=True)
class Counted:
    """Numbers in order.

    Attributes:
        values: Each value once, rising, float64.
        counts: How often it comes.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, numbers: npt.NDArray[Any]) -> Counted:
        """Sort and count numbers, which are finite and in one dimension."""
        ordered = np.sort(numbers)
        first = np.concatenate(([True], ordered[1:] != ordered[:-1])) if len(ordered) else np.zeros(0, bool)
        starts = np.flatnonzero(first)
        return cls(ordered[starts].astype(np.float64), np.diff(np.append(starts, len(ordered))))

    @property
    def median(self) -> float:
        """The lower median; NaN of nothing."""
        if not len(self.values):
            return float("nan")
        return float(self.values[np.searchsorted(np.cumsum(self.counts), (self.counts.sum() + 1) // 2)])

    @property
    def most_frequent(self) -> tuple[float, float]:
        """The most frequent value and its share, 0 to 1."""
        place = int(np.argmax(self.counts))
        return float(self.values[place]), float(self.counts[place] / self.counts.sum())

    def without(self, extremes: list[Extreme]) -> Counted:
        """These numbers without those that stand apart."""
        kept = ~np.isin(self.values, [value for extreme in extremes for value in extreme.values])
        return Counted(self.values[kept], self.counts[kept])


def find_extremes(counted: Counted) -> list[Extreme]:
    """Find the values at both ends that stand apart: frequent ones, and any that are far off.

    Args:
        counted: Numbers of one kind, such as those of one channel.

    Returns:
        What stands apart, the farthest first.
    """
    total = int(counted.counts.sum())
    found: list[Extreme] = []
    rest = counted
    for _ in range(_ROUNDS):
        more = _outermost(rest, total)
        if not more:
            break
        found += more
        rest = rest.without(more)
    return found


def count_absurd(counted: Counted) -> int:
    """How many numbers are too far from the others to be measurements, as random bytes read as floats are."""
    median, values = counted.median, counted.values
    before = np.cumsum(counted.counts)
    quartiles = values[np.searchsorted(before, before[-1] * np.array([0.25, 0.75]))]
    # others are mostly as far as the nearer quartile, at least: spares a sort
    if max(values[-1] - median, median - values[0]) <= ABSURD * np.abs(quartiles - median).min():
        return 0
    distance = np.abs(values - median)
    others = Counted(distance[distance > 0], counted.counts[distance > 0])
    if len(others.values) < LEAST_OTHERS:
        return 0
    order = np.argsort(others.values)
    typical = Counted(others.values[order], others.counts[order]).median
    return int(counted.counts[distance > ABSURD * typical].sum())


def _outermost(counted: Counted, total: int) -> list[Extreme]:
    """What stands apart at one end or at both; as few values as possible, so that no measurement goes with them."""
    values, counts = counted.values, counted.counts
    choices = sorted(product(range(_MOST_MARKS + 1), repeat=2), key=sum)
    for low, high in choices[1:]:
        stop = len(values) - high
        if stop - low < LEAST_OTHERS:
            break
        extent = values[stop - 1] - values[low]
        ends = []
        if low:
            ends.append((values[:low], counts[:low], values[low], values[low] - values[low - 1]))
        if high:
            ends.append((values[stop:][::-1], counts[stop:], values[stop - 1], values[stop] - values[stop - 1]))
        extremes = []
        for outer, numbers, following, gap in ends:
            count = int(numbers.sum())
            frequent = _is_frequent(count, count / total, len(outer))
            if gap > (GAP_OF_FREQUENT if frequent else GAP_OF_RARE) * extent:
                extremes.append(Extreme(tuple(outer.tolist()), count, count / total, float(following)))
        if len(extremes) == len(ends):
            return extremes
    return []


def _is_frequent(count: int, share: float, num_values: int) -> bool:
    return share >= FREQUENT and count >= REPEATED * num_values
