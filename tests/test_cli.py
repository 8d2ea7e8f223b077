"""The commands as a user types them: what they print, what they refuse and with which exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from nenya import demo
from nenya.cli import main
from nenya.latents.store import Latents


def files_below(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return str(path)


def test_train_with_replaced_options(nenya, tiny_file, tmp_path):
    code, _, _ = nenya("train", tiny_file(), "--set", "epochs=1", "feat_dim=8", "--set", "trial=mine")
    assert code == 0
    (options,) = (tmp_path / "models").glob("*trial_mine*/options.json")
    assert json.loads(options.read_text())["epochs"] == 1
    assert json.loads(options.read_text())["feat_dim"] == 8


def test_check_says_what_would_run_and_writes_nothing(nenya, tiny_file, tmp_path):
    options = tiny_file()
    before = files_below(tmp_path)
    code, out, _ = nenya("check", options)
    assert code == 0
    for words in ("24 cutouts of 1 x 16 x 16 float32", "3 batches of 8", "8 x 8 px", "memory", "last.pth", "at random"):
        assert words in out
    assert files_below(tmp_path) == before
    assert not (tmp_path / "models").exists()


def test_options_plot_version_and_help(nenya, tiny_file, tmp_path):
    code, out, _ = nenya("options", "temp")
    assert code == 0
    assert "temp = 0.07" in out
    assert nenya("train", tiny_file(epochs=1))[0] == 0
    (folder,) = (tmp_path / "models").iterdir()
    picture = folder / "learning_curve" / f"{folder.name}_curves.png"
    picture.unlink()
    code, out, _ = nenya("plot", folder)
    assert code == 0
    assert out.strip() == str(picture)
    assert picture.is_file()
    assert nenya("--version")[1].startswith("nenya ")
    for command in ("train", "check", "options", "plot", "demo"):
        code, out, _ = nenya(command, "--help")
        assert code == 0
        assert len(out.splitlines()) > 8


NOT_OPTIONS = {
    "empty": (b"", "is empty"),
    "not JSON": (b"{epochs = 3}", "not JSON"),
    "not an object": (b"[1]", "JSON object"),
    "binary": (bytes(range(128, 200)), "UTF-8"),
}


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("kind", NOT_OPTIONS)
def test_files_that_are_no_options(nenya, tmp_path, command, kind):
    content, says = NOT_OPTIONS[kind]
    path = tmp_path / "opts.json"
    path.write_bytes(content)
    refused(nenya(command, path), says)


@pytest.mark.parametrize("command", ["train", "check"])
def test_no_options_file_or_a_folder(nenya, tmp_path, command):
    refused(nenya(command, tmp_path / "nowhere.json"), "no options file")
    refused(nenya(command, tmp_path), "is a folder")


def refused(answer, says):
    code, out, err = answer
    assert code == 2, (out, err)
    assert says in err
    assert "Traceback" not in err


BAD_OPTIONS = {
    "temperature": ({"temp": 0}, "temp: found 0, expected a number > 0"),
    "backbone": ({"ssl_model": "resnet19"}, 'did you mean "resnet18"?'),
    "method": ({"ssl_method": "MoCo"}, "ssl_method: found"),
    "odd milestones": ({"lr_decay_epochs": "10, x"}, "lr_decay_epochs: found"),
    "no milestones": ({"lr_decay_epochs": ""}, "lr_decay_epochs: found"),
    "shift too large": ({"random_jitter": [5, 1000]}, "leads out of cutouts"),
    "absurd size": ({"image_size": 10**12}, "image_size: found"),
    "crop too large": ({"random_jitter": [17, 0]}, "larger than the cutouts of 16 x 16"),
    "missing key": ({"train_key": "trian"}, "The file holds: train (24, 1, 16, 16)"),
    "missing file": ({"images_file": "nowhere.h5"}, "no image file at"),
    "channels": ({"nchannels": 3}, "nchannels is 3"),
    "SupCon without labels": ({"ssl_method": "SupCon", "label_key": "classes"}, "'classes' for the labels"),
}


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_mistakes_in_the_options(nenya, tiny_file, tmp_path, command, kind):
    options, says = BAD_OPTIONS[kind]
    refused(nenya(command, tiny_file(**options)), says)
    assert not list(tmp_path.rglob("*.pth"))


BAD_IMAGERY = {
    "other channels for validation": (
        {"train": np.zeros((4, 8, 8)), "valid": np.zeros((4, 2, 8, 8))},
        "'train' has 1 channels, but 'valid' has 2",
    ),
    "negative labels": (
        {"train": np.zeros((4, 8, 8)), "train_labels": np.array([0, 1, -1, -1])},
        "2 of them are negative",
    ),
    "multispectral channels last": ({"train": np.zeros((4, 32, 32, 12))}, "move the channels forward"),
    "wrong rank": ({"train": np.zeros((4, 8))}, "expected [N, H, W] or [N, C, H, W]"),
    "no samples": ({"train": np.zeros((0, 8, 8))}, "holds no pixels"),
    "one sample": ({"train": np.zeros((1, 8, 8))}, "needs at least 2"),
    "all nodata": ({"train": np.full((4, 8, 8), np.nan)}, "no cutout of 'train' is usable"),
    "text": ({"train": np.full((4, 8, 8), b"x")}, "expected float or integer"),
    "channels last": ({"train": np.zeros((4, 16, 16, 3))}, "move the channels forward"),
    "labels of wrong length": (
        {"train": np.zeros((4, 8, 8)), "train_labels": np.zeros(5, int)},
        "expected (4,), one for each cutout",
    ),
    "labels that are no integers": ({"train": np.zeros((4, 8, 8)), "train_labels": np.zeros(4)}, "expected integers"),
}


@pytest.mark.parametrize("command", ["train", "check"])
@pytest.mark.parametrize("kind", BAD_IMAGERY)
def test_imagery_that_does_not_serve(nenya, tiny_file, tmp_path, command, kind):
    datasets, says = BAD_IMAGERY[kind]
    path = write(tmp_path / "bad.h5", **datasets)
    method = "SupCon" if "train_labels" in datasets else "SimCLR"
    refused(nenya(command, tiny_file(images_file=path, random_jitter=0, ssl_method=method)), says)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("command", ["train", "check"])
def test_files_that_are_not_hdf5(nenya, tiny_file, tmp_path, command, image_file):
    text = tmp_path / "text.h5"
    text.write_text("temperature, 290\n")
    refused(nenya(command, tiny_file(images_file=str(text))), "not an HDF5 file")
    image_file.write_bytes(image_file.read_bytes()[:3000])
    refused(nenya(command, tiny_file()), "damaged HDF5 file")
    refused(nenya(command, tiny_file(images_file=str(tmp_path))), "is a folder")


@pytest.mark.parametrize("command", ["train", "check"])
def test_a_model_folder_that_cannot_be_made(nenya, tiny_file, tmp_path, command):
    (tmp_path / "file").write_text("in the way")
    refused(nenya(command, tiny_file(model_root=str(tmp_path / "file" / "models"))), "model_root")


def test_tensorboard_without_the_extra(nenya, tiny_file, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(nenya("train", tiny_file(tensorboard=True)), "pip install 'nenya[tensorboard]'")


def test_a_folder_without_curves(nenya, tmp_path):
    refused(nenya("plot", tmp_path), "no learning curves")


def test_an_unknown_setting(nenya, tiny_file):
    refused(nenya("train", tiny_file(), "--set", "epohcs=3"), "did you mean epochs?")
    refused(nenya("train", tiny_file(), "--set", "epochs"), "key=value")
    refused(nenya("options", "tmep"), "did you mean temp?")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train"], "Missing argument 'OPTS'. Try `nenya train --help`."),
        (["trian"], "No such command 'trian'."),
        (["train", "a.json", "b\u202e\x1b[2J\nc.json"], r"b\u202e\x1b[2J"),
        (["train", "--resum\u202ee", "a.json"], r"--resum\u202ee"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(capsys, arguments, says):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.startswith("nenya: ")
    assert len(err.splitlines()) == 1
    assert err.strip().isprintable()


def test_without_arguments_the_help_is_shown(nenya):
    code, out, err = nenya()
    assert (code, err) == (2, "")
    assert "Start with" in out


def test_a_fault_of_the_program_has_a_traceback_and_exit_code_1(nenya, tiny_file, monkeypatch):
    monkeypatch.setattr("nenya.train.run", lambda *args, **kwargs: 1 / 0)
    code, _, err = nenya("train", tiny_file())
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "please report" in err


def test_memory_that_does_not_suffice_is_the_users_to_mend(nenya, tiny_file, monkeypatch):
    def allocate(*args, **kwargs):
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9e15 bytes"
        )

    monkeypatch.setattr("nenya.train.run", allocate)
    refused(nenya("train", tiny_file()), "batch_size_train")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_nenya_and_asking_for_help_do_not_load_torch():
    assert run_python("import nenya, sys; print('torch' in sys.modules)") == "False"
    for arguments in (["--help"], ["options"], ["train", "--help"]):
        code = (
            "import sys\nfrom nenya.cli import main\n"
            f"try:\n    main({arguments})\nexcept SystemExit as e:\n    print(e.code, 'torch' in sys.modules)"
        )
        assert run_python(code).splitlines()[-1] == "0 False"


def test_python_dash_m_nenya_is_the_command():
    process = subprocess.run([sys.executable, "-m", "nenya", "--version"], capture_output=True, text=True, check=True)
    assert process.stdout.startswith("nenya ")


def test_the_demo_leaves_what_it_says(tmp_path, monkeypatch, nenya):
    monkeypatch.setattr("nenya.demo.NUM_TRAIN", 20)
    monkeypatch.setattr("nenya.demo.NUM_VALID", 15)
    monkeypatch.setattr("nenya.demo.VIEWS", 10)
    short = {"epochs": 1, "image_size": 8, "batch_size_train": 10, "on_collapse": "warn"}
    for name, value in short.items():
        monkeypatch.setitem(__import__("nenya.demo").demo.OPTIONS, name, value)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "ocean_latents.h5").write_bytes(b"of an earlier demo")
    (tmp_path / "demo" / ".ocean_latents.h5.unfinished").write_bytes(b"of one that was killed")
    code, out, err = nenya("demo", "--folder", tmp_path / "demo")
    assert code == 0, err
    for words in ("view retrieval", "learned space", "raw pixels", "`nenya evaluate` says", "label is"):
        assert words in out
    paths = dict(line.split() for line in out.split("Look at:")[1].strip().splitlines())
    assert list(paths) == [
        "neighbours",
        "search",
        "evaluation",
        "atlas",
        "latents",
        "curves",
        "model",
        "options",
        "data",
    ]
    for path in paths.values():
        assert os.path.getsize(path) > 100
    latents = Latents(paths["latents"])
    assert [latents.num_rows(key) for key in latents.keys] == [20, 15]
    figures = json.loads(Path(paths["evaluation"]).with_suffix(".json").read_text())
    assert figures["latents"][0]["views"] is not None  # the checkpoint was found without being named


def test_the_demos_neighbours_are_other_cutouts_even_where_one_is_there_twice():
    features = torch.eye(8)
    features[5] = features[2]
    found = demo._neighbours_of(np.array([2, 5, 0]), features)
    assert found.shape == (3, demo.NEIGHBOURS)
    assert found[0, 0] == 5
    assert found[1, 0] == 2
    assert 0 not in found[2]
