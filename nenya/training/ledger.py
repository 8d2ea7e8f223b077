"""The losses of one pass over a loader."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from nenya import parallel
from nenya.data.batch import Batch
from nenya.errors import NenyaError, NonFiniteLossError, OptionError
from nenya.evaluation.health import Health
from nenya.training.meters import AverageMeter
from nenya.training.progress import EpochProgress


@dataclass
class Pass:
    """The losses of one pass over a loader.

    Attributes:
        step_losses: Loss of every batch.
        running_averages: Average over the samples up to and including each batch.
        num_batches: Batches of a complete pass; `step_losses` has fewer after an interruption.
        samples_per_second: Cutouts per second.
        waiting_share: Share of the time spent waiting for data, 0..1.
        seconds: Duration.
        health: Of the features, after validation of a model with an encoder.
    """

    step_losses: list[float]
    running_averages: list[float]
    num_batches: int
    samples_per_second: float = 0.0
    waiting_share: float = 0.0
    seconds: float = 0.0
    health: Health | None = None

    @property
    def average(self) -> float:
        """Mean loss over the samples."""
        return self.running_averages[-1]

    @property
    def complete(self) -> bool:
        """Whether every batch was done."""
        return len(self.step_losses) >= self.num_batches


Explain = Callable[[Sequence[tuple[int, float]]], str | None]


def no_explanation(found: Sequence[tuple[int, float]]) -> None:
    """Know nothing of the samples."""


class _Pending(NamedTuple):
    """A step whose loss has not been read: the loss, its samples [B], and their views' largest magnitude [B]."""

    loss: Tensor
    rows: Tensor
    largest: Tensor


class Ledger:
    """Losses of a pass, gathered on the device and read when `check` is called.

    Reading a loss makes the host wait for a GPU, so losses are kept until then.

    Args:
        where: What runs, for the message about a loss that is not finite: "epoch 3" or "validation".
        explain: Says what in the samples makes a loss NaN or infinite, as `ResumableLoader.why_not_finite`.
        num_sharing: Processes that share each batch, each adding its part of the loss (training); 1 where each batch is
            of one process (validation).

    Attributes:
        steps: Loss of every batch so far.
        averages: Average over the samples up to and including each.
        counted: Loss and number of samples of every batch.
    """

    def __init__(self, where: str, explain: Explain = no_explanation, num_sharing: int = 1) -> None:
        self._where = where
        self._explain = explain
        self._num_sharing = num_sharing
        self._meter = AverageMeter()
        self._pending: list[_Pending] = []
        self.steps: list[float] = []
        self.averages: list[float] = []
        self.counted: list[tuple[float, int]] = []

    @property
    def latest(self) -> float:
        """The loss read last; NaN before the first."""
        return self.steps[-1] if self.steps else float("nan")

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Keep the loss of a batch, of this process."""
        # one figure of each sample is kept, not the views themselves: they would fill the GPU between two checks
        largest = [view.detach().abs().flatten(1).amax(dim=1) for view in (batch.view1, batch.view2)]
        self._pending.append(_Pending(loss, batch.rows, torch.maximum(*largest)))  # NaN where one is

    def samples_in(self, batch: Batch) -> int:
        """Cutouts in a batch, those of the processes that share it included."""
        return len(batch.rows) * self._num_sharing

    def check(self) -> None:
        """Read the losses added since the last call.

        Raises:
            NonFiniteLossError: At the first that is not finite.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        stacked = torch.stack([step.loss for step in pending])
        values = (parallel.all_reduce_sum(stacked) if self._num_sharing > 1 else stacked).tolist()
        for value, step in zip(values, pending, strict=True):
            self.note(value, len(step.rows) * self._num_sharing)
            if not math.isfinite(value):
                raise self._complaint(value, step)

    def note(self, value: float, count: int) -> None:
        """Take down a batch's loss and its number of samples."""
        self._meter.update(value, count)
        self.steps.append(value)
        self.averages.append(self._meter.avg)
        self.counted.append((value, count))

    def finish(self, progress: EpochProgress, num_batches: int | None = None) -> Pass:
        """What the pass has come to.

        Args:
            progress: Which has timed it.
            num_batches: Batches of a complete pass; None for as many as there were.

        Raises:
            OptionError: There was no batch.
        """
        if not self.steps:
            raise OptionError("the loader yields no batches; expected at least one.")
        return Pass(
            step_losses=self.steps,
            running_averages=self.averages,
            num_batches=len(self.steps) if num_batches is None else num_batches,
            samples_per_second=progress.samples_per_second,
            waiting_share=progress.waiting_share,
            seconds=progress.seconds,
        )

    def _complaint(self, value: float, step: _Pending) -> NenyaError:
        mine = list(zip(step.rows.tolist(), step.largest.tolist(), strict=True))
        found = list(chain.from_iterable(parallel.all_gather_objects(mine))) if self._num_sharing > 1 else mine
        rows = [row for row, _ in found]
        hint = self._explain(found) or (
            "The pixels are finite, so the training itself diverged: lower learning_rate, raise temp, or set "
            "warm to true; with precision bf16, try fp32."
        )
        error = NonFiniteLossError(
            f"the loss is {value} in {self._where}, batch {len(self.steps)} (from 1), samples {rows}. {hint} "
            "Checkpoints written before are whole."
        )
        return parallel.common(error) if self._num_sharing > 1 else error


def merge(counted: Sequence[tuple[float, int]]) -> Ledger:
    """A ledger of losses and numbers of samples that have been read already, e.g. by several processes."""
    ledger = Ledger("validation")
    for value, count in counted:
        ledger.note(value, count)
    return ledger
