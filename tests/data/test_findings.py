"""What the pixels are like is told, what is doubtful is warned about, what cannot be learned from is refused."""

import logging

import h5py
import numpy as np
import pytest

from nenya.data.findings import doubts, heed, sum_up, why_not_finite
from nenya.data.images import ImageFile
from nenya.data.statistics import look_at
from nenya.errors import DataError


@pytest.fixture
def store(tmp_path):
    def store(data, attrs=None, **options):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["a"] = data
            file["a"].attrs.update(attrs or {})
        return ImageFile(tmp_path / "a.h5", "a", **options)

    return store


def kelvins(count=24, size=16, seed=0):
    steps = np.random.default_rng(seed).normal(size=(count, size, size))
    return (np.cumsum(np.cumsum(steps, 1), 2) / 5 + 290).astype(np.float32)


def marked(data, mark, share=0.2, seed=1):
    data = data.copy()
    data[np.random.default_rng(seed).random(data.shape) < share] = mark
    return data


PACKING = {"scale_factor": 0.01, "add_offset": 273.15}


def packed():
    return ((kelvins() - 273.15) * 100).astype(np.int16)


def warned(images):
    return doubts(images, look_at(images))


# ---------------------------------------------------------------- marks that nobody declared


@pytest.mark.parametrize(
    ("data", "attrs", "shown"),
    [
        (marked(kelvins(), -999), {}, "-999"),
        (marked(kelvins(), -32767), {}, "-32767"),
        (marked(kelvins(), 9.969209968386869e36), {}, "9.96921e+36"),
        (marked(kelvins(), 1e20), {}, "1e+20"),
        (marked(kelvins(), 1e35), {}, "1e+35"),
        (marked(kelvins(), 0), {}, "0"),
        (marked(kelvins().astype(np.float64), -999.9), {}, "-999.9"),
        (marked(packed(), -32767), PACKING, "-32767"),
        (marked((kelvins() * 100).astype(np.uint16), 65535), {}, "65535"),
        (marked(np.clip(kelvins() - 190, 0, 150).astype(np.uint8), 255), {}, "255"),
    ],
)
def test_an_undeclared_mark_is_warned_about_and_the_way_out_works(store, data, attrs, shown):
    (line,) = warned(store(data, attrs))
    assert f" of the pixels are {shown}" in line
    assert line.startswith("2")  # per cent
    declared = line.partition('"missing": ')[2]
    assert declared == f"[{shown}]"
    assert warned(store(data, attrs, missing=[float(shown)])) == []


def test_a_single_absurd_pixel_is_warned_about(store):
    data = kelvins()
    data[3, 4, 5] = 1e30
    (line,) = warned(store(data))
    assert line.startswith("1 of 6144 pixels is 1e+30, the next value is ")


def test_the_channel_of_a_mark_is_named(store):
    data = np.stack([kelvins(), marked(kelvins(), -999)], axis=1)
    (line,) = warned(store(data))
    assert "of the pixels of channel 1 are -999" in line


def test_damage_and_pixels_too_large_for_their_squares_are_warned_about(store):
    rng = np.random.default_rng(3)
    data = kelvins()
    damaged = rng.random(data.shape) < 0.05
    garbage = np.frombuffer(rng.bytes(4 * int(damaged.sum())), np.float32)
    data[damaged] = np.where(np.isfinite(garbage), garbage, 290)
    assert any("absurdly far from all others" in line for line in warned(store(data)))
    (line,) = warned(store(kelvins(), scale=1e20))
    assert "squares overflow float32: set scale" in line


@pytest.mark.parametrize(
    "images",
    [
        {"data": kelvins()},
        {"data": kelvins() - 290},
        {"data": packed(), "attrs": PACKING | {"_FillValue": np.int16(-32768), "valid_range": [-300, 4500]}},
        {"data": marked(packed(), -32768), "attrs": PACKING | {"_FillValue": np.int16(-32768)}},
        {"data": packed(), "attrs": PACKING | {"valid_range": [270.0, 330.0]}},  # meant unpacked, and all inside
        {"data": marked(kelvins(), np.nan)},
        {"data": np.clip((kelvins() - 285) * 30, 0, 255).astype(np.uint8)},  # saturated at both ends
        {"data": np.random.default_rng(0).integers(0, 256, (24, 3, 16, 16)).astype(np.uint8)},
        {"data": kelvins() > 290},
        {"data": (kelvins() > 290).astype(np.uint8) * 255},
        {"data": np.exp(kelvins() - 290)},
    ],
)
def test_sound_imagery_is_not_warned_about(store, images):
    assert warned(store(**images)) == []


# ---------------------------------------------------------------- the other doubts


def test_the_share_outside_the_valid_range_is_warned_about_and_nothing_dropped(store):
    data = packed()
    highest = int(np.quantile(data, 0.9))
    images = store(data, PACKING | {"valid_range": np.array([-300, highest], np.int16)})
    (line,) = warned(images)
    assert line.startswith(f"10 % of the pixels lie outside valid_range [-300, {highest}]")
    assert "missing" in line
    assert images.read(np.arange(24)).max() == np.float32(data.max() * 0.01 + 273.15)
    (line,) = warned(store(packed(), PACKING | {"valid_range": [270.0, 295.0]}))
    assert "seems to be in unpacked units" in line
    assert warned(store(packed(), {"valid_max": 1000}))[0].partition(" lie ")[2].startswith("above valid_max 1000")
    assert warned(store(packed(), {"valid_min": 1000}))[0].partition(" lie ")[2].startswith("below valid_min 1000")


def test_attributes_and_shapes_that_are_odd_are_warned_about(store):
    (line,) = warned(store(packed(), {"_FillValue": np.uint16(65535)}))
    assert "taken as -1" in line
    (line,) = warned(store(np.moveaxis(kelvins(40), 0, -1)))
    assert '"axes": "HWN"' in line
    assert warned(store(np.moveaxis(kelvins(40), 0, -1), axes="NHW")) == []


def test_constant_cutouts_are_warned_about_where_they_are_many(store):
    data = kelvins()
    data[:12] = 290
    lines = warned(store(data))
    assert lines == [line for line in lines if "constant" in line]
    assert lines[0].startswith("50 % of the cutouts looked at are constant")
    data = kelvins(100)
    data[0] = 290
    assert warned(store(data)) == []


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (np.full((6, 8, 8), 7.5), r"all 6 usable cutouts of 'a' are constant \(7.5 throughout"),
        (np.arange(6)[:, None, None] * np.ones((6, 8, 8)), "one value each throughout"),
        (300 + 1e-9 * kelvins(6).astype(np.float64), "300 throughout, rounded to float32"),
        (np.zeros((6, 2, 8, 8), np.uint8), "0 throughout"),
    ],
)
def test_a_file_of_constant_cutouts_is_refused(store, data, says):
    images = store(data)
    with pytest.raises(DataError, match=says):
        heed(images, look_at(images))


def test_a_sample_of_constant_cutouts_alone_is_not_refused(store, monkeypatch, caplog):
    monkeypatch.setattr("nenya.data.statistics.MOST_CUTOUTS", 3)
    data = np.full((9, 8, 8), 290, np.float32)
    data[1] += kelvins(1, 8)[0] - 290
    images = store(data)
    with caplog.at_level(logging.WARNING):
        heed(images, look_at(images))
    assert "100 % of the cutouts looked at are constant" in caplog.text


def test_overflow_is_refused_as_what_it_is(store):
    images = store(marked(kelvins(), 9.97e36), scale=100.0)
    says = r"of the pixels overflow float32 \(3.4e38\) after scale\. 2\d % of the pixels are 9.97e\+36 \(as stored\)"
    with pytest.raises(DataError, match=says):
        heed(images, look_at(images))
    images = store(packed(), {"scale_factor": 1e36, "add_offset": 1.0})
    with pytest.raises(DataError, match=r"100 % of the pixels overflow float32 \(3.4e38\) after scale_factor and add"):
        heed(images, look_at(images))


# ---------------------------------------------------------------- in one line


def test_the_line_on_the_pixels(store):
    data = np.full((4, 10, 10), 300.25, np.float32)
    data[:3, :, :5] = np.arange(50).reshape(10, 5) + 250
    data[0, 0, :5] = np.nan
    expected = (
        "250 to 300.25, median 300.25, 1.2 % missing, 63 % of the pixels are 300.25, 25 % of the cutouts constant"
    )
    assert sum_up(look_at(store(data))) == f"{expected} (4 cutouts looked at)"
    text = sum_up(look_at(store(packed(), PACKING | {"valid_range": [270.0, 330.0]})))
    assert "valid range [270, 330] seems to be in unpacked units" in text


# ---------------------------------------------------------------- a loss that is not finite


def test_pixels_that_are_finite_in_the_file_are_not_said_to_be_otherwise(store):
    found = [(0, 280.0), (1, float("nan")), (2, float("inf"))]
    text = why_not_finite(store(marked(kelvins(), 9.97e36)), found)
    assert text.startswith("The pixels of samples [1, 2] are finite in the file, but so large")
    assert "to 9.97e+36" in text
    text = why_not_finite(store(marked(kelvins(), 9.97e36), scale=100.0), found)
    assert "pixels of samples [1, 2] overflow float32 (3.4e38) after scale." in text
    text = why_not_finite(store(kelvins()), [(0, 1e30)])
    assert text.startswith("The pixels are finite, but as large as 1e+30: their squares overflow")
    assert why_not_finite(store(kelvins()), [(0, 300.0)]) is None


def test_cutouts_that_have_lost_a_channel_are_named(store):
    data = np.stack([kelvins(), kelvins()], axis=1)
    data[2, 1] = np.nan
    assert why_not_finite(store(data), [(2, float("nan"))]).startswith(
        "Samples [2] have no valid pixel left in some chan"
    )


# ---------------------------------------------------------------- constant only after rounding


@pytest.mark.parametrize(
    ("data", "options", "attrs", "words"),
    [
        (
            (kelvins() * 10).astype(np.int64) + 17 * 10**17,
            {},
            {},
            r"rounded to float32\), though .* 170000000000000\d+ ",
        ),
        (kelvins().astype(np.float64) / 100 + 2e9, {}, {}, r"rounded to float32\), though"),
        (kelvins(), {"scale": 1e-48}, {}, r"\(0 throughout, rounded to float32 after scale\), though .* from 2\d\d\."),
        (packed(), {}, {"scale_factor": 1e-60}, r"\(0 throughout, rounded to float32 after scale_factor\)"),
        (packed(), {}, {"scale_factor": 1e-9, "add_offset": 290.0}, r"after scale_factor and add_offset\), though"),
    ],
)
def test_what_is_constant_only_in_float32_says_so(store, data, options, attrs, words):
    images = store(data, attrs, **options)
    with pytest.raises(DataError, match=rf"cutouts of 'a' are constant .*{words}"):
        heed(images, look_at(images))


@pytest.mark.parametrize(
    "data", [np.full((6, 4, 4), 7.0), np.full((6, 4, 4), 7, np.int64), np.full((6, 4, 4), 7, "u1")]
)
def test_what_is_constant_in_the_file_is_not_blamed_on_rounding(store, data):
    images = store(data)
    with pytest.raises(DataError, match=r"are constant \(7 throughout\): there is nothing to learn from"):
        heed(images, look_at(images))
