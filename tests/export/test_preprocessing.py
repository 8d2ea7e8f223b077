"""What comes before the network, beside what training and `encode_cutouts` do."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nenya.data.augment import Views
from nenya.data.pixels import Packing
from nenya.export.preprocessing import Preprocessing, WholeNetwork, most_missing, resampling
from nenya.params import Params
from tests.export.conftest import fields, trained

CROPS = [None, [2, 1], [9, 3], [13, 0], [10, 2]]
SIZES = [None, 8, 13, 4, 30]


def both(options, shape, pixels):
    """What the network sees by `Views.plain`, and by the exported preprocessing in float64."""
    opt = Params.from_dict(options)
    of = Preprocessing.from_options(opt, shape)
    network = WholeNetwork(trained(channels=shape[0]), of).double()
    filled = Packing(floating=True, scale=opt.scale).to_float(pixels)
    plain = Views.from_options(opt, shape[1], shape[2]).plain(filled)
    seen, usable = network.prepare(pixels.double())
    return plain.double(), seen, usable


@pytest.mark.parametrize("demean", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS, ids=str)
def test_the_network_sees_what_it_sees_in_nenya(narrow, crop, size, demean):
    """Windows of odd and even sides, reduced, enlarged and as they are, with gaps."""
    pixels = torch.from_numpy(fields((3, 1, 17, 13)))
    pixels[1, 0, :4, 5:9] = float("nan")
    options = {"random_jitter": crop, "image_size": size, "demean": demean, "scale": 0.5}
    plain, seen, usable = both(options, (1, 17, 13), pixels)
    assert bool(usable.all())
    assert seen.shape == plain.shape
    # float32 of half of 290: a pixel to the side would be 0.05 and more
    torch.testing.assert_close(seen, plain, rtol=0, atol=3e-4)


def test_gaps_are_the_mean_of_their_own_channel_and_cutout(narrow):
    pixels = torch.from_numpy(fields((2, 3, 8, 8)))
    pixels[:, 1] += 50
    pixels[0, 1, 0, 0], pixels[1, 2, 3, 3] = float("nan"), float("-inf")
    network = WholeNetwork(
        trained(channels=3),
        Preprocessing.from_options(Params.from_dict({"demean": False, "random_jitter": None}), (3, 8, 8)),
    )
    seen, _ = network.prepare(pixels)
    valid = pixels[0, 1].flatten()[1:].double().mean()
    assert float(seen[0, 1, 0, 0]) == pytest.approx(float(valid), abs=1e-4)
    others = torch.isfinite(pixels)
    torch.testing.assert_close(seen[others], pixels[others], rtol=2e-7, atol=0)


def test_float32_loses_little_of_small_differences_between_large_pixels(narrow):
    """A mean near 290 K is good to 1.5e-5 K in float32; differences to it here are, and gaps, which are at it."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy((290 + 0.01 * rng.normal(size=(1, 1, 64, 64))).astype(np.float32))
    of = Preprocessing.from_options(Params.from_dict({"image_size": 64, "random_jitter": None}), (1, 64, 64))
    pixels[0, 0, :30, :20] = float("nan")
    seen, _ = WholeNetwork(trained(), of).prepare(pixels)
    exact = (pixels.double() - pixels.double().nanmean()).nan_to_num(0)
    assert float((seen - exact).abs().max()) < 1e-8


@pytest.mark.parametrize("max_nodata", [0.0, 0.1, 0.5, 0.99])
def test_cutouts_that_training_leaves_out_have_no_latents(narrow, max_nodata):
    pixels = torch.from_numpy(fields((4, 2, 10, 10)))
    pixels[1].view(-1)[:20] = float("nan")  # just a tenth of all
    pixels[2].view(-1)[:21] = float("nan")
    pixels[3, 1] = float("nan")  # a whole channel
    options = {"max_nodata": max_nodata, "random_jitter": None}
    of = Preprocessing.from_options(Params.from_dict(options), (2, 10, 10))
    network = WholeNetwork(trained(channels=2), of).eval()
    with torch.no_grad():
        h, z = network(pixels)
    expected = {0.0: [1, 0, 0, 0], 0.1: [1, 1, 0, 0], 0.5: [1, 1, 1, 0], 0.99: [1, 1, 1, 0]}[max_nodata]
    for latents in (h, z):
        assert torch.isfinite(latents).all(dim=1).tolist() == list(map(bool, expected))
        assert torch.isnan(latents).all(dim=1).tolist() == [not usable for usable in expected]
    assert of.usable(np.isnan(pixels.numpy())).tolist() == list(map(bool, expected))


@given(st.floats(0, 1), st.integers(1, 10**7))
def test_the_number_of_pixels_that_may_be_missing_is_that_of_the_share(share, pixels):
    count = most_missing(share, pixels)
    assert 0 <= count <= pixels
    assert count / pixels <= share
    assert count == pixels or (count + 1) / pixels > share


@given(st.integers(1, 40), st.data())
def test_each_pixel_of_a_view_is_a_mean_of_pixels_of_the_window(length, data):
    window = data.draw(st.integers(1, length))
    start = data.draw(st.integers(0, length - window))
    size, samples = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 3))
    matrix = resampling(length, start, window, size, samples)
    assert matrix.shape == (size, length)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-12)
    assert matrix.min() >= 0
    if size == window and samples == 1:
        assert np.array_equal(matrix, np.eye(length)[start : start + window])


def test_the_window_is_whole_pixels(narrow):
    of = Preprocessing.from_options(Params.from_dict({"random_jitter": [40, 5], "image_size": 32}), (1, 64, 63))
    assert (of.top, of.left, of.window, of.size, of.samples) == (12, 11, (40, 40), (32, 32), 1)
    assert dataclasses.replace(of, size=(10, 10)).matrices()[0].shape == (10, 64)
