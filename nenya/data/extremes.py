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

#: A value, or a few together, with this share stand apart also where the gap to the next is so many times the usual
#: distance of neighbours there: heavy tails have a range that no gap can be compared with.
COMMON = 0.01
GAP_OF_COMMON = 100.0
#: For numbers that often are marks, such as the end of an integer type, the gap need be only so many times that wide,
#: or at that end so many numbers where all others come: saturated measurements have no such gap.
GAP_OF_USUAL, GAP_OF_FULL_END = 10.0, 3.0
USUAL_MARKS = (-99.0, -999.0, -9999.0, -99999.0, -32767.0, -32768.0, 9999.0, 99999.0, 32767.0, 65535.0)

_NEARBY = 20  # distances of neighbours that tell the usual one
_MOST_TOGETHER = 8  # -999, -998, ..., -992
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


def find_extremes(counted: Counted, *, zero: float = 0.0, ends: tuple[float, ...] = ()) -> list[Extreme]:
    """Find the values at both ends that stand apart: frequent ones, and any that are far off.

    Args:
        counted: Numbers of one kind, such as those of one channel.
        zero: The number that stands for nothing: no rain, no ice. It is a natural bound, with a gap to the smallest
            amount that is measured; it stands apart only where it is far off.
        ends: Smallest and largest number of their type, where that is one of integers.

    Returns:
        What stands apart, the farthest first.
    """
    total = int(counted.counts.sum())
    found: list[Extreme] = []
    rest = counted
    for _ in range(_ROUNDS):
        more = _outermost(rest, total) or _common(rest, total, zero, ends)
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


def _common(counted: Counted, total: int, zero: float, ends: tuple[float, ...]) -> list[Extreme]:
    """Common values at an end with a wide gap behind them; at each end those with the widest."""
    found = []
    for values, counts in ((counted.values, counted.counts), (counted.values[::-1], counted.counts[::-1])):
        best = 0.0
        extreme = None
        for together in range(1, min(_MOST_TOGETHER, len(values) - LEAST_OTHERS) + 1):
            outer, count = values[:together], int(counts[:together].sum())
            if counts[together - 1] < REPEATED or _is_nothing(outer, zero):
                break
            nearby = np.abs(np.diff(values[together : together + _NEARBY + 1]))
            # the mean too: numbers that were computed may come in pairs that differ by rounding
            usual = max(float(np.median(nearby)), float(nearby.mean()))
            gap = float(abs(values[together] - outer[-1]))
            wide = (GAP_OF_USUAL if outer[-1] in (*USUAL_MARKS, *ends) else GAP_OF_COMMON) * usual
            if outer[-1] in ends and usual <= 1:
                wide = GAP_OF_FULL_END
            if count >= COMMON * total and gap > max(wide, best):
                best = gap
                extreme = Extreme(tuple(outer.tolist()), count, count / total, float(values[together]))
        found += [] if extreme is None else [extreme]
    return found


def _is_nothing(values: npt.NDArray[np.float64], zero: float) -> bool:
    return bool((np.abs(values - zero) <= 1e-6 * max(1.0, abs(zero)) * (zero != 0)).any())


def _is_frequent(count: int, share: float, num_values: int) -> bool:
    return share >= FREQUENT and count >= REPEATED * num_values
