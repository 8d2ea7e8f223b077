"""How the variance of latents is spread over their principal components: the "information content"."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

#: Shares of the variance for which modes are counted.
SHARES = (0.5, 0.9, 0.99)

#: Of the sum of squares; below it an eigenvalue is rounding of float32 features.
_ROUNDING = 1e-12


class Moments:
    """Mean and covariance of rows that come block by block: memory is [D, D] whatever their number.

    Sums are in float64, of rows from which the mean of the first block is subtracted: latents behind a ReLU have means
    far larger than their deviations.

    Args:
        num_dims: D.

    Attributes:
        num_rows: Rows so far.
    """

    def __init__(self, num_dims: int) -> None:
        self.num_rows = 0
        self._shift: torch.Tensor | None = None
        self._sum = torch.zeros(num_dims, dtype=torch.float64)
        self._products = torch.zeros(num_dims, num_dims, dtype=torch.float64)

    def add(self, block: npt.NDArray[np.floating]) -> None:
        """Add rows [B, D]; any floating type, finite."""
        if not len(block):
            return
        rows = torch.from_numpy(np.asarray(block, dtype=np.float64))
        if self._shift is None:
            self._shift = rows.mean(dim=0)
        rows = rows - self._shift
        self.num_rows += len(rows)
        self._sum += rows.sum(dim=0)
        self._products.addmm_(rows.T, rows)

    @property
    def mean(self) -> Floats:
        """Mean of all rows [D]."""
        assert self._shift is not None
        mean: Floats = (self._shift + self._sum / self.num_rows).numpy()
        return mean

    @property
    def covariance(self) -> Floats:
        """Covariance of all rows [D, D], divided by N - 1; N at least 2."""
        mean = self._sum / self.num_rows
        centred = self._products - self.num_rows * torch.outer(mean, mean)
        covariance: Floats = (centred / (self.num_rows - 1)).numpy()
        return covariance


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """A fit of eigenvalue = constant * mode^-exponent.

    Attributes:
        exponent: How steep; alpha of alpha-ReQ. Near 1 the latents generalise best (Agrawal et al. 2022); far above, a
            few modes hold all; far below, none stands out, as in noise.
        constant: The eigenvalue of mode 1 by the fit.
        r2: How well it fits the logarithms, at most 1.
        first: First mode that was fitted, from 1.
        last: Last mode that was fitted.
    """

    exponent: float
    constant: float
    r2: float
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Variance by principal component.

    Attributes:
        num_rows: N.
        eigenvalues: Variances [D], falling, in the square of the latents' unit; those of rounding's size are 0.
        components: Their directions [D, D], one in a row, each of length 1.
        mean: [D].
    """

    num_rows: int
    eigenvalues: Floats
    components: Floats
    mean: Floats

    @classmethod
    def of(cls, moments: Moments) -> Spectrum:
        """The spectrum of the rows that were added, at least 2."""
        covariance, mean, num_rows = moments.covariance, moments.mean, moments.num_rows
        values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
        scale = np.trace(covariance) + num_rows / (num_rows - 1) * float(mean @ mean)
        eigenvalues = values.flip(0).numpy().copy()
        eigenvalues[eigenvalues <= _ROUNDING * scale] = 0.0
        return cls(num_rows, eigenvalues, vectors.T.flip(0).numpy(), mean)

    @property
    def effective_rank(self) -> float:
        """As `nenya.evaluation.health.effective_rank`: exp of the entropy of the singular values; 0 if all are 0."""
        roots = np.sqrt(self.eigenvalues[self.eigenvalues > 0])
        if not len(roots):
            return 0.0
        p = roots / roots.sum()
        return float(np.exp(-(p * np.log(p)).sum()))

    def num_modes(self, share: float) -> int:
        """Fewest modes that hold a share of the variance, 0..1; 0 where there is no variance."""
        total = self.eigenvalues.sum()
        if total == 0:
            return 0
        cumulative = np.cumsum(self.eigenvalues) / total
        return min(int(np.searchsorted(cumulative, share - 1e-12)) + 1, len(cumulative))

    def power_law(self, first: int = 1, last: int | None = None) -> PowerLaw | None:
        """Fit a power law to the modes from `first` to `last`; see `power_law`.

        Args:
            first: From 1.
            last: Included; None: the mode with which 99 % of the variance are reached.

        Returns:
            The fit; None with fewer than three modes that are not 0.
        """
        return power_law(self.eigenvalues, first, self.num_modes(SHARES[-1]) if last is None else last)


def power_law(eigenvalues: Floats, first: int, last: int) -> PowerLaw | None:
    """Fit a power law: least squares of the logarithms, with weights 1 / mode.

    So each factor of two in the number of the mode counts the same, and not the last half of all modes half (Stringer
    et al. 2019; alpha-ReQ, Agrawal et al. 2022, fits the same way).

    Args:
        eigenvalues: Falling [D].
        first: First mode of the fit, from 1.
        last: Last mode, included.

    Returns:
        The fit; None with fewer than three modes that are not 0.
    """
    modes = np.arange(first, last + 1, dtype=np.float64)
    values = eigenvalues[first - 1 : last]
    modes, values = modes[: len(values)][values > 0], values[values > 0]
    if len(modes) < 3:
        return None
    x, y, weight = np.log(modes), np.log(values), 1 / modes
    weight = weight / weight.sum()
    x_mean, y_mean = weight @ x, weight @ y
    slope = (weight * (x - x_mean)) @ (y - y_mean) / (weight @ (x - x_mean) ** 2)
    residual = y - y_mean - slope * (x - x_mean)
    spread = weight @ (y - y_mean) ** 2
    r2 = 1 - float(weight @ residual**2 / spread) if spread > 0 else 1.0
    return PowerLaw(float(-slope), float(np.exp(y_mean - slope * x_mean)), r2, int(modes[0]), int(modes[-1]))


def share_by_mode(eigenvalues: Floats, modes: Sequence[int]) -> list[float]:
    """Share of the variance that the first so many modes hold together."""
    total = eigenvalues.sum()
    return [float(eigenvalues[:number].sum() / total) if total else 0.0 for number in modes]
