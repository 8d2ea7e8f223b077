"""What a run says about itself in words: before it starts, after each validation, and at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from nenya import parallel
from nenya.data import sizes
from nenya.data.augment import Views
from nenya.data.findings import sum_up
from nenya.data.loaders import ViewLoader
from nenya.data.table import Beside
from nenya.evaluation.health import Health
from nenya.machine.device import choose_precision, describe
from nenya.machine.memory import peak_memory
from nenya.params import Params
from nenya.training.ledger import Pass
from nenya.training.optim import Schedule
from nenya.training.step import Step


def random_loss(temperature: float, batch_size: int) -> float:
    """The loss of embeddings that know nothing: ``temp/0.07 * log(2B - 1)``, Chen et al. 2020, eq. 1."""
    return float(temperature / 0.07 * math.log(2 * batch_size - 1))


def describe_run(
    opt: Params,
    train: ViewLoader,
    valid: ViewLoader | None,
    model: nn.Module,
    step: Step,
    table: Beside | None = None,
) -> list[str]:
    """Say what will run: a line each for data, table, views, model, optimisation, loss and output.

    Args:
        opt: The options, preprocessed.
        train: Training loader.
        valid: Validation loader, or None.
        model: The model.
        step: How a batch is computed, and where.
        table: The cutout table beside the data; None where there is none.

    Returns:
        Lines.
    """
    precision = "bfloat16" if choose_precision(step.precision, step.device) == torch.bfloat16 else "float32"
    parameters = sum(p.numel() for p in model.parameters())
    steps = opt.epochs * len(train)
    validation = (
        f"{_dataset(valid)}, every {_count(opt.valid_freq, 'epoch')}"
        if valid is not None
        else f"none: {_why_no_validation(opt.valid_key)}"
    )
    rows = [
        ("training", f"{_dataset(train)}, {_batches(train)}"),
        ("validation", validation),
        *([("table", table.told)] if table is not None else []),
        ("views", _views(train)),
        (
            "model",
            f"{opt.ssl_model}, {parameters / 1e6:.1f} M parameters, {opt.head} head to {opt.feat_dim} dimensions",
        ),
        ("device", f"{describe(step.device, parallel.current().size)}, {precision}"),
        (
            "learning",
            f"{_optimizer(opt)}{_schedule(Schedule.from_options(opt))}; "
            f"{_count(opt.epochs, 'epoch')} = {_count(steps, 'step')}{_parts(step, train)}, seed {opt.seed}",
        ),
        (
            "loss",
            f"{opt.ssl_method}, temperature {opt.temp:g}; at random {random_loss(opt.temp, train.batch_size):.3f}",
        ),
        ("output", opt.model_folder),
    ]
    return [f"  {name:<11}{text}" for name, text in rows]


def describe_pixels(*loaders: ViewLoader | None) -> list[str]:
    """Say what the pixels of each set are like: a line each.

    Args:
        loaders: Training and validation loader; None is left out.
    """
    there = [loader for loader in loaders if loader is not None]
    texts = [f"{loader.images.key}: {sum_up(loader.statistics)}" for loader in there]
    return [f"  {'' if number else 'pixels':<11}{text}" for number, text in enumerate(texts)]


def _parts(step: Step, train: ViewLoader) -> str:
    parts = step.num_parts(train.batch_size // parallel.current().size)
    return f", each computed in {parts} parts" if parts > 1 else ""


def _why_no_validation(key: str | None) -> str:
    return "valid_key is null" if key is None else f"the file has no dataset {key!r}"


def _dataset(loader: ViewLoader) -> str:
    images = loader.images
    count, channels, height, width = images.shape
    kind = f"{images.dtype} (bits of unsigned numbers)" if images.packing.unsigned_bits else images.dtype
    text = f"{images.key}: {count} cutouts of {channels} x {height} x {width} {kind}"
    if images.dtype.kind != "f":
        text += f" (values x {images.scale:g}, see `scale`)"
    return text + (f", {images.num_left_out} left out" if images.num_left_out else "")


def _batches(train: ViewLoader) -> str:
    over = train.num_samples - len(train) * train.batch_size
    text = f"{_count(len(train), 'batch', 'batches')} of {train.batch_size}"
    return text + (f" ({over} left over each epoch)" if over else "")


def _views(train: ViewLoader) -> str:
    views = train.views
    size = f"{sizes.describe(train.sizes)}; validation {_size(views.size)}" if train.sizes else _size(views.size)
    return f"{size}: {', '.join(_changes(views)) or 'the cutout itself, twice'}"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} px"


def _at(size: tuple[int, int] | None) -> str:
    return "" if size is None else f" at {_size(size)}"


def _changes(views: Views) -> list[str]:
    """How views differ from the cutout, in words."""
    parts = ["flips"] if views.flip else []
    if views.rotate:
        parts.append("rotation")
    if views.crop is not None and views.crop.inside:
        parts.append(f"up to {views.crop.max_trim} px trimmed, shifted by up to {views.crop.max_shift}")
    elif views.crop is not None:
        side = views.crop.window[0]
        parts.append(f"window of {side} x {side} px shifted by up to {views.crop.max_shift}")
    if views.noise:
        parts.append(f"noise {views.noise:g}")
    if views.demean:
        parts.append("mean removed")
    return parts


def _optimizer(opt: Params) -> str:
    return f"Muon, rate {opt.muon_learning_rate:g}, for the rest " if opt.optimizer == "muon" else ""


def _schedule(schedule: Schedule) -> str:
    text = f"SGD, rate {schedule.base:g}"
    steps = f" x {schedule.decay_rate:g} after epochs {list(schedule.milestones)}"
    text += (" by cosine" + (" of each step" if schedule.by == "step" else "")) if schedule.cosine else steps
    return text + (f", warm-up over {_count(schedule.warm_epochs, 'epoch')}" if schedule.warm_epochs else "")


def _count(number: float, unit: str, plural: str = "") -> str:
    named = unit if number == 1 else plural or f"{unit}s"
    return f"{number:g} {named}" if isinstance(number, float) else f"{number} {named}"


def describe_epoch(title: str, done: Pass, rate: float) -> str:
    """One line on a pass of training."""
    waiting = f", {done.waiting_share:.0%} of the time waiting for data" if done.waiting_share > 0.02 else ""
    return (
        f"{title}: loss {done.average:.4f}, rate {rate:.3g}, {done.samples_per_second:.0f} samples/s, "
        f"{done.seconds:.0f} s{waiting}"
    )


def describe_health(health: Health, size: tuple[int, int] | None = None) -> str:
    """One line on the features.

    Args:
        health: What was measured.
        size: Of the views that it was measured on, (height, width) in pixels: retrieval among larger ones is easier.
    """
    return (
        f"view retrieval {health.retrieval_top1:.3f}{_at(size)} (top 5 {health.retrieval_top5:.3f}, "
        f"chance {health.chance_top1:.4f}), effective rank {health.effective_rank:.1f}, spread {health.spread:.2f}, "
        f"alignment {health.alignment:.3f}, uniformity {health.uniformity:.2f}"
    )


def describe_end(
    epochs: int,
    health: Mapping[int, Health],
    seconds: float,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> list[str]:
    """Say how a run ended: duration, what the features have become, memory.

    Args:
        epochs: Epochs that are complete.
        health: Epoch -> health of the features; epoch 0 is the untrained network.
        seconds: Duration.
        device: Where it ran.
        size: Of the validation's views, (height, width) in pixels.

    Returns:
        Lines.
    """
    minutes, rest = divmod(round(seconds), 60)
    lines = [f"done after {minutes}:{rest:02d}; epochs: {epochs}"]
    before, after = health.get(0), health.get(epochs)
    if before is not None and after is not None:
        change = f"{before.retrieval_top1:.3f} untrained -> {after.retrieval_top1:.3f} trained"
        lines.append(f"  view retrieval{_at(size)} {change}, chance {after.chance_top1:.4f}")
    return [*lines, f"  memory  {peak_memory(device)} at most"]
