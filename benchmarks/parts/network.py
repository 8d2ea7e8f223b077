"""The network alone on the CPU, and its convolutions: as torch computes them, and as Nenya does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import Series, interleave, ratio, seconds, throughput
from benchmarks.results import Section, Table
from nenya.kernels import convolution, use_fast_convolutions, winograd
from nenya.machine.device import gains_by_bf16
from nenya.machine.memory import keeping_memory
from nenya.models.resnet_big import SupConResNet

CPU = torch.device("cpu")


@dataclass(frozen=True)
class _Sizes:
    products: tuple[tuple[int, int, int, int, int], ...]  # kernel, channels in and out, stride, pixels of the output
    images: int  # of such a layer
    winograd: tuple[tuple[int, int, int], ...]  # channels in and out, pixels, images
    rounding: tuple[tuple[int, int, int], ...]  # likewise
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
    winograd=(
        (64, 64, 64),
        (128, 32, 64),
        (128, 16, 64),
        (256, 16, 64),
        (256, 10, 64),
        (256, 8, 64),
        (256, 8, 8),
        (256, 8, 4),
        (512, 8, 64),
        (512, 5, 64),
        (512, 4, 64),
        (512, 4, 32),
        (512, 4, 16),
    ),
    rounding=((128, 32, 4), (256, 16, 8), (512, 8, 16)),
    cutouts={32: 64, 64: 32},
    rounds=3,
    at_least=1.5,
)
_QUICK = _Sizes(
    ((3, 4, 8, 2, 4), (1, 4, 8, 1, 4)),
    images=2,
    winograd=((8, 4, 2),),
    rounding=((8, 4, 2),),
    cutouts={8: 2},
    rounds=1,
    at_least=0.0,
)


def measure(quick: bool, folder: Path) -> Section:
    """Single layers, then forward and backward of ResNet-18."""
    sizes = _QUICK if quick else _FULL
    section = Section(
        "Network",
        "Single convolutions, then ResNet-18 forward and backward, without views, loss and reading. *oneDNN*, *as "
        "torch has it*: every convolution by oneDNN. *Nenya*: in bfloat16, weight gradients as a matrix product where "
        f"a map has at most {convolution.MAX_POSITIONS} positions; in float32, convolutions of 3 x 3 by Winograd's "
        f"algorithm from {winograd.MIN_CHANNELS} channels and {winograd.MIN_TILES} tiles of 4 x 4 outputs on, where at "
        f"least {winograd.MIN_FILLED:.0%} of the tiles lie inside the images.",
    )
    networks = {"fp32": torch.float32}
    with keeping_memory(CPU):
        section.tables = [_winograd(sizes), _rounding(sizes)]
        if quick or not lacking_bf16():
            section.tables.append(_products(sizes))
            networks["bf16"] = torch.bfloat16
        else:
            section.notes = [f"Nothing in bfloat16: {lacking_bf16()}."]
        section.tables.append(_networks(sizes, networks))
    return section


def _winograd(sizes: _Sizes) -> Table:
    """Both ways to a convolution in float32 and to its two gradients."""
    rows = []
    for channels, side, images in sizes.winograd:
        pairs = _both_ways(*_layer(channels, side, images))
        taken = [_timed(pair, sizes.rounds) for pair in pairs]
        sums = {name: [sum(parts) for parts in zip(*(each[name] for each in taken), strict=True)] for name in pairs[0]}
        rows.append(
            [
                str(channels),
                f"{side} x {side}",
                str(images),
                *(ratio(each["torch"], each["nenya"]).text(".2f") for each in taken),
                *(Series([1e3 * value for value in sums[name]]).text() for name in pairs[0]),
                ratio(sums["torch"], sums["nenya"]).text(".2f"),
                "Winograd" if winograd.pays((images, channels, side, side), channels) else "oneDNN",
            ]
        )
    heads = ["faster: forward", "to images", "to weights", "oneDNN, all three, ms", "Winograd, ms", "times faster"]
    return Table(["float32, 3 x 3, channels", "map", "batch", *heads, "used"], rows)


def _layer(channels: int, side: int, images: int) -> list[Tensor]:
    """Images, the gradient of their convolution, and kernels."""
    x, gradient = torch.randn(2, images, channels, side, side)
    weight = torch.randn(channels, channels, 3, 3)
    return [tensor.to(memory_format=torch.channels_last) for tensor in (x, gradient, weight)]


def _both_ways(x: Tensor, gradient: Tensor, weight: Tensor) -> list[dict[str, Callable[[], Tensor]]]:
    """A convolution, its gradient with respect to the images and that with respect to the kernels."""
    return [
        {
            "torch": functools.partial(F.conv2d, x, weight, padding=1),
            "nenya": functools.partial(winograd.convolution, x, weight),
        },
        {
            "torch": functools.partial(_by_torch, x, gradient, weight, 1, "images"),
            "nenya": functools.partial(winograd.image_gradient, gradient, weight),
        },
        {
            "torch": functools.partial(_by_torch, x, gradient, weight, 1, "weights"),
            "nenya": functools.partial(winograd.weight_gradient, x, gradient),
        },
    ]


def _rounding(sizes: _Sizes) -> Table:
    """How far both ways are from double precision."""
    rows = []
    for channels, side, images in sizes.rounding:
        layer = _layer(channels, side, images)
        exact = [way["torch"]() for way in _both_ways(*(tensor.double() for tensor in layer))]
        errors = [
            [float((run() - truth).norm() / truth.norm()) for run in way.values()]
            for way, truth in zip(_both_ways(*layer), exact, strict=True)
        ]
        rows.append([str(channels), *(f"{1e7 * ours:.1f} / {1e7 * theirs:.1f}" for theirs, ours in errors)])
    heads = ["forward", "to images", "to weights"]
    return Table(["rounding x 1e7, Winograd / oneDNN; channels", *heads], rows)


def _products(sizes: _Sizes) -> Table:
    """Both ways to the weight gradient of a convolution in bfloat16."""
    rows = []
    for kernel, channels, outputs, stride, side in sizes.products:
        x = _random(sizes.images, channels, side * stride, side * stride)
        gradient, weight = _random(sizes.images, outputs, side, side), _random(outputs, channels, kernel, kernel)
        taken = _timed(
            {
                "torch": functools.partial(_by_torch, x, gradient, weight, stride, "weights"),
                "product": functools.partial(convolution.weight_gradient, x, gradient, kernel, stride, kernel // 2),
            },
            sizes.rounds,
        )
        shape = [
            f"{kernel} x {kernel}, {channels} to {outputs}" + (f", stride {stride}" if stride > 1 else ""),
            f"{side} x {side}",
        ]
        milliseconds = [Series([1e3 * value for value in values]).text() for values in taken.values()]
        rows.append([*shape, *milliseconds, ratio(taken["torch"], taken["product"]).text(".1f")])
    heads = ["bfloat16, weight gradient", "map", "oneDNN, ms", "matrix product, ms", "times faster"]
    return Table(heads, rows)


def _timed(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, after one call of each to warm up."""
    for run in sides.values():
        run()
    return interleave({name: functools.partial(seconds, run) for name, run in sides.items()}, 3 * rounds)


def _by_torch(x: Tensor, gradient: Tensor, weight: Tensor, stride: int, towards: str) -> Tensor:
    around = weight.shape[-1] // 2
    geometry = [stride, stride], [around, around], [1, 1], False, [0, 0], 1
    wanted = [towards == "images", towards == "weights", False]
    gradients = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted)
    (found,) = (gradient for gradient in gradients if gradient is not None)
    return found


def _random(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)


def _networks(sizes: _Sizes, precisions: dict[str, torch.dtype]) -> Table:
    rows = []
    for name, dtype in precisions.items():
        for pixels, cutouts in sizes.cutouts.items():
            sides = {
                "as torch has it": step(pixels, cutouts, dtype=dtype, ours=False),
                "nenya": step(pixels, cutouts, dtype=dtype),
            }
            for run in sides.values():
                run()
            timed = {side: functools.partial(throughput, run, sizes.at_least) for side, run in sides.items()}
            rates = interleave(timed, sizes.rounds)
            rows += [
                [
                    name,
                    str(pixels),
                    str(cutouts),
                    side,
                    Series(values).text(),
                    ratio(values, rates["as torch has it"]).text(".2f"),
                ]
                for side, values in rates.items()
            ]
    return Table(["precision", "pixels", "batch", "network", "samples/s", "ratio"], rows)


def lacking_bf16() -> str:
    """Why there is nothing to measure in bfloat16; empty where the processor computes it."""
    return "" if gains_by_bf16(CPU) else "this processor does not gain by bfloat16"


def step(
    pixels: int,
    cutouts: int,
    backend: str | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    ours: bool = True,
) -> Callable[[], int]:
    """Forward and backward of both views of a batch, as a function that returns the number of cutouts.

    Args:
        pixels: Side of a view.
        cutouts: In the batch.
        backend: What to compile the network with, if at all.
        dtype: Of the network's arithmetic.
        ours: Convolutions as Nenya computes them; else as torch does.
    """
    torch.manual_seed(0)
    model = SupConResNet("resnet18")
    if ours:
        use_fast_convolutions(model)
    model.to(memory_format=torch.channels_last)
    if backend is not None:
        model.compile(backend=backend)
    images, towards = torch.randn(2 * cutouts, 1, pixels, pixels), torch.randn(2 * cutouts, 128)

    def run() -> int:
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            z = model(images)
        F.mse_loss(z, towards).backward()
        return cutouts

    return run
