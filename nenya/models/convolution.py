"""Convolutions whose weight gradient is a matrix product where images have become small.

oneDNN, which PyTorch computes convolutions with on CPUs, is fast where feature maps are large. In bfloat16 its weight
gradient falls far behind the processor's own matrix products where maps are small and channels many, and on views of
32 pixels that is half of a ResNet's work. There the patches are laid out as a matrix, and the gradient is one product
(im2col; Chellapilla et al. 2006, "High performance convolutional neural networks for document processing", sec. 3).
`benchmarks/parts/network.py` measures both.

Axes: B images, C and K channels in and out, H x W pixels in, Y x X out, R x R the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

#: Up to so many positions of the output the product is faster: measured at 4 x 4 and 8 x 8, slower from 16 x 16 on.
MAX_POSITIONS = 64


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` without bias, dilation or groups: the same parameters and values, faster on small maps.

    Args:
        in_channels: C.
        out_channels: K.
        kernel_size: R.
        stride: The same for both axes.
        padding: Zeros at each border, the same for both axes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, K, Y, X]."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        if input.device.type != "cpu" or dtype != torch.bfloat16 or self._num_positions(input) > MAX_POSITIONS:
            return super().forward(input)
        output: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            input.to(dtype), self.weight.to(dtype), self.stride[0], int(self.padding[0])
        )
        return output

    def _num_positions(self, x: Tensor) -> int:
        size, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((length + 2 * padding - size) // stride + 1 for length in x.shape[2:])
        return height * width


class _Convolution(torch.autograd.Function):
    """Convolution in the dtype of its arguments, whatever autocast says; see `weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, stride=stride, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = conv2d_input(x.shape, weight, gradient, stride, padding)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            to_weight = weight_gradient(x, gradient, weight.shape[-1], stride, padding)
        return to_x, to_weight, None, None


def weight_gradient(x: Tensor, gradient: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """Gradient of a convolution's weights as one matrix product.

    Args:
        x: Input [B, C, H, W].
        gradient: Of the output, [B, K, Y, X].
        size: R, of the kernel.
        stride: Of the kernel.
        padding: Zeros at each border of `x`.

    Returns:
        [K, C, R, R], laid out channels last.
    """
    around = (0, 0, padding, padding, padding, padding)
    rows = F.pad(x.permute(0, 2, 3, 1), around).contiguous()  # [B, H, W, C] with its zeros
    batch, _, _, channels = rows.shape
    outputs, height, width = gradient.shape[1:]
    image, line, pixel, _ = rows.stride()
    # A kernel's row of pixels lies in one piece: R x C values from its first pixel on.
    pieces = rows.as_strided(
        (batch, height, width, size, size * channels), (image, stride * line, stride * pixel, line, 1)
    )
    patches = pieces.reshape(batch * height * width, size * size * channels)
    gradients = gradient.permute(0, 2, 3, 1).reshape(batch * height * width, outputs)
    return (gradients.t() @ patches).view(outputs, size, size, channels).permute(0, 3, 1, 2)
