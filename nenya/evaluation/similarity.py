"""How alike two latents of the same cutouts are, whatever their dimensions, rotation and scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nenya.evaluation.neighbours import nearest_others

Floats = npt.NDArray[np.float64]


class Alikeness:
    """Linear CKA (Kornblith et al. 2019) of rows that come block by block.

    Centred kernel alignment of linear kernels, from covariances: |cov(x, y)|^2 / (|cov(x, x)| |cov(y, y)|), Frobenius
    norms. It does not change with rotations and with one factor for all dimensions.

    Args:
        num_x: Dimensions of the first latents.
        num_y: Dimensions of the second.
    """

    def __init__(self, num_x: int, num_y: int) -> None:
        self._num_rows = 0
        self._shifts: tuple[torch.Tensor, torch.Tensor] | None = None
        self._sums = torch.zeros(num_x, dtype=torch.float64), torch.zeros(num_y, dtype=torch.float64)
        self._xx = torch.zeros(num_x, num_x, dtype=torch.float64)
        self._yy = torch.zeros(num_y, num_y, dtype=torch.float64)
        self._xy = torch.zeros(num_x, num_y, dtype=torch.float64)

    def add(self, first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> None:
        """Add rows [B, Dx] and, of the same cutouts, [B, Dy]."""
        if not len(first):
            return
        x, y = (torch.from_numpy(np.asarray(rows, dtype=np.float64)) for rows in (first, second))
        if self._shifts is None:
            self._shifts = x.mean(dim=0), y.mean(dim=0)
        x, y = x - self._shifts[0], y - self._shifts[1]
        self._num_rows += len(x)
        for total, rows in zip(self._sums, (x, y), strict=True):
            total += rows.sum(dim=0)
        self._xx.addmm_(x.T, x)
        self._yy.addmm_(y.T, y)
        self._xy.addmm_(x.T, y)

    @property
    def cka(self) -> float:
        """0 (nothing in common) to 1 (the same but for rotation and scale); NaN where one does not vary."""
        (x, y), n = self._sums, self._num_rows
        cross = (self._xy - torch.outer(x, y) / n).square().sum()
        own = [
            (products - torch.outer(total, total) / n).square().sum().sqrt()
            for products, total in ((self._xx, x), (self._yy, y))
        ]
        scale = [products.square().sum().sqrt() for products in (self._xx, self._yy)]
        if any(bool(norm <= 1e-12 * whole) for norm, whole in zip(own, scale, strict=True)):
            return float("nan")
        return float(cross / (own[0] * own[1]))


def linear_cka(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """`Alikeness.cka` of rows [N, Dx] and [N, Dy] that are in memory."""
    alikeness = Alikeness(first.shape[1], second.shape[1])
    alikeness.add(first, second)
    return alikeness.cka


def mutual_neighbours(first: torch.Tensor, second: torch.Tensor, count: int) -> Floats:
    """Which share of a cutout's nearest others are the same in both latents, by cosine (Huh et al. 2024).

    Args:
        first: [N, Dx].
        second: Of the same cutouts [N, Dy].
        count: k, at most N - 1.

    Returns:
        Share of each cutout, 0..1 [N]; k / (N - 1) on average by chance.
    """
    a, b = (nearest_others(features, count)[0] for features in (first, second))
    same = (a[:, :, None] == b[:, None, :]).any(dim=2)
    share: Floats = same.double().mean(dim=1).numpy()
    return share
