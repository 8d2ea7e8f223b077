"""Checkpoints to export: of small networks whose normalisations do something."""

import h5py
import numpy as np
import pytest
import torch

from nenya.models import assemble_model, resnet_big
from nenya.params import Params
from nenya.training.checkpoint import write_checkpoint
from nenya.training.optim import set_optimizer

WIDTHS = (8, 16, 32, 64)


def fields(shape, seed=0):
    """Smooth fields near 290 with some noise [N, C, H, W], float32."""
    rng = np.random.default_rng(seed)
    count, channels, height, width = shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    size, phase = rng.normal(size=(2, count, channels, 1, 1))
    waves = 3 * size * np.sin(5 * x + 3 * y + 4 * phase) + 0.1 * rng.normal(size=shape)
    return (290 + waves).astype(np.float32)


def trained(name="resnet18", head="mlp", channels=1, seed=4):
    """A model in evaluation mode with statistics that are not the initial ones."""
    torch.manual_seed(seed)
    model = assemble_model(name, head, 6, channels)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, channels, 8, 8))
    return model.eval()


@pytest.fixture
def shallow(monkeypatch):
    """One block in each stage: the same operations, of which torch's exporter needs long for each."""
    kinds = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet_big._ARCHITECTURES.items()}
    monkeypatch.setattr(resnet_big, "_ARCHITECTURES", kinds)


@pytest.fixture
def cutout_file(tmp_path):
    """Write a cutout file whose options name it, with gaps in some cutouts and one that is empty."""

    def write(shape=(20, 1, 17, 13), units="K", name="cutouts.h5"):
        pixels = fields(shape)
        pixels[1, 0, 2:5, 3] = np.nan
        pixels[2] = np.nan
        with h5py.File(tmp_path / name, "w") as file:
            file["train"], file["valid"] = pixels, fields(shape, seed=1)[:8]
            if units:
                file["train"].attrs["units"] = units
        return tmp_path / name

    return write


@pytest.fixture
def checkpoint(narrow, tmp_path):
    """Write a checkpoint as a training does; the model and the path."""

    def write(model=None, path="run/last.pth", data=None, **options):
        model = trained() if model is None else model
        values = {"ssl_model": "resnet18", "images_file": str(tmp_path / "cutouts.h5"), "feat_dim": 6} | options
        opt = Params.from_dict(values)
        file = tmp_path / path
        write_checkpoint(model, set_optimizer(opt, model), opt, 3, file, data=data, valid_data="none")
        return model, file

    return write
