"""Granules to order: files as producers write them, small, with known pixels."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
from scipy import ndimage

from nenya.granules.settings import Settings

SCALE, OFFSET, FILL = 0.01, 273.15, -32768


def field(shape, seed=0, clear=0.7):
    """Packed sea surface temperatures, int16, with clouds as fill value."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    kelvin = 290 + 4 * smooth / smooth.std()
    packed = np.round((kelvin - OFFSET) / SCALE).astype(np.int16)
    cloud = ndimage.gaussian_filter(rng.normal(size=shape), 12)
    packed[cloud > np.quantile(cloud, clear)] = FILL
    return packed


def write_grid(path, packed, *, name="sst", units="kelvin", days=(0.5,), lat0=40.0, lon0=-20.0, step=0.02, attrs=None):
    """A grid [time, lat, lon], latitude rising."""
    packed = packed[None] if packed.ndim == 2 else packed
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": packed.shape[0], "lat": packed.shape[1], "lon": packed.shape[2]}
        for axis, start, unit in (("lat", lat0, "degrees_north"), ("lon", lon0, "degrees_east")):
            values = start + step * np.arange(file.dimensions[axis].size)
            file.create_variable(axis, (axis,), data=values).attrs["units"] = unit
        time = file.create_variable("time", ("time",), data=np.asarray(days, float))
        time.attrs["units"] = "days since 2023-04-01"
        axes, chunks = ("time", "lat", "lon"), tuple(np.minimum(packed.shape, (1, 50, 60)).tolist())
        variable = file.create_variable(name, axes, data=packed, chunks=chunks, compression="gzip")
        given = {"scale_factor": SCALE, "add_offset": OFFSET, "_FillValue": np.int16(FILL), "units": units}
        for key, value in (given | (attrs or {})).items():
            if value is not None:
                variable.attrs[key] = value
    return path


@pytest.fixture(scope="session")
def granules(tmp_path_factory):
    """Six grids of 160 x 200 pixels at different places and days; not to be changed."""
    folder = tmp_path_factory.mktemp("set") / "granules"
    folder.mkdir()
    for number in range(6):
        place = {"lat0": 30 + 3 * number, "lon0": -40 + 4 * number, "days": (3 * number,)}
        write_grid(folder / f"sst_{number}.nc", field((160, 200), number), **place)
    return folder


@pytest.fixture
def own_granules(granules, tmp_path):
    """A copy of them, to be changed."""
    return Path(shutil.copytree(granules, tmp_path / "granules"))


@pytest.fixture(scope="session")
def small():
    """Windows of 32 pixels that overlap by half, blocks of 1 degree, an equal share for both sides."""
    return Settings(size=32, block_degrees=1.0, valid=0.5)


@pytest.fixture
def quick_picture(monkeypatch):
    """Write a placeholder instead of drawing, which takes longer than a small run, and has its own test."""
    monkeypatch.setattr("nenya.granules.output.draw", lambda sample, unit, path: path.write_bytes(b"picture"))
