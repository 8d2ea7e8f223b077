"""Trustworthiness against scikit-learn's, and the share of neighbours kept against brute force."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from nenya.latents.store import Latents
from nenya.maps import trust
from nenya.search.vectors import Vectors
from tests.maps.conftest import latents_in_groups
from tests.search.conftest import write_latents


def nothing(_):
    pass


@pytest.mark.parametrize("skipped", [0, 37])
def test_with_all_rows_it_is_that_of_scikit_learn(tmp_path, monkeypatch, skipped):
    monkeypatch.setattr(trust, "_BLOCK", 50)
    values = latents_in_groups(220, 24)[0]
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values[:150], values[150:])))
    members = np.arange(skipped, 220)
    places = (values[members] @ np.random.default_rng(0).normal(size=(24, 2))).astype(np.float32)
    ranks = trust.measure(vectors, members, places, np.arange(len(members)), nothing)
    found = trust.summary(ranks, len(members))
    expected = trustworthiness(values[members], places, n_neighbors=15, metric="cosine")
    assert found.trustworthiness == pytest.approx(expected, abs=2e-4)
    true, shown = (_nearest(distances, 15) for distances in (_cosine(values[members]), _squares(places)))
    kept = np.mean([len(set(a) & set(b)) / 15 for a, b in zip(true, shown, strict=True)])
    assert found.kept == pytest.approx(kept, abs=2e-4)
    assert found.anchors == len(members)


def _cosine(values):
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return -(unit @ unit.T)


def _squares(places):
    return ((places[:, None].astype(float) - places[None]) ** 2).sum(axis=2)


def _nearest(distances, k):
    distances = distances.copy()
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1)[:, :k]


def test_a_sample_of_anchors_estimates_it(tmp_path):
    values = latents_in_groups(400, 24)[0]
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values)))
    members = np.arange(400)
    places = values[:, :2]
    whole = trust.measure(vectors, members, places, members, nothing)
    some = trust.measure(vectors, members, places, np.array([3, 200, 399]), nothing)
    np.testing.assert_array_equal(some, whole[[3, 200, 399]])


def test_a_perfect_map_is_trusted_and_a_random_one_is_not(tmp_path):
    angle = np.random.default_rng(0).uniform(0, np.pi, 300)
    values = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values)))
    members = np.arange(300)
    good = trust.summary(trust.measure(vectors, members, values, members, nothing), 300)
    assert (good.trustworthiness, good.kept) == (pytest.approx(1, abs=1e-3), pytest.approx(1, abs=0.01))
    places = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    bad = trust.summary(trust.measure(vectors, members, places, members, nothing), 300)
    assert bad.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert bad.kept < 0.1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_few_rows_give_figures_of_fewer_neighbours_or_none(tmp_path, count):
    values = latents_in_groups(count, 5)[0]
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values)))
    found = trust.summary(trust.measure(vectors, np.arange(count), values[:, :2], np.arange(count), nothing), count)
    if count < 3:
        assert found is None
    else:
        assert found.neighbours == (count - 1) // 2
        assert 0 <= found.trustworthiness <= 1
