"""Components, landmarks, the nearest landmarks and the places between them, against brute force."""

import dataclasses

import numpy as np
import pytest
import torch

from nenya.errors import DataError
from nenya.latents.store import Latents
from nenya.maps import components, landmarks, placing
from nenya.maps.components import Moments, project, survey
from nenya.maps.layout import Layout
from nenya.maps.placing import Nearest, Placing, weighted
from nenya.search.facts import Facts
from nenya.search.vectors import Vectors
from tests.maps.conftest import latents_in_groups
from tests.search.conftest import write_latents


def unit(values):
    wide = values.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def test_components_are_those_of_the_latents_of_unit_length(make, monkeypatch):
    monkeypatch.setattr(components, "BLOCK", 37)
    latents = Latents(make(200, 60, dims=24))
    vectors = Vectors(latents)
    stored = np.concatenate([latents.read(key, 0, latents.num_rows(key)) for key in latents.keys])
    found = survey(vectors, np.zeros(len(vectors), np.int64), 1, 0, lambda _: None)
    mean, basis = found.moments[0].basis(10)
    rows = unit(stored)
    np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-5)
    expected = np.linalg.svd(rows - rows.mean(axis=0))[2][:10].T
    np.testing.assert_allclose(np.abs((basis * expected).sum(axis=0)), 1, atol=1e-5)
    inside, rest = project(rows, mean, basis)
    np.testing.assert_allclose(inside, (rows - mean) @ basis, atol=1e-6)
    left = rows - mean - ((rows - mean) @ basis) @ basis.T
    np.testing.assert_allclose(rest, np.linalg.norm(left, axis=1), atol=1e-5)


def test_components_do_not_depend_on_order_or_blocks_by_a_bit(make, monkeypatch, tmp_path):
    values, _ = latents_in_groups(300, 24)
    order = np.random.default_rng(1).permutation(300)
    found = []
    for block, some in ((17, values), (300, values), (64, values[order])):
        monkeypatch.setattr(components, "BLOCK", block)
        vectors = Vectors(Latents(write_latents(tmp_path / f"{block}.h5", some)))
        found.append(survey(vectors, np.zeros(300, np.int64), 1, 0, lambda _: None))
    for other in found[1:]:
        for one, another in zip(found[0].moments[0].basis(50), other.moments[0].basis(50), strict=True):
            np.testing.assert_array_equal(one, another)
    np.testing.assert_array_equal(found[0].marks, found[1].marks)
    np.testing.assert_array_equal(found[0].marks[order], found[2].marks)


def test_a_latent_is_placed_the_same_in_whatever_company():
    values = unit(latents_in_groups(500, 24)[0])
    moments = Moments.of(values)
    mean, basis = moments.basis(20)
    layout = _layout(values[:100], mean, basis)
    alone = [Placing(layout).place(*project(values[row : row + 1], mean, basis)) for row in range(100, 150)]
    turned = values[150:99:-1]
    for company in (values[100:150], values[100:500], turned):
        together = Placing(layout).place(*project(company, mean, basis))
        places = together.coordinates[:50] if company is not turned else together.coordinates[::-1][:50]
        np.testing.assert_array_equal(places, np.concatenate([one.coordinates for one in alone]))


def _layout(values, mean, basis, seed=0):
    inside, rest = project(values, mean, basis)
    places = np.random.default_rng(seed).normal(size=(len(values), 2)).astype(np.float32)
    return Layout("all", mean, basis, np.arange(len(values)), inside, rest, places, 0.5)


@pytest.mark.parametrize("count", [1, 5, 40, 700, 3000])
def test_the_nearest_landmarks_are_those_of_brute_force(count, monkeypatch):
    monkeypatch.setattr(placing, "_SCORES", 2**15)
    draw = np.random.default_rng(count)
    points = draw.normal(size=(count, 6)).astype(np.float32)
    rows = draw.normal(size=(90, 6)).astype(np.float32)
    k = min(16, count)
    found, distances = Nearest(points).find(rows, k)
    exact = np.linalg.norm(points[None].astype(float) - rows[:, None].astype(float), axis=2)
    np.testing.assert_array_equal(found, np.argsort(exact, axis=1, kind="stable")[:, :k])
    np.testing.assert_allclose(distances, np.sort(exact, axis=1)[:, :k])


def test_among_landmarks_in_one_place_the_first_are_nearest():
    points = np.zeros((12, 3), np.float32)
    found, distances = Nearest(points).find(np.ones((2, 3), np.float32), 5)
    np.testing.assert_array_equal(found, [[0, 1, 2, 3, 4]] * 2)
    assert np.isfinite(distances).all()


def test_nearer_landmarks_count_more_and_the_last_not_at_all():
    weights = weighted(np.array([[1.0, 2.0, 4.0], [0.0, 1.0, 2.0], [0.0, 0.0, 1.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]))
    expected = np.array([(1 - 1 / 4) ** 2, (1 / 2 - 1 / 4) ** 2, 0])
    np.testing.assert_allclose(weights[0], expected / expected.sum())
    np.testing.assert_allclose(weights[1], [1, 0, 0])
    np.testing.assert_allclose(weights[2], [0.5, 0.5, 0])
    np.testing.assert_allclose(weights[3:], 1 / 3)
    np.testing.assert_allclose(weighted(np.array([[0.3]])), 1)


def test_a_double_of_a_landmark_lies_on_it_and_a_stranger_is_far():
    values = unit(latents_in_groups(120, 24, groups=3)[0])
    mean, basis = Moments.of(values).basis(5)
    layout = _layout(values, mean, basis)
    layout = dataclasses.replace(layout, reach=0.9)
    found = Placing(layout).place(*project(values[:7], mean, basis))
    np.testing.assert_array_equal(found.coordinates, layout.coordinates[:7])
    assert not found.far.any()
    # At right angles to all components: these do not tell it from the mean, but what they leave of it does.
    stranger = np.random.default_rng(5).normal(size=(1, 24))
    stranger -= stranger @ basis @ basis.T
    assert Placing(layout).place(*project(unit(-values[:1]), mean, basis)).far.all()
    assert Placing(layout).place(*project(unit(stranger) * 3, mean, basis)).far.all()


def test_landmarks_are_spread_over_place_and_month(make):
    crowd = np.where(np.arange(360) < 300, 12.0, np.linspace(-150, 150, 360))
    latents = make(300, 60, lon=crowd, lat=np.full(360, 5.0))
    vectors = Vectors(Latents(latents))
    cell = landmarks.cells(Facts(latents.with_name("cutouts.parquet"), vectors), 360)
    marks = survey(vectors, np.zeros(360, np.int64), 1, 0, lambda _: None).marks
    everything = np.arange(360)
    chosen = landmarks.choose(everything, marks, cell, 100)
    assert len(set(chosen)) == 100
    counts = np.unique(cell[chosen], return_counts=True)[1]
    sizes = np.unique(cell, return_counts=True)
    assert len(counts) == len(sizes[0])  # every cell has one
    taken = dict(zip(*np.unique(cell[chosen], return_counts=True), strict=True))
    most = max(taken.values())
    assert all(taken[one] >= min(size, most - 1) for one, size in zip(*sizes, strict=True))
    order = np.random.default_rng(0).permutation(360)
    again = landmarks.choose(everything, marks[order], cell[order], 100)
    np.testing.assert_array_equal(order[again], chosen)


def test_cells_have_equal_areas_and_know_no_convention_of_longitude():
    class Table:
        has_places, has_times = True, True
        times = np.array(["2020-01-31", "2021-01-01", "2020-02-01", "NaT"], "datetime64[us]")
        lon, lat = np.array([-10.0, 350.0, 350.0, 350.0]), np.array([89.0, 65.0, 89.0, np.nan])

        def column(self, name):
            return getattr(self, name)

    found = landmarks.cells(Table(), 4)
    assert found[0] == found[1]  # the band at the pole begins at 63 N
    assert len(set(found[1:])) == 3
    np.testing.assert_array_equal(landmarks.cells(None, 2), [0, 0])


def test_no_latent_is_a_landmark_twice():
    members = np.arange(9)
    marks = np.array([7, 7, 3, 3, 3, 9, 1, 1, 7], np.uint64)
    assert landmarks.choose(members, marks, np.zeros(9, np.int64), 100).tolist() == [6, 2, 0, 5]
    assert landmarks.choose(members, marks, np.zeros(9, np.int64), 2).tolist() == [6, 2]
    assert landmarks.choose(members[:0], marks[:0], members[:0], 2).tolist() == []


def test_a_latent_that_is_not_finite_is_refused(tmp_path):
    values = np.ones((40, 4), np.float32)
    values[7, 2] = np.inf
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values, usable={"train": np.ones(40, bool)})))
    with pytest.raises(DataError, match="not finite"):
        survey(vectors, np.zeros(40, np.int64), 1, 0, lambda _: None)


def test_threads_of_torch_do_not_matter():
    values = unit(latents_in_groups(400, 48)[0])
    mean, basis = Moments.of(values).basis(20)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = project(values, mean, basis)[0]
        torch.set_num_threads(3)
        np.testing.assert_array_equal(project(values, mean, basis)[0], alone)
        np.testing.assert_array_equal(Moments.of(values).basis(20)[1], basis)
    finally:
        torch.set_num_threads(before)
