"""What a run makes of what its pixels are like: told, warned about, refused, or advised upon."""

import dataclasses
import logging

import h5py
import numpy as np
import pytest
import torch

from nenya.check import check_run
from nenya.errors import CollapseError, DataError, NonFiniteLossError, OptionError
from nenya.train import run
from nenya.training.checkpoint import read_checkpoint
from nenya.training.epoch import Pass
from nenya.training.health import Health


@pytest.mark.parametrize(
    ("untrained", "says"), [(0.001, "They were so before the first epoch. Look at the data"), (0.2, "")]
)
def test_the_advice_begins_with_the_data_if_the_untrained_network_has_collapsed(
    tiny, monkeypatch, caplog, untrained, says
):
    health = Health(12, 0.5, 0.9, 1 / 12, 0.1, -2.0, 9.0, 0.5, effective_rank_z=9.0, spread_z=untrained)
    found = iter([health, dataclasses.replace(health, spread_z=0.001)])
    monkeypatch.setattr(
        "nenya.training.checkup.validate", lambda *args, **kwargs: Pass([1.0], [1.0], 1, health=next(found))
    )
    with pytest.raises(CollapseError) as stopped:
        run(tiny(on_collapse="stop"))
    message = str(stopped.value)
    assert "collapsed at epoch 1" in message
    assert "learning_rate" in message
    if says:
        assert message.index(says) < message.index("learning_rate")
        assert "missing" in message
    else:
        assert "before the first epoch" not in message
    assert ("tells no cutouts apart before it is trained" in caplog.text) == bool(says)


def test_the_range_of_the_pixels_is_logged_and_what_is_doubtful_warned_about(tiny, image_file, caplog):
    with h5py.File(image_file, "r+") as file:
        file["train"][:, 0, 0] = -999
    with caplog.at_level(logging.INFO):
        run(tiny(epochs=1))
    assert "pixels     train: -999 to " in caplog.text
    assert "valid: 2" in caplog.text
    assert caplog.text.count("6.2 % of the pixels are -999") == 1


def test_check_prints_the_range_of_both_sets(tiny, image_file):
    with h5py.File(image_file, "r+") as file:
        file["valid"][...] += 100
    text = "\n".join(check_run(tiny()))
    assert "  pixels     train: 28" in text
    assert "             valid: 38" in text


@pytest.mark.parametrize("key", ["train", "valid"])
def test_constant_cutouts_are_refused_before_anything_is_written(tiny, image_file, key):
    with h5py.File(image_file, "r+") as file:
        file[key][...] = 290
    opt = tiny()
    with pytest.raises(DataError, match=f"usable cutouts of '{key}' are constant"):
        run(opt)
    assert not list(image_file.parent.rglob("*.pth"))


def test_pixels_that_overflow_are_not_said_to_be_infinite(tiny, image_file):
    with h5py.File(image_file, "r+") as file:
        file["train"][:, 0, :, :8] = 9.97e36
        file["valid"][:, 0, :, :8] = 9.97e36
    with pytest.raises(NonFiniteLossError, match=r"finite in the file, but so large.*to 9.97e\+36.*missing") as stopped:
        run(tiny())
    assert "are not finite" not in str(stopped.value)
    assert run(tiny(missing=[9.97e36], max_nodata=0.6, epochs=1)).epoch == 1


def test_weights_that_overflow_lead_to_the_pixels(tiny, image_file):
    for key in ("train", "valid"):
        with h5py.File(image_file, "r+") as file:
            file[key][:, 0, :4, :4] = 9.97e36  # too few for the views to overflow
    with pytest.raises(NonFiniteLossError, match=r"the weights are not finite.*`nenya check`.*missing"):
        run(tiny())


def test_channels_last_trains_as_channels_first_does(tiny, tmp_path):
    pixels = np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32)
    with h5py.File(tmp_path / "both.h5", "w") as file:
        file["first"], file["last"] = pixels, np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    common = {"images_file": str(tmp_path / "both.h5"), "valid_key": None, "epochs": 1}
    first = run(tiny(**common, train_key="first", trial=1))
    last = run(tiny(**common, train_key="last", trial=2, axes="NHWC"))
    assert first.data == last.data
    models = [read_checkpoint(done.folder / "last.pth")["model"] for done in (first, last)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize("changed", [{"missing": [-999]}, {"axes": "NCWH"}])
def test_what_the_pixels_mean_may_not_change_on_resume(tiny, changed):
    opt = tiny(epochs=2, model_folder=str(tiny().images_path.parent / "run"), cosine=False)
    run(opt)
    with pytest.raises(OptionError, match=next(iter(changed))):
        run(tiny(epochs=3, model_folder=opt.model_folder, cosine=False, **changed), resume=True)
