"""The loader: what a batch holds, which samples come when, labels, and reading ahead."""

import gc
import itertools
import logging
import multiprocessing
import pickle
import threading
import time
import tracemalloc

import h5py
import numpy as np
import pytest
import torch

from nenya.data.augment import VALID, Views
from nenya.data.batch import Batch
from nenya.data.chunks import ChunkReader
from nenya.data.images import ImageFile
from nenya.data.labels import label_dataset
from nenya.data.loaders import ViewLoader, nenya_loader, open_images
from nenya.data.order import shuffled, shuffled_windows
from nenya.errors import DataError, OptionError
from nenya.parallel import Ranks

TRAINING, VALIDATION = 24, 12  # cutouts in the fixture's file


PLAIN = Views(height=16, width=16, size=(16, 16), crop=None, flip=False, rotate=False, noise=0, demean=False, seed=0)


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("nenya-")]


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
    original = loader.images.read_stored
    monkeypatch.setattr(
        loader.images, "read_stored", lambda rows: reads.append(threading.current_thread()) or original(rows)
    )
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
    original, calls = loader.images.read_stored, []

    def fail_at_the_third(rows):
        calls.append(rows)
        if len(calls) == 3:
            raise DataError("the disk is gone")
        return original(rows)

    monkeypatch.setattr(loader.images, "read_stored", fail_at_the_third)
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
    loader = ViewLoader(ImageFile(image_file, "train"), PLAIN, 6)
    assert len(loader) == 4
    batch = next(iter(loader))
    assert torch.equal(batch.view1, batch.view2)  # nothing random was asked for


# ---------------------------------------------------------------- windows of chunks

COUNT, CHUNK = 2600, 64  # of 1 KB each: 41 chunks, the last half full; three windows of 1 MB


@pytest.fixture(scope="module")
def field():
    field = np.random.default_rng(3).normal(290, 3, (COUNT, 1, 16, 16)).astype(np.float32)
    field[[5, 700, 701, 2599], 0, 8:] = np.nan
    field[[0, 64, 1000]] = np.nan  # left out
    return field


@pytest.fixture(scope="module")
def chunked(field, tmp_path_factory):
    path = tmp_path_factory.mktemp("chunked") / "chunked.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=field, chunks=(CHUNK, 1, 16, 16), compression="gzip", compression_opts=1)
        file.create_dataset("ones", data=field[:300], chunks=(1, 1, 16, 16), compression="gzip", compression_opts=1)
    return path


@pytest.fixture
def windowed(chunked):
    """A loader of the chunked file with windows of 1 MB; arguments are the loader's."""

    def windowed(batch_size=100, key="a", cache_mb=0, **options):
        return ViewLoader(ImageFile(chunked, key, cache_mb=cache_mb), PLAIN, batch_size, **{"window_mb": 1} | options)

    return windowed


@pytest.fixture
def reads(monkeypatch):
    """The first rows of the chunks that are read, in the order of reading."""
    reads = []
    read = ChunkReader.read
    monkeypatch.setattr(ChunkReader, "read", lambda self, *rows: reads.append(rows[0]) or read(self, *rows))
    return reads


def usable_rows():
    return np.delete(np.arange(COUNT), [0, 64, 1000])


@pytest.mark.parametrize("read_ahead", [0, 1, 4])
@pytest.mark.parametrize("train", [True, False])
def test_each_chunk_is_unpacked_once_an_epoch(windowed, reads, train, read_ahead):
    loader = windowed(train=train, read_ahead=read_ahead)
    reads.clear()  # of the look for missing pixels
    rows = joined(rows_of(loader))
    assert sorted(reads) == list(range(0, COUNT, CHUNK))
    if train:
        windows = shuffled_windows(usable_rows(), CHUNK, 16, 0, 1)
        assert len(windows) == 3
        assert rows == np.concatenate(windows)[: len(rows)].tolist()
    else:
        assert rows == usable_rows().tolist()


@pytest.mark.parametrize("train", [True, False])
def test_windows_give_the_views_of_a_dataset_in_memory(windowed, train):
    for epoch in (1, 2):
        windows, memory = (windowed(train=train, cache_mb=cache) for cache in (0, 100))
        windows.set_epoch(epoch)
        memory.set_epoch(epoch)
        first, second = ({row: view for b in loader for row, view in zip(b.rows.tolist(), b.view2, strict=True)}
                         for loader in (windows, memory))  # fmt: skip
        common = first.keys() & second.keys()
        assert len(common) >= len(usable_rows()) - 2 * 100
        assert all(torch.equal(first[row], second[row]) for row in common)


@pytest.mark.parametrize("read_ahead", [0, 3])
@pytest.mark.parametrize("size", [7, 100, 1000])
def test_batches_straddle_windows_and_hold_the_pixels_of_their_rows(windowed, field, size, read_ahead):
    gaps = np.isnan(field)
    mean = np.where(gaps, 0, field).sum(axis=(2, 3), keepdims=True, dtype=np.float64)
    filled = np.where(gaps, mean / np.maximum((~gaps).sum(axis=(2, 3), keepdims=True), 1), field)
    for batch in windowed(size, read_ahead=read_ahead):
        assert len(batch.rows) == size
        np.testing.assert_allclose(batch.view1.numpy(), filled[batch.rows.numpy()], rtol=3e-7)


def test_what_fits_in_one_window_is_shuffled_as_in_memory(windowed):
    assert rows_of(windowed(window_mb=3)) == rows_of(windowed(cache_mb=100))


def test_chunks_of_one_cutout_are_read_in_any_order_and_unpacked_side_by_side(windowed, reads):
    loader = windowed(50, key="ones", read_ahead=3)
    reads.clear()
    rows = joined(rows_of(loader))
    assert rows == shuffled(loader.images.usable, 0, 1)[: len(rows)].tolist()
    assert sorted(reads) == sorted(rows)


@pytest.mark.parametrize("start", [1, 9, 24])
@pytest.mark.parametrize("read_ahead", [0, 3])
def test_a_pass_that_starts_in_the_middle_reads_no_window_it_does_not_need(windowed, reads, start, read_ahead):
    loader = windowed(read_ahead=read_ahead)
    complete = list(loader)
    reads.clear()
    loader.set_epoch(1, start=start)
    assert_same(list(loader), complete[start:])
    needed = np.concatenate([batch.rows.numpy() for batch in complete[start:]])
    assert sorted(reads) == sorted(set((needed // CHUNK * CHUNK).tolist()))


@pytest.mark.parametrize("train", [True, False])
def test_a_short_pass_reads_no_more_than_it_shows(windowed, reads, train):
    loader = windowed(train=train)
    loader.max_batches = 2
    reads.clear()
    rows = np.array(joined(rows_of(loader)))
    assert sorted(reads) == sorted(set((rows // CHUNK * CHUNK).tolist()))


def test_a_pass_with_nothing_left_is_empty(windowed):
    for read_ahead in (0, 2):
        loader = windowed(read_ahead=read_ahead)
        loader.set_epoch(1, start=len(loader))
        assert list(loader) == []


@pytest.mark.parametrize("read_ahead", [0, 4])
def test_memory_is_bounded_by_two_windows_whatever_the_size_of_the_file(windowed, read_ahead):
    loader = windowed(20, read_ahead=read_ahead)
    assert loader.num_samples == COUNT - 3  # the look through the file is over
    tracemalloc.start()
    try:
        for _ in loader:
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    window = COUNT / 3 * 1024
    most = 2 if read_ahead else 1  # beside them, batches and the chunks that are being unpacked
    assert peak < (most + 0.9) * window


@pytest.mark.parametrize("read_ahead", [0, 3])
def test_damage_in_a_later_window_is_met_where_its_rows_are_due(windowed, monkeypatch, read_ahead):
    loader = windowed(read_ahead=read_ahead)
    windows = shuffled_windows(usable_rows(), CHUNK, 16, 0, 1)
    bad = int(windows[1][0]) // CHUNK * CHUNK
    read = ChunkReader.read

    def fail(self, start, stop):
        if start == bad:
            raise OSError(f"reading rows {start} to {stop - 1} fails: worn out")
        return read(self, start, stop)

    monkeypatch.setattr(ChunkReader, "read", fail)
    seen = []
    with pytest.raises(DataError, match=rf"'a' cannot be read at rows.*rows {bad} to .*worn out"):
        seen.extend(iter(loader))
    assert len(seen) == len(windows[0]) // 100
    gc.collect()
    assert not reading_threads()


@pytest.mark.parametrize("taken", [0, 1, 12])
def test_a_windowed_pass_that_is_given_up_leaves_no_thread_behind(windowed, taken):
    batches = iter(windowed(read_ahead=4))
    for _ in range(taken):
        next(batches)
    batches.close()
    assert not reading_threads()


def test_windows_that_mix_badly_are_said_so_once_with_the_size_that_would_do(windowed, caplog):
    with caplog.at_level(logging.WARNING):
        windowed(20)
        windowed(1000, train=False)
    assert not [record for record in caplog.records if "window_mb" in record.message]
    with caplog.at_level(logging.WARNING):
        loader = windowed(1000)
    (said,) = [record.message for record in caplog.records if "window_mb" in record.message]
    assert "holds 16 of its chunks (64 cutouts, 0.0625 MB each)" in said
    assert "Set window_mb to 3 or more" in said  # which is the whole file
    assert len(shuffled_windows(usable_rows(), CHUNK, loader.window_chunks, 0, 1)) == 1


# ---------------------------------------------------------------- several processes


@pytest.fixture
def loader_of(monkeypatch):
    """Function: the loader that a process of a given rank gets."""

    def make(opt, rank, num_ranks, **arguments):
        monkeypatch.setattr("nenya.parallel.current", lambda: Ranks(rank, num_ranks))
        return nenya_loader(opt, **arguments)

    return make


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("key", ["a", "ones"])
def test_the_parts_of_all_ranks_together_are_the_batch_of_one_process(windowed, key, ranks):
    one = windowed(36, key)
    loaders = [windowed(36, key, rank=rank, num_ranks=ranks) for rank in range(ranks)]
    assert {len(loader) for loader in loaders} == {loader.num_batches for loader in loaders} == {len(one)}
    for loader in (one, *loaders):
        loader.max_batches = 27
        loader.set_epoch(1, start=5 if key == "ones" else 21)  # batch 24 of "a" straddles two windows
    whole = list(one)
    assert len(whole) >= 3
    for batch, *parts in zip(whole, *loaders, strict=True):
        assert {len(part.rows) for part in parts} == {36 // ranks}
        for name in ("rows", "view1", "view2"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_validation_batches_go_to_the_ranks_in_turn(windowed, ranks):
    whole = list(windowed(400, train=False))
    loaders = [windowed(400, train=False, rank=rank, num_ranks=ranks) for rank in range(ranks)]
    assert {loader.num_batches for loader in loaders} == {len(whole)}
    for rank, loader in enumerate(loaders):
        expected = whole[rank::ranks]
        assert len(loader) == len(expected)
        assert_same(list(loader), expected)


@pytest.mark.parametrize("train", [True, False])
def test_a_short_pass_is_as_short_on_every_rank(windowed, train):
    for rank in range(3):
        loader = windowed(60, train=train, rank=rank, num_ranks=3)
        loader.max_batches = 2
        assert len(loader) == len(list(loader)) == 2


@pytest.mark.parametrize(("size", "ranks", "choices"), [(10, 4, "8 or 12"), (3, 4, "4"), (7, 2, "6 or 8")])
def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_sizes_that_can(tiny, loader_of, size, ranks, choices):
    opt = tiny(batch_size_train=size, batch_size_valid=size)
    with pytest.raises(
        OptionError, match=rf"is {size}, which {ranks} processes cannot share evenly: choose {choices}, or"
    ):
        loader_of(opt, 0, ranks)
    assert len(loader_of(opt, 1, ranks, valid=True))  # whole batches need no sharing


def test_a_batch_reduced_to_the_data_is_still_shared_evenly(tiny, loader_of, add, caplog):
    add(few=cutouts_of(7, 16))
    parts = [list(loader_of(tiny(train_key="few"), rank, 4)) for rank in range(4)]
    assert "training with batches of 4" in caplog.text
    assert [[len(batch.rows) for batch in batches] for batches in parts] == [[1]] * 4
    add(fewer=cutouts_of(3, 16))
    with pytest.raises(DataError, match="3 usable cutouts, fewer than the 4 processes"):
        loader_of(tiny(train_key="fewer"), 0, 4)


# ---------------------------------------------------------------- other processes


def _first_rows(loader, sender):
    torch.set_num_threads(1)  # as in torch's own worker processes: a forked one has lost the threads of OpenMP
    batch = next(iter(loader))
    sender.send((batch.rows.tolist(), batch.view1.numpy()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_loader_goes_to_another_process_and_both_read_on(windowed, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"the system has no {method}")
    loader = windowed(read_ahead=2)
    expected = next(iter(loader))  # opened before the other process starts
    loader.set_epoch(1)
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_first_rows, args=(loader, sender))
    child.start()
    try:
        assert receiver.poll(60)
        rows, view1 = receiver.recv()
        assert rows == expected.rows.tolist()
        np.testing.assert_allclose(view1, expected.view1, rtol=1e-6, atol=1e-4)  # by another number of threads
        child.join(120)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert_same([next(iter(loader))], [expected])
    assert len(pickle.dumps(loader)) < 2 * COUNT * 8  # row numbers and no pixels
