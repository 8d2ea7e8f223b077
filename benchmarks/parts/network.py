"""The network alone, in bfloat16 on the CPU: weight gradients as matrix products beside oneDNN's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Series, interleave, ratio, seconds, throughput
from benchmarks.results import Section, Table
from nenya.models import convolution
from nenya.models.convolution import weight_gradient
from nenya.models.resnet_big import SupConResNet
from nenya.training.runtime import computes_bf16, keeping_memory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Sizes:
    layers: tuple[tuple[int, int, int, int, int], ...]  # kernel, channels in and out, stride, pixels of the output
    images: int  # of a layer
    cutouts: dict[int, int]  # in a batch of the network, by pixels
    rounds: int
    at_least: float  # seconds of each measurement


_FULL = _Sizes(
    (
        (3, 128, 128, 1, 16),
        (3, 256, 256, 1, 16),
        (3, 256, 256, 1, 8),
        (3, 512, 512, 1, 8),
        (3, 256, 512, 2, 4),
        (3, 512, 512, 1, 4),
        (1, 512, 2048, 1, 8),
        (1, 2048, 512, 1, 8),
        (1, 1024, 2048, 2, 4),
        (1, 2048, 512, 1, 4),
    ),
    images=128,
    cutouts={32: 64, 64: 32},
    rounds=3,
    at_least=1.5,
)
_QUICK = _Sizes(((3, 4, 8, 2, 4), (1, 4, 8, 1, 4)), images=2, cutouts={8: 2}, rounds=1, at_least=0.0)


def measure(quick: bool, folder: Path) -> Section:
    """Single layers, then forward and backward of ResNet-18."""
    sizes = _QUICK if quick else _FULL
    section = Section(
        "Network",
        "ResNet-18 in bfloat16, forward and backward, without views, loss and reading. *As torch has it*: every weight "
        f"gradient by oneDNN. *Nenya*: as a matrix product where a map has at most {convolution.MAX_POSITIONS} "
        "positions.",
    )
    section.skipped = "" if quick else lacking_bf16()
    if section.skipped:
        return section
    with keeping_memory(CPU):
        section.tables = [_layers(sizes), _networks(sizes)]
    return section


def _layers(sizes: _Sizes) -> Table:
    """Both ways to the weight gradient of a convolution."""
    rows = []
    for kernel, channels, outputs, stride, side in sizes.layers:
        x = _random(sizes.images, channels, side * stride, side * stride)
        gradient, weight = _random(sizes.images, outputs, side, side), _random(outputs, channels, kernel, kernel)
        sides: dict[str, Callable[[], object]] = {
            "torch": functools.partial(_by_torch, x, gradient, weight, stride),
            "product": functools.partial(weight_gradient, x, gradient, kernel, stride, kernel // 2),
        }
        for run in sides.values():
            run()
        timed = {name: functools.partial(seconds, run) for name, run in sides.items()}
        taken = interleave(timed, 3 * sizes.rounds)
        shape = [
            f"{kernel} x {kernel}, {channels} to {outputs}" + (f", stride {stride}" if stride > 1 else ""),
            f"{side} x {side}",
        ]
        milliseconds = [Series([1e3 * value for value in taken[name]]).text() for name in sides]
        rows.append([*shape, *milliseconds, ratio(taken["torch"], taken["product"]).text(".1f")])
    heads = ["weight gradient", "map", "oneDNN, ms", "matrix product, ms", "times faster"]
    return Table(heads, rows)


def _by_torch(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> object:
    around = weight.shape[-1] // 2
    geometry = [stride, stride], [around, around], [1, 1], False, [0, 0], 1
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [False, True, False])


def _random(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)


def _networks(sizes: _Sizes) -> Table:
    rows = []
    for pixels, cutouts in sizes.cutouts.items():
        sides: dict[str, Callable[[], int]] = {
            "as torch has it": _plain(step(pixels, cutouts)),
            "nenya": step(pixels, cutouts),
        }
        for run in sides.values():
            run()
        timed = {name: functools.partial(throughput, run, sizes.at_least) for name, run in sides.items()}
        rates = interleave(timed, sizes.rounds)
        rows += [
            [
                str(pixels),
                str(cutouts),
                name,
                Series(values).text(),
                ratio(values, rates["as torch has it"]).text(".2f"),
            ]
            for name, values in rates.items()
        ]
    return Table(["pixels", "batch", "network", "samples/s", "ratio"], rows)


def lacking_bf16() -> str:
    """Why there is nothing to measure in bfloat16; empty where the processor computes it."""
    return "" if computes_bf16(CPU) else "this processor does not compute bfloat16 natively"


def step(pixels: int, cutouts: int, backend: str | None = None) -> Callable[[], int]:
    """Forward and backward of both views, compiled if a backend is named; returns the number of cutouts."""
    torch.manual_seed(0)
    model = SupConResNet("resnet18").to(memory_format=torch.channels_last)
    if backend is not None:
        model.compile(backend=backend)
    images, towards = torch.randn(2 * cutouts, 1, pixels, pixels), torch.randn(2 * cutouts, 128)

    def run() -> int:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = model(images)
        F.mse_loss(z, towards).backward()
        return cutouts

    return run


def _plain(work: Callable[[], int]) -> Callable[[], int]:
    def run() -> int:
        with mock.patch.object(convolution, "MAX_POSITIONS", 0):
            return work()

    return run
