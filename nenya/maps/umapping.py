"""Landmarks laid out in two dimensions by UMAP (McInnes et al. 2018), the same way each time.

UMAP is given the exact nearest neighbours, and begins from the first two principal components, which keep the order at
large (Kobak and Linderman 2021); so what is left to chance is drawn from the seed, by one thread. Without the package
`umap-learn`, ``--method pca`` and ``--onto`` still work.
"""

from __future__ import annotations

import importlib.metadata
import logging
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError
from nenya.maps.placing import first_two

logger = logging.getLogger(__name__)

NEIGHBOURS = 15
MIN_DISTANCE = 0.1
#: Fewer landmarks than this have no neighbourhoods to unfold: their map is that of the first two components.
FEWEST = 2 * NEIGHBOURS
_SPAN = 10.0  # of the places to begin from, as UMAP has it
_JITTER = 1e-4  # of these places, so that no two are the same

Float = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def require() -> Any:  # noqa: ANN401  # no type information
    """The package; its first import takes seconds, in which functions are compiled.

    Raises:
        OptionError: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import umap
    except ImportError as error:
        raise OptionError(
            "--method umap needs the package umap-learn: pip install 'nenya[map]'; --method pca does without."
        ) from error
    return umap


def versions() -> dict[str, str]:
    """Versions of the packages that decide the result."""
    return {name: importlib.metadata.version(name) for name in ("umap-learn", "numba")}


def lay_out(vectors: Float32, nearest: Integers, distances: Float, seed: int) -> Float32:
    """Coordinates of landmarks [L, 2].

    Args:
        vectors: Their principal components [L, P].
        nearest: The nearest of each, the first of them itself [L, k].
        distances: How far these are [L, k].
        seed: Of all that is random.

    Raises:
        OptionError: umap-learn is not installed.
    """
    umap = require()
    k = min(NEIGHBOURS, nearest.shape[1])
    start = first_two(vectors)
    start = start * np.float32(_SPAN / max(float(np.abs(start).max()), 1e-12))
    start += np.random.default_rng(seed).normal(scale=_JITTER, size=start.shape).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one thread is used, and that it cannot place others: neither is wanted
        mapper = umap.UMAP(
            n_neighbors=k, min_dist=MIN_DISTANCE, init=start, random_state=seed, n_jobs=1,
            precomputed_knn=(nearest[:, :k].astype(np.int32), distances[:, :k].astype(np.float32)),
        )  # fmt: skip
        found: Float32 = np.asarray(mapper.fit_transform(vectors), np.float32)
    return found
