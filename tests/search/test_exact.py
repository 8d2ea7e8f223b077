"""The exact search against the brute-force one of `nenya.evaluation.neighbours`, and what it refuses."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from nenya.errors import DataError, OptionError
from nenya.evaluation.neighbours import nearest_neighbours
from nenya.latents.store import Latents
from nenya.search import exact, threads
from nenya.search.exact import ExactSearch, unit
from nenya.search.vectors import Vectors


@pytest.fixture
def vectors(write_latents, tmp_path):
    numbers = itertools.count()

    def make(train, valid=None, **more):
        return Vectors(Latents(write_latents(tmp_path / f"{next(numbers)}.h5", train, valid, **more)))

    return make


def brute_force(queries, stored, count):
    return nearest_neighbours(torch.from_numpy(queries), torch.from_numpy(stored.astype(np.float64)), count).numpy()


def numbers_of(found):
    return np.array([one.numbers for one in found])


@pytest.fixture(params=["blocks", "whole"])
def blocks(request, monkeypatch):
    """Small blocks, of which most hold nothing that is near, or one."""
    monkeypatch.setattr(exact, "_BLOCK_NUMBERS", 16 * 24 if request.param == "blocks" else 2**19)
    monkeypatch.setattr(exact, "_MOST_SCORES", 16 * 3 if request.param == "blocks" else 2**21)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_it_is_the_brute_force_answer(vectors, blocks, dtype, spread):
    rng = np.random.default_rng(0)
    stored = (rng.normal(size=24) + spread * rng.normal(size=(500, 24))).astype(dtype)
    stored[100:120] = stored[7]  # more duplicates than neighbours
    stored[300] = 2 * stored[7]
    queries = unit(np.concatenate([stored[[7, 100, 450]], rng.normal(size=(4, 24)).astype(dtype)]))
    mine = vectors(stored[:350], stored[350:], dtype=dtype)
    for count in (1, 10, 60, 500):
        found = ExactSearch(mine).nearest(queries, count, mine.usable)
        np.testing.assert_array_equal(numbers_of(found), brute_force(queries, stored, count))
    wide = stored.astype(np.float64)
    cosine = (wide @ queries[4]) / np.linalg.norm(wide, axis=1)
    np.testing.assert_allclose(found[4].cosines, cosine[found[4].numbers], atol=1e-14)


def test_differences_near_the_rounding_of_float32_are_told_apart(vectors, blocks):
    rng = np.random.default_rng(0)
    stored = (rng.normal(size=24) + 1e-6 * rng.normal(size=(500, 24))).astype(np.float32)
    mine, queries = vectors(stored), unit(stored[:3])
    wide = stored.astype(np.float64)
    cosine = queries @ (wide / np.linalg.norm(wide, axis=1, keepdims=True)).T
    for found, all_of_them in zip(ExactSearch(mine).nearest(queries, 20, mine.usable), cosine, strict=True):
        np.testing.assert_allclose(np.sort(found.cosines), np.sort(all_of_them)[-20:], rtol=0, atol=1e-13)
        np.testing.assert_allclose(all_of_them[found.numbers], found.cosines, rtol=0, atol=1e-15)


def test_ties_of_all_rows_come_in_order(vectors, blocks, monkeypatch):
    monkeypatch.setattr(exact, "_MOST_WAITING", 50)
    stored = np.ones((400, 24), np.float32) * np.float32(2.0) ** np.random.default_rng(0).integers(-3, 3, (400, 1))
    mine = vectors(stored)
    (found,) = ExactSearch(mine).nearest(unit(stored[:1]), 7, mine.usable, np.array([2]))
    assert found.numbers.tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_rows_that_are_not_allowed_and_the_query_itself_are_left_out(vectors, blocks):
    rng = np.random.default_rng(1)
    stored = rng.normal(size=(200, 24)).astype(np.float32)
    stored[150:] = np.nan
    mine = vectors(stored)
    allowed = mine.usable & (np.arange(200) % 3 == 0)
    kept = np.flatnonzero(allowed)
    queries = unit(stored[[3, 4]])
    found = ExactSearch(mine).nearest(queries, 5, allowed, np.array([3, 4]))
    for query, own, one in zip(queries, (3, 4), found, strict=True):
        others = kept[kept != own]
        np.testing.assert_array_equal(one.numbers, others[brute_force(query[None], stored[others], 5)[0]])
    everything = ExactSearch(mine).nearest(queries, 500, allowed, np.array([3, -1]))
    assert [len(one.numbers) for one in everything] == [len(kept) - 1, len(kept)]


def test_a_second_search_with_known_lengths_is_the_same(vectors):
    stored = np.random.default_rng(2).normal(size=(300, 24)).astype(np.float16)
    mine = vectors(stored, dtype="float16")
    searcher, queries = ExactSearch(mine), unit(stored[:5])
    first, second = (searcher.nearest(queries, 10, mine.usable) for _ in range(2))
    np.testing.assert_array_equal(numbers_of(first), numbers_of(second))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_usable_rows_that_are_not_finite_are_refused_by_name(vectors, bad):
    stored = np.ones((40, 24), np.float32)
    stored[5, 3] = bad
    mine = vectors(np.ones((9, 24)), stored)
    with pytest.raises(DataError, match=r"valid:5 is not finite"):
        ExactSearch(mine).nearest(unit(stored[:1]), 3, mine.usable)
    with pytest.raises(DataError, match="no direction"):
        unit(stored[5:6])
    with pytest.raises(DataError, match="no direction"):
        unit(np.zeros((1, 4)))


def test_a_latent_of_length_zero_is_near_to_none(vectors):
    stored = np.eye(24, dtype=np.float32)
    stored[3] = 0
    mine = vectors(stored)
    (found,) = ExactSearch(mine).nearest(unit(np.ones((1, 24))), 24, mine.usable)
    assert found.numbers[-1] == 3
    assert found.cosines[-1] == 0


def test_torch_keeps_its_threads_in_every_other_thread(vectors):
    before = torch.get_num_threads()
    threads._threads.cache_clear()
    torch.set_num_threads(3)
    try:
        mine = vectors(np.eye(24))
        ExactSearch(mine).nearest(unit(np.ones((1, 24))), 2, mine.usable)
        with ThreadPoolExecutor(1) as other:
            assert [torch.get_num_threads(), other.submit(torch.get_num_threads).result()] == [3, 3]
    finally:
        torch.set_num_threads(before)


def test_rows_of_one_direction_are_ties_whatever_their_length(vectors, blocks):
    """Whole numbers, so that the lengths differ exactly; the cosines differ by rounding."""
    rng = np.random.default_rng(3)
    stored = rng.integers(1, 9, 24) * rng.integers(1, 1000, (300, 1)).astype(np.float32)
    query = unit(rng.normal(size=(1, 24)))
    mine = vectors(stored)
    assert len(np.unique(exact.cosines(np.repeat(query, 300, axis=0), stored))) > 1
    (found,) = ExactSearch(mine).nearest(query, 20, mine.usable)
    assert found.numbers.tolist() == list(range(20))


def test_rows_have_names(vectors):
    mine = vectors(np.ones((5, 4)), np.ones((3, 4)))
    assert [mine.named(text) for text in ("valid:2", "train:4", "3")] == [7, 4, 3]
    assert [mine.name(number) for number in (0, 4, 5)] == ["train:0", "train:4", "valid:0"]
    for text, says in (("valid:3", "0 to 2"), ("test:1", "train, valid"), ("valid:-1", "KEY:ROW"), ("x", "KEY:ROW")):
        with pytest.raises(OptionError, match=says):
            mine.named(text)


def test_rows_are_picked_in_the_order_in_which_they_are_asked_for(vectors):
    stored = np.arange(64.0).reshape(8, 8)
    mine = vectors(stored[:5], stored[5:])
    rows = np.array([7, 0, 4, 5, 0, 6])
    np.testing.assert_array_equal(mine.pick(rows), stored[rows])
    assert mine.pick(np.empty(0, np.int64)).shape == (0, 8)


def test_a_file_that_shrinks_is_an_error(vectors):
    mine = vectors(np.ones((500, 24)))
    with mine.latents.path.open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(DataError, match="cannot be read"):
        ExactSearch(mine).nearest(unit(np.ones((1, 24))), 2, mine.usable)


def test_a_search_that_is_no_longer_wanted_ends_between_blocks(vectors, monkeypatch):
    monkeypatch.setattr(exact, "_BLOCK_NUMBERS", 16)
    mine = vectors(np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32))
    search, looked_at, calls = ExactSearch(mine), [], []
    read = mine.read
    monkeypatch.setattr(mine, "read", lambda block: looked_at.append(block) or read(block))

    def watch():
        calls.append(None)
        if len(calls) > 20:
            raise InterruptedError

    query = unit(np.ones((1, 16)))
    with pytest.raises(InterruptedError):
        search.nearest(query, 3, mine.usable, watch=watch)
    assert len(looked_at) <= 20
    calls.clear()
    whole = ExactSearch(mine).nearest(query, 3, mine.usable)
    np.testing.assert_array_equal(
        search.nearest(query, 3, mine.usable, watch=lambda: None)[0].numbers, whole[0].numbers
    )


def test_very_many_wanted_are_not_sorted_again_with_every_block(vectors, blocks, monkeypatch):
    rng = np.random.default_rng(0)
    mine = vectors(rng.normal(size=(2000, 24)))
    sorts, original = [], exact._Question._throw_away
    monkeypatch.setattr(exact._Question, "_throw_away", lambda self: (sorts.append(1), original(self)))
    (found,) = ExactSearch(mine).nearest(unit(rng.normal(size=(1, 24))), 5000, mine.usable)
    assert len(found.numbers) == 2000
    assert len(sorts) <= 1  # 125 blocks
