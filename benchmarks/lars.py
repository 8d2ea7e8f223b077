"""LARS, SGD whose rate is set for each matrix by the lengths of its weights and its gradient: an arm to be beside.

``rate * eta * |w| / |g + decay * w|``, as in SimCLR's program (lars_optimizer.py of
https://github.com/google-research/simclr); You, Gitman & Ginsburg 2017 (arXiv:1708.03888), eq. 6, add the lengths of
both terms instead. Vectors (batch-norm, biases) have the plain rate and no decay, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nenya.params import Params

ETA = 1e-3  # trust coefficient
DECAY = 1e-6  # SimCLR's


class Lars(Optimizer):
    """LARS with momentum.

    Args:
        parameters: Of the network.
        lr: Learning rate.
        momentum: Of the update, which the rates are in already.
    """

    def __init__(self, parameters: Any, lr: float, momentum: float) -> None:  # noqa: ANN401
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Update all parameters that have a gradient; without a closure, which torch's optimizers may have."""
        assert closure is None
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    update = group["lr"] * _scaled(weights, weights.grad)
                    if "momentum_buffer" in self.state[weights]:
                        update += group["momentum"] * self.state[weights]["momentum_buffer"]
                    self.state[weights]["momentum_buffer"] = update
                    weights -= update


def _scaled(weights: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    if weights.ndim < 2:
        return gradient
    gradient = gradient + DECAY * weights
    lengths = weights.norm(), gradient.norm()
    return gradient * (ETA * lengths[0] / lengths[1]) if all(length > 0 for length in lengths) else gradient


def lars(opt: Params, model: nn.Module) -> Lars:
    """LARS in place of `nenya.training.optim.set_optimizer`, with the options of SGD."""
    return Lars(model.parameters(), opt.learning_rate, opt.momentum)
