"""What stands apart is found, whatever the mark; what nature makes does not stand apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data.extremes import Counted, count_absurd, find_extremes

SIZE = 20_000


def kelvins(seed=0):
    return np.random.default_rng(seed).normal(290, 5, SIZE).astype(np.float32)


def marked(numbers, share, *marks):
    """Numbers of which a share is each of the marks."""
    rng = np.random.default_rng(1)
    numbers = numbers.copy()
    order = rng.permutation(len(numbers))
    count = max(1, round(share * len(numbers)))
    for number, mark in enumerate(marks):
        numbers[order[number * count : (number + 1) * count]] = mark
    return numbers


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60))
def test_counting_is_that_of_numpy(numbers):
    counted = Counted.of(np.array(numbers, np.int16))
    values, counts = np.unique(numbers, return_counts=True)
    np.testing.assert_array_equal(counted.values, values)
    np.testing.assert_array_equal(counted.counts, counts)
    assert counted.median == np.sort(numbers)[(len(numbers) - 1) // 2]
    value, share = counted.most_frequent
    assert share == counts.max() / len(numbers)
    assert counts[values == value] == counts.max()


@pytest.mark.parametrize("share", [0.002, 0.2, 0.8])
@pytest.mark.parametrize("mark", [-999, -999.9, -32767, -32768, 9.969209968386869e36, 1e20, 1e35, 0, 65535, 99999])
def test_a_frequent_mark_among_kelvins_is_found_with_share_and_neighbour(mark, share):
    numbers = marked(kelvins(), share, mark)
    (found,) = find_extremes(Counted.of(numbers))
    assert found.values == (np.float32(mark),)
    assert found.count == round(share * SIZE)
    assert found.share == pytest.approx(share)
    others = numbers[numbers != np.float32(mark)]
    assert found.following == (others.min() if mark < 290 else others.max())
    assert found.is_frequent


@pytest.mark.parametrize(
    ("numbers", "marks"),
    [
        (kelvins(), (-999, 9.96921e36)),
        (kelvins(), (-32768, -32767)),
        (kelvins(), (-999, -998, -997)),
        (kelvins(), (0, 1e20)),
        ((kelvins() - 290).astype(np.int16), (-32768, 32767)),  # as far from the rest on both sides
        (np.clip(kelvins() - 190, 0, 200).astype(np.uint8), (255,)),
    ],
)
def test_marks_beside_each_other_and_at_both_ends_are_all_found(numbers, marks):
    found = find_extremes(Counted.of(marked(numbers, 0.1, *marks)))
    values = [value for extreme in found for value in extreme.values]
    np.testing.assert_array_equal(sorted(values), sorted(np.array(marks, numbers.dtype)))


@pytest.mark.parametrize("value", [1e30, -1e30, -32767, 1e6])
def test_a_single_absurd_value_is_found(value):
    (found,) = find_extremes(Counted.of(marked(kelvins(), 0, value)))
    assert found.values == (np.float32(value),)
    assert found.count == 1
    assert not found.is_frequent


NATURAL = {
    "kelvins": lambda rng: rng.normal(290, 5, SIZE).astype(np.float32),
    "anomalies": lambda rng: rng.normal(0, 0.3, SIZE).astype(np.float32),
    "packed": lambda rng: rng.normal(1700, 300, SIZE).astype(np.int16),
    "rain: mostly zero": lambda rng: np.where(rng.random(SIZE) < 0.8, 0, rng.gamma(0.5, 4, SIZE)).astype(np.float32),
    "chlorophyll: a heavy tail": lambda rng: rng.lognormal(-1, 2, SIZE).astype(np.float32),
    "radar: a heavier one": lambda rng: rng.lognormal(0, 3, SIZE).astype(np.float32),
    "bytes": lambda rng: rng.integers(0, 256, SIZE).astype(np.uint8),
    "saturated bytes": lambda rng: np.clip(rng.normal(200, 60, SIZE), 0, 255).astype(np.uint8),
    "digits": lambda rng: np.where(rng.random(SIZE) < 0.8, 0, rng.integers(1, 256, SIZE)).astype(np.uint8),
    "a mask": lambda rng: rng.integers(0, 2, SIZE).astype(np.uint8) * 255,
    "four grey levels": lambda rng: rng.choice([0, 85, 170, 255], SIZE).astype(np.uint8),
    "a few classes": lambda rng: rng.integers(0, 6, SIZE).astype(np.uint8),
    "clouds and sea": lambda rng: np.where(
        rng.random(SIZE) < 0.3, rng.normal(220, 12, SIZE), rng.normal(290, 2, SIZE)
    ).astype(np.float32),
    "degrees": lambda rng: rng.uniform(-180, 180, SIZE).astype(np.float32),
    "constant": lambda rng: np.full(SIZE, 7, np.float32),
}


def smooth(seed, count=12, size=16):
    """Smooth fields [count, size, size], about 0 and of about 2.5."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    waves = [
        rng.normal(size=(count, 1, 1)) * np.sin(2 * np.pi * (k * x + j * y) + rng.uniform(0, 7, (count, 1, 1)))
        for k in range(3)
        for j in range(3)
        if k or j
    ]
    return sum(waves).astype(np.float32)


#: Fields with a bound that many pixels reach.
BOUNDED = {
    "ice": lambda field: np.clip(field / 3 + 0.3, 0, 1),
    "ice above 15 %": lambda field: np.where(field < -0.45, 0, np.clip(field / 3 + 0.3, 0, 1)),
    "ice in per cent": lambda field: np.round(np.clip(field / 3 + 0.3, 0, 1) * 100).astype(np.uint8),
    "chlorophyll with zeros": lambda field: np.where(field < -1, 0, np.exp(1.5 * field)),
    "chlorophyll above a limit": lambda field: np.where(field < -2, 0, np.exp(1.5 * field)),
    "chlorophyll clipped": lambda field: np.clip(np.exp(1.5 * field), 0.01, 20),
    "rain above 0.1 mm": lambda field: np.where(field < 1, 0, 0.1 + np.exp(field - 1)),
    "rain in steps": lambda field: np.round(np.where(field < 1, 0, np.exp(field - 1)), 1),
    "sea at its freezing point": lambda field: np.maximum(3 * field + 2, -1.8),
    "the same, packed": lambda field: (np.maximum(3 * field + 2, -1.8) * 100).astype(np.int16),
    "saturated bytes": lambda field: np.clip(60 * field + 128, 0, 255).astype(np.uint8),
    "stretched bytes": lambda field: (np.round(np.clip(60 * field + 128, 0, 255) / 2.5) * 2.5).astype(np.uint8),
    "saturated counts": lambda field: np.clip(20_000 * field + 30_000, 0, 65535).astype(np.uint16),
}


def ends(dtype):
    return (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if np.dtype(dtype).kind in "iu" else ()


@pytest.mark.parametrize("kind", BOUNDED)
@pytest.mark.parametrize("size", [16, 40])
def test_a_bound_that_many_pixels_reach_does_not_stand_apart(kind, size):
    for seed in range(20):
        numbers = BOUNDED[kind](smooth(seed, size=size)).ravel()
        assert find_extremes(Counted.of(numbers), ends=ends(numbers.dtype)) == [], seed


@pytest.mark.parametrize(
    ("numbers", "share", "marks"),
    [
        (lambda field: np.exp(1.5 * field), 0.05, (-1,)),  # a heavy tail: its range is no measure
        (lambda field: np.exp(1.5 * field), 0.2, (-1,)),
        (lambda field: 500 * np.exp(1.5 * field), 0.05, (-999,)),
        (lambda field: np.clip(5000 * field + 15_000, 0, 30_000).round(), 0.05, (-999,)),
        (lambda field: 3 * field + 290, 0.02, (-999, -998, -997, -996, -995)),
        (lambda field: (3 * field + 290).astype(np.int16), 0.02, (-999, -998, -997, -996, -995)),
        (lambda field: 3 * field + 20, 0.02, (-60,)),
        (lambda field: np.clip(8000 * field + 20_000, 0, 48_000).astype(np.uint16), 0.21, (65535,)),
        (lambda field: np.clip(25 * field + 128, 30, 240).astype(np.uint8), 0.05, (255,)),
        (lambda field: (3000 * field).astype(np.int16), 0.2, (-32768,)),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_common_mark_behind_a_wide_gap_is_found_whatever_the_range(numbers, share, marks, seed):
    numbers = numbers(smooth(seed)).ravel()
    found = find_extremes(Counted.of(marked(numbers, share, *marks)), ends=ends(numbers.dtype))
    assert sorted(value for extreme in found for value in extreme.values) == sorted(map(float, marks))


def test_zero_is_a_natural_bound_where_the_unit_has_it():
    numbers = np.where(smooth(0) < 1, 0, 0.5 + np.exp(smooth(0) - 1)).ravel()
    assert find_extremes(Counted.of(numbers)) == []
    assert find_extremes(Counted.of(numbers + 5), zero=5.0) == []
    (found,) = find_extremes(Counted.of(numbers + 5))
    assert found.values == (5.0,)


@pytest.mark.parametrize("kind", NATURAL)
def test_what_nature_makes_does_not_stand_apart(kind):
    for seed in range(8):
        counted = Counted.of(NATURAL[kind](np.random.default_rng(seed)))
        assert find_extremes(counted) == []
        assert count_absurd(counted) == 0


@settings(max_examples=30)
@given(st.floats(1e-3, 1e3), st.floats(-1e4, 1e4), st.integers(0, 1000))
def test_finding_does_not_depend_on_the_unit(factor, offset, seed):
    rng = np.random.default_rng(seed)
    numbers = marked(rng.normal(0, 1, 2000), 0.1, -500)
    (found,) = find_extremes(Counted.of(numbers * factor + offset))
    assert found.values == (-500 * factor + offset,)


def test_random_bytes_among_measurements_are_absurd():
    rng = np.random.default_rng(2)
    numbers = kelvins()
    damaged = np.flatnonzero(rng.random(SIZE) < 0.02)
    garbage = np.frombuffer(rng.bytes(4 * len(damaged)), np.float32)
    numbers[damaged] = np.where(np.isfinite(garbage), garbage, 290)
    far = np.abs(numbers - 290) > 1e8
    counted = Counted.of(numbers)
    assert count_absurd(counted.without(find_extremes(counted))) == pytest.approx(far.sum(), rel=0.1)


def test_a_file_of_the_wrong_byte_order_is_absurd():
    numbers = kelvins().byteswap()
    assert count_absurd(Counted.of(numbers[np.isfinite(numbers)])) > 0.05 * SIZE
