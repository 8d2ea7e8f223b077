"""Convolutions that are computed otherwise than by oneDNN where that is faster on a CPU.

PyTorch's own convolutions on CPUs are oneDNN's. Two things are faster in a ResNet (`benchmarks/parts/network.py`
measures them):

- In float32, kernels of 3 x 3 between many channels by Winograd's algorithm (`winograd`).
- In bfloat16, the weight gradient where maps are small, as they are in the last stages, and more so with small views.
  There the patches are laid out as a matrix, and the gradient is one product (im2col; Chellapilla et al. 2006, "High
  performance convolutional neural networks for document processing").

Axes: B images, C and K channels in and out, H x W pixels in, Y x X out, R x R the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from nenya.kernels import winograd

#: torch 2.6 cannot tell export from compilation: there, compiled layers are torch's own as well.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

#: Positions of the output up to which the product is taken: 8 x 8. At 16 x 16 oneDNN is the faster.
MAX_POSITIONS = 64


class FastConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` without bias: the same parameters, for finite input the same values up to rounding, faster.

    `use_fast_convolutions` makes one of a `torch.nn.Conv2d` that `can_be_fast`.

    Winograd's algorithm is taken in float32 where images and weights are channels last, and not under torch.func,
    forward-mode differentiation or export. Where the weight gradient is a product (bfloat16, at most `MAX_POSITIONS`
    positions), there is no second derivative, and the patches take R x R times the memory of the input meanwhile.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._takes_winograd(input, weight, bias):
            return winograd.convolution(input, weight)  # type: ignore[no-any-return]
        if not self._takes_product(input, weight, bias):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        output: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            input.bfloat16(), weight.bfloat16(), self.stride[0], int(self.padding[0])
        )
        return output

    def _takes_winograd(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        if bias is not None or _is_exported(x) or _in_torch_func():
            return False  # a tool has folded a batch-norm into the layer, takes it elsewhere or transforms it
        if not (x.device.type == weight.device.type == "cpu" and x.ndim == 4 and x.shape[1] == weight.shape[1]):
            return False
        if not (_computed_in(x) == x.dtype == weight.dtype == torch.float32):
            return False
        if not all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (x, weight)):
            return False  # torch's own keeps the layout that there is
        geometry = self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.padding_mode
        if geometry != ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros"):
            return False
        return winograd.pays(x.shape, len(weight)) and not _has_tangent(x, weight)

    def _takes_product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        if not (torch.is_grad_enabled() and weight.requires_grad and x.device.type == "cpu" and x.ndim == 4):
            return False  # no weight gradient, or not what was measured
        if bias is not None or _is_exporting():
            return False  # a tool has folded a batch-norm into the layer, or takes it elsewhere
        if _computed_in(x) != torch.bfloat16:
            return False
        size, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((length + 2 * padding - size) // stride + 1 for length in x.shape[2:])
        return height * width <= MAX_POSITIONS


def use_fast_convolutions(model: nn.Module) -> None:
    """Let the convolutions of a model be computed as fast as this package can, in place.

    Layers, parameters, their names and hooks stay the same objects; a layer for which nothing is gained keeps torch's
    way. A model that is to be exported, or read as plain layers by another tool, does without this call.

    Args:
        model: Any model; the layers that `can_be_fast` change their class.
    """
    for layer in model.modules():
        if can_be_fast(layer):
            layer.__class__ = FastConv2d


def can_be_fast(layer: nn.Module) -> bool:
    """Whether a layer is a convolution of torch's own that `FastConv2d` computes: square, plain, without bias."""
    return (
        type(layer) is nn.Conv2d
        and layer.bias is None
        and all(
            isinstance(pair, tuple) and pair[0] == pair[1] for pair in (layer.kernel_size, layer.stride, layer.padding)
        )
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
    )


def _is_exported(x: Tensor) -> bool:
    """Whether torch.export, torch.jit or torch.fx take a layer to where this package may not be."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or _is_exporting() or not isinstance(x, Tensor)  # fx passes what is no tensor


def _in_torch_func() -> bool:
    """Whether torch.func transforms what is computed; there is no public way to ask."""
    return torch._C._functorch.peek_interpreter_stack() is not None


# All that `torch.compiler.assume_constant_result` does, without its import of the compiler: a second at each start.
_in_torch_func._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _has_tangent(*tensors: Tensor) -> bool:
    """Whether tensors are being differentiated in forward mode."""
    if torch.compiler.is_compiling():
        return False  # forward mode is not compiled but by torch.func
    duals = [forward_ad.unpack_dual(tensor) for tensor in tensors]  # type: ignore[no-untyped-call]
    return any(dual.tangent is not None for dual in duals)


def _computed_in(x: Tensor) -> torch.dtype:
    """The type that a convolution of a tensor on the CPU is computed in."""
    autocast = torch.is_autocast_enabled("cpu") and x.dtype == torch.float32
    return torch.get_autocast_dtype("cpu") if autocast else x.dtype


class _Convolution(torch.autograd.Function):
    """Convolution of bfloat16 tensors; backward as torch's but for `weight_gradient`."""

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
            geometry = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
            to_x, _, _ = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, [True, False, False])
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
    rows = x.permute(0, 2, 3, 1)  # [B, H, W, C]
    if padding > 0:  # without, padding would copy all the same
        rows = F.pad(rows, (0, 0, padding, padding, padding, padding))
    rows = rows.contiguous()
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
