"""One step: what a loader may yield, how two views become one tensor, and which model and loss come out."""

import math

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from nenya.data.loaders import Batch
from nenya.errors import DataError
from nenya.losses import SupConLoss
from nenya.models.resnet_big import SupConResNet
from nenya.params import Params
from nenya.training import step as step_module
from nenya.training.step import as_batch, contrastive_loss, labels_for, pair_views, set_model, stack_views

MODEL = torch.nn.Linear(1, 1)
CPU = torch.device("cpu")
VIEW1, VIEW2 = torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5)
LABELS = torch.tensor([4, 5, 4])
BATCH = Batch(VIEW1, VIEW2, LABELS, torch.tensor([7, 8, 9]))


@pytest.mark.parametrize(
    ("items", "labels"),
    [
        ([VIEW1, VIEW2], None),
        ((VIEW1, VIEW2), None),
        ([[VIEW1, VIEW2]], None),
        ((VIEW1, VIEW2, LABELS), LABELS),
        ([VIEW1, VIEW2, LABELS], LABELS),
        (([VIEW1, VIEW2], LABELS), LABELS),
        ([(VIEW1, VIEW2), LABELS], LABELS),
        ((VIEW1, VIEW2, None), None),
    ],
)
def test_what_a_users_own_loader_yields_is_understood(items, labels):
    batch = as_batch(items)
    assert batch.view1 is VIEW1
    assert batch.view2 is VIEW2
    assert batch.labels is labels
    assert batch.rows.tolist() == [0, 1, 2]


def test_our_own_batch_is_passed_on():
    assert as_batch(BATCH) is BATCH


@pytest.mark.parametrize(
    "items",
    [
        VIEW1,
        [],
        [VIEW1],
        (VIEW1, LABELS),
        ([VIEW1], LABELS),
        [VIEW1, VIEW2[:2]],
        [VIEW1[0], VIEW2[0]],
        [VIEW1.numpy(), VIEW2.numpy()],
        {"view1": VIEW1, "view2": VIEW2},
        None,
    ],
)
def test_anything_else_is_refused_with_what_was_expected(items):
    with pytest.raises(DataError, match=r"expected \[view1, view2\] or \(\[view1, view2\], labels\)"):
        as_batch(items)


def test_all_first_views_come_before_all_second_ones():
    images = stack_views(BATCH, MODEL, CPU)
    assert images.shape == (6, 2, 4, 5)
    assert torch.equal(images, torch.cat((VIEW1, VIEW2)))


def test_pairing_puts_the_two_views_of_a_sample_side_by_side():
    z = torch.arange(12).view(6, 2)  # first views: rows 0 1 2, second ones: rows 3 4 5
    assert pair_views(z).tolist() == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]


def test_pairing_undoes_stacking():
    paired = pair_views(stack_views(BATCH, MODEL, CPU))
    assert torch.equal(paired[:, 0], VIEW1)
    assert torch.equal(paired[:, 1], VIEW2)


def test_simclr_uses_no_labels_and_supcon_needs_them():
    assert labels_for("SimCLR", BATCH, CPU) is None
    assert torch.equal(labels_for("SupCon", BATCH, CPU), LABELS)
    with pytest.raises(DataError, match="SupCon needs labels"):
        labels_for("SupCon", BATCH._replace(labels=None), CPU)


class Pixels(nn.Module):
    """z is four pixels of the image, normalised: a model whose output is known by hand."""

    def forward(self, x):
        return nn.functional.normalize(x[:, 0, 0, :4].double(), dim=1)


def loss_by_loops(z, positive, temperature):
    """Khosla et al. 2020, eq. 2, over rows z [2B, D]; `positive(i, j)` says which pairs belong together."""
    total = 0.0
    for i in range(len(z)):
        logits = [sum(a * b for a, b in zip(z[i], other, strict=True)) / temperature for other in z]
        partition = math.log(sum(math.exp(logits[a]) for a in range(len(z)) if a != i))
        own = [logits[p] for p in range(len(z)) if p != i and positive(i, p)]
        total += sum(partition - logit for logit in own) / len(own)
    return temperature / 0.07 * total / len(z)


@pytest.mark.parametrize("method", ["SimCLR", "SupCon"])
def test_the_loss_of_a_batch_is_the_papers_sum(method):
    z = Pixels()(torch.cat((VIEW1, VIEW2))).tolist()
    classes = (LABELS.tolist() if method == "SupCon" else [0, 1, 2]) * 2
    expected = loss_by_loops(z, lambda i, j: classes[i] == classes[j], 0.2)
    loss = contrastive_loss(Pixels(), SupConLoss(temperature=0.2), BATCH, method, CPU)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-12)  # float64 throughout


@pytest.mark.parametrize(("channels", "stem"), [(1, 3), (3, 3), (5, 5)])
@pytest.mark.parametrize("said", [True, False])
def test_the_models_channels_are_those_of_the_options_or_of_the_imagery(tmp_path, channels, stem, said):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train"] = np.zeros((2, channels, 8, 8), np.float32)
    source = {"nchannels": channels} if said else {"images_file": str(tmp_path / "a.h5")}
    model, _ = set_model(Params.from_dict({"ssl_model": "resnet18", "feat_dim": 6} | source), cuda_use=False)
    assert model.encoder.conv1.weight.shape == (64, stem, 3, 3)
    z = model.eval()(torch.rand(2, channels, 8, 8))
    assert z.shape == (2, 6)
    assert z.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)  # float32


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("auto", True)])
def test_fp32_means_float32_on_a_gpu_wherever_a_model_is_built(monkeypatch, precision, allowed):
    gpu = torch.device("cuda")
    monkeypatch.setattr(step_module, "choose_device", lambda wanted: gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(SupConResNet, "to", lambda self, *args, **kwargs: self)  # there is no such device here
    monkeypatch.setattr(SupConLoss, "to", lambda self, *args: self)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not allowed)
    set_model(Params.from_dict({"ssl_model": "resnet18", "precision": precision}))
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_without_imagery_the_default_stem_is_built():
    model, _ = set_model(Params.from_dict({"ssl_model": "resnet18"}), cuda_use=False)
    assert model.encoder.conv1.weight.shape == (64, 3, 3, 3)


def test_imagery_that_is_named_but_missing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no image file"):
        set_model(Params.from_dict({"ssl_model": "resnet18", "images_file": str(tmp_path / "none.h5")}))


def test_head_and_temperature_are_those_of_the_options():
    opt = Params.from_dict({"ssl_model": "resnet18", "head": "linear", "feat_dim": 6, "temp": 0.3})
    model, criterion = set_model(opt, cuda_use=False)
    assert model.head.weight.shape == (6, 512)
    assert isinstance(criterion, SupConLoss)
    assert criterion.temperature == 0.3
    constant = torch.ones(4, 2, 1)  # identical embeddings: T / 0.07 * log(2B - 1)
    assert criterion(constant).item() == pytest.approx(0.3 / 0.07 * math.log(7), rel=1e-6)  # float32


@pytest.mark.parametrize("given_type", [torch.uint8, torch.float16, torch.float64])
def test_views_of_any_type_become_the_models(given_type):
    batch = as_batch([torch.ones(2, 1, 4, 4, dtype=given_type)] * 2)
    assert stack_views(batch, MODEL, CPU).dtype == torch.float32
    assert stack_views(batch, torch.nn.Linear(1, 1).double(), CPU).dtype == torch.float64
