"""What latents have to beat: the pixels themselves, their principal components, and three figures of a cutout."""

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


def image_statistics(pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """What can be told of a cutout without any network: mean, DT and gradient of each channel.

    Args:
        pixels: [B, C, H, W], without gaps.

    Returns:
        [B, 3 C]: all means, then DT (90th less 10th percentile), in the image's unit, then the mean size of the
        gradient, in the unit per pixel (0 for cutouts of one pixel a side).
    """
    x = np.asarray(pixels, dtype=np.float64)
    flat = x.reshape(*x.shape[:2], -1)
    low, high = np.percentile(flat, [10, 90], axis=2)
    slope = np.zeros(x.shape[:2])
    if min(x.shape[2:]) > 1:
        along, across = np.gradient(x, axis=(2, 3))
        slope = np.hypot(along, across).mean(axis=(2, 3))
    return np.concatenate((flat.mean(axis=2), high - low, slope), axis=1)


class PixelComponents:
    """The principal components of raw pixels.

    Args:
        pixels: Cutouts to find them in [N, C, H, W], N at least 2.
        most: How many components; fewer where there are fewer cutouts or pixels.
    """

    def __init__(self, pixels: npt.NDArray[np.floating], most: int = 64) -> None:
        x = torch.from_numpy(np.asarray(pixels, dtype=np.float64)).flatten(1)
        self._mean = x.mean(dim=0)
        x = x - self._mean
        if len(x) < x.shape[1]:  # N x N instead of pixels x pixels
            values, vectors = torch.linalg.eigh(x @ x.T)
            directions = x.T @ vectors
        else:
            values, vectors = torch.linalg.eigh(x.T @ x)
            directions = vectors
        kept = values.flip(0)[:most] > 1e-12 * values[-1].clamp_min(torch.finfo(torch.float64).tiny)
        self._directions = torch.nn.functional.normalize(directions.flip(1)[:, :most][:, kept], dim=0)

    def of(self, pixels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The components of cutouts: [B, C, H, W] -> [B, number of components]."""
        x = torch.from_numpy(np.asarray(pixels, dtype=np.float64)).flatten(1)
        components: npt.NDArray[np.float64] = ((x - self._mean) @ self._directions).numpy()
        return components
