"""A map of latents where none was made: their two principal components, in two passes over the file."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nenya.progress import RunProgress
from nenya.search.vectors import Block, Vectors

_BLOCK_NUMBERS = 2**20  # of a block: 8 MB in float64
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
        for block, rows, directions in _blocks(vectors):
            coordinates[block.place + rows, : basis.shape[1]] = (directions - mean) @ basis
            progress.advance(block.stop - block.start)
    if basis.shape[1] < 2:
        coordinates[np.isfinite(coordinates[:, 0]), 1] = 0
    return coordinates, share


def _basis(vectors: Vectors, progress: RunProgress) -> tuple[Float, Float, float]:
    """Mean [D], two directions of the largest variance [D, 2], and the share of the variance in them."""
    step = max(1, math.ceil(int(vectors.usable.sum()) / _MOST))
    count, total = 0, np.zeros(vectors.num_dims)
    products = np.zeros((vectors.num_dims, vectors.num_dims))
    for block, rows, directions in _blocks(vectors):
        some = directions[(block.place + rows) % step == 0]
        count += len(some)
        total += some.sum(axis=0)
        products += some.T @ some
        progress.advance(block.stop - block.start)
    mean = total / max(1, count)
    variances, axes = np.linalg.eigh(products / max(1, count) - np.outer(mean, mean))
    basis = axes[:, ::-1][:, :2]
    largest = basis[np.abs(basis).argmax(axis=0), np.arange(basis.shape[1])]
    held = float(np.maximum(variances, 0).sum())
    share = float(np.maximum(variances[-2:], 0).sum()) / held if held > 0 else 1.0
    return mean, basis * np.where(largest < 0, -1.0, 1.0), share


def _blocks(vectors: Vectors) -> Iterator[tuple[Block, npt.NDArray[np.int64], Float]]:
    """Blocks, which of their rows are latents, and these with length 1."""
    for block in vectors.blocks(max(1, _BLOCK_NUMBERS // vectors.num_dims)):
        wide = vectors.read(block).astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
        good = vectors.usable[block.place : block.place + len(wide)] & np.isfinite(lengths) & (lengths > 0)
        rows = np.flatnonzero(good)
        yield block, rows, wide[rows] / lengths[rows, None]
