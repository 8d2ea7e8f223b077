"""The exported folder: what is in it, that it loads to the bit, what is refused, and that nothing is half written."""

import json
import os
import re
import shutil
import sys

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from nenya.data.datasets import shape_in
from nenya.errors import CheckpointError, DataError, NenyaError, OptionError
from nenya.export import export_model, load_export
from nenya.export import graph as export_graph
from nenya.export import run as export_run
from nenya.models.reading import load_model
from nenya.params import Params
from nenya.train import run as train_run
from tests.export.conftest import trained
from tests.training.test_checkpoint import OLD_CLASSES, write_old


def export(path, folder, **options):
    return export_model(path, folder, **({"onnx": False} | options))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def quick_onnx(monkeypatch):
    """A placeholder for the file for other programs, which takes seconds to make and has its own tests."""
    monkeypatch.setattr(export_graph, "onnx_bytes", lambda network, meanings, about: b"onnx")
    agreed = export_run.Agreement({"h": 1e-6, "z": 1e-7}, {"h": 1e-5, "z": 1e-6}, {"h": 1.0, "z": 0.5}, "made cutouts")
    monkeypatch.setattr(export_run.agreement, "compare", lambda content, network, opt, samples: agreed)


# What is in it


@pytest.mark.parametrize(("name", "head", "channels"), [
    ("resnet18", "mlp", 1), ("resnet18", "linear", 3), ("resnet50", "mlp", 5), ("resnet34", "linear", 2),
])  # fmt: skip
def test_the_model_comes_back_to_the_bit(checkpoint, tmp_path, name, head, channels):
    model, path = checkpoint(trained(name, head, channels), ssl_model=name, head=head)
    done = export(path, tmp_path / "out")
    loaded, options = load_export(tmp_path / "out")
    assert not loaded.training
    weights = model.state_dict()
    assert list(loaded.state_dict()) == list(weights)
    for name_, value in loaded.state_dict().items():
        assert value.dtype == weights[name_].dtype
        assert torch.equal(value, weights[name_])
    images = torch.randn(3, channels, 11, 9)
    as_checkpoint, _ = load_model(path)
    assert [type(module) for module in loaded.modules()] == [type(module) for module in as_checkpoint.modules()]
    with torch.no_grad():
        assert torch.equal(loaded(images), as_checkpoint(images))
    opt = Params.from_dict(options)
    assert (opt.head, opt.feat_dim, opt.ssl_model) == (head, 6, name)
    assert done.files == ("README.md", "config.json", "model.safetensors")
    stored = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")  # as anybody reads it
    assert stored.keys() == weights.keys()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dotted", OLD_CLASSES)
def test_historical_checkpoints_are_exported(narrow, tmp_path, dotted, zipped):
    modis = "/home/jane/modis.h5" if zipped else "C:\\Users\\jane\\modis.h5"
    model = trained(channels=3)
    weights = {name.replace("encoder.", "encoder.module."): value for name, value in model.state_dict().items()}
    opt = {"model": "resnet18", "temp": 0.07, "random_cropjitter": [5, 5], "modis_file": modis,
           "s3_outdir": "s3://secret/", "model_root": "/home/jane/models", "feat_dim": 128}  # fmt: skip
    write_old(tmp_path / "old.pth", dotted, {"opt": opt, "model": weights, "epoch": 10}, zipped=zipped)
    export(tmp_path / "old.pth", tmp_path / "out")
    loaded, options = load_export(tmp_path / "out")
    assert all(torch.equal(value, weights[name.replace("encoder.", "encoder.module.")])
               for name, value in loaded.state_dict().items())  # fmt: skip
    assert options["random_jitter"] == [5, 5]
    assert options["feat_dim"] == 6  # what the weights have
    assert options["images_file"] == "modis.h5"
    everything = b"".join(contents(tmp_path / "out").values())
    assert not any(word in everything for word in (b"jane", b"secret", str(tmp_path).encode()))


def test_weights_of_half_precision_are_exported_as_they_are_used(narrow, tmp_path):
    state = {
        name: value.half() if value.is_floating_point() else value for name, value in trained().state_dict().items()
    }
    torch.save({"model": state, "opt": {"ssl_model": "resnet18"}}, tmp_path / "a.pth")
    export(tmp_path / "a.pth", tmp_path / "out")
    expected, _ = load_model(tmp_path / "a.pth")
    loaded, _ = load_export(tmp_path / "out")
    assert all(map(torch.equal, loaded.state_dict().values(), expected.state_dict().values()))


def test_a_run_tells_its_data_figures_and_unit(tiny, image_file, tmp_path, quick_onnx):
    with h5py.File(image_file, "a") as file:
        file["train"].attrs["units"] = "degree_C | `x`\x1b[2J"
    state = train_run(tiny())
    done = export_model(state.folder, tmp_path / "out", licence="CC-BY-4.0")
    assert done.files == ("README.md", "config.json", "model.onnx", "model.safetensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["checkpoint"]["data"] == state.data["training"]
    assert shape_in(state.data["training"]) == shape_in(state.data["validation"]) == (1, 16, 16)
    assert config["checkpoint"]["epoch"] == 2
    assert config["input"] == {
        "channels": 1, "height": 16, "width": 16, "dtype": "float32", "unit": "degree_C | `x`\\x1b[2J", "gaps": "NaN",
    }  # fmt: skip
    assert config["preprocessing"]["window"] == {"top": 0, "left": 0, "height": 16, "width": 16}
    assert config["preprocessing"]["size"] == [8, 8]
    assert config["licence"] == "CC-BY-4.0"
    assert config["agreement"]["largest_difference"] == {"h": 1e-6, "z": 1e-7}
    card = (tmp_path / "out" / "README.md").read_text()
    health = state.curves.health
    for text in (
        'license: "CC-BY-4.0"', "for 2 epochs", "`cutouts.h5`",
        f"| training loss | {state.curves.train.loss[-1]:.4f} |",
        f"{health[2].retrieval_top1:.3f} | {health[0].retrieval_top1:.3f}", f"(chance {1 / 12:.4f})",
        "[B, 1, 16, 16]", "largest difference to torch 1e-06 in h", "| `image_size` | `8` |",
    ):  # fmt: skip
        assert text in card
    assert "\x1b" not in card
    assert str(tmp_path) not in card


def test_figures_are_those_of_the_epoch_that_is_exported(tiny, tmp_path):
    state = train_run(tiny())
    export(state.folder / "ckpt_epoch_1.pth", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| training loss | {state.curves.train.loss[0]:.4f} |" in card
    assert "after epoch 1." in card


@pytest.mark.parametrize("damaged", [True, False])
def test_without_curves_the_card_says_so(checkpoint, tmp_path, caplog, damaged):
    _, path = checkpoint(model_name="mine")
    if damaged:
        (path.parent / "learning_curve").mkdir()
        (path.parent / "learning_curve" / "mine_losses_train.h5").write_bytes(b"no HDF5")
    export(path, tmp_path / "out")
    assert "No learning curves" in (tmp_path / "out" / "README.md").read_text()
    assert ("cannot be read" in caplog.text) == damaged


def test_a_card_without_licence_says_that_none_is_stated(checkpoint, tmp_path):
    export(checkpoint()[1], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "unknown"' in card
    assert "None is stated" in card


def test_the_python_of_the_card_runs(shallow, checkpoint, cutout_file, tmp_path, monkeypatch):
    cutout_file()
    done = export_model(checkpoint(random_jitter=[2, 1])[1], tmp_path / "out", onnx=True)
    monkeypatch.chdir(done.folder)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (done.folder / "README.md").read_text(), flags=re.DOTALL):
        exec(block, names)
    assert names["h"].shape == (2, 64)
    assert np.allclose(np.linalg.norm(names["z"], axis=1), 1, atol=1e-5)
    # the same input gives the same files
    before = contents(done.folder)
    export_model(tmp_path / "run", tmp_path / "out")
    assert contents(done.folder) == before


def test_a_name_from_a_foreign_checkpoint_stays_text(checkpoint, tmp_path):
    _, path = checkpoint(model_name="<script>|`a`](x)", train_key="a`|b")
    export(path, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", card.replace("\\<", ""))
    assert all(line.count("|") - line.count("\\|") == 3 for line in card.splitlines() if line.startswith("| training"))


# What is needed


def test_without_the_extra_the_rest_is_written_and_it_is_told(checkpoint, cutout_file, tmp_path, monkeypatch, caplog):
    cutout_file()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(export_graph.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    _, path = checkpoint()
    done = export_model(path, tmp_path / "out")
    assert "model.onnx" not in done.files
    assert done.agreement is None
    assert "model.onnx is left out, since onnxscript are missing: pip install 'nenya[onnx]'" in caplog.text
    load_export(tmp_path / "out")
    with pytest.raises(OptionError, match=r"model\.onnx needs onnxscript: pip install 'nenya\[onnx\]'"):
        export_model(path, tmp_path / "other", onnx=True)
    assert not (tmp_path / "other").exists()


def test_packages_that_do_not_fit_torch_are_told(checkpoint, tmp_path, monkeypatch):
    """As an onnxscript that is older than torch raises it."""

    def export(*arguments, **options):
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_2_11'")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(OptionError, match=r"torch .* cannot use .*torch_2_11'\): pip install --upgrade onnxscript"):
        export_model(checkpoint()[1], tmp_path / "out", shape=(1, 8, 8))
    assert not (tmp_path / "out").exists()


def test_where_the_cutouts_are_is_found_or_asked_for(checkpoint, cutout_file, tmp_path, quick_onnx, caplog):
    _, path = checkpoint(data_folder=str(tmp_path / "elsewhere"), images_file="cutouts.h5")
    with pytest.raises(CheckpointError, match="--cutouts FILE, or the shape with --shape CxHxW"):
        export_model(path, tmp_path / "out")
    assert "cutouts.h5 is not there: made cutouts are taken" in caplog.text
    assert not (tmp_path / "out").exists()
    export(path, tmp_path / "out")  # without model.onnx the shape need not be known
    assert json.loads((tmp_path / "out" / "config.json").read_text())["input"] is None
    assert "shape of the cutouts is not known" in (tmp_path / "out" / "README.md").read_text()
    cutout_file()
    for given in ({"cutouts": tmp_path / "cutouts.h5"}, {"shape": (1, 17, 13)}):
        export_model(path, tmp_path / "out", **given)
        told = json.loads((tmp_path / "out" / "config.json").read_text())["input"]
        assert (told["channels"], told["height"], told["width"]) == (1, 17, 13)
        assert told["unit"] == ("K" if "cutouts" in given else None)
    with pytest.raises(OptionError, match="leave the shape out"):
        export_model(path, tmp_path / "out", cutouts=tmp_path / "cutouts.h5", shape=(1, 17, 13))
    with pytest.raises(DataError, match=r"none\.h5"):
        export_model(path, tmp_path / "out", cutouts=tmp_path / "none.h5")


def test_the_shape_that_the_checkpoint_tells_is_taken_and_others_are_refused(
    checkpoint, cutout_file, tmp_path, quick_onnx
):
    _, path = checkpoint(data="24 usable cutouts of (24, 1, 16, 16) float32, checksum 0a0b0c0d")
    done = export_model(path, tmp_path / "out")
    assert json.loads((done.folder / "config.json").read_text())["input"]["height"] == 16
    before = contents(tmp_path / "out")
    cutout_file((20, 1, 17, 13))
    message = r"trained on cutouts of 1 x 16 x 16 \(C x H x W\), but .*cutouts\.h5 has 1 x 17 x 13"
    with pytest.raises(DataError, match=message):
        export_model(path, tmp_path / "out")
    with pytest.raises(DataError, match="the shape given has 3 x 16 x 16"):
        export_model(path, tmp_path / "out", shape=(3, 16, 16))
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("stem", "given", "fits"), [(1, 3, True), (3, 1, True), (1, 2, False), (2, 1, False), (2, 2, True)]
)
def test_channels_must_be_those_of_the_network(checkpoint, tmp_path, quick_onnx, stem, given, fits):
    _, path = checkpoint(trained(channels=stem))
    if fits:
        export_model(path, tmp_path / "out", shape=(given, 16, 16))
    else:
        with pytest.raises(DataError, match=f"have {given} channels, but the network takes"):
            export_model(path, tmp_path / "out", shape=(given, 16, 16))


def test_a_crop_that_does_not_fit_is_refused(checkpoint, tmp_path, quick_onnx):
    _, path = checkpoint(random_jitter=[40, 2])
    with pytest.raises(DataError, match="a window of 40 pixels is larger"):
        export_model(path, tmp_path / "out", shape=(1, 16, 16))


def test_a_folder_of_runs_is_told_from_that_of_one(checkpoint, tmp_path):
    checkpoint()
    with pytest.raises(CheckpointError, match=r"holds no checkpoint .*there is one in run in it"):
        export(tmp_path, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        export(tmp_path / "none.pth", tmp_path / "out")
    (tmp_path / "bad.pth").write_bytes(b"epoch,loss\n")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        export(tmp_path / "bad.pth", tmp_path / "out")
    torch.save({"model": trained().state_dict(), "opt": {"ssl_model": "resnet18", "temp": -1}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: the options in it cannot be used.*"):
        export(tmp_path / "odd.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("licence", ["", "a\nb", 'MIT"\n---', "x" * 101, "<b>"])
def test_a_licence_that_is_no_identifier_is_refused(checkpoint, tmp_path, licence):
    with pytest.raises(OptionError, match="expected an SPDX identifier"):
        export(checkpoint()[1], tmp_path / "out", licence=licence)


# Where it is written


def test_an_export_is_replaced_and_nothing_else_is(checkpoint, tmp_path):
    _, path = checkpoint()
    export(path, tmp_path / "out")
    first = contents(tmp_path / "out")
    export(path, tmp_path / "out", licence="MIT")
    assert contents(tmp_path / "out")["config.json"] != first["config.json"]
    for name, text in (("README.md", "my own words"), ("notes.txt", "mine"), ("model.onnx", "mine")):
        shutil.copytree(tmp_path / "out", tmp_path / "changed")
        (tmp_path / "changed" / name).write_text(text)
        before = contents(tmp_path / "changed")
        with pytest.raises(NenyaError, match=f"not written over: .*{name}"):
            export(path, tmp_path / "changed")
        assert contents(tmp_path / "changed") == before
        shutil.rmtree(tmp_path / "changed")
    (tmp_path / "out" / "sub").mkdir()
    with pytest.raises(NenyaError, match="it also holds sub"):
        export(path, tmp_path / "out")
    with pytest.raises(NenyaError, match="not written over: it is not a folder that `nenya export` wrote"):
        export(path, path.parent)
    with pytest.raises(NenyaError, match="not written over: it is not a folder"):
        export(path, path)
    assert load_model(path)


def test_a_full_disk_leaves_nothing_and_is_told(checkpoint, tmp_path, monkeypatch):
    _, path = checkpoint()
    write = type(path).write_bytes

    def full(self, content):
        if self.name == "README.md":
            raise OSError(28, os.strerror(28))
        return write(self, content)

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(NenyaError, match=r"cannot write .*out: No space left on device"):
        export(path, tmp_path / "out")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["run"]


# Reading it


def test_a_damaged_folder_is_told_by_what_is_wrong(checkpoint, tmp_path):
    export(checkpoint()[1], tmp_path / "out")
    good = contents(tmp_path / "out")
    weights, config = good["model.safetensors"], json.loads(good["config.json"])
    flipped = bytearray(weights)
    flipped[-5] ^= 1
    for name, content, message in (
        ("model.safetensors", bytes(flipped), "is not the file that config.json beside it tells of"),
        ("model.safetensors", weights[:-100], "is not the file"),
        ("model.safetensors", None, "cannot be read: No such file"),
        ("config.json", None, "is no exported model: config.json cannot be read"),
        ("config.json", good["config.json"][:-50], "is no JSON"),
        ("config.json", b"[" * 10**6, "is no JSON"),
        ("config.json", b"\xff\xfe", "is no JSON"),
        ("config.json", b"[]", "is of no exported model"),
        ("config.json", b'{"model_type": "bert"}', "is of no exported model"),
        ("config.json", json.dumps(config | {"format": "nenya export 2"}).encode(), "that this version can read"),
        ("config.json", json.dumps(config | {"files": []}).encode(), "is damaged"),
        ("config.json", json.dumps(config | {"architecture": {"backbone": "x"}}).encode(), "is damaged"),
        ("config.json", json.dumps(config | {"architecture": {"backbone": ["resnet18"]}}).encode(), "is damaged"),
        ("config.json", json.dumps(config | {"architecture": {"backbone": "resnet50"}}).encode(), "not those of"),
    ):  # fmt: skip
        if content is None:
            (tmp_path / "out" / name).unlink()
        else:
            (tmp_path / "out" / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            load_export(tmp_path / "out")
        (tmp_path / "out" / name).write_bytes(good[name])
    load_export(tmp_path / "out")
    with pytest.raises(CheckpointError, match="is no exported model"):
        load_export(tmp_path / "none")


def test_weights_that_fit_their_digest_and_are_none_are_refused(checkpoint, tmp_path):
    export(checkpoint()[1], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    good = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    for content, message in (
        (b"no weights", "is no file of weights"),
        ((2**60).to_bytes(8, "little") + b"{}", "is no file of weights"),
        (safetensors.torch.save({}), "head"),
        (safetensors.torch.save(good | {"encoder.conv1.weight": torch.full((8, 3, 3, 3), np.nan)}), "not finite"),
        (safetensors.torch.save(good | {"more": torch.ones(1)}), "more"),
    ):
        (tmp_path / "out" / "model.safetensors").write_bytes(content)
        config["files"]["model.safetensors"] = export_run.digest_of(content)
        (tmp_path / "out" / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            load_export(tmp_path / "out")


# The command


def test_the_command_tells_where_to_and_how_well_it_agrees(nenya, checkpoint, cutout_file, tmp_path, quick_onnx):
    cutout_file()
    _, path = checkpoint()
    code, out, _ = nenya("export", path.parent, "--to", tmp_path / "out", "--license", "MIT")
    assert code == 0
    *files, agreement = out.splitlines()
    names = ("README.md", "config.json", "model.onnx", "model.safetensors")
    assert files == [str(tmp_path / "out" / name) for name in names]
    assert agreement.startswith("model.onnx: largest difference to torch 1e-06 in h (allowed 1e-05, values up to 1)")
    code, out, _ = nenya("export", path, "--to", tmp_path / "plain", "--no-onnx", "--shape", "1x17x13")
    assert (code, "model.onnx" in out) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.pth", "--to", "out"], "no checkpoint at"),
        (["{}", "--to", "out", "--shape", "64"], "expected channels, height and width"),
        (["{}", "--to", "out", "--shape", "0x64x64"], "expected channels, height and width"),
        (["{}", "--to", "out", "--licence", "my/own"], "expected an SPDX identifier"),
        (["{}", "--to", "out"], "does not tell of what shape"),
        (["{}", "--to", "{}"], "not written over"),
        (["{}"], "--to"),
    ],
)
def test_a_mistake_is_one_message(nenya, checkpoint, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    _, path = checkpoint()
    code, out, err = nenya("export", *(argument.format(path) for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
