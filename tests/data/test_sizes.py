"""Training views of one size after another; what is measured is of one size throughout."""

import dataclasses

import h5py
import pytest
import torch
from matplotlib.figure import Figure

from nenya.check import check_run, step_bytes
from nenya.data.loaders import nenya_loader
from nenya.data.sizes import describe, sizes_by_epoch
from nenya.params import Params
from nenya.train import run
from nenya.training.curves import FOLDER, _draw_in, _write_columns, load_curves

STAGES = [[8, 0.7], [12, 0.3]]


@pytest.mark.parametrize(
    ("stages", "epochs", "expected"),
    [
        ([[32, 0.7], [48, 0.3]], 6, [32] * 4 + [48] * 2),
        ([[32, 0.7], [48, 0.3]], 10, [32] * 7 + [48] * 3),
        ([[32, 0.5], [48, 0.5]], 3, [32] * 2 + [48]),  # 1.5: the later one
        ([[32, 0.5], [48, 0.5]], 1, [32]),
        ([[32, 0.33], [40, 0.33], [48, 0.33]], 3, [32, 40, 48]),
        ([[32, 0.25], [40, 0.25], [48, 0.5]], 4, [32, 40, 48, 48]),
        ([[48, 0.5], [32, 0.5]], 2, [48, 32]),
        ([[48, 1]], 2, [48, 48]),
        (None, 2, []),
    ],
)
def test_a_size_has_its_share_of_the_epochs(stages, epochs, expected):
    sizes = sizes_by_epoch(Params.from_dict({"image_size_schedule": stages, "epochs": epochs}))
    assert sizes == tuple((size, size) for size in expected)


def test_a_share_of_no_whole_epoch_is_a_warning(caplog):
    sizes = sizes_by_epoch(Params.from_dict({"image_size_schedule": [[32, 0.1], [48, 0.9]], "epochs": 4}))
    assert sizes == ((48, 48),) * 4
    assert "the share 0.1 of views of 32 x 32 pixels is no whole epoch of 4" in caplog.text


def test_the_sizes_in_words():
    assert describe(((8, 8), (8, 8), (12, 16))) == "8 x 8 px for 2 epochs, then 12 x 16 px for 1 epoch"


@pytest.mark.parametrize(
    "given",
    [[], [[32]], [32, 48], [[32, 0.5]], [[32, 0.7], [48, 0.7]], [[32, 0], [48, 1]], [[32, -0.5], [48, 1.5]],
     [[3, 1.0]], [["32", 1.0]], [[32, "1"]], [[32, True]], [[32.5, 1.0]], {"32": 1.0}, "32", 32, [[32, None]],
     [[None, 1.0]], [[[32, 48, 3], 1.0]]],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_by_name(given):
    with pytest.raises(ValueError, match=r"image_size_schedule: found .*expected a list of \[size, share\]"):
        Params.from_dict({"image_size_schedule": given})


def test_the_options_come_back_from_the_file_that_a_run_saves(tmp_path):
    opt = Params.from_dict({"image_size_schedule": [[32, 0.7], [[48, 40], 0.3]]})
    opt.save(tmp_path / "options.json")
    assert Params(tmp_path / "options.json") == opt


@pytest.mark.parametrize(("size", "evaluated"), [(None, 12), (10, 10)])
def test_training_views_change_and_validation_views_do_not(tiny, size, evaluated):
    opt = tiny(image_size=size, image_size_schedule=STAGES, epochs=3)
    train, valid = nenya_loader(opt), nenya_loader(opt, valid=True)
    seen = []
    for epoch in (1, 2, 3, 4):
        train.set_epoch(epoch)
        seen.append(next(iter(train)).view1.shape[-1])
    assert seen == [8, 8, 12, 12]
    assert next(iter(valid)).view1.shape[-2:] == (evaluated, evaluated)
    assert train.views.size == valid.views.size == (evaluated, evaluated)


def test_the_views_of_a_size_are_those_of_a_run_at_that_size(tiny):
    changing, fixed = nenya_loader(tiny(image_size_schedule=STAGES, epochs=3)), nenya_loader(tiny(image_size=12))
    for loader in (changing, fixed):
        loader.set_epoch(3)
    for batch, expected in zip(changing, fixed, strict=True):
        assert torch.equal(batch.view1, expected.view1)
        assert torch.equal(batch.view2, expected.view2)


def test_the_memory_of_a_step_is_that_of_the_largest_views(tiny):
    def need(**values):
        opt = tiny(**values)
        return step_bytes(opt, nenya_loader(opt), torch.float32, 8)

    assert need(image_size=8, image_size_schedule=STAGES) == need(image_size=12)
    assert need(image_size=16, image_size_schedule=STAGES) == need(image_size=12)  # validation keeps nothing
    assert need(image_size=12) > need(image_size=8)


def test_a_run_says_the_sizes_and_of_which_one_its_figures_are(tiny, caplog):
    caplog.set_level("INFO")
    opt = tiny(image_size=10, image_size_schedule=[[8, 0.5], [12, 0.5]], epochs=2)
    sizes = "8 x 8 px for 1 epoch, then 12 x 12 px for 1 epoch; validation 10 x 10 px: flips"
    assert any(sizes in line for line in check_run(opt))
    done = run(opt)
    assert sizes in caplog.text
    assert caplog.text.count(" at 10 x 10 px (top 5") == 3  # untrained, and after each epoch
    assert "view retrieval at 10 x 10 px " in caplog.text.splitlines()[-4]
    curves = load_curves(done.folder, done.outputs.name)
    assert curves.view_sizes == {0: (10, 10), 1: (10, 10), 2: (10, 10)}
    assert curves == done.curves


def test_the_sizes_of_a_forced_run_are_both_told_and_older_curves_have_none(tiny):
    run(tiny(epochs=1, image_size=8, cosine=False))
    done = run(tiny(epochs=2, image_size=12, cosine=False), resume=True, force=True)
    folder, name = done.folder, done.outputs.name
    curves = load_curves(folder, name)
    assert curves.view_sizes == {0: (8, 8), 1: (8, 8), 2: (12, 12)}
    figure = Figure()
    _draw_in(figure, curves, name)
    assert figure.axes[1].get_ylabel() == "view retrieval (h, views of 8 x 8 px, views of 12 x 12 px)"
    older = dataclasses.replace(curves, view_sizes={})
    older.save(folder, name)
    assert load_curves(folder, name) == older
    with h5py.File(folder / FOLDER / f"{name}_health_valid.h5") as file:
        columns = {key: file[key][...] for key in file if not key.startswith("view_")}
    _write_columns(folder / FOLDER / f"{name}_health_valid.h5", columns)
    assert load_curves(folder, name) == older
