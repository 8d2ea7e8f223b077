"""One granule, opened: its variable, pixels, coordinates, times and quality, read part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.granules import times
from nenya.granules.containers import Array, Container, Variable
from nenya.granules.naming import Found, attribute_time, find
from nenya.granules.packing import Decoder, stored_type
from nenya.granules.planes import Plane, plane_of
from nenya.granules.quality import Flag, Levels, find_flags, find_levels
from nenya.granules.settings import Settings
from nenya.granules.windows import Positions
from nenya.sphere import Degrees

_EAST = 720.0  # degrees: grids of ocean models begin at 74 and end at 434, or run from -280 to 80


@dataclass(frozen=True)
class Granule:
    """What a granule holds and how its parts are read.

    Attributes:
        source: Its name, for messages.
        found: The variable, its coordinates and its time.
        decoder: What its stored pixels mean.
        shape: Rows and columns.
        times: Of each field, microseconds, UTC; None where it is not known.
        levels: Quality levels; None where there are none or none are asked for.
        flags: Flags whose pixels do not count.
        is_swath: Whether each pixel has its own latitude and longitude.
    """

    source: str
    found: Found
    decoder: Decoder
    shape: tuple[int, int]
    times: list[np.datetime64 | None]
    levels: Levels | None
    flags: list[Flag]
    is_swath: bool

    def pixels(self, time: int, band: slice) -> Plane:
        """The stored pixels of a field, between two rows."""
        return self._beside(self.found.variable, time, band)

    def quality(self, time: int, band: slice) -> Plane | None:
        """Its quality levels."""
        return None if self.levels is None else self._beside(self.levels.variable, time, band)

    def flag(self, flag: Flag, time: int, band: slice) -> Plane:
        """The variable of a flag."""
        return self._beside(flag.variable, time, band)

    def coordinates(self, band: slice) -> Coordinates:
        """Latitudes and longitudes between two rows."""
        latitude, longitude = self.found.latitude, self.found.longitude
        if self.is_swath:
            return Coordinates(*(self._placed(variable, limit, band) for variable, limit in
                                 ((latitude, 90.0), (longitude, _EAST))))  # fmt: skip
        line = [
            _converter(variable, limit)(_line(variable)) for variable, limit in ((latitude, 90.0), (longitude, _EAST))
        ]
        return Coordinates(line[0][band], line[1])

    def _beside(self, variable: Variable, time: int, band: slice) -> Plane:
        """A variable of the same dimensions, in any order, or of fewer; by their places where names tell nothing."""
        row, column, axis = self.found.row, self.found.column, self.found.time
        named, own = self.found.variable.dimensions(), variable.dimensions()
        missing = [named[place] for place in (row, column) if named[place] not in own]
        if not missing and len(set(own)) == len(own):
            row, column = own.index(named[row]), own.index(named[column])
            axis = own.index(named[axis]) if axis is not None and named[axis] in own else None
        elif len(own) != len(named):
            raise DataError(f"{self.source}: {variable.name} does not lie along {', '.join(missing)}.")
        others = {axis: time} if axis is not None and variable.shape[axis] > 1 else {}
        dtype = stored_type(variable)
        convert: Callable[[Array], Array] | None = None
        if dtype != variable.dtype:
            convert = lambda part: part.view(dtype)  # noqa: E731
        return plane_of(variable, row, column, others, band, convert, dtype)

    def _placed(self, variable: Variable, limit: float, band: slice) -> Plane:
        named, own = self.found.variable.dimensions(), variable.dimensions()
        row, column = own.index(named[self.found.row]), own.index(named[self.found.column])
        dtype = variable.dtype if variable.dtype.kind == "f" else np.dtype(np.float64)
        return plane_of(variable, row, column, {}, band, _converter(variable, limit), dtype)


@dataclass(frozen=True)
class Coordinates:
    """Latitudes and longitudes of a field: of each pixel, or of rows and columns."""

    latitude: Plane | Array
    longitude: Plane | Array

    def known(self) -> npt.NDArray[np.bool_] | None:
        """Where a grid has coordinates; None if everywhere, or for a swath, which is asked window by window."""
        if isinstance(self.latitude, Plane) or isinstance(self.longitude, Plane):
            return None
        rows, columns = np.isfinite(self.latitude), np.isfinite(self.longitude)
        return None if rows.all() and columns.all() else rows[:, None] & columns[None, :]

    def load_windows(self, rows: Positions, columns: Positions, size: int) -> None:
        """Read those parts of a swath's coordinates that windows touch."""
        for plane in (self.latitude, self.longitude):
            if isinstance(plane, Plane):
                plane.load_windows(rows, columns, size)

    def windows(self, rows: Positions, columns: Positions, size: int) -> tuple[Degrees, Degrees]:
        """Latitudes and longitudes [n, size, size] of windows that are loaded."""
        if isinstance(self.latitude, Plane) and isinstance(self.longitude, Plane):
            return take(self.latitude.values, rows, columns, size), take(self.longitude.values, rows, columns, size)
        assert not isinstance(self.latitude, Plane)
        assert not isinstance(self.longitude, Plane)
        shape, pixel = (len(rows), size, size), np.arange(size)
        return (
            np.broadcast_to(self.latitude[rows[:, None] + pixel][:, :, None], shape),
            np.broadcast_to(self.longitude[columns[:, None] + pixel][:, None, :], shape),
        )


def take(values: Array, rows: Positions, columns: Positions, size: int) -> Array:
    """Copy windows of a field: [n, size, size]."""
    views = np.lib.stride_tricks.sliding_window_view(values, (size, size))
    result: Array = views[rows, columns]
    return result


def look_at(container: Container, settings: Settings, source: str) -> Granule:
    """Find everything in a granule that the settings need.

    Raises:
        DataError: Something is not there, or could be several things.
    """
    found = find(container, settings.variable, source)
    variable = found.variable
    if 0 in variable.shape:
        raise DataError(f"{source}: {variable.name} has shape {variable.shape}, so there is nothing in it.")
    shape = (variable.shape[found.row], variable.shape[found.column])
    levels = None
    if settings.quality != "any":
        levels = find_levels(container, variable)
        if levels is None and isinstance(settings.quality, int):
            raise DataError(
                f"{source}: --quality {settings.quality} is asked for, but there are no quality levels with the shape "
                f"of {variable.name}: leave it out for such granules."
            )
    return Granule(
        source, found, Decoder.of(variable, settings.valid_range), shape,
        _times_of(container, found, source), levels,
        find_flags(container, variable, settings.flags_out, source) if settings.flags_out else [],
        sum(length > 1 for length in found.latitude.shape) == 2,
    )  # fmt: skip


def _times_of(container: Container, found: Found, source: str) -> list[np.datetime64 | None]:
    number = found.variable.shape[found.time] if found.time is not None else 1
    if found.times is not None:
        decoded = times.decode(found.times, source)
        if found.time is None and len(decoded) > 1:  # a time for each row of pixels: a scan's middle stands for all
            decoded = decoded[len(decoded) // 2 : len(decoded) // 2 + 1]
        known: list[np.datetime64 | None] = [None if np.isnat(time) else time for time in decoded]
        if any(time is not None for time in known) or number > 1:
            return known
    return [attribute_time(container.attributes)] * number


def _line(variable: Variable) -> Array:
    """The values of a coordinate along its one long dimension."""
    return variable.read(tuple(slice(None) if length > 1 else 0 for length in variable.shape))


def _converter(variable: Variable, limit: float) -> Callable[[Array], Array]:
    """Make degrees of stored coordinates; NaN for gaps and for what is no place.

    The file's valid range is not looked at: for coordinates it is often that of a larger field, or rounded.
    """
    decoder = Decoder.of(variable).without_valid_range
    packed = (decoder.packing.scale, decoder.packing.offset) != (1.0, 0.0) or variable.dtype.kind != "f"

    def convert(stored: Array) -> Array:
        degrees = decoder.packing.decode(stored.view(stored_type(variable))) if packed else stored
        with np.errstate(invalid="ignore"):
            fine = np.abs(degrees) <= limit
        for fill in decoder.fills:
            if fill == fill and (packed or abs(fill) <= limit):
                fine &= stored != fill
        return degrees if fine.all() else np.where(fine, degrees, degrees.dtype.type(np.nan))

    return convert
