"""Tiny runs whose losses are pinned: a change of numerics that nobody meant shows here.

After a change that is meant, take the new figures from ``python tests/regression/test_pinned_runs.py`` and say in the
commit why they moved.
"""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nenya.demo.ocean import synthetic_ocean
from nenya.params import Params
from nenya.train import run
from nenya.training import curves

# Loss of every batch, two epochs of three batches, float32.
PINNED = {
    "SimCLR": [2.674254, 2.796415, 3.200256, 2.673309, 2.223135, 2.364279],
    "SupCon": [3.109643, 3.160665, 3.670515, 2.997204, 2.357991, 3.298885],
}
PINNED_VALIDATION = {"SimCLR": [1.851973, 2.069018], "SupCon": [2.36411, 2.521934]}


def train(method, folder):
    with h5py.File(folder / "ocean.h5", "w") as file:
        for stream, (key, count) in enumerate((("train", 24), ("valid", 12))):
            file[key], file[f"{key}_labels"] = synthetic_ocean(count, size=16, seed=3, stream=stream)
    options = {
        "images_file": str(folder / "ocean.h5"),
        "model_root": str(folder / "models"),
        "ssl_method": method,
        "ssl_model": "resnet18",
        "feat_dim": 16,
        "epochs": 2,
        "learning_rate": 1e-4,  # at 1e-2 the network is so narrow that rounding changes the third loss by a per cent
        "valid_freq": 1,
        "batch_size_train": 8,
        "batch_size_valid": 8,
        "random_jitter": [12, 2],
        "gauss_noise": 0.02,
        "image_size": 12,
        "precision": "fp32",
        "cuda_use": False,
        "on_collapse": "warn",
    }
    return run(Params.from_dict(options))


@pytest.mark.parametrize("method", PINNED)
def test_the_losses_of_a_tiny_run_are_the_pinned_ones(method, tmp_path, narrow, quick_pictures):
    done = train(method, tmp_path)
    # processors differ in the order of their sums: float64 gives the same to about 1e-6
    assert done.curves.train.loss_step == pytest.approx(PINNED[method], rel=1e-5)
    assert done.curves.valid.loss == pytest.approx(PINNED_VALIDATION[method], rel=1e-5)


if __name__ == "__main__":
    import nenya.models.resnet_big

    torch.set_num_threads(1)
    nenya.models.resnet_big.STAGE_WIDTHS = (8, 16, 32, 64)
    curves.draw = lambda *_: None
    for name in PINNED:
        with tempfile.TemporaryDirectory() as temporary:
            finished = train(name, Path(temporary))
        print(
            name,
            np.round(finished.curves.train.loss_step, 6).tolist(),
            np.round(finished.curves.valid.loss, 6).tolist(),
        )
