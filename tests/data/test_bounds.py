"""Small files that declare enormous ones: refused before any work, and real data are not."""

import functools
import logging
import os
import tracemalloc
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from nenya.data import bounds, codecs
from nenya.data.images import ImageFile
from nenya.errors import DataError

FRAME = (16, 16)
SZIP = {"compression": "szip", "compression_opts": ("nn", 8)}


@pytest.fixture
def made(tmp_path):
    """Make a dataset "a"; arguments go to `create_dataset`. Returns the file's path and a function that opens it."""

    def made(shape, dtype="f4", fill=lambda dataset: None, labels=None, libver=None, **create):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(path, "w", libver=libver) as file:
            fill(file.create_dataset("a", shape, dtype, **create))
            if labels:
                labels(file)
        assert path.stat().st_size < 9 * 2**20
        return path

    return made


@functools.cache
def packed_zeros(size):
    stream = zlib.compressobj(9)
    return b"".join([*(stream.compress(bytes(2**20)) for _ in range(size // 2**20)), stream.flush()])


def put(data, skipped=0):
    """Store a chunk as it is, at the beginning."""
    return lambda dataset: dataset.id.write_direct_chunk((0,) * len(dataset.shape), data, skipped)


def refused(path, message, most=64 * 2**20):
    """The file is refused, and hardly any memory is asked for."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            read_first(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def read_first(path):
    images = ImageFile(path, "a", cache_mb=10**6)
    return images.read(images.usable[:1])


def noise(dataset):
    dataset[...] = np.random.default_rng(0).integers(0, 200, dataset.shape)


# ---------------------------------------------------------------- declared and never written


@pytest.mark.parametrize(
    ("shape", "create"),
    [
        ((10**9, 64, 64), {}),
        ((10**9, 64, 64), {"chunks": (64, 64, 64), "compression": "gzip"}),
        ((10**9, 4, 4), {"chunks": (1, 4, 4), "dtype": "u1"}),
        ((2**40, 4096, 4096), {"chunks": (1, 4096, 4096)}),  # 2^66 bytes
        ((24, 100_000, 100_000), {"chunks": (1, 1000, 1000)}),
        ((10**9, 64, 64), {"chunks": (4, 64, 64), "fill": lambda dataset: noise_in(dataset, 40)}),
        ((15_000, 64, 64), {"chunks": (1, 1, 1), "fill": lambda dataset: noise_in(dataset, 1)}),  # 61 million chunks
    ],
)
def test_pixels_that_were_declared_and_never_written_are_refused(made, shape, create):
    refused(made(shape, **create), r"declares .* (was|were) (n?ever) written")


def noise_in(dataset, count):
    dataset[:count, :4, :4] = np.random.default_rng(0).normal(size=(count, 4, 4))


def test_a_file_of_holes_is_refused(tmp_path):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((10**7, 64, 64))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F32LE, space, properties)
    if os.stat(tmp_path / "a.h5").st_blocks * 512 > 2**30:
        pytest.skip("this file system knows no holes")
    refused(tmp_path / "a.h5", r"declares 152\.6 GB of pixels, but .* almost all of it was never written")


@pytest.mark.parametrize("chunks", [None, (4, 16, 16)])
def test_a_small_dataset_that_was_never_written_is_refused(made, chunks):
    with pytest.raises(DataError, match=r"'a' was never written: all 24 cutouts"):
        _ = ImageFile(made((24, *FRAME), chunks=chunks), "a").usable


@pytest.mark.parametrize("kind", ["f4", "i2"])
@pytest.mark.parametrize("chunks", [(4, 16, 16), (1, 16, 16), (5, 8, 16)])
def test_cutouts_that_were_never_written_are_left_out_aloud(made, caplog, chunks, kind):
    def fill(dataset):
        dataset[:8] = np.random.default_rng(0).integers(1, 99, (8, *FRAME))
        dataset[16:18] = 5

    path = made((24, *FRAME), kind, fill, chunks=chunks)
    length = chunks[0]
    written = {
        row
        for row in range(24)
        if {*range(row // length * length, row // length * length + length)} & {*range(8), 16, 17}
    }
    images = ImageFile(path, "a")
    with caplog.at_level(logging.WARNING):
        assert images.usable.tolist() == sorted(written)
    assert f"{24 - len(written)} of 24 cutouts are left out" in caplog.text
    assert "never written" in caplog.text


def test_cutouts_that_were_never_written_and_read_as_nan_are_counted_once(made, caplog):
    path = made((24, *FRAME), fill=lambda dataset: dataset.write_direct(np.ones((8, *FRAME), "f4"), dest_sel=np.s_[:8]),
                chunks=(4, 16, 16), fillvalue=np.nan)  # fmt: skip
    assert ImageFile(path, "a").usable.tolist() == list(range(8))
    assert caplog.text.count("left out") == 1


# ---------------------------------------------------------------- chunks


def filtered(path, *codes):
    """A dataset "a" of one chunk behind some filters, with which it was really written."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((24, *FRAME))
    for code in codes:
        {"gzip": lambda: properties.set_deflate(4), "shuffle": properties.set_shuffle,
         "checksum": properties.set_fletcher32, "szip": lambda: properties.set_szip(h5py.h5z.SZIP_NN_OPTION_MASK, 8),
         "scaleoffset": lambda: properties.set_scaleoffset(h5py.h5z.SO_INT, 0),
         "lzf": lambda: properties.set_filter(h5py.h5z.FILTER_LZF, 0, (4, 261, 24 * 256 * 2)),
         "bitshuffle": lambda: properties.set_filter(32008, 0, (0, 0)),
         "bitshuffle, unset": lambda: properties.set_filter(32008, 0, ()),
         "bitshuffle with LZ4": lambda: properties.set_filter(32008, 0, (0, 2))}[code]()  # fmt: skip
    data = np.random.default_rng(0).integers(0, 99, (24, *FRAME)).astype("i2")
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(data.shape)
        dataset = h5py.h5d.create(file.id, b"a", h5py.h5t.STD_I16LE, space, properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
    return data


@pytest.mark.parametrize(
    "codes",
    [("gzip", "gzip"), ("lzf", "gzip"), ("gzip", "lzf"), ("szip", "gzip"), ("shuffle", "gzip", "checksum", "gzip"),
     ("bitshuffle with LZ4", "gzip")],
)  # fmt: skip
def test_two_codecs_in_a_row_are_refused_by_name(tmp_path, codes):
    filtered(tmp_path / "a.h5", *codes)
    with pytest.raises(DataError, match=r"is compressed 2 times in a row: .*, then .*h5repack"):
        ImageFile(tmp_path / "a.h5", "a")


@pytest.mark.parametrize(
    "codes",
    [("shuffle", "gzip", "checksum"), ("scaleoffset", "gzip"), ("bitshuffle", "gzip"), ("bitshuffle with LZ4",),
     ("bitshuffle, unset", "gzip"), ("bitshuffle, unset",),
     ("shuffle", "lzf"), ("checksum", "gzip")],
)  # fmt: skip
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_one_codec_with_filters_that_pack_nothing_is_read(tmp_path, codes, cache_mb):
    data = filtered(tmp_path / "a.h5", *codes)
    images = ImageFile(tmp_path / "a.h5", "a", cache_mb=cache_mb)
    np.testing.assert_array_equal(images.read(np.arange(24))[:, 0], data)


@pytest.mark.parametrize(
    "create", [{}, {"shuffle": True}, {"fletcher32": True}, {"scaleoffset": 0, "dtype": "i4"}], ids=str
)
def test_a_small_chunk_that_is_stored_larger_than_it_is_is_refused(made, create):
    dtype = create.pop("dtype", "f4")
    fill = put(packed_zeros(2**29) + bytes(4))  # 0.5 MB; the chunk is one of 24 KB
    path = made((24, *FRAME), dtype, fill, chunks=(24, *FRAME), compression="gzip", **create)
    refused(path, r"has chunks of 24 KB of pixels, stored in .*: packed, they cannot be larger")


@pytest.mark.parametrize("create", [{}, {"shuffle": True}, {"fletcher32": True}], ids=str)
def test_a_chunk_that_unpacks_to_more_than_it_should_is_refused_when_that_is_known(made, create):
    fill = put(packed_zeros(2**29) + bytes(4))
    path = made((600, *FRAME), "f4", fill, chunks=(600, *FRAME), compression="gzip", **create)
    refused(path, r"a chunk of 614400 bytes is found to unpack to more", most=8 * 2**20)


def test_a_chunk_that_hdf5_has_to_unpack_is_looked_at_first(made, monkeypatch):
    monkeypatch.setattr(codecs, "_HARMLESS", 2**20)
    create = {"chunks": (600, *FRAME), "compression": "gzip", "scaleoffset": 0}
    refused(made((600, *FRAME), "i4", put(packed_zeros(2**27)), **create), "is found to unpack to more")
    real = made((600, *FRAME), "i4", noise, **create)
    with h5py.File(real) as file:
        np.testing.assert_array_equal(ImageFile(real, "a").read(np.arange(600))[:, 0], file["a"][...])


def test_enormous_chunks_of_zeros_are_refused(made):
    zeros = packed_zeros(2**29)
    shapes = {"one": ((8, 4096, 4096), (8, 4096, 4096)), "a chunk larger than all": ((8, 16, 16), (2**19, 16, 16))}
    for shape, chunks in shapes.values():
        path = made(shape, "f4", put(zeros), chunks=chunks, compression="gzip", maxshape=(None, None, None))
        refused(path, r"declares 512 MB of pixels, but .* KB are stored")


@pytest.mark.parametrize(
    ("filters", "data", "claim"),
    [
        (hdf5plugin.Zstd(), b"\x28\xb5\x2f\xfd\xe0" + (2**33).to_bytes(8, "little"), 2**33),
        (hdf5plugin.Zstd(), b"\x28\xb5\x2f\xfd\xa0" + (2**31).to_bytes(4, "little"), 2**31),
        (hdf5plugin.Blosc(), b"\x02\x01\x01\x04" + (2**31 - 1).to_bytes(4, "little") + bytes(8), 2**31 - 1),
        (hdf5plugin.LZ4(), (2**33).to_bytes(8, "big") + bytes(8), 2**33),
        (hdf5plugin.Bitshuffle(cname="lz4"), (2**33).to_bytes(8, "big") + bytes(8), 2**33),
        (SZIP, (2**32 - 1).to_bytes(4, "little") + bytes(8), 2**32 - 1),
    ],
    ids=["zstd, 8 bytes", "zstd, 4 bytes", "blosc", "lz4", "bitshuffle", "szip"],
)  # fmt: skip
@pytest.mark.parametrize("cache_mb", [0, 1])
def test_a_chunk_that_says_that_it_is_enormous_is_refused(made, filters, data, claim, cache_mb):
    path = made((24, *FRAME), "i4", put(data + bytes(100)), chunks=(24, *FRAME), **filters)
    with pytest.raises(DataError, match=rf"a chunk of 24576 bytes says that it unpacks to {claim}"):
        ImageFile(path, "a", cache_mb=cache_mb).read(np.array([3]))


@pytest.mark.parametrize(
    "filters",
    [
        hdf5plugin.Zstd(), hdf5plugin.Blosc(), hdf5plugin.Blosc(cname="zstd"), hdf5plugin.Blosc2(), hdf5plugin.LZ4(),
        hdf5plugin.Bitshuffle(), hdf5plugin.Bitshuffle(cname="none"), hdf5plugin.Bitshuffle(cname="zstd"),
        hdf5plugin.BZip2(), SZIP, {"compression": "lzf"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True}, {"scaleoffset": 0, "compression": "gzip"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("length", [1, 7, 600])
def test_real_chunks_of_every_codec_are_read(made, filters, length):
    path = made((600, *FRAME), "i4", noise, chunks=(length, *FRAME), **filters)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(ImageFile(path, "a", cache_mb=0).read(np.arange(600))[:, 0], file["a"][...])


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("shape", "create", "cache_mb", "message"),
    [
        ((64, 256, 256), {"chunks": (64, 256, 256)}, 0, r"needs 64 MB .* 40 MB are free here: it has chunks of shape"),
        ((4, 2048, 2048), {"chunks": (1, 16, 2048)}, 0, r"needs 64 MB .*it has cutouts of shape \(2048, 2048\)"),
        ((200, 256, 256), {"chunks": (1, 256, 256)}, 99, r"needs 50 MB .*to stay in memory\. Lower cache_mb"),
    ],
)
def test_what_does_not_fit_in_memory_says_what_takes_how_much(tmp_path, monkeypatch, shape, create, cache_mb, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.ones(shape, "f4"), **create)
    images = ImageFile(tmp_path / "a.h5", "a", cache_mb=cache_mb)
    monkeypatch.setattr(bounds, "free_memory", lambda device: 40 * 2**20)
    with pytest.raises(DataError, match=message):
        images.read(np.array([0]))
    monkeypatch.setattr(bounds, "free_memory", lambda device: 100 * 2**20)
    assert images.read(np.array([0])).max() == 1


def test_too_little_memory_is_said_to_be_that(made, monkeypatch):
    images = ImageFile(made((24, *FRAME), fill=noise), "a", cache_mb=0)

    def fail(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("nenya.data.images.np.empty", fail)
    with pytest.raises(DataError, match=r"rows 3: there is too little memory .*9 TiB.*Lower batch_size_train"):
        images.read(np.array([3]))


# ---------------------------------------------------------------- attributes, labels, names


@pytest.mark.parametrize("name", ["_FillValue", "missing_value", "scale_factor", "add_offset"])
@pytest.mark.parametrize("value", [np.arange(2_000_000, dtype="f4"), "x" * 2_000_000], ids=["numbers", "text"])
def test_enormous_attributes_are_refused_in_a_short_message(made, name, value):
    def fill(dataset):
        noise(dataset)
        dataset.attrs[name] = value

    path = made((24, *FRAME), fill=fill, libver="latest")
    with pytest.raises(DataError, match=rf"'a': attribute {name} (has 2000000 values|is 'xxx).*expected") as refusal:
        ImageFile(path, "a")
    assert len(str(refusal.value)) < 500


def test_labels_that_unpack_to_an_enormous_amount_are_refused(made):
    def labels(file):
        dataset = file.create_dataset("b", (24,), "i8", maxshape=(None,), chunks=(24,), compression="gzip")
        dataset.id.write_direct_chunk((0,), packed_zeros(2**29))
        dataset = file.create_dataset("c", (24,), "i8", maxshape=(None,), chunks=(2**26,), compression="gzip")
        dataset.id.write_direct_chunk((0,), packed_zeros(2**29))
        file.create_dataset("d", (10**9,), "i8")

    images = ImageFile(made((24, *FRAME), fill=noise, labels=labels), "a")
    for key, message in (
        ("b", "packed, they cannot be larger"),
        ("c", "declares 512 MB"),
        ("d", "declares 7.451 GB|expected"),
    ):
        with pytest.raises(DataError, match=message):
            images.labels(key)


def many(file):
    for number in range(3000):
        file.create_group(f"group_{number:04}")


def deep(file):
    group = file
    for _ in range(3000):
        group = group.create_group("a")


def circles(file):
    file["a/b/c"] = np.ones(3)
    file["a/again"] = file["a"]
    file["a/b/root"] = file["/"]
    file["soft"] = h5py.SoftLink("/soft")
    file["external"] = h5py.ExternalLink(file.filename, "/external")


def datasets(file):
    for number in range(1500):
        file[f"{number:04}"] = np.float32(1)


def hostile(file):
    file["\x1b]0;title\x07\n"] = np.ones(3)
    file["n" * 5000] = np.ones(3)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (many, "very many objects, and no dataset among the first"),
        (deep, "very many objects"),
        (circles, r"holds: a/b/c \(3,\)\. Set"),
        (datasets, r"holds: 0000 \(\), 0001 \(\), .*, and more\. Set"),
        (hostile, r"'\\x1b\]0;title\\x07\\n' \(3,\), nnn.*\.\.\. \(3,\)\. Set"),
    ],
)
def test_a_list_of_what_is_there_has_an_end(tmp_path, fill, message):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        fill(file)
    with pytest.raises(DataError, match=message) as refusal:
        ImageFile(tmp_path / "a.h5", "train")
    assert len(str(refusal.value)) < 1000
    assert str(refusal.value).isprintable()
