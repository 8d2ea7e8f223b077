"""Latents of cutouts as they are."""

import h5py
import numpy as np
import pytest
import torch

from nenya.data.images import ImageFile
from nenya.latents.encode import encode_cutouts
from nenya.machine import memory
from nenya.models import assemble_model


@pytest.fixture
def model(narrow):
    torch.manual_seed(0)
    model = assemble_model("resnet18", "mlp", 6, 1)
    model(torch.randn(8, 1, 8, 8))  # batch-norm statistics that are not the initial ones
    return model


def manual(model, pixels):
    """Each cutout alone, demeaned, through the encoder in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model.encode(torch.from_numpy(image - image.mean())[None]) for image in pixels])


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_cutouts_are_encoded_one_like_the_other_whatever_the_batch(tiny, image_file, model, batch_size):
    images = ImageFile(image_file, "train")
    opt = tiny(random_jitter=0, image_size=None)
    features = encode_cutouts(model, images, opt, batch_size=batch_size)
    expected = manual(model, images.read(np.arange(24)))
    assert features.shape == (24, 64)
    assert features.dtype == torch.float32
    # float32 through 18 layers, summed in another order
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[0], features[1], rtol=0.01)  # the cutouts are told apart


def test_the_window_of_training_is_shown_centred_and_nothing_is_random(tiny, image_file, model):
    images = ImageFile(image_file, "train")
    opt = tiny(random_jitter=[10, 3], image_size=10, gauss_noise=0.5)
    features = encode_cutouts(model, images, opt)
    pixels = images.read(np.arange(24))
    # interpolation in float32 of pixels near 290 K is good to some 1e-4 K; the next window is far from that
    assert torch.allclose(features, manual(model, pixels[:, :, 3:13, 3:13]), rtol=0, atol=1e-3)
    assert not torch.allclose(features, manual(model, pixels[:, :, 3:13, 4:14]), rtol=0, atol=0.03)


def test_freed_memory_is_kept_while_cutouts_are_encoded(tiny, image_file, model):
    keepers = []
    model.encoder.register_forward_hook(lambda *_: keepers.append(memory._keepers.count))
    encode_cutouts(model, ImageFile(image_file, "train"), tiny(random_jitter=0, image_size=None))
    assert set(keepers) == {1}


def test_cutouts_left_out_have_no_features(tiny, tmp_path, cutouts, model):
    pixels = cutouts(5, 16, 3)
    pixels[2] = np.nan
    with h5py.File(tmp_path / "gaps.h5", "w") as file:
        file["train"] = pixels
    opt = tiny(random_jitter=0, image_size=None)
    features = encode_cutouts(model, ImageFile(tmp_path / "gaps.h5", "train"), opt, batch_size=3)
    assert torch.allclose(features, manual(model, pixels[[0, 1, 3, 4]]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_encoding_changes_nothing_in_the_model(tiny, image_file, model, mode):
    model.train(mode)
    model.encoder.layer1.eval()  # frozen by the user
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = encode_cutouts(model, ImageFile(image_file, "valid"), tiny())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not features.requires_grad
