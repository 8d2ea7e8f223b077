"""The figures of the sample are NumPy's, the sample is bounded and spread, and unwritten space is noticed."""

import math

import h5py
import numpy as np
import pytest

from nenya.data import statistics as module
from nenya.data.findings import doubts, sum_up
from nenya.data.images import ImageFile
from nenya.data.statistics import all_constant, look_at, sample_rows
from nenya.errors import DataError


@pytest.fixture
def store(tmp_path):
    """Write one dataset "a" and open it; `attrs` are the dataset's, `create` goes to h5py, the rest to ImageFile."""

    def store(data, *, attrs=None, create=None, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=data, **(create or {})).attrs.update(attrs or {})
        return ImageFile(path, "a", **options)

    return store


def field(shape=(20, 2, 8, 9), seed=0):
    return np.random.default_rng(seed).normal(290, 5, shape).astype(np.float32)


@pytest.mark.parametrize("create", [{}, {"chunks": (3, 2, 8, 9), "compression": "gzip"}])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_the_figures_are_those_of_numpy(store, create, cache_mb):
    data = field()
    data[:, 0][data[:, 0] < 285] = np.nan
    data[4] = 280, np.nan, 280, 280, 280, 280, 280, 280, 280
    data[7] = np.nan  # not usable, so not looked at
    found = look_at(store(data, create=create, cache_mb=cache_mb, scale=0.5))
    used = np.delete(data, 7, axis=0)
    valid = used[np.isfinite(used)] * 0.5
    assert found.num_cutouts == 19
    assert found.num_pixels == used.size
    assert (found.minimum, found.maximum) == (valid.min(), valid.max())
    assert found.median == np.quantile(valid, 0.5, method="inverted_cdf")
    assert found.missing_share == pytest.approx(np.isnan(used).mean())
    assert found.constant_share == 1 / 19
    assert (found.most_frequent, found.most_frequent_share) == (140, pytest.approx(128 / len(valid)))
    (apart,) = found.apart
    assert [extreme.values for extreme in apart.extremes] == [(280.0,)]  # all others are above 285
    assert (found.outside, found.remarks, found.not_found, found.constant_channels) == (None, (), (), {})
    assert (found.num_overflowing, found.num_beyond) == (0, 0)


def test_each_channel_is_looked_at_by_itself(store):
    data = field((20, 3, 8, 8))
    data[:, 1] = np.random.default_rng(1).integers(0, 2, (20, 8, 8))  # a mask beside kelvins does not stand apart
    data[:, 2][::4, 0, 0] = -999
    (apart,) = look_at(store(data)).apart
    assert apart.channel == 2
    (extreme,) = apart.extremes
    assert (extreme.values, extreme.count) == ((-999.0,), 5)
    assert extreme.following == data[:, 2][data[:, 2] > 0].min()
    assert (apart.lowest, apart.highest) == (extreme.following, data[:, 2].max())


def test_marks_are_found_in_the_numbers_of_the_file(store):
    data = np.random.default_rng(2).integers(0, 200, (20, 8, 8)).astype(np.uint8)
    data[:, :2] = 250
    attrs = {"_Unsigned": "true", "scale_factor": 0.1, "add_offset": 5.0}
    data[data < 100] += 100
    found = look_at(store(data.view(np.int8), attrs=attrs))
    assert found.minimum == pytest.approx(15)
    assert found.maximum == pytest.approx(30)
    assert found.apart == ()  # 250 is no further from 199 than they are from each other
    data[:, :2] = 255
    data[:, 2:] = data[:, 2:] // 2
    (apart,) = look_at(store(data.view(np.int8), attrs=attrs)).apart
    assert apart.extremes[0].values == (255.0,)


# ---------------------------------------------------------------- overflow


def test_what_overflows_after_packing_is_counted(store):
    data = field((6, 8, 8))
    data[2, 0, :3] = 9.97e36
    assert look_at(store(data, scale=100.0)).num_overflowing == 3
    assert look_at(store(data, attrs={"scale_factor": 100.0})).num_overflowing == 3
    assert look_at(store(data)).num_overflowing == 0
    assert look_at(store(data, scale=100.0, missing=[9.97e36])).num_overflowing == 0
    found = look_at(store(np.arange(384, dtype=np.int16).reshape(6, 8, 8), attrs={"scale_factor": 1e36}))
    assert found.num_overflowing == 384 - 341  # 340 * 1e36 is the last below 3.4028e38


def test_float64_beyond_float32_is_missing_and_counted(store):
    data = field((6, 8, 8)).astype(np.float64)
    data[2, 0, :3] = 1e300
    data[3, 0, :2] = np.inf
    found = look_at(store(data))
    assert (found.num_beyond, found.num_overflowing) == (3, 0)
    assert found.missing_share == pytest.approx(5 / data.size)


# ---------------------------------------------------------------- the valid range


@pytest.mark.parametrize(
    ("attrs", "share", "unpacked"),
    [
        ({"valid_range": [0, 99]}, 0.0, False),
        ({"valid_range": [10, 89]}, 0.2, False),
        ({"valid_min": 10}, 0.1, False),
        ({"valid_max": 89}, 0.1, False),
        ({"valid_range": [0, 98], "_FillValue": np.int16(99)}, 0.0, False),  # what is missing is not outside
        ({"valid_range": [270.0, 300.0], "scale_factor": 0.1, "add_offset": 280.0}, 0.0, True),
        ({"valid_range": [281.0, 300.0], "scale_factor": 0.1, "add_offset": 280.0}, 0.1, True),
        ({"valid_range": [0, 79], "scale_factor": 0.1, "add_offset": 280.0}, 0.2, False),
        ({"valid_range": [500, 600], "scale_factor": 0.1, "add_offset": 280.0}, 1.0, False),
    ],
)
def test_the_share_outside_the_valid_range(store, attrs, share, unpacked):
    data = np.tile(np.arange(100, dtype=np.int16), 4).reshape(4, 10, 10)
    outside = look_at(store(data, attrs=attrs)).outside
    assert outside.share == pytest.approx(share)
    assert outside.unpacked is unpacked


# ---------------------------------------------------------------- the sample


@pytest.mark.parametrize(
    ("create", "cache_mb"), [({}, 1), ({}, 0), ({"chunks": (7, 4, 4)}, 0), ({"chunks": (1, 4, 4)}, 0)]
)
@pytest.mark.parametrize("count", [1, 2, 9, 100, 3000])
def test_the_sample_is_bounded_spread_and_always_the_same(store, count, create, cache_mb):
    data = np.zeros((count, 4, 4), np.float32)
    data[5:8] = np.nan
    if create and count < create["chunks"][0]:
        create = {"chunks": (1, 4, 4)}
    images = store(data, create=create, cache_mb=cache_mb)
    rows = sample_rows(images)
    assert len(rows) == len(np.unique(rows)) <= module.MOST_CUTOUTS
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(images.usable)
    np.testing.assert_array_equal(rows, sample_rows(images))
    if count <= 100:
        assert len(rows) == len(images.usable)
    else:
        assert rows[0] < 0.01 * count
        assert rows[-1] > 0.99 * count
        assert np.diff(rows).max() < 0.1 * count
    if not images.in_memory and count > 100:  # few places, each in one piece
        length = images.rows_per_read if images.rows_per_read > 1 else 8
        assert len(np.unique(rows // length)) <= module.MOST_PLACES


def test_large_cutouts_and_large_chunks_are_sampled_less(store, monkeypatch):
    images = store(np.zeros((40, 16, 16), np.float32), create={"chunks": (2, 16, 16)}, cache_mb=0)
    monkeypatch.setattr(module, "MOST_PIXELS", 10 * 256)
    assert len(sample_rows(images)) <= 11
    monkeypatch.setattr(module, "MOST_BYTES", 3 * 2 * 1024)  # three chunks
    assert len(np.unique(sample_rows(images) // 2)) == 3


def test_sorting_is_bounded_and_finds_a_single_absurd_pixel_all_the_same(store, monkeypatch):
    monkeypatch.setattr(module, "MOST_SORTED", 100)
    for place in range(0, 640, 37):
        data = field((10, 8, 8))
        data.ravel()[place] = 1e30
        found = look_at(store(data))
        ((extreme,),) = [apart.extremes for apart in found.apart]
        assert (extreme.values, extreme.count, found.maximum) == ((float(np.float32(1e30)),), 1, np.float32(1e30))


# ---------------------------------------------------------------- constant cutouts


@pytest.mark.parametrize("create", [{}, {"chunks": (3, 1, 8, 8)}])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_whether_all_are_constant_is_looked_up_in_the_whole_file(store, monkeypatch, create, cache_mb):
    monkeypatch.setattr(module, "MOST_PIXELS", 4 * 64)  # four cutouts at a time
    data = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None, None], (20, 1, 8, 8)).copy()
    data[3, 0, 0] = np.nan
    images = store(data, create=create, cache_mb=cache_mb)
    assert look_at(images).constant_share == 1
    assert all_constant(images)
    data[18, 0, 3, 3] += 1
    assert not all_constant(store(data, create=create, cache_mb=cache_mb))


def test_a_cutout_with_a_pattern_in_one_channel_is_not_constant(store):
    data = np.ones((4, 3, 8, 8), np.float32)
    data[:2, 1, 0, 0] = 2
    assert look_at(store(data)).constant_share == 0.5


# ---------------------------------------------------------------- space that was never written


def test_a_file_that_changes_under_the_look_is_refused(store):
    data = field((20, 8, 8))
    data[3] = np.nan
    images = store(data)
    images._usable = np.arange(20)  # as it was when the file was looked through
    with pytest.raises(DataError, match="have none now: the file is being changed"):
        look_at(images)


def test_nothing_is_nan_in_a_set_of_two_cutouts(store):
    found = look_at(store(field((2, 4, 4))))
    assert not any(math.isnan(value) for value in vars(found).values() if isinstance(value, float))


# ---------------------------------------------------------------- what the sample does not show


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("mark", [-32767, 1e19, -9999])
def test_a_mark_outside_the_sample_is_seen_where_the_file_is_looked_through(store, cache_mb, mark):
    data = field((2000, 2, 4, 4))
    data[17:23, 1, :2] = mark
    data[24, 0, 0] = np.nan
    images = store(data, cache_mb=cache_mb)
    assert not set(sample_rows(images)) & set(range(17, 23))
    found = look_at(images)
    assert (found.minimum, found.maximum) == (np.nanmin(data), np.nanmax(data))
    (apart,) = found.apart
    assert (apart.channel, apart.extremes[0].values, apart.extremes[0].count) == (1, (np.float32(mark),), 0)
    (line,) = doubts(images, found)
    assert line.startswith(
        f"some pixels of channel 1, in cutouts other than those looked at, are {np.float32(mark):g},"
    )
    assert found.largest < 400


def test_the_ends_are_those_of_valid_pixels_of_usable_cutouts(store):
    data = field((40, 2, 6, 6))
    data[3] = np.nan
    data[3, :, 0] = 5000  # not usable
    data[5, 0, :3] = -999
    data[6, 1, 0, 0] = np.inf
    images = store(data, attrs={"_FillValue": np.float32(-999)}, max_nodata=0.6)
    assert images.usable.tolist() == [row for row in range(40) if row != 3]
    used = np.where((data == -999) | np.isinf(data), np.nan, data)[images.usable]
    np.testing.assert_array_equal(images.ends, [np.nanmin(used, (0, 2, 3)), np.nanmax(used, (0, 2, 3))])
    assert store(np.zeros((2, 4, 4), np.uint8)).ends is None
    marked = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    np.testing.assert_array_equal(store(marked, missing=[0, 31]).ends, [[1], [30]])


def test_a_channel_that_is_constant_in_most_cutouts_is_named(store):
    data = field((20, 3, 8, 8))
    data[:11, 1] = 0
    data[:9, 2] = 7
    images = store(data)
    found = look_at(images)
    assert found.constant_channels == {1: pytest.approx(0.55)}
    assert found.constant_share == 0
    assert any(line.startswith("channel 1 is constant in 55 % of the cutouts") for line in doubts(images, found))
    data[:11] = 0  # the cutouts are, and no channel more than others
    assert look_at(store(data)).constant_channels == {}


def test_a_declared_mark_that_no_pixel_has_is_told_and_no_doubt(store):
    data = field((20, 8, 8))
    data[:, 0, 0] = -999
    images = store(data, missing=[-999, -9999])
    found = look_at(images)
    assert found.not_found == (-9999,)
    assert "none is -9999, which missing declares" in sum_up(found)
    assert doubts(images, found) == []
    data[4] = -9999
    assert look_at(store(data, missing=[-999, -9999])).not_found == ()  # that cutout is left out for it


def test_a_mark_in_unpacked_units_is_said_to_be_that(store):
    data = np.random.default_rng(0).integers(-300, 300, (20, 8, 8)).astype(np.int16)
    data[:, 0, :3] = -1000
    attrs = {"scale_factor": 0.1, "missing_value": -100.0}
    images = store(data, attrs=attrs)
    (line,) = doubts(images, look_at(images))
    assert "-1000 (as stored)" in line
    assert "After packing that is -100, as _FillValue or missing_value say, which seem to be in unpacked units" in line
    data[:, 0, :3] = -100
    images = store(data, attrs=attrs)
    assert doubts(images, look_at(images)) == []
