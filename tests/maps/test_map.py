"""`nenya map`: the files, their columns, what is told, what is refused; UMAP itself in two tests."""

import dataclasses
import hashlib

import h5py
import numpy as np
import pyarrow.parquet
import pytest

from nenya.errors import OptionError
from nenya.latents.store import Latents
from nenya.maps import classes, components, run, umapping
from nenya.maps.placing import first_two
from nenya.maps.store import Map
from nenya.search.facts import Facts
from nenya.search.vectors import Vectors
from tests.maps.conftest import latents_in_groups, write_table
from tests.search.conftest import ABOUT, write_latents


@pytest.fixture
def quick(monkeypatch):
    """In place of UMAP, whose functions are compiled for seconds: the first two components."""
    monkeypatch.setattr(umapping, "require", lambda: None)
    monkeypatch.setattr(umapping, "lay_out", lambda vectors, nearest, distances, seed: first_two(vectors))


@pytest.mark.slow
def test_umap_lays_out_the_same_map_whatever_the_threads_blocks_and_order(make, tmp_path, monkeypatch):
    import numba

    latents = make(260, 40)
    vectors = Vectors(Latents(latents))
    first = run.make(vectors, None, num_landmarks=120)
    monkeypatch.setattr(components, "BLOCK", 33)
    monkeypatch.setattr(run, "BLOCK", 33)
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        again = run.make(vectors, None, num_landmarks=120)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(again.placed.coordinates, first.placed.coordinates)
    np.testing.assert_array_equal(again.placed.far, first.placed.far)
    assert first.about.versions["umap-learn"]
    values = np.concatenate(
        [vectors.latents.read(key, 0, vectors.latents.num_rows(key)) for key in vectors.latents.keys]
    )
    order = np.random.default_rng(0).permutation(300)
    shuffled = Vectors(Latents(write_latents(tmp_path / "s.h5", values[order])))
    np.testing.assert_array_equal(
        run.make(shuffled, None, num_landmarks=120).placed.coordinates, first.placed.coordinates[order]
    )
    trusted = first.about.classes[0]["trust"]
    assert trusted["landmarks"]["trustworthiness"] > 0.85
    assert trusted["placed"]["trustworthiness"] > 0.8
    group = latents_in_groups(300)[1]
    centres = np.stack([np.median(first.placed.coordinates[group == one], axis=0) for one in range(6)])
    away = np.linalg.norm(first.placed.coordinates[:, None] - centres, axis=2)
    assert (away.argmin(axis=1) == group).mean() > 0.95


def test_a_map_has_a_row_for_each_latent_beside_its_table(make, nenya, quick):
    latents = make(200, 40)
    code, out, _ = nenya("map", latents, "--landmarks", 60)
    assert code == 0
    assert "all cutouts: 240 cutouts, 60 landmarks" in out
    assert "  landmarks: trustworthiness 0." in out
    assert "  placed: trustworthiness 0." in out
    found = Map(latents.with_name("map.parquet"))
    found.require_match(Vectors(Latents(latents)))
    assert found.landmark.sum() == 60
    assert np.isfinite(found.coordinates).all()
    assert not found.far[found.landmark].any()
    assert found.about.parameters["spread_over"] == ["place", "month"]
    table = pyarrow.parquet.read_table(found.path)
    assert {"lat", "lon", "datetime", "DT", "pp_type"} < set(table.column_names)
    (layout,) = found.layouts()
    np.testing.assert_array_equal(np.sort(layout.rows), np.flatnonzero(found.landmark))
    np.testing.assert_array_equal(found.coordinates[layout.rows], layout.coordinates)


def test_the_same_call_writes_the_same_bytes_and_another_seed_others(make, nenya, quick):
    latents = make(200, 0)
    seen = []
    for seed in (0, 0, 1):
        assert nenya("map", latents, "--landmarks", 60, "--seed", seed)[0] == 0
        seen.append(
            [hashlib.sha256(latents.with_name(f"map.{end}").read_bytes()).digest() for end in ("parquet", "h5")]
        )
    assert seen[0] == seen[1]
    assert seen[0] != seen[2]


def test_classes_of_dt_are_half_open_and_leave_no_gap(make):
    values = [0.0, 0.4999, 0.5, 0.9999, 1.0, 1.5, 2.4999, 2.5, 3.9999, 4.0, 90.0, -0.001, np.nan]
    latents = make(13, 0, DT=np.array(values))
    found = classes.of_rows(Facts(latents.with_name("cutouts.parquet"), Vectors(Latents(latents))))
    names = [None if one < 0 else list(classes.BINS)[one] for one in found]
    assert names == ["DT0", "DT0", "DT1", "DT1", "DT15", "DT2", "DT2", "DT4", "DT4", "DT5", "DT5", None, None]


def test_each_class_has_a_map_of_its_own_and_rows_in_none_are_told(make, nenya, quick, caplog):
    values = np.concatenate([np.full(120, 0.1), np.full(100, 2.0), np.full(15, 7.0), np.full(5, np.nan)])
    latents = make(200, 40, DT=values)
    code, out, _ = nenya("map", latents, "--by", "DT", "--landmarks", 50)
    assert code == 0
    assert "5 usable cutouts are in no class" in out
    assert "DT 0 to 0.5 K: 120 cutouts, 50 landmarks" in out
    assert "DT from 4 K: 15 cutouts, 0 landmarks" in out
    assert "too few different latents" in caplog.text
    found = Map(latents.with_name("map.parquet"))
    assert found.classes == ["DT0", "DT2", "DT5"]
    np.testing.assert_array_equal(found.of_class, np.repeat([0, 1, 2, -1], [120, 100, 15, 5]))
    np.testing.assert_array_equal(np.isnan(found.coordinates[:, 0]), np.isnan(values))
    np.testing.assert_array_equal(found.about.unplaced, 5)
    vectors = Vectors(Latents(latents))
    stored = np.concatenate(
        [vectors.latents.read(key, 0, vectors.latents.num_rows(key)) for key in vectors.latents.keys]
    )
    alone = Vectors(Latents(write_latents(latents.with_name("alone.h5"), stored[120:220])))
    made = run.make(alone, None, num_landmarks=100)
    assert len(made.layouts[0].rows) == 100
    np.testing.assert_array_equal(made.layouts[0].mean, found.layouts()[1].mean)  # of these rows alone


def test_the_first_two_components_need_no_landmarks_and_no_package(make, nenya, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    latents = make(100, 20)
    code, _, err = nenya("map", latents)
    assert code == 2
    assert "pip install 'nenya[map]'" in err
    assert not latents.with_name("map.parquet").exists()
    assert nenya("map", latents, "--method", "pca")[0] == 0
    found = Map(latents.with_name("map.parquet"))
    assert not found.landmark.any()
    assert not found.far.any()
    values = np.concatenate([Latents(latents).read("train", 0, 100), Latents(latents).read("valid", 0, 20)]).astype(
        float
    )
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    centred = values - values.mean(axis=0)
    expected = centred @ np.linalg.svd(centred)[2][:2].T
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(expected), atol=1e-3)


def test_new_latents_are_placed_where_the_same_latents_were(make, nenya, quick, monkeypatch):
    latents = make(200, 40)
    assert nenya("map", latents, "--landmarks", 60)[0] == 0
    old = Map(latents.with_name("map.parquet"))
    monkeypatch.setattr(umapping, "require", None)  # UMAP is not needed
    stored = Latents(latents).read("train", 0, 200)
    new = write_latents(latents.with_name("new.h5"), stored[50:100][::-1])
    code, out, _ = nenya("map", new, "--onto", old.path, "--out", new.with_name("new_map.parquet"))
    assert code == 0
    assert "  placed: trustworthiness" in out
    found = Map(new.with_name("new_map.parquet"))
    np.testing.assert_array_equal(found.coordinates[::-1], old.coordinates[50:100])
    assert not found.landmark.any()
    assert found.about.onto["name"] == "map.parquet"
    again = nenya("map", new, "--onto", found.path, "--out", new.with_name("third.parquet"))
    assert again[0] == 0
    np.testing.assert_array_equal(Map(new.with_name("third.parquet")).coordinates, found.coordinates)


def test_latents_of_another_model_or_kind_are_not_placed(make, nenya, quick):
    latents = make(100, 0)
    assert nenya("map", latents, "--landmarks", 60)[0] == 0
    other = make(50, 0, "other", about=dataclasses.replace(ABOUT, model_digest="1" * 64), table=False)
    code, _, err = nenya("map", other, "--onto", latents.with_name("map.parquet"))
    assert code == 2
    assert "another model" in err
    wide = make(50, 0, "wide", dims=33, table=False)
    code, _, err = nenya("map", wide, "--onto", latents.with_name("map.parquet"))
    assert code == 2
    assert "of 33" in err
    assert not wide.with_name("map.parquet").exists()


def test_new_latents_are_placed_on_the_map_of_their_class(make, nenya, quick):
    latents = make(200, 0, DT=np.repeat([0.1, 2.0], 100))
    assert nenya("map", latents, "--by", "DT", "--landmarks", 50)[0] == 0
    new = make(20, 0, "new", seed=4, DT=np.repeat([0.2, 1.2, 2.1, np.nan], 5))
    assert nenya("map", new, "--onto", latents.with_name("map.parquet"))[0] == 0
    found = Map(new.with_name("map.parquet"))
    np.testing.assert_array_equal(found.of_class, np.repeat([0, -1, 1, -1], 5))
    assert found.about.unplaced == 10


@pytest.mark.parametrize("count", [1, 2, 3, 20])
@pytest.mark.parametrize("dims", [1, 2, 32])
def test_few_latents_of_few_numbers_have_a_map_too(nenya, quick, tmp_path, count, dims):
    path = write_latents(tmp_path / "latents.h5", latents_in_groups(count, dims)[0])
    code, _, err = nenya("map", path)
    assert code == 0, err
    assert np.isfinite(Map(tmp_path / "map.parquet").coordinates).all()


def test_latents_that_are_all_the_same_have_a_map_too(nenya, quick, tmp_path):
    path = write_latents(tmp_path / "latents.h5", np.ones((50, 8)))
    assert nenya("map", path)[0] == 0
    np.testing.assert_allclose(Map(tmp_path / "map.parquet").coordinates, 0, atol=1e-3)


def test_rows_that_are_not_usable_are_not_on_the_map(nenya, quick, tmp_path):
    values = latents_in_groups(80)[0]
    values[[3, 60]] = np.nan
    path = write_latents(tmp_path / "latents.h5", values[:50], values[50:], dtype="float16")
    assert nenya("map", path, "--landmarks", 40)[0] == 0
    found = Map(tmp_path / "map.parquet")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.coordinates[:, 0])), [3, 60])
    assert found.of_class.tolist().count(-1) == 2
    values[:] = np.nan
    code, _, err = nenya("map", write_latents(tmp_path / "latents.h5", values))
    assert code == 2
    assert "no usable latent" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "tsne"], "expected umap or pca"),
        (["--by", "lat"], "expected DT"),
        (["--landmarks", "0"], "1 or more"),
        (["--seed", "-1"], "--seed"),
        (["--space", "x"], "--space"),
        (["--tables", "xls"], "--tables"),
        (["--grid", "0", "--gallery", "g.png"], "--grid"),
        (["--gallery", "g.jpg"], ".png"),
        (["--out", "map.csv"], ".parquet"),
        (["--regions", "atlantis"], "found the region"),
        (["--method", "pca", "--landmarks", "5"], "no effect"),
        (["--from", "map.parquet"], "give --gallery"),
        (["--onto", "none.parquet"], "cannot be read"),
        (["--onto", "a.parquet", "--from", "b.parquet"], "one of them"),
        (["--onto", "a.parquet", "--landmarks", "5"], "no effect"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(make, nenya, quick, arguments, told):
    latents = make(60, 0)
    before = sorted(latents.parent.iterdir())
    code, _, err = nenya("map", latents, *arguments)
    assert code == 2
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(latents.parent.iterdir()) == before


def test_nothing_that_is_read_and_nothing_that_is_no_map_is_written_over(make, nenya, quick, tmp_path):
    latents = make(60, 0)
    before = {path: path.read_bytes() for path in latents.parent.iterdir()}
    for out in (latents.with_name("cutouts.parquet"), latents.with_name("latents.parquet")):
        code, _, err = nenya("map", latents, "--out", out)
        assert code == 2
        assert "is read" in err
    foreign = write_table(tmp_path / "other.parquet", {"train": 3})
    code, _, err = nenya("map", latents, "--out", foreign)
    assert code == 2
    assert "is no map" in err
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["a"] = 1
    code, _, err = nenya("map", latents, "--out", tmp_path / "mine.parquet")
    assert code == 2
    assert "is no map" in err
    assert {path: path.read_bytes() for path in latents.parent.iterdir()} == before
    assert nenya("map", latents)[0] == 0
    code, _, err = nenya("map", latents, "--onto", latents.with_name("map.parquet"))
    assert code == 2
    assert "is read" in err
    assert nenya("map", latents)[0] == 0  # an earlier map is replaced


def test_regions_and_seasons_are_drawn_of_a_map_that_is_there(make, nenya, quick):
    latents = make(200, 0)
    assert nenya("map", latents, "--landmarks", 60)[0] == 0
    path = latents.with_name("map.parquet")
    before = path.read_bytes()
    code, out, _ = nenya(
        "map", latents, "--from", path, "--regions", "eqpacific", "--regions", "170:-170,-60:60", "--seasons",
        "--grid", "4", "--tables", "parquet",
    )  # fmt: skip
    assert code == 0
    assert path.read_bytes() == before
    for name in ("map_regions.png", "map_regions.parquet", "map_seasons.png", "map_seasons.parquet"):
        assert latents.with_name(name).stat().st_size > 0
        assert name in out
    table = pyarrow.parquet.read_table(latents.with_name("map_regions.parquet")).to_pandas()
    assert set(table["group"]) == {"eqpacific", "170:-170,-60:60"}
    facts = pyarrow.parquet.read_table(latents.with_name("cutouts.parquet")).to_pandas()
    crossing = (facts.lon >= 170) | (facts.lon < -170)
    inside = table[table["group"] == "170:-170,-60:60"]["inside"].sum()
    assert crossing.sum() - 2 <= inside <= crossing.sum()  # the grid leaves out a few
    other = make(200, 0, "other", seed=5)
    code, _, err = nenya("map", other, "--from", path, "--seasons")
    assert code == 2
    assert "map of other latents" in err


def test_without_a_table_there_is_a_map_but_no_region(make, nenya, quick):
    latents = make(60, 0, table=False, about=ABOUT)
    assert nenya("map", latents, "--landmarks", 40)[0] == 0
    assert Map(latents.with_name("map.parquet")).about.parameters["spread_over"] == []
    for arguments in (["--regions", "med"], ["--seasons"], ["--by", "DT"]):
        code, _, err = nenya("map", latents, *arguments)
        assert code == 2
        assert "needs the cutout table" in err


def test_a_library_call_refuses_what_the_command_refuses(make):
    vectors = Vectors(Latents(make(60, 0)))
    with pytest.raises(OptionError, match="--landmarks"):
        run.make(vectors, None, num_landmarks=0)
