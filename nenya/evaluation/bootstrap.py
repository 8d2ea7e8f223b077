"""How sure a figure is: bootstrap intervals, for which whole blocks of rows are drawn, not rows.

Rows of a block are alike, so that they tell less than as many independent ones; intervals that ignore it are too
narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NUM_DRAWS = 2000
LEVEL = 0.95

#: Bytes of the draws in memory at once.
_MOST_BYTES = 2**26


def block_sums(groups: Ints, columns: Floats) -> Floats:
    """Sums over the rows of each group.

    Args:
        groups: Number of the group of each row [N], from 0.
        columns: What is summed [N, S].

    Returns:
        [G, S], without the groups that have no row.
    """
    present, numbers = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(present), columns.shape[1]))
    np.add.at(sums, numbers.reshape(-1), columns)
    return sums


def interval(
    sums: Floats, statistic: Callable[[Floats], Floats], *, seed: int = 0, num_draws: int = NUM_DRAWS
) -> tuple[float, float]:
    """A 95 % interval of a figure that is made of sums over blocks, by the percentiles of drawn ones.

    Args:
        sums: Of each block [G, S].
        statistic: Sums over all rows [B, S] -> the figure [B]; NaN where it has none.
        seed: Of the draws.
        num_draws: Their number.

    Returns:
        Lower and upper end; NaN with fewer than two blocks, which say nothing about others.
    """
    num_groups = len(sums)
    if num_groups < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    step = max(1, _MOST_BYTES // (8 * num_groups))
    figures = []
    for start in range(0, num_draws, step):
        count = min(step, num_draws - start)
        weights = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=count)
        figures.append(statistic(weights.astype(np.float64) @ sums))
    found = np.concatenate(figures)
    found = found[np.isfinite(found)]
    if not len(found):
        return math.nan, math.nan
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_of(sums: Floats) -> Floats:
    """Mean, from columns [count, sum]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = sums[:, 1] / sums[:, 0]
    return mean


def r2_of(sums: Floats) -> Floats:
    """Coefficient of determination, from columns [count, y, y^2, (y - predicted)^2]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = sums[:, 2] - sums[:, 1] ** 2 / sums[:, 0]
        r2: Floats = 1 - sums[:, 3] / spread
    return np.where(spread > 1e-12 * np.abs(sums[:, 2]), r2, np.nan)


def r2_columns(values: Floats, predicted: Floats) -> Floats:
    """What `r2_of` needs of each row [N, 4]; `values` are best centred, so that their squares don't swamp them."""
    return np.stack([np.ones_like(values), values, values**2, (values - predicted) ** 2], axis=1)
