"""What was declared and never written is found element by element, behind virtual datasets and in any order of axes."""

import logging

import h5py
import numpy as np
import pytest

from nenya.data.images import ImageFile
from nenya.data.sources import Sources
from nenya.data.unwritten import find_unwritten
from nenya.errors import DataError

SHAPE = (12, 3, 8, 8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def noise(shape=SHAPE):
    return np.random.default_rng(0).normal(290, 3, shape).astype(np.float32)


def patchy(file, name, shape, chunks, share, seed, **create):
    """A dataset of which each chunk is written with a probability; which elements were [shape]."""
    rng = np.random.default_rng(seed)
    dataset = file.create_dataset(name, shape, "f4", chunks=chunks, **create)
    written = np.zeros(shape, bool)
    for corner in np.ndindex(*(-(-size // length) for size, length in zip(shape, chunks, strict=True))):
        region = tuple(slice(at * length, (at + 1) * length) for at, length in zip(corner, chunks, strict=True))
        if rng.random() < share:
            dataset[region] = 5
            written[region] = True
    return written


def found(path, name, order):
    with h5py.File(path) as file:
        sources = Sources(file[name], path)
        unwritten = find_unwritten(file[name], sources, order)
        sources.close()
    return unwritten


def expected(written, order):
    by_cutout = np.moveaxis(written, order.index("N"), 0).reshape(written.shape[order.index("N")], -1)
    return ~by_cutout.any(axis=1), by_cutout.any(axis=1) & ~by_cutout.all(axis=1)


def assert_found(unwritten, written, order):
    if written.all():
        assert unwritten is None
        return
    whole, partly = expected(written, order)
    np.testing.assert_array_equal(unwritten.whole, whole)
    np.testing.assert_array_equal(unwritten.partly, partly)
    by_channel = np.moveaxis(written, order.index("C"), 0).reshape(written.shape[order.index("C")], -1)
    assert unwritten.channels == tuple(np.flatnonzero(~by_channel.any(axis=1)))


@pytest.mark.parametrize("order", ["NCHW", "HWCN", "CNHW"])
@pytest.mark.parametrize("chunks", [(1, 1, 8, 8), (5, 2, 3, 8), (4, 3, 8, 4), (12, 1, 8, 8)])
@pytest.mark.parametrize("share", [0, 0.2, 0.9, 1])
def test_cutouts_that_lack_a_chunk_are_those_that_lack_an_element(tmp_path, order, chunks, share):
    places = ["NCHW".index(letter) for letter in order]
    shape, chunks = ([sizes[place] for place in places] for sizes in (SHAPE, chunks))
    with h5py.File("a.h5", "w") as file:
        written = patchy(file, "a", tuple(shape), tuple(chunks), share, seed=len(chunks) + chunks[0])
    assert_found(found(tmp_path / "a.h5", "a", order), written, order)


def made_of(file, name, sources, places, shape):
    layout = h5py.VirtualLayout(shape, "f4")
    for (source, taken), place in zip(sources, places, strict=True):
        layout[place] = (
            h5py.VirtualSource(file[source])[taken] if taken is not None else h5py.VirtualSource(file[source])
        )
    file.create_virtual_dataset(name, layout)


def test_parts_that_are_rows_channels_strides_or_windows_are_followed_to_their_sources(tmp_path):
    all_of = np.s_[:, :, :, :]
    with h5py.File("a.h5", "w") as file:
        w = patchy(file, "w", SHAPE, (2, 1, 4, 8), 0.7, seed=1)
        x = patchy(file, "x", (12, 8, 8), (1, 8, 8), 0.7, seed=2)
        y = patchy(file, "y", (24, 8, 8), (3, 4, 8), 0.9, seed=3)
        z = patchy(file, "z", (3, 8, 8), (1, 8, 8), 0.5, seed=4)
        cases = {
            "rows": ([("w", np.s_[:6]), ("w", np.s_[6:])], [np.s_[6:], np.s_[:6]], SHAPE,
                     np.concatenate((w[6:], w[:6]))),
            "channels": ([("x", None), ("y", np.s_[::2])], [np.s_[:, 0], np.s_[:, 1]], (12, 2, 8, 8),
                         np.stack((x, y[::2]), axis=1)),
            "window": ([("w", np.s_[:, 1:2, :4, :])], [all_of], (12, 1, 4, 8), w[:, 1:2, :4]),
            "alternate": ([("x", None), ("y", np.s_[:12])], [np.s_[::2, 0], np.s_[1::2, 0]], (24, 1, 8, 8),
                          np.stack((x, y[:12]), axis=1).reshape(24, 1, 8, 8)),
            "one_each": ([("z", n) for n in range(3)], [np.s_[n, 0] for n in range(3)], (3, 1, 8, 8), z[:, None]),
        }  # fmt: skip
        for name, (sources, places, shape, _) in cases.items():
            made_of(file, name, sources, places, shape)
        made_of(file, "nested", [("rows", np.s_[3:9])], [all_of], (6, 3, 8, 8))
    for name, (*_, written) in cases.items():
        assert_found(found(tmp_path / "a.h5", name, "NCHW"), written, "NCHW")
    assert_found(found(tmp_path / "a.h5", "nested", "NCHW"), cases["rows"][3][3:9], "NCHW")


def store(fill=None, write=lambda dataset: None, shape=SHAPE, chunks=(1, 1, 8, 8), **attrs):
    with h5py.File("a.h5", "w") as file:
        dataset = file.create_dataset("a", shape, "f4", chunks=chunks, fillvalue=fill)
        dataset.attrs.update(attrs)
        write(dataset)
    return "a.h5"


def without_a_channel(dataset):
    dataset[:, ::2] = noise()[:, ::2]


def half_the_tiles(dataset):
    dataset[:5] = noise()[:5]
    dataset[5:, :, :4] = noise()[5:, :, :4]


def test_a_channel_that_was_never_written_is_named_and_refused():
    with pytest.raises(
        DataError, match=r"12 cutouts, and none is whole: channel 1 was never written .*fill value 0\.0"
    ):
        _ = ImageFile(store(write=without_a_channel), "a").usable


@pytest.mark.parametrize("axes", [None, "HWCN"])
def test_cutouts_of_which_tiles_were_never_written_are_left_out_aloud(caplog, axes):
    if axes:
        path = store(
            write=lambda dataset: dataset.write_direct(np.ascontiguousarray(noise()[:5].transpose(2, 3, 1, 0)),
                                                       dest_sel=np.s_[..., :5]),
            shape=(8, 8, 3, 12), chunks=(8, 8, 1, 1),
        )  # fmt: skip
    else:
        path = store(write=half_the_tiles, chunks=(1, 3, 4, 8))
    with caplog.at_level(logging.WARNING):
        images = ImageFile(path, "a", axes=axes)
        assert images.usable.tolist() == list(range(5))
    assert "7 of 12 cutouts are left out (rows 5, 6, 7, 8, 9, 10, 11): " in caplog.text
    assert "never written" in caplog.text
    np.testing.assert_array_equal(images.read(np.arange(5)), noise()[:5])


@pytest.mark.parametrize(
    ("fill", "missing", "attrs"),
    [(np.nan, (), {}), (-9.0, (), {"_FillValue": np.float32(-9)}), (None, (0,), {}), (-0.9, (-0.9,), {})],
)
def test_what_was_not_written_and_is_marked_as_missing_is_a_gap_as_any_other(fill, missing, attrs):
    images = ImageFile(store(fill, half_the_tiles, chunks=(1, 3, 4, 8), **attrs), "a", missing=missing, max_nodata=0.5)
    assert images.usable.tolist() == list(range(12))
    np.testing.assert_allclose(images.read(np.array([7]))[0, 2, 4:], noise()[7, 2, :4].mean(), rtol=1e-6)


@pytest.mark.parametrize("chunks", [(4,), (12,), None])
@pytest.mark.parametrize("virtual", [False, True])
def test_labels_that_were_never_written_are_refused_with_their_rows(chunks, virtual):
    with h5py.File("a.h5", "w") as file:
        file["a"] = noise()
        labels = file.create_dataset("y", (12,), "i8", chunks=chunks)
        if chunks == (4,):
            labels[:8] = np.arange(8) % 3
        layout = h5py.VirtualLayout((12,), "i8")
        layout[:] = h5py.VirtualSource(labels)
        file.create_virtual_dataset("v", layout)
    rows = "4 of them (rows 8, 9, 10, 11)" if chunks == (4,) else "12 of them (rows 0, 1, "
    with pytest.raises(DataError) as refusal:
        ImageFile("a.h5", "a").labels("v" if virtual else "y")
    assert f"; {rows}" in str(refusal.value)
    assert "never written" in str(refusal.value)
