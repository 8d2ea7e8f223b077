"""The gradient of a batch's loss in parts that need less memory and give the same numbers.

A contrastive loss compares every cutout with every other, so a mean of the losses of small batches is another, easier
task: fewer negatives. The exact way takes three passes (gradient cache; Gao et al. 2021, arXiv:2101.06983, sec. 3.2):

1. the embeddings of all parts, without a graph;
2. the loss of the whole batch and its gradient by the embeddings, which are small;
3. each part once more, with its graph, sent back with its rows of that gradient.

The result is what autograd would give for all parts in one graph. Batch-norm normalises each part by the part's own
statistics, in both passes alike; its running statistics take note of each part once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nenya import parallel
from nenya.data.batch import Batch


def compute_gradient(
    model: nn.Module,
    embed: Callable[[nn.Module, Batch], Tensor],
    loss_of: Callable[[Tensor], Tensor],
    parts: list[Batch],
) -> Tensor:
    """Add the gradient of a batch's loss to the parameters' ``grad``, a part at a time.

    Args:
        model: The network; with several processes in `DistributedDataParallel`.
        embed: Network and part of the batch -> z [b, 2, D], in the precision of the run.
        loss_of: z [B, 2, D] of the whole batch -> scalar.
        parts: The batch of this process, cut by `split`.

    Returns:
        The loss, without graph.
    """
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    with torch.no_grad(), _statistics_kept(inner):
        z = torch.cat([embed(inner, part) for part in parts])  # [B, 2, D]
    z.requires_grad_()
    loss = loss_of(z)
    parallel.for_summed_gradients(loss).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    by_part = torch.split(z.grad, [len(part.view1) for part in parts])
    for number, (part, gradient) in enumerate(zip(parts, by_part, strict=True), start=1):
        # The processes' gradients are added up once, with the last part.
        last = number == len(parts) or inner is model
        with contextlib.nullcontext() if last else _unsynchronised(model):
            embed(model, part).backward(gradient)  # type: ignore[no-untyped-call]
    return loss.detach()


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into parts of sizes that differ by at most one."""
    columns = [[None] * parts if column is None else column.tensor_split(parts) for column in batch]
    return [Batch(*part) for part in zip(*columns, strict=True)]


def _unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    assert isinstance(model, DistributedDataParallel)
    return model.no_sync()


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Let batch-norm use the batch's statistics, as in training, without noting them in its running ones."""
    tracking = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
