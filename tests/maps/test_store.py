"""The files of a map, and regions."""

import dataclasses

import h5py
import numpy as np
import pyarrow.parquet
import pytest

from nenya.errors import DataError, OptionError
from nenya.latents.store import Latents
from nenya.maps import regions
from nenya.maps.layout import Layout, path_of
from nenya.maps.store import About, Map, Placed, write
from nenya.search.facts import Facts
from nenya.search.vectors import Vectors


def write_some(path, vectors, facts=None, classes=("all",), seed=1):
    draw = np.random.default_rng(seed)
    count = len(vectors)
    placed = Placed.nowhere(count)
    placed.coordinates[:] = draw.normal(size=(count, 2))
    placed.coordinates[3] = np.nan
    placed.far[5] = placed.landmark[7] = True
    placed.of_class[:] = draw.integers(0, len(classes), count)
    placed.of_class[3] = -1
    about = About(
        "umap", {"neighbours": 15}, 0, {"nenya": "0"}, vectors.latents.path.name, vectors.latents.digest(),
        vectors.space, "0" * 64, [{"name": name, "label": name, "count": 1, "trust": None} for name in classes],
    )  # fmt: skip
    layouts = [
        Layout(
            name,
            np.zeros(4),
            np.eye(4)[:, :2],
            np.arange(3),
            np.ones((3, 2), np.float32),
            np.ones(3, np.float32),
            np.zeros((3, 2), np.float32),
            0.5,
        )
        for name in classes
    ]
    return placed, write(path, about, placed, layouts, vectors, facts), layouts


def test_a_map_is_read_as_it_was_written_beside_the_columns_of_the_table(make, tmp_path):
    latents = make(40, 10)
    vectors = Vectors(Latents(latents))
    facts = Facts(latents.with_name("cutouts.parquet"), vectors)
    placed, about, layouts = write_some(tmp_path / "map.parquet", vectors, facts, ("DT0", "DT5"))
    found = Map(tmp_path / "map.parquet")
    np.testing.assert_array_equal(found.coordinates, placed.coordinates)
    for name in ("far", "landmark", "of_class"):
        np.testing.assert_array_equal(getattr(found, name), getattr(placed, name))
    assert found.classes == ["DT0", "DT5"]
    assert found.about == about
    found.require_match(vectors)
    for read, written in zip(found.layouts(), layouts, strict=True):
        for field in dataclasses.fields(Layout):
            np.testing.assert_array_equal(getattr(read, field.name), getattr(written, field.name))
    table = pyarrow.parquet.read_table(tmp_path / "map.parquet")
    assert table.column_names[:7] == ["key", "pp_idx", "US0", "US1", "far", "landmark", "DT_class"]
    assert table["US0"].null_count == 1
    assert table["DT_class"].null_count == 1
    np.testing.assert_allclose(table["lat"].to_numpy(), facts.column("lat"))
    assert table["key"].to_pylist() == ["train"] * 40 + ["valid"] * 10


def test_the_same_map_has_the_same_bytes(make, tmp_path):
    vectors = Vectors(Latents(make(40, 10)))
    for name in ("a.parquet", "b.parquet"):
        write_some(tmp_path / name, vectors)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_map_of_other_latents_is_refused(make, tmp_path):
    vectors = Vectors(Latents(make(40, 10)))
    write_some(tmp_path / "map.parquet", vectors)
    found = Map(tmp_path / "map.parquet")
    for other in (make(41, 10, "more"), make(40, 10, "others", seed=3), make(10, 40, "swapped")):
        with pytest.raises(DataError, match="map of other latents"):
            found.require_match(Vectors(Latents(other)))


def test_what_is_no_map_or_damaged_is_refused_in_a_line(make, tmp_path):
    latents = make(40, 10)
    vectors = Vectors(Latents(latents))
    path = tmp_path / "map.parquet"
    write_some(path, vectors)
    with pytest.raises(DataError, match="is no map"):
        Map(latents.with_name("cutouts.parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        Map(latents)
    with pytest.raises(DataError, match="cannot be read"):
        Map(tmp_path / "none.parquet")
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop_columns(["far"]), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="no column far"):
        Map(tmp_path / "less.parquet")
    pyarrow.parquet.write_table(table.replace_schema_metadata({"nenya": "[1]"}), tmp_path / "odd.parquet")
    with pytest.raises(DataError, match="another version"):
        Map(tmp_path / "odd.parquet")
    with h5py.File(path_of(path), "a") as file:
        file["all"].attrs["reach"] = 7.0
    with pytest.raises(DataError, match="does not belong to"):
        Map(path).layouts()
    path_of(path).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        Map(path).layouts()


def test_there_are_ten_regions_with_the_historical_boxes():
    assert len(regions.REGIONS) == 10
    boxes = {name: (one.lon0, one.lon1, one.lat0, one.lat1) for name, one in regions.REGIONS.items()}
    assert boxes["eqpacific"] == (-140, -90, -5, 5)
    assert boxes["eqindian"] == (60, 90, -5, 5)
    assert boxes["coastalcali"] == (-128, -118, 32, 40)
    assert {"gulfstream", "med"} <= set(boxes)
    assert all(-180 <= w < e <= 180 and -90 <= s < n <= 90 for w, e, s, n in boxes.values())


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("eqpacific", [(-140, -5), (-90.01, 4.99), (220, 0), (269, 0)], [(-90, 0), (-100, 5), (140, 0), (270, 0)]),
        ("170:-170,-5:5", [(170, 0), (180, 0), (-180, 0), (185, 0), (-171, 0)], [(-170, 0), (0, 0), (169.9, 0)]),
        ("170:190,-5:5", [(170, 0), (180, 0), (-180, 0), (185, 0), (-171, 0)], [(-170, 0), (0, 0), (169.9, 0)]),
        ("-180:180,80:90", [(-180, 80), (180, 90), (0, 85), (359, 90)], [(0, 79), (0, -85)]),
        ("0:360,-90:0", [(-180, -90), (180, -1), (359, -45)], [(0, 0), (20, 10)]),
        ("90:180,-1:1", [(90, 0), (179.9, 0)], [(180, 0), (-180, 0), (89, 0)]),
        ("180:200,-1:1", [(180, 0), (-180, 0), (-161, 0)], [(-160, 0), (179, 0)]),
    ],
)  # fmt: skip
def test_a_region_holds_what_lies_in_its_box(text, inside, outside):
    region = regions.parse(text)
    for points, expected in ((inside, True), (outside, False)):
        lon, lat = np.array(points, float).T
        assert (region.contains(lon, lat) == expected).all()
    assert not region.contains(np.array([np.nan, 0.0]), np.array([0.0, np.nan])).any()
    assert -180 <= region.lon0 <= 180
    assert -180 <= region.lon1 <= 180


@pytest.mark.parametrize(
    "text", ["atlantis", "1:2", "1:2,3:4,5:6", "a:b,0:1", "0:10,5:5", "0:10,10:5", "0:10,-95:5", "400:410,0:1",
             "10:10,0:1", "nan:1,0:1", "0:1,nan:2", "0:inf,0:1", "-180:360,0:1", ""],
)  # fmt: skip
def test_what_is_no_region_is_refused(text):
    with pytest.raises(OptionError, match="found the region"):
        regions.parse(text)


def test_all_stands_for_the_ten_and_none_counts_twice():
    assert [one.name for one in regions.parse_all(["med", "all", "0:1,2:3"])] == [
        "med", *(name for name in regions.REGIONS if name != "med"), "0:1,2:3",
    ]  # fmt: skip
