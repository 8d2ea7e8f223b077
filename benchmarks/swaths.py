"""Synthetic granules of a swath sensor, as files in the manner of GHRSST L2P: ``python -m benchmarks.swaths FOLDER``.

A satellite on a tilted, nearly polar orbit scans 3,000 km across; the Earth turns below it, so that the swaths cross
each other, the dateline and both poles. Each scan is 16 lines, which spread towards the edges and then show ground of
the scan before (the bow-tie of VIIRS and MODIS). About 30 % of the pixels are clear, in patches.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Float = npt.NDArray[np.float64]

RADIUS_KM = 6371.0088
SCALE, OFFSET, FILL = 0.01, 273.15, -32768

_INCLINATION = np.radians(98.7)
_PERIOD = 101.5 * 60  # seconds
_DAY = 86164.1  # seconds in which the Earth turns once
_MINUTES = 10  # of a granule
_LINES = 16  # of a scan
_SWATH_KM = 3000.0
_SPREAD = 1.0  # a scan is this much longer at the edges than at nadir, relatively


@dataclass(frozen=True)
class Size:
    """Size of a granule.

    Attributes:
        rows: Lines along the track.
        columns: Pixels of a line.
    """

    rows: int
    columns: int


FULL = Size(5392, 3200)
QUARTER = Size(1348, 800)


def coordinates(number: int, size: Size) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Latitudes and longitudes [rows, columns] of granule `number`, degrees."""
    scan_seconds = 60 * _MINUTES * _LINES / size.rows
    scans = -(-size.rows // _LINES)
    when = number * 60 * _MINUTES + scan_seconds * (np.arange(scans) + 0.5)
    angle = 2 * np.pi * when / _PERIOD
    # along the orbit's plane, and across it
    node = np.array([1.0, 0.0, 0.0])
    top = np.array([0.0, np.cos(_INCLINATION), np.sin(_INCLINATION)])
    below = np.cos(angle)[:, None] * node + np.sin(angle)[:, None] * top
    ahead = -np.sin(angle)[:, None] * node + np.cos(angle)[:, None] * top
    aside = np.cross(below, ahead)
    across = np.linspace(-0.5, 0.5, size.columns) * _SWATH_KM / RADIUS_KM
    scan_length = 2 * np.pi * scan_seconds / _PERIOD
    line = (np.arange(_LINES) - (_LINES - 1) / 2) / _LINES * scan_length
    spread = 1 + _SPREAD * (2 * np.arange(size.columns) / (size.columns - 1) - 1) ** 2
    centre = np.cos(across)[None, :, None] * below[:, None] + np.sin(across)[None, :, None] * aside[:, None]
    latitudes, longitudes = [], []
    for scan in range(scans):
        points = centre[scan][None] + (line[:, None] * spread)[..., None] * ahead[scan]
        points /= np.linalg.norm(points, axis=-1, keepdims=True)
        turned = np.degrees(np.arctan2(points[..., 1], points[..., 0])) - 360 * when[scan] / _DAY
        latitudes.append(np.degrees(np.arcsin(np.clip(points[..., 2], -1, 1))))
        longitudes.append((turned + 180) % 360 - 180)
    return (
        np.concatenate(latitudes)[: size.rows].astype(np.float32),
        np.concatenate(longitudes)[: size.rows].astype(np.float32),
    )


def temperature(latitude: npt.NDArray[np.float32], longitude: npt.NDArray[np.float32], day: float) -> Float:
    """A sea surface temperature [K] that depends on place and day alone, with eddies of some ten kilometres."""
    lat, lon = np.radians(latitude), np.radians(longitude)
    large = 272 + 29 * np.cos(lat) ** 2
    eddies = np.sin(150 * lat + 2 * np.sin(40 * lon) + day / 5) * np.cos(170 * lon * np.cos(lat) + 3 * np.sin(30 * lat))
    return np.asarray(large + 0.8 * eddies, np.float64)


def cloud(rng: np.random.Generator, size: Size, clear: float) -> npt.NDArray[np.bool_]:
    """Where it is cloudy [rows, columns]."""
    coarse = ndimage.gaussian_filter(rng.normal(size=(90, 54)), 1.5)
    smooth = ndimage.zoom(coarse, (size.rows / 90 + 0.05, size.columns / 54 + 0.05), order=1)
    smooth = smooth[: size.rows, : size.columns]
    limit = np.quantile(smooth[::7, ::7], clear)
    result: npt.NDArray[np.bool_] = smooth > limit
    return result


def write(path: Path, number: int, size: Size, clear: float = 0.3) -> None:
    """Write a granule.

    Args:
        path: The file.
        number: Of the granule, each ten minutes long.
        size: Its size.
        clear: Share of clear pixels.
    """
    rng = np.random.default_rng(number)
    latitude, longitude = coordinates(number, size)
    packed = np.round((temperature(latitude, longitude, number / 144) - OFFSET) / SCALE).astype(np.int16)
    packed += rng.integers(-3, 4, packed.shape, dtype=np.int16)
    clouds = cloud(rng, size, clear)
    quality = np.where(clouds, rng.integers(0, 4, size=(1, size.columns)), 5).astype(np.int8)
    packed[clouds] -= 800
    packed[clouds & (quality == 0)] = FILL
    rows, columns = max(1, size.rows // 14), max(1, size.columns // 2)
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"time": 1, "nj": size.rows, "ni": size.columns}
        pack = {"compression": "gzip", "compression_opts": 4, "shuffle": True}

        def put(name: str, data: npt.NDArray[Any], attributes: dict[str, Any], big: bool = True) -> None:
            dimensions = ("nj", "ni") if data.ndim == 2 else ("time", "nj", "ni")
            tile = (rows, columns) if big else (2 * rows, 2 * columns)
            wanted = tile if data.ndim == 2 else (1, *tile)
            chunks = tuple(min(c, n) for c, n in zip(wanted, data.shape, strict=True))
            variable = file.create_variable(name, dimensions, data=data, chunks=chunks, **pack)
            for key, value in attributes.items():
                variable.attrs[key] = value

        put("lat", latitude, {"standard_name": "latitude", "units": "degrees_north"})
        put("lon", longitude, {"standard_name": "longitude", "units": "degrees_east"})
        put("sea_surface_temperature", packed[None], {
            "standard_name": "sea_surface_skin_temperature", "units": "kelvin", "_FillValue": np.int16(FILL),
            "scale_factor": SCALE, "add_offset": OFFSET, "coordinates": "lon lat",
            "valid_min": np.int16(-300), "valid_max": np.int16(4500),
        })  # fmt: skip
        put("quality_level", quality[None], {
            "flag_values": np.arange(6, dtype=np.int8), "_FillValue": np.int8(-128),
            "flag_meanings": "no_data bad_data worst_quality low_quality acceptable_quality best_quality",
        }, big=False)  # fmt: skip
        time = file.create_variable("time", ("time",), data=np.array([number * 60 * _MINUTES], np.int32))
        time.attrs["units"] = "seconds since 2023-03-01 00:00:00"
        time.attrs["standard_name"] = "time"


def write_many(folder: Path, count: int, size: Size, clear: float = 0.3, workers: int = 1) -> list[Path]:
    """Write granules 0 to `count` - 1 that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"swath_{number:05d}.nc" for number in range(count)]
    todo = [(path, number) for number, path in enumerate(paths) if not path.exists()]
    if workers == 1:
        for path, number in todo:
            write(path, number, size, clear)
    else:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(_write_one, [(path, number, size, clear) for path, number in todo], chunksize=4))
    return paths


def _write_one(arguments: tuple[Path, int, Size, float]) -> None:
    path, number, size, clear = arguments
    aside = path.with_suffix(".part")
    write(aside, number, size, clear)
    aside.rename(path)


def main() -> None:
    """Write granules to a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--granules", type=int, default=144, help="how many; 4320 are a month (default: a day, 144)")
    parser.add_argument("--full", action="store_true", help="5392 x 3200 pixels instead of a quarter of each side")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    write_many(asked.folder, asked.granules, FULL if asked.full else QUARTER, workers=asked.workers)


if __name__ == "__main__":
    main()
