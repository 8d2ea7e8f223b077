"""Learning curves: the files that users read, whole at any moment, and a picture that shows what is in them."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

import nenya
from nenya.errors import DataError, NenyaError
from nenya.evaluation.health import Health
from nenya.training.curves import Curves, find_name, load_curves, picture_file, redraw
from nenya.training.ledger import Pass

NAME = "SimCLR_resnet18_trial_0"
NAN = float("nan")


def one_pass(*losses):
    """A pass over batches of one sample."""
    running = [float(np.mean(losses[: end + 1])) for end in range(len(losses))]
    return Pass(step_losses=list(losses), running_averages=running, num_batches=len(losses))


def figures(value):
    return Health(12, value, value + 0.1, 1 / 12, 0.5, -2.0 - value, 5 + value, 0.8, 3 + value, 0.7)


def make_curves(valid=True):
    """Three epochs of two batches; validated after the second, with the health of the untrained network."""
    curves = Curves()
    for epoch in (1, 2, 3):
        curves.train.add(epoch, one_pass(4.0 / epoch, 3.0 / epoch))
    if valid:
        curves.health[0] = figures(0.1)
        curves.valid.add(2, one_pass(3.5, 2.5, 1.5))
        curves.health[2] = figures(0.4)
    return curves


@pytest.fixture
def undrawn(monkeypatch):
    """Draw no picture: it takes most of the time."""
    monkeypatch.setattr("nenya.training.curves.draw", lambda *_: None)


def files(folder):
    return sorted(path.name for path in (folder / "learning_curve").iterdir())


@pytest.mark.parametrize(
    ("part", "loss", "steps", "running"),
    [
        ("train", [3.5, 1.75, 3.5 / 3], [4, 3, 2, 1.5, 4 / 3, 1], [4, 3.5, 2, 1.75, 4 / 3, 3.5 / 3]),
        ("valid", [2.5], [3.5, 2.5, 1.5], [3.5, 3.0, 2.5]),
    ],
)
def test_the_files_hold_the_promised_datasets(tmp_path, undrawn, part, loss, steps, running):
    make_curves().save(tmp_path, NAME)
    with h5py.File(tmp_path / "learning_curve" / f"{NAME}_losses_{part}.h5") as file:
        assert {f"loss_{part}", f"loss_step_{part}", f"loss_avg_{part}"} <= set(file)
        assert file[f"loss_{part}"][...].tolist() == pytest.approx(loss, rel=1e-15)
        assert file[f"loss_step_{part}"][...].tolist() == pytest.approx(steps, rel=1e-15)
        assert file[f"loss_avg_{part}"][...].tolist() == pytest.approx(running, rel=1e-15)


@pytest.mark.parametrize("valid", [True, False])
def test_what_is_saved_is_read_back(tmp_path, undrawn, valid):
    curves = make_curves(valid)
    curves.save(tmp_path, NAME)
    assert load_curves(tmp_path, NAME) == curves


def test_a_folder_without_curves_gives_empty_ones(tmp_path):
    assert load_curves(tmp_path, NAME) == Curves()


losses = st.lists(st.floats(0, 9), min_size=1, max_size=4)


@given(st.lists(losses, max_size=6), st.integers(0, 7))
def test_until_an_epoch_is_what_was_recorded_by_then(passes, last):
    whole, part = Curves(), Curves()
    for epoch, values in enumerate(passes, start=1):
        for curves in (whole, part):
            if curves is whole or epoch <= last:
                curves.train.add(epoch, one_pass(*values))
                if epoch % 2 == 0:
                    curves.valid.add(epoch, one_pass(*values[::-1]))
                    curves.health[epoch] = figures(values[0])
    assert whole.until(last) == part


def test_until_leaves_the_curves_themselves_alone():
    curves = make_curves()
    curves.until(1).train.add(2, one_pass(9.0))
    assert curves == make_curves()


def ink(path):
    """The picture [H, W, 3] and the share of its pixels that are neither white nor grey."""
    picture = imread(path)[:, :, :3]
    return picture, float((np.ptp(picture, axis=2) > 0.2).mean())


@pytest.mark.parametrize("valid", [True, False])
def test_the_picture_shows_the_curves(tmp_path, valid):
    make_curves(valid).save(tmp_path, NAME)
    path = picture_file(tmp_path, NAME)
    picture, coloured = ink(path)
    assert min(picture.shape[:2]) > 300
    assert coloured > 0.001  # thin coloured lines on white
    path.unlink()
    assert redraw(tmp_path) == path
    assert np.array_equal(ink(path)[0], picture)
    other = make_curves(valid)
    other.train.loss[1] += 1
    other.save(tmp_path, NAME)
    assert not np.array_equal(ink(path)[0], picture)


def test_files_and_panels_come_in_with_the_first_validation(tmp_path):
    make_curves(valid=False).save(tmp_path, NAME)
    assert files(tmp_path) == [f"{NAME}_curves.png", f"{NAME}_losses_train.h5"]
    small = ink(picture_file(tmp_path, NAME))[0].shape
    make_curves().save(tmp_path, NAME)
    expected = ["curves.png", "health_valid.h5", "losses_train.h5", "losses_valid.h5"]
    assert files(tmp_path) == [f"{NAME}_{name}" for name in expected]
    large = ink(picture_file(tmp_path, NAME))[0].shape
    assert large[0] > small[0]  # four panels instead of one
    assert large[1] > small[1]


def test_redrawing_without_curves_is_an_error_that_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"holds no learning curves; expected .*learning_curve/<model_name>"):
        redraw(tmp_path)
    with pytest.raises(DataError, match="holds no learning curves"):
        find_name(tmp_path / "not there")


def test_a_run_in_its_first_epoch_has_curves_to_draw(tmp_path, undrawn):
    Curves(health={0: figures(0.1)}).save(tmp_path, NAME)  # of the untrained network
    assert find_name(tmp_path) == NAME
    assert redraw(tmp_path) == picture_file(tmp_path, NAME)


def test_figures_that_an_older_version_did_not_measure_are_nan(tmp_path, undrawn):
    make_curves().save(tmp_path, NAME)
    path = tmp_path / "learning_curve" / f"{NAME}_health_valid.h5"
    with h5py.File(path, "r") as file:
        columns = {name: file[name][...] for name in file if name != "spread_z"}
    with h5py.File(path, "w") as file:
        file.update(columns)
    loaded = load_curves(tmp_path, NAME).health
    assert {epoch: found.effective_rank for epoch, found in loaded.items()} == {0: 5.1, 2: 5.4}
    assert all(np.isnan(found.spread_z) for found in loaded.values())


def test_curves_that_cannot_be_drawn_are_the_users_to_look_at(tmp_path):
    curves = Curves()
    curves.train.add(1, one_pass(1e308, -1e308))
    curves.save(tmp_path, NAME)  # a warning only
    with pytest.raises(NenyaError, match=r"cannot draw .*curves\.png: ValueError: .* absurd values"):
        redraw(tmp_path)


def test_curves_of_several_runs_in_one_folder_are_an_error_that_names_them(tmp_path, undrawn):
    make_curves(valid=False).save(tmp_path, "b")
    assert find_name(tmp_path) == "b"
    make_curves(valid=False).save(tmp_path, "a")
    with pytest.raises(DataError, match=r"curves of several runs \(a, b\)"):
        find_name(tmp_path)


@pytest.mark.parametrize("what", ["losses_train", "losses_valid", "health_valid"])
@pytest.mark.parametrize("damage", ["empty", "text", "half", "no datasets"])
def test_a_damaged_file_is_named(tmp_path, undrawn, what, damage):
    make_curves().save(tmp_path, NAME)
    path = tmp_path / "learning_curve" / f"{NAME}_{what}.h5"
    content = path.read_bytes()
    if damage == "no datasets":
        with h5py.File(path, "w"):
            pass
    else:
        path.write_bytes({"empty": b"", "text": b"epoch,loss\n", "half": content[: len(content) // 2]}[damage])
    with pytest.raises(DataError, match=rf"{what}\.h5: the .* cannot be read"):
        load_curves(tmp_path, NAME)


def curve_file(folder, what):
    return folder / "learning_curve" / f"{NAME}_{what}.h5"


def test_every_dataset_has_a_checksum(tmp_path, undrawn):
    make_curves().save(tmp_path, NAME)
    for what in ("losses_train", "losses_valid", "health_valid"):
        with h5py.File(curve_file(tmp_path, what)) as file:
            assert len(file) >= 5
            assert all(dataset.fletcher32 for dataset in file.values())


@pytest.mark.parametrize("what", ["losses_train", "health_valid"])
def test_no_byte_of_a_file_can_change_unnoticed(tmp_path, undrawn, what):
    make_curves().save(tmp_path, NAME)
    path = curve_file(tmp_path, what)
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match=r"its checksum is (wrong|missing)"):
            load_curves(tmp_path, NAME)
    path.write_bytes(content)
    assert load_curves(tmp_path, NAME) == make_curves()


def test_a_file_without_its_seal_is_not_taken_for_an_old_one(tmp_path, undrawn):
    make_curves().save(tmp_path, NAME)
    path = curve_file(tmp_path, "losses_train")
    for more in (-1, -40, -73, -74):
        content = path.read_bytes()
        path.write_bytes(content[:more])
        with pytest.raises(DataError, match="cannot be read"):
            load_curves(tmp_path, NAME)
        path.write_bytes(content)


@pytest.mark.parametrize("numbered", [True, False], ids=["of an earlier version", "historical"])
def test_files_without_checksums_are_read(tmp_path, undrawn, numbered):
    curves = make_curves()
    curves.save(tmp_path, NAME)
    for what in ("losses_train", "losses_valid", "health_valid"):
        with h5py.File(curve_file(tmp_path, what)) as file:
            columns = {name: dataset[...] for name, dataset in file.items()}
        with h5py.File(curve_file(tmp_path, what), "w") as file:
            for name, column in columns.items():
                if numbered or "loss" not in what or not name.startswith("epoch"):
                    file.create_dataset(name, data=column)
    found = load_curves(tmp_path, NAME)
    if not numbered:  # counted from 1, without gaps
        assert found.valid.epochs == [1]
        found.valid.epochs, found.valid.step_epochs = curves.valid.epochs, curves.valid.step_epochs
    assert found == curves


@pytest.mark.parametrize("epochs", [[1, 3, 2], [0, 1, 2], [1, 1, 2], [-1, 1, 2], [1.0, 1.5, 2.0], [1.0, 2.0, NAN]])
@pytest.mark.parametrize("what", ["losses_train", "health_valid"])
def test_epochs_that_no_run_counts_are_refused(tmp_path, undrawn, what, epochs):
    curves = make_curves()
    curves.health = {epoch: figures(0.1) for epoch in range(3)}
    curves.save(tmp_path, NAME)
    path = tmp_path / "learning_curve" / f"{NAME}_{what}.h5"
    with h5py.File(path, "r") as file:
        columns = {name: dataset[...] for name, dataset in file.items()}
    if what == "losses_train":
        columns |= {"epoch_train": np.array(epochs), "epoch_step_train": np.repeat(epochs, 2)}
    else:
        columns["epoch"] = np.array(epochs)
    with h5py.File(path, "w") as file:  # without checksums, as earlier versions wrote it
        for name, column in columns.items():
            file[name] = column
    if what == "health_valid" and epochs == [0, 1, 2]:
        assert load_curves(tmp_path, NAME) == curves  # 0 is the untrained network
        return
    with pytest.raises(DataError, match=r"its epochs are not whole numbers that rise from \d on"):
        load_curves(tmp_path, NAME)


@pytest.mark.parametrize(
    "error", [MemoryError(), OverflowError("too large"), SystemError("NULL"), AssertionError(), UnicodeError("x"),
              RecursionError(), IndexError("x"), EOFError(), ZeroDivisionError("x"), NotImplementedError("x")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_hdf5_raises_is_a_damaged_file(tmp_path, undrawn, monkeypatch, error):
    make_curves().save(tmp_path, NAME)

    def fail(*args):
        raise error

    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    with pytest.raises(DataError, match=rf"losses_train\.h5: .* cannot be read: {str(error) or type(error).__name__}"):
        load_curves(tmp_path, NAME)


def rewritten(path, make):
    """A file of curves without checksums, whose first dataset is made in another way."""
    with h5py.File(path) as file:
        columns = {name: dataset[...] for name, dataset in file.items()}
    with h5py.File(path, "w") as file:
        column = columns.pop("loss_train")
        for name, values in columns.items():
            file[name] = values
        make(file, column)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda file, column: file.create_dataset("loss_train", (10**12,), "f8", chunks=(1000,)),
            "more than the file holds",
        ),
        (lambda file, column: file.create_dataset("loss_train", (10**12,), "f8"), "more than the file holds"),
        (
            lambda file, column: file.create_dataset("loss_train", (3,), "f8", maxshape=(None,), chunks=(10**8,)),
            "more than",
        ),
        (lambda file, column: file.create_dataset("loss_train", data=column, compression="gzip"), "is compressed"),
        (lambda file, column: file.create_dataset("loss_train", data=column[None]), "of shape"),
        (lambda file, column: file.create_dataset("loss_train", data=["a", "b", "c"]), "expected numbers"),
        (lambda file, column: file.create_dataset("loss_train", data=h5py.Empty("f8")), "expected numbers"),
        (lambda file, column: file.create_group("loss_train"), "cannot be read"),
        (lambda file, column: file.__setitem__("loss_train", h5py.ExternalLink("pipe", "x")), "lies in another file"),
        (lambda file, column: file.__setitem__("loss_train", h5py.SoftLink("/nowhere")), "cannot be read"),
    ],
    ids=["chunked", "unwritten", "chunk", "gzip", "2-D", "text", "empty", "group", "external link", "dangling link"],
)
def test_a_file_that_asks_for_more_than_it_holds_is_refused(tmp_path, undrawn, make, message):
    make_curves().save(tmp_path, NAME)
    os.mkfifo(tmp_path / "learning_curve" / "pipe")
    rewritten(curve_file(tmp_path, "losses_train"), make)
    with pytest.raises(DataError, match=rf"losses_train\.h5: .*{message}"):
        load_curves(tmp_path, NAME)


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link"])
def test_what_is_no_file_is_no_empty_curve(tmp_path, undrawn, kind):
    make_curves().save(tmp_path, NAME)
    path = curve_file(tmp_path, "losses_valid")
    path.unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "dangling link": lambda path: path.symlink_to("nowhere")}[kind](path)
    with pytest.raises(DataError, match="not an ordinary file"):
        load_curves(tmp_path, NAME)


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "learning_curve").touch()
    with pytest.raises(DataError, match="learning_curve is not a folder"):
        load_curves(tmp_path, NAME)


def test_curves_that_cannot_be_written_are_an_error(tmp_path):
    (tmp_path / "learning_curve").touch()
    with pytest.raises(NenyaError, match="cannot write"):
        make_curves().save(tmp_path, NAME)


FULL_DISK = """
import resource, signal, sys
from nenya.errors import NenyaError
from nenya.training.curves import Curves
from nenya.training.ledger import Pass

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
curves = Curves()
curves.train.add(1, Pass([1.0] * 2000, [1.0] * 2000, 2000))
for limit in (0, 100, 3000, 20_000):  # the file has some 60 kB
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        curves.save(sys.argv[1], sys.argv[2])
    except NenyaError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE there")
def test_a_full_disk_leaves_the_curves_whole_and_is_said(tmp_path, undrawn):
    """The HDF5 library itself ends the process there (h5py 3: segmentation fault when the file is closed)."""
    make_curves(valid=False).save(tmp_path, NAME)
    before = files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), NAME],
        env=os.environ | {"PYTHONPATH": str(Path(nenya.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("NenyaError cannot write ") for line in lines)
    assert files(tmp_path) == before
    assert load_curves(tmp_path, NAME) == make_curves(valid=False)
