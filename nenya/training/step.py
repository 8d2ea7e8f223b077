"""One step: two views of a batch become one ``[B, V, D]``, one number, and its gradient."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nenya import parallel
from nenya.data.batch import Batch
from nenya.errors import DataError, OptionError
from nenya.losses import SupConLoss
from nenya.machine.device import arithmetic, autocast, choose_precision
from nenya.params import Params
from nenya.training import gradient_cache


@dataclass(frozen=True)
class Step:
    """How a batch is computed.

    Attributes:
        method: "SimCLR" or "SupCon".
        device: Where the model is.
        precision: "fp32", "bf16" or "auto", of the network's forward pass (see `choose_precision`).
        accumulate: Parts in which a process computes its share of a batch.
        micro_batch_size: The same, as the largest number of cutouts at once; None for what `accumulate` says.
    """

    method: str
    device: torch.device
    precision: str = "auto"
    accumulate: int = 1
    micro_batch_size: int | None = None

    @classmethod
    def from_options(cls, opt: Params, device: torch.device) -> Step:
        """Read the options.

        Raises:
            OptionError: They give the number of parts in two ways.
        """
        if opt.accumulate > 1 and opt.micro_batch_size is not None:
            raise OptionError(
                f"accumulate is {opt.accumulate} and micro_batch_size {opt.micro_batch_size}, which say the same thing "
                "in two ways: give one of them."
            )
        return cls(opt.ssl_method, device, opt.precision, opt.accumulate, opt.micro_batch_size)

    def num_parts(self, samples: int) -> int:
        """In how many parts a process computes its share of a batch.

        Args:
            samples: Cutouts in the share.

        Returns:
            1 for the whole at once.
        """
        parts = self.accumulate if self.micro_batch_size is None else -(-samples // self.micro_batch_size)
        return min(parts, samples)

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the network's forward pass runs."""
        return autocast(choose_precision(self.precision, self.device), self.device)

    def arithmetic(self) -> AbstractContextManager[None]:
        """The context in which passes run: how exact the device's libraries are, set back after."""
        return arithmetic(self.precision, self.device)


def compute_gradient(model: nn.Module, criterion: nn.Module, batch: Batch, step: Step) -> Tensor:
    """Add the gradient of a batch's loss to the parameters' ``grad``.

    Args:
        model: Images [2B, C, h, w] -> z [2B, D], on the device; a `DistributedDataParallel` one averages the processes'
            gradients, which then are those of the loss of all processes' batch.
        criterion: z [B, 2, D] and labels [B] or None -> scalar; with several processes a `SupConLoss`.
        batch: The views, of this process.
        step: How the batch is computed.

    Returns:
        The loss, without graph; with several processes this one's part of it (they add up).

    Raises:
        DataError: SupCon without labels.
        OptionError: Several processes, and another criterion.
    """
    num_parts = step.num_parts(len(batch.view1))
    if num_parts > 1:
        labels = labels_for(step.method, batch, step.device)
        return gradient_cache.compute_gradient(
            model,
            lambda network, part: embed(network, part, step),
            lambda z: batch_loss(criterion, z, labels),
            gradient_cache.split(batch, num_parts),
        )
    loss = contrastive_loss(model, criterion, batch, step)
    parallel.for_summed_gradients(loss).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def contrastive_loss(model: nn.Module, criterion: nn.Module, batch: Batch, step: Step) -> Tensor:
    """The loss of a batch: views -> embeddings [B, 2, D] -> one number.

    Args:
        model: Images [2B, C, h, w] -> z [2B, D].
        criterion: z [B, 2, D], labels [B] or None -> scalar.
        batch: The views.
        step: How the batch is computed.

    Returns:
        Scalar, differentiable; with several processes this one's part (see `batch_loss`).
    """
    return batch_loss(criterion, embed(model, batch, step), labels_for(step.method, batch, step.device))


def embed(model: nn.Module, batch: Batch, step: Step) -> Tensor:
    """Embeddings z of a batch's views: [B, 2, D]."""
    with step.autocast():
        return pair_views(model(stack_views(batch, model, step.device)))


def stack_views(batch: Batch, model: nn.Module, device: torch.device) -> Tensor:
    """Both views as one batch of images [2B, C, h, w] of the model's type, on the device, all first views first."""
    dtype = next((weights.dtype for weights in model.parameters()), torch.float32)
    images = torch.cat((batch.view1, batch.view2)).to(device, dtype, non_blocking=True)
    return images.contiguous(memory_format=torch.channels_last)


def pair_views(z: Tensor) -> Tensor:
    """Undo `stack_views` for embeddings: [2B, D] -> [B, 2, D]."""
    return torch.stack(z.chunk(2), dim=1)


def labels_for(method: str, batch: Batch, device: torch.device) -> Tensor | None:
    """The labels that the method uses: none for SimCLR, whatever the loader gives.

    Raises:
        DataError: SupCon without labels.
    """
    if method != "SupCon":
        return None
    if batch.labels is None:
        raise DataError("SupCon needs labels, but the loader yields none: add them, or set ssl_method to SimCLR.")
    return batch.labels.to(device)


def batch_loss(criterion: nn.Module, z: Tensor, labels: Tensor | None, *, shared: bool = True) -> Tensor:
    """The loss of embeddings, at least in float32 whatever the network computes in and whoever wrote the loss.

    Args:
        criterion: `SupConLoss`, or with a single process any other.
        z: Of this process [B, 2, D].
        labels: [B] or None.
        shared: With several processes, this one's part of the loss of all their embeddings; else of these alone.

    Returns:
        Scalar, differentiable.

    Raises:
        OptionError: A part is wanted, there are several processes, and the criterion is no `SupConLoss`.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    with torch.autocast(z.device.type, enabled=False):
        if shared and isinstance(criterion, SupConLoss):
            return criterion.share(z, labels)
        if shared and parallel.current().size > 1:
            raise OptionError(
                f"{type(criterion).__name__} does not know the embeddings of the other processes, so that their losses "
                "do not add up to that of the whole batch: take SupConLoss, or train in one process."
            )
        loss: Tensor = criterion(z, labels)
    return loss
