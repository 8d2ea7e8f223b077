"""lightly's SimCLR beside this code: as long on the same machine, the same imagery, the same views to measure by.

lightly (https://docs.lightly.ai/self-supervised-learning) needs torchvision, whose wheels ask for CUDA beside a torch
for processors: it best lies in an environment of its own. Its side is put together as its CIFAR-10 benchmark does:
ResNet-18 with a stem for small images, its projection head, its NT-Xent loss, its views.

What is unequal: lightly's views are made of pictures of 8 bits, its rotation leaves black corners, and its network has
no ReLU after the stem, as in its benchmark. Its cosine falls with the time, so that it ends just when the time is up.
"""

from __future__ import annotations

import itertools
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
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # lightly's usual ones, of ImageNet


@dataclass(frozen=True)
class Side:
    """One way to train with lightly.

    Attributes:
        precision: "fp32" or "bf16".
        views: Arguments of `SimCLRTransform`, beside its CIFAR settings.
        rate: Learning rate.
        decay: Weight decay.
        temperature: Of the loss.
    """

    precision: str
    views: dict[str, Any] = field(default_factory=lambda: {"rr_prob": 1.0, "rr_degrees": 180, "vf_prob": 0.5})
    rate: float = RATE
    decay: float = DECAY
    temperature: float = TEMPERATURE


#: The last one is given what this code's defaults are: scale, no change of colour, rate, weight decay, temperature.
SIDES = {
    "lightly, CIFAR settings, float32": Side("fp32"),
    "lightly, CIFAR settings, bfloat16": Side("bf16"),
    "lightly, settings of the defaults, bfloat16": Side(
        "bf16", Side("").views | {"min_scale": 0.3, "cj_prob": 0.0, "random_gray_scale": 0.0}, 0.05, 1e-4, 0.07
    ),
}
ARMS = {"Nenya, defaults": recipe.REFERENCE, "Nenya, recipe": "muon, 32 then 48"}
HEADS = ["", "time, s", "passes", "view retrieval of h", "of z", "effective rank of h"]


def is_installed() -> bool:
    """Whether lightly can be imported."""
    try:
        _declare_operators()
        import lightly.loss
        import lightly.transforms  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


def figures(folder: Path, rates: dict[str, list[float]], seed: int) -> dict[str, Any]:
    """Train all sides in turn, lightly for as long as the defaults took.

    Args:
        folder: Of the HDF5 files.
        rates: Of the recipe's arms, see `recipe.step_rates`.
        seed: Of all runs.

    Returns:
        ``{"sides": {name: {"seconds", "passes", "retrieval_h", "retrieval_z", "effective_rank"}}}``.
    """
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
        grey = (0.5 + images / (2 * self.extreme)).clamp(0, 1)
        means, stds = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
        return self.backbone((grey - means) / stds)

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
    """Views of pictures, by lightly's transforms."""

    def __init__(self, pictures: npt.NDArray[np.uint8], transform: Any) -> None:  # noqa: ANN401
        self._pictures, self._transform = pictures, transform

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> list[Tensor]:
        from PIL import Image

        return self._transform(Image.fromarray(self._pictures[number]).convert("RGB"))


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
    transform = SimCLRTransform(**{"input_size": SIZE, "cj_strength": 0.5, "gaussian_blur": 0.0} | side.views)
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


def _declare_operators() -> None:
    """Name torchvision's operators for boxes, which it wants to describe even where its library cannot be loaded."""
    if hasattr(torch.ops.torchvision, "nms"):
        return
    for name in ("nms", "qnms"):
        _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
