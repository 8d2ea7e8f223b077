"""Latents as a Parquet file: each row beside the right row of the cutout table, positions as GeoParquet has them."""

import json
import struct

import h5py
import numpy as np
import pyarrow.parquet
import pytest

from nenya.data import table
from nenya.errors import DataError, OptionError
from nenya.latents import export
from nenya.latents.plan import Wanted
from nenya.latents.run import write_latents
from tests.latents.making import content, write_cutouts, write_model

COUNTS = {"train": 11, "valid": 5}


def write_cutout_table(path, cutouts):
    """A table whose rows are in no order; `DT` tells which cutout each is: 100 * pp_type + pp_idx."""
    rng = np.random.default_rng(0)
    sides = np.array([1] * COUNTS["train"] + [0] * COUNTS["valid"] + [-1] * 3)
    places = np.concatenate([np.arange(11), np.arange(5), [-1] * 3])
    order = rng.permutation(len(sides))
    columns = {}
    for name, column in table.COLUMNS.items():
        kind = {"str": np.str_, "time": "datetime64[us]"}.get(column.kind, column.kind)
        columns[name] = np.zeros(len(sides), kind)
    columns |= {"pp_type": sides[order], "pp_idx": places[order], "lon": rng.uniform(-180, 180, len(sides))}
    columns |= {"lat": rng.uniform(-90, 90, len(sides)), "DT": (100.0 * sides + places)[order]}
    columns["lat"][np.flatnonzero(columns["DT"] == 102)] = np.nan
    about = {"inputs_digest": "abc", "options": "{}", "unit": "kelvin"}
    with table.writer(path, about) as write:
        write(columns)
    with h5py.File(cutouts, "r+") as file:
        file.attrs.update({"inputs_digest": "abc", "options": "{}"})
    return columns


@pytest.fixture
def made(tmp_path, tiny, cutouts):
    """Model and cutouts."""
    sets = {key: cutouts(count, 16, count) for key, count in COUNTS.items()}
    return write_model(tiny(), tmp_path / "m.pth"), write_cutouts(tmp_path / "c.h5", **sets)


@pytest.mark.parametrize("rows", [4, 16384])
def test_each_latent_stands_beside_its_row_of_the_table(made, tmp_path, monkeypatch, rows):
    monkeypatch.setattr(export, "_ROWS", rows)
    columns = write_cutout_table(tmp_path / "c.parquet", made[1])
    write_latents(*made, tmp_path / "l.h5", Wanted("both"), export=tmp_path / "l.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "l.parquet")
    latents = content(tmp_path / "l.h5")
    assert found.num_rows == 16
    assert set(columns) < set(found.column_names)
    for number, row in enumerate(found.to_pylist()):
        key, place = ("train", number) if number < 11 else ("valid", number - 11)
        assert (row["dataset"], row["pp_idx"], row["pp_type"]) == (key, place, int(key == "train"))
        assert row["DT"] == 100 * row["pp_type"] + place
        assert row["usable"] == (place not in (3, 4))
        for space, name in (("h", key), ("z", f"{key}_z")):
            if row["usable"]:
                assert np.array_equal(np.float32(row[space]), latents[name][place])
            else:
                assert row[space] is None
        if row["DT"] == 102:
            assert row["geometry"] is None
        else:
            assert struct.unpack("<BIdd", row["geometry"]) == (1, 1, row["lon"], row["lat"])
    kind = found.schema.field("h").type
    assert (str(kind.value_type), kind.list_size) == ("float", 512 // 8)
    assert found.schema.field("DT").metadata[b"unit"] == b"kelvin"
    geo = json.loads(found.schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["geometry_types"] == ["Point"]


def test_without_a_table_there_are_the_rows_alone(made, tmp_path):
    write_latents(*made, tmp_path / "l.h5", Wanted("z", "float16"), export=tmp_path / "l.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "l.parquet")
    assert found.column_names == ["dataset", "pp_idx", "usable", "z"]
    assert found.column("pp_idx").to_pylist() == [*range(11), *range(5)]
    assert b"geo" not in found.schema.metadata


def test_a_table_of_other_cutouts_is_told_and_left_out(made, tmp_path, caplog):
    write_cutout_table(tmp_path / "c.parquet", made[1])
    with h5py.File(made[1], "r+") as file:
        file.attrs["inputs_digest"] = "other"
    write_latents(*made, tmp_path / "l.h5", export=tmp_path / "l.parquet")
    assert "do not belong together" in caplog.text
    assert "DT" not in pyarrow.parquet.read_table(tmp_path / "l.parquet").column_names


def test_a_table_that_has_changed_since_is_refused(made, tmp_path):
    write_cutout_table(tmp_path / "c.parquet", made[1])
    write_latents(*made, tmp_path / "l.h5")
    with (tmp_path / "c.parquet").open("r+b") as file:
        file.seek(60)
        file.write(b"\1")
    with pytest.raises(DataError, match="has changed since the latents were made"):
        export.write_table(tmp_path / "l.h5", tmp_path / "l.parquet")
    assert not (tmp_path / "l.parquet").exists()


@pytest.mark.parametrize("what", ["text", "the cutout table"])
def test_a_resumed_run_replaces_its_own_table_and_no_other(made, tmp_path, what):
    path = tmp_path / "c.parquet"  # where the cutout table belongs
    if what == "text":
        path.write_text("mine")
    else:
        write_cutout_table(path, made[1])
    before = path.read_bytes()
    with pytest.raises(OptionError, match="is there already"):
        write_latents(*made, tmp_path / "l.h5", export=path, resume=True)
    assert path.read_bytes() == before
    for resume in (False, True):
        write_latents(*made, tmp_path / "l.h5", export=tmp_path / "l.parquet", resume=resume)
    assert pyarrow.parquet.read_table(tmp_path / "l.parquet").num_rows == 16


def test_what_is_in_the_way_is_known_before_anything_is_encoded(made, tmp_path):
    (tmp_path / "there.parquet").write_text("mine")
    for name, message in (("there.parquet", "is there already"), ("l.csv", "expected the name of a Parquet file")):
        with pytest.raises(OptionError, match=message):
            write_latents(*made, tmp_path / "l.h5", export=tmp_path / name)
    with pytest.raises(OptionError, match="--export writes one table"):
        write_latents(made[0], [made[1], made[1]], tmp_path / "all", export=tmp_path / "x.parquet")
    assert not (tmp_path / "l.h5").exists()
    assert (tmp_path / "there.parquet").read_text() == "mine"
