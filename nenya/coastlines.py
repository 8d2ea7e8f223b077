"""The coastline of Natural Earth (naturalearthdata.com, 1:110 million), which is in the public domain."""

from __future__ import annotations

from importlib import resources

import numpy as np
import numpy.typing as npt


def coastline() -> npt.NDArray[np.float32]:
    """Lines of longitude -180..180 and latitude -90..90, degrees [n, 2], NaN between them."""
    with resources.files("nenya").joinpath("coastlines.npz").open("rb") as file:
        lines: npt.NDArray[np.float32] = np.load(file)["lonlat"]
    return lines
