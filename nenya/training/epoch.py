"""One pass over a loader: training, or validation, which changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nenya import parallel
from nenya.data.loaders import Batch, ViewLoader
from nenya.errors import DataError, NenyaError, NonFiniteLossError, OptionError
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.training import health
from nenya.training.gradients import compute_gradient
from nenya.training.meters import AverageMeter
from nenya.training.optim import warmup_learning_rate
from nenya.training.progress import EpochProgress
from nenya.training.runtime import autocast, choose_device, evaluating, keeping_memory
from nenya.training.step import as_batch, batch_loss, labels_for, pair_views, stack_views

T = TypeVar("T")

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
    pause: Callable[[list[float]], bool] = lambda step_losses: False,
) -> Pass:
    """Train for one epoch, or for what is left of one.

    Args:
        loader: As for `train_model`.
        model: On `device`; with several processes, in `DistributedDataParallel`.
        criterion: As for `train_model`.
        optimizer: Of the model's parameters.
        epoch: From 1.
        opt: The options.
        device: Where the model is.
        earlier: Losses of the epoch's batches that an interrupted run has done.
        pause: Called with the losses so far whenever they have been read and found finite, in all processes at the same
            batches: after every batch on a CPU, every `print_freq` on a GPU. The place to save; True stops there.

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
    with keeping_memory(device), watch as progress:
        for index, batch in enumerate(_timed(loader, progress), start=len(earlier)):
            warmup_learning_rate(opt, epoch, index, num_batches, optimizer)
            optimizer.zero_grad(set_to_none=True)
            losses.add(compute_gradient(model, criterion, batch, opt, device), batch)
            optimizer.step()
            # Reading a loss makes the host wait for the GPU, so there it is done at print frequency only.
            read = device.type == "cpu" or (index + 1) % opt.print_freq == 0 or index + 1 == num_batches
            if read:
                losses.check()
            progress.advance(losses.samples_in(batch), losses.latest, optimizer.param_groups[0]["lr"])
            if read and pause(losses.steps):
                break
        losses.check()
    return _finished(losses, progress, num_batches)


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

    Several processes share the batches; each returns the figures of all.

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
    features: list[_Features] = []
    usable = loader.images.usable if isinstance(loader, ViewLoader) else None
    stride = 1 if usable is None else -(-len(usable) // MAX_HEALTH_SAMPLES)

    def pass_over(progress: EpochProgress) -> None:
        for batch in _timed(loader, progress):
            with autocast(opt, device):
                h, z = _features(model, stack_views(batch, model, device))
            loss = batch_loss(criterion, pair_views(z), labels_for(opt.ssl_method, batch, device), shared=False)
            losses.add(loss, batch)
            losses.check()
            if h is not None:
                # every stride-th sample of the pass, whichever process has it
                places = (
                    np.arange(len(batch.rows)) if usable is None else np.searchsorted(usable, batch.rows.cpu().numpy())
                )
                kept = torch.from_numpy(np.flatnonzero(places % stride == 0))
                features.append(_Features(pair_views(h.float()).cpu()[kept], pair_views(z.float()).cpu()[kept]))
            progress.advance(len(batch.view1), losses.latest, None)

    watch = EpochProgress(title, num_batches, print_freq=None)
    with keeping_memory(device), watch as progress, evaluating(model):
        parallel.together(lambda: pass_over(progress))
    done = _finished(_merged(parallel.all_gather_objects(losses.counted)), progress)
    everyone = parallel.gather_objects(features)
    done.health = parallel.broadcast_object(_measure(everyone) if parallel.current().first else None)
    return done


class _Features(NamedTuple):
    """Encoder features h [B, 2, F] and embeddings z [B, 2, D] of a batch's views."""

    h: Tensor
    z: Tensor


def _in_turn(parts: Iterable[Sequence[T]]) -> list[T]:
    """Undo the dealing out of batches: the first of every process, the second of every process, and so on."""
    nothing = object()
    turns = zip_longest(*parts, fillvalue=nothing)
    return [item for turn in turns for item in turn if item is not nothing]  # type: ignore[misc]


def _merged(counted: Iterable[list[tuple[float, int]]]) -> _Losses:
    """The losses of all processes' batches, from loss and number of samples of each."""
    merged = _Losses(None)
    for value, count in _in_turn(counted):
        merged.note(value, count)
    return merged


def _measure(everyone: Iterable[list[_Features]]) -> health.Health | None:
    """The health of the features of all processes; None where the model has no encoder."""
    features = _in_turn(everyone)
    if not features:
        return None
    h, z = (torch.cat(parts)[:MAX_HEALTH_SAMPLES] for parts in zip(*features, strict=True))
    return health.measure(h[:, 0], h[:, 1], z[:, 0], z[:, 1]) if len(h) > 1 else None


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
    """Losses of a pass, gathered on the device and looked at when `check` is called.

    In training, several processes add parts of one batch's loss; in validation, each has whole batches of its own.
    """

    def __init__(self, epoch: int | None, earlier: Sequence[float] = (), batch_size: int = 1) -> None:
        self._epoch = epoch
        self._shares = epoch is not None and parallel.current().size > 1
        self._meter = AverageMeter()
        self._pending: list[_Pending] = []
        self.steps: list[float] = []
        self.averages: list[float] = []
        self.counted: list[tuple[float, int]] = []
        for value in earlier:
            self.note(value, batch_size)

    def add(self, loss: Tensor, batch: Batch) -> None:
        # which samples are whole is kept, not the views themselves: they would fill the GPU between two checks
        whole = torch.isfinite(batch.view1).flatten(1).all(dim=1) & torch.isfinite(batch.view2).flatten(1).all(dim=1)
        self._pending.append(_Pending(loss, batch.rows, whole))

    def samples_in(self, batch: Batch) -> int:
        """Cutouts in a batch, those of the other processes included."""
        return len(batch.rows) * (parallel.current().size if self._shares else 1)

    def check(self) -> None:
        """Read the losses added since the last call; raise NonFiniteLossError at the first that is not finite."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        stacked = torch.stack([step.loss for step in pending])
        values = (parallel.all_reduce_sum(stacked) if self._shares else stacked).tolist()
        for value, step in zip(values, pending, strict=True):
            self.note(value, len(step.rows) * (parallel.current().size if self._shares else 1))
            if not math.isfinite(value):
                raise self._complaint(value, step)

    def note(self, value: float, count: int) -> None:
        """Take down a batch's loss and its number of samples."""
        self._meter.update(value, count)
        self.steps.append(value)
        self.averages.append(self._meter.avg)
        self.counted.append((value, count))

    def _complaint(self, value: float, step: _Pending) -> NenyaError:
        where = "validation" if self._epoch is None else f"epoch {self._epoch}"
        mine = step.rows.tolist()
        mine_broken = [row for row, whole in zip(mine, step.whole.tolist(), strict=True) if not whole]
        parts = parallel.all_gather_objects((mine, mine_broken)) if self._shares else [(mine, mine_broken)]
        rows, broken = (list(chain.from_iterable(column)) for column in zip(*parts, strict=True))
        hint = (
            f"The pixels of samples {broken} are not finite: check these cutouts."
            if broken
            else "The pixels are finite, so the training itself diverged: lower learning_rate, raise temp, or set "
            "warm to true; with precision bf16, try fp32."
        )
        error = NonFiniteLossError(
            f"the loss is {value} in {where}, batch {len(self.steps)} (from 1), samples {rows}. {hint} "
            "Checkpoints written before are whole."
        )
        return parallel.common(error) if self._shares else error

    @property
    def latest(self) -> float:
        return self.steps[-1] if self.steps else float("nan")


def _finished(losses: _Losses, progress: EpochProgress, num_batches: int = 0) -> Pass:
    if not losses.steps:
        raise OptionError("the loader yields no batches; expected at least one.")
    return Pass(
        step_losses=losses.steps,
        running_averages=losses.averages,
        num_batches=num_batches or len(losses.steps),
        samples_per_second=progress.samples_per_second,
        waiting_share=progress.waiting_share,
        seconds=progress.seconds,
    )
