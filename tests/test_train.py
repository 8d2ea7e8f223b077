"""A run from its options to its files: what it leaves, how it is resumed, stopped and refused."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nenya.errors import CheckpointError, CollapseError, NenyaError, NonFiniteLossError, OptionError
from nenya.params import complete_options
from nenya.train import main, run
from nenya.training.checkpoint import read_checkpoint
from nenya.training.curves import load_curves
from tests.conftest import narrow_command


def weights(folder, name="last.pth"):
    return read_checkpoint(Path(folder) / name)["model"]


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_a_run_leaves_checkpoints_curves_picture_and_options(tiny):
    done = run(tiny(epochs=3, save_freq=2))
    names = {str(path.relative_to(done.folder)) for path in done.folder.rglob("*") if path.is_file()}
    name = done.opt.model_name
    assert names == {
        ".lock",
        "last.pth",
        "previous.pth",
        "ckpt_epoch_2.pth",
        "options.json",
        f"learning_curve/{name}_losses_train.h5",
        f"learning_curve/{name}_losses_valid.h5",
        f"learning_curve/{name}_health_valid.h5",
        f"learning_curve/{name}_curves.png",
    }
    curves = load_curves(done.folder, name)
    assert curves.train.epochs == [1, 2, 3]
    assert curves.valid.epochs == [1, 2, 3]
    assert list(curves.health) == [0, 1, 2, 3]
    assert len(curves.train.loss_step) == 9


def test_the_saved_options_give_the_same_run(tiny, tmp_path):
    first = run(tiny())
    saved = json.loads((first.folder / "options.json").read_text())
    again = tmp_path / "again.json"
    again.write_text(json.dumps(saved))
    before = weights(first.folder)
    main(again)
    assert_same_weights(before, weights(first.folder))


def test_the_seed_decides_the_run(tiny):
    one, same, other = (weights(run(tiny(seed=seed, trial=trial)).folder) for trial, seed in enumerate((1, 1, 2)))
    assert_same_weights(one, same)
    assert not torch.equal(one["encoder.conv1.weight"], other["encoder.conv1.weight"])


@pytest.mark.parametrize("valid_freq", [1, 2, 3])
def test_resuming_at_an_epochs_border_equals_an_uninterrupted_run(tiny, valid_freq):
    whole = run(tiny(epochs=4, valid_freq=valid_freq, trial="whole"))
    options = tiny(epochs=4, valid_freq=valid_freq, trial="halves")
    half = run(options)
    # go back to how the folder stood after epoch 2: the curves on the disk are longer than the checkpoint
    (half.folder / "last.pth").write_bytes((half.folder / "ckpt_epoch_2.pth").read_bytes())
    resumed = run(options, resume=True)
    assert_same_weights(weights(whole.folder), weights(resumed.folder))
    expected = load_curves(whole.folder, whole.opt.model_name)
    found = load_curves(resumed.folder, resumed.opt.model_name)
    assert found.train == expected.train
    assert found.valid == expected.valid
    assert found.health == expected.health


def test_resuming_in_mid_epoch_after_ctrl_c_equals_an_uninterrupted_run(tiny, monkeypatch):
    whole = run(tiny(epochs=2, trial="whole"))
    options = tiny(epochs=2, trial="stopped")
    steps = 0

    def step_and_interrupt(self, *args, **kwargs):
        nonlocal steps
        steps += 1
        if steps == 5:  # the second batch of the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", step_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(options)
    monkeypatch.setattr(torch.optim.SGD, "step", original)
    resumed = run(options, resume=True)
    assert_same_weights(weights(whole.folder), weights(resumed.folder))
    expected = load_curves(whole.folder, whole.opt.model_name).train
    assert load_curves(resumed.folder, resumed.opt.model_name).train == expected


def test_a_truncated_checkpoint_is_passed_over_aloud(tiny, caplog):
    caplog.set_level("INFO")
    options = tiny(epochs=3)
    done = run(options)
    expected = weights(done.folder)
    last = done.folder / "last.pth"
    last.write_bytes(last.read_bytes()[:1000])
    (done.folder / "ckpt_epoch_3.pth").write_bytes(b"")
    run(options, resume=True)
    assert "last.pth" in caplog.text
    assert "ckpt_epoch_3.pth" in caplog.text
    assert "after epoch 2" in caplog.text
    assert_same_weights(expected, weights(done.folder))


def test_resuming_without_a_checkpoint_starts_anew(tiny, caplog):
    caplog.set_level("INFO")
    assert run(tiny(epochs=1), resume=True).epoch == 1
    assert "nothing to resume" in caplog.text
    caplog.clear()
    run(tiny(epochs=1, temp=0.2), resume=True)
    assert "Beside it there are runs in SimCLR_resnet18_lr_0.01_decay_0.0001_bsz_8_temp_0.07" in caplog.text


def test_resuming_with_another_model_is_refused_and_loses_nothing(tiny):
    done = run(tiny(epochs=1))
    before = (done.folder / "last.pth").read_bytes()
    with pytest.raises(CheckpointError, match="does not fit"):
        run(tiny(epochs=2, feat_dim=8, model_folder=str(done.folder)), resume=True, force=True)
    assert (done.folder / "last.pth").read_bytes() == before


def test_starting_over_moves_the_earlier_run_aside(tiny, caplog):
    first = run(tiny(epochs=1))
    before = weights(first.folder)
    (first.folder / "notes.txt").write_text("the user's own")
    run(tiny(epochs=1, seed=5))
    assert_same_weights(before, weights(first.folder / "earlier_run_1"))
    assert (first.folder / "notes.txt").read_text() == "the user's own"
    assert "earlier_run_1" in caplog.text


def test_debug_is_two_short_epochs_in_a_folder_of_their_own(tiny, tiny_file):
    real = run(tiny(epochs=1))
    before = (real.folder / "last.pth").read_bytes()
    main(tiny_file(epochs=100, batch_size_train=2), debug=True)
    assert (real.folder / "last.pth").read_bytes() == before
    (checkpoint,) = real.folder.parent.glob("*_debug/last.pth")
    assert read_checkpoint(checkpoint)["epoch"] == 2
    curves = load_curves(checkpoint.parent, checkpoint.parent.name)
    assert len(curves.train.loss_step) == 2 * 4


def test_a_debug_run_writes_over_a_debug_run_and_over_nothing_else(tiny, tiny_file, monkeypatch):
    options = tiny()
    complete_options(options)
    folder = Path(f"{options.model_folder}_debug")
    folder.mkdir(parents=True)
    foreign = ["last.pth", "options.json", "ckpt_epoch_1.pth"]
    for name in foreign:
        (folder / name).write_text(f"the user's {name}")
    for _ in range(2):
        main(tiny_file(save_freq=1), debug=True)
    assert read_checkpoint(folder / "last.pth")["epoch"] == 2
    aside = folder / "earlier_run_1"
    assert {path.name: path.read_text() for path in aside.iterdir()} == {name: f"the user's {name}" for name in foreign}
    assert not (folder / "earlier_run_2").exists()
    monkeypatch.setattr("nenya.train.train_all", lambda *args, **kwargs: None)
    for number, name in enumerate(foreign, start=2):  # nor over what has come there since
        (folder / name).write_text(f"the user's {name}")
        main(tiny_file(save_freq=1), debug=True)
        assert (folder / f"earlier_run_{number}" / name).read_text() == f"the user's {name}"


def test_a_debug_run_writes_over_no_run_whose_trial_is_named_so(tiny, tiny_file, monkeypatch):
    done = run(tiny(epochs=1, trial="a_debug", cosine=False))
    assert done.folder.name.endswith("trial_a_debug")
    before = (done.folder / "last.pth").read_bytes()
    monkeypatch.setattr("nenya.train.train_all", lambda *args, **kwargs: None)
    main(tiny_file(trial="a", cosine=False), debug=True)
    assert (done.folder / "earlier_run_1" / "last.pth").read_bytes() == before


def test_training_without_validation_says_so(tiny, caplog):
    for valid_key in (None, "vaild"):
        done = run(tiny(epochs=1, valid_key=valid_key, trial=str(valid_key)))
        assert not done.curves.health
        assert "without validation" in caplog.text
        assert ("did you mean valid" in caplog.text) is (valid_key == "vaild")
        caplog.clear()
    run(tiny(epochs=1, valid_key="train", trial="same"))
    assert "valid_key is train_key" in caplog.text


def test_fewer_samples_than_a_batch_train_with_a_warning(tiny, tmp_path, cutouts, caplog):
    path = tmp_path / "few.h5"
    with h5py.File(path, "w") as file:
        file["train"] = cutouts(2, 16, 0)
    done = run(tiny(images_file=str(path), epochs=1))
    assert "fewer than a batch" in caplog.text
    assert done.train.batch_size == 2


def test_colour_imagery_and_supcon(tiny, tmp_path):
    path = tmp_path / "colour.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for key in ("train", "valid"):
            file[key] = rng.integers(0, 255, (12, 3, 16, 20), dtype=np.uint8)
            file[f"{key}_labels"] = np.arange(12) % 2
    done = run(tiny(images_file=str(path), epochs=1, ssl_method="SupCon", image_size=None, random_jitter=0))
    assert done.train.views.size == (16, 20)
    assert done.model.encoder.conv1.in_channels == 3


def test_five_channels_have_a_stem_of_their_own(tiny, tmp_path):
    path = tmp_path / "five.h5"
    with h5py.File(path, "w") as file:
        file["train"] = np.random.default_rng(0).normal(size=(8, 5, 16, 16))
    done = run(tiny(images_file=str(path), epochs=1))
    assert weights(done.folder)["encoder.conv1.weight"].shape == (8, 5, 3, 3)


def test_tensorboard_events(tiny):
    done = run(tiny(epochs=1, tensorboard=True))
    assert list((done.folder / "tensorboard").glob("events.*"))


def test_a_collapsed_run_stops_and_says_what_to_try(tiny, monkeypatch, caplog):
    def constant(self, x):
        return torch.ones(len(x), 16) + 0 * self.encoder(x)[:, :16]

    monkeypatch.setattr("nenya.models.resnet_big.SupConResNet.project", lambda self, h: h / h.norm(dim=1, keepdim=True))
    monkeypatch.setattr("nenya.models.resnet_big.SupConResNet.encode", constant)
    with pytest.raises(CollapseError, match="learning_rate"):
        run(tiny(on_collapse="stop"))
    assert run(tiny(on_collapse="warn")).epoch == 2
    assert "collapsed" in caplog.text


def test_a_diverging_run_stops_and_keeps_the_good_checkpoint(tiny):
    options = tiny(epochs=1)
    good = run(options)
    before = weights(good.folder)
    with pytest.raises(NonFiniteLossError, match=r"epoch \d+"):
        run(tiny(epochs=4, learning_rate=1e30, model_folder=str(good.folder)), resume=True, force=True)
    assert_same_weights(before, weights(good.folder))


def test_a_failing_write_keeps_what_was_there(tiny, monkeypatch):
    options = tiny(epochs=1)
    good = run(options)
    before = (good.folder / "last.pth").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NenyaError, match="No space left"):
        run(tiny(epochs=2, model_folder=str(good.folder)), resume=True, force=True)
    assert (good.folder / "last.pth").read_bytes() == before
    assert not list(good.folder.glob(".last*"))


def test_two_runs_at_once_in_one_folder_are_refused(tiny_file, tmp_path):
    options = tiny_file(epochs=500)
    command = narrow_command("train", options)
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in first.stderr:
            if "epoch 1/500" in line:
                break
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 2
        assert f"process {first.pid}" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        first.kill()
        first.communicate()


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(tiny_file):
    options = tiny_file(epochs=500, print_freq=1)
    process = subprocess.Popen(narrow_command("train", options), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 2/500" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in rest
    assert "Traceback" not in rest
    (last,) = (options.parent / "models").glob("*/last.pth")
    assert read_checkpoint(last)["epoch"] >= 1


def test_a_killed_run_leaves_a_whole_checkpoint(tiny_file):
    options = tiny_file(epochs=500)
    process = subprocess.Popen(narrow_command("train", options), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if re.search(r"epoch 2/500: loss", line):
            break
    time.sleep(0.05)  # into the writing of curves and checkpoint
    process.kill()
    process.communicate()
    (last,) = (options.parent / "models").glob("*/last.pth")
    assert read_checkpoint(last)["epoch"] >= 1


def test_images_file_is_required(tiny, tmp_path):
    with pytest.raises(OptionError, match="images_file"):
        run(tiny(images_file=None, data_folder=str(tmp_path / "empty")))


def test_validation_moves_nothing(tiny):
    """The trap that the historical code fell into: validating in training mode moved the BatchNorm statistics."""
    often = run(tiny(epochs=2, valid_freq=1, trial="often"))
    rarely = run(tiny(epochs=2, valid_freq=2, trial="rarely"))
    never = run(tiny(epochs=2, valid_key=None, trial="never"))
    assert_same_weights(weights(often.folder), weights(rarely.folder))
    assert_same_weights(weights(often.folder), weights(never.folder))


def test_the_options_of_a_debug_run_lead_to_its_own_folder(tiny, tiny_file):
    real = run(tiny(epochs=1))
    before = weights(real.folder)
    main(tiny_file(), debug=True)
    (saved,) = real.folder.parent.glob("*_debug/options.json")
    main(saved)
    assert_same_weights(before, weights(real.folder))


def test_a_debug_run_has_nothing_to_resume(tiny):
    with pytest.raises(OptionError, match="either debug or resume"):
        run(tiny(), debug=True, resume=True)


def test_options_changed_on_resume_are_refused_unless_forced(tiny, caplog):
    first = run(tiny(epochs=1, cosine=False))
    before = (first.folder / "last.pth").read_bytes()
    changed = tiny(epochs=2, cosine=False, momentum=0.1, save_freq=2, num_workers=0, model_folder=str(first.folder))
    with pytest.raises(OptionError, match=r"momentum 0\.9 -> 0\.1") as refused:
        run(changed, resume=True)
    for harmless in ("epochs", "save_freq", "num_workers"):
        assert harmless not in str(refused.value)
    assert (first.folder / "last.pth").read_bytes() == before
    resumed = run(changed, resume=True, force=True)
    assert "momentum 0.9 -> 0.1" in caplog.text
    assert resumed.optimizer.param_groups[0]["momentum"] == 0.1


def test_an_epoch_under_way_begins_anew_if_its_batches_would_differ(tiny, monkeypatch, caplog):
    def step_and_interrupt(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, *args, **kwargs)

    original = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", step_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(epochs=1))
    monkeypatch.setattr(torch.optim.SGD, "step", original)
    (folder,) = (path.parent for path in Path(tiny().model_root).glob("*/last.pth"))
    resumed = run(tiny(epochs=1, batch_size_train=12, model_folder=str(folder)), resume=True, force=True)
    assert "begins anew" in caplog.text
    assert len(resumed.curves.train.loss_step) == 2


def test_resuming_a_finished_run_says_that_nothing_is_left(tiny, caplog):
    caplog.set_level("INFO")
    run(tiny(epochs=1))
    before = caplog.text.count("epoch 1/1:")
    run(tiny(epochs=1), resume=True)
    assert "nothing left to do" in caplog.text
    assert caplog.text.count("epoch 1/1:") == before


@pytest.mark.parametrize("damage", ["empty", "shorter", "missing"])
def test_damaged_curves_do_not_stand_in_the_way_of_a_whole_checkpoint(tiny, caplog, damage):
    done = run(tiny(epochs=2))
    (path,) = done.folder.glob("learning_curve/*_losses_train.h5")
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    else:
        with h5py.File(path, "a") as file:
            steps = file["loss_step_train"][:2]
            del file["loss_step_train"]
            file["loss_step_train"] = steps
    assert run(tiny(epochs=3, model_folder=str(done.folder)), resume=True, force=True).epoch == 3
    assert ("hold 0 of 2 epochs" if damage == "missing" else "begin anew") in caplog.text


def test_two_classes_apart_are_no_collapse_for_supcon(tiny, tmp_path):
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 16)
    fine = np.sin(40 * ramp)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        for key in ("train", "valid"):
            labels = np.arange(48) % 2
            patterns = np.where(labels[:, None, None], ramp[None, :, None] + 0 * ramp, fine[:, None] * fine)
            file[key] = patterns + 0.05 * rng.normal(size=(48, 16, 16))
            file[f"{key}_labels"] = labels
    options = {"ssl_method": "SupCon", "on_collapse": "stop", "epochs": 6, "learning_rate": 0.02, "image_size": 16}
    done = run(tiny(images_file=str(tmp_path / "two.h5"), **options))
    assert done.curves.health[6].effective_rank_z < 8  # of 16; 5 at most on the kernels that were tried
    assert done.curves.valid.loss[-1] < done.curves.valid.loss[0]
