"""The historical steps from a granule to cutouts, restated plainly, as a measure for `nenya cutouts --upstream`.

The granule is read whole and decoded to floats, the cloudy share of a window around every pixel is a box mean, one
window is kept in each cell of the grid, its gaps are filled by scikit-image, and it is shrunk by local means.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray
from scipy import ndimage
from skimage.restoration import inpaint_biharmonic
from skimage.transform import downscale_local_mean

SIZE, CELL, SHRINK = 192, 96, 3  # of VIIRS, pixels
CLEAR = 0.95


def cutouts(path: Path) -> tuple[npt.NDArray[np.float64], list[dict[str, float]]]:
    """Cutouts [n, 64, 64] of a VIIRS granule, and their figures."""
    with xarray.open_dataset(path, engine="h5netcdf") as granule:
        celsius = granule["sea_surface_temperature"][0].values.astype(np.float64) - 273.15
        quality = granule["quality_level"][0].values
        latitude, longitude = granule["lat"].values, granule["lon"].values
    bad = ~np.isfinite(celsius) | (quality < 5) | (celsius <= -3) | (celsius > 34)
    cloudy = ndimage.uniform_filter(bad.astype(np.float64), SIZE, mode="constant", cval=1.0)
    fields, rows = [], []
    half = SIZE // 2
    for top in range(0, celsius.shape[0] - SIZE + 1, CELL):
        for left in range(0, celsius.shape[1] - SIZE + 1, CELL):
            cell = cloudy[top + half : top + half + CELL, left + half : left + half + CELL]
            fine = np.argwhere(
                cell[: celsius.shape[0] - SIZE - top + 1, : celsius.shape[1] - SIZE - left + 1] <= 1 - CLEAR
            )
            if not len(fine):
                continue
            middle = np.abs(fine - CELL / 2).sum(axis=1).argmin()
            row, column = top + fine[middle][0], left + fine[middle][1]
            part = (slice(row, row + SIZE), slice(column, column + SIZE))
            field, gap = celsius[part], bad[part]
            known = np.where(gap, field[~gap].mean(), field)
            filled = inpaint_biharmonic(known / 40, gap) * 40
            ordered = np.sort(filled.ravel())
            small = downscale_local_mean(filled, (SHRINK, SHRINK))
            fields.append(small)
            rows.append({
                "row": row, "col": column, "lat": latitude[row + half, column + half],
                "lon": longitude[row + half, column + half], "clear_fraction": 1 - gap.mean(),
                "T10": ordered[int(0.1 * ordered.size)], "T90": ordered[int(0.9 * ordered.size)],
                "mean_temperature": small.mean(), "Tmin": ordered[0], "Tmax": ordered[-1],
            })  # fmt: skip
    return np.array(fields), rows
