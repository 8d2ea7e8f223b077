"""Health of the features: every figure against loops, closed forms and the symmetries that it must have."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group

from nenya.evaluation import health
from nenya.evaluation.health import alignment, collapse, effective_rank, measure, spread, uniformity, view_retrieval

ROUNDING = 1e-10  # float64 sums of some hundred terms

sizes = st.tuples(st.integers(2, 20), st.integers(2, 9), st.integers(0, 2**31))


def features(count, width, seed):
    return np.random.default_rng(seed).normal(size=(count, width))


def unit(x):
    return x / np.sqrt((x * x).sum(axis=1, keepdims=True))


def tensor(x, dtype=torch.float64):
    return torch.from_numpy(np.ascontiguousarray(x)).to(dtype)


def retrieval_by_loops(first, second):
    hits = {1: 0, 5: 0}
    for queries, gallery in ((first, second), (second, first)):
        for i in range(len(queries)):
            cosine = [
                sum(q * g for q, g in zip(queries[i], item, strict=True))
                / math.sqrt(sum(q * q for q in queries[i]) * sum(g * g for g in item))
                for item in gallery
            ]
            better = sum(1 for j in range(len(gallery)) if j != i and cosine[j] >= cosine[i])
            for k in hits:
                hits[k] += better < k
    return hits[1] / (2 * len(first)), hits[5] / (2 * len(first))


def effective_rank_by_svd(x):
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    p = values[values > 1e-9 * values[0]] / values.sum()
    return math.exp(-(p * np.log(p)).sum())


@given(sizes)
def test_retrieval_is_that_of_two_loops(size):
    count, width, seed = size
    first = features(count, width, seed)
    second = first + features(count, width, seed + 1)
    assert view_retrieval(tensor(first), tensor(second)) == retrieval_by_loops(first, second)


def similarity_in_fractions(query, item):
    """Sign and square of the cosine, times the square of the query's length: exact for whole numbers."""
    dot = sum(q * g for q, g in zip(query, item, strict=True))
    return Fraction(dot * abs(dot), sum(g * g for g in item) or 1)


whole_vectors = st.lists(st.integers(-3, 3), min_size=3, max_size=3)


@given(st.lists(st.tuples(whole_vectors, whole_vectors), min_size=1, max_size=9))
def test_retrieval_is_that_of_exact_arithmetic_ties_included(views):
    first, second = ([pair[view] for pair in views] for view in (0, 1))
    ranks = []
    for queries, gallery in ((first, second), (second, first)):
        for i, query in enumerate(queries):
            similarity = [similarity_in_fractions(query, item) for item in gallery]
            ranks.append(sum(value >= similarity[i] for value in similarity) - 1)
    expected = tuple(sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5))
    assert view_retrieval(torch.tensor(first), torch.tensor(second)) == expected


def test_equal_similarities_count_against_the_model():
    # every similarity is a small whole number over 1, so ties are exact
    first = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    second = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    assert view_retrieval(first, second)[0] == pytest.approx(1 / 3, abs=ROUNDING)  # the twins 0 and 2 are no hits


@pytest.mark.parametrize("count", [6, 7, 16, 33, 100])
@pytest.mark.parametrize("width", [3, 16, 37, 512])
def test_constant_features_retrieve_nothing(count, width):
    constant = tensor(features(1, width, 3), torch.float32).expand(count, width)
    assert view_retrieval(constant, constant) == (0.0, 0.0)
    assert view_retrieval(torch.zeros(count, width), torch.zeros(count, width)) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 64, 512])
def test_features_that_only_rounding_keeps_apart_retrieve_nothing(dtype, width):
    # one direction, each row rounded in its own way, the two views of a sample alike: as a network's kernels round it
    ulps = tensor(np.random.default_rng(0).integers(-2, 3, (40, width)), dtype)
    constant = tensor(features(1, width, 3), dtype) * (1 + torch.finfo(dtype).eps * ulps)
    assert view_retrieval(constant, constant) == (0.0, 0.0)


def test_small_differences_of_direction_are_told_apart():
    angles = torch.arange(50, dtype=torch.float64) * 1e-5  # a millionth of what a healthy network spreads over
    arc = torch.stack((angles.cos(), angles.sin()), dim=1)
    assert view_retrieval(arc, 2 * arc.float()) == (1.0, 1.0)


def test_features_that_are_not_numbers_are_no_hits():
    first = tensor(features(10, 4, 0))
    first[3] = math.nan
    first[6] = math.inf
    assert view_retrieval(first, first)[0] == pytest.approx(0.8, abs=ROUNDING)
    assert view_retrieval(first * math.nan, first * math.nan) == (0.0, 0.0)


def test_perfect_features_retrieve_everything_and_shuffled_ones_chance():
    first = tensor(features(300, 40, 0))
    assert view_retrieval(first, 3 * first) == (1.0, 1.0)
    top1, top5 = view_retrieval(first, tensor(features(300, 40, 1)))
    # binomial over 600 queries: four standard deviations above chance are 0.013 and 0.038
    assert top1 < 0.013
    assert top5 < 0.038


def test_own_view_second_to_sixth_counts_for_the_five_nearest_only_where_it_should():
    # gallery directions at rising angles; the query's own is the fifth nearest, then the sixth
    angles = np.radians([0, 1, 2, 3, 4, 5, 6])
    gallery = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    for own, within in ((4, True), (5, False)):
        ranks = health._ranks_of_own(tensor(np.tile(gallery[:1], (7, 1))), tensor(gallery))
        assert int(ranks[own]) == own
        assert bool(ranks[own] < 5) is within


@given(sizes)
def test_alignment_is_the_mean_squared_distance_on_the_sphere(size):
    count, width, seed = size
    first, second = features(count, width, seed), features(count, width, seed + 1)
    expected = np.mean([((a - b) ** 2).sum() for a, b in zip(unit(first), unit(second), strict=True)])
    assert alignment(tensor(first), tensor(second)) == pytest.approx(expected, rel=ROUNDING)


def test_alignment_runs_from_coinciding_to_opposite_views():
    x = tensor(features(9, 5, 0))
    assert alignment(x, 2 * x) == pytest.approx(0, abs=ROUNDING)
    assert alignment(x, -x) == pytest.approx(4, abs=ROUNDING)


@given(sizes)
def test_uniformity_is_the_log_mean_potential_over_all_pairs(size):
    count, width, seed = size
    x = features(count, width, seed)
    expected = math.log(np.exp(-2 * pdist(unit(x), "sqeuclidean")).mean())
    assert uniformity(tensor(x)) == pytest.approx(expected, abs=ROUNDING)


def test_uniformity_of_points_in_one_place_and_of_an_even_sphere():
    assert uniformity(torch.ones(8, 3)) == pytest.approx(0, abs=ROUNDING)
    # far directions are orthogonal in many dimensions: squared distance 2, potential exp(-4)
    assert uniformity(torch.eye(64)) == pytest.approx(-4, abs=ROUNDING)


def test_uniformity_of_the_zero_vectors_of_a_dead_network_is_that_of_one_point():
    assert uniformity(torch.zeros(8, 3)) == 0
    half_dead = torch.cat((torch.zeros(2, 3), torch.eye(3)[:2]))  # squared distances 0, 2 and four times 1
    expected = math.log((1 + math.exp(-4) + 4 * math.exp(-2)) / 6)
    assert uniformity(half_dead) == pytest.approx(expected, abs=ROUNDING)


@given(sizes, st.floats(0, 1))
def test_uniformity_stays_within_its_range(size, dead):
    count, width, seed = size
    x = tensor(features(count, width, seed))
    x[: round(dead * count)] = 0
    assert -8 - ROUNDING <= uniformity(x) <= 0
    assert math.isnan(uniformity(torch.full((4, 3), float("nan"))))


@given(sizes)
def test_effective_rank_is_the_entropy_of_the_singular_values(size):
    count, width, seed = size
    x = features(count, width, seed) * np.linspace(0.1, 3, width)
    # the eigenvalues of the Gram matrix carry an error of 1e-16 of the largest, so small singular values one of 1e-8
    assert effective_rank(tensor(x)) == pytest.approx(effective_rank_by_svd(x), rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
@pytest.mark.parametrize("width", [8, 40])  # fewer and more dimensions than samples
def test_effective_rank_of_k_orthogonal_directions_of_equal_size_is_k(k, width):
    x = np.zeros((2 * k + 4, width))
    for direction in range(k):
        x[2 * direction, direction], x[2 * direction + 1, direction] = 1, -1
    x = x @ ortho_group.rvs(width, random_state=k)
    assert effective_rank(tensor(x) + 5) == pytest.approx(k, rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 7, 50])
def test_effective_rank_of_one_direction_is_one_and_of_constant_features_zero(count, dtype):
    direction = features(1, 6, 1)
    along = features(count, 1, 2) * direction
    # the rounding of float32 features leaves singular values of 1e-7 beside the one: 1e-7 log(1e7) each
    assert effective_rank(tensor(along + 3, dtype)) == pytest.approx(1, abs=2e-5)
    assert effective_rank(tensor(np.tile(direction, (count, 1)), dtype)) == 0
    assert effective_rank(torch.zeros(count, 6, dtype=dtype)) == 0


@given(sizes, st.floats(1e-3, 1e3))
def test_effective_rank_does_not_depend_on_rotation_scale_or_origin(size, scale):
    count, width, seed = size
    x = features(count, width, seed)
    rotation = ortho_group.rvs(width, random_state=seed)
    moved = scale * (x @ rotation + features(1, width, seed + 2))
    assert effective_rank(tensor(moved)) == pytest.approx(effective_rank(tensor(x)), rel=1e-6)


@given(sizes)
def test_effective_rank_lies_between_one_and_what_the_shape_allows(size):
    count, width, seed = size
    rank = effective_rank(tensor(features(count, width, seed)))
    assert 1 - 1e-6 <= rank <= min(count - 1, width) + 1e-6


@given(sizes)
def test_spread_is_the_deviation_of_the_directions(size):
    count, width, seed = size
    x = unit(features(count, width, seed))
    expected = math.sqrt(width) * math.sqrt(np.mean([column.std() ** 2 for column in x.T]))
    assert spread(tensor(x) * 7) == pytest.approx(expected, abs=ROUNDING)


def test_spread_is_near_one_for_isotropic_and_zero_for_constant_features():
    # the mean of N unit vectors has a squared length of about 1/N: sqrt(1 - 1/4000) = 0.99987
    assert spread(tensor(features(4000, 16, 0))) == pytest.approx(1, abs=5e-4)
    assert spread(tensor(features(1, 16, 0)).expand(50, 16)) == pytest.approx(0, abs=1e-7)
    # directions within a cone of a hundredth: as small as the noise
    narrow = tensor(features(1, 16, 0)) * 100 + tensor(features(50, 16, 1))
    assert spread(narrow) < 0.02


@pytest.mark.parametrize("count", [6, 7, 8, 14, 15, 20])
def test_tiles_change_nothing(monkeypatch, count):
    first = tensor(features(count, 4, 0))
    second = first + 0.5 * tensor(features(count, 4, 1))
    whole = view_retrieval(first, second), uniformity(first)
    monkeypatch.setattr(health, "_TILE", 7)
    assert view_retrieval(first, second) == whole[0]
    assert uniformity(first) == pytest.approx(whole[1], abs=ROUNDING)  # sums in another order


def test_measure_puts_every_figure_in_its_place():
    h1, h2 = tensor(features(12, 9, 0)), tensor(features(12, 9, 1))
    z1, z2 = tensor(features(12, 4, 2)), tensor(features(12, 4, 3))
    top1, top5 = view_retrieval(h1, h2)
    assert dataclasses.asdict(measure(h1, h2, z1, z2)) == {
        "num_samples": 12,
        "retrieval_top1": top1,
        "retrieval_top5": top5,
        "chance_top1": 1 / 12,
        "alignment": alignment(z1, z2),
        "uniformity": uniformity(torch.cat((z1, z2))),
        "effective_rank": effective_rank(torch.cat((h1, h2))),
        "spread": spread(torch.cat((h1, h2))),
        "effective_rank_z": effective_rank(torch.cat((z1, z2))),
        "spread_z": spread(torch.cat((z1, z2))),
    }


def verdict(z):
    half = len(z) // 2
    h = tensor(features(len(z), 8, 9))
    return collapse(measure(h[:half], h[half:], z[:half], z[half:]))


def test_constant_embeddings_are_called_a_collapse():
    assert verdict(tensor(features(1, 8, 0)).expand(40, 8)).startswith("all cutouts have (almost) the same embedding")
    nearly = tensor(features(1, 8, 0)) + 1e-4 * tensor(features(40, 8, 1))
    assert verdict(nearly).startswith("all cutouts have (almost) the same embedding")


def test_embeddings_along_one_direction_are_called_a_collapse():
    along = tensor(features(40, 1, 0) * features(1, 8, 1))
    assert verdict(along).startswith("the embeddings vary along (almost) one direction: effective rank of z 1,")
    assert verdict(along + 1e-3 * tensor(features(40, 8, 2))) is not None


@pytest.mark.parametrize("rotation", range(8))
def test_two_equal_directions_are_no_collapse_however_they_are_rounded(rotation):
    square = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]], dtype=torch.float64).repeat(10, 1)
    z = square @ tensor(ortho_group.rvs(8, random_state=rotation)[:2])  # effective rank 2, or just below
    assert verdict(z) is None


@pytest.mark.parametrize("width", [8, 128])
def test_varied_embeddings_are_no_collapse(width):
    assert verdict(tensor(features(40, width, 0))) is None


def test_the_verdict_is_on_the_embeddings_and_not_on_the_encoder():
    z, h = tensor(features(40, 8, 0)), torch.ones(20, 8)
    assert collapse(measure(h, h, z[:20], z[20:])) is None
