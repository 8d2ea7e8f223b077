"""Nearest neighbours of features, and what they have in common."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nenya.evaluation.health import cosine_rounding

Metric = Literal["cosine", "euclidean"]

_MOST_DISTANCES = 2**24  # from queries to the gallery that are in memory at once: 128 MB
_CENTRE_ITEMS = 100  # of the gallery, enough to say where it lies


def nearest_neighbours(queries: Tensor, gallery: Tensor, count: int, metric: Metric = "cosine") -> Tensor:
    """The nearest gallery items of each query.

    Items as near as each other, up to rounding, come in the order of the gallery, so that the answer is the same with
    every processor's kernels: imagery holds some cutouts twice.

    Args:
        queries: [M, D].
        gallery: [N, D].
        count: How many, at most N.
        metric: "cosine", as suits features that a contrastive loss has trained, or "euclidean".

    Returns:
        Indices [M, count], the nearest first.
    """
    a, b = queries.double(), gallery.double()
    if metric == "cosine":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    else:
        # Squares of pixels near 290 K would swamp their differences. No mean as centre: one cutout can lie far away.
        centre = b[:: -(-len(b) // _CENTRE_ITEMS)].median(dim=0).values
        a, b = a - centre, b - centre
    rows = max(1, _MOST_DISTANCES // max(1, len(b)))
    return torch.cat([_by_distance(a[start : start + rows], b, count) for start in range(0, max(1, len(a)), rows)])


def _by_distance(queries: Tensor, gallery: Tensor, count: int) -> Tensor:
    """`nearest_neighbours` by distance, all queries at once."""
    lengths, own_lengths = torch.linalg.vector_norm(gallery, dim=1), torch.linalg.vector_norm(queries, dim=1)
    # |a - b|^2 up to a term that is the same for all items of the gallery
    distance = lengths.square() - 2 * queries @ gallery.T

    def rounding(lengths: Tensor) -> Tensor:
        """How far such distances to items of these lengths can be from the exact ones: [M, ...]."""
        error: Tensor = cosine_rounding(gallery.shape[1]) * lengths * (lengths + 2 * own_lengths[:, None])
        return error

    closest, items = distance.topk(min(count + 1, len(gallery)), dim=1, largest=False)
    reach = closest[:, count - 1 : count] + 2 * rounding(lengths.max())
    if bool((closest[:, count:] <= reach).any()):  # more than `count`, and who belongs to them is a matter of rounding
        num_candidates = int((distance <= reach).sum(dim=1).max())
        closest, items = distance.topk(num_candidates, dim=1, largest=False)
    unsure = rounding(lengths[items])
    apart = closest.diff(dim=1) > unsure[:, 1:] + unsure[:, :-1]
    place = F.pad(apart.cumsum(dim=1), (1, 0))  # equal for those as near as each other
    in_order = (place * len(gallery) + items).sort(dim=1).values[:, :count]
    return torch.remainder(in_order, len(gallery))


def nearest_others(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest other items of each item, by cosine; ties as for `nearest_neighbours`.

    Args:
        features: [N, D].
        count: How many, at most N - 1.

    Returns:
        Their indices [N, count], the nearest first, and their cosines.
    """
    found = nearest_neighbours(features, features, count + 1)
    own = torch.arange(len(features))[:, None]
    # An item is mostly the nearest to itself, but equal ones can come before it, and all the places be theirs.
    is_own = found == own
    is_own[~is_own.any(dim=1), -1] = True
    others = found[~is_own].reshape(len(features), count)
    unit = F.normalize(features.double(), dim=1)
    rows = max(1, _MOST_DISTANCES // max(1, count * unit.shape[1]))
    cosines = [
        (unit[start : start + rows, None] * unit[others[start : start + rows]]).sum(dim=2)
        for start in range(0, len(unit), rows)
    ]
    return others, torch.cat(cosines)


def knn_accuracy(
    train: Tensor,
    train_labels: npt.NDArray[np.int64],
    valid: Tensor,
    valid_labels: npt.NDArray[np.int64],
    neighbours: int = 5,
    metric: Metric = "cosine",
) -> float:
    """How often the majority of a cutout's nearest training cutouts has its label (ties: the smallest label).

    Args:
        train: Features [N, D].
        train_labels: [N], from 0.
        valid: Features [M, D].
        valid_labels: [M].
        neighbours: k.
        metric: As for `nearest_neighbours`.

    Returns:
        Share, 0..1.
    """
    votes = train_labels[nearest_neighbours(valid, train, neighbours, metric).numpy()]
    predicted = np.array([np.bincount(row).argmax() for row in votes])
    return float((predicted == valid_labels).mean())
