"""The order of an epoch: a permutation that the seed and the epoch alone decide, cut into batches."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nenya.data.order import equal_batches, even_batches, num_even_batches, shuffled

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
