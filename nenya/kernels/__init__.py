"""Faster kernels for a CPU, put into a model by one call, so that the model itself reads as the paper."""

from nenya.kernels.convolution import FastConv2d, can_be_fast, use_fast_convolutions

__all__ = ["FastConv2d", "can_be_fast", "use_fast_convolutions"]
