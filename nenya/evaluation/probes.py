"""What simple models read from features: the nearest neighbours, ridge regression, logistic regression.

Each predicts rows of a fold from the rows of the other folds. How strongly a regression is held back (its penalty) is
chosen within the rows that it is fitted to, never by those that are tested.
"""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nenya.evaluation.neighbours import Metric, nearest_neighbours
from nenya.machine.threads import one_thread

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Penalties that are tried, the strongest first.
RIDGE_PENALTIES = (1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 0.1)
LOGISTIC_PENALTIES = (1e4, 1e2, 1.0)
#: Where too few folds are left to choose.
USUAL_PENALTY = 1e2

_SMALL = 2**20  # numbers in a matrix that one thread multiplies


def standardised(fitted: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Features with mean 0 and deviation 1 in the fitted rows; those that are constant there become 0 in these.

    Args:
        fitted: [N, D].
        others: [M, D], brought to the same scale.

    Returns:
        Both, float64.
    """
    fitted, others = fitted.double(), others.double()
    mean, deviation = fitted.mean(dim=0), fitted.std(dim=0, correction=0)
    rounding = 10 * torch.finfo(torch.float64).eps * fitted.abs().amax(dim=0)
    deviation = torch.where(deviation <= rounding, 1.0, deviation)
    return (fitted - mean) / deviation, (others - mean) / deviation


def ridge(features: Tensor, values: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Ridge regression: least |values - features w - b|^2 + penalty |w|^2.

    Args:
        features: [N, D].
        values: [N, T], each column a regression of its own.
        penalty: Above 0.

    Returns:
        w [D, T] and b [T], float64.
    """
    x, y = features.double(), values.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    wide = x.shape[1] > len(x)
    weights = x.T @ _solve(x @ x.T, y, penalty) if wide else _solve(x.T @ x, x.T @ y, penalty)
    return weights, y_mean - x_mean @ weights


def _solve(products: Tensor, right: Tensor, penalty: float) -> Tensor:
    damped = products.clone()
    damped.diagonal().add_(penalty)
    solution: Tensor = torch.cholesky_solve(right, torch.linalg.cholesky(damped))
    return solution


def logistic(
    features: Tensor, labels: Tensor, num_classes: int, penalty: float, *, start: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Multinomial logistic regression: least sum of cross-entropies + penalty / 2 |w|^2.

    Args:
        features: [N, D], of about unit scale.
        labels: Classes [N], from 0.
        num_classes: K.
        penalty: Above 0; the intercept is free.
        start: Where to begin, as returned.
        tolerance: Largest slope, a row, at which it stops.

    Returns:
        w and b, [D + 1, K], the last row is b. float64.
    """
    x = F.pad(features.double(), (0, 1), value=1.0)
    weights = torch.zeros(x.shape[1], num_classes, dtype=torch.float64) if start is None else start.clone()
    weights.grad = torch.zeros_like(weights)
    own = F.one_hot(labels, num_classes).double()
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=1000, max_eval=1500, tolerance_grad=tolerance, tolerance_change=0.0, history_size=20,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        """The mean over rows, and its gradient: for small matrices autograd takes longer than the sums."""
        log_share = (x @ weights).log_softmax(dim=1)
        slope = x.T @ (log_share.exp() - own) / len(x)
        slope[:-1] += penalty / len(x) * weights[:-1]
        weights.grad = slope
        return -(own * log_share).sum() / len(x) + penalty / (2 * len(x)) * weights[:-1].square().sum()

    with one_thread() if x.numel() <= _SMALL else contextlib.nullcontext():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights


def ridge_predictions(features: Tensor, values: Floats, folds: Ints) -> Floats:
    """Predict each row by a ridge regression on the rows of the other folds.

    Args:
        features: [N, D].
        values: [N, T], finite.
        folds: [N], from 0.

    Returns:
        [N, T].
    """
    y = torch.from_numpy(values)
    predicted = torch.empty_like(y)
    for tested, fitted, inner in _rounds(folds):
        chosen = _choose_ridge(features, y, inner)
        x, x_tested = standardised(features[fitted], features[tested])
        for penalty in set(chosen):
            columns = torch.tensor([number for number, own in enumerate(chosen) if own == penalty])
            weights, intercept = ridge(x, y[fitted][:, columns], penalty)
            predicted[tested[:, None], columns] = x_tested @ weights + intercept
    return predicted.numpy()


def _choose_ridge(features: Tensor, values: Tensor, inner: tuple[Tensor, Tensor] | None) -> list[float]:
    """The penalty of each regression: the one with the least error on rows that are held back."""
    if inner is None:
        return [USUAL_PENALTY] * values.shape[1]
    x, x_held = standardised(features[inner[0]], features[inner[1]])
    errors = []
    for penalty in RIDGE_PENALTIES:
        weights, intercept = ridge(x, values[inner[0]], penalty)
        errors.append((x_held @ weights + intercept - values[inner[1]]).square().mean(dim=0))
    return [RIDGE_PENALTIES[number] for number in torch.stack(errors).argmin(dim=0).tolist()]


def logistic_predictions(features: Tensor, labels: Ints, folds: Ints) -> Ints:
    """Predict the class of each row by a logistic regression on the rows of the other folds.

    Args:
        features: [N, D].
        labels: [N], from 0.
        folds: [N], from 0.

    Returns:
        Classes [N].
    """
    y, num_classes = torch.from_numpy(labels), int(labels.max()) + 1
    predicted = torch.empty_like(y)
    for tested, fitted, inner in _rounds(folds):
        penalty = _choose_logistic(features, y, num_classes, inner)
        x, x_tested = standardised(features[fitted], features[tested])
        weights = logistic(x, y[fitted], num_classes, penalty)
        predicted[tested] = (F.pad(x_tested, (0, 1), value=1.0) @ weights).argmax(dim=1)
    return predicted.numpy()


def _choose_logistic(features: Tensor, labels: Tensor, num_classes: int, inner: tuple[Tensor, Tensor] | None) -> float:
    """The penalty with the least cross-entropy on rows that are held back."""
    if inner is None:
        return USUAL_PENALTY
    x, x_held = standardised(features[inner[0]], features[inner[1]])
    losses, weights = [], None
    for penalty in LOGISTIC_PENALTIES:
        weights = logistic(x, labels[inner[0]], num_classes, penalty, start=weights, tolerance=1e-4)
        scores = F.pad(x_held, (0, 1), value=1.0) @ weights
        losses.append(float(F.cross_entropy(scores, labels[inner[1]])))
    return LOGISTIC_PENALTIES[int(np.argmin(losses))]


def _rounds(folds: Ints) -> list[tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]]:
    """For each fold: the rows to test, those to fit, and these again in two parts by which a penalty is chosen."""
    present = np.unique(folds).tolist()
    rounds = []
    for place, fold in enumerate(present):
        held = present[(place + 1) % len(present)]
        inner = None
        if len(present) > 2:
            inner = _rows((folds != fold) & (folds != held)), _rows(folds == held)
        rounds.append((_rows(folds == fold), _rows(folds != fold), inner))
    return rounds


def _rows(mask: npt.NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.flatnonzero(mask))


def neighbours_across_folds(features: Tensor, folds: Ints, count: int, metric: Metric = "cosine") -> Ints:
    """The nearest rows of the other folds.

    Args:
        features: [N, D].
        folds: [N], from 0.
        count: k, at most the rows of the others of each fold.
        metric: As for `nearest_neighbours`.

    Returns:
        Rows [N, k].
    """
    found = np.empty((len(features), count), dtype=np.int64)
    for tested, fitted, _ in _rounds(folds):
        near = nearest_neighbours(features[tested], features[fitted], count, metric)
        found[tested.numpy()] = fitted[near].numpy()
    return found


def voted(labels: Ints, neighbours: Ints) -> Ints:
    """The most frequent class among the neighbours; the smallest of equally frequent ones.

    Args:
        labels: [N], from 0.
        neighbours: Rows [M, k].

    Returns:
        Classes [M].
    """
    votes = np.zeros((len(neighbours), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(votes, (np.arange(len(neighbours))[:, None], labels[neighbours]), 1)
    most: Ints = votes.argmax(axis=1)
    return most


def averaged(values: Floats, neighbours: Ints) -> Floats:
    """The mean of the neighbours' values: [N, T], rows [M, k] -> [M, T]."""
    mean: Floats = values[neighbours].mean(axis=1)
    return mean
