"""The optimizer and the learning rate, as pure functions of the position in the run.

The numbers are those of the historical code (and of SupContrast, which it follows): old runs can be repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer

from nenya.params import Params


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a run.

    Attributes:
        base: Initial learning rate.
        decay_rate: Factor of a step; the cosine ends at ``base * decay_rate**3``.
        milestones: Epochs after which a step is taken, rising.
        cosine: Cosine instead of steps.
        epochs: Length of the run.
        warm_epochs: Length of the warm-up; 0 for none.
        warmup_from: Learning rate at which the warm-up starts.
    """

    base: float
    decay_rate: float
    milestones: tuple[int, ...]
    cosine: bool
    epochs: int
    warm_epochs: int
    warmup_from: float

    @classmethod
    def from_options(cls, opt: Params) -> Schedule:
        """Read the options."""
        return cls(
            base=opt.learning_rate,
            decay_rate=opt.lr_decay_rate,
            milestones=tuple(opt.lr_decay_epochs),
            cosine=opt.cosine,
            epochs=opt.epochs,
            warm_epochs=opt.warm_epochs if opt.warms_up else 0,
            warmup_from=opt.warmup_from,
        )

    def rate(self, epoch: float) -> float:
        """The schedule without warm-up.

        Args:
            epoch: From 1.

        Returns:
            Cosine: ``eta_min + (base - eta_min) (1 + cos(pi epoch / epochs)) / 2`` with
            ``eta_min = base * decay_rate**3``; steps: ``base * decay_rate**(milestones passed)``.
        """
        if self.cosine:
            eta_min = self.base * self.decay_rate**3
            return eta_min + (self.base - eta_min) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return self.base * self.decay_rate ** sum(epoch > milestone for milestone in self.milestones)

    def warmup_rate(self, epoch: int, batch: int, num_batches: int) -> float | None:
        """The learning rate of a batch during the warm-up; None after it.

        Linear from `warmup_from` to what `rate` gives at the end of the warm-up (Goyal et al. 2017, sec. 2.2).

        Args:
            epoch: From 1.
            batch: Of the epoch, from 0.
            num_batches: In an epoch.
        """
        if epoch > self.warm_epochs:
            return None
        done = (batch + (epoch - 1) * num_batches) / (self.warm_epochs * num_batches)
        return self.warmup_from + done * (self.rate(self.warm_epochs) - self.warmup_from)

    def warm_up(self, optimizer: Optimizer, epoch: int, batch: int, num_batches: int) -> None:
        """Set the learning rate of a batch while the warm-up lasts; arguments as for `warmup_rate`."""
        rate = self.warmup_rate(epoch, batch, num_batches)
        if rate is not None:
            _set_rate(optimizer, rate)


def adjust_learning_rate(opt: Params, optimizer: Optimizer, epoch: int) -> None:
    """Set the learning rate of an epoch.

    Args:
        opt: The options.
        optimizer: Its parameter groups are changed.
        epoch: From 1.
    """
    _set_rate(optimizer, Schedule.from_options(opt).rate(epoch))


def warmup_learning_rate(opt: Params, epoch: int, idx: int, num_batches: int, optimizer: Optimizer) -> None:
    """Set the learning rate of a batch while the warm-up lasts; do nothing after it or without one.

    Args:
        opt: The options.
        epoch: From 1.
        idx: Number of the batch, from 0.
        num_batches: Batches in an epoch.
        optimizer: Its parameter groups are changed.
    """
    Schedule.from_options(opt).warm_up(optimizer, epoch, idx, num_batches)


def set_optimizer(opt: Params, model: nn.Module) -> SGD:
    """SGD with momentum and weight decay over all parameters, as in SimCLR's and SupContrast's small-batch settings.

    Args:
        opt: `learning_rate`, `momentum`, `weight_decay`.
        model: Already on its device.

    Returns:
        The optimizer.
    """
    on_gpu = next(model.parameters()).is_cuda
    return SGD(
        model.parameters(),
        lr=opt.learning_rate,
        momentum=opt.momentum,
        weight_decay=opt.weight_decay,
        fused=True if on_gpu else None,  # one kernel for all parameters; on a CPU the update is no part worth saving
    )


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
