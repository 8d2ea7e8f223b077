"""Which model and which rows of a table some latents are of."""

import dataclasses
import hashlib

import h5py
import numpy as np
import pytest
import torch

from nenya.data.images import ImageFile
from nenya.errors import CheckpointError, DataError
from nenya.latents import trained
from nenya.latents.origin import cutouts_digest, find_model, model_places, open_own
from nenya.latents.store import Latents
from nenya.models.checkpoints import find_checkpoint
from nenya.params import Params
from tests.latents.making import write_model
from tests.search.conftest import ABOUT, write_latents


def test_the_checkpoint_of_a_folder_is_the_last_one(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("ckpt_epoch_9.pth", "ckpt_epoch_10.pth", "previous.pth", "last.pth"):
        (run / name).touch()
        assert find_checkpoint(run).name == name
    assert find_checkpoint(run / "ckpt_epoch_9.pth").name == "ckpt_epoch_9.pth"
    with pytest.raises(CheckpointError, match=r"holds no checkpoint .*there is one in run in it"):
        find_checkpoint(tmp_path)


def test_the_model_is_found_by_its_digest_wherever_it_may_be(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "last.pth").write_bytes(b"went on training")
    (run / "ckpt_epoch_2.pth").write_bytes(b"made the latents")
    about = dataclasses.replace(
        ABOUT, model="ckpt_epoch_2.pth", model_digest=hashlib.sha256(b"made the latents").hexdigest(),
        options={"model_folder": str(run)},
    )  # fmt: skip
    latents = Latents(write_latents(tmp_path / "l.h5", np.ones((3, 2)), about=about))
    assert find_model(latents, model_places(latents)) == run / "ckpt_epoch_2.pth"
    assert find_model(latents, [tmp_path / "none.pth", run]) == run / "ckpt_epoch_2.pth"
    assert find_model(latents, [run / "last.pth"]) is None


def test_own_cutouts_are_told_from_others_also_in_a_group(tmp_path):
    """The latents of deep/fields are called deep_fields."""
    rng = np.random.default_rng(0)
    for name in ("own", "other"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["deep/fields"] = rng.random((5, 1, 8, 8))
    digests = {"deep_fields": cutouts_digest(ImageFile(tmp_path / "own.h5", "deep/fields"))}
    opt = Params.from_dict({})
    path = tmp_path / "l.h5"
    write_latents(path, np.ones((5, 2)), about=dataclasses.replace(ABOUT, cutouts_digest=digests))
    with h5py.File(path, "r+") as file:
        file.move("train", "deep_fields")
        file.move("train_usable", "deep_fields_usable")
    latents = Latents(path)
    assert len(open_own(latents, tmp_path / "own.h5", "deep_fields", opt)) == 5
    with pytest.raises(DataError, match=r"other\.h5 has as many cutouts of 'deep/fields' .* but other ones"):
        open_own(latents, tmp_path / "other.h5", "deep_fields", opt)


def test_a_checkpoint_that_a_training_replaces_meanwhile_is_read_with_its_own_digest(tiny, tmp_path, monkeypatch):
    opt = tiny()
    path, newer = (write_model(opt, tmp_path / name, seed=seed) for seed, name in enumerate(("m.pth", "newer.pth")))
    expected = trained.Trained.load(newer)
    read = trained.read_checkpoint

    def replaced_meanwhile(file):
        state = read(file)
        if newer.exists():
            newer.replace(path)
        return state

    monkeypatch.setattr(trained, "read_checkpoint", replaced_meanwhile)
    found = trained.Trained.load(path)
    assert found.digest == expected.digest
    for one, other in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
