"""Which rows are fitted and which are tested: whole blocks of place and time, so that neighbours don't flatter.

Cutouts that overlap, or that show the same eddy a day later, are all but copies of each other. If one is fitted and the
other tested, any latents seem to know everything. So rows are put into groups first, and a group is fitted or tested
as a whole.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Sides of a block where the table names none: degrees, days.
BLOCK_DEGREES, BLOCK_DAYS = 5.0, 30.0

#: Runs of rows that follow each other, where place and time are unknown: at most so many, of at least so many rows.
MOST_RUNS, LEAST_RUN = 50, 20

NUM_FOLDS = 5


def blocks_of_place_and_time(
    lat: npt.NDArray[np.floating], lon: npt.NDArray[np.floating], time: npt.NDArray[np.datetime64] | None
) -> Ints:
    """Number the blocks of 5 degrees and 30 days that rows lie in.

    Args:
        lat: Degrees north [N].
        lon: Degrees east [N], of any range.
        time: [N], or None where it is unknown.

    Returns:
        Numbers from 0 [N]; rows without a place or time share blocks of their own.
    """
    columns = [
        _cell(lat, BLOCK_DEGREES),
        _cell(np.mod(lon, 360.0), BLOCK_DEGREES),
    ]
    if time is not None:
        days = time.astype("datetime64[s]").astype(np.int64) / 86400.0
        columns.append(_cell(np.where(np.isnat(time), np.nan, days), BLOCK_DAYS))
    return numbered(np.stack(columns, axis=1))


def _cell(values: npt.NDArray[np.floating], side: float) -> Ints:
    known = np.isfinite(values)
    cells: Ints = np.where(known, np.floor(np.where(known, values, 0.0) / side), -(2**40)).astype(np.int64)
    return cells


def numbered(names: npt.NDArray[np.generic]) -> Ints:
    """Number the different names, or rows of numbers, from 0 on in their sorted order: [N]."""
    _, numbers = np.unique(names, axis=0, return_inverse=True)
    flat: Ints = numbers.reshape(-1).astype(np.int64)
    return flat


def contiguous_runs(places: npt.NDArray[np.floating]) -> Ints:
    """Cut rows into runs by where they stand in their file.

    Args:
        places: Of each row, 0..1 from the first to the last of its data set [N]. Data sets whose orders go together, as
            training and validation cut from the same granules, so have their runs together.

    Returns:
        Number of the run of each row [N].
    """
    num_runs = max(2, min(MOST_RUNS, len(places) // LEAST_RUN))
    return numbered(np.minimum((places * num_runs).astype(np.int64), num_runs - 1))


def group_folds(groups: Ints, num_folds: int = NUM_FOLDS) -> Ints:
    """Deal groups out to folds of about equal size, the largest first, each to the smallest fold so far.

    Args:
        groups: Number of the group of each row [N], from 0.
        num_folds: At most; as many as there are groups, if those are fewer.

    Returns:
        Number of the fold of each row [N].
    """
    sizes = np.bincount(groups)
    num_folds = min(num_folds, int((sizes > 0).sum()))
    filled = np.zeros(max(1, num_folds), dtype=np.int64)
    fold_of = np.zeros(len(sizes), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        if sizes[group]:
            fold_of[group] = filled.argmin()
            filled[fold_of[group]] += sizes[group]
    return fold_of[groups]
