"""Features of cutouts as they are, without random views, and what their nearest neighbours have in common."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nenya.data.augment import Views
from nenya.data.images import ImageFile
from nenya.machine.device import arithmetic, autocast, choose_precision
from nenya.machine.memory import keeping_memory
from nenya.models.inference import evaluating
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params

Metric = Literal["cosine", "euclidean"]

_MOST_DISTANCES = 2**24  # from queries to the gallery that are in memory at once: 128 MB


def encode_cutouts(
    model: SupConResNet, images: ImageFile, opt: Params, *, device: torch.device | str = "cpu", batch_size: int = 128
) -> Tensor:
    """Encode every usable cutout once: the crop and demeaning of training, with nothing random.

    Args:
        model: On `device`; its mode is restored after.
        images: The cutouts.
        opt: The options it was trained with.
        device: Where the model is.
        batch_size: Cutouts at once.

    Returns:
        h [N, F], float32, on the CPU, in the order of `images.usable`.
    """
    device = torch.device(device)
    views = Views.from_options(opt, images.height, images.width)
    features = []
    dtype = choose_precision(opt.precision, device)
    with arithmetic(opt.precision, device), keeping_memory(device), evaluating(model), autocast(dtype, device):
        for rows in np.array_split(images.usable, -(-len(images.usable) // batch_size)):
            pixels = views.plain(torch.from_numpy(images.read(rows)).to(device))
            h = model.encode(pixels.contiguous(memory_format=torch.channels_last))
            features.append(h.float().cpu())
    return torch.cat(features)


def pixel_features(images: ImageFile) -> Tensor:
    """The pixels themselves as features, the baseline to beat: [N, C H W], float32."""
    return torch.from_numpy(images.read(images.usable)).flatten(1)


def nearest(queries: Tensor, gallery: Tensor, count: int, metric: Metric = "cosine") -> Tensor:
    """The nearest gallery items of each query.

    Args:
        queries: [M, D].
        gallery: [N, D].
        count: How many, at most N.
        metric: "cosine", as suits features that a contrastive loss has trained, or "euclidean".

    Returns:
        Indices [M, count], the nearest first.
    """
    a, b = queries.double(), gallery.double()  # in float32, squares of pixels near 290 K would swamp their differences
    if metric == "cosine":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    length = b.square().sum(dim=1)
    rows = max(1, _MOST_DISTANCES // max(1, len(b)))
    # |a - b|^2 up to a term that is the same for all items of the gallery, for some queries at a time
    distances = (length - 2 * a[start : start + rows] @ b.T for start in range(0, max(1, len(a)), rows))
    return torch.cat([distance.topk(count, dim=1, largest=False).indices for distance in distances])


def knn_accuracy(
    train: Tensor,
    train_labels: npt.NDArray[np.int64],
    valid: Tensor,
    valid_labels: npt.NDArray[np.int64],
    neighbours: int = 5,
    metric: Metric = "cosine",
) -> float:
    """How often the majority of a cutout's nearest training cutouts has its label (ties: the smallest label).

    Args:
        train: Features [N, D].
        train_labels: [N], from 0.
        valid: Features [M, D].
        valid_labels: [M].
        neighbours: k.
        metric: As for `nearest`.

    Returns:
        Share, 0..1.
    """
    votes = train_labels[nearest(valid, train, neighbours, metric).numpy()]
    predicted = np.array([np.bincount(row).argmax() for row in votes])
    return float((predicted == valid_labels).mean())


def pixel_accuracy(
    train: ImageFile,
    train_labels: npt.NDArray[np.int64],
    valid: ImageFile,
    valid_labels: npt.NDArray[np.int64],
    neighbours: int = 5,
) -> float:
    """`knn_accuracy` of the raw pixels, by the metric that serves them better; arguments and result as there."""
    features = pixel_features(train), pixel_features(valid)
    metrics: tuple[Metric, ...] = ("cosine", "euclidean")
    return max(
        knn_accuracy(features[0], train_labels, features[1], valid_labels, neighbours, metric) for metric in metrics
    )
