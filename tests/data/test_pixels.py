"""Stored pixels: they travel in their own type where torch has it, and become float32 as NumPy says they should."""

import h5py
import numpy as np
import pytest
import torch

from nenya.data.images import ImageFile
from nenya.data.pixels import Packing, travelling_type

TRAVELLING = {
    "|b1": "u1", "|u1": "u1", "|i1": "i1", "<i2": "i2", ">i2": "i2", "<u2": "i4", ">u2": "i4", "<i4": "i4",
    "<u4": "i8", ">i8": "i8", "<u8": "f8", "<f2": "f2", ">f2": "f2", ">f4": "f4", "<f8": "f8",
}  # fmt: skip


@pytest.mark.parametrize("kind", TRAVELLING)
@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 4, 6), "compression": "gzip"}])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_pixels_travel_as_stored_in_a_type_that_torch_computes_in(tmp_path, kind, layout, cache_mb):
    data = np.random.default_rng(0).integers(0, 2 if kind == "|b1" else 100, (5, 4, 6)).astype(kind)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=data, **layout)
    images = ImageFile(tmp_path / "a.h5", "a", cache_mb=cache_mb)
    rows = np.array([3, 0, 3])
    pixels = images.read_stored(rows)
    assert pixels.dtype == np.dtype(TRAVELLING[kind])
    assert pixels.dtype.isnative
    assert pixels.flags.writeable
    assert images.row_bytes * len(rows) == pixels.nbytes
    np.testing.assert_array_equal(pixels[:, 0], data[rows])
    torch.from_numpy(pixels).add_(1)  # our own: neither the file nor what is kept in memory changes
    np.testing.assert_array_equal(images.read_stored(rows)[:, 0], data[rows])


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i8"])
def test_widening_loses_nothing(kind):
    limits = np.iinfo(kind)
    extremes = np.array([limits.min, limits.max], kind)
    assert extremes.astype(travelling_type(extremes.dtype)).tolist() == extremes.tolist()


def test_long_double_travels_as_float64():
    assert travelling_type(np.dtype(np.longdouble)) == np.float64


# ---------------------------------------------------------------- to float32


def reference(stored, marks, factor=1.0, offset=0.0, scale=1.0):
    """One pixel after another, in NumPy's float64."""
    with np.errstate(over="ignore"):
        pixels = ((stored.astype(np.float64) * factor + offset) * scale).astype(np.float32)
        missing = ~np.isfinite(stored.astype(np.float32)) if stored.dtype.kind == "f" else np.zeros(stored.shape, bool)
    for mark in marks:
        missing |= stored == np.asarray(mark).astype(stored.dtype)
    for n, c in np.ndindex(stored.shape[:2]):
        valid = pixels[n, c][~missing[n, c]].astype(np.float64)
        pixels[n, c][missing[n, c]] = valid.mean() if len(valid) else np.nan
    return pixels


@pytest.mark.parametrize("packing", [{}, {"scale": 0.5}, {"factor": 0.005, "offset": 273.15, "scale": 2.0}])
@pytest.mark.parametrize("marks", [(), (7,), (7, -3)])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i8"])
def test_float32_is_what_numpy_makes_of_it(kind, marks, packing):
    rng = np.random.default_rng(1)
    stored = rng.integers(-9, 9, (6, 2, 5, 7)).astype(kind)
    stored[5, 1] = 7  # a channel without a valid pixel, where 7 is a mark
    if np.dtype(kind).kind == "f":
        stored[1:3][rng.random((2, 2, 5, 7)) < 0.2] = np.nan
        stored[3, 0, 0, :2] = np.inf, -np.inf
        if kind == "f8":
            stored[4, 0, 0, 0] = 1e200
    before = stored.copy()
    unpacking = Packing.of(kind, list(marks), **{"factor": 1.0, "offset": 0.0, "scale": 1.0} | packing)
    pixels = unpacking.to_float(torch.from_numpy(stored))
    assert pixels.dtype == torch.float32
    # the mean of the valid pixels is summed in another order, and rounded to float32 once
    np.testing.assert_allclose(pixels.numpy(), reference(stored, marks, **packing), rtol=1.2e-7, atol=0)
    np.testing.assert_array_equal(stored, before)


def test_integers_are_compared_with_their_mark_exactly():
    stored = torch.tensor([2**24, 2**24 + 1, 5, 5]).view(1, 1, 2, 2)  # as float32 the first two are one
    missing = Packing.of("i8", [2**24], 1, 0, 1).missing(stored)
    assert missing.flatten().tolist() == [True, False, False, False]


def test_large_finite_pixels_whose_sum_overflows_are_not_missing():
    stored = torch.full((1, 1, 4, 4), 3e38)
    assert torch.equal(Packing(floating=True).to_float(stored), stored)


def test_a_tensor_that_is_not_on_the_host_is_never_looked_at():
    """On the meta device, which has no values, looking at one raises."""
    stored = torch.empty((3, 1, 4, 4), device="meta")
    for unpacking in (Packing(floating=True), Packing(floating=True, marks=(1.0,), scale=0.5), Packing(floating=False)):
        assert unpacking.to_float(stored).shape == stored.shape
