"""A run that is killed, stopped or damaged goes on as if nothing had happened."""

import os
import random
import signal
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nenya.errors import CheckpointError, NenyaError, OptionError
from nenya.train import TO_BE_CONTINUED, run
from nenya.training.checkpoint import LAST, PREVIOUS, keep_previous, newest_whole, read_checkpoint
from nenya.training.curves import load_curves
from tests.conftest import narrow_command

EVERY_STEP = 1e-9  # minutes


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run's own catches it."""


@pytest.fixture
def kill_at(monkeypatch):
    """Function: end the run in the step of a given number (from 1), before or after the weights move."""
    original = torch.optim.SGD.step

    def arm(step, *, after=False):
        done = 0

        def count(self, *args, **kwargs):
            nonlocal done
            done += 1
            if done == step and not after:
                raise Killed
            result = original(self, *args, **kwargs)
            if done == step:
                raise Killed
            return result

        monkeypatch.setattr(torch.optim.SGD, "step", count)

    yield arm
    monkeypatch.setattr(torch.optim.SGD, "step", original)


def outcome(folder, name):
    """Everything that two runs can differ in: weights, momentum, random state, losses, health."""
    state = read_checkpoint(folder / LAST)
    curves = load_curves(folder, name)
    momentum = [entry["momentum_buffer"] for entry in state["optimizer"]["state"].values()]
    return (
        {key: value.tolist() for key, value in state["model"].items()},
        [buffer.tolist() for buffer in momentum],
        state["random_state"].tolist(),
        (curves.train.loss, curves.train.loss_step, curves.train.loss_avg, curves.valid.loss),
        curves.health,
    )


@pytest.mark.parametrize("every", [EVERY_STEP, None], ids=["every step", "every epoch"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_a_run_ends_with_the_same_bits(tiny, kill_at, every, seed):
    whole = run(tiny(epochs=3, trial="whole", warm=True, warm_epochs=2))
    options = tiny(epochs=3, trial="killed", warm=True, warm_epochs=2, save_every_minutes=every)
    draw = random.Random(seed)
    for attempt in range(3):
        kill_at(draw.randint(1, 3), after=draw.random() < 0.5)  # of 9 steps
        with pytest.raises(Killed):
            run(options, resume=attempt > 0)
    kill_at(99)
    resumed = run(options, resume=True)
    assert outcome(resumed.folder, resumed.opt.model_name) == outcome(whole.folder, whole.opt.model_name)


RECIPE = {
    "optimizer": "muon", "schedule_by": "step", "image_size_schedule": [[8, 0.5], [12, 0.5]], "warm": True,
    "warm_epochs": 0.5, "nesterov": True,
}  # fmt: skip


@pytest.mark.parametrize("every", [EVERY_STEP, None], ids=["every step", "every epoch"])
def test_a_short_run_with_muon_ends_with_the_same_bits_too(tiny, kill_at, every):
    """Muon's momentum, each step's rate and the size of the views are where they were."""
    whole = run(tiny(epochs=4, trial="whole", **RECIPE))
    options = tiny(epochs=4, trial="killed", save_every_minutes=every, **RECIPE)
    for attempt, (number, after) in enumerate([(2, True), (4, False), (3, True), (4, True)]):  # of 12 steps
        kill_at(number, after=after)
        with pytest.raises(Killed):
            run(options, resume=attempt > 0)
    kill_at(99)
    resumed = run(options, resume=True)
    assert outcome(resumed.folder, resumed.opt.model_name) == outcome(whole.folder, whole.opt.model_name)
    assert len(read_checkpoint(resumed.folder / LAST)["optimizer"]["state"]) == len(list(whole.model.parameters()))


@pytest.mark.parametrize("old", [False, True], ids=["told", "from before there was a choice"])
@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("optimizer", "muon", "optimizer 'sgd' -> 'muon'"),
        ("nesterov", True, "nesterov False -> True"),
        ("schedule_by", "step", "schedule_by 'epoch' -> 'step'"),
        ("image_size_schedule", [[8, 1.0]], r"image_size_schedule None -> \[\[8, 1.0\]\]"),
    ],
)
def test_what_makes_it_another_run_is_refused(tiny, name, value, named, old):
    done = run(tiny(epochs=1))
    if old:
        state = torch.load(done.folder / LAST, weights_only=True)
        del state["opt"][name]
        torch.save(state, done.folder / LAST)
    with pytest.raises(OptionError, match=named):
        run(tiny(epochs=1, **{name: value}), resume=True)
    assert run(tiny(epochs=1), resume=True).epoch == 1


def test_options_of_muon_matter_to_muon_alone(tiny):
    run(tiny(epochs=1, cosine=False))
    assert run(tiny(epochs=2, cosine=False, muon_learning_rate=0.1), resume=True).epoch == 2
    run(tiny(epochs=1, trial="muon", cosine=False, optimizer="muon"))
    for change in ({"muon_learning_rate": 0.1}, {"muon_momentum": 0.5}, {"muon_steps": 5}, {"muon_keep_norm": False}):
        with pytest.raises(OptionError, match=f"{next(iter(change))} .* -> "):
            run(tiny(epochs=2, trial="muon", cosine=False, optimizer="muon", **change), resume=True)


def test_the_length_of_a_run_matters_where_the_view_size_depends_on_it(tiny):
    run(tiny(epochs=1, cosine=False, image_size_schedule=[[8, 0.5], [12, 0.5]]))
    with pytest.raises(OptionError, match="epochs 1 -> 2"):
        run(tiny(epochs=2, cosine=False, image_size_schedule=[[8, 0.5], [12, 0.5]]), resume=True)


@pytest.mark.parametrize(("first", "then"), [("sgd", "muon"), ("muon", "sgd")])
def test_another_optimizer_is_refused_even_if_forced(tiny, first, then):
    """Its state is of another kind: what stands in the folder stays."""
    done = run(tiny(epochs=1, cosine=False, optimizer=first))
    before = (done.folder / LAST).read_bytes()
    with pytest.raises(CheckpointError, match=f"its optimizer is {first}, that of the options {then}"):
        run(tiny(epochs=2, cosine=False, optimizer=then), resume=True, force=True)
    assert (done.folder / LAST).read_bytes() == before


def test_muon_goes_on_with_other_settings_if_forced(tiny):
    """SGD without momentum keeps none, Muon beside it does."""
    run(tiny(epochs=1, cosine=False, optimizer="muon", momentum=0.0))
    state = run(
        tiny(epochs=2, cosine=False, optimizer="muon", momentum=0.0, muon_momentum=0.3), resume=True, force=True
    )
    sgd, muon = state.optimizer.param_groups
    assert (sgd["momentum"], muon["momentum"], state.epoch) == (0.0, 0.3, 2)
    assert not any("momentum_buffer" in state.optimizer.state[parameter] for parameter in sgd["params"])


def test_in_mid_epoch_samples_are_neither_skipped_nor_repeated(tiny, kill_at, monkeypatch):
    seen = []
    from nenya.data.loaders import ViewLoader

    original = ViewLoader._batch

    def note(self, rows, *args, **kwargs):
        if self.train:
            seen.append(rows.tolist())
        return original(self, rows, *args, **kwargs)

    monkeypatch.setattr(ViewLoader, "_batch", note)
    run(tiny(epochs=1, trial="whole", num_workers=0))
    whole, seen[:] = list(seen), []
    options = tiny(epochs=1, trial="killed", save_every_minutes=EVERY_STEP, num_workers=0)
    kill_at(2, after=True)
    with pytest.raises(Killed):
        run(options)
    kill_at(99)
    run(options, resume=True)
    # the batch of the step that was lost is computed again, from the weights before it
    assert seen == [whole[0], whole[1], whole[1], whole[2]]


def test_the_state_before_the_last_is_kept_and_used_when_the_last_is_damaged(tiny, caplog):
    whole = run(tiny(epochs=3, save_freq=10))
    previous = read_checkpoint(whole.folder / PREVIOUS)
    assert previous["epoch"] == 2
    expected = outcome(whole.folder, whole.opt.model_name)
    last = whole.folder / LAST
    last.write_bytes(last.read_bytes()[:-1000])
    resumed = run(tiny(epochs=3, save_freq=10), resume=True)
    assert "Looking for the newest whole one" in caplog.text
    assert outcome(resumed.folder, resumed.opt.model_name) == expected


def test_the_newer_of_previous_and_epoch_checkpoint_is_taken(tiny):
    done = run(tiny(epochs=3, save_freq=1))
    (done.folder / LAST).write_bytes(b"")
    path, state = newest_whole(done.folder)
    assert (path.name, state["epoch"]) == ("ckpt_epoch_3.pth", 3)
    (done.folder / "ckpt_epoch_3.pth").unlink()
    path, state = newest_whole(done.folder)
    assert state["epoch"] == 2


def test_only_the_newest_epochs_of_this_run_are_kept(tiny):
    options = tiny(epochs=4, keep=2, save_freq=1, cosine=False)
    folder = run(options).folder
    assert sorted(path.name for path in folder.glob("ckpt*")) == ["ckpt_epoch_3.pth", "ckpt_epoch_4.pth"]
    other = folder / "ckpt_epoch_1.pth"
    other.write_bytes(b"not of this run")
    run(tiny(epochs=6, keep=2, save_freq=1, cosine=False), resume=True)
    names = sorted(path.name for path in folder.glob("ckpt*"))
    assert names == ["ckpt_epoch_1.pth", "ckpt_epoch_5.pth", "ckpt_epoch_6.pth"]
    assert other.read_bytes() == b"not of this run"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("epoch_files", ["../precious.pth", "ckpt_epoch_1.pth"], "'epoch_files' = "),
        ("partial_losses", [0.5] * 3, "3 losses of an epoch under way, which has 3 batches"),
        ("optimizer", "no momentum", "no momentum, although 1 epochs"),
    ],
)
@pytest.mark.parametrize("other_valid", [False, True])
def test_what_the_run_cannot_have_written_is_refused_and_deletes_nothing(
    tiny, field, value, named, other_valid, image_file
):
    done = run(tiny(epochs=1, save_freq=1, keep=1, cosine=False))
    precious = done.folder.parent / "precious.pth"
    precious.write_bytes(b"of another run")
    state = torch.load(done.folder / LAST, weights_only=True)
    state["opt"]["epochs"] = 3
    if value == "no momentum":
        state["optimizer"]["state"] = {}
    else:
        state[field] = value
    torch.save(state, done.folder / LAST)
    before = {path: path.read_bytes() for path in done.folder.rglob("*.pth")}
    if other_valid:  # which the batches of the training do not depend on
        with h5py.File(image_file, "a") as file:
            file["valid"][:] += 1
    with pytest.raises(CheckpointError, match=named):
        run(tiny(epochs=3, save_freq=1, keep=1, cosine=False), resume=True, force=True)
    assert {path: path.read_bytes() for path in done.folder.rglob("*.pth")} == before
    assert precious.read_bytes() == b"of another run"


def test_texts_of_a_checkpoint_cannot_speak_to_the_terminal(tiny):
    spell = "\x1b[2J\nnenya: all is well\r\u202e\x9b31m"
    done = run(tiny(epochs=1, save_freq=1))
    state = torch.load(done.folder / LAST, weights_only=True)
    messages = []
    for change in (
        {"data": spell},
        {"opt": state["opt"] | {"ssl_method": spell}},
        {"opt": {**state["opt"], "temp": [spell]}},
        {"nenya_version": [spell]},
        {"epoch": spell},
        {"epoch_files": [spell]},
        {"model": {spell: torch.ones(1), **state["model"]}},
        {"optimizer": spell},
        {"optimizer": {**state["optimizer"], "state": {spell: {}}}},
    ):
        torch.save(state | change, done.folder / LAST)
        with pytest.raises((CheckpointError, OptionError)) as refused:
            run(tiny(epochs=1, save_freq=1), resume=True)
        messages.append(str(refused.value))
    for message in messages:
        assert "all is well" in message
        assert all(line.isprintable() and not line.startswith("nenya:") for line in message.split("\n"))


def test_other_data_under_the_same_name_are_refused_and_the_same_elsewhere_are_not(tiny, image_file, tmp_path):
    run(tiny(epochs=1, cosine=False))
    moved = image_file.rename(tmp_path / "moved.h5")
    assert run(tiny(epochs=2, cosine=False, images_file=str(moved)), resume=True).epoch == 2
    with h5py.File(moved, "a") as file:
        file["train"][...] = file["train"][...] + 1
    with pytest.raises(OptionError, match="training data"):
        run(tiny(epochs=3, cosine=False, images_file=str(moved)), resume=True)


@pytest.mark.parametrize("layout", ["in memory", "in one piece", "in chunks"])
def test_a_file_put_in_place_of_the_imagery_after_the_start_is_never_read(
    tiny, image_file, tmp_path, monkeypatch, layout
):
    """A resumed run first validates when an epoch is over. Integers: they have no gaps that are looked for before."""
    with h5py.File(image_file, "a") as file:
        for key in ("train", "valid"):
            pixels = (100 * (file[key][...] - 290)).astype(np.int16)
            del file[key]
            file.create_dataset(key, data=pixels, chunks=(2, 1, 16, 16) if layout == "in chunks" else None)
    options = {"epochs": 2, "cosine": False, "cache_mb": 1024 if layout == "in memory" else 0}
    expected = run(tiny(**options, trial="whole"))
    run(tiny(**options | {"epochs": 1}, trial="parts"))
    other = tmp_path / "other.h5"
    with h5py.File(image_file) as file, h5py.File(other, "w") as replaced:
        for key in ("train", "valid"):
            replaced.create_dataset(key, data=file[key][...][::-1] // 2, chunks=file[key].chunks)
    original = torch.optim.SGD.step

    def replace_and_step(self, *args, **kwargs):
        if other.exists():
            os.replace(other, image_file)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", replace_and_step)
    resumed = run(tiny(**options, trial="parts"), resume=True)
    assert not other.exists()
    assert resumed.curves.valid.loss == expected.curves.valid.loss
    assert resumed.curves.health == expected.curves.health


def replace_validation(image_file, new):
    """Change the validation set of a file: other pixels, other labels, or none at all."""
    with h5py.File(image_file, "a") as file:
        if new == "pixels":
            file["valid"][...] = file["valid"][...] + 1
        elif new == "labels":
            file["valid_labels"][...] = 2 - file["valid_labels"][...]
        else:
            del file["valid"]


def test_force_without_resume_has_no_effect_and_the_log_says_so(tiny, caplog):
    run(tiny(epochs=1), force=True)
    assert "force has no effect without resume" in caplog.text


@pytest.mark.parametrize("new", ["pixels", "labels", "none"])
def test_another_validation_set_is_refused_unless_forced(tiny, image_file, caplog, new):
    options = {"cosine": False, "ssl_method": "SupCon"}
    before = (run(tiny(epochs=1, **options)).folder / LAST).read_bytes()
    replace_validation(image_file, new)
    with pytest.raises(OptionError, match="validation data: 12 usable cutouts") as refused:
        run(tiny(epochs=2, **options), resume=True)
    assert "training data" not in str(refused.value)
    done = run(tiny(epochs=2, **options), resume=True, force=True)
    assert "changed since the checkpoint: validation data" in caplog.text
    assert (done.folder / PREVIOUS).read_bytes() == before
    assert run(tiny(epochs=3, **options), resume=True).epoch == 3  # these are the run's data now


def test_an_epoch_under_way_goes_on_with_another_validation_set(tiny, image_file, kill_at, caplog):
    """Its batches are the same."""
    caplog.set_level("INFO")
    options = tiny(epochs=1, save_every_minutes=EVERY_STEP)
    kill_at(2, after=True)
    with pytest.raises(Killed):
        run(options)
    kill_at(99)
    replace_validation(image_file, "pixels")
    run(options, resume=True, force=True)
    assert "after epoch 0 and batch 1 of the next" in caplog.text
    assert "begins anew" not in caplog.text


@pytest.mark.parametrize("field", ["data", "valid_data"])
def test_a_checkpoint_that_does_not_tell_its_data_is_resumed(tiny, image_file, field):
    """Those of earlier versions do not tell."""
    done = run(tiny(epochs=1, cosine=False))
    state = torch.load(done.folder / LAST, weights_only=True)
    del state[field]
    torch.save(state, done.folder / LAST)
    with h5py.File(image_file, "a") as file:
        key = "train" if field == "data" else "valid"
        file[key][...] = file[key][...] + 1
    assert run(tiny(epochs=2, cosine=False), resume=True).epoch == 2


def test_a_longer_cosine_is_another_run(tiny):
    run(tiny(epochs=1))
    with pytest.raises(OptionError, match="epochs 1 -> 2"):
        run(tiny(epochs=2), resume=True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_what_job_systems_send_saves_and_exits_with_75(tiny_file, name):
    options = tiny_file(epochs=500)
    process = subprocess.Popen(narrow_command("train", options), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 1/500" in line:
            break
    process.send_signal(getattr(signal, name))
    _, rest = process.communicate(timeout=60)
    assert process.returncode == TO_BE_CONTINUED == 75
    assert name in rest
    assert "--resume" in rest
    assert "Traceback" not in rest


def test_main_in_a_notebook_leaves_with_the_same_code(tiny, monkeypatch):
    original = torch.optim.SGD.step

    def step_and_signal(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", step_and_signal)
    with pytest.raises(SystemExit) as stopped:
        run(tiny())
    assert stopped.value.code == TO_BE_CONTINUED


def test_a_checkpoint_of_weights_alone_is_no_place_to_go_on_from(tiny):
    done = run(tiny(epochs=1))
    state = torch.load(done.folder / LAST, weights_only=True)
    del state["optimizer"]
    torch.save(state, done.folder / LAST)
    with pytest.raises(CheckpointError, match="no optimizer state"):
        run(tiny(epochs=1), resume=True)


def test_other_labels_or_another_layout_are_other_data(tiny, image_file):
    """Both decide which cutouts meet in a batch, or what is learned from them."""
    options = {"cosine": False, "ssl_method": "SupCon", "cache_mb": 0}
    run(tiny(epochs=1, **options))
    with h5py.File(image_file, "a") as file:
        labels = file["train_labels"][...]
        file["train_labels"][...] = labels[::-1]
    with pytest.raises(OptionError, match="training data"):
        run(tiny(epochs=2, **options), resume=True)
    with h5py.File(image_file, "a") as file:
        file["train_labels"][...] = labels
        pixels = file["train"][...]
        del file["train"]
        file.create_dataset("train", data=pixels, chunks=(4, 1, 16, 16))
    with pytest.raises(OptionError, match="read 4 at a time"):
        run(tiny(epochs=2, **options), resume=True)


def test_a_save_after_a_kill_between_two_files_leaves_no_leftover(tiny):
    """Then both names stand for one file, and renaming one to the other does nothing."""
    done = run(tiny(epochs=1))
    (done.folder / PREVIOUS).unlink(missing_ok=True)
    keep_previous(done.folder)
    keep_previous(done.folder)
    assert (done.folder / PREVIOUS).samefile(done.folder / LAST)
    assert not list(done.folder.glob(".*unfinished*"))


def test_what_nothing_reads_may_change(tiny):
    run(tiny(epochs=1, cosine=False, tbl_file="s3://a", remark="first"))
    assert run(tiny(epochs=2, cosine=False, tbl_file="s3://b", remark="second"), resume=True).epoch == 2


@pytest.mark.parametrize("moved", [1, 2, 3, 4])
def test_a_start_that_was_killed_while_it_cleared_the_folder_is_never_resumed_from(tiny, monkeypatch, caplog, moved):
    """Else the run goes on from the older one's checkpoint, without the curves that belong to it."""
    first = run(tiny(epochs=2, save_freq=1))
    before = {path.name for path in first.folder.iterdir()} - {".lock"}
    original, calls = Path.rename, iter(range(100))

    def rename(self, target):
        if next(calls) == moved:
            raise SystemExit("killed")
        return original(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(SystemExit, match="killed"):
            run(tiny(epochs=2, save_freq=1, seed=5))
    again = run(tiny(epochs=2, save_freq=1, seed=5), resume=True)
    assert "the rest is in" in caplog.text
    assert "nothing to resume" in caplog.text
    assert {path.name for path in (first.folder / "earlier_run_1").iterdir()} == before
    assert again.epoch == 2
    assert again.curves.train.epochs == [1, 2]


def test_a_resumed_run_sets_aside_what_it_would_write_over_and_has_not_written(tiny, caplog):
    folder = run(tiny(epochs=1, save_freq=1, cosine=False, keep=1)).folder
    other = run(tiny(epochs=1, trial="other")).folder / LAST
    foreign = {"ckpt_epoch_2.pth": b"mine", "previous.pth": other.read_bytes(), "options.json": b"{}"}
    own_past = other.read_bytes()  # at the name of a checkpoint that the run has listed, and would remove
    for name, content in {**foreign, "ckpt_epoch_1.pth": own_past}.items():
        (folder / name).write_bytes(content)
    run(tiny(epochs=2, save_freq=1, cosine=False, keep=1), resume=True)
    aside = folder / "earlier_run_1"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == {**foreign, "ckpt_epoch_1.pth": own_past}
    assert "not written by this run, or damaged: options.json, previous.pth, ckpt_epoch_2.pth" in caplog.text
    assert read_checkpoint(folder / "ckpt_epoch_2.pth")["epoch"] == 2


def test_a_run_killed_after_its_epoch_checkpoint_leaves_nothing_to_set_aside(tiny, monkeypatch):
    """That checkpoint is in no list yet, but it is the run's own."""
    options = tiny(epochs=2, save_freq=1, cosine=False)
    folder = run(tiny(epochs=1, save_freq=1, cosine=False)).folder
    before = (folder / LAST).read_bytes()
    run(options, resume=True)
    (folder / LAST).write_bytes(before)
    run(options, resume=True)
    assert not (folder / "earlier_run_1").exists()


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_what_leads_to_no_checkpoint_is_refused_on_resume_and_set_aside_else(tiny, what):
    folder = run(tiny(epochs=1)).folder
    last = folder / LAST
    last.unlink()
    make = {"link": lambda: last.symlink_to("gone.pth"), "folder": last.mkdir, "pipe": lambda: os.mkfifo(last)}
    make[what]()
    with pytest.raises(
        NenyaError, match="a link to gone.pth, where no file is" if what == "link" else "no ordinary file"
    ):
        run(tiny(epochs=1), resume=True)
    run(tiny(epochs=1))
    assert os.path.lexists(folder / "earlier_run_1" / LAST)
    assert last.is_file()
    assert not last.is_symlink()
