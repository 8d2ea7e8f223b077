"""Labels mean what their attributes say; what marks a missing one is no class."""

import logging
import zlib

import h5py
import numpy as np
import pytest

from nenya.data.images import ImageFile
from nenya.data.labels import require_classes
from nenya.data.loaders import nenya_loader
from nenya.errors import DataError


@pytest.fixture
def labelled(tmp_path):
    def labelled(labels, **attrs):
        with h5py.File(tmp_path / "l.h5", "w") as file:
            file["a"] = np.zeros((6, 4, 4), np.float32)
            file.create_dataset("y", data=labels).attrs.update(attrs)
        return ImageFile(tmp_path / "l.h5", "a").labels("y")

    return labelled


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
@pytest.mark.parametrize(
    ("kind", "fill", "stored_fill"),
    [("u1", 255, np.uint8(255)), ("u1", 255, np.int8(-1)), ("i4", 99, 99), ("i2", 9999, np.int16(9999))],
)
def test_a_label_that_is_the_fill_value_is_no_class(labelled, name, kind, fill, stored_fill):
    labels = np.array([0, 1, fill, 2, fill, 0], kind)
    with pytest.raises(DataError, match=rf"2 of them are {fill}, which marks a missing label.*leave them out"):
        labelled(labels, **{name: stored_fill})
    labels[labels == fill] = 1
    assert labelled(labels, **{name: stored_fill}).tolist() == labels.tolist()


@pytest.mark.parametrize("kind", [">i1", ">i2", "<i4", ">i8"])
def test_unsigned_labels_in_signed_bits_are_what_they_mean(labelled, kind):
    size = int(kind[-1])
    labels = np.array([0, 2 ** (8 * min(size, 7)) - 56, 1, 7, 1, 0], f"u{size}")
    stored = labels.view(f"i{size}").astype(kind)
    assert labelled(stored, _Unsigned="true").tolist() == labels.tolist()


def test_labels_above_int64_are_refused_instead_of_wrapped(labelled):
    labels = np.array([0, 1, 2**64 - 1, 2**63, 1, 0], np.uint64)
    with pytest.raises(DataError, match=r"2 of them are above 9223372036854775807, up to 18446744073709551615"):
        labelled(labels)
    labels[2:4] = 2**63 - 1
    assert labelled(labels)[2] == 2**63 - 1


def test_labels_in_a_unit_are_refused(labelled):
    with pytest.raises(DataError, match="scale_factor 2 and add_offset 0; expected class numbers"):
        labelled(np.arange(6), scale_factor=2.0)
    assert labelled(np.arange(6), scale_factor=1.0, add_offset=0).tolist() == list(range(6))


def test_whole_numbers_stored_as_floats_are_refused_with_how_to_store_them(labelled):
    with pytest.raises(DataError, match=r"expected integers.*whole numbers stored as floats.*astype\('int64'\)"):
        labelled(np.arange(6.0))
    with pytest.raises(DataError, match=r"expected integers\. Number the classes 0, 1, 2, \.\.\.$"):
        labelled(np.arange(6) + 0.5)


def test_one_column_for_each_class_says_how_to_number_them(labelled):
    for labels in (np.eye(3)[np.arange(6) % 3], np.eye(3, dtype=int)[np.arange(6) % 3]):
        with pytest.raises(DataError, match=r"expected \(6,\).*one-hot.*labels\.argmax\(axis=1\)"):
            labelled(labels)


def test_labels_of_another_shape_are_not_read(labelled, monkeypatch):
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    with pytest.raises(DataError, match=r"expected \(6,\)"):
        labelled(np.arange(7.0))


def test_labels_that_unpack_to_an_enormous_amount_are_refused(tmp_path):
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["a"] = np.zeros((6, 4, 4), np.float32)
        labels = file.create_dataset("y", (6,), "f8", chunks=(2**26,), maxshape=(None,), compression="gzip")
        labels.id.write_direct_chunk((0,), zlib.compress(bytes(2**16)))  # 512 MB, as it is declared
    with pytest.raises(DataError, match=r"declares 512 MB of pixels, but .* are stored"):
        ImageFile(tmp_path / "l.h5", "a").labels("y")


def test_a_column_of_matlab_lies_as_a_row(labelled):
    with pytest.raises(DataError, match=r"expected \(6,\)"):
        labelled(np.arange(6)[None])
    assert labelled(np.arange(6)[None], MATLAB_class=np.bytes_("int64")).tolist() == list(range(6))


def test_labels_outside_their_valid_range_are_warned_about(labelled, caplog):
    with caplog.at_level(logging.WARNING):
        assert labelled(np.arange(6), valid_range=[0, 3]).tolist() == list(range(6))
    assert "2 of 6 labels lie outside their valid range [0, 3]" in caplog.text


@pytest.mark.parametrize("labels", [[0, 1], [3, 3, 4], list(range(9))])
def test_two_classes_are_enough(tmp_path, labels):
    require_classes(np.array(labels), tmp_path, "y", warn_only=False)


def test_a_single_class_is_refused_for_training_and_said_for_validation(tiny, image_file, caplog):
    opt = tiny(ssl_method="SupCon")
    for key in ("train", "valid"):
        with h5py.File(image_file, "r+") as file:
            file[f"{key}_labels"][...] = 5
    with caplog.at_level(logging.WARNING):
        nenya_loader(opt, valid=True)
    assert "all 12 labels 'valid_labels' of usable cutouts are 5" in caplog.text
    with pytest.raises(DataError, match=r"all 24 labels 'train_labels' of usable cutouts are 5.*\"SimCLR\""):
        nenya_loader(opt)
    with h5py.File(image_file, "r+") as file:
        file["train_labels"][7] = 4
    assert nenya_loader(opt).labels is not None
    with h5py.File(image_file, "r+") as file:
        file["train"][7] = np.nan  # the only cutout of another class is not usable
    with pytest.raises(DataError, match="all 23 labels"):
        nenya_loader(opt)


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        ([0, 1, 2, 255], True), ([0, 1, 65535], True), ([1, 2, 3, 2**31 - 1], True), ([0, 1, 2, 99], True),
        ([*range(40), 255], True), ([*range(40), 127], True), (range(256), False), ([0, 1], False),
        (range(5, 12), False), ([0, 5, 9], False), ([*range(0, 200, 2), 254, 255], False), ([*range(254), 255], False),
    ],
)  # fmt: skip
def test_a_largest_label_that_is_far_from_the_others_is_warned_about(tmp_path, caplog, labels, warned):
    with caplog.at_level(logging.WARNING):
        require_classes(np.array(labels), tmp_path, "y", warn_only=False)
    assert (f"the largest of the {len(labels)} classes is {max(labels)}" in caplog.text) == warned
    assert bool(caplog.text) == warned
