"""The optimizer and the learning rate, as pure functions of the position in the run.

By default the numbers are those of the historical code (and of SupContrast, which it follows), so that old runs can be
repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer

from nenya.errors import OptionError
from nenya.machine.device import choose_precision
from nenya.params import Params
from nenya.training.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a run.

    Attributes:
        base: Initial learning rate.
        decay_rate: Factor of a step; the cosine ends at ``base * decay_rate**3``.
        milestones: Epochs after which a step is taken, rising.
        cosine: Cosine instead of steps.
        epochs: Length of the run.
        warm_epochs: Length of the warm-up, which need not be whole; 0 for none.
        warmup_from: Learning rate at which the warm-up starts.
        by: "epoch": a rate for each epoch, which of a cosine is the value at its end; "step": one for each batch, the
            cosine's where it begins.
    """

    base: float
    decay_rate: float
    milestones: tuple[int, ...]
    cosine: bool
    epochs: int
    warm_epochs: float
    warmup_from: float
    by: str = "epoch"

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
            by=opt.schedule_by,
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

    def batch_rate(self, epoch: int, batch: int, num_batches: int) -> float | None:
        """The learning rate of a batch; None where it is the epoch's, `rate`.

        In the warm-up linear from `warmup_from` to what `rate` gives at its end (Goyal et al. 2017, sec. 2.2). After
        it, by step, the cosine at t of T batches of the run, t from 0 (Loshchilov & Hutter 2017, eq. 5):
        ``eta_min + (base - eta_min) (1 + cos(pi t / T)) / 2``.

        Args:
            epoch: From 1.
            batch: Of the epoch, from 0.
            num_batches: In an epoch.
        """
        done = batch + (epoch - 1) * num_batches
        if done < self.warm_epochs * num_batches:
            share = done / (self.warm_epochs * num_batches)
            return self.warmup_from + share * (self.rate(self.warm_epochs) - self.warmup_from)
        if self.by == "step" and self.cosine:
            return self.rate(done / num_batches)
        ends_within = epoch - 1 < self.warm_epochs
        return self.rate(epoch) if ends_within else None

    def set_for_epoch(self, optimizer: Optimizer, epoch: int) -> None:
        """Set the learning rate with which an epoch begins, but for the warm-up."""
        _set_rate(optimizer, self.rate(epoch - 1 if self.by == "step" and self.cosine else epoch))

    def set_for_batch(self, optimizer: Optimizer, epoch: int, batch: int, num_batches: int) -> None:
        """Set the learning rate of a batch where it is not the epoch's; arguments as for `batch_rate`."""
        rate = self.batch_rate(epoch, batch, num_batches)
        if rate is not None:
            _set_rate(optimizer, rate)


def adjust_learning_rate(opt: Params, optimizer: Optimizer, epoch: int) -> None:
    """Set the learning rate of an epoch; with `schedule_by` "step", that of its first batch.

    Args:
        opt: The options.
        optimizer: Its parameter groups are changed.
        epoch: From 1.
    """
    Schedule.from_options(opt).set_for_epoch(optimizer, epoch)


def warmup_learning_rate(opt: Params, epoch: int, idx: int, num_batches: int, optimizer: Optimizer) -> None:
    """Set the learning rate of a batch while the warm-up lasts; do nothing after it or without one.

    With `schedule_by` "step" every batch has a learning rate of its own, which this sets.

    Args:
        opt: The options.
        epoch: From 1.
        idx: Number of the batch, from 0.
        num_batches: Batches in an epoch.
        optimizer: Its parameter groups are changed.
    """
    Schedule.from_options(opt).set_for_batch(optimizer, epoch, idx, num_batches)


def set_optimizer(opt: Params, model: nn.Module) -> Optimizer:
    """The optimizer that the options name.

    "sgd": SGD with momentum and weight decay over all parameters, as in SimCLR's and SupContrast's small-batch
    settings. "muon": `Muon` on the weights of all convolutions but the first, the stem's, whose rows are those of a few
    pixels; SGD on all other parameters.

    Args:
        opt: `optimizer`; `learning_rate`, `momentum`, `nesterov`, `weight_decay`; of Muon `muon_learning_rate`,
            `muon_momentum`, `muon_steps`, `muon_keep_norm`, and `precision`, in which its steps are computed.
        model: Already on its device.

    Returns:
        The optimizer.

    Raises:
        OptionError: "muon", and a model without a second convolution.
    """
    device = next(model.parameters()).device
    fused = device.type == "cuda" or None  # one kernel for all parameters; on a CPU the update is no part worth saving
    nesterov = opt.nesterov and opt.momentum > 0  # without momentum there is nothing to look ahead of
    if opt.optimizer == "sgd":
        return SGD(
            model.parameters(),
            lr=opt.learning_rate,
            momentum=opt.momentum,
            weight_decay=opt.weight_decay,
            nesterov=nesterov,
            fused=fused,
        )
    convolutions = [parameter for parameter in model.parameters() if parameter.ndim == 4][1:]
    if not convolutions:
        raise OptionError(
            f'optimizer is "muon", which moves the weights of convolutions after the first, but {type(model).__name__} '
            'has none. Set optimizer to "sgd".'
        )
    chosen = {id(parameter) for parameter in convolutions}
    return Muon(
        convolutions,
        [parameter for parameter in model.parameters() if id(parameter) not in chosen],
        lr=opt.learning_rate,
        momentum=opt.momentum,
        weight_decay=opt.weight_decay,
        nesterov=nesterov,
        fused=fused,
        muon_lr=opt.muon_learning_rate,
        muon_momentum=opt.muon_momentum,
        steps=opt.muon_steps,
        keep_norm=opt.muon_keep_norm,
        dtype=choose_precision(opt.precision, device),
    )


def _set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of SGD, and that of Muon in step with it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("relative_rate", 1.0)
