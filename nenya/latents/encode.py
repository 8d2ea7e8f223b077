"""Latents of cutouts as they are, without random views."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nenya.data.augment import Views
from nenya.data.cutouts import Cutouts
from nenya.machine.device import arithmetic, autocast, choose_precision
from nenya.machine.memory import keeping_memory
from nenya.models.inference import evaluating
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params


def encode_cutouts(
    model: SupConResNet, images: Cutouts, opt: Params, *, device: torch.device | str = "cpu", batch_size: int = 128
) -> Tensor:
    """Encode every usable cutout once: the crop and demeaning of training, with nothing random.

    Args:
        model: On `device`; its mode is restored after.
        images: The cutouts.
        opt: The options it was trained with.
        device: Where the model is.
        batch_size: Cutouts at once.

    Returns:
        h [N, F], float32, on the CPU, in the order of `images.usable`.
    """
    device = torch.device(device)
    views = Views.from_options(opt, images.height, images.width)
    features = []
    dtype = choose_precision(opt.precision, device)
    with arithmetic(opt.precision, device), keeping_memory(device), evaluating(model), autocast(dtype, device):
        for rows in np.array_split(images.usable, -(-len(images.usable) // batch_size)):
            pixels = views.plain(torch.from_numpy(images.read(rows)).to(device))
            h = model.encode(pixels.contiguous(memory_format=torch.channels_last))
            features.append(h.float().cpu())
    return torch.cat(features)
