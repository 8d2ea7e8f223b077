"""Models and cutouts to encode, made in a moment."""

import h5py
import numpy as np
import torch

from nenya.models import build_model
from nenya.training.checkpoint import write_checkpoint
from nenya.training.optim import set_optimizer


def write_model(opt, path, shape=(1, 16, 16), valid=None, seed=0):
    """A checkpoint of a model whose batch-norm statistics are not the initial ones, said to be trained on a shape."""
    torch.manual_seed(seed)
    model = build_model(opt, shape[0])
    model(3 * torch.randn(16, shape[0], 8, 8))
    told = [f"24 usable cutouts of {(24, *one)} float32, checksum 00000000" for one in (shape, valid or shape)]
    write_checkpoint(model, set_optimizer(opt, model), opt, 1, path, data=told[0], valid_data=told[1])
    return path


def write_cutouts(path, gaps=(3, 4), **sets):
    """A file with datasets [N, C, H, W], of which some rows in each are all NaN."""
    with h5py.File(path, "w") as file:
        for key, pixels in sets.items():
            pixels = pixels.copy()
            pixels[[row for row in gaps if row < len(pixels)]] = np.nan
            file[key] = pixels
    return path


def content(path):
    """All datasets of a file of latents."""
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}
