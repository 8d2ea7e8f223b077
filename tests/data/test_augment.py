"""The views: against NumPy's flips, turns and slices, against SciPy's and scikit-image's warps, and in distribution."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import skimage.transform
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data import counter_rng
from nenya.data.augment import TRAIN, VALID, Crop, TwoCropTransform, Views, affine_map
from nenya.errors import DataError

# Coordinates are float32 in units of half a frame: an error of a few 1e-7 of 16 pixels, times a step of one between
# neighbours.
CLOSE = 2e-5

PLAIN = {"size": None, "crop": None, "flip": False, "rotate": False, "noise": 0.0, "demean": False, "seed": 0}


def views_of(height=16, width=16, **replaced):
    """Views without any augmentation but those that are asked for."""
    given_values = PLAIN | replaced
    size = given_values.pop("size") or (height, width)
    return Views(height=height, width=width, size=size, **given_values)


def window_crop(side, shift=0):
    return Crop(window=(side, side), max_trim=0, max_shift=shift, inside=False)


def trim_crop(height, width, trim, shift):
    return Crop(window=(height, width), max_trim=trim, max_shift=shift, inside=True)


def noise_image(height, width, seed=0):
    """The hardest image for a warp: [H, W], each pixel on its own, uniform in [0, 1)."""
    return np.random.default_rng(seed).random((height, width))


def as_batch(*images):
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def warped(image, *, angle=0.0, sign=(1, 1), window=None, centre=(0, 0), size=None):
    """Warp one image [H, W] by one map through the code under test."""
    height, width = image.shape
    window = window or (height, width)
    crop = Crop(window=window, max_trim=0, max_shift=0, inside=False)
    matrix = affine_map(
        torch.tensor([window], dtype=torch.float64),
        torch.tensor([centre], dtype=torch.float64),
        torch.tensor([angle], dtype=torch.float64),
        torch.tensor([sign], dtype=torch.float64),
        height,
        width,
    )
    return views_of(height, width, size=size or window, crop=crop).warp(as_batch(image), matrix)[0, 0].numpy()


# ---------------------------------------------------------------- one operation at a time


def test_no_operation_gives_the_cutout_itself():
    for shape in ((16, 16), (7, 12), (33, 5)):
        image = noise_image(*shape)
        np.testing.assert_allclose(warped(image), image, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(16, 16), (9, 9), (8, 13)])
def test_quarter_turns_are_counter_clockwise_as_numpys(shape, turns):
    image = noise_image(*shape)
    expected = np.rot90(image, turns)
    np.testing.assert_allclose(warped(image, angle=90 * turns, window=expected.shape), expected, rtol=0, atol=CLOSE)


def test_a_positive_angle_brings_the_right_hand_side_to_the_top():
    image = np.zeros((8, 8))
    image[:, -1] = 1
    turned = warped(image, angle=90)
    assert turned[0].min() > 0.99
    assert turned[1:].max() < 0.01


@pytest.mark.parametrize(("sign", "axes"), [((-1, 1), (0,)), ((1, -1), (1,)), ((-1, -1), (0, 1))])
@pytest.mark.parametrize("shape", [(16, 16), (7, 12)])
def test_flips_are_numpys(shape, sign, axes):
    image = noise_image(*shape)
    np.testing.assert_allclose(warped(image, sign=sign), np.flip(image, axes), rtol=0, atol=CLOSE)


@settings(max_examples=40)
@given(st.data())
def test_a_window_at_whole_pixels_is_a_slice(data):
    height, width = data.draw(st.integers(4, 20)), data.draw(st.integers(4, 20))
    tall, wide = data.draw(st.integers(4, height)), data.draw(st.integers(4, width))
    top, left = data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide))
    image = noise_image(height, width)
    centre = (top + tall / 2 - height / 2, left + wide / 2 - width / 2)
    view = warped(image, window=(tall, wide), centre=centre)
    np.testing.assert_allclose(view, image[top : top + tall, left : left + wide], rtol=0, atol=CLOSE)


@settings(max_examples=40)
@given(st.floats(-720, 720), st.integers(4, 20), st.integers(4, 20))
def test_a_rotation_by_any_angle_is_scikit_images(angle, height, width):
    image = noise_image(height, width)
    expected = skimage.transform.rotate(image, angle, order=1, mode="symmetric")
    np.testing.assert_allclose(warped(image, angle=angle), expected, rtol=0, atol=2 * CLOSE)


@settings(max_examples=40)
@given(st.floats(0, 360), st.integers(4, 20), st.integers(4, 20))
def test_a_rotation_by_any_angle_is_scipys(angle, height, width):
    image = noise_image(height, width)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    inverse = np.array([[c, s], [-s, c]])  # (row, column) of the view -> of the cutout
    middle = np.array([(height - 1) / 2, (width - 1) / 2])
    expected = scipy.ndimage.affine_transform(image, inverse, middle - inverse @ middle, order=1, mode="reflect")
    np.testing.assert_allclose(warped(image, angle=angle), expected, rtol=0, atol=2 * CLOSE)


# ---------------------------------------------------------------- all in one


def composed(image, *, angle, sign, window, centre, size):
    """The reference: mirror the array, then look up every pixel of the view by a complex rotation, in float64."""
    height, width = image.shape
    image = np.flip(image, [axis for axis in (0, 1) if sign[axis] < 0])
    rows = (np.arange(size[0]) + 0.5) / size[0] * window[0] - window[0] / 2 + centre[0]
    columns = (np.arange(size[1]) + 0.5) / size[1] * window[1] - window[1] / 2 + centre[1]
    places = (columns[None, :] - 1j * rows[:, None]) * np.exp(-1j * np.deg2rad(angle))  # east and north of the centre
    coordinates = np.stack((height / 2 - 0.5 - places.imag, width / 2 - 0.5 + places.real))
    return scipy.ndimage.map_coordinates(image, coordinates, order=1, mode="reflect")


@settings(max_examples=80)
@given(st.data())
def test_crop_rotation_flip_and_resize_in_one_are_scipys_lookup(data):
    side = st.integers(4, 20)
    height, width = data.draw(side), data.draw(side)
    window = data.draw(st.integers(2, height)), data.draw(st.integers(2, width))
    given_map = {
        "angle": data.draw(st.floats(0, 360)),
        "sign": (data.draw(st.sampled_from([1, -1])), data.draw(st.sampled_from([1, -1]))),
        "window": window,
        "centre": (data.draw(st.integers(-12, 12)) / 2, data.draw(st.integers(-12, 12)) / 2),
        "size": tuple(data.draw(st.integers(-(-part // 2), 24)) for part in window),  # no more than halved: one sample
    }
    image = noise_image(height, width)
    np.testing.assert_allclose(warped(image, **given_map), composed(image, **given_map), rtol=0, atol=2 * CLOSE)


FULL = [
    {"rotate": True, "flip": True},
    {"rotate": True, "crop": window_crop(13, 9)},
    {"rotate": True, "flip": True, "crop": trim_crop(16, 11, 5, 5), "size": (8, 8)},
    {"rotate": True, "crop": window_crop(16, 30), "size": (3, 5)},
]


@pytest.mark.parametrize("options", FULL)
@settings(max_examples=15)
@given(row=st.integers(0, 10**6), low=st.integers(-1000, 1000), spread=st.integers(0, 1000))
def test_no_pixel_leaves_the_range_of_the_cutouts_values(options, row, low, spread):
    image = as_batch(noise_image(16, 11, seed=row) * spread + low)
    views = views_of(16, 11, **options).make(image, torch.tensor([row]), 1)
    rounding = 1e-6 * image.abs().max()  # the four weights are float32
    assert views.min() >= image.min() - rounding
    assert views.max() <= image.max() + rounding


@pytest.mark.parametrize("options", FULL)
@settings(max_examples=15)
@given(row=st.integers(0, 10**6), value=st.integers(-(10**4), 10**4))
def test_a_constant_cutout_stays_constant_to_the_corners(options, row, value):
    views = views_of(16, 11, **options).make(torch.full((1, 1, 16, 11), float(value)), torch.tensor([row]), 1)
    np.testing.assert_allclose(views.numpy(), value, rtol=1e-6)


def test_all_channels_go_through_the_same_map():
    image = as_batch(noise_image(16, 16))
    stack = torch.cat((image, 2 * image, -image), dim=1)
    views = views_of(flip=True, rotate=True, crop=window_crop(12, 4)).make(stack, torch.tensor([3]), 1)
    assert views.shape == (2, 1, 3, 12 + 4, 16)
    np.testing.assert_allclose(views[:, :, 1], 2 * views[:, :, 0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(views[:, :, 2], -views[:, :, 0], rtol=0, atol=1e-6)


# ---------------------------------------------------------------- resolution


def block_mean(image, block):
    height, width = image.shape
    return image.reshape(height // block, block, width // block, block).mean(axis=(1, 3))


@pytest.mark.parametrize("block", [2, 4, 8])
def test_shrinking_by_a_whole_factor_is_the_area_mean(block):
    image = noise_image(64, 32)
    small = warped(image, size=(64 // block, 32 // block))
    np.testing.assert_allclose(small, block_mean(image, block), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("period", [1, 2])
def test_a_checkerboard_shrunk_from_128_to_32_is_grey(period):
    board = ((np.indices((128, 128)) // period).sum(axis=0) % 2).astype(float)
    np.testing.assert_allclose(warped(board, size=(32, 32)), block_mean(board, 4), rtol=0, atol=1e-4)
    np.testing.assert_allclose(block_mean(board, 4), 0.5)


@pytest.mark.parametrize("angle", [10.0, 30.0, 45.0, 77.0])
def test_white_noise_shrunk_at_an_angle_loses_its_variance_almost_as_an_area_mean_does(angle):
    image = noise_image(128, 128) - 0.5
    kept = warped(image, angle=angle, size=(32, 32)).std() / image.std()
    # The mean of 16 pixels keeps 1/4 of the deviation; one bilinear sample keeps 2/3, and the mean of 4 of them 1/3.
    assert kept == pytest.approx(1 / 3, abs=0.04)


def test_a_small_window_shown_small_is_not_blurred_for_the_cutouts_sake():
    image = noise_image(64, 64)
    view = warped(image, window=(16, 16), size=(16, 16))
    np.testing.assert_allclose(view, image[24:40, 24:40], rtol=0, atol=CLOSE)


# ---------------------------------------------------------------- noise and mean


def test_noise_has_the_standard_deviation_asked_for_and_is_white():
    images = as_batch(*[noise_image(16, 16, seed) for seed in range(30)])
    rows = torch.arange(30)
    clean = views_of(rotate=True).make(images, rows, 1)
    noisy = views_of(rotate=True, noise=0.3).make(images, rows, 1)
    noise = ((noisy - clean) / 0.3).double().numpy()
    assert noise.std() == pytest.approx(1, abs=4 / math.sqrt(2 * noise.size))
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    for axis in (0, 1, 3, 4):  # views, samples, neighbours
        first, second = np.delete(noise, 0, axis), np.delete(noise, -1, axis)
        assert abs((first * second).mean()) < 4 / math.sqrt(first.size)


def test_noise_fills_views_that_are_not_square():
    views = views_of(noise=1.0, size=(8, 12), height=16, width=24).make(torch.zeros(2, 2, 16, 24), torch.arange(2), 1)
    assert views.shape == (2, 2, 2, 8, 12)
    assert len(views.unique()) > 0.99 * views.numel()


def test_every_channel_has_noise_of_its_own():
    noise = views_of(noise=1.0).make(torch.zeros(4, 3, 16, 16), torch.arange(4), 1).numpy()
    correlations = np.corrcoef(noise.transpose(2, 0, 1, 3, 4).reshape(3, -1))
    assert np.abs(correlations - np.eye(3)).max() < 4 / math.sqrt(noise.size / 3)


def test_each_channel_of_each_view_loses_its_own_mean_and_nothing_else():
    images = torch.from_numpy(np.random.default_rng(1).normal(290, 2, (4, 3, 16, 16)).astype(np.float32))
    images[:, 1] -= 200
    options = {"rotate": True, "crop": window_crop(12, 3), "noise": 0.1}
    whole = views_of(**options).make(images, torch.arange(4), 1)
    demeaned = views_of(**options, demean=True).make(images, torch.arange(4), 1)
    assert demeaned.mean(dim=(3, 4)).abs().max() < 1e-4  # an ulp of 290 is 3e-5
    removed = (whole - demeaned).numpy()
    expected = np.broadcast_to(whole.double().mean(dim=(3, 4), keepdim=True).numpy(), removed.shape)
    np.testing.assert_allclose(removed, expected, rtol=0, atol=2e-4)


# ---------------------------------------------------------------- what a view depends on

EVERYTHING = {"flip": True, "rotate": True, "crop": window_crop(11, 3), "size": (8, 8), "noise": 0.5, "demean": True}


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(np.random.default_rng(2).normal(size=(9, 2, 16, 16)).astype(np.float32))


@pytest.mark.parametrize("order", [[4], [4, 0], [8, 7, 6, 5, 4, 3, 2, 1, 0], [0, 4, 2, 4], list(range(9))])
def test_a_view_is_the_same_whatever_batch_it_is_made_in(images, order):
    views = views_of(**EVERYTHING)
    alone = torch.cat([views.make(images[[row]], torch.tensor([row]), 3) for row in order], dim=1)
    together = views.make(images[order], torch.tensor(order), 3)
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=0, atol=1e-6)


def test_a_view_is_a_function_of_its_arguments_and_of_no_global_state(images):
    rows = torch.arange(9)
    torch.manual_seed(0)
    first = views_of(**EVERYTHING).make(images, rows, 3)
    torch.manual_seed(1)
    assert torch.equal(views_of(**EVERYTHING).make(images, rows, 3), first)


@pytest.mark.parametrize("only", ["flip", "rotate", "crop", "noise"])
@pytest.mark.parametrize("changed", ["seed", "stream", "epoch", "row", "view"])
def test_every_random_step_changes_with_each_of_seed_stream_epoch_row_and_view(images, only, changed):
    options = {only: EVERYTHING[only]}
    same = images[:1].expand(24, -1, -1, -1)  # one image as 24 samples, so that the draws alone differ
    rows = torch.arange(24)
    view = views_of(**options).make(same, rows, 3)
    if changed == "seed":
        other = views_of(**options, seed=1).make(same, rows, 3)
    elif changed == "stream":
        other = views_of(**options).make(same, rows, 3, stream=VALID)
    elif changed == "epoch":
        other = views_of(**options).make(same, rows, 4)
    elif changed == "row":
        other = views_of(**options).make(same, rows + 1, 3)
    else:
        other = view.flip(0)
    differ = (view - other).abs().amax(dim=(2, 3, 4)) > 1e-3
    least = 0.5 if only == "flip" else 0.9  # of four combinations of flips, and of 49 shifts, two are sometimes one
    assert differ.float().mean() >= least


def test_noise_does_not_change_the_geometry(images):
    options = EVERYTHING | {"demean": False}
    rows = torch.arange(9)
    clean = views_of(**options | {"noise": 0.0}).make(images, rows, 1)
    faint = views_of(**options | {"noise": 1e-6}).make(images, rows, 1)
    assert 0 < (clean - faint).abs().max() < 1e-5


def test_training_is_the_default_stream(images):
    rows = torch.arange(9)
    views = views_of(**EVERYTHING)
    assert torch.equal(views.make(images, rows, 1), views.make(images, rows, 1, stream=TRAIN))


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING, PLAIN | {"demean": True}])
def test_the_callers_cutouts_are_not_changed(images, options):
    before = images.clone()
    views = views_of(**options)
    made, plain = views.make(images, torch.arange(9), 1), views.plain(images)
    made.zero_()
    plain.zero_()
    assert torch.equal(images, before)


# ---------------------------------------------------------------- distributions

N = 4000


def geometry(views, seed=0):
    """Read windows [N, 2], first pixels [N, 2], angles [N] and flips [N, 2] back from drawn maps."""
    maps = views.draw_maps(counter_rng.keys(seed, torch.arange(N))).double().numpy()
    frame = np.array([views.width, views.height])
    to_pixels = frame[None, :, None] / 2 * maps  # rows x, y; columns half window x, y, and the centre
    linear = to_pixels[:, :, :2]
    window = 2 * np.sqrt((linear**2).sum(axis=1))[:, ::-1]
    if views.rotate:
        angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0])) % 360
        return window, None, angle, None
    sign = np.sign(np.stack((linear[:, 1, 1], linear[:, 0, 0]), axis=1))
    centre = to_pixels[:, ::-1, 2] * sign
    first = centre - window / 2 + frame[::-1] / 2
    return window, first, None, sign


def test_angles_cover_the_circle_evenly():
    _, _, angle, _ = geometry(views_of(rotate=True))
    assert scipy.stats.kstest(angle / 360, "uniform").pvalue > 1e-3


def test_the_four_flips_are_equally_likely():
    *_, sign = geometry(views_of(flip=True))
    _, counts = np.unique(sign, axis=0, return_counts=True)
    assert len(counts) == 4
    assert np.abs(counts - N / 4).max() < 4 * math.sqrt(N * 3 / 16)


def whole(numbers):
    """The whole numbers that these are but for the rounding of float32."""
    rounded = np.rint(numbers)
    np.testing.assert_allclose(numbers, rounded, rtol=0, atol=1e-4)
    return rounded.astype(int)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (40, 80)])
def test_a_fixed_window_shifts_by_every_whole_number_up_to_b_and_no_further(height, width):
    window, first, *_ = geometry(views_of(height, width, crop=window_crop(33, 5)))
    assert set(whole(window).ravel()) == {33}
    for axis, side in enumerate((height, width)):
        shifts, counts = np.unique(whole(first[:, axis]) - (side - 33) // 2, return_counts=True)
        assert shifts.tolist() == list(range(-5, 6))
        assert np.abs(counts - N / 11).max() < 4 * math.sqrt(N / 11)
    assert abs(np.corrcoef(first.T)[0, 1]) < 4 / math.sqrt(N)  # the axes shift on their own


@pytest.mark.parametrize(("trim", "shift"), [(5, 5), (5, 1), (5, 0), (16, 4), (1, 3), (8, 20)])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 40)])
def test_a_trimmed_window_stays_inside_and_shifts_by_every_whole_number_up_to_b(height, width, trim, shift):
    window, first, *_ = geometry(views_of(height, width, crop=trim_crop(height, width, trim, shift)))
    window, first = whole(window), whole(first)
    for axis, side in enumerate((height, width)):
        trimmed = side - window[:, axis]
        sizes, counts = np.unique(trimmed, return_counts=True)
        assert sizes.tolist() == list(range(trim + 1))
        assert np.abs(counts - N / (trim + 1)).max() < 4 * math.sqrt(N / (trim + 1))
        assert first[:, axis].min() >= 0
        assert (first[:, axis] + window[:, axis]).max() <= side
        for size in sizes:  # of each window, all places within reach
            shifts = set(first[trimmed == size, axis] - size // 2)
            reach = min(shift, size // 2)
            assert shifts == set(range(-reach, reach + 1))


def test_a_trimmed_view_of_the_windows_own_size_is_a_slice():
    views = views_of(12, 15, crop=trim_crop(12, 15, 4, 2))
    window, first, *_ = geometry(views)
    image = noise_image(12, 15)
    for number in range(40):
        tall, wide = whole(window[number])
        top, left = whole(first[number])
        sized = dataclasses.replace(views, size=(int(tall), int(wide)))
        maps = sized.draw_maps(counter_rng.keys(0, torch.tensor([number])))
        view = sized.warp(as_batch(image), maps)[0, 0]
        np.testing.assert_allclose(view, image[top : top + tall, left : left + wide], rtol=0, atol=CLOSE)


def test_the_views_of_earlier_runs_come_again():
    ramps = torch.from_numpy(np.indices((16, 16)).astype(np.float32))[None]  # each pixel says where it came from
    views = views_of(size=(2, 2), crop=window_crop(9, 3), flip=True, rotate=True, noise=0.1, seed=5)
    made = views.make(ramps, torch.tensor([7]), epoch=3)
    pinned = [6.595, 5.4503, 10.9466, 9.4827, 4.5586, 8.6436, 5.5702, 9.8725]
    pinned += [11.1276, 6.7183, 11.1253, 6.58, 10.0693, 10.3657, 5.6294, 5.807]
    np.testing.assert_allclose(made.flatten(), pinned, rtol=0, atol=1e-4)


# ---------------------------------------------------------------- the options


@pytest.fixture
def from_options(tiny):
    def from_options(height=64, width=64, **replaced):
        return Views.from_options(tiny(**{"image_size": None} | replaced), height, width)

    return from_options


@pytest.mark.parametrize(
    ("jitter", "shape", "expected"),
    [
        ([5, 5], (64, 64), trim_crop(64, 64, 5, 5)),
        ([1, 0], (64, 64), trim_crop(64, 64, 1, 0)),
        ([32, 5], (64, 64), trim_crop(64, 64, 32, 5)),  # half is not above half
        ([33, 5], (64, 64), window_crop(33, 5)),
        ([64, 0], (64, 64), window_crop(64, 0)),
        ([5, 5], (48, 64), trim_crop(48, 64, 5, 5)),
        ([25, 5], (48, 64), window_crop(25, 5)),  # the shorter side decides
        ([16, 2], (33, 33), trim_crop(33, 33, 16, 2)),
        ([17, 2], (33, 33), window_crop(17, 2)),
        (None, (64, 64), None),
        (0, (64, 64), None),
    ],
)
def test_random_jitter_means_what_the_table_of_options_says(from_options, jitter, shape, expected):
    assert from_options(*shape, random_jitter=jitter).crop == expected


@pytest.mark.parametrize(("jitter", "shape"), [([65, 0], (64, 64)), ([49, 5], (48, 64)), ([49, 5], (64, 48))])
def test_a_window_larger_than_the_cutout_is_refused(from_options, jitter, shape):
    with pytest.raises(
        DataError, match=rf"window of {jitter[0]} pixels.*{shape[0]} x {shape[1]}.*at most {min(shape)}"
    ):
        from_options(*shape, random_jitter=jitter)


@pytest.mark.parametrize(
    ("shape", "jitter", "image_size", "expected"),
    [
        ((64, 64), None, None, (64, 64)),
        ((48, 64), None, None, (48, 64)),
        ((64, 64), [5, 5], None, (64, 64)),
        ((48, 64), [5, 5], None, (48, 64)),
        ((64, 64), [40, 5], None, (64, 64)),
        ((48, 64), [40, 5], None, (48, 48)),  # a square window of an oblong cutout is shown square
        ((64, 48), [40, 5], 32, (32, 32)),
        ((48, 64), [5, 5], [24, 32], (24, 32)),
    ],
)
def test_the_size_of_a_view_is_image_size_or_follows_from_the_cutout(from_options, shape, jitter, image_size, expected):
    views = from_options(*shape, random_jitter=jitter, image_size=image_size)
    assert views.size == expected
    assert views.make(torch.zeros(2, 1, *shape), torch.arange(2), 1).shape == (2, 2, 1, *expected)


def test_every_other_option_of_the_views_arrives(from_options):
    views = from_options(flip=False, rotate=False, gauss_noise=0.25, demean=False, seed=9)
    assert (views.flip, views.rotate, views.noise, views.demean, views.seed) == (False, False, 0.25, False, 9)
    views = from_options(flip=True, rotate=True)
    assert (views.flip, views.rotate, views.noise, views.demean, views.seed) == (True, True, 0.0, True, 0)


# ---------------------------------------------------------------- plain


@pytest.mark.parametrize(("side", "window"), [(16, 9), (16, 10), (17, 9), (17, 10)])
def test_plain_shows_the_centred_window_and_nothing_random(side, window):
    image = noise_image(side, side + 3)
    first = [(length - window) // 2 for length in image.shape]
    expected = image[first[0] : first[0] + window, first[1] : first[1] + window]
    shown = []
    for seed in (0, 1):
        views = views_of(
            *image.shape,
            crop=window_crop(window, 5),
            size=(window, window),
            flip=True,
            rotate=True,
            noise=9.0,
            seed=seed,
        )
        shown.append(views.plain(as_batch(image))[0, 0].numpy())
    np.testing.assert_allclose(shown[0], expected, rtol=0, atol=CLOSE)
    np.testing.assert_array_equal(shown[0], shown[1])


def test_plain_shows_the_whole_cutout_where_views_are_trimmed_or_not_cropped():
    image = noise_image(16, 12)
    for crop in (None, trim_crop(16, 12, 5, 5)):
        shown = views_of(16, 12, crop=crop, rotate=True, flip=True).plain(as_batch(image))[0, 0]
        np.testing.assert_allclose(shown, image, rtol=0, atol=CLOSE)


def test_plain_takes_the_resolution_and_the_mean_from_the_options():
    image = noise_image(16, 16) + 290
    shown = views_of(size=(8, 8), demean=True, noise=3.0).plain(as_batch(image))[0, 0]
    expected = block_mean(image, 2)
    np.testing.assert_allclose(shown, expected - expected.mean(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("crop", [window_crop(33, 5), window_crop(40, 8), trim_crop(64, 64, 5, 5)])
def test_plain_looks_where_the_views_look_on_average(crop):
    _, first, *_ = geometry(views_of(64, 64, crop=crop))
    window, *_ = geometry(views_of(64, 64, crop=crop))
    centres = (first + window / 2).mean(axis=0)
    plain = (64 - crop.window[0]) // 2 + crop.window[0] / 2
    # Windows begin at whole pixels: trimmed by an odd number, one lies half a pixel off, so a quarter on average.
    allowed = 0.25 * crop.inside + 4 * crop.max_shift / math.sqrt(3 * N)
    np.testing.assert_allclose(centres, plain, rtol=0, atol=allowed)


def test_two_crop_transform_applies_the_transform_twice():
    calls = []
    assert TwoCropTransform(lambda x: calls.append(x) or (x, len(calls)))("image") == [("image", 1), ("image", 2)]
