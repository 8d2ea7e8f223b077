"""What a run says about itself, word by word."""

import re

import h5py
import numpy as np
import pytest
import torch

from nenya.data.loaders import nenya_loader
from nenya.evaluation.health import Health
from nenya.losses import SupConLoss
from nenya.params import option_preprocess
from nenya.training.build import set_model
from nenya.training.ledger import Pass
from nenya.training.report import describe_epoch, describe_health, describe_run, random_loss
from nenya.training.step import Step


@pytest.fixture
def lines(tiny):
    """Function: options -> {name of the line: its text}."""

    def describe(valid=True, **replaced):
        opt = tiny(**replaced)
        option_preprocess(opt)
        model, _ = set_model(opt, cuda_use=False)
        loaders = nenya_loader(opt), nenya_loader(opt, valid=True) if valid else None
        rows = describe_run(opt, *loaders, model, Step.from_options(opt, torch.device("cpu")))
        found = {row.split()[0]: row[13:] for row in rows}
        assert len(found) == len(rows)
        return found, opt, model

    return describe


@pytest.mark.parametrize(("temp", "batch_size"), [(0.07, 2), (0.07, 64), (0.5, 8)])
def test_the_loss_at_random_is_that_of_embeddings_that_are_all_equal(temp, batch_size):
    z = torch.zeros(batch_size, 2, 4, dtype=torch.float64)
    z[..., 0] = 1
    loss = SupConLoss(temperature=temp)(z).item()
    assert random_loss(temp, batch_size) == pytest.approx(loss, rel=1e-12)


def test_a_run_is_described_by_a_line_on_each_of_its_parts(lines):
    found, opt, model = lines()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert re.fullmatch(r".* CPU, \d+ threads?, float32", found.pop("device"))
    assert found == {
        "training": "train: 24 cutouts of 1 x 16 x 16 float32, 3 batches of 8",
        "validation": "valid: 12 cutouts of 1 x 16 x 16 float32, every 1 epoch",
        "views": "8 x 8 px: flips, rotation, up to 2 px trimmed, shifted by up to 1, mean removed",
        "model": f"resnet18, {count / 1e6:.1f} M parameters, mlp head to 16 dimensions",
        "learning": "SGD, rate 0.01 by cosine; 2 epochs = 6 steps, seed 0",
        "loss": "SimCLR, temperature 0.07; at random 2.708",  # log(15)
        "output": opt.model_folder,
    }


@pytest.mark.parametrize(
    ("replaced", "name", "text"),
    [
        ({"valid_freq": 3}, "validation", "valid: 12 cutouts of 1 x 16 x 16 float32, every 3 epochs"),
        (
            {"random_jitter": [12, 2], "image_size": [12, 10], "gauss_noise": 0.1, "flip": False},
            "views",
            "12 x 10 px: rotation, window of 12 x 12 px shifted by up to 2, noise 0.1, mean removed",
        ),
        (
            {"random_jitter": 0, "flip": False, "rotate": False, "demean": False},
            "views",
            "8 x 8 px: the cutout itself, twice",
        ),
        (
            {"cosine": False, "lr_decay_epochs": [3, 5], "warm": True, "warm_epochs": 1, "epochs": 4},
            "learning",
            "SGD, rate 0.01 x 0.1 after epochs [3, 5], warm-up over 1 epoch; 4 epochs = 12 steps, seed 0",
        ),
        ({"ssl_method": "SupCon", "temp": 0.14}, "loss", "SupCon, temperature 0.14; at random 5.416"),  # 2 log(15)
        ({"batch_size_train": 24, "epochs": 1}, "training", "train: 24 cutouts of 1 x 16 x 16 float32, 1 batch of 24"),
    ],
)
def test_what_the_options_change_is_said(lines, replaced, name, text):
    assert lines(**replaced)[0][name] == text


def test_why_there_is_no_validation_is_said(lines):
    assert lines(valid=False, valid_key=None)[0]["validation"] == "none: valid_key is null"
    assert lines(valid=False, valid_key="test")[0]["validation"] == "none: the file has no dataset 'test'"


def test_the_type_and_scale_of_integer_pixels_and_cutouts_left_out_are_said(lines, tmp_path, cutouts):
    pixels = cutouts(10, 16, 0)
    pixels[3] = np.nan
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train"] = pixels
        file["valid"] = (10 * cutouts(9, 16, 0)).astype(np.int16)
    found, _, _ = lines(images_file=str(tmp_path / "other.h5"), scale=0.5)
    assert (
        found["training"]
        == "train: 10 cutouts of 1 x 16 x 16 float32, 1 left out, 1 batch of 8 (1 left over each epoch)"
    )
    assert found["validation"].startswith("valid: 9 cutouts of 1 x 16 x 16 int16 (values x 0.5, see `scale`)")


@pytest.mark.parametrize(("share", "words"), [(0.0, ""), (0.02, ""), (0.25, ", 25% of the time waiting for data")])
def test_an_epoch_in_a_line(share, words):
    done = Pass([3.0], [3.0], 1, samples_per_second=123.4, waiting_share=share, seconds=61.6)
    assert describe_epoch("epoch 1/2", done, 0.05) == f"epoch 1/2: loss 3.0000, rate 0.05, 123 samples/s, 62 s{words}"


def test_health_in_a_line_is_that_of_the_encoder_but_for_alignment_and_uniformity():
    figures = Health(200, 0.5, 0.75, 0.005, 0.125, -2.5, 7.25, 0.5, 3.0, 0.25)
    assert describe_health(figures) == (
        "view retrieval 0.500 (top 5 0.750, chance 0.0050), effective rank 7.2, spread 0.50, "
        "alignment 0.125, uniformity -2.50"
    )
