"""Label-free health of the features: has the model learned to tell cutouts apart, or has it collapsed?

A contrastive loss can fall while the representation loses what it is for, and without labels nothing else would show
it. All functions here are pure: features in, a number out.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE = 2048  # rows of a similarity matrix in memory at once

#: Cosine that float32 features in one direction can lack to 1: some roundings of 2^-23 make an angle as small.
_FLOAT32_NOISE = (4 * torch.finfo(torch.float32).eps) ** 2 / 2

#: Spread below which the directions of the features count as one point. Chen & He 2021 (SimSiam), fig. 2: the same
#: figure is near 1 in a healthy run and 0 in a collapsed one.
MIN_SPREAD = 0.01

#: Effective rank of z below which (almost) one direction is left, Jing et al. 2022: dimensional collapse. Two equal
#: directions have just this rank, so a deviation of rounding's size does not count.
MIN_EFFECTIVE_RANK = 2.0
_RANK_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Health:
    """What validation found out about the features, h [N, F] and z [N, D] of both views.

    Attributes:
        num_samples: N.
        retrieval_top1: Share of views whose nearest neighbour among the other views of all samples is their own, in h.
        retrieval_top5: Share whose own is among the five nearest.
        chance_top1: What guessing gives: 1 / N.
        alignment: Of z, see `alignment`.
        uniformity: Of z, see `uniformity`.
        effective_rank: Of h, see `effective_rank`.
        spread: Of h, see `spread`.
        effective_rank_z: Of z.
        spread_z: Of z.
    """

    num_samples: int
    retrieval_top1: float
    retrieval_top5: float
    chance_top1: float
    alignment: float
    uniformity: float
    effective_rank: float
    spread: float
    effective_rank_z: float
    spread_z: float


def measure(h1: Tensor, h2: Tensor, z1: Tensor, z2: Tensor) -> Health:
    """Measure everything.

    Args:
        h1: Encoder features of the first views [N, F].
        h2: Of the second views [N, F].
        z1: Normalised head outputs of the first views [N, D].
        z2: Of the second views [N, D].

    Returns:
        The figures.
    """
    top1, top5 = view_retrieval(h1, h2)
    h, z = torch.cat((h1, h2)), torch.cat((z1, z2))
    return Health(
        num_samples=len(h1),
        retrieval_top1=top1,
        retrieval_top5=top5,
        chance_top1=1 / len(h1),
        alignment=alignment(z1, z2),
        uniformity=uniformity(z),
        effective_rank=effective_rank(h),
        spread=spread(h),
        effective_rank_z=effective_rank(z),
        spread_z=spread(z),
    )


def view_retrieval(first: Tensor, second: Tensor) -> tuple[float, float]:
    """How often a sample's other view is its nearest neighbour, by cosine, among the other views of all samples.

    Both directions are averaged. Equal similarities count against the model, so that constant features score 0. So do
    those that differ by no more than rounding can make them: the answer is the same with every processor's kernels.

    Args:
        first: Features of the first views [N, D].
        second: Features of the second views [N, D].

    Returns:
        Shares in 0..1 of top-1 and top-5; chance is 1/N and 5/N. A sample with NaN features is no hit.
    """
    a, b = F.normalize(first.double(), dim=1), F.normalize(second.double(), dim=1)
    ranks = torch.cat((_ranks_of_own(a, b), _ranks_of_own(b, a)))
    return float((ranks < 1).double().mean()), float((ranks < 5).double().mean())


def _ranks_of_own(queries: Tensor, gallery: Tensor) -> Tensor:
    """How many other gallery items are at least as similar to each query as its own, up to rounding: [N]."""
    tolerance = 2 * cosine_rounding(queries.shape[1]) + _FLOAT32_NOISE
    ranks = []
    for start in range(0, len(queries), _TILE):
        similarity = (queries[start : start + _TILE] @ gallery.T).nan_to_num_(nan=-math.inf)
        own = similarity.diagonal(start).unsqueeze(1)
        less_similar = (similarity < own - tolerance).sum(dim=1)
        ranks.append(len(gallery) - 1 - less_similar)
    return torch.cat(ranks)


def cosine_rounding(width: int) -> float:
    """How far a cosine that is computed in float64 can lie from the exact one, whatever the order of its sums.

    A matrix product adds up in an order that depends on the processor and on the place in the matrix: at the edges of
    its blocks equal rows give unequal products. A sum of D products is good to D u, a length to (D / 2 + 2) u, with
    u = 2^-53 (Higham 2002, "Accuracy and Stability of Numerical Algorithms", sec. 3.1): one sum, two lengths.

    Args:
        width: D.

    Returns:
        The bound, (2 D + 4) u.
    """
    return (width + 2) * torch.finfo(torch.float64).eps  # 2 u


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of the two views of a sample on the sphere (Wang & Isola 2020, L_align with alpha = 2).

    Args:
        first: [N, D].
        second: [N, D].

    Returns:
        0 (views coincide) to 4 (views opposite).
    """
    a, b = F.normalize(first.double(), dim=1), F.normalize(second.double(), dim=1)
    return float((a - b).square().sum(dim=1).mean())


def uniformity(features: Tensor) -> float:
    """Log of the mean Gaussian potential over pairs (Wang & Isola 2020, L_uniform with t = 2).

    Args:
        features: [N, D], N >= 2.

    Returns:
        0 (all in one point, the zero vectors of a dead network included) down to about -4 (spread evenly over the
        sphere); never below -8, all pairs opposite.
    """
    x = F.normalize(features.double(), dim=1)
    lengths = x.square().sum(dim=1)  # 1, and 0 of a zero vector
    total = 0.0
    for start in range(0, len(x), _TILE):
        rows = slice(start, start + _TILE)
        squared = (lengths[rows, None] + lengths - 2 * x[rows] @ x.T).clamp_min(0)
        potential = torch.exp(-2 * squared)
        potential.diagonal(start).zero_()  # no pair
        total += float(potential.sum())
    return min(math.log(total / (len(x) * (len(x) - 1))), 0.0)


def effective_rank(features: Tensor) -> float:
    """Number of directions that the features really use (Roy & Vetterli 2007; RankMe, Garrido et al. 2023).

    exp of the entropy of the singular values of the centred features. Centred, since features after a ReLU share a
    large mean, beside which any variation looks small.

    Args:
        features: [N, D].

    Returns:
        1 (one direction) to min(N - 1, D); 0 for constant features.
    """
    x = features.double()
    x = x - x.mean(dim=0)
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    scale = float(features.double().square().sum())
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    # below this the eigenvalues are rounding errors of the float32 features
    values = values[values > 1e-12 * scale].sqrt()
    if not len(values):
        return 0.0
    p = values / values.sum()
    return float(torch.exp(-(p * p.log()).sum()))


def spread(features: Tensor) -> float:
    """Standard deviation of the directions of the features, relative to directions spread evenly over the sphere.

    Chen & He 2021 (SimSiam), fig. 2: the standard deviation of each coordinate of the normalised features, here as
    the root of the mean square over coordinates, times sqrt(D).

    Args:
        features: [N, D].

    Returns:
        0 (all point one way) to 1 (no preferred direction).
    """
    x = F.normalize(features.double(), dim=1)
    return float(x.var(dim=0, correction=0).sum().sqrt())


def collapse(health: Health, method: str = "SimCLR") -> str | None:
    """Say in words how the features have collapsed, or None if they have not.

    Args:
        health: What was measured.
        method: "SimCLR" or "SupCon". SupCon draws each class to a point, so that K classes lie along K - 1 directions
            at best (Graf et al. 2021): few directions are no fault there.

    Returns:
        E.g. "all cutouts have (almost) the same embedding: spread of z 0.002, below 0.01".
    """
    if health.spread_z < MIN_SPREAD:
        return (
            f"all cutouts have (almost) the same embedding: spread of z {health.spread_z:.2g}, below {MIN_SPREAD:g} "
            "(healthy: near 1)"
        )
    if method != "SupCon" and health.effective_rank_z < MIN_EFFECTIVE_RANK - _RANK_ROUNDING:
        return (
            f"the embeddings vary along (almost) one direction: effective rank of z {health.effective_rank_z:.2g}, "
            f"below {MIN_EFFECTIVE_RANK:g}"
        )
    return None
