"""The order of an epoch: a permutation that the seed and the epoch alone decide, cut into batches."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nenya.data.order import (
    equal_batches,
    even_batches,
    num_even_batches,
    shuffled,
    shuffled_windows,
    windows_in_order,
)

SEEDS = st.integers(0, 2**63 - 1)
ROWS = st.lists(st.integers(0, 10**9), min_size=1, max_size=60, unique=True).map(np.array)


@given(ROWS, SEEDS, st.integers(0, 10**6))
def test_every_row_comes_once(rows, seed, epoch):
    before = rows.copy()
    order = shuffled(rows, seed, epoch)
    assert sorted(order) == sorted(rows)
    np.testing.assert_array_equal(rows, before)


@given(SEEDS, st.integers(0, 10**6))
def test_the_order_is_a_function_of_its_arguments_and_of_no_global_state(seed, epoch):
    rows = np.arange(40)
    first = shuffled(rows, seed, epoch)
    np.random.seed(0)  # noqa: NPY002
    np.testing.assert_array_equal(shuffled(rows, seed, epoch), first)


@given(SEEDS, st.integers(0, 10**6))
def test_the_next_epoch_and_the_next_seed_have_orders_of_their_own(seed, epoch):
    rows = np.arange(40)  # 40! orders: no two are equal by chance
    orders = {tuple(shuffled(rows, s, e)) for s in (seed, seed + 1) for e in (epoch, epoch + 1)}
    assert len(orders) == 4


def test_seed_and_epoch_are_not_interchangeable():
    assert tuple(shuffled(np.arange(40), 3, 5)) != tuple(shuffled(np.arange(40), 5, 3))


PINNED = {
    (0, 1): [1, 5, 6, 4, 8, 7, 9, 3, 2, 0],
    (0, 2): [6, 8, 2, 4, 3, 0, 9, 1, 5, 7],
    (2**63 - 1, 200): [0, 5, 2, 8, 7, 4, 3, 1, 9, 6],
}


@pytest.mark.parametrize(("seed", "epoch"), PINNED)
def test_the_order_is_the_one_that_earlier_runs_had(seed, epoch):
    assert shuffled(np.arange(10), seed, epoch).tolist() == PINNED[seed, epoch]


def test_another_process_makes_the_same_order():
    code = "import numpy as np; from nenya.data.order import shuffled; print(*shuffled(np.arange(30), 7, 3))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert other.split() == [str(row) for row in shuffled(np.arange(30), 7, 3)]


def test_every_row_is_equally_likely_at_every_place():
    rows, epochs = 8, 4000
    orders = np.array([shuffled(np.arange(rows), 11, epoch) for epoch in range(epochs)])
    for place in range(rows):
        counts = np.bincount(orders[:, place], minlength=rows)
        expected = epochs / rows
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        assert chi_squared < 35  # 7 degrees of freedom: one in 10^5


@given(ROWS, st.data())
def test_training_batches_have_one_size_and_leave_out_less_than_one_batch(rows, data):
    size = data.draw(st.integers(1, len(rows)))
    batches = equal_batches(rows, size)
    assert {len(batch) for batch in batches} == {size}
    assert len(batches) == len(rows) // size
    np.testing.assert_array_equal(np.concatenate(batches), rows[: len(rows) - len(rows) % size])


@given(ROWS.filter(lambda rows: len(rows) > 1), st.integers(2, 80))
def test_validation_batches_hold_every_row_and_are_as_even_as_can_be(rows, size):
    batches = even_batches(rows, size)
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= size + 1  # one more only where a row would be left alone
    assert min(lengths) >= 2
    assert max(lengths) - min(lengths) <= 1
    assert len(batches) == num_even_batches(len(rows), size) <= -(-len(rows) // size)
    np.testing.assert_array_equal(np.concatenate(batches), rows)


def test_a_single_row_is_a_batch():
    assert num_even_batches(1, 4) == 1
    assert [batch.tolist() for batch in even_batches(np.array([7]), 4)] == [[7]]


# ---------------------------------------------------------------- windows of chunks

CHUNKED = st.tuples(ROWS.map(np.sort), st.integers(1, 9), st.integers(1, 6))


@given(CHUNKED, SEEDS, st.integers(0, 10**6))
def test_windows_hold_every_row_once_and_part_no_chunk(chunked, seed, epoch):
    rows, length, most = chunked
    windows = shuffled_windows(rows, length, most, seed, epoch)
    assert sorted(np.concatenate(windows)) == sorted(rows)
    chunks = [set(window // length) for window in windows]
    assert sum(map(len, chunks)) == len(set(rows // length))  # no chunk in two windows
    assert len(windows) == -(-len(set(rows // length)) // most)
    counts = [len(each) for each in chunks]
    assert max(counts) - min(counts) <= 1  # no tiny window at the end
    assert max(counts) <= most
    again = shuffled_windows(rows, length, most, seed, epoch)
    assert [window.tolist() for window in again] == [window.tolist() for window in windows]


@given(CHUNKED)
def test_windows_in_order_are_the_rows_as_they_are_and_part_no_chunk(chunked):
    rows, length, most = chunked
    windows = windows_in_order(rows, length, most)
    np.testing.assert_array_equal(np.concatenate(windows), rows)
    chunks = [set(window // length) for window in windows]
    assert sum(map(len, chunks)) == len(set(rows // length))
    assert len(windows) == -(-len(set(rows // length)) // most)
    counts = [len(each) for each in chunks]
    assert max(counts) - min(counts) <= 1
    assert max(counts) <= most


@given(ROWS.map(np.sort), st.integers(1, 9), SEEDS)
def test_one_window_is_the_full_shuffle(rows, length, seed):
    (window,) = shuffled_windows(rows, length, len(rows), seed, 3)
    np.testing.assert_array_equal(window, shuffled(rows, seed, 3))


def test_windows_differ_between_epochs_and_between_seeds():
    orders = [np.concatenate(shuffled_windows(np.arange(64), 4, 4, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    window_of_first = {tuple(sorted(set(shuffled_windows(np.arange(64), 4, 4, 0, e)[0] // 4))) for e in range(6)}
    assert len(window_of_first) > 1  # chunks meet others at every epoch


def pairs_in_one_batch(orders, batch, pairs):
    """How often the pairs of rows share a batch, over many epochs."""
    together = 0
    for order in orders:
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order)) // batch
        together += (place[pairs[:, 0]] == place[pairs[:, 1]]).sum()
    return together / (len(orders) * len(pairs))


def test_neighbours_in_the_file_share_a_batch_as_rarely_as_the_window_allows():
    count, length, most, batch, epochs = 1024, 16, 16, 8, 150  # 4 windows of 256
    first = np.arange(count - 1)
    neighbours = np.stack((first, first + 1), axis=1)
    inside = neighbours[first % length != length - 1]  # of one chunk
    across = neighbours[first % length == length - 1]  # of two
    windowed = [np.concatenate(shuffled_windows(np.arange(count), length, most, 5, e)) for e in range(epochs)]
    full = [shuffled(np.arange(count), 5, e) for e in range(epochs)]

    def expect(found, expected, pairs):
        # a pair's two rows meet or not, and pairs hardly know of each other: a binomial's spread, five times
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / (epochs * len(pairs))))

    expect(pairs_in_one_batch(windowed, batch, inside), (batch - 1) / (256 - 1), inside)
    expect(pairs_in_one_batch(windowed, batch, across), (batch - 1) / (count - 1), across)  # its window is a chance too
    expect(pairs_in_one_batch(full, batch, inside), (batch - 1) / (count - 1), inside)
