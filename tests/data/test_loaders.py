"""The loader: what a batch holds, which samples come when, labels, and reading ahead."""

import gc
import itertools
import logging
import threading
import time

import h5py
import numpy as np
import pytest
import torch

from nenya.data.augment import VALID, Views
from nenya.data.images import ImageFile
from nenya.data.loaders import Batch, ViewLoader, label_dataset, nenya_loader, open_images
from nenya.data.order import shuffled
from nenya.errors import DataError, OptionError

TRAINING, VALIDATION = 24, 12  # cutouts in the fixture's file


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nenya-reader")]


def rows_of(batches):
    return [batch.rows.tolist() for batch in batches]


def joined(rows):
    return list(itertools.chain.from_iterable(rows))


def assert_same(first, second):
    """Every tensor of every batch is the same, bit for bit."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)


@pytest.fixture
def add(image_file):
    """Write more datasets into the file of cutouts."""

    def add(**datasets):
        with h5py.File(image_file, "a") as file:
            for name, data in datasets.items():
                file[name] = data

    return add


def cutouts_of(count, size=8):
    return np.random.default_rng(count).normal(size=(count, size, size)).astype(np.float32)


# ---------------------------------------------------------------- a batch


def test_a_batch_is_two_views_labels_and_rows(tiny):
    batch = next(iter(nenya_loader(tiny(ssl_method="SupCon"))))
    assert isinstance(batch, Batch)
    view1, view2, labels, rows = batch
    for view in (batch[0], batch[1]):
        assert view.shape == (8, 1, 8, 8)
        assert view.dtype == torch.float32
    assert not torch.equal(view1, view2)
    assert rows.shape == labels.shape == (8,)
    assert rows.dtype == labels.dtype == torch.int64


def test_simclr_has_no_labels_even_where_the_file_has(tiny):
    assert all(batch.labels is None for batch in nenya_loader(tiny()))


@pytest.mark.parametrize("valid", [False, True])
def test_the_views_are_those_of_the_rows(tiny, valid):
    opt = tiny(scale=0.5, gauss_noise=0.1)
    loader = nenya_loader(opt, valid)
    images = open_images(opt, valid=valid)
    views = Views.from_options(opt, 16, 16)
    loader.set_epoch(3)
    for batch in loader:
        pixels = torch.from_numpy(images.read(batch.rows.numpy()))
        expected = views.make(pixels, batch.rows, *((0, VALID) if valid else (3,)))
        assert torch.equal(batch.view1, expected[0])
        assert torch.equal(batch.view2, expected[1])


def test_a_consumer_may_change_a_batch_in_place(tiny):
    loader = nenya_loader(tiny(ssl_method="SupCon"), valid=True)
    before = [Batch(*(tensor.clone() for tensor in batch)) for batch in loader]
    for batch in loader:
        for tensor in batch:
            tensor.zero_()
    assert_same(list(loader), before)


# ---------------------------------------------------------------- lengths and sizes


@pytest.mark.parametrize("size", [2, 5, 7, 8, 12, 23, 24])
def test_training_batches_all_have_one_size_and_no_row_comes_twice(tiny, size):
    loader = nenya_loader(tiny(batch_size_train=size))
    length = len(loader)
    assert loader.num_samples == TRAINING
    rows = rows_of(loader)
    assert length == len(rows) == TRAINING // size
    assert {len(batch) for batch in rows} == {size}
    flat = joined(rows)
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(TRAINING))


@pytest.mark.parametrize("size", [2, 5, 7, 8, 12, 64])
def test_validation_shows_every_cutout_once_in_the_files_order(tiny, size):
    loader = nenya_loader(tiny(batch_size_valid=size), valid=True)
    length = len(loader)
    rows = rows_of(loader)
    assert length == len(rows) == -(-VALIDATION // size)
    assert joined(rows) == list(range(VALIDATION))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


@pytest.mark.parametrize("valid", [False, True])
def test_max_batches_shortens_a_pass_and_its_length(tiny, valid):
    loader = nenya_loader(tiny(batch_size_train=4, batch_size_valid=3), valid)
    complete = list(loader)
    loader.max_batches = 2
    loader.set_epoch(1)
    assert len(loader) == 2
    assert_same(list(loader), complete[:2])
    loader.max_batches = 100
    assert len(loader) == len(complete)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_fewer_cutouts_than_a_batch_make_one_smaller_batch_and_a_warning(tiny, add, caplog, count):
    add(few=cutouts_of(count, 16))
    with caplog.at_level(logging.WARNING):
        loader = nenya_loader(tiny(train_key="few"))
    assert f"{count} usable cutouts, fewer than a batch of 8" in caplog.text
    assert len(loader) == 1
    (batch,) = loader
    assert sorted(batch.rows.tolist()) == list(range(count))


def test_validation_with_less_than_a_batch_is_nothing_to_warn_of(tiny, caplog):
    with caplog.at_level(logging.WARNING):
        nenya_loader(tiny(batch_size_valid=64), valid=True)
    assert not caplog.text


@pytest.mark.parametrize("valid", [False, True])
def test_one_cutout_is_too_few_for_a_contrast(tiny, add, valid):
    add(one=cutouts_of(1, 16))
    with pytest.raises(DataError, match=r"'one' has 1 usable cutout.*at least 2"):
        nenya_loader(tiny(train_key="one", valid_key="one"), valid)


@pytest.mark.parametrize("valid", [False, True])
def test_cutouts_that_are_left_out_never_come(tiny, add, valid):
    data = cutouts_of(13, 16)
    left_out = [0, 5, 12]
    data[left_out] = np.nan
    add(gaps=data, gaps_labels=np.arange(13) * 10)
    opt = tiny(train_key="gaps", valid_key="gaps", ssl_method="SupCon", batch_size_train=5, batch_size_valid=5)
    loader = nenya_loader(opt, valid)
    assert loader.num_samples == 10
    assert len(loader) == 2
    batches = list(loader)
    assert sorted(joined(rows_of(batches))) == [row for row in range(13) if row not in left_out]
    for batch in batches:
        assert torch.equal(batch.labels, 10 * batch.rows)


# ---------------------------------------------------------------- passes


def test_passes_count_up_without_a_call(tiny):
    counting, told = nenya_loader(tiny()), nenya_loader(tiny())
    for epoch in (1, 2, 3):
        told.set_epoch(epoch)
        assert_same(list(counting), list(told))
    counting.set_epoch(9)
    list(counting)
    told.set_epoch(10)
    assert_same(list(counting), list(told))


def test_each_training_pass_has_its_own_order_and_views(tiny):
    loader = nenya_loader(tiny(rotate=True))
    first, second = list(loader), list(loader)
    assert rows_of(first) != rows_of(second)
    views = [{row: view for b in batches for row, view in zip(b.rows.tolist(), b.view1, strict=True)}
             for batches in (first, second)]  # fmt: skip
    assert not any(torch.equal(views[0][row], views[1][row]) for row in range(TRAINING))


def test_the_order_is_that_of_the_seed_and_the_epoch(tiny):
    loader = nenya_loader(tiny(seed=4))
    loader.set_epoch(6)
    assert joined(rows_of(loader)) == shuffled(np.arange(TRAINING), 4, 6).tolist()


def test_another_seed_gives_another_order_and_other_views(tiny):
    first, second = (next(iter(nenya_loader(tiny(seed=seed), valid=True))) for seed in (0, 1))
    assert torch.equal(first.rows, second.rows)
    assert not torch.equal(first.view1, second.view1)
    assert rows_of(nenya_loader(tiny(seed=0))) != rows_of(nenya_loader(tiny(seed=1)))


@pytest.mark.parametrize("start", [0, 1, 4, 6])
@pytest.mark.parametrize("read_ahead", [0, 2])
def test_a_pass_may_start_in_the_middle_and_the_rest_is_the_same(tiny, start, read_ahead):
    loader = nenya_loader(tiny(batch_size_train=4, num_workers=read_ahead))
    loader.set_epoch(2)
    complete = list(loader)
    loader.set_epoch(2, start=start)
    assert_same(list(loader), complete[start:])
    following = list(loader)  # the next pass is whole again
    assert len(following) == len(complete)
    loader.set_epoch(3)
    assert_same(list(loader), following)


def test_validation_shows_the_same_views_at_every_pass_whatever_the_epoch(tiny):
    loader = nenya_loader(tiny(), valid=True)
    first = list(loader)
    assert_same(list(loader), first)
    loader.set_epoch(77)
    assert_same(list(loader), first)


def test_validation_has_other_views_than_training_of_the_same_cutouts(tiny):
    opt = tiny(valid_key="train", num_workers=0)
    train, valid = nenya_loader(opt), nenya_loader(opt, valid=True)
    valid_views = {row: view for b in valid for row, view in zip(b.rows.tolist(), b.view1, strict=True)}
    for epoch in (0, 1):
        train.set_epoch(epoch)
        for batch in train:
            for row, view in zip(batch.rows.tolist(), batch.view1, strict=True):
                assert not torch.equal(view, valid_views[row])


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize("valid", [False, True])
def test_supcon_takes_the_labels_beside_the_cutouts(tiny, valid):
    for batch in nenya_loader(tiny(ssl_method="SupCon"), valid):
        assert torch.equal(batch.labels, batch.rows % 3)


def test_label_key_names_the_training_labels_and_validation_keeps_its_own(tiny, add):
    add(regime=np.arange(TRAINING)[:, None] + 100)
    opt = tiny(ssl_method="SupCon", label_key="regime")
    assert all(torch.equal(batch.labels, batch.rows + 100) for batch in nenya_loader(opt))
    assert all(torch.equal(batch.labels, batch.rows % 3) for batch in nenya_loader(opt, valid=True))


def test_label_key_may_name_both_by_the_key_of_the_cutouts(tiny, add):
    add(train_regime=np.arange(TRAINING) + 100, valid_regime=np.arange(VALIDATION) + 200)
    opt = tiny(ssl_method="SupCon", label_key="{key}_regime")
    assert all(torch.equal(batch.labels, batch.rows + 100) for batch in nenya_loader(opt))
    assert all(torch.equal(batch.labels, batch.rows + 200) for batch in nenya_loader(opt, valid=True))


@pytest.mark.parametrize(
    ("label_key", "train", "valid"),
    [(None, "a_labels", "b_labels"), ("c", "c", "b_labels"), ("{key}/{key}_dt", "a/a_dt", "b/b_dt")],
)
def test_the_name_of_the_label_dataset(tiny, label_key, train, valid):
    opt = tiny(train_key="a", valid_key="b", label_key=label_key)
    assert (label_dataset(opt), label_dataset(opt, valid=True)) == (train, valid)


def test_missing_labels_say_what_is_there_and_which_option_to_set(tiny):
    with pytest.raises(DataError, match=r"'regime' for the labels is not there.*train_labels \(24,\).*Set label_key"):
        nenya_loader(tiny(ssl_method="SupCon", label_key="regime"))


def test_labels_of_another_length_are_refused(tiny, add):
    add(short=np.arange(TRAINING - 1))
    with pytest.raises(DataError, match=r"'short'.*shape \(23,\); expected \(24,\)"):
        nenya_loader(tiny(ssl_method="SupCon", label_key="short"))


def test_labels_are_not_looked_for_without_need(tiny):
    nenya_loader(tiny(label_key="nowhere"))


# ---------------------------------------------------------------- reading ahead


@pytest.mark.parametrize("valid", [False, True])
def test_reading_ahead_changes_no_batch(tiny, valid):
    passes = [
        list(nenya_loader(tiny(num_workers=ahead, batch_size_train=3, batch_size_valid=3, gauss_noise=0.1), valid))
        for ahead in (0, 1, 4, 50)
    ]
    for other in passes[1:]:
        assert_same(other, passes[0])


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_batches_are_read_than_asked_for(tiny, monkeypatch, ahead):
    loader = nenya_loader(tiny(num_workers=ahead, batch_size_train=2))
    reads = []
    original = loader.images.read
    monkeypatch.setattr(loader.images, "read", lambda rows: reads.append(threading.current_thread()) or original(rows))
    batches = iter(loader)
    next(batches)
    wait_for(lambda: len(reads) == 1 + ahead)
    time.sleep(0.02)
    assert len(reads) == 1 + ahead
    assert (threading.current_thread() in reads) == (ahead == 0)
    batches.close()


@pytest.mark.parametrize("ahead", [0, 1, 4])
@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_pass_that_is_given_up_leaves_no_thread_behind(tiny, ahead, taken):
    loader = nenya_loader(tiny(num_workers=ahead, batch_size_train=2))
    batches = iter(loader)
    for _ in range(taken):
        next(batches)
    assert len(reading_threads()) == (1 if ahead and taken else 0)
    del batches
    gc.collect()
    assert not reading_threads()


def test_a_pass_that_ends_or_that_the_consumer_breaks_leaves_no_thread_behind(tiny):
    loader = nenya_loader(tiny(num_workers=2))
    list(loader)
    assert not reading_threads()

    def consume():
        for _ in loader:
            raise KeyError("the consumer's own")

    with pytest.raises(KeyError, match="own"):
        consume()
    gc.collect()
    assert not reading_threads()


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_an_error_while_reading_reaches_the_consumer_after_the_batches_before_it(tiny, monkeypatch, ahead):
    loader = nenya_loader(tiny(num_workers=ahead, batch_size_train=4))
    original, calls = loader.images.read, []

    def fail_at_the_third(rows):
        calls.append(rows)
        if len(calls) == 3:
            raise DataError("the disk is gone")
        return original(rows)

    monkeypatch.setattr(loader.images, "read", fail_at_the_third)
    batches = iter(loader)
    next(batches)
    next(batches)
    with pytest.raises(DataError, match="the disk is gone"):
        next(batches)
    assert not reading_threads()


def test_two_passes_at_once_do_not_disturb_each_other(tiny):
    loader = nenya_loader(tiny(num_workers=2, cache_mb=0))
    expected = [list(loader), list(loader)]
    loader.set_epoch(1)
    together = list(zip(loader, loader, strict=True))
    assert_same([pair[0] for pair in together], expected[0])
    assert_same([pair[1] for pair in together], expected[1])


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("stored", [(6, 16, 16), (6, 1, 16, 16), (6, 3, 16, 16)])
def test_channels_are_those_of_the_file(tiny, add, stored):
    add(c=np.random.default_rng(0).normal(size=stored).astype(np.float32))
    channels = stored[1] if len(stored) == 4 else 1
    for said in (None, channels):
        (batch,) = nenya_loader(tiny(train_key="c", nchannels=said, batch_size_train=6))
        assert batch.view1.shape == (6, channels, 8, 8)
    with pytest.raises(DataError, match=rf"'c' has {channels} channels.*nchannels is 2"):
        nenya_loader(tiny(train_key="c", nchannels=2))


def test_a_crop_larger_than_the_cutouts_is_refused_before_anything_is_read(tiny):
    with pytest.raises(DataError, match="window of 17 pixels is larger than the cutouts of 16 x 16"):
        nenya_loader(tiny(random_jitter=[17, 1]))


def test_without_a_validation_set_there_is_nothing_to_load(tiny):
    with pytest.raises(DataError, match="valid_key is null"):
        nenya_loader(tiny(valid_key=None), valid=True)


def test_options_without_imagery_say_which_option_is_missing(tiny):
    with pytest.raises(OptionError, match="images_file is missing"):
        nenya_loader(tiny(images_file=None))


def test_scale_and_max_nodata_and_cache_mb_reach_the_file(tiny):
    images = open_images(tiny(scale=2.0, max_nodata=0.25, cache_mb=0))
    assert (images.scale, images.max_nodata, images.in_memory) == (2.0, 0.25, False)


def test_the_validation_set_has_its_own_key_and_batch_size(tiny):
    opt = tiny(batch_size_train=8, batch_size_valid=3)
    assert [nenya_loader(opt, valid).images.key for valid in (False, True)] == ["train", "valid"]
    assert [nenya_loader(opt, valid).batch_size for valid in (False, True)] == [8, 3]


def test_a_loader_can_be_built_without_options(image_file):
    views = Views(
        height=16, width=16, size=(16, 16), crop=None, flip=False, rotate=False, noise=0, demean=False, seed=0
    )
    loader = ViewLoader(ImageFile(image_file, "train"), views, 6)
    assert len(loader) == 4
    batch = next(iter(loader))
    assert torch.equal(batch.view1, batch.view2)  # nothing random was asked for
