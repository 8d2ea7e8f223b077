"""Order of the axes: any order gives the pixels of the usual one, and shapes that speak for another are noticed."""

import itertools
import pickle
import re
import types

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data.axes import doubt
from nenya.data.images import ImageFile
from nenya.errors import DataError

COUNT, CHANNELS, HEIGHT, WIDTH = 11, 3, 5, 7
ORDERS = ["".join(order) for letters in ("NHW", "NCHW") for order in itertools.permutations(letters)]
CUTOUTS_FIRST = [order for order in ORDERS if order[0] == "N"]
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "gzip": {"compression": "gzip", "shuffle": True},
}


@pytest.fixture(scope="module")
def field():
    """[N, C, H, W], all sizes different, some pixels missing."""
    field = np.random.default_rng(0).normal(290, 3, (COUNT, CHANNELS, HEIGHT, WIDTH)).astype(np.float32)
    field[2, 1, 0, :3] = np.nan
    field[5] = np.nan
    return field


@pytest.fixture(scope="module")
def permuted(tmp_path_factory, field):
    """A file with the same pixels in every order and layout; those without C are the first channel."""
    path = tmp_path_factory.mktemp("axes") / "a.h5"
    with h5py.File(path, "w") as file:
        for order, (layout, create) in itertools.product(ORDERS, LAYOUTS.items()):
            whole = field if "C" in order else field[:, 0]
            letters = "NCHW" if "C" in order else "NHW"
            stored = np.ascontiguousarray(np.transpose(whole, [letters.index(letter) for letter in order]))
            # chunks of a few along each axis, so that they cut across cutouts and frames
            chunks = {"chunks": tuple(max(1, size // 2) for size in stored.shape)} if create else {}
            file.create_dataset(f"{order}_{layout}", data=stored, **{**create, **chunks})
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("order", "cache_mb"), [(order, 1) for order in ORDERS] + [(order, 0) for order in CUTOUTS_FIRST]
)
def test_every_order_gives_the_pixels_of_the_usual_one(permuted, field, order, cache_mb, layout):
    images = ImageFile(permuted, f"{order}_{layout}", axes=order, cache_mb=cache_mb)
    usual = field if "C" in order else field[:, :1]
    assert images.shape == usual.shape
    assert len(images) == COUNT
    assert images.usable.tolist() == [row for row in range(COUNT) if row != 5]

    @settings(max_examples=8)
    @given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20))
    def check(rows):
        stored = images.read_stored(np.array(rows))
        np.testing.assert_array_equal(stored, usual[rows])
        assert stored.flags.c_contiguous
        assert stored.flags.writeable

    check()
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.read_stored(np.arange(COUNT)), usual)


@pytest.mark.parametrize("order", ["HWN", "WHN", "WHCN", "CHWN", "HNW"])
def test_scattered_cutouts_above_the_cache_are_refused_with_a_line_that_mends_it(tmp_path, order):
    letters = "NCHW" if "C" in order else "NHW"
    whole = np.random.default_rng(1).normal(size=[{"N": 64, "C": 3, "H": 40, "W": 60}[letter] for letter in letters])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.transpose(whole, [letters.index(letter) for letter in order])
    with pytest.raises(DataError, match=r"scattered.*more than cache_mb = 1\. Raise cache_mb") as refused:
        ImageFile(tmp_path / "a.h5", "a", axes=order, cache_mb=1)
    line = re.search(r"new\['a'\] = .*\)$", str(refused.value)).group()
    with h5py.File(tmp_path / "a.h5") as old, h5py.File(tmp_path / "b.h5", "w") as new:
        exec(line, {"old": old, "new": new})
    images = ImageFile(tmp_path / "b.h5", "a", cache_mb=0)
    np.testing.assert_array_equal(images.read_stored(np.arange(64)), whole.reshape(64, -1, 40, 60))


def test_unsigned_bits_and_axes_go_together(tmp_path):
    unsigned = np.random.default_rng(2).integers(0, 256, (5, 8, 9, 2)).astype(np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = unsigned.view(np.int8)
        file["a"].attrs["_Unsigned"] = "true"
    images = ImageFile(tmp_path / "a.h5", "a", axes="NHWC", missing=[255])
    expected = unsigned.transpose(0, 3, 1, 2).astype(np.float64)
    for n, c in np.ndindex(5, 2):
        gaps = expected[n, c] == 255
        expected[n, c][gaps] = expected[n, c][~gaps].mean()
    np.testing.assert_allclose(images.read(np.arange(5)), expected, rtol=1.2e-7)


def dataset(shape, kind="f4", **attrs):
    """What the checks look at of a dataset, without its pixels."""
    return types.SimpleNamespace(shape=shape, dtype=np.dtype(kind), attrs=attrs)


def opened(tmp_path, shape, axes=None, userblock=0, attrs=()):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=userblock) as file:
        file.create_dataset("a", shape, "u1", chunks=True).attrs.update(attrs)
    if userblock:
        with open(tmp_path / "a.h5", "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return ImageFile(tmp_path / "a.h5", "a", axes=axes)


def test_a_legitimate_shape_that_looks_odd_has_a_way_in(tmp_path):
    with pytest.raises(DataError, match=r'looks like \[N, H, W, C\].*"axes": "NHWC".*"axes": "NCHW" takes the shape'):
        opened(tmp_path, (8, 32, 32, 16))
    assert opened(tmp_path, (8, 32, 32, 16), axes="NCHW").shape == (8, 32, 32, 16)
    assert opened(tmp_path, (8, 32, 32, 16), axes="NHWC").shape == (8, 16, 32, 32)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((8, 16, 16), "NHWC", r"shape \(8, 16, 16\), but axes is 'NHWC', which names 4 axes"),
        ((8, 1, 16, 16), "NHW", "but axes is 'NHW', which names 3 axes"),
        ((8, 16, 3), "NHW", "16 x 3 pixels are too small"),
        ((64, 64, 1, 100), None, r'1 x 100 pixels are too small.*"axes": "HWCN" for \[H, W, C, N\]'),
    ],
)
def test_axes_that_do_not_fit_are_refused(tmp_path, shape, axes, expected):
    with pytest.raises(DataError, match=expected):
        opened(tmp_path, shape, axes)


MATLAB = {"MATLAB_class": np.bytes_("single")}


@pytest.mark.parametrize("how", [{"attrs": MATLAB}, {"userblock": 512}])
@pytest.mark.parametrize(
    ("shape", "order"), [((20, 20, 100), "WHN"), ((30, 20, 1000), "WHN"), ((64, 64, 12, 100), "WHCN")]
)
def test_a_file_of_matlab_with_the_cutouts_last_is_refused_and_read_when_told(tmp_path, shape, order, how):
    with pytest.raises(DataError, match=rf'written by MATLAB.*"axes": "{order}"'):
        opened(tmp_path, shape, **how)
    assert len(opened(tmp_path, shape, axes=order, **how)) == shape[-1]


@pytest.mark.parametrize("shape", [(100, 20, 20), (100, 20, 30), (24, 1, 16, 16), (20, 20, 20)])
def test_a_file_of_matlab_with_the_cutouts_along_its_last_axis_is_taken(tmp_path, shape):
    assert opened(tmp_path, shape, attrs=MATLAB).shape[0] == shape[0]
    assert doubt(dataset(shape, **MATLAB), tmp_path / "none") is None


@pytest.mark.parametrize(
    ("shape", "suggested"),
    [
        ((20, 20, 100), "HWN"),
        ((64, 64, 32), "HWN"),
        ((30, 20, 1000), "HWN"),
        ((64, 64, 12, 100), "HWCN"),
        ((3, 64, 64, 1000), "CHWN"),
        ((100, 64, 64, 30), "NHWC"),
        ((100, 48, 64, 12), "NHWC"),
        ((3, 1000, 64, 64), "CNHW"),
        ((1, 500, 32, 32), "CNHW"),
        ((3, 64, 64, 300), "CHWN"),
        ((3, 48, 64, 300), "CHWN"),
    ],
)
def test_shapes_that_speak_for_another_order_are_doubted_with_the_option_named(tmp_path, shape, suggested):
    assert f'"axes": "{suggested}"' in doubt(dataset(shape), tmp_path / "none")


@pytest.mark.parametrize(
    ("shape", "suggested"),
    [
        ((48, 64, 200), "WHN"), ((64, 48, 3, 200), "WHCN"), ((64, 48, 12, 100), "WHCN"), ((3, 48, 64, 300), "CWHN"),
        ((1, 64, 64, 200), "CWHN"),
    ],
)  # fmt: skip
def test_a_file_of_matlab_whose_last_axis_is_the_longest_is_doubted(tmp_path, shape, suggested):
    remark = doubt(dataset(shape, **MATLAB), tmp_path / "none")
    assert f'"axes": "{suggested}"' in remark


def named(path, shape, names, how="scales"):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", shape, "f4", chunks=(1, *shape[1:]))
        for axis, (name, size) in enumerate(zip(names, shape, strict=True)):
            if how == "labels":
                data.dims[axis].label = name
            else:
                file[name] = np.zeros(size)
                file[name].make_scale(name)
                data.dims[axis].attach_scale(file[name])
    return path


@pytest.mark.parametrize("how", ["scales", "labels"])
@pytest.mark.parametrize(
    ("shape", "names", "order"),
    [
        ((16, 20, 60), "y x sample", "HWN"), ((16, 20, 60), "row col n", "HWN"), ((16, 60, 20), "Y cutout X", "HNW"),
        ((3, 60, 16, 20), "channel n y x", "CNHW"), ((60, 16, 20, 12), "n y x band", "NHWC"),
        ((60, 20, 16), "n x y", None), ((60, 16, 20), "n y x", None), ((60, 16, 512), "n y x", None),
        ((60, 32, 32, 12), "n channel y x", None), ((3, 500, 16, 16), "n band y x", None),
        ((60, 16, 20), "p q r", None),        ((60, 16, 20), "n y y2", None),
    ],
)  # fmt: skip
def test_names_of_dimensions_decide(tmp_path, shape, names, order, how):
    path = named(tmp_path / "n.h5", shape, names.split(), how)
    remarks = ImageFile(path, "a").remarks
    if order is None:
        assert remarks == ()
        return
    (remark,) = remarks
    assert f"its dimensions are named ({', '.join(names.split())})" in remark
    assert f'"axes": "{order}"' in remark
    assert ImageFile(path, "a", axes=order).remarks == ()


def test_names_that_agree_with_a_shape_that_speaks_for_another_order_lift_no_refusal(tmp_path):
    with pytest.raises(DataError, match='"axes": "NHWC"'):
        ImageFile(named(tmp_path / "n.h5", (60, 32, 32, 12), ["n", "y", "x", "band"]), "a")


@pytest.mark.parametrize(
    "shape",
    [
        (100, 20, 20), (20, 20, 20), (64, 64, 64), (8, 64, 64), (1000, 32, 48), (12, 40, 60), (1000, 8, 64),
        (100, 1, 64, 64), (100, 3, 64, 64), (8, 8, 64, 64), (3, 3, 64, 64), (64, 64, 64, 64), (100, 4, 4, 4),
        (100, 13, 64, 64), (100, 13, 120, 90), (6, 1, 16, 16), (2, 12, 64, 64),
    ],
)  # fmt: skip
def test_usual_shapes_are_not_doubted(tmp_path, shape):
    assert doubt(dataset(shape), tmp_path / "none") is None
