"""The conventional pipeline that Nenya is held against, as plain as it is commonly written.

A `Dataset` opens the file for every cutout and makes two views of it with scikit-image, a `DataLoader` with two worker
processes collates them, the image is repeated to three channels, the network runs in float32 on contiguous tensors, and
the loss builds every matrix of the equation. The network is Nenya's own, with the same parameters, and the views are
made by the same steps from the same distributions, so that what differs is how, not what.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import torch
from skimage.transform import resize, rotate
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import steady_rate
from nenya.models.resnet_big import SupConResNet

Image = npt.NDArray[np.float32]

NUM_WORKERS = 2


def read_cutout(path: Path, key: str, row: int) -> Image:
    """Open the file and take one cutout [H, W]."""
    with h5py.File(path, "r") as file:
        return np.asarray(file[key][row, 0], dtype=np.float32)


def make_view(
    image: Image, *, mirror: tuple[bool, bool], angle: float, shift: tuple[int, int], window: int, size: int
) -> Image:
    """Flip, rotate, crop, resize, demean and repeat over three channels, one step after the other.

    Args:
        image: [H, W].
        mirror: Whether to mirror (y, x).
        angle: Counter-clockwise, degrees.
        shift: Of the window's centre (y, x), pixels.
        window: Side of the window, pixels.
        size: Side of the view, pixels.

    Returns:
        [3, size, size], float32.
    """
    if mirror[0]:
        image = np.flip(image, axis=0)
    if mirror[1]:
        image = np.flip(image, axis=1)
    image = rotate(image, angle, mode="reflect")
    top = (image.shape[0] - window) // 2 + shift[0]
    left = (image.shape[1] - window) // 2 + shift[1]
    image = resize(image[top : top + window, left : left + window], (size, size))
    image = image - image.mean()
    return np.repeat(image[None], 3, axis=0).astype(np.float32)


def random_view(image: Image, window: int, max_shift: int, size: int) -> Image:
    """A view with random flips, angle and shift; arguments and result as for `make_view`."""
    return make_view(
        image,
        mirror=(random.random() < 0.5, random.random() < 0.5),
        angle=random.uniform(0, 360),
        shift=(random.randint(-max_shift, max_shift), random.randint(-max_shift, max_shift)),
        window=window,
        size=size,
    )


class TwoViews(Dataset[tuple[Tensor, Tensor]]):
    """Two views of every cutout of a dataset.

    Args:
        path: The HDF5 file.
        key: The dataset, [N, 1, H, W].
        window: Side of the crop, pixels.
        max_shift: Largest shift of its centre, pixels.
        size: Side of the views, pixels.
    """

    def __init__(self, path: Path, key: str, window: int, max_shift: int, size: int) -> None:
        self.path = path
        self.key = key
        self.window = window
        self.max_shift = max_shift
        self.size = size
        with h5py.File(path, "r") as file:
            self.count = len(file[key])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = read_cutout(self.path, self.key, row)
        first, second = (random_view(image, self.window, self.max_shift, self.size) for _ in range(2))
        return torch.from_numpy(first), torch.from_numpy(second)


def supcon_loss(features: Tensor, labels: Tensor | None = None, temperature: float = 0.07) -> Tensor:
    """Khosla et al. 2020 (arXiv:2004.11362), eq. 2, with every factor of it as a matrix of all pairs.

    Args:
        features: z [B, V, D] of unit length.
        labels: Class of each sample [B]; None: the only positives of a sample are its other views.
        temperature: T.

    Returns:
        The mean over all anchors, a scalar.
    """
    num_samples, num_views, _ = features.shape
    z = torch.cat(features.unbind(dim=1))  # [V B, D]
    if labels is None:
        labels = torch.arange(num_samples, device=z.device)
    same_class = (labels[:, None] == labels[None, :]).float().repeat(num_views, num_views)
    not_itself = 1 - torch.eye(len(z), device=z.device)
    is_positive = same_class * not_itself
    logits = z @ z.T / temperature
    logits = logits - logits.max(dim=1, keepdim=True).values.detach()
    exp_logits = torch.exp(logits) * not_itself
    log_prob = logits - torch.log(exp_logits.sum(dim=1, keepdim=True))
    mean_over_positives = (is_positive * log_prob).sum(dim=1) / is_positive.sum(dim=1)
    return -mean_over_positives.mean()


@dataclass
class Trained:
    """What a training of a few steps gave.

    Attributes:
        losses: Of every step.
        samples_per_second: Cutouts per second, without the first step.
        waiting_share: Share of the time spent waiting for data, 0..1; of all steps.
    """

    losses: list[float]
    samples_per_second: float
    waiting_share: float


def make_model(backbone: str, seed: int) -> tuple[nn.Module, Optimizer]:
    """The network in float32 on contiguous tensors, and its optimizer."""
    torch.manual_seed(seed)
    model = SupConResNet(backbone)
    return model, SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def train(dataset: TwoViews, model: nn.Module, optimizer: Optimizer, batch_size: int, num_steps: int) -> Trained:
    """Train for some steps, two at least, of a new pass over the data."""
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=NUM_WORKERS, drop_last=True)
    model.train()
    losses: list[float] = []
    ended: list[float] = []
    started = time.perf_counter()
    waited = 0.0
    batches = iter(loader)
    for _ in range(num_steps):
        asked = time.perf_counter()
        view1, view2 = next(batches)
        waited += time.perf_counter() - asked
        z1, z2 = model(torch.cat([view1, view2])).chunk(2)
        loss = supcon_loss(torch.stack([z1, z2], dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        ended.append(time.perf_counter())
    return Trained(losses, steady_rate(ended, batch_size), waited / (ended[-1] - started))
