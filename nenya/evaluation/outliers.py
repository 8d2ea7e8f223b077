"""Cutouts that are like no other: those whose k-th neighbour is far."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from nenya.evaluation.neighbours import nearest_others


def neighbour_distance(features: torch.Tensor, count: int) -> npt.NDArray[np.float64]:
    """Distance of each cutout to its k-th nearest other (Ramaswamy et al. 2000), as 1 - cosine.

    Args:
        features: [N, D].
        count: k, at most N - 1.

    Returns:
        [N], 0 (k others look the same) to 2.
    """
    cosines = nearest_others(features, count)[1][:, -1]
    distance: npt.NDArray[np.float64] = (1 - cosines).clamp(0.0, 2.0).numpy()
    return distance
