"""What the optimizer takes of a training step, in time and memory: Muon beside SGD, for ResNet-18 and ResNet-50."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.measure import Peak, Series, fresh, interleave, ratio, seconds
from benchmarks.results import Section, Table
from nenya.data.batch import Batch
from nenya.machine.device import choose_device, choose_precision
from nenya.params import Params
from nenya.training.build import set_model
from nenya.training.optim import set_optimizer
from nenya.training.step import Step, compute_gradient

OPTIMIZERS = ("sgd", "muon")
BACKBONES = ("resnet18", "resnet50")


@dataclass(frozen=True)
class _Sizes:
    batch: int  # cutouts of a step
    image_size: int  # pixels
    rounds: int


_FULL = _Sizes(64, 32, rounds=5)
_QUICK = _Sizes(2, 8, rounds=1)


def measure(quick: bool, folder: Path) -> Section:
    """Update the weights by each optimizer in turn, beside the gradient that it is given."""
    del folder  # no data: random views
    sizes = _QUICK if quick else _FULL
    rows = []
    device = choose_device(options(BACKBONES[0], "sgd").cuda_use)
    for backbone in BACKBONES:
        opt = options(backbone, "sgd")
        model, criterion = set_model(opt)
        gradient = functools.partial(_gradient, model, criterion, _views(sizes, device), Step.from_options(opt, device))
        gradient()
        updates = {name: _update(set_optimizer(options(backbone, name), model), device) for name in OPTIMIZERS}
        for update in updates.values():
            update()  # momentum is made
        sides: dict[str, Callable[[], float]] = {
            "gradient": functools.partial(seconds, gradient),
            **{name: functools.partial(seconds, update) for name, update in updates.items()},
        }
        times = interleave(sides, sizes.rounds)
        memory = {name: _memory(backbone, name, quick) for name in OPTIMIZERS}
        rows += [
            [
                backbone,
                name,
                Series([1e3 * value for value in times[name]]).text(),
                ratio(times[name], times["gradient"]).text(".3f"),
                f"{memory[name].added / 1e6:,.0f}",
            ]
            for name in OPTIMIZERS
        ]
    return Section(
        "The optimizer's step",
        f"An update of all weights, by random gradients of views of {sizes.image_size} x {sizes.image_size} pixels and "
        f"{sizes.batch} cutouts, in turn with the gradient of such a batch (views not included). Muon: 3 Newton-Schulz "
        f"steps in {str(choose_precision('auto', device)).removeprefix('torch.')}. Memory: what the second of two "
        "updates adds at its peak, in a fresh process, momentum and gradients being there.",
        [Table(["network", "optimizer", "ms", "of the gradient's time", "added MB"], rows)],
    )


def options(backbone: str, optimizer: str) -> Params:
    """Options of a step without imagery."""
    return Params.from_dict({"ssl_model": backbone, "optimizer": optimizer})


def _views(sizes: _Sizes, device: torch.device) -> Batch:
    view1, view2 = torch.randn(2, sizes.batch, 1, sizes.image_size, sizes.image_size, device=device)
    return Batch(view1, view2, None, torch.arange(sizes.batch))


def _gradient(model: nn.Module, criterion: nn.Module, batch: Batch, step: Step) -> None:
    model.zero_grad(set_to_none=True)
    compute_gradient(model, criterion, batch, step)
    _wait(step.device)


def _update(optimizer: torch.optim.Optimizer, device: torch.device) -> Callable[[], None]:
    def update() -> None:
        optimizer.step()
        _wait(device)

    return update


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory(backbone: str, optimizer: str, quick: bool) -> Peak:
    return fresh("benchmarks.parts.optimizer:prepare", in_process=quick, backbone=backbone, optimizer=optimizer)


def prepare(backbone: str, optimizer: str) -> Callable[[], None]:
    """An update with momentum and gradients made before it."""
    opt = options(backbone, optimizer)
    opt.cuda_use = False
    model, _ = set_model(opt, cuda_use=False)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    update = _update(set_optimizer(opt, model), torch.device("cpu"))
    update()
    return update
