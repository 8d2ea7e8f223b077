"""Regions of the ocean: those of the historical figures by their names, and any box of longitude and latitude.

A box goes eastward from its first longitude to its second, so that ``170:-170,-5:5`` crosses the date line. Its western
and southern edges belong to it, the eastern and northern ones do not (so boxes side by side share no cutout), except
that the pole does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError

_BOX = re.compile(r"\s*([^:,\s]+)\s*:\s*([^:,\s]+)\s*,\s*([^:,\s]+)\s*:\s*([^:,\s]+)\s*")
_FORM = "a name or a box lon0:lon1,lat0:lat1 as -140:-90,-5:5"


@dataclass(frozen=True)
class Region:
    """A box on the globe.

    Attributes:
        name: Its name; the text of the box where it has none.
        lon0: Western edge, degrees east, -180..180.
        lon1: Eastern edge; below `lon0` where the box crosses the date line.
        lat0: Southern edge, degrees north.
        lat1: Northern edge.
        label: The name for people.
    """

    name: str
    lon0: float
    lon1: float
    lat0: float
    lat1: float
    label: str

    def contains(self, longitude: npt.NDArray[np.float64], latitude: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which points lie in the box.

        Args:
            longitude: Degrees east, -180..180 or 0..360 [N]; NaN where it is not known.
            latitude: Degrees north [N].
        """
        east = np.mod(longitude - self.lon0, 360.0)
        width = _width(self.lon0, self.lon1)
        inside = east < width if width < 360 else np.isfinite(east)
        north = latitude <= self.lat1 if self.lat1 == 90 else latitude < self.lat1
        result: npt.NDArray[np.bool_] = inside & (latitude >= self.lat0) & north
        return result


def _width(lon0: float, lon1: float) -> float:
    """Degrees from one longitude eastward to another; 360 for once around."""
    return lon1 - lon0 if lon1 - lon0 == 360 else (lon1 - lon0) % 360


#: The ten regions by name. The boxes of the first seven are those of the historical figures; of the other three, these
#: left no box that holds for all figures, or there was none: they are chosen around the current or sea of the name.
REGIONS: dict[str, Region] = {
    one.name: one
    for one in (
        Region("eqpacific", -140.0, -90.0, -5.0, 5.0, "Pacific equatorial cold tongue"),
        Region("eqindian", 60.0, 90.0, -5.0, 5.0, "equatorial Indian Ocean"),
        Region("coastalcali", -128.0, -118.0, 32.0, 40.0, "coastal California"),
        Region("baybengal", 79.0, 95.0, 16.0, 23.0, "northern Bay of Bengal"),
        Region("south_atlantic", -40.0, 0.0, -20.0, -10.0, "South Atlantic"),
        Region("south_pacific", -120.0, -90.0, -30.0, -10.0, "South Pacific"),
        Region("med", 0.0, 60.0, 30.0, 45.0, "Mediterranean and the seas east of it"),
        Region("gulfstream", -78.0, -45.0, 33.0, 45.0, "Gulf Stream"),
        Region("kuroshio", 135.0, 165.0, 30.0, 42.0, "Kuroshio and its extension"),
        Region("agulhas", 10.0, 40.0, -43.0, -32.0, "Agulhas Current and retroflection"),
    )
}


def parse(text: str) -> Region:
    """Read a region: the name of a historical one, or a box.

    Args:
        text: As ``gulfstream`` or ``lon0:lon1,lat0:lat1``; longitudes -180..360, from west to east.

    Raises:
        OptionError: It is neither.
    """
    name = text.strip()
    if name in REGIONS:
        return REGIONS[name]
    found = _BOX.fullmatch(text)
    if found is None:
        known = ", ".join(REGIONS)
        raise OptionError(f"found the region {text!r}, expected {_FORM}; the names are {known}.")
    try:
        lon0, lon1, lat0, lat1 = (float(part) for part in found.groups())
    except ValueError:
        raise OptionError(f"found the region {text!r}, whose edges are no numbers; expected {_FORM}.") from None
    if not all(math.isfinite(value) and -180 <= value <= 360 for value in (lon0, lon1)):
        raise OptionError(f"found the region {text!r}, expected longitudes from -180 to 360.")
    if not -90 <= lat0 < lat1 <= 90:
        raise OptionError(f"found the region {text!r}, expected latitudes from south to north, -90 to 90.")
    if _width(lon0, lon1) == 0 or lon1 - lon0 > 360:
        raise OptionError(f"found the region {text!r}, expected a box that has a width and goes once around at most.")
    if lon1 - lon0 == 360:
        return Region(name, -180.0, 180.0, lat0, lat1, name)
    return Region(name, _in_half(lon0), _in_half(lon1, end=True), lat0, lat1, name)


def parse_all(texts: Iterable[str]) -> list[Region]:
    """Read regions; ``all`` stands for the historical ones. A region that is named twice counts once.

    Raises:
        OptionError: As for `parse`.
    """
    chosen: dict[str, Region] = {}
    for text in texts:
        for one in REGIONS.values() if text.strip() == "all" else [parse(text)]:
            chosen[one.name] = one
    return list(chosen.values())


def _in_half(longitude: float, *, end: bool = False) -> float:
    """A longitude as -180..180; an eastern edge on the date line is 180, a western one -180."""
    wrapped = (longitude + 180) % 360 - 180
    return 180.0 if end and wrapped == -180 else wrapped
