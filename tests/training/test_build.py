"""Model and loss of a run, put together from the options."""

import math

import h5py
import numpy as np
import pytest
import torch

from nenya.errors import DataError
from nenya.kernels import FastConv2d
from nenya.losses import SupConLoss
from nenya.params import Params
from nenya.training.build import set_model


@pytest.mark.parametrize(("channels", "stem"), [(1, 3), (3, 3), (5, 5)])
@pytest.mark.parametrize("said", [True, False])
def test_the_models_channels_are_those_of_the_options_or_of_the_imagery(tmp_path, channels, stem, said):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train"] = np.zeros((2, channels, 8, 8), np.float32)
    source = {"nchannels": channels} if said else {"images_file": str(tmp_path / "a.h5")}
    model, _ = set_model(Params.from_dict({"ssl_model": "resnet18", "feat_dim": 6} | source), cuda_use=False)
    assert model.encoder.conv1.weight.shape == (64, stem, 3, 3)
    z = model.eval()(torch.rand(2, channels, 8, 8))
    assert z.shape == (2, 6)
    assert z.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)  # float32


def test_without_imagery_the_default_stem_is_built():
    model, _ = set_model(Params.from_dict({"ssl_model": "resnet18"}), cuda_use=False)
    assert model.encoder.conv1.weight.shape == (64, 3, 3, 3)


def test_imagery_that_is_named_but_missing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no image file"):
        set_model(Params.from_dict({"ssl_model": "resnet18", "images_file": str(tmp_path / "none.h5")}))


def test_head_and_temperature_are_those_of_the_options():
    opt = Params.from_dict({"ssl_model": "resnet18", "head": "linear", "feat_dim": 6, "temp": 0.3})
    model, criterion = set_model(opt, cuda_use=False)
    assert model.head.weight.shape == (6, 512)
    assert isinstance(criterion, SupConLoss)
    assert criterion.temperature == 0.3
    constant = torch.ones(4, 2, 1)  # identical embeddings: T / 0.07 * log(2B - 1)
    assert criterion(constant).item() == pytest.approx(0.3 / 0.07 * math.log(7), rel=1e-6)  # float32


def test_the_model_of_a_run_has_the_fast_convolutions():
    model, _ = set_model(Params.from_dict({"ssl_model": "resnet18"}), cuda_use=False)
    assert any(isinstance(layer, FastConv2d) for layer in model.modules())
