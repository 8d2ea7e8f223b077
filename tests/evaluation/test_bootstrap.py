"""Intervals by block."""

import math

import numpy as np
import pytest
from sklearn.metrics import r2_score

from nenya.evaluation.bootstrap import block_sums, interval, mean_of, r2_columns, r2_of


def accuracy_interval(groups, hits, **more):
    return interval(block_sums(groups, np.stack([np.ones(len(hits)), hits], axis=1)), mean_of, **more)


def test_independent_rows_have_the_interval_of_the_binomial():
    hits = (np.arange(1000) % 10 < 7).astype(float)
    low, high = accuracy_interval(np.arange(1000), hits)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert (low, high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.006)


def test_rows_that_are_alike_in_a_block_say_less():
    hits = np.repeat((np.arange(20) % 10 < 7).astype(float), 50)
    low, high = accuracy_interval(np.repeat(np.arange(20), 50), hits)
    assert high - low > 5 * np.subtract(*accuracy_interval(np.arange(1000), hits)[::-1])


def test_r2_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    predicted = y + rng.normal(0, 0.5, 60)
    sums = block_sums(np.arange(60) // 7, r2_columns(y, predicted))
    assert r2_of(sums.sum(axis=0, keepdims=True))[0] == pytest.approx(r2_score(y, predicted), abs=1e-12)
    low, high = interval(sums, r2_of)
    assert low < r2_score(y, predicted) < high


def test_the_same_seed_gives_the_same_interval():
    hits = np.random.default_rng(0).integers(0, 2, 100).astype(float)
    groups = np.arange(100) // 10
    assert accuracy_interval(groups, hits, seed=3) == accuracy_interval(groups, hits, seed=3)
    assert accuracy_interval(groups, hits, seed=3) != accuracy_interval(groups, hits, seed=4)


def test_one_block_says_nothing_about_others():
    assert all(math.isnan(end) for end in accuracy_interval(np.zeros(30, int), np.ones(30)))


def test_constant_values_have_no_r2():
    columns = r2_columns(np.full(10, 3.0), np.full(10, 2.0))
    assert math.isnan(r2_of(columns.sum(axis=0, keepdims=True))[0])
    assert all(math.isnan(end) for end in interval(columns, r2_of))


def test_groups_without_rows_are_no_blocks():
    assert len(block_sums(np.array([0, 5, 5]), np.ones((3, 1)))) == 2
