"""Variance by mode, beside scikit-learn, SciPy and the health figures."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from nenya.evaluation.health import effective_rank
from nenya.evaluation.spectra import Moments, Spectrum, power_law, share_by_mode


def rows(count=400, dims=12, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(count, dims)) * np.arange(1, dims + 1) ** -1.0 @ rng.normal(size=(dims, dims)) + 40.0
    ).astype(np.float32)


def spectrum_of(x, *cuts):
    moments = Moments(x.shape[1])
    for block in np.split(x, cuts):
        moments.add(block)
    return Spectrum.of(moments)


@pytest.mark.parametrize("cuts", [(), (1,), (100, 100, 399), tuple(range(7, 400, 7))])
def test_modes_are_those_of_scikit_learn_however_the_rows_come(cuts):
    x = rows()
    ours, theirs = spectrum_of(x, *cuts), PCA(svd_solver="full").fit(x.astype(np.float64))
    np.testing.assert_allclose(ours.eigenvalues, theirs.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-9)
    along = np.abs((ours.components * theirs.components_).sum(axis=1))
    np.testing.assert_allclose(along, 1, rtol=1e-6)
    np.testing.assert_allclose(
        share_by_mode(ours.eigenvalues, [1, 5]), np.cumsum(theirs.explained_variance_ratio_)[[0, 4]], rtol=1e-6
    )
    for share in (0.5, 0.9, 0.99):
        expected = PCA(n_components=share, svd_solver="full").fit(x.astype(np.float64)).n_components_
        assert ours.num_modes(share) == expected


@pytest.mark.parametrize("dims", [3, 12])
def test_effective_rank_is_that_of_the_health_figures(dims):
    x = rows(dims=dims)
    assert spectrum_of(x, 150).effective_rank == pytest.approx(effective_rank(torch.from_numpy(x)), rel=1e-9)


def test_a_large_mean_does_not_swamp_small_deviations():
    x = rows().astype(np.float64)
    moments = Moments(12)
    for block in np.split(x + 1e6, (90,)):
        moments.add(block)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-9)


def test_constant_latents_have_no_modes():
    constant = spectrum_of(np.full((30, 4), 0.1, np.float32), 11)
    assert (constant.effective_rank, constant.num_modes(0.9), constant.power_law()) == (0.0, 0, None)
    assert share_by_mode(constant.eigenvalues, [2]) == [0.0]


def test_one_direction_is_one_mode():
    line = np.outer(np.arange(50.0), [1, 2, -1]).astype(np.float32)
    found = spectrum_of(line, 20)
    assert found.effective_rank == pytest.approx(1, abs=1e-6)
    assert [found.num_modes(share) for share in (0.5, 0.99)] == [1, 1]


def test_a_power_law_is_found_again():
    modes = np.arange(1, 101)
    fit = power_law(3.0 * modes**-1.4, 1, 100)
    assert (fit.exponent, fit.constant, fit.r2) == pytest.approx((1.4, 3.0, 1.0))
    assert (fit.first, fit.last) == (1, 100)


def test_a_fit_of_noisy_modes_is_numpys_weighted_one():
    modes = np.arange(1, 61)
    values = np.sort(modes**-1.1 * np.exp(np.random.default_rng(1).normal(0, 0.3, 60)))[::-1]
    fit = power_law(values, 4, 50)
    inside = slice(3, 50)
    slope, constant = np.polyfit(np.log(modes[inside]), np.log(values[inside]), 1, w=modes[inside] ** -0.5)
    assert (fit.exponent, np.log(fit.constant)) == pytest.approx((-slope, constant))
    assert 0 < fit.r2 < 1


@pytest.mark.parametrize("values", [[1.0, 0.5], [1.0, 0.5, 0.0, 0.0]])
def test_two_modes_are_no_law(values):
    assert power_law(np.array(values), 1, len(values)) is None
