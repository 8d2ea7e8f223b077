"""Blocks, runs and folds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.evaluation.folds import blocks_of_place_and_time, contiguous_runs, group_folds, numbered


def test_blocks_are_cells_of_five_degrees_and_thirty_days():
    lat = np.array([1.0, 4.9, 5.1, 1.0, 1.0, 1.0])
    lon = np.array([1.0, 1.0, 1.0, -179.9, 180.1, 1.0])
    days = np.array(["2020-01-01"] * 5 + ["2020-03-15"], dtype="datetime64[us]")
    found = blocks_of_place_and_time(lat, lon, days)
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4] != found[0]  # one place, whichever way longitudes are counted
    assert found[5] != found[0]
    assert len(set(blocks_of_place_and_time(lat, lon, None)[[0, 1, 5]])) == 1


def test_rows_without_place_or_time_are_a_block_of_their_own():
    lat, lon = np.array([1.0, np.nan, np.nan]), np.array([1.0, np.nan, np.nan])
    found = blocks_of_place_and_time(lat, lon, np.array(["2020-01-01", "NaT", "NaT"], dtype="datetime64[us]"))
    assert found[1] == found[2] != found[0]


def test_runs_are_contiguous_and_the_same_for_both_sets():
    train, valid = np.arange(1000) / 1000, np.arange(100) / 100
    runs = contiguous_runs(np.concatenate((train, valid)))
    assert (np.diff(runs[:1000]) >= 0).all()
    assert len(np.unique(runs)) == 50
    assert (runs[:1000:10] == runs[1000:]).all()
    assert len(np.unique(contiguous_runs(np.arange(3) / 3))) == 2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=200), st.integers(1, 6))
def test_a_group_is_in_one_fold_and_folds_are_even(groups, num_folds):
    groups = np.array(groups)
    folds = group_folds(groups, num_folds)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert len(set(folds)) == min(num_folds, len(set(groups)))
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def test_names_are_numbered_in_their_order():
    assert numbered(np.array(["b", "a", "b"])).tolist() == [1, 0, 1]
