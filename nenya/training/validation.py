"""Validation: one pass that changes nothing, and the health of the features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nenya import parallel
from nenya.data.batch import Loader, as_resumable
from nenya.evaluation import health
from nenya.machine.memory import keeping_memory
from nenya.models.inference import evaluating
from nenya.models.resnet_big import SupConResNet
from nenya.training.ledger import Ledger, Pass, merge
from nenya.training.progress import EpochProgress
from nenya.training.step import Step, batch_loss, labels_for, pair_views, stack_views

T = TypeVar("T")

#: Health is measured on at most so many validation cutouts, evenly spaced: its cost grows with their square.
MAX_HEALTH_SAMPLES = 8192


class _Features(NamedTuple):
    """Encoder features h [B, 2, F] and embeddings z [B, 2, D] of a batch's views."""

    h: Tensor
    z: Tensor


def validate(loader: Loader, model: nn.Module, criterion: nn.Module, step: Step, *, title: str = "validation") -> Pass:
    """Validate: evaluation mode, no gradient, the model's mode restored after.

    Several processes share the batches; each returns the figures of all.

    Args:
        loader: A `nenya_loader`, or a user's own (see `nenya.data.batch.as_batch`).
        model: On the step's device. A `SupConResNet` gets its features' health measured.
        criterion: z [B, 2, D] and labels [B] or None -> scalar loss.
        step: How a batch is computed.
        title: Shown while it runs.

    Returns:
        The losses and, where the model has an encoder, the health.

    Raises:
        NonFiniteLossError: A loss is NaN or infinite.
        DataError: The loader has no length, or yields something else.
        OptionError: The loader yields no batches.
    """
    source = as_resumable(loader)
    stride = -(-(source.num_samples or 1) // MAX_HEALTH_SAMPLES)
    ledger = Ledger("validation", source.why_not_finite)
    features: list[_Features] = []

    def pass_over(progress: EpochProgress) -> None:
        for batch in progress.timed(source):
            with step.autocast():
                h, z = _encode(model, stack_views(batch, model, step.device))
            labels = labels_for(step.method, batch, step.device)
            ledger.add(batch_loss(criterion, pair_views(z), labels, shared=False), batch)
            ledger.check()
            if h is not None:
                # every stride-th sample of the pass, whichever process has it
                kept = torch.from_numpy((source.places(batch.rows) % stride == 0).nonzero()[0])
                features.append(_Features(pair_views(h.float()).cpu()[kept], pair_views(z.float()).cpu()[kept]))
            progress.advance(len(batch.view1), ledger.latest, None)

    watch = EpochProgress(title, len(source), print_freq=None)
    with step.arithmetic(), keeping_memory(step.device), watch as progress, evaluating(model):
        parallel.together(lambda: pass_over(progress))
    done = merge(_in_turn(parallel.all_gather_objects(ledger.counted))).finish(progress)
    everyone = parallel.gather_objects(features)
    done.health = parallel.broadcast_object(_measure(everyone) if parallel.current().first else None)
    return done


def _encode(model: nn.Module, images: Tensor) -> tuple[Tensor | None, Tensor]:
    """Encoder features h [2B, F], where the model has an encoder, and embeddings z [2B, D], in one pass."""
    if isinstance(model, SupConResNet):
        h = model.encode(images)
        return h, model.project(h)
    return None, model(images)


def _in_turn(parts: Iterable[Sequence[T]]) -> list[T]:
    """Undo the dealing out of batches: the first of every process, the second of every process, and so on."""
    nothing = object()
    turns = zip_longest(*parts, fillvalue=nothing)
    return [item for turn in turns for item in turn if item is not nothing]  # type: ignore[misc]


def _measure(everyone: Iterable[list[_Features]]) -> health.Health | None:
    """The health of the features of all processes; None where the model has no encoder."""
    features = _in_turn(everyone)
    if not features:
        return None
    h, z = (torch.cat(parts)[:MAX_HEALTH_SAMPLES] for parts in zip(*features, strict=True))
    return health.measure(h[:, 0], h[:, 1], z[:, 0], z[:, 1]) if len(h) > 1 else None
