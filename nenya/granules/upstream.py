"""The historical steps for MODIS and VIIRS, with the formulas of the tables that exist, without their mistakes.

One cutout is kept in each cell of the historical grid. The historical code meant the one in the middle of the cell, but
put every cutout at its first column; here it is the clearest of 8 x 8 positions in the cell, and of equally clear ones
the one nearest to the middle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.granules.choosing import Chosen, one_in_each_cell
from nenya.granules.containers import Container
from nenya.granules.naming import find
from nenya.granules.packing import unit_of
from nenya.granules.settings import Settings

_POSITIONS = 8  # of a window in a cell, along each axis
_ZERO_CELSIUS = 273.15  # kelvin


@dataclass(frozen=True)
class Sensor:
    """The historical settings for a sensor.

    Attributes:
        size: Side of a window, pixels ("field_size").
        cell: Side of a cell of the grid, of which one window is kept ("field_size" / "sub_grid_step").
        quality: Level that is just good enough.
        celsius: Lowest and highest temperature that counts; the lowest itself does not for MODIS.
        median: The median filter.
        downscale: Pixels that become one.
        nadir_columns: Columns kept on each side of the swath's middle; None for all.
    """

    size: int
    cell: int
    quality: int
    celsius: tuple[float, float]
    median: tuple[int, int] | None
    downscale: int
    nadir_columns: int | None


SENSORS = {
    "modis": Sensor(128, 32, 2, (float(np.nextafter(-2.0, 0.0)), 33.0), (3, 1), 2, 480),
    "viirs": Sensor(192, 96, 5, (float(np.nextafter(-3.0, 0.0)), 34.0), None, 3, None),
}


def sensor_of(container: Container, variable: str) -> Sensor:
    """Tell the historical settings by the layout of the file.

    Raises:
        DataError: It is neither of the two.
    """
    names = {name.rpartition("/")[2] for name in container.variables}
    if "geophysical_data/" in variable or "qual_sst" in names:
        return SENSORS["modis"]
    if "quality_level" in names:
        return SENSORS["viirs"]
    raise DataError(
        f"--upstream repeats the historical steps for MODIS (L2 with qual_sst) and VIIRS (L2P with quality_level), but "
        f"beside {variable} there is neither."
    )


def fitted(settings: Settings, container: Container, source: str) -> Settings:
    """The settings for this granule: as they are, or with the historical ones for its sensor.

    Raises:
        DataError: The historical steps are asked for, but not for such a granule.
    """
    if not settings.upstream:
        return settings
    variable = find(container, settings.variable, source).variable
    sensor = sensor_of(container, variable.name)
    low, high = sensor.celsius
    if unit_of(str(variable.attributes.get("units", ""))) == "kelvin":
        low, high = low + _ZERO_CELSIUS, high + _ZERO_CELSIUS
    return replace(
        settings, size=sensor.size, overlap=1 - sensor.cell / _POSITIONS / sensor.size, quality=sensor.quality,
        valid_range=(low, high), inpaint=True, median=sensor.median, downscale=sensor.downscale,
        upstream_cell=sensor.cell, nadir_columns=sensor.nadir_columns,
    )  # fmt: skip


def choose(chosen: Chosen, settings: Settings, width: int) -> npt.NDArray[np.int64]:
    """Numbers of the windows of a band that stay: one in each cell, near enough to nadir.

    Args:
        chosen: The windows that are clear enough.
        settings: As `fitted` gave them.
        width: Columns of the granule.
    """
    numbers = one_in_each_cell(chosen, settings.upstream_cell)
    if settings.nadir_columns is not None:
        left, right = width // 2 - settings.nadir_columns, width // 2 + settings.nadir_columns
        columns = chosen.columns[numbers]
        numbers = numbers[(columns >= left) & (columns + settings.size <= right)]
    return numbers
