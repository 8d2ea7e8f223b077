"""The pixels themselves as features: the baseline to beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.cutouts import Cutouts
from nenya.evaluation.neighbours import Metric, knn_accuracy


def pixel_features(images: Cutouts) -> Tensor:
    """The pixels themselves as features, the baseline to beat: [N, C H W], float32."""
    return torch.from_numpy(images.read(images.usable)).flatten(1)


def pixel_accuracy(
    train: Cutouts,
    train_labels: npt.NDArray[np.int64],
    valid: Cutouts,
    valid_labels: npt.NDArray[np.int64],
    neighbours: int = 5,
) -> float:
    """`knn_accuracy` of the raw pixels, by the metric that suits them better; arguments and result as there."""
    features = pixel_features(train), pixel_features(valid)
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    return max(
        knn_accuracy(features[0], train_labels, features[1], valid_labels, neighbours, metric) for metric in metrics
    )
