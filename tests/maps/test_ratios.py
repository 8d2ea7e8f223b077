"""The grid over a map, ratios with their intervals, and what is drawn and written of them."""

import csv
import dataclasses

import h5py
import matplotlib.figure
import numpy as np
import pyarrow.parquet
import pytest
from scipy.stats import binomtest

from nenya.errors import DataError, OptionError
from nenya.latents.store import Latents
from nenya.maps import pictures, ratios, regions, tables
from nenya.maps.grid import Grid
from nenya.maps.pictures import Sheet
from nenya.params import Params
from nenya.search.facts import Facts
from nenya.search.gallery import Pixels
from nenya.search.vectors import Vectors
from tests.search.conftest import ABOUT, write_latents


def test_the_grid_lies_between_the_percentiles_and_counts_as_a_histogram():
    places = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    grid = Grid.over(places, 16)
    ends = np.percentile(places.astype(float), [0.05, 99.95], axis=0)
    np.testing.assert_allclose([grid.x[[0, -1]], grid.y[[0, -1]]], ends.T)
    cells = grid.cells(places)
    expected = np.histogram2d(places[:, 1], places[:, 0], bins=[grid.y, grid.x])[0]
    np.testing.assert_array_equal(np.bincount(cells[cells >= 0], minlength=256).reshape(16, 16), expected)
    assert (cells < 0).sum() == 5000 - expected.sum() > 0


def test_places_that_are_all_the_same_have_a_grid_too():
    grid = Grid.over(np.ones((3, 2), np.float32), 3)
    assert grid.cells(np.ones((1, 2), np.float32)).tolist() == [4]
    assert Grid.over(np.array([[0, 1]], np.float32), 1).cells(np.array([[0, 1]], np.float32)).tolist() == [0]
    with pytest.raises(OptionError, match="--grid"):
        Grid.over(np.ones((3, 2), np.float32), 0)


def test_the_interval_is_wilsons():
    inside, counts = np.array([0, 1, 5, 50, 50]), np.array([7, 3, 50, 100, 50])
    low, high = ratios.wilson(inside, counts)
    for one in range(len(counts)):
        found = binomtest(int(inside[one]), int(counts[one])).proportion_ci(method="wilson")
        assert (low[one], high[one]) == pytest.approx((found.low, found.high), abs=1e-6)


@pytest.fixture
def sheet():
    places = np.array([[0, 0], [0, 0], [0, 0], [1, 1], [1, 1], [1, 0], [np.pi, 9]], np.float32)
    grid = Grid(np.array([0, 0.5, 1]), np.array([0, 0.5, 1]))
    return Sheet("all cutouts", np.arange(7) + 10, places, grid, grid.cells(places))


def test_a_ratio_is_the_share_in_the_group_over_the_share_of_all(sheet):
    inside, known = np.zeros(20, bool), np.ones(20, bool)
    inside[[10, 11, 13]] = True
    known[15] = False  # counts neither here nor there
    found = ratios.of_group(ratios.Group("g", "g", inside), known, sheet.numbers, sheet.cells, sheet.grid)
    assert found.counts.tolist() == [3, 0, 0, 2]
    assert found.inside.tolist() == [2, 0, 0, 1]
    np.testing.assert_allclose(found.ratio, [(2 / 3) / (3 / 5), np.nan, np.nan, (1 / 3) / (2 / 5)])
    assert found.low[0] < found.ratio[0] < found.high[0]
    assert np.isnan(found.low[1])
    assert np.isnan(found.high[1])
    nobody = ratios.of_group(ratios.Group("g", "g", ~known), known, sheet.numbers, sheet.cells, sheet.grid)
    assert np.isnan(nobody.ratio).all()


def test_seasons_are_of_months_and_unknown_times_of_none(make):
    times = np.array(["2003-12-01", "2004-02-29", "2004-03-01", "2004-08-31", "2004-11-30", "NaT"], "datetime64[us]")
    latents = make(6, 0, datetime=times, lon=np.full(6, np.nan))
    facts = Facts(latents.with_name("cutouts.parquet"), Vectors(Latents(latents)))
    groups, known = ratios.seasonal(facts)
    assert {one.name: np.flatnonzero(one.inside).tolist() for one in groups} == {
        "DJF": [0, 1], "MAM": [2], "JJA": [3], "SON": [4],
    }  # fmt: skip
    assert known.tolist() == [True] * 5 + [False]
    groups, known = ratios.regional(facts, [regions.parse("-180:180,-90:90")])
    assert not groups[0].inside.any()
    assert not known.any()


def test_a_table_without_places_has_no_regions(make):
    latents = make(6, 0, lon=["a"] * 6, datetime=["never"] * 6)
    facts = Facts(latents.with_name("cutouts.parquet"), Vectors(Latents(latents)))
    with pytest.raises(DataError, match="no places"):
        ratios.regional(facts, [regions.REGIONS["med"]])
    with pytest.raises(DataError, match="no times"):
        ratios.seasonal(facts)


def test_the_table_has_a_row_for_each_cell_with_cutouts(sheet, tmp_path):
    groups = [ratios.Group("med", "m", np.arange(20) < 12), ratios.Group("none", "n", np.zeros(20, bool))]
    found = [
        ratios.of_group(one, np.ones(20, bool), sheet.numbers, sheet.cells, sheet.grid) for one in groups
    ]  # fmt: skip
    for name in ("r.csv", "r.parquet"):
        tables.write(tmp_path / name, [("all", sheet, found)])
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0] | {"ratio": "", "low": "", "high": ""} == {
        "class": "all", "group": "med", "column": "0", "row": "0", "x0": "0.0", "x1": "0.5", "y0": "0.0", "y1": "0.5",
        "count": "3", "inside": "2", "ratio": "", "low": "", "high": "",
    }  # fmt: skip
    assert float(rows[0]["ratio"]) == pytest.approx(2.0)
    assert rows[-1]["ratio"] == ""
    stored = pyarrow.parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert [row["ratio"] for row in stored] == [None if row["ratio"] == "" else float(row["ratio"]) for row in rows]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are written."""
    drawn = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *args, **kwargs):
        drawn.append(figure)
        save(figure, *args, **{**kwargs, "dpi": 30})

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return drawn


def test_ratios_are_drawn_a_panel_for_each_group_and_map(sheet, figures, tmp_path):
    groups = [ratios.Group(name, f"${name}_", np.arange(20) % 3 == 0) for name in "abc"]
    found = [
        ratios.of_group(one, np.ones(20, bool), sheet.numbers, sheet.cells, sheet.grid) for one in groups
    ]  # fmt: skip
    pictures.draw_ratios(tmp_path / "r.png", [(sheet, found)], "region")
    pictures.draw_ratios(tmp_path / "r.png", [(sheet, found), (sheet, found)], "region")
    titles = [[axis.get_title() for axis in figure.axes if axis.get_title()] for figure in figures]
    assert titles[0] == ["$a_ (2)", "$b_ (2)", "$c_ (2)"]
    assert len(titles[1]) == 6
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", [(8, 8), (6, 10), (150, 70), (3, 8, 8)])
def test_the_gallery_shows_in_each_cell_the_cutout_nearest_to_its_centre(figures, tmp_path, shape):
    count = 30
    pixels = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    pixels += 100 * np.arange(count).reshape(-1, *[1] * len(shape))
    pixels[:, ..., 0, 0] = np.nan
    with h5py.File(tmp_path / "cutouts.h5", "w") as file:
        file["train"] = pixels
    opt = Params.from_dict({"images_file": str(tmp_path / "cutouts.h5"), "demean": False})
    about = dataclasses.replace(ABOUT, options=opt.dict, cutouts=str(tmp_path / "cutouts.h5"))
    values = np.random.default_rng(1).normal(size=(count, 4))
    vectors = Vectors(Latents(write_latents(tmp_path / "l.h5", values, about=about)))
    places = np.random.default_rng(2).uniform(0, 1, (count, 2)).astype(np.float32)
    sheet = Sheet.of("all", np.arange(count), places, 3)
    chosen = sheet.nearest_to_centres()
    for cell, number in chosen.items():
        row, column = divmod(cell, 3)
        centre = np.array([(sheet.grid.x[column] + sheet.grid.x[column + 1]) / 2,
                           (sheet.grid.y[row] + sheet.grid.y[row + 1]) / 2])  # fmt: skip
        mine = np.flatnonzero(sheet.cells == cell)
        away = ((places[mine] - centre) ** 2 / [np.diff(sheet.grid.x)[0] ** 2, np.diff(sheet.grid.y)[0] ** 2]).sum(
            axis=1
        )
        assert number == mine[np.argmin(away)]
    pictures.draw_gallery(tmp_path / "g.png", sheet, vectors, Pixels(vectors))
    image = figures[0].axes[0].images[0]
    canvas = np.ma.filled(image.get_array(), np.nan)
    side = len(canvas) // 3
    for cell in range(9):
        row, column = divmod(cell, 3)
        part = canvas[(2 - row) * side : (3 - row) * side, column * side : (column + 1) * side]
        shown = part[np.isfinite(part)]
        if cell not in chosen:
            assert not len(shown)
        else:
            assert round(float(np.median(shown)) / 100) == chosen[cell]


@pytest.mark.parametrize("count", [2, 3, 5, 1999])
def test_among_few_places_none_is_cut_off(count):
    places = np.random.default_rng(1).normal(size=(count, 2)).astype(np.float32)
    assert (Grid.over(places, 4).cells(places) >= 0).all()
