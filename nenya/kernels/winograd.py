"""Convolutions of 3 x 3 with a quarter of the multiplications between channels, for float32 on a CPU.

Four by four outputs of a 3 x 3 kernel take 144 multiplications as they are defined, and 36 as a product of polynomials
that is evaluated and interpolated at six points along each axis: F(4 x 4, 3 x 3) of Lavin & Gray 2016, "Fast algorithms
for convolutional neural networks" (arXiv:1509.09308). Patches and kernels are transformed, multiplied point by point,
summed over the channels, and transformed back. Each of the transformations is one matrix product, and so is the sum at
each point. With the transformations, a tile takes 35 % of the multiplications at 128 channels and 27 % at 512.

Axes: B images, C and K channels in and out, H x W pixels, T tiles of `TILE` x `TILE` outputs, P = `PATCH`^2 points.
Kernels are moved by one pixel and see one pixel of zeros beyond each border, so that outputs are H x W too. A pixel
that is not finite spoils every output of its tiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

KERNEL = 3
TILE = 4
PATCH = TILE + KERNEL - 1

#: Where the polynomials are evaluated, beside infinity: zero and {+-c, +-1/c}, after Alam et al. 2022, "Winograd
#: convolution for deep neural networks: efficient point selection" (doi:10.1145/3524069). The error is half of that
#: with the usual 0, 1, -1, 2, -2.
_POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)

#: Where `convolution` breaks even: with fewer channels the transformations cost too much, with fewer tiles those of the
#: kernels do, and what a tile has beyond the image is lost. Measured by `benchmarks/parts/network.py`.
MIN_CHANNELS = 128
MIN_TILES = 32
MIN_FILLED = 0.75

#: Tiles times channels that are transformed at a time: 18 MiB in float32. Smaller pieces are no faster, and with every
#: one the threads wait for each other several times, which is slow where another program keeps a core busy.
_PIECE = 2**17


def pays(shape: Sequence[int], num_outputs: int) -> bool:
    """Whether `convolution` and its gradients are together faster than oneDNN's on images of a shape.

    Args:
        shape: (B, C, H, W).
        num_outputs: K.
    """
    batch, channels, height, width = shape
    places = batch * _num_tiles(height) * _num_tiles(width)
    filled = batch * height * width >= MIN_FILLED * TILE**2 * places
    return min(channels, num_outputs) >= MIN_CHANNELS and places >= MIN_TILES and filled


@custom_op("nenya::winograd", mutates_args=())
def convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Correlate images with kernels, as `torch.nn.functional.conv2d(x, weight, padding=1)`.

    It can be differentiated backward any number of times, and torch.compile takes it as a whole. Forward-mode
    differentiation and torch.func do not know it.

    Args:
        x: [B, C, H, W], fastest channels last.
        weight: [K, C, 3, 3], of the type of `x`.

    Returns:
        [B, K, H, W], laid out channels last.
    """
    batch, channels, height, width = x.shape  # B, C, H, W
    num_outputs = len(weight)  # K
    down, across = _num_tiles(height), _num_tiles(width)
    shape = batch, num_outputs, height, width
    outputs = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    whole = (TILE * down, TILE * across) == (height, width)
    tiled = outputs.permute(0, 2, 3, 1) if whole else x.new_empty(batch, TILE * down, TILE * across, num_outputs)
    tiles = tiled.view(batch, down, TILE, across, TILE, num_outputs)  # [B, H/4, 4, W/4, 4, K]
    to_patches, to_kernels, to_outputs = _transforms(x.dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):
        kernels = to_kernels @ weight.permute(2, 3, 1, 0).reshape(KERNEL**2, -1)  # [P, 9] @ [9, C K]
        kernels = kernels.view(PATCH**2, channels, num_outputs)  # [P, C, K]
        for images, bands in _pieces(batch, down, across, max(channels, num_outputs)):
            patches = to_patches @ _cut(x, images, bands, PATCH)  # [P, P] @ [P, T C]
            products = patches.view(PATCH**2, -1, channels) @ kernels  # [P, T, C] @ [P, C, K]
            piece = tiles[images, bands]  # [b, h, 4, W/4, 4, K]
            # [16, P] @ [P, T K] -> [4, 4, b, h, W/4, K]
            by_place = (to_outputs @ products.flatten(1)).view(TILE, TILE, *piece.shape[:2], across, num_outputs)
            piece.copy_(by_place.permute(2, 3, 0, 4, 1, 5))
    if not whole:
        outputs.copy_(tiled[:, :height, :width].permute(0, 3, 1, 2))
    return outputs


@custom_op("nenya::winograd_weight_gradient", mutates_args=())
def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of `convolution` with respect to the kernels.

    Args:
        x: Input [B, C, H, W].
        gradient: Of the outputs, [B, K, H, W].

    Returns:
        [K, C, 3, 3], laid out channels last.
    """
    batch, channels, height, width = x.shape
    num_outputs = gradient.shape[1]
    total = x.new_zeros(PATCH**2, num_outputs, channels)
    to_patches, to_kernels, to_outputs = _transforms(x.dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):
        for images, bands in _pieces(batch, _num_tiles(height), _num_tiles(width), max(channels, num_outputs)):
            patches = (to_patches @ _cut(x, images, bands, PATCH)).view(PATCH**2, -1, channels)  # [P, T, C]
            # [P, 16] @ [16, T K] -> [P, T, K]
            spread = (to_outputs.t() @ _cut(gradient, images, bands, TILE)).view(PATCH**2, -1, num_outputs)
            total.baddbmm_(spread.transpose(1, 2), patches)  # [P, K, T] @ [P, T, C]
        # [9, P] @ [P, K C] -> [3, 3, K, C]
        kernels = (to_kernels.t() @ total.flatten(1)).view(KERNEL, KERNEL, num_outputs, channels)
    return kernels.permute(2, 3, 0, 1).clone(memory_format=torch.channels_last)


def image_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """Gradient of `convolution` with respect to the images.

    Args:
        gradient: Of the outputs, [B, K, H, W].
        weight: [K, C, 3, 3].

    Returns:
        [B, C, H, W], laid out channels last.
    """
    turned = weight.transpose(0, 1).flip(2, 3)  # [C, K, 3, 3], rotated by half a turn
    return convolution(gradient, turned)  # type: ignore[no-any-return]


@convolution.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    outputs = x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:])
    return outputs.contiguous(memory_format=torch.channels_last)


@weight_gradient.register_fake
def _(x: Tensor, gradient: Tensor) -> Tensor:
    weight = x.new_empty(gradient.shape[1], x.shape[1], KERNEL, KERNEL)
    return weight.contiguous(memory_format=torch.channels_last)


@register_flop_formula(torch.ops.nenya.winograd)
def _count(x_shape: Sequence[int], weight_shape: Sequence[int], **_: object) -> int:
    """Operations of the convolution as it is defined, for torch's `FlopCounterMode`."""
    return 2 * KERNEL**2 * weight_shape[0] * math.prod(x_shape)


@register_flop_formula(torch.ops.nenya.winograd_weight_gradient)
def _count_weight_gradient(x_shape: Sequence[int], gradient_shape: Sequence[int], **_: object) -> int:
    return 2 * KERNEL**2 * gradient_shape[1] * math.prod(x_shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ANN401
    ctx.save_for_backward(*inputs)


def _differentiate_convolution(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
    x, weight = ctx.saved_tensors
    to_x, to_weight = ctx.needs_input_grad
    return (image_gradient(gradient, weight) if to_x else None), (weight_gradient(x, gradient) if to_weight else None)


def _differentiate_weight_gradient(ctx: Any, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
    x, gradient = ctx.saved_tensors
    to_x, to_gradient = ctx.needs_input_grad
    return (image_gradient(gradient, weight) if to_x else None), (convolution(x, weight) if to_gradient else None)


convolution.register_autograd(_differentiate_convolution, setup_context=_keep)
weight_gradient.register_autograd(_differentiate_weight_gradient, setup_context=_keep)


@functools.cache
def _transforms(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices that transform patches [P, P], kernels [P, 9] and, back, outputs [16, P].

    Along one axis, a kernel g and a row d of outputs are polynomials of degree 2 and 3; their product is known by its
    values at six points (its leading coefficient is the value at infinity). With `E_n` the evaluation of a polynomial
    of n coefficients, the product is `inv(E_6) (E_3 g * E_4 d)`. What is wanted is the transpose of this in d, by which
    six pixels become four outputs (Winograd 1980): `E_4^T (E_3 g * inv(E_6)^T pixels)`.
    """

    def evaluation(num_coefficients: int) -> Tensor:
        points = torch.tensor(_POINTS, dtype=torch.float64, device="cpu")
        finite = points[:, None] ** torch.arange(num_coefficients, device="cpu")
        infinity = torch.eye(num_coefficients, dtype=torch.float64, device="cpu")[-1:]
        return torch.cat([finite, infinity])

    along_one_axis = torch.linalg.inv(evaluation(PATCH)).t(), evaluation(KERNEL), evaluation(TILE).t()
    patches, kernels, outputs = (torch.kron(matrix, matrix).to(device, dtype) for matrix in along_one_axis)
    return patches, kernels, outputs


def _num_tiles(length: int) -> int:
    return -(-length // TILE)


def _pieces(batch: int, down: int, across: int, channels: int) -> Iterator[tuple[slice, slice]]:
    """Images and bands of tiles that are transformed at a time: whole images, or parts of one."""
    num_tiles = _PIECE // max(channels, 1)
    images, bands = max(1, num_tiles // (down * across)), min(down, max(1, num_tiles // across))
    for first in range(0, batch, images):
        for band in range(0, down, bands):
            yield slice(first, first + images), slice(band, min(band + bands, down))


def _cut(x: Tensor, images: slice, bands: slice, side: int) -> Tensor:
    """Squares of `side` around the tiles of some bands, zero beyond the image.

    Args:
        x: Images [B, C, H, W].
        images: Which of them.
        bands: Rows of tiles.
        side: Of a square, `TILE` or more; squares then overlap.

    Returns:
        [side^2, T * C]: the pixels at each place of a square, of every tile.
    """
    channels, height, width = x.shape[1:]
    around = (side - TILE) // 2
    across = _num_tiles(width)
    top, bottom = TILE * bands.start - around, TILE * bands.stop + around
    beyond = 0, 0, around, TILE * across + around - width, max(-top, 0), max(bottom - height, 0)
    piece = x.permute(0, 2, 3, 1)[images, max(top, 0) : bottom]  # [b, rows, W, C]
    piece = F.pad(piece, beyond).contiguous() if any(beyond) else piece.contiguous()
    image, line, pixel, _ = piece.stride()
    squares = piece.as_strided(
        (side, side, len(piece), bands.stop - bands.start, across, channels),
        (line, pixel, image, TILE * line, TILE * pixel, 1),
    )
    return squares.reshape(side**2, -1)
