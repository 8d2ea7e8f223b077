"""What is measured of latents without labels and without a table: spectra, likeness, views, outliers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nenya.evaluation.bootstrap import block_sums, interval, mean_of
from nenya.evaluation.health import Health, spread, uniformity
from nenya.evaluation.health import measure as measure_views
from nenya.evaluation.outliers import neighbour_distance
from nenya.evaluation.similarity import Alikeness, mutual_neighbours
from nenya.evaluation.spectra import SHARES, Moments, PowerLaw, Spectrum
from nenya.models.resnet_big import SupConResNet
from nenya.report.imagery import Imagery, encode_views
from nenya.report.inputs import Rows, Subject, blocks
from nenya.report.targets import Blocks

#: Of which uniformity and spread are measured: pairs grow with the square.
_MOST_PAIRED = 4096

#: Outliers that are listed.
NUM_OUTLIERS = 20


@dataclass(frozen=True)
class Shape:
    """How latents lie in their space.

    Attributes:
        num_rows: N, all that are usable.
        num_dims: D.
        eigenvalues: Variance by principal component [D], falling.
        modes: Fewest modes that hold 50, 90 and 99 % of it.
        law: The power law of the modes up to 99 %; its exponent is alpha-ReQ. None with fewer than three modes.
        effective_rank: See `nenya.evaluation.health.effective_rank`.
        uniformity: See `nenya.evaluation.health.uniformity`; of at most 4,096 rows.
        spread: See `nenya.evaluation.health.spread`; of the same.
    """

    num_rows: int
    num_dims: int
    eigenvalues: npt.NDArray[np.float64]
    modes: tuple[int, ...]
    law: PowerLaw | None
    effective_rank: float
    uniformity: float
    spread: float


@dataclass(frozen=True)
class Likeness:
    """How alike two latents are.

    Attributes:
        first: Name.
        second: Name.
        cka: Linear CKA of all rows.
        mutual: Share of a cutout's nearest others that are the same in both.
        low: Lower end of its 95 % interval.
        high: Upper end.
        chance: What it is by chance.
        count: Neighbours k.
    """

    first: str
    second: str
    cka: float
    mutual: float
    low: float
    high: float
    chance: float
    count: int


@dataclass(frozen=True)
class Outlier:
    """A cutout far from the others.

    Attributes:
        place: Among the rows that are looked at.
        distance: To its k-th nearest other, 1 - cosine.
    """

    place: int
    distance: float


def shapes(subjects: Sequence[Subject], samples: Sequence[torch.Tensor]) -> list[Shape]:
    """Go through all rows once, and measure how each latents lie.

    Args:
        subjects: The files.
        samples: Of each, some rows [n, D].

    Raises:
        DataError: A row cannot be read, or is not finite.
    """
    moments = [Moments(subject.num_dims) for subject in subjects]
    for of_each in blocks(subjects):
        for own, block in zip(moments, of_each, strict=True):
            own.add(block)
    found = []
    for own, sample in zip(moments, samples, strict=True):
        spectrum = Spectrum.of(own)
        some = sample[:: -(-len(sample) // _MOST_PAIRED)]
        found.append(
            Shape(
                num_rows=spectrum.num_rows,
                num_dims=len(spectrum.eigenvalues),
                eigenvalues=spectrum.eigenvalues,
                modes=tuple(spectrum.num_modes(share) for share in SHARES),
                law=spectrum.power_law(),
                effective_rank=spectrum.effective_rank,
                uniformity=uniformity(some) if len(some) > 1 else math.nan,
                spread=spread(some),
            )
        )
    return found


def likenesses(
    subjects: Sequence[Subject], samples: Sequence[torch.Tensor], groups: Blocks, count: int
) -> list[Likeness]:
    """Compare each latents with each other; `count` neighbours, at most n - 1."""
    found = []
    for a, b in itertools.combinations(range(len(subjects)), 2):
        pair = [subjects[a], subjects[b]]
        alikeness = Alikeness(pair[0].num_dims, pair[1].num_dims)
        for first, second in blocks(pair):
            alikeness.add(first, second)
        shares = mutual_neighbours(samples[a], samples[b], count)
        sums = block_sums(groups.groups, np.stack([np.ones_like(shares), shares], axis=1))
        low, high = interval(sums, mean_of)
        chance = count / (len(shares) - 1)
        names = pair[0].name, pair[1].name
        found.append(Likeness(*names, alikeness.cka, float(shares.mean()), low, high, chance, count))
    return found


def views(model: SupConResNet, imagery: Imagery, rows: Rows) -> Health:
    """Health of re-encoded views of some cutouts: retrieval, alignment, uniformity."""
    h, z = encode_views(model, imagery, rows)
    return measure_views(h[0], h[1], z[0], z[1])


def outliers(sample: torch.Tensor, count: int) -> list[Outlier]:
    """The cutouts whose k-th neighbour is farthest, the farthest first; ties in their order."""
    distance = neighbour_distance(sample, count)
    order = np.argsort(-distance, kind="stable")[:NUM_OUTLIERS]
    return [Outlier(int(place), float(distance[place])) for place in order]
