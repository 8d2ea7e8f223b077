"""Alikeness of latents, and outliers, beside scikit-learn and the definitions."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_distances, linear_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import KernelCenterer

from nenya.evaluation.neighbours import nearest_others
from nenya.evaluation.outliers import neighbour_distance
from nenya.evaluation.similarity import Alikeness, linear_cka, mutual_neighbours


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 5)).astype(np.float32) + 9
    return x, (x @ rng.normal(size=(5, 7)) + rng.normal(size=(80, 7))).astype(np.float32)


def cka_by_kernels(x, y):
    """As the paper defines it, from [N, N] kernels."""
    k, m = (KernelCenterer().fit_transform(linear_kernel(rows.astype(np.float64))) for rows in (x, y))
    return (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())


def test_cka_is_that_of_the_kernels_however_the_rows_come(pair):
    assert linear_cka(*pair) == pytest.approx(cka_by_kernels(*pair), abs=1e-6)
    alikeness = Alikeness(5, 7)
    for start in range(0, 80, 9):
        alikeness.add(*(rows[start : start + 9] for rows in pair))
    assert alikeness.cka == pytest.approx(cka_by_kernels(*pair), abs=1e-6)


def test_cka_knows_no_rotation_no_scale_and_no_mean(pair):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))
    assert linear_cka(pair[0], 3 * pair[0] @ turn - 4) == pytest.approx(1)
    assert linear_cka(pair[0], np.random.default_rng(2).normal(size=(80, 5))) < 0.3
    assert math.isnan(linear_cka(pair[0], np.full((80, 2), 0.1)))


def test_mutual_neighbours_are_those_of_scikit_learn(pair):
    def near(rows):
        found = NearestNeighbors(n_neighbors=7, metric="cosine").fit(rows).kneighbors(return_distance=False)
        return [set(row) for row in found]

    expected = [len(a & b) / 7 for a, b in zip(near(pair[0]), near(pair[1]), strict=True)]
    found = mutual_neighbours(*map(torch.from_numpy, pair), 7)
    np.testing.assert_allclose(found, expected)
    assert mutual_neighbours(*[torch.from_numpy(pair[0])] * 2, 79).mean() == 1


def test_an_outlier_is_far_from_its_neighbours(pair):
    x = pair[0].copy()
    x[17] *= -1
    found = neighbour_distance(torch.from_numpy(x), 3)
    expected = np.sort(cosine_distances(x.astype(np.float64)), axis=1)[:, 3]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.argmax() == 17


def test_cutouts_that_are_there_many_times_are_their_own_neighbours():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4)))
    others, cosines = nearest_others(x[[0, 0, 0, 0, 1, 2]], 2)
    assert all(row not in found for row, found in enumerate(others.tolist()))
    assert set(others[3].tolist()) < {0, 1, 2}
    torch.testing.assert_close(cosines[:4], torch.ones(4, 2, dtype=torch.float64))
