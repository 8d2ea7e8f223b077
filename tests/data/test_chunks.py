"""Chunks: whatever HDF5 may do to one, the pixels are those that h5py reads; codecs, missing ones and damage."""

import importlib
import sys
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from nenya.data.chunks import ChunkReader
from nenya.data.images import ImageFile
from nenya.errors import DataError

COUNT = 11


def numbers(kind="<f4", shape=(COUNT, 2, 5, 7)):
    return np.random.default_rng(0).integers(-100, 100, shape).astype(kind)


@pytest.fixture
def stored(tmp_path):
    """Write one dataset "a" and open it with h5py; arguments go to `create_dataset`."""
    opened = []

    def stored(data, **create):
        path = tmp_path / f"{len(opened)}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=data, **create)
        opened.append(h5py.File(path))
        return opened[-1]["a"]

    yield stored
    for file in opened:
        file.close()


def everything(reader, count=COUNT):
    parts = [reader.read(start, min(start + reader.length, count)) for start in range(0, count, reader.length)]
    return np.concatenate(parts)


@pytest.fixture
def no_hdf5_slices(monkeypatch):
    """Let nobody fall back on HDF5's own decompression."""
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("asked HDF5"))


# ---------------------------------------------------------------- every kind of chunk


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["|u1", "<i2", ">i2", "<f2", "<f4", ">f4", "<f8", ">u4", "<u8"])
def test_gzip_chunks_are_unpacked_without_hdf5(stored, request, kind, shuffle):
    dataset = stored(numbers(kind), chunks=(4, 2, 5, 7), compression="gzip", shuffle=shuffle)
    expected = dataset[...]
    request.getfixturevalue("no_hdf5_slices")
    reader = ChunkReader(dataset)
    assert reader.length == 4
    assert reader.read(8, 11).dtype == np.dtype(kind)
    np.testing.assert_array_equal(everything(reader), expected)


@pytest.mark.parametrize(
    "chunks", [(4, 2, 5, 7), (1, 2, 5, 7), (11, 2, 5, 7), (4, 1, 5, 7), (3, 1, 2, 4), (5, 2, 3, 3)]
)
def test_chunks_that_split_the_frame_or_reach_beyond_it_are_put_together(stored, request, chunks):
    dataset = stored(numbers(), chunks=chunks, compression="gzip", shuffle=True)
    expected = dataset[...]
    request.getfixturevalue("no_hdf5_slices")
    np.testing.assert_array_equal(everything(ChunkReader(dataset)), expected)


@pytest.mark.parametrize("mask", [0b00, 0b01, 0b10, 0b11])
def test_filters_that_hdf5_left_out_of_a_chunk_are_not_undone(stored, mask):
    data = numbers(shape=(COUNT, 5, 7))
    dataset = stored(data, chunks=(4, 5, 7), compression="gzip", shuffle=True)  # filters: shuffle, then gzip
    path = dataset.file.filename
    dataset.file.close()
    other = data[4:8][::-1].copy()
    raw = other.tobytes()
    if not mask & 0b01:
        raw = other.reshape(-1).view(np.uint8).reshape(-1, 4).T.tobytes()
    if not mask & 0b10:
        raw = zlib.compress(raw)
    with h5py.File(path, "a") as file:
        file["a"].id.write_direct_chunk((4, 0, 0), raw, mask)
    data[4:8] = other
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["a"][...], data)
        np.testing.assert_array_equal(everything(ChunkReader(file["a"])), data)


@pytest.mark.parametrize(
    "create",
    [
        {},
        {"shuffle": True},
        {"compression": "lzf"},
        {"compression": "gzip", "fletcher32": True},
        {"compression": "gzip", "scaleoffset": 0},
        hdf5plugin.Blosc(cname="zstd"),
        hdf5plugin.Zstd(),
        hdf5plugin.Bitshuffle(),
    ],
    ids=str,
)
@pytest.mark.parametrize("chunks", [(4, 2, 5, 7), (3, 1, 2, 4)])
def test_what_is_not_gzip_alone_is_hdf5s_work(stored, create, chunks):
    data = numbers("<i2")
    np.testing.assert_array_equal(everything(ChunkReader(stored(data, chunks=chunks, **create))), data)


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (COUNT, 5, 7), "f4", chunks=(4, 5, 7), compression="gzip", fillvalue=7.5)
        dataset[4:8] = 1
        expected = dataset[...]
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(everything(ChunkReader(file["a"])), expected)
    assert set(expected.ravel()) == {1.0, 7.5}


def test_a_type_that_numpy_has_not_is_left_to_hdf5(tmp_path):
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    kind.set_offset(4)  # the number sits in the upper twelve bits
    data = numbers("<i2", (COUNT, 5, 7))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, layout in (("chunked", (4, 5, 7)), ("flat", None)):
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if layout:
                properties.set_chunk(layout)
                properties.set_deflate(4)
            space = h5py.h5s.create_simple(data.shape)
            h5py.Dataset(h5py.h5d.create(file.id, name.encode(), kind, space, properties))[...] = data
    for name in ("chunked", "flat"):
        images = ImageFile(tmp_path / "a.h5", name, cache_mb=0)
        np.testing.assert_array_equal(images.read(np.arange(COUNT))[:, 0], data)


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("harm", ["zeros", "cut short", "of another size"])
def test_a_chunk_that_does_not_come_out_whole_is_an_error_that_names_its_rows(stored, harm):
    dataset = stored(numbers(), chunks=(4, 2, 5, 7), compression="gzip")
    path = dataset.file.filename
    whole = dataset.id.read_direct_chunk((4, 0, 0, 0))[1]
    dataset.file.close()
    raw = {"zeros": bytes(len(whole)), "cut short": whole[:-20], "of another size": zlib.compress(b"x" * 10)}[harm]
    with h5py.File(path, "a") as file:
        file["a"].id.write_direct_chunk((4, 0, 0, 0), raw)
    images = ImageFile(path, "a", cache_mb=0)
    with pytest.raises(DataError, match=r"cannot be read at rows 1, 6: reading rows 4 to 7 fails"):
        images.read(np.array([1, 6]))
    np.testing.assert_array_equal(images.read(np.array([9, 0])), numbers()[[9, 0]])


# ---------------------------------------------------------------- codecs


def test_a_codec_that_is_not_installed_is_named_with_the_package_that_brings_it(stored, monkeypatch):
    path = stored(numbers(), chunks=(4, 2, 5, 7), **hdf5plugin.Blosc()).file.filename
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"'a' is compressed with blosc.*filter 32001.*pip install 'nenya\[codecs\]'"):
        ImageFile(path, "a")


def test_the_package_of_codecs_is_imported_where_a_file_needs_it_and_only_there(stored, monkeypatch):
    plain = ImageFile(stored(numbers(), chunks=(4, 2, 5, 7), compression="gzip").file.filename, "a")
    packed = stored(numbers(), chunks=(4, 2, 5, 7), **hdf5plugin.Zstd()).file.filename
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    plain.read(np.array([0]))
    imported = []
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256 or bool(imported))
    monkeypatch.setattr(importlib, "import_module", imported.append)
    np.testing.assert_array_equal(ImageFile(packed, "a").read(np.array([3])), numbers()[[3]])
    assert imported == ["hdf5plugin"]
