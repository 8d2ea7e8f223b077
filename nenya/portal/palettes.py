"""Colour maps by name: 256 colours each. Those of the field are cmocean's (MIT licence, `cmocean-licence.txt`)."""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
import numpy.typing as npt

from nenya.drawing import colour_table
from nenya.errors import OptionError

#: The first is the default.
NAMES = ("RdYlBu_r", "viridis", "cividis", "gray", "thermal", "balance")
_CMOCEAN = ("thermal", "balance")

Colours = npt.NDArray[np.uint8]


@functools.cache
def palette(name: str) -> Colours:
    """A colour map, red, green and blue from its low end to its high end [256, 3].

    Raises:
        OptionError: There is none of that name.
    """
    if name not in NAMES:
        raise OptionError(f"found the palette {name!r}, expected one of {', '.join(NAMES)}.")
    if name not in _CMOCEAN:
        return colour_table(name)
    with resources.files("nenya.portal").joinpath("cmocean.npz").open("rb") as file:
        colours: Colours = np.load(file)[name]
    return colours
