"""The doors of the historical code: z of partitions, of rows, of one image; DT."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nenya.analyze_image import calc_DT, get_latents
from nenya.errors import DataError
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from nenya.latents_extraction import model_latents_extract
from nenya.models.reading import load_model
from tests.latents.making import content, write_cutouts, write_model


@pytest.fixture
def opt(tiny):
    return tiny(random_jitter=[10, 3], image_size=10)


@pytest.fixture
def model(tmp_path, opt):
    return write_model(opt, tmp_path / "m.pth")


@pytest.fixture
def pixels(cutouts):
    return cutouts(21, 16, 3)


@pytest.fixture
def file(tmp_path, pixels, cutouts):
    return write_cutouts(tmp_path / "c.h5", train=pixels, valid=cutouts(6, 16, 4))


def test_partitions_give_the_rows_that_the_command_writes(opt, model, file, tmp_path):
    found = model_latents_extract(opt, str(file), str(model))
    write_latents(model, file, tmp_path / "l.h5", Wanted("z"))
    latents = content(tmp_path / "l.h5")
    assert list(found) == ["train", "valid"]
    for key in found:
        np.testing.assert_allclose(found[key], latents[key], rtol=1e-5, atol=1e-6)
        assert found[key].dtype == np.float32


def test_rows_come_in_the_order_asked_for(opt, model, file, caplog):
    all_rows = model_latents_extract(opt, file, model)["train"]
    rows = np.array([20, 3, 0, 20])
    some = model_latents_extract(opt, file, model, partitions=("train", "test"), allowed_indices=rows)
    assert list(some) == ["train"]
    np.testing.assert_allclose(some["train"], all_rows[rows], rtol=1e-5, atol=1e-6)
    assert np.isnan(some["train"][1]).all()
    assert "no dataset 'test'" in caplog.text
    with pytest.raises(DataError, match="from -1 to 2, but 'train' has 21"):
        model_latents_extract(opt, file, model, ["train"], [-1, 2])


def test_debug_is_a_few_batches(opt, model, file):
    assert len(model_latents_extract(opt, file, model, debug=True)["train"]) == 2 * opt.batch_size_valid


def test_a_loader_takes_the_place_of_the_file(opt, model, file, pixels):
    pixels[[3, 4]] = np.nan  # as in the file
    loader = DataLoader(TensorDataset(torch.from_numpy(pixels)), batch_size=4)
    found = model_latents_extract(opt, None, model, partitions=["valid"], in_loader=loader)["valid"]
    expected = model_latents_extract(opt, file, model)["train"]
    kept = np.isfinite(expected).all(axis=1)
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-5, atol=1e-6)
    assert 0 < np.count_nonzero(kept) < len(kept)
    assert np.isnan(found[~kept]).all()  # not usable, wherever it comes from
    with pytest.raises(DataError, match="no batches"):
        model_latents_extract(opt, None, model, in_loader=[])


def test_an_image_gives_z_and_what_the_network_saw(opt, model, pixels):
    network, _ = load_model(model)
    seen = pixels[:1, :, 3:13, 3:13] - pixels[0, 0, 3:13, 3:13].mean()
    with torch.no_grad():
        expected = network(torch.from_numpy(seen)).numpy()
    for image in (pixels[0, 0], pixels[0], pixels[0].astype(np.float64)):
        z, shown = get_latents(image, model, opt)
        np.testing.assert_allclose(shown, seen, atol=1e-4)
        np.testing.assert_allclose(z, expected, atol=1e-3)
        assert z.shape == (1, opt.feat_dim)
    with pytest.raises(DataError, match="20 x 20 pixels, but"):
        get_latents(np.zeros((20, 20)), model, opt)
    with pytest.raises(DataError, match="expected one cutout"):
        get_latents(pixels, model, opt)


def test_other_options_than_the_checkpoints_are_told(tiny, model, pixels, caplog):
    get_latents(pixels[0], model, tiny(random_jitter=[10, 3], image_size=8, demean=False))
    assert "trained with another image_size, demean" in caplog.text


def test_DT_is_that_of_the_central_window(pixels):  # noqa: N802
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(3, 64, 64))
    window = fields[:, 12:52, 12:52].reshape(3, -1)
    expected = np.percentile(window, 90, axis=1) - np.percentile(window, 10, axis=1)
    np.testing.assert_allclose(calc_DT(fields, [40, 5]), expected)
    np.testing.assert_allclose(calc_DT(fields[:, None], [40, 5], verbose=True), expected)
    one = calc_DT(fields[1], [41, 5])  # half of an odd side is rounded down, as it was
    assert isinstance(one, float)
    assert one == pytest.approx(expected[1])
    for side in (0, 1, 66):
        with pytest.raises(DataError, match=f"no window of {side} pixels fits.*from 2 to 64"):
            calc_DT(fields, [side, 5])
    with pytest.raises(DataError, match="expected"):
        calc_DT(fields[0, 0], [40, 5])
