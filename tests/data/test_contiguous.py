"""Pixels in one piece of a file: what NumPy reads there, an error where they are gone, and no end of the process."""

import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nenya.data import contiguous
from nenya.data.contiguous import ContiguousReader

COUNT, OFFSET = 300, 1234
FRAME = (2, 5, 7)


def numbers(kind="<f4"):
    return np.random.default_rng(0).integers(0, 200, (COUNT, *FRAME)).astype(kind)


@pytest.fixture
def written(tmp_path):
    """Write pixels to a file, behind `OFFSET` other bytes."""

    def written(data):
        path = tmp_path / "pixels.bin"
        path.write_bytes(b"x" * OFFSET + data.tobytes() + b"more")
        return path

    return written


def without_preadv(monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)


WAYS = {
    "by preadv": lambda monkeypatch: None,
    "as on Windows": without_preadv,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def read(reader, rows, kind="<f4"):
    pixels = np.full((len(rows), *FRAME), 7, kind)
    for part in reader.parts(np.asarray(rows, np.int64), pixels):
        part()
    return pixels


@ways
@pytest.mark.parametrize(("stored", "wanted"), [("<f4", "<f4"), (">f4", "<f4"), ("<u2", "<i4"), ("|u1", "|u1")])
def test_any_rows_in_any_order_are_those_that_numpy_reads(written, monkeypatch, way, stored, wanted):
    way(monkeypatch)
    data = numbers(stored)
    reader = ContiguousReader(written(data), OFFSET, data.shape, stored)
    rows = st.one_of(
        st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=40),
        st.tuples(st.integers(0, 200), st.integers(1, 100)).map(lambda run: list(range(run[0], sum(run)))),
        st.tuples(st.integers(0, 99), st.integers(2, 60)).map(lambda run: [*range(run[0], sum(run)), run[0], 250]),
    )

    @settings(max_examples=60)
    @given(rows)
    def check(rows):
        np.testing.assert_array_equal(read(reader, rows, wanted), data[rows])

    check()
    assert reader.parts(np.arange(0), np.empty((0, *FRAME))) == []


def test_more_rows_than_one_call_of_the_system_takes(written):
    data = numbers()
    rows = np.random.default_rng(1).integers(0, COUNT, 2500)
    np.testing.assert_array_equal(read(ContiguousReader(written(data), OFFSET, data.shape, "<f4"), rows), data[rows])


@ways
@pytest.mark.parametrize(("stored", "wanted"), [("<f4", "<f4"), ("<i2", "<f8")])
def test_a_run_of_rows_is_read_in_blocks_that_are_converted(written, monkeypatch, way, stored, wanted):
    way(monkeypatch)
    monkeypatch.setattr(contiguous, "_BLOCK_BYTES", 1000)
    data = numbers(stored)
    reader = ContiguousReader(written(data), OFFSET, data.shape, stored)
    pixels = np.empty((COUNT - 7, *FRAME), wanted)
    reader.read_run(3, COUNT - 4, pixels)
    np.testing.assert_array_equal(pixels, data[3:-4])


def test_the_system_may_give_less_than_was_asked_for(written, monkeypatch):
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, place: original(file, [buffers[0][:100]], place))
    data = numbers()
    reader = ContiguousReader(written(data), OFFSET, data.shape, "<f4")
    np.testing.assert_array_equal(read(reader, [5, 6, 7, 2]), data[[5, 6, 7, 2]])


@ways
@pytest.mark.parametrize("rows", [[250, 3], [3, 250, 9, 280], range(200, 260)], ids=str)
@pytest.mark.parametrize("missing", [1, 40_000])
def test_pixels_that_are_cut_off_are_an_error(written, monkeypatch, way, rows, missing):
    way(monkeypatch)
    data = numbers()
    path = written(data)
    reader = ContiguousReader(path, OFFSET, data.shape, "<f4")
    np.testing.assert_array_equal(read(reader, [0]), data[[0]])
    end = OFFSET + data[:250].nbytes
    os.truncate(path, end - missing + 1)
    message = rf"pixels\.bin has {end - missing + 1} bytes, and its pixels end at byte {OFFSET + data.nbytes}"
    with pytest.raises(OSError, match=message):
        read(reader, rows)
    with pytest.raises(OSError, match=message):
        reader.read_run(0, COUNT, np.empty(data.shape, "<f4"))
    with pytest.raises(OSError, match=message):
        ContiguousReader(path, OFFSET, data.shape, "<f4")


def test_a_file_cut_short_in_the_very_moment_is_an_error_and_not_the_end_of_the_process(written, monkeypatch):
    data = numbers()
    path = written(data)
    reader = ContiguousReader(path, OFFSET, data.shape, "<f4")
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: os.truncate(path, 4000) or original(*arguments))
    with pytest.raises(OSError, match="has 4000 bytes"):
        read(reader, [250, 3])


def test_a_file_that_was_replaced_is_read_on(written, tmp_path):
    data = numbers()
    path = written(data)
    reader = ContiguousReader(path, OFFSET, data.shape, "<f4")
    (tmp_path / "other").write_bytes(b"y" * path.stat().st_size)
    os.replace(tmp_path / "other", path)
    np.testing.assert_array_equal(read(reader, [250, 3]), data[[250, 3]])
    np.testing.assert_array_equal(read(reader, [8, 9]), data[[8, 9]])


def test_the_file_is_closed_with_the_reader(written):
    data = numbers()
    path = written(data)
    reader = ContiguousReader(path, OFFSET, data.shape, "<f4")
    descriptor = reader._descriptor
    del reader
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@ways
def test_threads_read_at_once(written, monkeypatch, way):
    way(monkeypatch)
    data = numbers()
    reader = ContiguousReader(written(data), OFFSET, data.shape, "<f4")
    wrong = []

    def work(seed):
        for _ in range(50):
            rows = np.random.default_rng(seed).integers(0, COUNT, 20)
            if not np.array_equal(read(reader, rows), data[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
