"""The gradient of a batch's loss: in one piece, or in parts that need less memory and give the same numbers.

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
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from nenya import parallel
from nenya.data.loaders import Batch
from nenya.errors import OptionError
from nenya.machine.device import autocast
from nenya.params import Params
from nenya.training.step import batch_loss, contrastive_loss, labels_for, pair_views, stack_views

logger = logging.getLogger(__name__)


def num_parts(opt: Params, samples: int) -> int:
    """In how many parts a process computes its share of a batch.

    Args:
        opt: `accumulate` or `micro_batch_size`.
        samples: Cutouts in the share.

    Returns:
        1 for the whole at once.

    Raises:
        OptionError: Both options are given.
    """
    if opt.accumulate > 1 and opt.micro_batch_size is not None:
        raise OptionError(
            f"accumulate is {opt.accumulate} and micro_batch_size {opt.micro_batch_size}, which say the same thing in "
            "two ways: give one of them."
        )
    parts = opt.accumulate if opt.micro_batch_size is None else -(-samples // opt.micro_batch_size)
    return int(min(parts, samples))


def distribute(model: nn.Module, opt: Params, batch_size: int, device: torch.device) -> nn.Module:
    """Let the processes of a run train one model: rank 0's weights everywhere, gradients averaged.

    On GPUs batch-norm takes its statistics over all processes, unless `syncBN` is false. There is no such form for
    CPUs: each process then normalises by its own share of the batch.

    Args:
        model: The same in every process, on the device.
        opt: `syncBN`, `gradient_compression`, `accumulate`.
        batch_size: Of all processes together.
        device: Where the model is.

    Returns:
        The model inside `DistributedDataParallel`; with a single process the model itself.
    """
    ranks = parallel.current()
    compressed = opt.gradient_compression == "bf16" and ranks.size > 1 and device.type == "cuda"
    if opt.gradient_compression != "none" and not compressed:
        logger.warning("gradient_compression is without effect: it works between GPUs of several processes only")
    if ranks.size == 1:
        return model
    if device.type == "cuda" and opt.syncBN is not False:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    else:
        why = "syncBN is false" if device.type == "cuda" else "there is no synchronised batch-norm for CPUs"
        logger.warning(
            "%s: each of the %d processes normalises by its own share of the batch. The statistics differ with the "
            "number of processes and, since both views of a cutout share theirs, can give away which belong together.",
            why,
            ranks.size,
        )
    network = nn.parallel.DistributedDataParallel(
        model,
        device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
        forward_sync_buffers=False,  # nothing reads them in training
        gradient_as_bucket_view=True,
        static_graph=num_parts(opt, batch_size // ranks.size) == 1,  # torch allows it for a single backward pass only
    )
    if compressed:
        network.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return network


def compute_gradient(model: nn.Module, criterion: nn.Module, batch: Batch, opt: Params, device: torch.device) -> Tensor:
    """Add the gradient of a batch's loss to the parameters' ``grad``.

    Args:
        model: Images [2B, C, h, w] -> z [2B, D], on the device; a `DistributedDataParallel` one averages the processes'
            gradients, which then are those of the loss of all processes' batch.
        criterion: z [B, 2, D] and labels [B] or None -> scalar.
        batch: The views, of this process.
        opt: The options.
        device: Where the model is.

    Returns:
        The loss, without graph; with several processes this one's part of it (they add up).

    Raises:
        DataError: SupCon without labels.
        OptionError: As for `num_parts`.
    """
    parts = num_parts(opt, len(batch.view1))
    if parts == 1:
        with autocast(opt.precision, device):
            loss = contrastive_loss(model, criterion, batch, opt.ssl_method, device)
        _summed(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    return _in_parts(model, criterion, _split(batch, parts), labels_for(opt.ssl_method, batch, device), opt, device)


def _in_parts(
    model: nn.Module,
    criterion: nn.Module,
    parts: list[Batch],
    labels: Tensor | None,
    opt: Params,
    device: torch.device,
) -> Tensor:
    """See the module's text: embeddings, gradient by the embeddings, parts."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    with torch.no_grad(), _statistics_kept(inner), autocast(opt.precision, device):
        z = torch.cat([pair_views(inner(stack_views(part, inner, device))) for part in parts])
    z.requires_grad_()
    loss = batch_loss(criterion, z, labels)
    _summed(loss).backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    by_part = torch.split(z.grad, [len(part.view1) for part in parts])
    for number, (part, gradient) in enumerate(zip(parts, by_part, strict=True), start=1):
        # The processes' gradients are added up once, with the last part.
        last = number == len(parts) or inner is model
        with contextlib.nullcontext() if last else _unsynchronised(model):
            with autocast(opt.precision, device):
                again = pair_views(model(stack_views(part, inner, device)))
            again.backward(gradient)  # type: ignore[no-untyped-call]
    return loss.detach()


def _unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    assert isinstance(model, DistributedDataParallel)
    return model.no_sync()


def _summed(loss: Tensor) -> Tensor:
    """What to differentiate so that `DistributedDataParallel`, which takes the mean of the gradients, gives the sum."""
    return loss * parallel.current().size


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into parts of sizes that differ by at most one."""
    columns = [[None] * parts if column is None else column.tensor_split(parts) for column in batch]
    return [Batch(*part) for part in zip(*columns, strict=True)]


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
