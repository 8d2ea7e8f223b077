"""What a run trains: model, loss and processes, put together from the options."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from nenya import parallel
from nenya.data.loaders import open_images
from nenya.kernels import use_fast_convolutions
from nenya.losses import SupConLoss
from nenya.machine.compiler import compile_network
from nenya.machine.device import choose_device
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
    if device.type == "cuda" and torch.cuda.device_count() > 1 and parallel.current().size == 1:
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
    return open_images(opt).num_channels


def distribute(
    model: nn.Module,
    device: torch.device,
    *,
    num_parts: int = 1,
    sync_batch_norm: bool = True,
    compression: Literal["none", "bf16"] = "none",
) -> nn.Module:
    """Let the processes of a run train one model: rank 0's weights everywhere, gradients averaged.

    There is no common batch-norm for CPUs: there each process normalises by its own share of the batch.

    Args:
        model: The same in every process, on the device.
        device: Where the model is.
        num_parts: In which a process computes its share of a batch.
        sync_batch_norm: On GPUs, take batch-norm's statistics over all processes.
        compression: "bf16" halves what goes over the network between GPUs, and rounds it.

    Returns:
        The model inside `DistributedDataParallel`; with a single process the model itself.
    """
    ranks = parallel.current()
    compressed = compression == "bf16" and ranks.size > 1 and device.type == "cuda"
    if compression != "none" and not compressed:
        logger.warning("gradient_compression is without effect: it works between GPUs of several processes only")
    if ranks.size == 1:
        return model
    if device.type == "cuda" and sync_batch_norm:
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
        static_graph=num_parts == 1,  # torch allows it for a single backward pass only
    )
    if compressed:
        network.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return network
