"""Train and valid share no ground: every pixel against every other, on swaths that cross each other."""

import h5netcdf
import numpy as np
import pytest
from scipy.spatial import cKDTree

from benchmarks.swaths import Size, coordinates, write
from nenya.data import table
from nenya.granules.run import make_cutouts
from nenya.granules.settings import Settings
from nenya.sphere import EARTH_RADIUS_KM, unit_vectors

SIZE = Size(320, 200)  # pixels of 13 to 25 km


@pytest.mark.usefixtures("quick_picture")
def test_no_ground_is_on_both_sides(tmp_path):
    """Ten granules of two days, poles and dateline among them, overlap 75 %, in blocks of five windows."""
    numbers = [0, 1, 2, 9, 10, 11, 144, 145, 153, 154]
    (tmp_path / "in").mkdir()
    for number in numbers:
        write(tmp_path / "in" / f"s{number:03d}.nc", number, SIZE, clear=0.8)
    asked = Settings(size=16, overlap=0.75, min_clear=0.6, block_degrees=12.0, valid=0.5)
    summary = make_cutouts([tmp_path / "in"], tmp_path / "cutouts.h5", asked)
    assert min(summary.train, summary.valid) > 1000
    rows = table.read(tmp_path / "cutouts.parquet")
    assert rows["lat"].max() > 80
    assert rows["repeated_lines"].max() > 0
    assert np.ptp(rows["lon"]) > 350
    points = {0: [], 1: []}
    for number in numbers:
        lat, lon = coordinates(number, SIZE)
        vectors = unit_vectors(lat, lon).reshape(-1, 3)
        mine = rows["filename"] == f"s{number:03d}.nc"
        for side, found in points.items():
            covered = np.zeros((SIZE.rows, SIZE.columns), bool)
            chosen = mine & (rows["pp_type"] == side)
            for row, column in zip(rows["row"][chosen], rows["col"][chosen], strict=True):
                covered[row : row + 16, column : column + 16] = True
            found.append(vectors[covered.ravel()])
    train, valid = np.concatenate(points[1]), np.concatenate(points[0])
    nearest, _ = cKDTree(train).query(valid)
    smallest = np.fmin(rows["pixel_along_km"], rows["pixel_across_km"]).min()
    assert nearest.min() * EARTH_RADIUS_KM > smallest


@pytest.mark.usefixtures("quick_picture")
def test_windows_far_from_the_middle_of_the_swath_are_left_out(tmp_path):
    """The distance on the sphere by the haversine formula, from the centre pixel to the middle column of its row."""
    write(tmp_path / "s.nc", 5, SIZE, clear=0.9)
    for limit in (None, 700.0):
        asked = Settings(size=16, min_clear=0.6, valid=0, max_distance_km=limit)
        make_cutouts([tmp_path / "s.nc"], tmp_path / f"c{limit}.h5", asked)
    every, near = (table.read(tmp_path / f"c{limit}.parquet") for limit in (None, 700.0))
    lat, lon = (np.radians(values) for values in coordinates(5, SIZE))
    row, column, middle = every["row"] + 8, every["col"] + 8, SIZE.columns // 2
    north, south = lat[row, column], lat[row, middle]
    half = np.sin((north - south) / 2) ** 2
    half += np.cos(north) * np.cos(south) * np.sin((lon[row, column] - lon[row, middle]) / 2) ** 2
    distance = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(half))
    assert distance.min() < 700 < distance.max()
    assert set(near["UID"].tolist()) == set(every["UID"][distance <= 700].tolist())


def test_the_synthetic_swaths_are_what_they_claim(tmp_path):
    """Bow-tie, dateline and poles are in them, and the same ground has the same temperature in crossing swaths."""
    write(tmp_path / "a.nc", 3, SIZE)
    with h5netcdf.File(tmp_path / "a.nc", "r") as file:
        clear = np.mean(file.variables["quality_level"][0] == 5)
    assert 0.2 < clear < 0.4
    lat, _ = coordinates(3, SIZE)
    step = np.diff(lat[:, 0])
    assert (np.sign(step) == np.sign(-step.mean())).mean() > 0.03  # lines of the next scan begin behind
    poles = max(float(np.abs(coordinates(number, SIZE)[0]).max()) for number in range(11))
    assert poles > 89
    assert any(np.abs(np.diff(coordinates(number, SIZE)[1], axis=1)).max() > 350 for number in range(11))
