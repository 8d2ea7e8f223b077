"""Nearest neighbours, beside SciPy and exact loops."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from nenya.evaluation.neighbours import knn_accuracy, nearest_neighbours


@pytest.mark.parametrize("most_distances", [2**24, 7 * 20, 1])
def test_the_nearest_by_distance_are_scipys_even_far_from_the_origin(monkeypatch, most_distances):
    monkeypatch.setattr("nenya.evaluation.neighbours._MOST_DISTANCES", most_distances)
    rng = np.random.default_rng(3)
    queries, gallery = 290 + 0.1 * rng.normal(size=(2, 20, 50))
    expected = np.argsort(cdist(queries.astype(np.float32), gallery.astype(np.float32)), axis=1)[:, :4]
    found = nearest_neighbours(torch.tensor(queries).float(), torch.tensor(gallery).float(), 4, "euclidean")
    assert np.array_equal(found.numpy(), expected)


def exactly_nearest(query, gallery, metric):
    """Indices of the gallery by rising distance, equal ones by index, in fractions: exact for whole numbers."""

    def distance(item):
        if metric == "euclidean":
            return sum((q - g) ** 2 for q, g in zip(query, item, strict=True))
        dot = sum(q * g for q, g in zip(query, item, strict=True))
        return -Fraction(dot * abs(dot), sum(g * g for g in item))

    return sorted(range(len(gallery)), key=lambda index: distance(gallery[index]))


vectors = st.lists(st.integers(-3, 3), min_size=3, max_size=3).filter(any)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@given(st.lists(vectors, min_size=1, max_size=6), st.lists(vectors, min_size=1, max_size=12), st.data())
def test_items_as_near_as_each_other_come_in_the_order_of_the_gallery(metric, queries, gallery, data):
    count = data.draw(st.integers(1, len(gallery)))
    expected = [exactly_nearest(query, gallery, metric)[:count] for query in queries]
    assert nearest_neighbours(torch.tensor(queries), torch.tensor(gallery), count, metric).tolist() == expected


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("width", [37, 512])
def test_cutouts_that_the_gallery_holds_several_times_come_in_its_order(metric, width):
    rng = np.random.default_rng(1)
    different = 290 + rng.normal(size=(9, width))
    which = rng.integers(0, 9, 101)
    gallery = torch.tensor(different[which]).float()
    found = nearest_neighbours(gallery[:40], gallery, 30, metric)
    for query, row in enumerate(found.tolist()):
        alike = np.flatnonzero(which == which[query]).tolist()
        assert row[: len(alike)] == alike
        assert (
            row == nearest_neighbours(gallery[[query]], gallery, 30, metric)[0].tolist()
        )  # as a product of another shape
    collapsed = torch.tensor(different[:1]).float().expand(101, width)
    assert nearest_neighbours(collapsed[:7], collapsed, 5, metric).tolist() == 7 * [[0, 1, 2, 3, 4]]


def test_one_cutout_far_from_all_does_not_blur_the_others():
    x = torch.arange(20.0)[:, None].expand(20, 64).clone()
    x[7] = 1e9
    assert nearest_neighbours(x[[3]], x, 4, "euclidean").tolist() == [[3, 2, 4, 1]]


def test_no_query_has_no_neighbours():
    assert nearest_neighbours(torch.zeros(0, 3), torch.ones(4, 3), 2).shape == (0, 2)


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@given(st.integers(1, 8), st.integers(5, 12), st.integers(0, 2**31))
def test_the_nearest_are_those_of_two_loops_nearest_first(queries, gallery, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(queries, 4)).astype(np.float32)
    y = rng.normal(size=(gallery, 4)).astype(np.float32) * rng.uniform(0.1, 10, (gallery, 1)).astype(np.float32)
    found = nearest_neighbours(torch.from_numpy(x), torch.from_numpy(y), 5).numpy()
    for query, row in zip(x.astype(float), found, strict=True):
        similarity = np.array([cosine(query, item) for item in y.astype(float)])
        assert len(set(row)) == 5
        # float32 similarities: two that differ by less than 1e-6 may change places
        assert np.allclose(similarity[row], np.sort(similarity)[::-1][:5], rtol=0, atol=1e-6)


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_knn_accuracy_is_that_of_counted_votes(neighbours, seed):
    rng = np.random.default_rng(seed)
    train, valid = rng.normal(size=(30, 5)), rng.normal(size=(20, 5))
    train_labels, valid_labels = rng.integers(0, 3, 30), rng.integers(0, 3, 20)
    right = 0
    for query, label in zip(valid, valid_labels, strict=True):
        order = sorted(range(30), key=lambda row: -cosine(query, train[row]))
        votes = [int(train_labels[row]) for row in order[:neighbours]]
        right += min(set(votes), key=lambda vote: (-votes.count(vote), vote)) == label
    found = knn_accuracy(
        torch.from_numpy(train), train_labels, torch.from_numpy(valid), valid_labels, neighbours=neighbours
    )
    assert found == pytest.approx(right / 20, abs=1e-12)


def test_a_tie_of_votes_goes_to_the_smallest_label():
    train = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 0.2], [1.0, 0.3], [-1.0, 0.0]])
    labels = np.array([4, 2, 4, 2, 0])
    assert knn_accuracy(train, labels, torch.tensor([[1.0, 0.0]]), np.array([2]), neighbours=4) == 1
    assert knn_accuracy(train, labels, torch.tensor([[1.0, 0.0]]), np.array([4]), neighbours=4) == 0
