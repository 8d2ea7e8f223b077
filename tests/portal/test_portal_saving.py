"""What is taken away: tables, lists of rows, cutouts; and that nothing stays behind."""

import asyncio
import csv
import io
import tempfile
import threading

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from nenya.params import Params
from nenya.portal import saving
from nenya.portal.app import Portal
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.portal.work import GoneError, Stop
from nenya.train import run as train
from tests.portal.conftest import SIDE, TRAIN, VALID, client_of, columns_of, write_run

COUNT = TRAIN + VALID
CHOSEN = [2, 3, 5, 39, 40, 59]


def bitset(numbers, count=COUNT):
    chosen = np.zeros(count, bool)
    chosen[list(numbers)] = True
    return np.packbits(chosen, bitorder="little").tobytes()


def saved(client, kind, numbers=CHOSEN, count=COUNT):
    answer = client.post(f"/api/save?format={kind}", content=bitset(numbers, count))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith("attachment")
    assert int(answer.headers["content-length"]) == len(answer.content)
    return answer.content


def number_of(row):
    return int(row["pp_idx"]) + (TRAIN if row["key"] == "valid" else 0)


def test_csv_has_all_columns_of_the_rows(client):
    rows = list(csv.DictReader(io.StringIO(saved(client, "csv").decode())))
    rows.sort(key=number_of)
    assert [number_of(row) for row in rows] == CHOSEN
    assert list(rows[0])[:4] == ["key", "pp_idx", "US0", "US1"]
    expected = columns_of(COUNT)
    assert [float(row["DT"]) for row in rows] == [expected["DT"][number] for number in CHOSEN]
    assert rows[0]["datetime"] == "2020-01-01T12:00:00Z"
    assert all(np.isfinite(float(row["US0"])) for row in rows)


def test_parquet_keeps_types(client):
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(saved(client, "parquet"))).to_pydict()
    order = np.argsort([place + (TRAIN if key == "valid" else 0) for key, place in
                        zip(table["key"], table["pp_idx"], strict=True)])  # fmt: skip
    assert np.array(table["row"])[order].tolist() == columns_of(COUNT)["row"][CHOSEN].tolist()
    assert np.array(table["datetime"])[order][0] == columns_of(COUNT)["datetime"][2].astype(object)


def test_a_list_of_rows(client):
    assert saved(client, "rows").decode().split() == [
        "train:2",
        "train:3",
        "train:5",
        "train:39",
        "valid:0",
        "valid:19",
    ]


def test_cutouts_are_those_of_the_rows_and_training_reads_them(client, run, tmp_path):
    numbers = [*range(0, 40, 2), *range(41, 60, 2)]
    (tmp_path / "subset.h5").write_bytes(saved(client, "hdf5", numbers))
    with h5py.File(tmp_path / "subset.h5") as file, h5py.File(run / "cutouts.h5") as source:
        assert file["train"].attrs["units"] == "K"
        np.testing.assert_array_equal(file["train"][()], source["train"][::2])
        np.testing.assert_array_equal(file["valid"][()], source["valid"][1::2])
        assert file["valid_source_row"][()].tolist() == list(range(1, 20, 2))
    options = {
        "images_file": str(tmp_path / "subset.h5"), "model_root": str(tmp_path / "models"), "ssl_model": "resnet18",
        "image_size": SIDE, "crop_size": SIDE, "batch_size_train": 8, "batch_size_valid": 4, "epochs": 1, "feat_dim": 8,
    }  # fmt: skip
    known = set(Params.from_dict({"images_file": "x"}).dict)
    train(Params.from_dict({name: value for name, value in options.items() if name in known}))


def test_packed_pixels_and_labels_stay_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    folder = write_run(tmp_path / "run", counts={"train": 12}, pixels=False, columns=False)
    stored = rng.integers(-500, 500, (12, SIDE, SIDE)).astype(">i2")
    with h5py.File(folder / "cutouts.h5", "w") as file:
        made = file.create_dataset("train", data=stored, chunks=(5, SIDE, SIDE), compression="gzip")
        made.attrs["scale_factor"], made.attrs["add_offset"] = np.float32(0.01), 273.15
        made.attrs["_FillValue"] = np.array([-500], ">i2")
        file["train_labels"] = np.arange(12) % 3
    client = client_of(folder)
    (tmp_path / "subset.h5").write_bytes(saved(client, "hdf5", [1, 7, 11], 12))
    with h5py.File(tmp_path / "subset.h5") as file:
        assert file["train"].dtype == np.dtype(">i2")
        np.testing.assert_array_equal(file["train"][()], stored[[1, 7, 11]])
        assert file["train"].attrs["scale_factor"] == np.float32(0.01)
        assert file["train"].attrs["_FillValue"].tolist() == [-500]
        assert file["train_labels"][()].tolist() == [1, 1, 2]


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """The files that are made without a name."""
    made = []
    make = tempfile.TemporaryFile

    def keep(*args, **kwargs):
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", keep)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield made
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("when", ["in mid-download", "while it is made"])
def test_nothing_stays_behind_when_the_client_goes(run, temporary, monkeypatch, when):
    portal = Portal(Atlas(run, Named()))
    gone = asyncio.Event()
    stopped = []
    pause = threading.Event()
    if when == "while it is made":

        def slow(atlas, chosen, file, stop):
            loop.call_soon_threadsafe(gone.set)
            for _ in range(500):
                try:
                    stop.check()
                except GoneError:
                    stopped.append(True)
                    raise
                pause.wait(0.01)

        monkeypatch.setattr(saving, "_csv", slow)
    body = [{"type": "http.request", "body": bitset(CHOSEN), "more_body": False}]

    async def receive():
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.body" and not gone.is_set():
            gone.set()
            await asyncio.sleep(5)  # nobody takes it

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "method": "POST", "path": "/api/save",
        "query_string": b"format=csv", "headers": [], "scheme": "http", "server": ("x", 1), "root_path": "",
    }  # fmt: skip

    async def main():
        nonlocal loop
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(portal.app()(scope, receive, send), 20)

    loop = None
    asyncio.run(main())
    assert len(temporary) == 1
    assert temporary[0].closed
    assert bool(stopped) == (when == "while it is made")


def test_a_full_disk_is_told(client, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_csv", full)
    answer = client.post("/api/save?format=csv", content=bitset(CHOSEN))
    assert answer.status_code == 422
    assert "No space left on device" in answer.json()["error"]


def test_work_that_nobody_wants_stops(run):
    stop = Stop()
    stop.set()
    atlas = Atlas(run, Named())
    for work in (lambda: atlas.places(stop), lambda: atlas.wire(2, stop),
                 lambda: atlas.require_sheets().sheet(np.arange(4), 16, "gray", None, stop),
                 lambda: atlas.describe(np.arange(3), stop),
                 lambda: atlas.searcher.search(atlas.searcher.rows(["train:1"]), 3, watch=stop.check)):  # fmt: skip
        with pytest.raises(GoneError):
            work()


def test_long_arrays_wait_on_the_disk_and_are_sent_whole(client, monkeypatch, temporary):
    expected = client.get("/api/column/2").content
    monkeypatch.setattr("nenya.portal.download._LARGEST", 10)
    assert client.get("/api/column/2").content == expected
    assert len(temporary) == 1
    assert temporary[0].closed
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    answer = client.get("/api/column/2")
    assert answer.status_code == 422
    assert "TMPDIR" in answer.json()["error"]
