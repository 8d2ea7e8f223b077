"""Attributes of the sources of a virtual dataset: used where all agree, and never dropped without a word."""

import h5py
import numpy as np
import pytest

from nenya.data.images import ImageFile
from nenya.errors import DataError

PACKED = {"scale_factor": 0.01, "add_offset": 290.0, "_FillValue": np.int16(-32768)}


def numbers():
    data = np.random.default_rng(0).integers(-900, 900, (6, 8, 8)).astype(np.int16)
    data[:, 0, :2] = -32768
    return data


@pytest.fixture
def joined(tmp_path):
    def joined(sources, own=(), dtype="i2", labels=False):
        """A virtual dataset of sources (numbers, attributes) one behind the other."""
        with h5py.File(tmp_path / "s.h5", "w") as file:
            for name, (data, attrs) in sources.items():
                file.create_dataset(name, data=data).attrs.update(attrs)
        count = sum(len(data) for data, _ in sources.values())
        layout, place = h5py.VirtualLayout((count, *next(iter(sources.values()))[0].shape[1:]), dtype), 0
        for name, (data, _) in sources.items():
            layout[place : place + len(data)] = h5py.VirtualSource(tmp_path / "s.h5", name, data.shape)
            place += len(data)
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file.create_virtual_dataset("a", layout).attrs.update(own)
            if labels:
                file["pixels"] = np.zeros((count, 8, 8), np.float32)
        return tmp_path / "v.h5"

    return joined


def copied(tmp_path, sources, attrs):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("a", data=np.concatenate([data for data, _ in sources.values()])).attrs.update(attrs)
    images = ImageFile(tmp_path / "c.h5", "a")
    return images.read(np.arange(len(images)))


@pytest.mark.parametrize(
    ("attrs", "dtype"),
    [
        (PACKED, "i2"), (PACKED, "f4"), (PACKED, "i4"), ({"_FillValue": np.int16(-32768)}, "i2"),
        ({"_Unsigned": "true", "_FillValue": np.int16(-32768), "add_offset": 1.5}, "i2"), ({}, "i2"),
    ],
)  # fmt: skip
def test_what_all_sources_say_counts_where_the_virtual_dataset_says_nothing(joined, tmp_path, attrs, dtype):
    sources = {"a": (numbers(), attrs), "b": (numbers()[::-1], attrs)}
    images = ImageFile(joined(sources, dtype=dtype), "a")
    np.testing.assert_array_equal(images.read(np.arange(12)), copied(tmp_path, sources, attrs))
    assert len(images.remarks) == bool(attrs)
    assert all("its sources' are used" in remark for remark in images.remarks)


@pytest.mark.parametrize("own", [PACKED, PACKED | {"missing_value": np.int16(-9)}])
@pytest.mark.parametrize("attrs", [{}, PACKED])
def test_what_the_virtual_dataset_says_counts_where_no_source_contradicts(joined, tmp_path, own, attrs):
    sources = {"a": (numbers(), attrs), "b": (numbers(), {})}
    images = ImageFile(joined(sources, own), "a")
    np.testing.assert_array_equal(images.read(np.arange(12)), copied(tmp_path, sources, own))
    assert images.remarks == ()


@pytest.mark.parametrize("other", [{"scale_factor": 0.02}, {"add_offset": 273.0}, {"_FillValue": np.int16(-1)},
                                   {"_Unsigned": "true"}])  # fmt: skip
@pytest.mark.parametrize("own", [{}, PACKED])
def test_a_source_that_says_something_else_is_named(joined, other, own):
    path = joined({"a": (numbers(), PACKED), "b": (numbers(), PACKED | other)}, own)
    with pytest.raises(DataError, match=r"'b' of .*s\.h5.* has .*Give the virtual dataset the attributes"):
        ImageFile(path, "a")


def test_a_source_with_attributes_beside_one_without_is_named(joined):
    path = joined({"a": (numbers(), {}), "b": (numbers(), PACKED)})
    with pytest.raises(
        DataError, match=r"its sources do not agree: 'a' of .* has none .*, 'b' of .* has scale_factor 0\.01"
    ):
        ImageFile(path, "a")


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [
        ("i2", "f4", True), ("i2", "i4", True), ("u1", "i2", True), ("f8", "f4", True), ("f4", "f8", True),
        ("f4", "i2", False), ("i4", "i2", False), ("i2", "u2", False), ("u2", "i2", False), (">i2", "<i2", True),
    ],
)  # fmt: skip
def test_sources_of_other_types_must_keep_their_numbers(joined, source, target, kept):
    path = joined({"a": (numbers()[:, 1:].clip(0, 90).astype(source), {})}, dtype=target)
    if kept:
        ImageFile(path, "a").read(np.arange(6))
        return
    with pytest.raises(DataError, match=r"which is .*: its numbers do not all fit"):
        ImageFile(path, "a")


def test_labels_of_a_virtual_dataset_have_the_marks_of_their_sources(joined):
    labels = np.array([0, 1, -1], np.int16)
    path = joined({"a": (labels, {"_FillValue": np.int16(-1)})}, labels=True)
    with pytest.raises(DataError, match="1 of them are -1, which marks a missing label"):
        ImageFile(path, "pixels").labels("a")
