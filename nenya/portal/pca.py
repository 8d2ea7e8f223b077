"""A map of latents where none was made: their two principal components, in two passes over the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.progress import RunProgress
from nenya.search.vectors import Block, Vectors

_BLOCK_NUMBERS = 2**20  # of a block: 4 MB in float32
_MOST = 50_000  # latents that the components are computed from, evenly spaced in the file

Float = npt.NDArray[np.float64]


def two_components(vectors: Vectors) -> tuple[npt.NDArray[np.float32], float]:
    """The two principal components of latents of length 1.

    Args:
        vectors: The latents.

    Returns:
        Coordinates [N, 2], NaN where a row is no latent; share of the variance that they hold, 0..1.
    """
    coordinates = np.full((len(vectors), 2), np.nan, np.float32)
    with RunProgress(2 * len(vectors), 0, "principal components") as progress:
        mean, basis, share = _basis(vectors, progress)
        narrow, centre = torch.from_numpy(basis).float(), torch.from_numpy(mean @ basis).float()
        for block, stored in _blocks(vectors, progress):
            wide = torch.from_numpy(stored).float()
            lengths = torch.linalg.vector_norm(wide, dim=1)
            placed = ((wide @ narrow) / lengths[:, None] - centre).numpy()  # NaN of a length of zero or without end
            rows = slice(block.place, block.place + len(stored))
            placed[~(vectors.usable[rows] & np.isfinite(placed).all(axis=1))] = np.nan
            coordinates[rows, : basis.shape[1]] = placed
    if basis.shape[1] < 2:
        coordinates[np.isfinite(coordinates[:, 0]), 1] = 0
    return coordinates, share


def _basis(vectors: Vectors, progress: RunProgress) -> tuple[Float, Float, float]:
    """Mean [D], two directions of the largest variance [D, 2], and the share of the variance in them."""
    step = max(1, math.ceil(int(vectors.usable.sum()) / _MOST))
    count, total = 0, np.zeros(vectors.num_dims)
    products = np.zeros((vectors.num_dims, vectors.num_dims))
    for block, stored in _blocks(vectors, progress):
        first = -block.place % step
        wide = stored[first::step].astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
        good = vectors.usable[block.place + first : block.place + len(stored) : step]
        good = good & np.isfinite(lengths) & (lengths > 0)
        some = wide[good] / lengths[good, None]
        count += len(some)
        total += some.sum(axis=0)
        products += some.T @ some
    mean = total / max(1, count)
    variances, axes = np.linalg.eigh(products / max(1, count) - np.outer(mean, mean))
    basis = axes[:, ::-1][:, :2]
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])]
    held = float(np.maximum(variances, 0).sum())
    share = float(np.maximum(variances[-2:], 0).sum()) / held if held > 0 else 1.0
    return mean, basis * np.where(largest < 0, -1.0, 1.0), share


def _blocks(vectors: Vectors, progress: RunProgress) -> Iterator[tuple[Block, npt.NDArray[Any]]]:
    """The latents as they are stored, a block at a time."""
    for block in vectors.blocks(max(1, _BLOCK_NUMBERS // vectors.num_dims)):
        yield block, vectors.read(block)
        progress.advance(block.stop - block.start)
