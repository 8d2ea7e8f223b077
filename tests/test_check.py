"""``nenya check`` on memory: what a step needs, and how many cutouts fit at once."""

from collections import namedtuple

import pytest
import torch

from nenya.check import check_run, step_bytes
from nenya.data.loaders import nenya_loader
from nenya.errors import OptionError
from nenya.models import build_model


def test_the_memory_of_a_step_is_what_autograd_keeps_and_falls_with_the_parts(tiny):
    """Beside a count of the tensors that a real forward pass saves."""
    opt = tiny()
    train = nenya_loader(opt)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model = build_model(opt, 1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(torch.rand(16, 1, 8, 8))
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert step_bytes(opt, train, torch.float32, train.batch_size) == pytest.approx(
        sum(kept.values()) + 3 * weights, rel=0.05
    )
    parts = [step_bytes(opt, train, torch.float32, samples) for samples in (8, 4, 2, 1)]
    assert parts == sorted(parts, reverse=True)
    assert parts[0] > parts[-1]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (2**40, "the whole batch fits at once"),
        (2**10, "not even one cutout"),
        (None, "not known"),
    ],
)
def test_whether_the_batch_fits_is_said(tiny, monkeypatch, free, said):
    monkeypatch.setattr("nenya.check.free_memory", lambda device: free)
    assert said in "\n".join(check_run(tiny()))


def test_the_micro_batch_that_fits_is_named_and_fits(tiny, monkeypatch):
    opt = tiny()
    train = nenya_loader(opt)
    need = step_bytes(opt, train, torch.float32, samples=5)
    monkeypatch.setattr("nenya.check.free_memory", lambda device: int(need / 0.8) + 1)
    text = "\n".join(check_run(opt))
    assert '"micro_batch_size": 5 gives the same loss' in text


def test_room_on_the_disk_is_asked_for_what_is_kept_only(tiny, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("nenya.check.shutil.disk_usage", lambda path: usage(0, 0, 20 * 2**20))
    many = {"epochs": 1000, "save_freq": 1}
    with pytest.raises(OptionError, match="set keep"):
        check_run(tiny(**many))
    assert "3 of ckpt_epoch_1.pth" in "\n".join(check_run(tiny(**many, keep=2)))
