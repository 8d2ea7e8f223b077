"""Imagery: every layout gives the same pixels, gaps are filled, and each mistake has its own message."""

import logging
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data import images as module
from nenya.data.chunks import ChunkReader
from nenya.data.contiguous import ContiguousReader
from nenya.data.hdf5 import dataset_names, has_dataset
from nenya.data.images import ImageFile
from nenya.errors import DataError

COUNT = 23
ROW_LISTS = st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=40)


def everything(images):
    return images.read(np.arange(len(images)))


@pytest.fixture
def store(tmp_path):
    """Write one dataset "a" and open it; `attrs` are the dataset's, other arguments go to h5py or to ImageFile."""

    def store(data, *, attrs=None, create=None, userblock=0, **options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w", userblock_size=userblock) as file:
            dataset = file.create_dataset("a", data=data, **(create or {}))
            dataset.attrs.update(attrs or {})
        return ImageFile(path, "a", **options)

    return store


def compact(file, name, data):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    kind, space = h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple(data.shape)
    h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))[...] = data


LAYOUTS = ("contiguous", "chunked", "split", "gzip", "compact")


@pytest.fixture(scope="module")
def field():
    """[N, C, H, W] with an odd, non-square frame and no gaps."""
    return np.random.default_rng(0).normal(290, 3, (COUNT, 2, 5, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory, field):
    """The same pixels in every layout that HDF5 has, in one file."""
    path = tmp_path_factory.mktemp("layouts") / "all.h5"
    with h5py.File(path, "w") as file:
        file["contiguous"] = field
        file.create_dataset("chunked", data=field, chunks=(4, 2, 5, 7))
        file.create_dataset("split", data=field, chunks=(3, 1, 2, 4))  # chunks that divide the frame too
        file.create_dataset("gzip", data=field, chunks=(5, 2, 5, 7), compression="gzip", shuffle=True)
        compact(file, "compact", field)
    return path


# ---------------------------------------------------------------- shapes and types


@pytest.mark.parametrize("frame", [(4, 4), (5, 9), (16, 16), (7, 4)])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_a_missing_channel_axis_is_one_channel(store, channels, frame):
    shape = (3, *frame) if channels is None else (3, channels, *frame)
    data = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    images = store(data)
    assert len(images) == 3
    assert (images.num_channels, images.height, images.width) == (channels or 1, *frame)
    assert images.shape == (3, channels or 1, *frame)
    np.testing.assert_array_equal(everything(images), data.reshape(3, channels or 1, *frame))


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("chunks", [None, (2, 4, 6)])
@pytest.mark.parametrize(
    "kind",
    ["<f2", "<f4", "<f8", ">f4", ">f8", "|i1", "|u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", ">i8", "<u8", "|b1"],
)
def test_every_number_type_becomes_native_float32(store, kind, chunks, cache_mb):
    kind = np.dtype(kind)
    rng = np.random.default_rng(2)
    if kind.kind == "f":
        data = rng.normal(size=(5, 4, 6)).astype(kind)
    elif kind.kind == "b":
        data = rng.random((5, 4, 6)) < 0.5
    else:
        limits = np.iinfo(kind)
        data = rng.integers(limits.min, limits.max, (5, 4, 6), kind.newbyteorder("="), endpoint=True).astype(kind)
        data[0, 0, :2] = limits.min, limits.max
    pixels = everything(store(data, create={"chunks": chunks}, cache_mb=cache_mb))
    assert pixels.dtype == np.float32
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels[:, 0], data.astype(np.float32))


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_rows_in_any_order_come_the_same_from_every_layout(layouts, field, layout, cache_mb):
    images = ImageFile(layouts, layout, cache_mb=cache_mb)

    @settings(max_examples=25)
    @given(ROW_LISTS)
    def check(rows):
        np.testing.assert_array_equal(images.read(np.array(rows)), field[rows])

    check()


@pytest.mark.parametrize("userblock", [0, 512, 4096])
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<i2", "|b1"])
def test_a_contiguous_dataset_above_the_cache_is_read_in_place(store, kind, userblock):
    data = np.random.default_rng(3).integers(0, 2, (6, 5, 4)).astype(kind)
    images = store(data, userblock=userblock, cache_mb=0)
    np.testing.assert_array_equal(everything(images)[:, 0], data.astype(np.float32))
    assert not images.in_memory
    assert isinstance(images._source(), ContiguousReader)


def test_a_dataset_up_to_cache_mb_is_kept_in_memory_and_a_larger_one_is_not(store):
    row = np.zeros((1, 256, 1024), np.float32)  # 1 MB
    assert store(row, cache_mb=1).in_memory
    assert not store(np.repeat(row, 2, axis=0), cache_mb=1).in_memory
    assert store(row.astype(np.uint8).repeat(4, axis=0), cache_mb=1).in_memory  # it is the stored size that counts


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("chunks", [None, (2, 4, 4)])
def test_space_that_was_never_written_reads_as_the_files_fill_value(tmp_path, chunks, cache_mb):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (6, 4, 4), "f4", chunks=chunks, fillvalue=7.5)
        if chunks:
            dataset[2:4] = 1
    pixels = everything(ImageFile(tmp_path / "a.h5", "a", cache_mb=cache_mb))
    expected = np.full((6, 1, 4, 4), 7.5, np.float32)
    if chunks:
        expected[2:4] = 1
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_what_is_read_is_the_callers_own(layouts, field, layout, cache_mb):
    images = ImageFile(layouts, layout, cache_mb=cache_mb)
    rows = np.arange(COUNT)
    first = images.read(rows)
    first[...] = -1
    np.testing.assert_array_equal(images.read(rows), field)
    np.testing.assert_array_equal(rows, np.arange(COUNT))


def test_filling_gaps_does_not_change_what_is_kept_in_memory(store):
    data = np.ones((3, 4, 4), np.float32)
    data[:, 0, 0] = np.nan
    images = store(data)
    assert np.isfinite(everything(images)).all()
    np.testing.assert_array_equal(images._source().pixels, data)


def test_each_chunk_is_touched_once_and_only_where_it_holds_a_wanted_row(layouts, field, monkeypatch):
    images = ImageFile(layouts, "chunked", cache_mb=0)  # 4 rows a chunk
    touched = []
    read = ChunkReader.read
    monkeypatch.setattr(ChunkReader, "read", lambda reader, *rows: touched.append(rows) or read(reader, *rows))
    rows = np.array([21, 1, 22, 13, 0, 1, 12, 3])
    np.testing.assert_array_equal(images.read(rows), field[rows])
    assert sorted(touched) == [(0, 4), (12, 16), (20, 23)]


def test_the_file_opens_once_for_many_reads(layouts, monkeypatch):
    opened = []
    original = module.open_file
    monkeypatch.setattr(module, "open_file", lambda path: opened.append(path) or original(path))
    images = ImageFile(layouts, "gzip", cache_mb=0)
    opened.clear()
    for row in range(5):
        images.read(np.array([row]))
    assert len(opened) == 1


# ---------------------------------------------------------------- missing pixels


def filled(data, missing):
    """The reference: gaps become the mean of the channel's valid pixels, one by one in float64."""
    result = data.astype(np.float64)
    for n, c in np.ndindex(data.shape[:2]):
        gaps = missing[n, c]
        result[n, c][gaps] = result[n, c][~gaps].mean() if (~gaps).any() else 0
    return result


ONE_ULP = 1.2e-7  # the mean is rounded to float32 once


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["<f2", "<f4", ">f8"])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_pixels_without_a_number_become_the_channels_mean(store, kind, bad, cache_mb):
    rng = np.random.default_rng(4)
    data = rng.normal(10, 3, (6, 3, 5, 6)).astype(kind)
    missing = rng.random(data.shape) < 0.3
    data[missing] = bad
    np.testing.assert_allclose(everything(store(data, cache_mb=cache_mb)), filled(data, missing), rtol=ONE_ULP)


def test_the_mean_is_taken_in_float64(store):
    data = np.ones((1, 1, 8, 8), np.float32)
    data[0, 0, 0, :2] = 2**24, np.nan  # 2^24 + 1 is no float32: sums of them lose the ones
    assert everything(store(data))[0, 0, 0, 1] == np.float32((2**24 + 62) / 63)


def test_a_float64_beyond_the_range_of_float32_is_missing(store):
    data = np.full((1, 1, 4, 4), 3.0)
    data[0, 0, 0, 0] = 1e200
    with np.errstate(all="raise"):
        np.testing.assert_array_equal(everything(store(data)), np.full((1, 1, 4, 4), 3, np.float32))


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize(
    ("kind", "bad"),
    [("<i2", -32768), ("|u1", 255), (">i4", -999), ("<i8", -(2**63)), ("<f4", -999.9), (">f4", 1e20), ("<f8", -999.9)],
)
def test_the_datasets_own_mark_of_a_gap_is_heeded(store, name, boxed, kind, bad):
    rng = np.random.default_rng(5)
    data = rng.integers(1, 100, (4, 2, 5, 6)).astype(kind)
    missing = rng.random(data.shape) < 0.3
    data[missing] = bad
    mark = np.asarray(bad, np.dtype(kind))
    images = store(data, attrs={name: mark.reshape(1) if boxed else mark[()]})
    np.testing.assert_allclose(everything(images), filled(data, missing), rtol=ONE_ULP)


def test_all_marks_count_those_of_both_attributes_and_of_a_list(store):
    data = np.full((1, 4, 4), 5, np.int16)
    data[0, 0] = -1, -2, -3, -4
    images = store(data, attrs={"_FillValue": np.int16(-1), "missing_value": np.array([-2, -3], np.int16)})
    expected = data.astype(np.float64)
    expected[0, 0, :3] = (12 * 5 - 4) / 13
    np.testing.assert_allclose(everything(images)[:, 0], expected, rtol=ONE_ULP)


def test_packing_that_is_no_number_is_refused_by_name(store):
    for name in ("scale_factor", "add_offset"):
        with pytest.raises(DataError, match=rf"'a'.*attribute {name}.*n/a"):
            store(np.zeros((2, 4, 4), np.float32), attrs={name: "n/a"})


def test_a_cutout_at_the_limit_is_kept_and_one_pixel_more_is_left_out_aloud(store, caplog):
    data = np.ones((4, 1, 10, 10), np.float32)
    for row, gaps in enumerate((30, 31, 0, 100)):
        data[row].reshape(-1)[:gaps] = np.nan
    images = store(data, max_nodata=0.3)
    with caplog.at_level(logging.WARNING):
        assert images.usable.tolist() == [0, 2]
    assert images.num_left_out == 2
    assert "2 of 4 cutouts are left out" in caplog.text
    caplog.clear()
    assert images.usable.tolist() == [0, 2]
    assert not caplog.text  # said once


@pytest.mark.parametrize(("first", "second"), [(2, 4), (1, 5), (3, 3), (6, 0)])
def test_the_share_counts_the_pixels_of_all_channels_together(store, first, second):
    data = np.ones((2, 2, 5, 4), np.float32)
    data[0, 0].reshape(-1)[:first] = np.nan
    data[0, 1].reshape(-1)[:second] = np.nan
    data[1, 0].reshape(-1)[:7] = np.nan
    assert store(data, max_nodata=0.15).usable.tolist() == [0]  # 6 of 40 are 0.15, 7 are not


def test_a_cutout_with_one_empty_channel_is_left_out(store):
    data = np.ones((2, 3, 4, 4), np.float32)
    data[1, 2] = np.nan
    assert store(data, max_nodata=0.9).usable.tolist() == [0]


def test_integers_without_a_mark_are_all_usable_and_not_looked_through(store, monkeypatch):
    images = store(np.zeros((5, 4, 4), np.int16))
    monkeypatch.setattr(images, "_read_block", None)
    assert images.usable.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("chunks", [None, (3, 1, 4, 4)])
@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_looking_through_in_blocks_finds_the_same(store, monkeypatch, block, chunks):
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)  # a cutout has 64 bytes
    data = np.ones((20, 1, 4, 4), np.float32)
    empty = [0, 7, 8, 19]
    data[empty] = np.nan
    images = store(data, create={"chunks": chunks}, cache_mb=0)
    assert images.usable.tolist() == [row for row in range(20) if row not in empty]
    blocks = list(images._blocks())
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert all(start % (chunks[0] if chunks else 1) == 0 for start, _ in blocks)  # no chunk is unpacked twice
    assert max(stop - start for start, stop in blocks) * 64 <= max(block, 64 * (chunks[0] if chunks else 1))


def test_a_file_without_a_usable_cutout_is_refused(store):
    images = store(np.full((3, 4, 4), np.nan, np.float32))
    with pytest.raises(DataError, match=r"no cutout of 'a' is usable.*all 3.*max_nodata = 0.5.*100%"):
        _ = images.usable


# ---------------------------------------------------------------- scale and packing


@pytest.mark.parametrize("boxed", [False, True])
def test_packing_is_undone_and_the_scale_applied_in_float64(store, boxed):
    data = np.random.default_rng(6).integers(-30000, 30000, (4, 5, 6)).astype(np.int16)
    data[0, 0, 0] = -32768
    attrs = {"scale_factor": 0.005, "add_offset": 273.15, "_FillValue": np.int16(-32768)}
    if boxed:
        attrs = {name: np.array([value]) for name, value in attrs.items()}
    images = store(data, attrs=attrs, scale=0.5)
    expected = (data.astype(np.float64) * 0.005 + 273.15) * 0.5
    gap = np.zeros(data.shape, bool)
    gap[0, 0, 0] = True
    pixels = everything(images)[:, 0]
    np.testing.assert_array_equal(pixels[~gap], expected[~gap].astype(np.float32))
    assert pixels[0, 0, 0] == pytest.approx(expected[0][~gap[0]].mean(), rel=ONE_ULP)


def test_scale_brings_bytes_to_zero_to_one(store):
    data = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    pixels = everything(store(data, scale=1 / 255))
    np.testing.assert_allclose(pixels.ravel(), np.arange(256) / 255, rtol=6e-8, atol=0)  # half an ulp of float32
    assert pixels.max() == 1


# ---------------------------------------------------------------- labels


@pytest.fixture
def labelled(tmp_path):
    def labelled(labels):
        with h5py.File(tmp_path / "l.h5", "w") as file:
            file["a"] = np.zeros((4, 4, 4), np.float32)
            file["a_labels"] = labels
        return ImageFile(tmp_path / "l.h5", "a")

    return labelled


@pytest.mark.parametrize("kind", ["|i1", "|u1", "<i4", ">i8", "<u8"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_labels_are_read_as_int64_for_every_cutout(labelled, kind, shape):
    labels = labelled(np.array([3, 0, 2, 3], kind).reshape(shape)).labels("a_labels")
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 0, 2, 3]


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 2), (1, 4), ()])
def test_labels_must_be_one_for_each_cutout(labelled, shape):
    with pytest.raises(DataError, match=r"labels 'a_labels'.*expected \(4,\)"):
        labelled(np.zeros(shape, np.int64)).labels("a_labels")


@pytest.mark.parametrize("labels", [np.zeros(4), np.array([b"front"] * 4)])
def test_labels_must_be_integers(labelled, labels):
    with pytest.raises(DataError, match="expected integers"):
        labelled(labels).labels("a_labels")


def test_missing_labels_list_what_is_there(labelled):
    with pytest.raises(DataError, match=r"'b_labels' for the labels is not there.*a \(4, 4, 4\).*a_labels \(4,\)"):
        labelled(np.zeros(4, int)).labels("b_labels")


# ---------------------------------------------------------------- mistakes


def test_a_missing_file_is_named_with_the_options_that_lead_to_it(tmp_path):
    with pytest.raises(DataError, match=rf"no image file at {tmp_path}/no\.h5.*images_file.*data_folder"):
        ImageFile(tmp_path / "no.h5", "a")


def test_a_folder_is_no_image_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        ImageFile(tmp_path, "a")


@pytest.mark.parametrize("content", [b"", b"CDF\x01" + bytes(500), b"x" * 5000])
def test_a_file_of_another_format_is_said_to_be_that(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(DataError, match="not an HDF5 file"):
        ImageFile(tmp_path / "a.h5", "a")


def test_a_truncated_file_is_said_to_be_damaged(store):
    path = store(np.zeros((50, 16, 16), np.float32)).path
    with path.open("r+b") as file:
        file.truncate(20000)
    with pytest.raises(DataError, match="damaged HDF5 file"):
        ImageFile(path, "a")


def test_a_missing_dataset_lists_all_there_are_with_their_shapes(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["sst/day"] = np.zeros((5, 4, 4))
        file["names"] = np.zeros(5)
    with pytest.raises(DataError, match=r"'train'.*is not there.*names \(5,\), sst/day \(5, 4, 4\).*train_key"):
        ImageFile(path, "train")
    with pytest.raises(DataError, match=r"'sst' .*is a group, not a dataset.*sst/day \(5, 4, 4\)"):
        ImageFile(path, "sst")
    with pytest.raises(DataError, match=r"'' .*is not there"):
        ImageFile(path, "")
    assert len(ImageFile(path, "sst/day")) == 5
    assert dataset_names(path) == {"names": (5,), "sst/day": (5, 4, 4)}


def test_an_empty_file_holds_no_datasets_at_all(tmp_path):
    h5py.File(tmp_path / "a.h5", "w").close()
    with pytest.raises(DataError, match="no datasets at all"):
        ImageFile(tmp_path / "a.h5", "a")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (np.zeros((8, 8), "f4"), r"shape \(8, 8\); expected \[N, H, W\] or \[N, C, H, W\]"),
        (np.zeros((2, 2, 2, 8, 8), "f4"), r"expected \[N, H, W\] or \[N, C, H, W\]"),
        (np.float32(3), r"shape \(\)"),
        (np.zeros((0, 8, 8), "f4"), "holds no pixels"),
        (np.zeros((5, 0, 8, 8), "f4"), "holds no pixels"),
        (np.full((5, 8, 8), b"land"), "expected float or integer pixels"),
        (np.zeros((5, 8, 8), "c8"), "expected float or integer pixels"),
        (np.zeros((5, 8, 8), [("sst", "f4"), ("flag", "i1")]), "expected float or integer pixels"),
        (np.zeros((5, 32, 32, 3), "f4"), r"looks like \[N, H, W, C\].*move the channels forward"),
        (np.zeros((5, 32, 32, 1), "f4"), r"looks like \[N, H, W, C\]"),
        (np.zeros((5, 3, 8), "f4"), "3 x 8 pixels are too small; expected at least 4 x 4"),
        (np.zeros((5, 2, 8, 3), "f4"), "8 x 3 pixels are too small"),
    ],
)
def test_what_is_no_stack_of_cutouts_is_refused_with_what_was_found(store, data, expected):
    with pytest.raises(DataError, match=expected):
        store(data)


def test_strings_of_any_length_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (3, 4, 4), h5py.string_dtype())
    with pytest.raises(DataError, match="expected float or integer"):
        ImageFile(tmp_path / "a.h5", "a")


# ---------------------------------------------------------------- processes, threads, damage


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_a_pickle_carries_the_path_and_no_pixels(layouts, field, layout, cache_mb):
    images = ImageFile(layouts, layout, cache_mb=cache_mb, scale=2.0)
    everything(images)
    carried = pickle.dumps(images)
    assert len(carried) < 1000 < field.nbytes
    np.testing.assert_array_equal(everything(pickle.loads(carried)), 2 * field)
    np.testing.assert_array_equal(everything(images), 2 * field)


def _read_in_child(images, rows, sender):
    opened = []
    original = module.open_file
    module.open_file = lambda path: opened.append(path) or original(path)
    sender.send((images.read(rows), len(opened)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_a_forked_child_opens_the_file_itself_and_both_read_on(layouts, field, layout, cache_mb):
    images = ImageFile(layouts, layout, cache_mb=cache_mb)
    rows = np.array([22, 0, 9, 9])
    images.read(rows)  # opened before the fork
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_read_in_child, args=(images, rows, sender))
    child.start()
    assert receiver.poll(20)
    pixels, opened = receiver.recv()
    np.testing.assert_array_equal(pixels, field[rows])
    assert opened == 1  # an inherited handle would share its place in the file with the parent's
    child.join(20)
    assert child.exitcode == 0
    np.testing.assert_array_equal(images.read(rows[::-1]), field[rows[::-1]])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_threads_that_open_the_file_at_once_all_read_right(layouts, field, monkeypatch, layout, cache_mb):
    images = ImageFile(layouts, layout, cache_mb=cache_mb)

    def slow(function):  # holds the door open for the other threads
        def slowly(*arguments, **options):
            time.sleep(0.01)
            return function(*arguments, **options)

        return slowly

    monkeypatch.setattr(module, "open_reader", slow(module.open_reader))
    monkeypatch.setattr(h5py.Dataset, "__getitem__", slow(h5py.Dataset.__getitem__))
    start = threading.Barrier(4)

    def read(number):
        rows = np.random.default_rng(number).integers(0, COUNT, 6)
        start.wait(10)
        time.sleep(0.003 * number)  # each comes while the one before is opening
        for _ in range(2):
            np.testing.assert_array_equal(images.read(rows), field[rows])
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(4)))


@pytest.fixture
def damaged(layouts, tmp_path):
    """The gzip dataset, opened; `damage()` overwrites the middle of its third chunk (rows 10 to 14)."""
    path = tmp_path / "damaged.h5"
    shutil.copy(layouts, path)
    with h5py.File(path) as file:
        chunk = file["gzip"].id.get_chunk_info(2)
    assert chunk.chunk_offset[0] == 10

    def damage():
        with path.open("r+b") as file:
            file.seek(chunk.byte_offset + chunk.size // 4)
            file.write(b"\xff" * (chunk.size // 2))

    return path, damage


def test_damage_after_opening_is_an_error_that_names_the_file_and_the_rows(damaged, field):
    path, damage = damaged
    images = ImageFile(path, "gzip", cache_mb=0)
    np.testing.assert_array_equal(images.read(np.array([3])), field[[3]])
    damage()
    with pytest.raises(DataError, match=rf"{path}.*'gzip'.*rows 1, 12.*damaged"):
        images.read(np.array([1, 12]))
    np.testing.assert_array_equal(images.read(np.array([20])), field[[20]])  # the rest can still be read


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_damage_is_found_while_the_file_is_looked_through(damaged, cache_mb):
    path, damage = damaged
    images = ImageFile(path, "gzip", cache_mb=cache_mb)
    damage()
    with pytest.raises(DataError, match=r"cannot be read at rows 0 to 22.*damaged"):
        _ = images.usable


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_a_file_that_vanished_or_was_replaced_before_the_first_read_is_an_error(layouts, tmp_path, layout):
    path = tmp_path / "moved.h5"
    shutil.copy(layouts, path)
    images = ImageFile(path, layout, cache_mb=0)
    path.unlink()
    with pytest.raises(DataError, match="no image file at"):
        images.read(np.array([0]))
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(DataError, match="is not there"):
        images.read(np.array([0]))


def test_links_are_datasets_too(tmp_path):
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["g/a"] = np.zeros((3, 8, 8))
        file["soft"] = h5py.SoftLink("/g/a")
        file["hard"] = file["g/a"]
        file["nowhere"] = h5py.SoftLink("/g/b")
    for key, there in {
        "g/a": True,
        "/g/a": True,
        "soft": True,
        "hard": True,
        "nowhere": False,
        "g": False,
        "": False,
    }.items():
        assert has_dataset(tmp_path / "links.h5", key) is there
