"""What accumulating does to a contrastive loss: the exact way, and the mean of small batches, on synthetic cutouts.

    python examples/accumulation.py

Prints a table in Markdown for one batch of an untrained ResNet-18 whose batch-norm is held fixed, so that the parts
alone make the difference: the loss, and the angle between each gradient and that of the whole batch.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import torch
from torch import Tensor, nn

from nenya.data.batch import Batch
from nenya.data.loaders import nenya_loader
from nenya.demo.ocean import synthetic_ocean
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.step import Step, compute_gradient

BATCH, PARTS, SEED = 256, 8, 0
CPU = torch.device("cpu")


def table() -> str:
    """The figures as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ocean.h5"
        with h5py.File(file, "w") as out:
            out["train"] = synthetic_ocean(BATCH, size=32, seed=SEED)[0]
        opt = Params.from_dict(
            {
                "images_file": str(file), "ssl_model": "resnet18", "image_size": 16, "random_jitter": [20, 3],
                "batch_size_train": BATCH, "precision": "fp32", "seed": SEED, "cuda_use": False,
            }
        )  # fmt: skip
        batch = next(iter(nenya_loader(opt)))
        torch.manual_seed(SEED)
        model, criterion = set_model(opt, cuda_use=False)
    model.eval()
    whole = _gradient(model, criterion, [batch], opt)
    opt.accumulate = PARTS
    exact = _gradient(model, criterion, [batch], opt)
    opt.accumulate = 1
    small = [Batch(*(None if column is None else column[part] for column in batch)) for part in _parts()]
    plain = _gradient(model, criterion, small, opt)
    rows = [
        (f"the whole batch of {BATCH}", *whole),
        (f'"accumulate": {PARTS}', *exact),
        (f"the mean over {PARTS} batches of {BATCH // PARTS}", *plain),
    ]
    lines = ["| | loss | angle to the whole batch's gradient |", "|---|---|---|"]
    lines += [f"| {name} | {loss:.4f} | {_angle(gradient, whole[1]):.1f} degrees |" for name, loss, gradient in rows]
    return "\n".join(lines)


def _parts() -> list[slice]:
    step = BATCH // PARTS
    return [slice(start, start + step) for start in range(0, BATCH, step)]


def _gradient(model: nn.Module, criterion: nn.Module, batches: list[Batch], opt: Params) -> tuple[float, Tensor]:
    """Mean loss of some batches, and its gradient as one vector."""
    model.zero_grad()
    step = Step.from_options(opt, CPU)
    loss = sum(float(compute_gradient(model, criterion, batch, step)) for batch in batches) / len(batches)
    gradients = [weights.grad for weights in model.parameters()]
    return loss, torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]) / len(batches)


def _angle(first: Tensor, second: Tensor) -> float:
    """The angle between two vectors, degrees; accurate for small angles too."""
    a, b = (vector.double() / vector.double().norm() for vector in (first, second))
    return float(torch.rad2deg(2 * torch.atan2((a - b).norm(), (a + b).norm())))


if __name__ == "__main__":
    print(table())
