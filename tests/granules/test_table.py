"""The table beside the cutouts: what `nenya check` says of it, and what a training keeps of it."""

import hashlib
import json
import shutil

import h5py
import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
import torch

from nenya.check import check_run
from nenya.data import table
from nenya.granules import Settings, make_cutouts
from nenya.params import Params
from nenya.train import run
from tests.granules.conftest import field, write_grid


@pytest.fixture(scope="module")
def made(granules, small, tmp_path_factory):
    """What one run wrote; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    make_cutouts([granules], folder / "c.h5", small)
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of it."""
    for name in ("c.h5", "c.parquet"):
        shutil.copy(made / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(folder, **values):
    few = {"image_size": 8, "epochs": 1, "batch_size_train": 16, "on_collapse": "warn", "ssl_model": "resnet18"}
    (folder / "opts.json").write_text(json.dumps({"images_file": "c.h5", **few, **values}))
    return Params(folder / "opts.json")


def told(folder):
    """What `nenya check` says of the table; None where nothing."""
    lines = [line.split(maxsplit=1) for line in check_run(options(folder))]
    return next((line[1] for line in lines if line[0] == "table"), None)


def test_check_says_whether_the_table_belongs_to_the_cutouts(here, granules, small):
    assert told(here) == "c.parquet: a row for each cutout"
    make_cutouts([granules], here / "other.h5", Settings(**(vars(small) | {"min_clear": 0.9})))
    shutil.copy("other.parquet", "c.parquet")
    assert "c.parquet and c.h5 do not belong together: they were made from other granules" in told(here)
    (here / "c.parquet").write_text("hello")
    assert "c.parquet cannot be read" in told(here)
    (here / "c.parquet").unlink()
    assert told(here) == "c.parquet is not there, though the cutouts were made together with it"


def test_a_table_and_cutouts_of_another_origin_are_told_by_their_rows(here):
    rows = pyarrow.parquet.read_table("c.parquet").replace_schema_metadata()
    rows = rows.filter(pyarrow.compute.field("pp_type") != -1)
    with h5py.File("c.h5", "a") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    shuffled = rows.take(np.random.default_rng(0).permutation(len(rows)))
    pyarrow.parquet.write_table(shuffled, "c.parquet")  # as users order theirs
    assert told(here) == "c.parquet: a row for each cutout"
    pyarrow.parquet.write_table(rows.slice(0, len(rows) - 1), "c.parquet")
    assert "do not belong together: the table has" in told(here)
    pyarrow.parquet.write_table(rows.drop_columns(["pp_idx"]), "c.parquet")
    assert "no column pp_idx" in told(here)
    twice = pyarrow.array(np.zeros(len(rows), np.int64))
    pyarrow.parquet.write_table(rows.set_column(rows.column_names.index("pp_idx"), "pp_idx", twice), "c.parquet")
    assert "does not tell which row is which cutout" in told(here)
    (here / "c.parquet").unlink()
    assert told(here) is None


def test_a_training_keeps_name_and_digest_of_a_table_that_belongs_to_its_data(here):
    state = run(options(here, batch_size_train=64, valid_key=None), debug=True)
    kept = torch.load(state.folder / "last.pth", weights_only=True)["table"]
    assert kept == {"name": "c.parquet", "digest": hashlib.sha256((here / "c.parquet").read_bytes()).hexdigest()}
    (here / "c.parquet").write_text("hello")
    assert table.look_beside("c.h5").record is None


def test_training_on_cutouts_of_granules_learns(tmp_path, monkeypatch):
    """The whole way: the other view is found more often than by the untrained network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for number in range(6):
        place = {"lat0": 30 + 3 * number, "lon0": -40 + 4 * number, "days": (3 * number,)}
        write_grid(tmp_path / "in" / f"sst_{number}.nc", field((160, 200), number, clear=1.0), **place)
    make_cutouts(["in"], "c.h5", Settings(size=32, block_degrees=1.0, valid=0.5))
    asked = {"epochs": 2, "random_jitter": [20, 2], "learning_rate": 0.1, "precision": "fp32"}
    health = run(options(tmp_path, **asked)).curves.health
    assert health[2].num_samples > 100
    assert health[2].retrieval_top1 > 1.2 * health[0].retrieval_top1 > 1.2 * health[0].chance_top1
    assert health[2].retrieval_top5 > 1.2 * health[0].retrieval_top5


def test_a_table_reads_back_as_it_was_written(made):
    columns = table.read(made / "c.parquet")
    other = pyarrow.parquet.read_table(made / "c.parquet").to_pydict()
    assert list(columns) == list(other) == list(table.COLUMNS)
    for name, values in columns.items():
        expected = other[name]
        if table.COLUMNS[name].kind == "time":
            expected = [np.datetime64(instant.replace(tzinfo=None)) for instant in expected]
        elif table.COLUMNS[name].kind == "float64":
            expected = np.array(expected, float)
        np.testing.assert_array_equal(values, expected)
