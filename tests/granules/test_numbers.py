"""Counts, places, sides and figures of cutouts against plain loops, SciPy, scikit-image and closed forms."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic

from nenya.granules import filtering
from nenya.granules.geometry import places, wrapped
from nenya.granules.inpainting import inpaint
from nenya.granules.packing import Packing
from nenya.granules.split import NEITHER, TRAIN, VALID, Split
from nenya.granules.statistics import describe
from nenya.granules.windows import count_clear, enough, positions

NOW = np.datetime64("2023-04-20T12:00:00", "us")


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=60)
def test_counts_are_those_of_a_plain_loop(seed, height, width, size, step):
    clear = np.random.default_rng(seed).random((height, width)) < 0.7
    rows, columns = positions(height, size, step), positions(width, size, step)
    counts = count_clear(clear, rows, columns, size)
    assert counts.shape == (len(rows), len(columns))
    for i, row in enumerate(rows):
        assert row + size <= height  # no window wraps
        for j, column in enumerate(columns):
            assert counts[i, j] == clear[row : row + size, column : column + size].sum()


def test_windows_of_more_than_255_pixels():
    assert count_clear(np.ones((700, 600), bool), positions(700, 300, 300), positions(600, 300, 300), 300).tolist() == [
        [90_000, 90_000],
        [90_000, 90_000],
    ]


@pytest.mark.parametrize(("size", "share", "pixels"), [(64, 0.95, 3892), (10, 0.95, 95), (10, 0.7, 70), (64, 1, 4096)])
def test_enough_means_the_decimal_number(size, share, pixels):
    assert enough(size, share) == pixels


@pytest.mark.parametrize(
    "packing",
    [
        Packing("int16", 0.01, 273.15, -32768, "kelvin"),
        Packing("int16", -0.01, 20.0, -32768, "celsius"),
        Packing("uint8", 0.5, 0.0, 255, ""),
        Packing("float32", 1.0, 0.0, float("nan"), ""),
    ],
    ids=["packed", "falling scale", "bytes", "floats"],
)
def test_figures_are_those_of_a_plain_loop_over_valid_pixels(packing):
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 200, (5, 48, 48)).astype(packing.dtype)
    valid = rng.random(stored.shape) < 0.9
    valid[0] = True
    valid[4] = False
    found = describe(stored, valid, packing)
    old = describe(stored, valid, packing, historical=True)
    for index in range(4):
        values = packing.decode(stored[index])[valid[index]]
        inner = packing.decode(stored[index, 4:44, 4:44])[valid[index, 4:44, 4:44]]
        expected = [values.mean(), values.min(), values.max(), *np.percentile(values, [10, 90])]
        got = [getattr(found, name)[index] for name in ("mean", "lowest", "highest", "t10", "t90")]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert found.dt[index] == pytest.approx(expected[4] - expected[3])
        assert found.dt40[index] == pytest.approx(np.subtract(*np.percentile(inner, [90, 10])))
        ordered = np.sort(values)
        assert old.t10[index] == ordered[int(0.1 * len(values))]
        assert old.t90[index] == ordered[int(0.9 * len(values))]
    assert np.isnan([found.mean[4], found.dt[4], found.highest[4]]).all()


@pytest.mark.parametrize("seed", range(4))
def test_inpainting_is_that_of_scikit_image(seed):
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.normal(size=(32, 40)), 4)
    gap = ndimage.binary_dilation(rng.random(image.shape) < 0.02, iterations=seed + 1)
    gap[:3, :5] = gap[-1, -9:] = True  # at corners and edges, where the kernel is cut off
    low, span = image.min(), np.ptp(image)
    expected = inpaint_biharmonic((image - low) / span, gap) * span + low
    np.testing.assert_allclose(inpaint(np.where(gap, np.nan, image), gap), expected, atol=1e-7 * span)


def test_filters_are_those_of_scipy():
    values = np.random.default_rng(0).normal(size=(3, 12, 15))
    whole = np.ones(values.shape, bool)
    for sides in ((3, 1), (3, 3), (1, 5)):
        expected = [ndimage.median_filter(field, size=sides, mode="reflect") for field in values]
        np.testing.assert_array_equal(filtering.median(values, whole, sides), expected)
    means, fine = filtering.shrink(values, whole, 3)
    np.testing.assert_allclose(means[1, 2, 3], values[1, 6:9, 9:12].mean())
    assert fine.all()
    gaps = whole.copy()
    gaps[0, :3, :3], gaps[0, 3, 3] = False, False
    means, fine = filtering.shrink(values, gaps, 3)
    assert not fine[0, 0, 0]
    assert means[0, 1, 1] == pytest.approx(values[0, 3:6, 3:6].ravel()[1:].mean())
    np.testing.assert_array_equal(filtering.median(values, gaps, (3, 1))[0, :3, :3], values[0, :3, :3])
    assert filtering.median(values, gaps, (3, 1))[0, 4, 3] == np.median(values[0, [4, 5], 3])


def grid(lat0, lon0, step, size=8):
    """A tilted patch of pixels around a point, by rotation of the sphere, so that it may hold a pole or dateline."""
    offset = (np.arange(size) - size // 2) * np.radians(step)
    y, x = np.meshgrid(offset, offset, indexing="ij")
    points = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)
    phi, lam = np.radians([lat0, lon0])
    tilt = np.array([[np.cos(phi), 0, -np.sin(phi)], [0, 1, 0], [np.sin(phi), 0, np.cos(phi)]])
    turn = np.array([[np.cos(lam), -np.sin(lam), 0], [np.sin(lam), np.cos(lam), 0], [0, 0, 1]])
    points = points @ tilt.T @ turn.T
    return np.degrees(np.arcsin(np.clip(points[..., 2], -1, 1))), np.degrees(np.arctan2(points[..., 1], points[..., 0]))


@given(st.floats(-90, 90), st.floats(-180, 180))
@settings(max_examples=60)
def test_centre_and_pixel_size_anywhere_on_the_sphere(lat0, lon0):
    lat, lon = grid(lat0, lon0, 0.01)
    found = places(lat[None], lon[None], is_swath=True)
    assert found.latitude[0] == pytest.approx(lat0, abs=1e-5)
    if abs(lat0) < 89.99:
        assert abs((found.longitude[0] - lon0 + 180) % 360 - 180) < 1e-4 / np.cos(np.radians(lat0))
    assert -180 <= found.longitude[0] < 180
    np.testing.assert_allclose([found.along_km[0], found.across_km[0]], 1.11195, rtol=1e-3)
    assert found.repeated_lines[0] == 0
    # the centre pixel unknown: the mean direction of the others is as good
    lat[4, 4] = np.nan
    other = places(lat[None], lon[None], is_swath=True)
    assert abs(other.latitude[0] - lat0) < 0.02


def test_longitudes_stay_to_the_digit_where_they_need_not_be_wrapped():
    np.testing.assert_array_equal(wrapped(np.array([-84.2, 180.0, 359.5, -180.0])), [-84.2, -180.0, -0.5, -180.0])


@pytest.mark.parametrize("along", [0, 1])
def test_repeated_scan_lines_are_counted(along):
    """Scans of 8 lines, of which each repeats the last 2 of the one before."""
    line = np.concatenate([scan * 6 + np.arange(8) for scan in range(3)])
    lat, lon = np.meshgrid(40 + 0.01 * line, -30 + 0.01 * np.arange(24), indexing="ij")
    if along == 1:
        lat, lon = lat.T, lon.T
    assert places(lat[None], lon[None], is_swath=True).repeated_lines[0] == 4
    assert places(lat[None, ::-1], lon[None, ::-1], is_swath=True).repeated_lines[0] == 4


def plain_side(split, lat, lon, time):
    sides = set()
    stretch = split.stretch(time)
    for y, x in zip(lat.ravel(), lon.ravel(), strict=True):
        bands, cells = split._blocks(np.array([y]), np.array([x]))
        sides.add(split.side_of_block(int(bands[0]), int(cells[0]), stretch))
    return sides.pop() if len(sides) == 1 else NEITHER


@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from([0.0, 0.5]))
@settings(max_examples=80)
def test_a_side_is_that_of_every_pixel(lat0, lon0, valid):
    """Anywhere on the sphere, and in both conventions of longitude."""
    split = Split(True, True, 2.0, 30.0, valid)
    lat, lon = grid(lat0, lon0, 0.2)
    bare = split.sides(lat[None], lon[None], NOW, np.array([0.0]))
    assert bare[0] == plain_side(split, lat, lon, NOW)
    assert split.sides(lat[None], lon[None] % 360, NOW, np.array([0.0]))[0] == bare[0]
    assert split.sides(lat[None], lon[None], NOW, np.array([5.0]))[0] in (bare[0], NEITHER)


def test_side_depends_on_place_and_time_alone():
    split = Split(True, True, 5.0, 30.0, 0.1)
    share = np.mean([split.side_of_block(band, cell, 7) == VALID for band in range(36) for cell in range(50)])
    assert 0.08 < share < 0.12
    lat, lon = grid(42.5, 2.5, 0.01)
    sides = {
        int(split.sides(lat[None], lon[None], NOW + np.timedelta64(30 * k, "D"), np.ones(1))[0]) for k in range(60)
    }
    assert sides == {TRAIN, VALID}
    assert split.sides(lat[None], lon[None], None, np.ones(1))[0] == NEITHER  # any of the two, so none is sure
    by_place = Split(True, False, 5.0, 30.0, 0.1)
    assert by_place.sides(lat[None], lon[None], None, np.ones(1))[0] != NEITHER
