"""model.onnx beside torch: whole exports of networks of several kinds."""

import copy
import dataclasses
import json

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from nenya.data.images import ImageFile
from nenya.errors import CheckpointError
from nenya.export import export_model, load_export
from nenya.export import run as export_run
from nenya.export.agreement import made_samples
from nenya.export.contents import read_config
from nenya.export.preprocessing import Preprocessing, WholeNetwork
from nenya.kernels import FastConv2d
from nenya.latents.encode import encode_cutouts
from nenya.models.reading import load_model
from nenya.params import Params
from tests.export.conftest import fields, trained
from tests.training.test_checkpoint import write_old

#: Backbone, head, channels, size of the cutouts, options.
KINDS = {
    "resnet18": ("resnet18", "mlp", 1, (17, 13), {"random_jitter": [9, 2], "image_size": 8, "max_nodata": 0.4}),
    "linear": ("resnet18", "linear", 3, (15, 15), {"random_jitter": [2, 1], "demean": False, "scale": 0.01}),
}


@pytest.fixture
def exported(request, shallow, checkpoint, cutout_file, tmp_path):
    """Export one of `KINDS`; the checkpoint and what was written."""
    name, head, channels, size, options = KINDS[request.param]
    cutout_file((20, channels, *size))
    _, path = checkpoint(trained(name, head, channels), head=head, nchannels=channels, precision="fp32", **options)
    return path, export_model(path, tmp_path / "out", licence="MIT")


@pytest.mark.parametrize("exported", KINDS, indirect=True)
def test_latents_are_those_of_nenya_for_any_batch(exported, tmp_path):
    """What a program without Nenya computes of the pixels of the file is what `encode_cutouts` gives."""
    path, done = exported
    model, options = load_model(path)
    opt = Params.from_dict(options)
    images = ImageFile(tmp_path / "cutouts.h5", "train", max_nodata=opt.max_nodata, scale=opt.scale)
    expected = encode_cutouts(model, images, opt)
    with h5py.File(tmp_path / "cutouts.h5") as file:
        pixels = file["train"][:]
    session = onnxruntime.InferenceSession(done.folder / "model.onnx", providers=["CPUExecutionProvider"])
    for parts in ([20], [1, 2, 17]):
        cuts = np.split(pixels, np.cumsum(parts)[:-1])
        found = [session.run(["h", "z"], {"cutouts": cut}) for cut in cuts]
        h, z = (np.concatenate([part[place] for part in found]) for place in (0, 1))
        assert np.isnan(h).all(axis=1).tolist() == [row not in images.usable for row in range(20)]
        difference = np.abs(h[images.usable] - expected.numpy()).max()
        assert difference <= 2 * done.agreement.tolerance["h"]
        assert difference < 1e-3 * expected.std()
        with torch.no_grad():
            difference = np.abs(z[images.usable] - model.project(expected).numpy()).max()
        assert difference <= 2 * done.agreement.tolerance["z"] < 0.01
    # nothing of this machine is in it, and what goes in and out is told
    proto = onnx.load(done.folder / "model.onnx")
    assert str(tmp_path).encode() not in (done.folder / "model.onnx").read_bytes()
    assert b".py" not in (done.folder / "model.onnx").read_bytes()
    assert "gaps as NaN" in proto.graph.input[0].doc_string
    assert {value.name: value.type.tensor_type.shape.dim[0].dim_param for value in proto.graph.output} == {
        "h": "B", "z": "B",
    }  # fmt: skip
    told = json.loads({entry.key: entry.value for entry in proto.metadata_props}["preprocessing"])
    assert told == read_config(done.folder)["preprocessing"]


@pytest.mark.parametrize("told", ["file", "shape"])
def test_a_historical_checkpoint_of_a_resnet50(narrow, shallow, tmp_path, caplog, told):
    """Its options are an object, its names have `module.`, and it does not tell the shape of its cutouts."""
    model = trained("resnet50", channels=3)
    weights = {name.replace("encoder.", "encoder.module."): value for name, value in model.state_dict().items()}
    opt = {"model": "resnet50", "method": "SimCLR", "random_cropjitter": [2, 1], "cosine": True, "images_file": "no.h5"}
    write_old(
        tmp_path / "old.pth", "ulmo.io.Params", {"opt": opt, "model": weights, "optimizer": {}, "epoch": 5}, zipped=True
    )
    with pytest.raises(CheckpointError, match=r"does not tell of what shape .* --shape CxHxW"):
        export_model(tmp_path / "old.pth", tmp_path / "out")
    if told == "file":
        with h5py.File(tmp_path / "moved.h5", "w") as file:
            file["train"] = (100 * fields((6, 1, 12, 12))).astype(np.uint16)
        done = export_model(tmp_path / "old.pth", tmp_path / "out", cutouts=tmp_path / "moved.h5", onnx=False)
        assert read_config(done.folder)["input"]["channels"] == 1
        return
    done = export_model(tmp_path / "old.pth", tmp_path / "out", shape=(3, 12, 12))
    assert "made cutouts" in str(done.agreement)
    loaded, options = load_export(done.folder)
    assert options["ssl_model"] == "resnet50"
    images = torch.from_numpy(fields((4, 3, 12, 12)))
    session = onnxruntime.InferenceSession(done.folder / "model.onnx", providers=["CPUExecutionProvider"])
    (z,) = session.run(["z"], {"cutouts": images.numpy()})
    with torch.no_grad():
        expected = loaded(images - images.mean(dim=(2, 3), keepdim=True))
    torch.testing.assert_close(torch.from_numpy(z), expected, rtol=0, atol=1e-4)


@pytest.fixture
def judged(narrow, cutout_file):
    """Compare a network that is not the one exported with torch, as an export does."""
    of = Preprocessing.from_options(Params.from_dict({"random_jitter": [9, 2], "image_size": 8}), (1, 17, 13))
    network = WholeNetwork(trained(), of).eval()

    def judge(monkeypatch, other=None, changes=None):
        computed = copy.deepcopy(network) if other is None else other

        def run(content, pixels):
            with torch.no_grad():
                h, z = computed(pixels)
            return {"h": h, "z": z} if changes is None else changes(h, z)

        monkeypatch.setattr(export_run.agreement, "_run", run)
        opt = Params.from_dict({"random_jitter": [9, 2], "image_size": 8})
        return export_run.agreement.compare(b"", network, opt, made_samples(of))

    return network, judge


def test_the_same_network_in_another_layout_agrees(judged, monkeypatch):
    network, judge = judged
    agreed = judge(monkeypatch, copy.deepcopy(network).to(memory_format=torch.channels_last))
    for name in ("h", "z"):
        assert 0 <= agreed.difference[name] <= agreed.tolerance[name] < 1e-3 * agreed.magnitude[name]


def nudge(model, name, factor):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(name).mul_(factor)
    return other


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda n: nudge(n, "model.encoder.layer3.0.conv1.weight", 1.001), "h differs from torch's"),
        (lambda n: nudge(n, "model.head.2.weight", -1), "z differs"),
        (lambda n: _with(n, "eps", 1e-3), "h differs"),
        (lambda n: _with_preprocessing(n, left=1), "h differs"),
        (lambda n: _with_preprocessing(n, most_missing=0), "h is NaN for other cutouts"),
        (lambda n: copy.deepcopy(n).half().float(), "h differs"),
    ],
)
def test_what_differs_by_more_than_rounding_is_refused(judged, monkeypatch, wrong, named):
    network, judge = judged
    with pytest.raises(CheckpointError, match=rf"other latents than Nenya \({named}.*nothing was written"):
        judge(monkeypatch, wrong(network))


def _with(network, name, value):
    other = copy.deepcopy(network)
    for module in other.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            setattr(module, name, value)
    return other


def _with_preprocessing(network, **changes):
    return WholeNetwork(network.model, dataclasses.replace(network.of, **changes)).eval()


def test_nan_in_place_of_latents_is_refused(judged, monkeypatch):
    _, judge = judged
    with pytest.raises(CheckpointError, match="z is NaN for other cutouts"):
        judge(monkeypatch, changes=lambda h, z: {"h": h, "z": torch.full_like(z, float("nan"))})


def test_pixels_that_are_not_those_of_training_are_refused(judged, monkeypatch):
    """The judge itself is judged: a window one pixel off, in both the file and float64, would agree with itself."""
    network, _ = judged
    wrong = _with_preprocessing(network, top=3)
    opt = Params.from_dict({"random_jitter": [9, 2], "image_size": 8})
    with pytest.raises(CheckpointError, match="crop, resize or filling differ from those of training"):
        export_run.agreement.compare(b"", wrong, opt, made_samples(network.of))


def test_layers_are_torchs_own(checkpoint, cutout_file, tmp_path, monkeypatch):
    """The kernels of this package are for its own use."""
    cutout_file()
    seen = []

    def no_file(network, meanings, about):
        seen.append([type(module) for module in network.modules()])
        raise CheckpointError("stop")

    monkeypatch.setattr(export_run.graph, "onnx_bytes", no_file)
    with pytest.raises(CheckpointError, match="stop"):
        export_model(checkpoint()[1], tmp_path / "out")
    assert FastConv2d not in seen[0]
    assert torch.nn.Conv2d in seen[0]
    assert not (tmp_path / "out").exists()
