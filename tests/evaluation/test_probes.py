"""Probes, beside scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from nenya.evaluation.probes import (
    averaged,
    logistic,
    logistic_predictions,
    neighbours_across_folds,
    ridge,
    ridge_predictions,
    standardised,
    voted,
)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6)) * [1, 5, 0.1, 1, 1, 1] + 3
    y = np.stack([x[:, 0] + 0.2 * rng.normal(size=150), x[:, 1] ** 2 + 100], axis=1)
    labels = (x[:, 0] > 3).astype(np.int64) + (x[:, 3] > 3.5)
    return x, y, labels


def test_the_scale_is_that_of_scikit_learn(data):
    x = np.column_stack((data[0], np.full(150, 0.1)))
    scaler = StandardScaler().fit(x[:100])
    for ours, theirs in zip(standardised(*map(torch.from_numpy, (x[:100], x[100:]))), (x[:100], x[100:]), strict=True):
        np.testing.assert_allclose(ours.numpy(), scaler.transform(theirs), atol=1e-9)


@pytest.mark.parametrize("count", [150, 4])  # more and fewer rows than dimensions
@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_ridge_is_that_of_scikit_learn(data, count, penalty):
    x, y = data[0][:count], data[1][:count]
    weights, intercept = ridge(torch.from_numpy(x), torch.from_numpy(y), penalty)
    theirs = Ridge(alpha=penalty).fit(x, y)
    np.testing.assert_allclose(weights.numpy(), theirs.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(intercept.numpy(), theirs.intercept_, rtol=1e-6)


@pytest.mark.parametrize("penalty", [0.5, 20.0])
def test_logistic_regression_is_that_of_scikit_learn(data, penalty):
    x = StandardScaler().fit_transform(data[0])
    weights = logistic(torch.from_numpy(x), torch.from_numpy(data[2]), 3, penalty, tolerance=1e-10).numpy()
    theirs = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=10000).fit(x, data[2])
    scores = x @ weights[:-1] + weights[-1]
    ours = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ours, theirs.predict_proba(x), atol=1e-6)


def test_of_two_classes_it_is_the_same_up_to_how_the_penalty_counts(data):
    x, labels = StandardScaler().fit_transform(data[0]), (data[2] > 0).astype(np.int64)
    weights = logistic(torch.from_numpy(x), torch.from_numpy(labels), 2, 2.0, tolerance=1e-10).numpy()
    theirs = LogisticRegression(C=1.0, tol=1e-12, max_iter=10000).fit(x, labels)  # |w|^2 / 2 in two halves of w
    np.testing.assert_allclose(weights[:-1, 1] - weights[:-1, 0], theirs.coef_[0], atol=1e-6)


def test_a_start_does_not_change_where_it_ends(data):
    x, labels = torch.from_numpy(StandardScaler().fit_transform(data[0])), torch.from_numpy(data[2])
    cold = logistic(x, labels, 3, 1.0, tolerance=1e-9)
    warm = logistic(x, labels, 3, 1.0, start=torch.ones_like(cold), tolerance=1e-9)
    torch.testing.assert_close((x @ cold[:-1]).log_softmax(1), (x @ warm[:-1]).log_softmax(1), atol=1e-5, rtol=0)


def test_each_fold_is_predicted_from_the_others(data):
    x, y, labels = data
    folds = np.arange(150) // 30
    ours = ridge_predictions(torch.from_numpy(x), y, folds)
    assert any(
        np.allclose(ours[folds == 0], _ridge_of_scikit_learn(x, y, folds != 0, folds == 0, a, b), rtol=1e-6)
        for a in (0.1, 1, 10, 100)
        for b in (0.1, 1, 10, 100)
    )
    # the rows of a fold have no influence on their own predictions
    changed = y.copy()
    changed[folds == 2] += 1000 * np.random.default_rng(1).normal(size=(30, 2))
    np.testing.assert_allclose(ridge_predictions(torch.from_numpy(x), changed, folds)[folds == 2], ours[folds == 2])
    other = labels.copy()
    other[folds == 2] = (other[folds == 2] + 1) % 3
    before, after = (logistic_predictions(torch.from_numpy(x), own, folds) for own in (labels, other))
    assert (before[folds == 2] == after[folds == 2]).all()
    assert (before == labels).mean() > np.bincount(labels).max() / 150 + 0.1


def _ridge_of_scikit_learn(x, y, fitted, tested, *penalties):
    scaler = StandardScaler().fit(x[fitted])
    columns = [
        Ridge(alpha=penalty).fit(scaler.transform(x[fitted]), y[fitted, column]).predict(scaler.transform(x[tested]))
        for column, penalty in enumerate(penalties)
    ]
    return np.stack(columns, axis=1)


def test_noise_is_held_back_and_a_law_is_not():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(200, 60)))
    law, noise = (x @ torch.from_numpy(rng.normal(size=(60, 1)))).numpy(), rng.normal(size=(200, 1))
    folds = np.arange(200) % 5
    predicted = ridge_predictions(x, np.hstack((law, noise)), folds)
    assert np.mean((predicted[:, 0] - law[:, 0]) ** 2) < 1e-3 * law.var()
    assert predicted[:, 1].var() < 0.1 * noise.var()


def test_two_folds_are_enough(data):
    x, y, labels = data
    folds = np.arange(150) % 2
    assert np.isfinite(ridge_predictions(torch.from_numpy(x), y, folds)).all()
    assert (logistic_predictions(torch.from_numpy(x), labels, folds) == labels).mean() > 0.6


def test_neighbours_come_from_the_other_folds_as_in_scikit_learn(data):
    x, y, labels = data
    folds = np.arange(150) % 3
    near = neighbours_across_folds(torch.from_numpy(x), folds, 4, "euclidean")
    assert (folds[near] != folds[:, None]).all()
    for fold in range(3):
        fitted, tested = folds != fold, folds == fold
        values = KNeighborsRegressor(4).fit(x[fitted], y[fitted]).predict(x[tested])
        np.testing.assert_allclose(averaged(y, near)[tested], values, rtol=1e-6)
        classes = KNeighborsClassifier(4).fit(x[fitted], labels[fitted]).predict(x[tested])
        assert (voted(labels, near)[tested] == classes).all()


def test_ties_go_to_the_smallest_class():
    assert voted(np.array([2, 1, 1, 2]), np.array([[0, 1], [0, 3]])).tolist() == [1, 2]
