"""One pass over a loader: training, or validation, which changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nenya.data.loaders import Batch, ViewLoader
from nenya.errors import DataError, NonFiniteLossError, OptionError
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.training import health
from nenya.training.meters import AverageMeter
from nenya.training.optim import warmup_learning_rate
from nenya.training.progress import EpochProgress
from nenya.training.runtime import autocast, choose_device, evaluating
from nenya.training.step import as_batch, contrastive_loss, labels_for, pair_views, stack_views

#: Health is measured on at most so many validation cutouts, evenly spaced: its cost grows with their square.
MAX_HEALTH_SAMPLES = 8192


class Loader(Protocol):
    """Anything with a length that yields batches `as_batch` understands."""

    def __len__(self) -> int:
        """Number of batches."""

    def __iter__(self) -> Iterator[Any]:
        """Pass over the batches."""


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
    health: health.Health | None = None

    @property
    def average(self) -> float:
        """Mean loss over the samples."""
        return self.running_averages[-1]

    @property
    def complete(self) -> bool:
        """Whether every batch was done."""
        return len(self.step_losses) >= self.num_batches


def train_model(
    loader: Loader,
    model: nn.Module,
    criterion: nn.Module,
    optimizer: Optimizer | None,
    epoch: int,
    opt: Params,
    cuda_use: bool = True,
    update_model: bool = True,
) -> tuple[float, list[float], list[float]]:
    """Train for one epoch, or validate.

    Args:
        loader: A `nenya_loader`, or your own: anything with a length that yields ``[view1, view2]`` or
            ``([view1, view2], labels)``, views [B, C, H, W].
        model: Images [2B, C, H, W] -> normalised embeddings z [2B, D]; moved to the GPU if there is one.
        criterion: z [B, 2, D] and labels [B] or None -> scalar loss.
        optimizer: May be None for validation.
        epoch: From 1; decides the learning rate of the warm-up and, for our loader, order and views.
        opt: The options.
        cuda_use: Use the GPU where there is one.
        update_model: False validates: evaluation mode, no gradient, nothing is changed.

    Returns:
        The mean loss over the samples, the loss of every batch, and the running mean after every batch.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
        OptionError: Training without an optimizer.
        DataError: The loader yields something else.
    """
    device = choose_device(cuda_use)
    model.to(device)
    if not update_model:
        done = validate(loader, model, criterion, opt, device=device)
    elif optimizer is None:
        raise OptionError("train_model needs an optimizer; without one, pass update_model=False to validate.")
    else:
        done = train_epoch(loader, model, criterion, optimizer, epoch, opt, device=device)
    return done.average, done.step_losses, done.running_averages


def train_epoch(
    loader: Loader,
    model: nn.Module,
    criterion: nn.Module,
    optimizer: Optimizer,
    epoch: int,
    opt: Params,
    *,
    device: torch.device,
    earlier: Sequence[float] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Pass:
    """Train for one epoch, or for what is left of one.

    Args:
        loader: As for `train_model`.
        model: On `device`.
        criterion: As for `train_model`.
        optimizer: Of the model's parameters.
        epoch: From 1.
        opt: The options.
        device: Where the model is.
        earlier: Losses of the epoch's batches that an interrupted run has done.
        stop: Asked after every batch whether to stop there.

    Returns:
        The losses, those of `earlier` included.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
    """
    num_batches = _length(loader)
    if isinstance(loader, ViewLoader):
        loader.set_epoch(epoch, len(earlier))
    losses = _Losses(epoch, earlier, getattr(loader, "batch_size", None) or 1)
    model.train()
    title = f"epoch {epoch}/{opt.epochs}"
    watch = EpochProgress(
        title,
        num_batches,
        done=len(earlier),
        passes_left=max(0, opt.epochs - epoch),
        print_freq=opt.print_freq,
    )
    with watch as progress:
        for index, batch in enumerate(_timed(loader, progress), start=len(earlier)):
            warmup_learning_rate(opt, epoch, index, num_batches, optimizer)
            with autocast(opt, device):
                loss = contrastive_loss(model, criterion, batch, opt.ssl_method, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.add(loss.detach(), batch)
            # Reading a loss makes the host wait for the GPU: there it is done at print frequency only.
            if device.type == "cpu" or (index + 1) % opt.print_freq == 0 or index + 1 == num_batches:
                losses.check()
            progress.advance(len(batch.view1), losses.latest, optimizer.param_groups[0]["lr"])
            if stop():
                break
        losses.check()
    return _finished(losses, num_batches, progress)


def validate(
    loader: Loader,
    model: nn.Module,
    criterion: nn.Module,
    opt: Params,
    *,
    device: torch.device,
    title: str = "validation",
) -> Pass:
    """Validate: evaluation mode, no gradient, the model's mode restored after.

    Args:
        loader: As for `train_model`.
        model: On `device`. A `SupConResNet` gets its features' health measured.
        criterion: As for `train_model`.
        opt: The options.
        device: Where the model is.
        title: Shown while it runs.

    Returns:
        The losses and, where the model has an encoder, the health.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
    """
    num_batches = _length(loader)
    losses = _Losses(None)
    features: list[tuple[Tensor, Tensor]] = []
    stride = -(-loader.num_samples // MAX_HEALTH_SAMPLES) if isinstance(loader, ViewLoader) else 1
    seen = 0
    with EpochProgress(title, num_batches, print_freq=None) as progress, evaluating(model):
        for batch in _timed(loader, progress):
            with autocast(opt, device):
                h, z = _features(model, stack_views(batch, model, device))
                loss = criterion(pair_views(z), labels_for(opt.ssl_method, batch, device))
            losses.add(loss, batch)
            losses.check()
            if h is not None:
                kept = slice(-seen % stride, None, stride)  # every stride-th sample of the pass
                features.append((pair_views(h.float())[kept].cpu(), pair_views(z.float())[kept].cpu()))
            seen += len(batch.view1)
            progress.advance(len(batch.view1), losses.latest, None)
    done = _finished(losses, num_batches, progress)
    if features and seen > 1:
        h, z = (torch.cat(parts)[:MAX_HEALTH_SAMPLES] for parts in zip(*features, strict=True))
        done.health = health.measure(h[:, 0], h[:, 1], z[:, 0], z[:, 1])
    return done


def _length(loader: Loader) -> int:
    try:
        return len(loader)
    except TypeError:
        raise DataError(
            f"the loader, a {type(loader).__name__}, has no length; expected a loader such as DataLoader, or a list."
        ) from None


def _features(model: nn.Module, images: Tensor) -> tuple[Tensor | None, Tensor]:
    """Encoder features h [2B, F], where the model has an encoder, and embeddings z [2B, D], in one pass."""
    if isinstance(model, SupConResNet):
        h = model.encode(images)
        return h, model.project(h)
    return None, model(images)


def _timed(loader: Iterable[Any], progress: EpochProgress) -> Iterator[Batch]:
    """Pass on the loader's batches and note how long each was waited for."""
    batches = iter(loader)
    while True:
        asked = time.perf_counter()
        try:
            items = next(batches)
        except StopIteration:
            return
        progress.waited(time.perf_counter() - asked)
        yield as_batch(items)


class _Pending(NamedTuple):
    """A step whose loss has not been looked at: the loss, its samples [B], and which of them are finite [B]."""

    loss: Tensor
    rows: Tensor
    whole: Tensor


class _Losses:
    """Losses of a pass, gathered on the device and looked at when `check` is called."""

    def __init__(self, epoch: int | None, earlier: Sequence[float] = (), batch_size: int = 1) -> None:
        self._epoch = epoch
        self._meter = AverageMeter()
        self._pending: list[_Pending] = []
        self.steps: list[float] = []
        self.averages: list[float] = []
        for value in earlier:
            self._note(value, batch_size)

    def add(self, loss: Tensor, batch: Batch) -> None:
        # which samples are whole is kept, not the views themselves: they would fill the GPU between two checks
        whole = torch.isfinite(batch.view1).flatten(1).all(dim=1) & torch.isfinite(batch.view2).flatten(1).all(dim=1)
        self._pending.append(_Pending(loss, batch.rows, whole))

    def check(self) -> None:
        """Read the losses added since the last call; raise NonFiniteLossError at the first that is not finite."""
        if not self._pending:
            return
        values = torch.stack([step.loss for step in self._pending]).tolist()
        pending, self._pending = self._pending, []
        for value, step in zip(values, pending, strict=True):
            self._note(value, len(step.rows))
            if not math.isfinite(value):
                raise NonFiniteLossError(self._complaint(value, step))

    def _note(self, value: float, count: int) -> None:
        self._meter.update(value, count)
        self.steps.append(value)
        self.averages.append(self._meter.avg)

    def _complaint(self, value: float, step: _Pending) -> str:
        where = "validation" if self._epoch is None else f"epoch {self._epoch}"
        rows = step.rows.tolist()
        broken = [row for row, whole in zip(rows, step.whole.tolist(), strict=True) if not whole]
        hint = (
            f"The pixels of samples {broken} are not finite: check these cutouts."
            if broken
            else "The pixels are finite, so the training itself diverged: lower learning_rate, raise temp, or set "
            "warm to true; with precision bf16, try fp32."
        )
        return (
            f"the loss is {value} in {where}, batch {len(self.steps)} (from 1), samples {rows}. {hint} "
            "Checkpoints written before are whole."
        )

    @property
    def latest(self) -> float:
        return self.steps[-1] if self.steps else float("nan")


def _finished(losses: _Losses, num_batches: int, progress: EpochProgress) -> Pass:
    if not losses.steps:
        raise OptionError("the loader yields no batches; expected at least one.")
    return Pass(
        step_losses=losses.steps,
        running_averages=losses.averages,
        num_batches=num_batches,
        samples_per_second=progress.samples_per_second,
        waiting_share=progress.waiting_share,
        seconds=progress.seconds,
    )
