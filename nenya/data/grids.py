"""Telling a granule or a grid, from which cutouts have yet to be cut, from a set of cutouts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py

from nenya.data.dimensions import name_of_axis
from nenya.errors import DataError

Named = tuple[str, h5py.Dataset]  # full name and dataset

ADVICE = "Nenya trains on cutouts [N, H, W]: make them of it with `nenya cutouts GRANULES --out cutouts.h5`."

_MOST_SHOWN = 4  # variables in a message
_MOST_COORDINATES, _MOST_AXES = 8, 6  # that are looked at
#: A time series of one small region may be trained on as it is: more images than this, and no side above that.
_SERIES_LENGTH, _SERIES_SIDE = 100, 256
#: What netCDF-4 writes into a dimension that has no coordinates, only a length.
_ONLY_A_LENGTH = "This is a netCDF dimension but not a netCDF variable"


class _Kind(NamedTuple):
    """How a latitude or a longitude can be told by its name and its CF attributes."""

    name: re.Pattern[str]
    units: re.Pattern[str]
    standard_names: tuple[str, ...]

    def fits(self, name: str, dataset: h5py.Dataset) -> bool:
        if _text(dataset, "NAME").startswith(_ONLY_A_LENGTH):
            return False
        return bool(
            self.name.fullmatch(name.rpartition("/")[2])
            or self.units.fullmatch(_text(dataset, "units"))
            or _text(dataset, "standard_name") in self.standard_names
        )


_LATITUDE = _Kind(
    re.compile(r"(?i)(nav_?|cell_?|[xturvn])?lat(itude)?s?([_\d].*)?|gphi[tuvf]"),
    re.compile(r"(?i)degrees?_?n(orth)?"),
    ("latitude", "grid_latitude", "projection_y_coordinate"),
)
_LONGITUDE = _Kind(
    re.compile(r"(?i)(nav_?|cell_?|[xturvn])?lon(g|gitude)?s?([_\d].*)?|glam[tuvf]"),
    re.compile(r"(?i)degrees?_?e(ast)?"),
    ("longitude", "grid_longitude", "projection_x_coordinate"),
)


class _Surroundings(NamedTuple):
    """What a dataset of a file is compared with.

    Attributes:
        latitudes: Of the file, or y of a projection.
        longitudes: Of the file, or x of a projection.
        counts: Lengths of the first axes of all datasets that may be cutouts.
    """

    latitudes: list[Named]
    longitudes: list[Named]
    counts: set[int]

    @classmethod
    def of(cls, found: Sequence[Named]) -> _Surroundings:
        latitudes, longitudes = (
            list(itertools.islice((item for item in found if kind.fits(*item)), _MOST_COORDINATES))
            for kind in (_LATITUDE, _LONGITUDE)
        )
        return cls(latitudes, longitudes, {item.shape[0] for _, item in found if len(item.shape or ()) >= 3})

    def pairs(self) -> Iterator[tuple[Named, Named]]:
        """Latitudes and longitudes that belong together: where names are alike, only those that are (``lat_rho``)."""
        names = {name.lower() for name, _ in self.longitudes}
        for latitude, longitude in itertools.product(self.latitudes, self.longitudes):
            twin = latitude[0].lower().replace("lat", "lon")
            if twin not in names or twin == longitude[0].lower():
                yield latitude, longitude


def describe_grid(found: Sequence[Named]) -> str | None:
    """Say that a file without the dataset looked for holds a granule or a grid.

    Args:
        found: Its datasets.

    Returns:
        What it holds and what to do, in sentences; None where it is something else.
    """
    around = _Surroundings.of(found)
    coordinates = {name for name, _ in around.latitudes + around.longitudes}
    named = [_as_grid(name, dataset, around) for name, dataset in found if name not in coordinates]
    grids = [grid for grid in named if grid]
    if not grids:
        return None
    more = f" and {len(grids) - _MOST_SHOWN} more" if len(grids) > _MOST_SHOWN else ""
    return f"This looks like a granule or a grid: {', '.join(grids[:_MOST_SHOWN])}{more}. {ADVICE}"


def grid_of(name: str, dataset: h5py.Dataset, found: Sequence[Named]) -> str | None:
    """Find the latitude and the longitude that lie along two axes of a dataset.

    Those of cutouts do not: they are one for each cutout [N], or for each pixel [N, H, W].

    Args:
        name: Name of the dataset.
        dataset: The dataset.
        found: All datasets of its file.

    Returns:
        The dataset with its axes, such as ``sst(time=3, lat=721, lon=601)``; None where there are none.
    """
    return _as_grid(name, dataset, _Surroundings.of(found))


def _as_grid(name: str, dataset: h5py.Dataset, around: _Surroundings) -> str | None:
    shape = dataset.shape or ()
    if not 2 <= len(shape) <= _MOST_AXES:
        return None
    for latitude, longitude in around.pairs():
        first, second = latitude[1].shape, longitude[1].shape
        for one, other in itertools.permutations(range(len(shape)), 2):
            if len(first or ()) == len(second or ()) == 1:
                fits = (shape[one], shape[other]) == first + second
                doubtful = first == second and first[0] in around.counts  # they may be one for each cutout
                fits = fits and not (doubtful and not _is_scale(dataset, one, latitude[1]))
            else:  # a swath, or a curvilinear grid
                fits = other == one + 1 and first == second == shape[one : one + 2]
                fits = fits and (len(shape) == 2 or first != shape[:2])  # nor one for each row of each cutout
            if fits:
                return _in_words(name, dataset, {one: latitude[0], other: longitude[0]})
    return None


def require_cutouts(
    name: str, dataset: h5py.Dataset, found: Sequence[Named], path: Path, *, told: bool = False
) -> str | None:
    """Refuse a variable of a granule or a grid.

    Args:
        name: Name of the dataset.
        dataset: The dataset.
        found: All datasets of its file.
        path: The file, for the message.
        told: Whether the option `axes` says that it is a set of cutouts.

    Returns:
        The variable with its axes, where it looks like a grid but is said to be a set of cutouts, or may be a time
        series of one small region, which can be trained on as it is; None where it does not look like one.

    Raises:
        DataError: It is a granule or a grid.
    """
    grid = grid_of(name, dataset, found)
    if grid and not told and not _is_series(dataset.shape):
        axes = {3: "NHW", 4: "NCHW"}.get(len(dataset.shape))
        way_in = f' If each field is a cutout of its own, say so: "axes": "{axes}".' if axes else ""
        raise DataError(f"{path}: dataset {name!r} is a variable of a granule or a grid: {grid}. {ADVICE}{way_in}")
    return grid


def _is_series(shape: tuple[int, ...]) -> bool:
    return len(shape) in (3, 4) and shape[0] > _SERIES_LENGTH and max(shape[-2:]) <= _SERIES_SIDE


def _is_scale(dataset: h5py.Dataset, axis: int, coordinate: h5py.Dataset) -> bool:
    """Whether the file says that a coordinate belongs to an axis, as netCDF-4 does."""
    return name_of_axis(dataset, axis) == (coordinate.name or "").rpartition("/")[2]


def _text(dataset: h5py.Dataset, name: str) -> str:
    """A short attribute of text; empty where it is not there, or something else."""
    if name not in dataset.attrs or dataset.attrs.get_id(name).shape not in ((), (1,)):
        return ""
    try:
        value = dataset.attrs[name]
    except (OSError, TypeError):  # a type that NumPy has not
        return ""
    value = value[0] if getattr(value, "shape", ()) == (1,) else value
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    return text[:100] if isinstance(text, str) else ""


def _in_words(name: str, dataset: h5py.Dataset, coordinates: dict[int, str]) -> str:
    axes = []
    for axis, size in enumerate(dataset.shape):
        label = coordinates[axis].rpartition("/")[2] if axis in coordinates else name_of_axis(dataset, axis)
        axes.append(f"{label}={size}" if label else str(size))
    text = f"{name}({', '.join(axes)})"
    return text if text.isprintable() and len(text) <= 200 else ascii(text)[:200]
