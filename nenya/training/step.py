"""One step: where two views of a batch become one ``[B, V, D]`` and one number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nenya import parallel
from nenya.data.images import ImageFile
from nenya.data.loaders import Batch, open_images
from nenya.errors import DataError
from nenya.kernels import use_fast_convolutions
from nenya.losses import SupConLoss
from nenya.machine.compiler import compile_network
from nenya.machine.device import choose_device, settle_arithmetic
from nenya.models import build_model
from nenya.models.resnet_big import STEM_CHANNELS, SupConResNet
from nenya.params import Params

logger = logging.getLogger(__name__)


def set_model(opt: Params, cuda_use: bool = True) -> tuple[SupConResNet, SupConLoss]:
    """Build the model and its loss, on the device where they will run.

    The channels are those of the imagery that the options name; without imagery, the default stem of three.

    Args:
        opt: The options.
        cuda_use: Use the GPU where there is one; a single process that sees several spreads the encoder over them by
            `DataParallel`.

    Returns:
        The model, freshly initialised, and the criterion.

    Raises:
        DataError: The options name imagery that cannot be read.
    """
    model = build_model(opt, _num_channels(opt))
    use_fast_convolutions(model)
    criterion = SupConLoss(temperature=opt.temp)
    device = choose_device(cuda_use)
    settle_arithmetic(opt.precision, device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if torch.cuda.device_count() > 1 and parallel.current().size == 1:
            logger.warning(
                "one process spreads the encoder over %d GPUs, each of which normalises its own share of the batch: "
                "`nenya train --nproc auto` is faster and normalises over all",
                torch.cuda.device_count(),
            )
            model.encoder = nn.DataParallel(model.encoder)
    # Channels last: the layout that convolutions want on CPUs and GPUs alike.
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    compile_network(model, opt.compile, device)
    return model, criterion.to(device)


def _num_channels(opt: Params) -> int:
    if opt.nchannels is not None:
        return int(opt.nchannels)
    if opt.images_file is None and opt.dataset is None:
        return STEM_CHANNELS
    images: ImageFile = open_images(opt)
    return images.num_channels


def as_batch(items: Any) -> Batch:  # noqa: ANN401
    """Understand what a loader yields: ours, or that of a user's own ``DataLoader``.

    Args:
        items: ``[view1, view2]``, ``(view1, view2, labels)``, ``([view1, view2], labels)`` or a `Batch`.

    Returns:
        The batch; the samples of a user's own loader are numbered from 0 in each batch.

    Raises:
        DataError: Anything else.
    """
    if isinstance(items, Batch):
        return items
    parts: list[Any] = list(items) if isinstance(items, Sequence) else [items]
    if parts and isinstance(parts[0], Sequence):
        parts = [*parts[0], *parts[1:]]
    views, labels = parts[:2], parts[2] if len(parts) > 2 else None
    shapes = [tuple(view.shape) if isinstance(view, Tensor) else type(view).__name__ for view in views]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 4 or isinstance(shapes[0], str):
        raise DataError(
            f"the loader yields {type(items).__name__} with views {shapes}; expected [view1, view2] or "
            "([view1, view2], labels), both views tensors [B, C, H, W]."
        )
    labels = None if labels is None else torch.as_tensor(labels)
    return Batch(views[0], views[1], labels, torch.arange(len(views[0])))


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


def contrastive_loss(model: nn.Module, criterion: nn.Module, batch: Batch, method: str, device: torch.device) -> Tensor:
    """The loss of a batch: views -> embeddings [B, 2, D] -> one number.

    Args:
        model: Images [2B, C, h, w] -> z [2B, D].
        criterion: z [B, 2, D], labels [B] or None -> scalar.
        batch: The views.
        method: "SimCLR" or "SupCon".
        device: Where the model is.

    Returns:
        Scalar, differentiable; with several processes this one's part (see `batch_loss`).
    """
    z = model(stack_views(batch, model, device))
    return batch_loss(criterion, pair_views(z), labels_for(method, batch, device))


def batch_loss(criterion: nn.Module, z: Tensor, labels: Tensor | None, *, shared: bool = True) -> Tensor:
    """The loss of embeddings, at least in float32 whatever the network computes in and whoever wrote the loss.

    Args:
        criterion: `SupConLoss`, or with a single process any other.
        z: Of this process [B, 2, D].
        labels: [B] or None.
        shared: With several processes, this one's part of the loss of all their embeddings; else of these alone.

    Returns:
        Scalar, differentiable.
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    with torch.autocast(z.device.type, enabled=False):
        of_all = shared and isinstance(criterion, SupConLoss)
        loss: Tensor = criterion.share(z, labels) if of_all else criterion(z, labels)  # type: ignore[operator]
    return loss
