"""lightly's SimCLR beside this code: as long on the same machine, the same imagery, the same views to measure by.

lightly (https://docs.lightly.ai/self-supervised-learning) needs torchvision, whose wheels ask for CUDA beside a torch
for processors: it best lies in an environment of its own. Its sides are put together as its CIFAR-10 benchmark does:
ResNet-18 with a stem for small images, its projection head, its NT-Xent loss, its views and settings. The last one is
given what this code's defaults are: windows as large and as near to the middle, turned by quarters and mirrored,
without any change of colour; learning rate, weight decay and temperature.

What is unequal: lightly's views are made of pictures of 8 bits in three equal channels, anomalies from the cutout's
mean, clipped at their 99.9th percentile. The mean of each view is taken away, as in the views that measure: else it
would tell in training which views belong together, and be missing when it is measured. Those views, windows of 35 to 40
of 64 pixels, turned by any angle, are what this code trains with. lightly's network has no ReLU after the stem, as in
its benchmark. The time of this code has its checks, validation and checkpoints in it; lightly has all of it for steps,
and its cosine falls with the time, so that it ends just when the time is up.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks import recipe
from benchmarks.results import Table
from nenya.data.images import ImageFile
from nenya.evaluation.health import effective_rank
from nenya.machine.device import autocast
from nenya.params import Params
from nenya.train import run
from nenya.training.step import Step

DATA, BUDGET, SIZE = "sst", 8, 32  # experiment, epochs of today's defaults, pixels of the views that measure
#: lightly's settings for CIFAR-10, its learning rate by its rule of 0.06 for a batch of 128.
BATCH, RATE, MOMENTUM, DECAY, TEMPERATURE = 64, 0.03, 0.9, 5e-4, 0.5
WORKERS = 2
_EXTREME = 99.9  # percentile of the anomalies that becomes black and white
_SPREAD = 0.225  # by which grey levels of 0..1 are divided, as lightly does for ImageNet


@dataclass(frozen=True)
class Side:
    """One way to train with lightly.

    Attributes:
        precision: "fp32" or "bf16".
        views: Arguments of `SimCLRTransform`, beside its CIFAR settings.
        window: Smallest and largest side of the window that a view shows, and the side of the middle of the cutout in
            which it lies, pixels; None for lightly's windows of any place and size.
        rate: Learning rate.
        decay: Weight decay.
        temperature: Of the loss.
    """

    precision: str
    views: dict[str, Any] = field(default_factory=dict)
    window: tuple[int, int, int] | None = None
    rate: float = RATE
    decay: float = DECAY
    temperature: float = TEMPERATURE


SIDES = {
    "lightly, CIFAR settings, float32": Side("fp32"),
    "lightly, CIFAR settings, bfloat16": Side("bf16"),
    "lightly, settings of the defaults, bfloat16": Side(
        "bf16",
        {"cj_prob": 0.0, "random_gray_scale": 0.0, "vf_prob": 0.5, "rr_prob": 0.5, "rr_degrees": None},
        window=(35, 40, 50),
        rate=0.05,
        decay=1e-4,
        temperature=0.07,
    ),
}
ARMS = {"Nenya, defaults": recipe.REFERENCE, "Nenya, recipe": "muon, 32 then 48"}
HEADS = ["", "time, s", "passes", "view retrieval of h", "of z", "effective rank of h"]


def is_installed() -> bool:
    """Whether lightly is there."""
    return all(importlib.util.find_spec(name) is not None for name in ("lightly", "torchvision"))


def figures(folder: Path, rates: dict[str, list[float]], seed: int) -> dict[str, Any]:
    """Train all sides in turn, lightly for as long as the defaults took.

    Args:
        folder: Of the HDF5 files.
        rates: Of the recipe's arms, see `recipe.step_rates`.
        seed: Of all runs.

    Returns:
        ``{"sides": {name: {"seconds", "passes", "retrieval_h", "retrieval_z", "effective_rank"}}}``.
    """
    _import_torchvision()
    found = {}
    with tempfile.TemporaryDirectory(prefix="nenya-lightly-") as place:
        for name, arm in ARMS.items():
            epochs = recipe.epochs_of(arm, BUDGET, rates)
            opt = Params.from_dict(recipe.options_of(DATA, arm, epochs, folder, seed) | {"model_root": place})
            began = time.perf_counter()
            done = run(opt)
            seconds = time.perf_counter() - began
            found[name] = {"seconds": seconds, "passes": epochs} | _measured(done.model, done.opt)
    limit = found["Nenya, defaults"]["seconds"]
    for name, side in SIDES.items():
        began = time.perf_counter()
        model, passes = _train(side, ImageFile(done.opt.images_path, done.opt.train_key), limit, seed)
        seconds = time.perf_counter() - began
        measured = _measured(model, Params.from_dict(done.opt.dict | {"precision": side.precision}))
        found[name] = {"seconds": seconds, "passes": passes} | measured
    return {"sides": found}


def lines(row: dict[str, Any]) -> Table:
    """The table of what `figures` found."""
    cells = []
    for name, side in row["sides"].items():
        shown = [f"{side[figure]:.3f}" for figure in ("retrieval_h", "retrieval_z")]
        cells.append([name, f"{side['seconds']:.0f}", f"{side['passes']:.1f}", *shown, f"{side['effective_rank']:.0f}"])
    return Table(HEADS, cells)


class _Network(nn.Module):
    """lightly's network, fed with anomalies in K as this code makes them."""

    def __init__(self, extreme: float) -> None:
        super().__init__()
        from lightly.models import ResNetGenerator
        from lightly.models.modules.heads import SimCLRProjectionHead

        parts = list(ResNetGenerator("resnet-18").children())[:-1]
        self.backbone = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = SimCLRProjectionHead(512, 512, 128)
        self.extreme = extreme

    def encode(self, images: Tensor) -> Tensor:
        """Anomalies [B, 1, h, w] -> h [B, 512], by the grey values that lightly was trained with."""
        return self.backbone((images / (2 * self.extreme * _SPREAD)).expand(-1, 3, -1, -1))

    def forward(self, images: Tensor) -> Tensor:
        """Anomalies [B, 1, h, w] -> z of length 1 [B, 128]."""
        return nn.functional.normalize(self.head(self.encode(images)).float(), dim=1)


class _Embedding(nn.Module):
    """A network whose features are another's embeddings z."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, C, h, w] -> z [B, D]."""
        return self.model(images)


class _Pictures(Dataset[list[Tensor]]):
    """Views of pictures, by lightly's transforms, without their means."""

    def __init__(self, pictures: npt.NDArray[np.uint8], transform: Any) -> None:  # noqa: ANN401
        self._pictures, self._transform = pictures, transform

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> list[Tensor]:
        from PIL import Image

        views = self._transform(Image.fromarray(self._pictures[number]).convert("RGB"))
        return [(view - view.mean()) / _SPREAD for view in views]


def _train(side: Side, images: ImageFile, limit: float, seed: int) -> tuple[_Network, float]:
    """Train for `limit` seconds, all that it needs included; the network, and how often it saw all cutouts."""
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform

    began = time.perf_counter()
    torch.manual_seed(seed)
    usable = np.flatnonzero(images.usable)
    pixels = images.packing.to_float(torch.from_numpy(images.read_stored(usable)))[:, 0]
    anomalies = pixels - pixels.mean(dim=(1, 2), keepdim=True)
    extreme = float(np.percentile(anomalies.abs().numpy(), _EXTREME))
    grey = (255 * (0.5 + anomalies / (2 * extreme)).clamp(0, 1)).round().to(torch.uint8).numpy()
    settings = {"input_size": SIZE, "cj_strength": 0.5, "gaussian_blur": 0.0, "normalize": None}
    transform = SimCLRTransform(**settings | side.views)
    if side.window is not None:
        least, most, middle = side.window
        edge = (grey.shape[1] - middle) // 2
        grey = np.ascontiguousarray(grey[:, edge : edge + middle, edge : edge + middle])
        for view in transform.transforms:
            crop = view.transform.transforms[0]
            crop.scale, crop.ratio = ((least / middle) ** 2, (most / middle) ** 2), (0.9, 1.1)
    loader = DataLoader(
        _Pictures(grey, transform), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    model, criterion = _Network(extreme), NTXentLoss(temperature=side.temperature)
    optimizer = torch.optim.SGD(model.parameters(), side.rate, momentum=MOMENTUM, weight_decay=side.decay)
    cast = torch.bfloat16 if side.precision == "bf16" else torch.float32
    steps = 0
    for views in _without_end(loader):
        share = (time.perf_counter() - began) / limit
        if share >= 1:
            break
        optimizer.param_groups[0]["lr"] = side.rate * 0.5 * (1 + np.cos(np.pi * share))
        with autocast(cast, torch.device("cpu")):
            z = [model.head(model.backbone(view)) for view in views]
        loss = criterion(z[0].float(), z[1].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return model, steps * BATCH / len(grey)


def _without_end(loader: DataLoader[list[Tensor]]) -> Iterator[list[Tensor]]:
    return itertools.chain.from_iterable(itertools.repeat(loader))


def _measured(model: Any, opt: Params) -> dict[str, float]:  # noqa: ANN401
    """View retrieval of h and z, and the effective rank of h, over the validation set."""
    opt = recipe.evaluated_at(SIZE, opt)
    step = Step.from_options(opt, next(model.parameters()).device)
    h, z = (recipe.features_of_views(network, step, opt) for network in (model, _Embedding(model)))
    shares = [float(recipe.hits_of(views, None).mean() / 2) for views in (h, z)]
    return {"retrieval_h": shares[0], "retrieval_z": shares[1], "effective_rank": effective_rank(torch.cat(list(h)))}


def _import_torchvision() -> None:
    """Import torchvision, also where its library asks for CUDA and cannot be loaded.

    It then misses the operators for boxes that it describes; nothing here uses them, so their names suffice.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
