"""Attributes that change what numbers mean: decoded as the conventions say, and refused where they mean nothing."""

import math
import re

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data.attributes import MOST_MARKS, fit, read_meaning
from nenya.data.images import ImageFile
from nenya.data.loaders import open_images
from nenya.data.pixels import Packing
from nenya.errors import DataError

INTEGERS = ["i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", "<u4", ">i4", "<i8", "<u8"]


def reference(stored, attrs):
    """Decode as CF 1.11 (2.5.1, 8.1) and the NetCDF Users' Guide say, one pixel after another in Python's numbers."""
    size = 8 * stored.dtype.itemsize
    says = attrs.get("_Unsigned")
    numbers = [[int(number) for number in cutout.ravel()] for cutout in stored]
    if says == "true":
        numbers = [[number % 2**size for number in cutout] for cutout in numbers]
    elif says == "false":
        numbers = [[(number + 2 ** (size - 1)) % 2**size - 2 ** (size - 1) for number in cutout] for cutout in numbers]
    marks = [int(mark) % 2**size for name in ("_FillValue", "missing_value") for mark in np.ravel(attrs.get(name, []))]
    decoded = []
    for cutout in numbers:
        values = [
            None if number % 2**size in marks else number * attrs.get("scale_factor", 1) + attrs.get("add_offset", 0)
            for number in cutout
        ]
        valid = [np.float32(value) for value in values if value is not None]
        mean = math.fsum(valid) / len(valid) if valid else math.nan
        decoded.append([mean if value is None else np.float32(value) for value in values])
    return np.array(decoded, np.float64).reshape(stored.shape)


def write(path, data, attrs, **create):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=data, **create).attrs.update(attrs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attributes")


@settings(max_examples=60)
@given(
    kind=st.sampled_from(INTEGERS),
    unsigned=st.sampled_from([None, "true", "false"]),
    marks=st.lists(st.integers(0, 8), max_size=3),
    sign_of_marks=st.sampled_from(["i", "u"]),
    packing=st.sampled_from([{}, {"scale_factor": 0.01}, {"scale_factor": -2.0, "add_offset": 273.15}]),
    layout=st.sampled_from([{}, {"chunks": (2, 4, 4), "compression": "gzip", "shuffle": True}]),
    cache_mb=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_integers_are_decoded_as_the_conventions_say(
    folder, kind, unsigned, marks, sign_of_marks, packing, layout, cache_mb, seed
):
    kind = np.dtype(kind)
    size = 8 * kind.itemsize
    bits = np.random.default_rng(seed).integers(0, 2 ** min(size, 50), (5, 4, 4), dtype=np.uint64)
    top, step = np.uint64(2**size - 1), np.uint64(4096 if size == 64 else 1)  # float64 tells no nearer ones apart
    bits = np.where(bits % 3 == 0, top - bits % 9 * step, bits & top)
    data = bits.astype(f"u{kind.itemsize}").view(f"{kind.kind}{kind.itemsize}").astype(kind)
    attrs = dict(packing)
    if unsigned is not None:
        attrs["_Unsigned"] = unsigned
    if marks:
        stored_marks = (top - np.array(marks, np.uint64) * step).astype(f"u{kind.itemsize}")
        attrs["_FillValue"] = stored_marks[:1].view(f"{sign_of_marks}{kind.itemsize}")[0]
        attrs["missing_value"] = stored_marks.view(f"{sign_of_marks}{kind.itemsize}")
    write(folder / "a.h5", data, attrs, **layout)
    images = ImageFile(folder / "a.h5", "a", cache_mb=cache_mb, max_nodata=0.99)
    expected = reference(data, attrs)
    # float64 holds no 64 bits, nor does NumPy's product round twice as Python's integers do
    np.testing.assert_allclose(images.read(np.arange(5))[:, 0], expected, rtol=1.3e-7, atol=1e-30)
    gapless = [row for row in range(5) if np.isfinite(expected[row]).all()]
    assert set(images.usable.tolist()) <= set(gapless)


@pytest.mark.parametrize("value", ["true", "True", "TRUE", b"true", np.array(["true"], "S8"), np.True_])
def test_unsigned_is_read_however_it_is_written(folder, value):
    data = np.arange(-8, 8, dtype=np.int8).reshape(1, 4, 4)
    write(folder / "a.h5", data, {"_Unsigned": value})
    np.testing.assert_array_equal(ImageFile(folder / "a.h5", "a").read(np.array([0]))[:, 0], data.view(np.uint8))


@pytest.mark.parametrize("data", [np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), bool)])
def test_unsigned_says_nothing_about_what_has_no_sign_bit(folder, data):
    write(folder / "a.h5", data, {"_Unsigned": "true"})
    assert ImageFile(folder / "a.h5", "a").read_stored(np.array([0])).dtype.kind in "fu"


def test_unsigned_bits_are_decoded_on_a_device_without_looking_at_it():
    """On the meta device, which has no values, looking at one raises."""
    for bits, kind in ((8, torch.int8), (16, torch.int16), (32, torch.int32), (64, torch.int64)):
        packing = Packing.of(f"u{bits // 8}", [3], 2.0, 0.0, 1.0, unsigned_bits=bits)
        assert packing.to_float(torch.empty((2, 1, 4, 4), dtype=kind, device="meta")).dtype == torch.float32


@pytest.mark.parametrize(
    ("mark", "kind", "expected"),
    [
        (65535, "i2", -1), (-1, "u1", 255), (-1.0, "u2", 65535), (255, "u1", 255), (128, "i1", -128),
        (2**64 - 1, "i8", -1), (-1, "u8", 2**64 - 1), (2**63 - 1, "i8", 2**63 - 1),
        (65536, "i2", None), (-999, "u1", None), (0.5, "i2", None), (math.nan, "i4", None), (math.inf, "i4", None),
        (-32769, "u2", None), (2, "b1", None), (1, "b1", 1), (-999.9, "f4", -999.9), (65535, "f4", 65535),
    ],
)  # fmt: skip
def test_a_mark_of_the_other_sign_is_the_number_of_the_same_bits(mark, kind, expected):
    assert fit(mark, np.dtype(kind)) == expected


@pytest.mark.parametrize(
    ("attrs", "remark"),
    [
        ({"_FillValue": np.uint16(65535)}, "_FillValue is 65535, which int16 has not; taken as -1"),
        (
            {"missing_value": np.float32(9.96921e36)},
            "missing_value is .*, which int16 has not: it marks nothing",
        ),
        ({"valid_range": "n/a"}, "valid_range is 'n/a'; expected a number.*not used"),
        ({"valid_range": [1, 2, 3]}, "valid_range has 3 values.*not used"),
        ({"valid_min": np.nan}, "valid_min is .*expected 1 numbers.*not used"),
    ],
)
def test_what_is_odd_and_harmless_is_remarked_upon(folder, attrs, remark):
    write(folder / "a.h5", np.zeros((2, 4, 4), np.int16), attrs)
    with h5py.File(folder / "a.h5") as file:
        (found,) = read_meaning(file["a"], folder / "a.h5").remarks
    assert re.search(remark, found)


@pytest.mark.parametrize(
    "attrs",
    [
        {"_FillValue": np.int16(-32768), "missing_value": np.array([-1, -2], np.int16)},
        {"_Unsigned": "true", "_FillValue": np.int16(-1), "valid_range": np.array([0, -2], np.int16)},
        {"scale_factor": 0.01, "add_offset": 273.15, "valid_min": np.int16(-300), "units": "K", "_FillValue": 32767},
    ],
)
def test_usual_attributes_are_not_remarked_upon(folder, attrs):
    write(folder / "a.h5", np.zeros((2, 4, 4), np.int16), attrs)
    with h5py.File(folder / "a.h5") as file:
        assert read_meaning(file["a"], folder / "a.h5").remarks == ()


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"valid_range": [1, 5]}, (1, 5)),
        ({"valid_min": 1}, (1, math.inf)),
        ({"valid_max": 5}, (-math.inf, 5)),
        ({"valid_range": np.array([0, -2], np.int16), "_Unsigned": "true"}, (0, 65534)),
        ({"valid_range": [270.5, 310.5]}, (270.5, 310.5)),
        ({}, None),
    ],
)
def test_the_valid_range_is_read_from_its_three_attributes(folder, attrs, expected):
    write(folder / "a.h5", np.zeros((2, 4, 4), np.int16), attrs)
    with h5py.File(folder / "a.h5") as file:
        assert read_meaning(file["a"], folder / "a.h5").valid_range == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("scale_factor", np.nan, "is nan; expected a finite number other than 0"),
        ("scale_factor", -np.inf, "is -inf; expected a finite number other than 0"),
        ("scale_factor", 0.0, "is 0.0; expected a finite number other than 0"),
        ("scale_factor", np.int16(0), "is 0; expected a finite number other than 0"),
        ("scale_factor", "0,01", "is '0,01'; expected a number"),
        ("scale_factor", 1 + 2j, "is .*; expected a number"),
        ("scale_factor", [1.0, 2.0], "has 2 values; expected one"),
        ("add_offset", np.nan, "is nan; expected a finite number"),
        ("add_offset", np.inf, "is inf; expected a finite number"),
        ("add_offset", h5py.Empty("f4"), "is 'empty'; expected a value"),
        ("_Unsigned", "maybe", 'is \'maybe\'; expected "true" or "false"'),
        ("_FillValue", "missing", "is 'missing'; expected a number"),
        ("_FillValue", "x" * 5000, r"is 'x{20,60}\.\.\.; expected a number"),
        ("missing_value", np.zeros(MOST_MARKS + 1), "has 65 values; expected at most 64"),
        ("scale_factor", np.zeros((0,)), "is 'empty'; expected a value"),
    ],
)
def test_attributes_that_mean_nothing_are_refused_by_name(folder, name, value, expected):
    write(folder / "a.h5", np.zeros((2, 4, 4), np.int16), {name: value})
    with pytest.raises(DataError, match=f"dataset 'a': attribute {name} {expected}") as refused:
        ImageFile(folder / "a.h5", "a")
    assert len(str(refused.value)) < 400


def test_a_number_that_is_written_as_text_is_read(folder):
    write(folder / "a.h5", np.full((2, 4, 4), 50, np.int16), {"scale_factor": "0.01", "add_offset": b"273.15"})
    np.testing.assert_allclose(ImageFile(folder / "a.h5", "a").read(np.array([0])), 273.65, rtol=1e-7)


def test_an_attribute_of_millions_of_numbers_is_not_read(folder, monkeypatch):
    with h5py.File(folder / "a.h5", "w", libver="latest") as file:  # whose attributes may be larger than 64 KB
        file["a"] = np.zeros((2, 4, 4), np.int16)
        file["a"].attrs["_FillValue"] = np.zeros(2_000_000)
    monkeypatch.setattr(h5py.AttributeManager, "__getitem__", None)
    with pytest.raises(DataError, match="_FillValue has 2000000 values; expected at most 64"):
        ImageFile(folder / "a.h5", "a")


def odd_attribute(path, name, kind, numbers):
    """One element that holds many numbers: a fixed array, a list of any length, or a long text."""
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = np.zeros((2, 4, 4), np.float32)
        one, double = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.IEEE_F64LE
        if kind == "array":
            held = h5py.h5t.array_create(double, numbers.shape)
            h5py.h5a.create(file["a"].id, name, held, one).write(numbers, mtype=held)
        elif kind == "list":
            held, values = h5py.vlen_dtype("f8"), np.empty((), h5py.vlen_dtype("f8"))
            values[()] = numbers
            h5py.h5a.create(file["a"].id, name, h5py.h5t.vlen_create(double), one).write(
                values, mtype=h5py.h5t.py_create(held)
            )
        else:
            file["a"].attrs[name.decode()] = np.bytes_(b"1" * len(numbers))


@pytest.mark.parametrize("name", [b"_FillValue", b"missing_value", b"scale_factor", b"add_offset"])
@pytest.mark.parametrize("kind", ["array", "list", "text"])
def test_many_numbers_in_one_element_are_seen_and_refused(folder, monkeypatch, name, kind):
    odd_attribute(folder / "a.h5", name, kind, np.arange(100_000.0) + 1e5)
    if kind != "list":  # whose length no type tells
        monkeypatch.setattr(h5py.AttributeManager, "__getitem__", None)
    with pytest.raises(
        DataError, match=f"attribute {name.decode()} (has 100000 values|is 100000 bytes long); expected"
    ):
        ImageFile(folder / "a.h5", "a")


@pytest.mark.parametrize("kind", ["array", "list"])
def test_two_marks_in_one_element_are_two_marks(folder, kind):
    odd_attribute(folder / "a.h5", b"missing_value", kind, np.array([-999.0, -998.0]))
    with h5py.File(folder / "a.h5") as file:
        assert read_meaning(file["a"], folder / "a.h5").marks == (-999, -998)


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
@pytest.mark.parametrize(
    "value",
    ["", " ", np.bytes_(b""), np.zeros(0, "f4"), h5py.Empty("f4"), "N/A", "none", np.array(["n/a", "-9"], "S3")],
)
def test_a_mark_that_is_nothing_marks_nothing(folder, name, dtype, value):
    is_text = str(value).strip(" b'") not in ("", "[]") and not isinstance(value, h5py.Empty)
    write(folder / "a.h5", np.ones((2, 4, 4), dtype), {name: value})
    with h5py.File(folder / "a.h5") as file:
        if is_text and dtype is np.int16:
            with pytest.raises(DataError, match="expected a number"):
                read_meaning(file["a"], folder / "a.h5")
            return
        meaning = read_meaning(file["a"], folder / "a.h5")
    assert meaning.marks == ((-9,) if isinstance(value, np.ndarray) and len(value) else ())
    (remark,) = meaning.remarks
    assert remark.startswith(f"attribute {name} is ")
    assert remark.endswith(": it marks nothing")


def test_a_mark_in_unpacked_units_says_which_number_it_may_be(folder):
    attrs = {"scale_factor": 0.01, "add_offset": 290.0, "missing_value": -9999 * 0.01 + 290}
    write(folder / "a.h5", np.zeros((2, 4, 4), np.int16), attrs)
    with h5py.File(folder / "a.h5") as file:
        (remark,) = read_meaning(file["a"], folder / "a.h5").remarks
    assert remark.endswith("marks nothing, unless it is meant in unpacked units: stored as -9999")


# ---------------------------------------------------------------- the option `missing`


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize(
    ("kind", "bad", "declared"),
    [
        ("<f4", -999.9, -999.9), ("<f4", 9.969209968386869e36, 9.96921e36), (">f4", 1e20, 1e20), ("<f8", -0.9, -0.9),
        ("<i2", -32767, -32767), ("<u2", 65535, 65535.0), ("u1", 255, 255), ("<f2", 60000, 60000), ("<i4", 0, 0),
        ("<i8", 2**63 - 1, 2**63 - 1), ("<f8", 1e300, 1e300),
    ],
)  # fmt: skip
def test_declared_marks_are_missing_pixels_as_the_file_stores_them(folder, kind, bad, declared, cache_mb):
    rng = np.random.default_rng(5)
    data = rng.integers(1, 100, (4, 5, 6)).astype(kind)
    gaps = rng.random(data.shape) < 0.3
    data[gaps] = bad
    attrs = {"scale_factor": 0.5, "add_offset": 10.0}
    write(folder / "a.h5", data, attrs)
    pixels = ImageFile(
        folder / "a.h5", "a", missing=[-7, declared] if kind[-2] != "u" else [declared], cache_mb=cache_mb
    )
    expected = data.astype(np.float64) * 0.5 + 10
    for n in range(4):
        expected[n][gaps[n]] = expected[n][~gaps[n]].mean()
    np.testing.assert_allclose(pixels.read(np.arange(4))[:, 0], expected, rtol=1.2e-7)


@pytest.mark.parametrize("how", ["_FillValue", "missing"])
@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4"])
@pytest.mark.parametrize("mark", [-999.9, 1e20, -9.99e33, 0.1])
@pytest.mark.parametrize("rounded", ["mark", "pixels", "both", "neither"])
def test_a_mark_is_found_though_it_or_the_pixels_were_rounded_to_float32(folder, how, kind, mark, rounded):
    data = np.random.default_rng(0).normal(290, 3, (2, 5, 6)).astype(kind)
    data[:, 0, :2] = np.float32(mark) if rounded in ("pixels", "both") else mark
    given = np.float32(mark) if rounded in ("mark", "both") else np.float64(mark)
    write(folder / "a.h5", data, {"_FillValue": given} if how == "_FillValue" else {})
    images = ImageFile(folder / "a.h5", "a", missing=[] if how == "_FillValue" else [float(given)])
    expected = [cutout.ravel()[2:].mean() for cutout in data]
    np.testing.assert_allclose(images.read(np.arange(2))[:, 0, 0, :2], np.repeat(expected, 2).reshape(2, 2), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "mark", "expected"),
    [
        ("u1", -1, "missing has -1, a number that uint8 has not.*Its bits as uint8 are 255"),
        ("i2", 65535, "missing has 65535, .*Its bits as int16 are -1"),
        ("u1", 300, "missing has 300, a number that uint8 has not"),
        ("i4", 0.5, "missing has 0.5, a number that int32 has not.*before scale_factor"),
        ("f4", 1e40, "missing has 1e.40, a number that float32 has not"),
        ("f2", -70000, "missing has -70000, a number that float16 has not"),
    ],
)
def test_a_declared_mark_that_the_type_has_not_is_refused(folder, kind, mark, expected):
    write(folder / "a.h5", np.zeros((2, 4, 4), kind), {})
    with pytest.raises(DataError, match=f"dataset 'a': {expected}"):
        ImageFile(folder / "a.h5", "a", missing=[mark])


@pytest.mark.parametrize("valid", [False, True])
def test_a_declared_mark_that_only_one_set_has_is_a_mark_there(tiny, image_file, caplog, valid):
    with h5py.File(image_file, "r+") as file:
        shape = file["train"].shape
        del file["train"], file["valid"]
        file["train"], file["valid"] = np.ones(shape, np.int16), np.ones(shape, np.uint8)
        file["train"][:, ..., 0] = -999
        file["valid"][:, ..., 0] = 250
    opt = tiny(missing=[-999, 250])
    images = open_images(opt, valid=valid)
    assert images.packing.marks == ((250,) if valid else (-999, 250))
    assert (
        "valid: missing has -999, a number that uint8 has not: it marks pixels of train only" in caplog.text
    ) == valid
    np.testing.assert_array_equal(images.read(np.arange(2)), 1)
    with pytest.raises(DataError, match=r"missing has 70000, a number that u?int(8|16) has not"):
        open_images(tiny(missing=[-999, 70000]), valid=valid)
    with pytest.raises(DataError, match="missing has -999, a number that uint8 has not"):
        open_images(tiny(missing=[-999], train_key="valid", valid_key=None))
