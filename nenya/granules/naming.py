"""Finding the variable, its coordinates and its time: by CF attributes, then by known names; several are an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nenya.errors import DataError
from nenya.granules.containers import Container, Variable

#: CF standard names of what is looked for when no variable is named.
SST_STANDARD_NAMES = frozenset(
    f"sea_surface_{kind}temperature" for kind in ("", "skin_", "subskin_", "foundation_")
) | {"sea_water_temperature", "surface_temperature", "sea_water_potential_temperature"}  # fmt: skip

_KNOWN = re.compile(r"sea_surface_temperature|analysed_sst|sst|sst4|sea_surface_skin_temperature|thetao?|tos")
_ALIKE = re.compile(r"sst_.*|.*_sst|sea_surface_temp.*")

_LATITUDE = (r"degrees?[ _]?n(orth)?", r"lat|latitude|nav_lat|lat_rho|xlat|lats|nlat|y_lat|pixel_lat")
_LONGITUDE = (r"degrees?[ _]?e(ast)?", r"lon|longitude|nav_lon|lon_rho|xlong|lons|long|nlon|x_lon|pixel_lon")
_TIME = re.compile(r"time|t|date|ocean_time|time_counter")
_SINCE = re.compile(r"\w+\s+since\s+.+")
_ROWS = re.compile(r"n?j|n?y|rows?|lines?|number_of_lines|nscans?|scanlines?|along_track|lat.*|num_lines|scan_line")
_COLUMNS = re.compile(r"n?i|n?x|col(umn)?s?|pixels?|pixels_per_line|npixels|across_track|lon.*|num_pixels|pixel_number")
#: What describes other variables, and is no field of its own.
_BESIDE = re.compile(r"(.*_)?(mask|flags?|quality(_level)?|qual.*|error|uncertainty|std|count|dtime|bnds|bounds)(_.*)?")


@dataclass(frozen=True)
class Found:
    """The variable and where its pixels lie.

    Attributes:
        variable: The variable.
        latitude: Its latitude, in one dimension or two.
        longitude: Likewise.
        row: Number of its dimension that is the rows of pixels.
        column: Number of its dimension that is the columns.
        time: Number of its dimension that is time; None where it has none.
        times: The variable that tells the time; None where there is none.
    """

    variable: Variable
    latitude: Variable
    longitude: Variable
    row: int
    column: int
    time: int | None
    times: Variable | None


def find(container: Container, name: str | None, source: str) -> Found:
    """Find the variable, its coordinates and its time.

    Args:
        container: What the granule holds.
        name: The variable's name; None to find it.
        source: The granule's name, for messages.

    Raises:
        DataError: Not found, or several could be meant; the message lists them.
    """
    variable = _named(container, name, source) if name else _likely(container, source)
    if len(variable.shape) < 2:
        raise DataError(f"{source}: variable {variable.name} has shape {variable.shape}; expected at least two axes.")
    latitude = _coordinate(container, variable, "latitude", _LATITUDE, "Y", source)
    longitude = _coordinate(container, variable, "longitude", _LONGITUDE, "X", source)
    row, column = _horizontal(variable, latitude, longitude, source)
    dimensions = variable.dimensions()
    times = _times(container, variable, dimensions, source)
    time: int | None = None
    for axis, (dimension, length) in enumerate(zip(dimensions, variable.shape, strict=True)):
        if axis in (row, column):
            continue
        if times is not None and len(times.shape) == 1 and times.dimensions() == (dimension,):
            time = axis
        elif length != 1 and _TIME.fullmatch(_last(dimension).lower()):
            raise DataError(f"{source}: nothing tells the {length} times along {dimension} of {variable.name}.")
        elif length != 1:
            raise DataError(
                f"{source}: {variable.name} has {length} values along {dimension}, which is neither time nor place: "
                "select one of them first, for example with xarray or ncks."
            )
    return Found(variable, latitude, longitude, row, column, time, times)


def _named(container: Container, name: str, source: str) -> Variable:
    if name in container.variables:
        return container.variables[name]
    within = [variable for key, variable in container.variables.items() if _last(key) == name]
    if len(within) == 1:
        return within[0]
    if within:
        raise DataError(f"{source} has several variables {name}: {_list(within)}. Give one with its group.")
    fields = [variable for variable in container.variables.values() if len(variable.shape) >= 2]
    raise DataError(f"{source} has no variable {name!r}. It has {_list(fields) or 'no variable with two axes'}.")


def _likely(container: Container, source: str) -> Variable:
    fields = [variable for variable in container.variables.values() if _is_field(container, variable)]
    if not fields:
        raise DataError(f"{source} has no variable with rows and columns of numbers.")
    chosen = [variable for variable in fields if variable.text("standard_name") in SST_STANDARD_NAMES]
    named = [variable for variable in chosen or fields if _KNOWN.fullmatch(_last(variable.name).lower())]
    alike = [variable for variable in chosen or fields if _ALIKE.fullmatch(_last(variable.name).lower())]
    plain = [variable for variable in fields if not _BESIDE.fullmatch(_last(variable.name).lower())]
    candidates = named or chosen or alike or plain or fields
    if len(candidates) > 1 and alike and not named and len(alike) < len(candidates):
        candidates = alike
    if len(candidates) > 1:
        raise DataError(
            f"{source}: several variables could be meant: {_list(candidates)}. Name one of them with --variable."
        )
    return candidates[0]


def _is_field(container: Container, variable: Variable) -> bool:
    """Whether a variable may be an image: numbers, two long axes, neither flags nor a coordinate."""
    if variable.dtype.kind not in "iuf" or sum(length > 1 for length in variable.shape) < 2:
        return False
    if "flag_meanings" in variable.attributes or "flag_masks" in variable.attributes:
        return False
    if variable.text("standard_name") in ("latitude", "longitude", "time") or _SINCE.fullmatch(variable.text("units")):
        return False
    if any(_spelt(variable, pattern) for pattern in (_LATITUDE, _LONGITUDE)):
        return False
    bounds = {other.attributes.get("bounds") for other in container.variables.values() if "bounds" in other.attributes}
    return variable.name not in bounds and _last(variable.name) not in bounds


def _spelt(variable: Variable, pattern: tuple[str, str]) -> bool:
    units, name = pattern
    return bool(re.fullmatch(units, variable.text("units")) or re.fullmatch(name, _last(variable.name).lower()))


def _coordinate(
    container: Container, variable: Variable, what: str, patterns: tuple[str, str], axis: str, source: str
) -> Variable:
    """The latitude or longitude of a variable: by CF attributes, then by name; of the dimensions of the variable."""
    dimensions = variable.dimensions()
    units, name = patterns
    listed = set(str(variable.attributes.get("coordinates", "")).split())

    def lies_along(other: Variable) -> bool:
        if other.name == variable.name or other.dtype.kind not in "iuf":
            return False
        if len(other.shape) not in (1, 2, 3) or not set(other.shape) <= set(variable.shape) | {1}:
            return False
        own = [dim for dim, length in zip(other.dimensions(), other.shape, strict=True) if length > 1]
        return 0 < len(own) <= 2 and set(own) <= set(dimensions)

    rules: list[Callable[[Variable], bool]] = [
        lambda other: other.text("standard_name") == what,
        lambda other: bool(re.fullmatch(units, other.text("units"))),
        lambda other: bool(re.fullmatch(name, _last(other.name).lower())),
        lambda other: other.text("axis") == axis.lower() and re.match(r"deg", other.text("units") or "deg") is not None,
    ]
    for rule in rules:
        fitting = [other for other in container.variables.values() if rule(other) and lies_along(other)]
        for narrower in (
            [other for other in fitting if other.name in listed or _last(other.name) in listed],
            [other for other in fitting if other.name in dimensions or _last(other.name) in dimensions],
            [other for other in fitting if re.fullmatch(name, _last(other.name).lower())],
        ):
            if len(fitting) > 1 and narrower:
                fitting = narrower
        if len(fitting) > 1:
            raise DataError(f"{source}: several variables could be the {what} of {variable.name}: {_list(fitting)}.")
        if fitting:
            return fitting[0]
    raise DataError(
        f"{source}: nothing tells the {what} of {variable.name} along its dimensions {', '.join(dimensions)}. Expected "
        f"a variable with the standard name {what}, in one of these dimensions or in two."
    )


def _horizontal(variable: Variable, latitude: Variable, longitude: Variable, source: str) -> tuple[int, int]:
    """Which dimensions of the variable are rows and columns of pixels."""
    dimensions = variable.dimensions()
    of_latitude, of_longitude = _long(latitude), _long(longitude)
    if len(of_latitude) == 1 and len(of_longitude) == 1:
        if of_latitude == of_longitude:
            raise DataError(
                f"{source}: latitude and longitude of {variable.name} both lie along {of_latitude[0]}: no image."
            )
        return dimensions.index(of_latitude[0]), dimensions.index(of_longitude[0])
    if set(of_latitude) != set(of_longitude) or len(of_latitude) != 2:
        raise DataError(
            f"{source}: latitude lies along {', '.join(of_latitude)}, longitude along {', '.join(of_longitude)}; "
            "expected both along the same two dimensions, or each along its own."
        )
    first, second = sorted(dimensions.index(dimension) for dimension in of_latitude)
    names = [_last(dimensions[axis]).lower() for axis in (first, second)]
    if _COLUMNS.fullmatch(names[0]) and _ROWS.fullmatch(names[1]):
        return second, first
    return first, second


def _long(variable: Variable) -> list[str]:
    return [dim for dim, length in zip(variable.dimensions(), variable.shape, strict=True) if length > 1]


def _times(container: Container, variable: Variable, dimensions: Iterable[str], source: str) -> Variable | None:
    """The variable that tells the time: along a dimension of the variable, or a single time for all."""
    group = variable.name.rpartition("/")[0]
    candidates = [
        other
        for other in container.variables.values()
        if len(other.shape) <= 1
        and other.dtype.kind in "iuf"
        and (_SINCE.fullmatch(other.text("units")) or other.text("standard_name") == "time")
        and (other.name.rpartition("/")[0] in ("", group))
    ]
    along = [other for other in candidates if other.shape and other.dimensions()[0] in set(dimensions)]
    if not along:
        single = [other for other in candidates if int(np.prod(other.shape)) == 1]
        along = [other for other in single if other.text("standard_name") == "time"] or single
    for narrower in (
        [other for other in along if other.name in set(dimensions)],
        [other for other in along if other.text("standard_name") == "time"],
        [other for other in along if _TIME.fullmatch(_last(other.name).lower())],
    ):
        if len(along) > 1 and narrower:
            along = narrower
    if len(along) > 1:
        raise DataError(f"{source}: several variables could be the time of {variable.name}: {_list(along)}.")
    return along[0] if along else None


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _list(variables: Iterable[Variable]) -> str:
    return ", ".join(f"{variable.name} {variable.shape}" for variable in variables)


def attribute_time(attributes: Mapping[str, object]) -> np.datetime64 | None:
    """The time that the attributes of a whole file tell; None where they tell none."""
    for name in ("time_coverage_start", "start_time", "time_coverage_end", "stop_time"):
        text = attributes.get(name)
        match = isinstance(text, str) and re.match(
            r"\s*(\d{4})-?(\d{2})-?(\d{2})(?:[T ]?(\d{2}):?(\d{2}):?(\d{2}(?:\.\d+)?)?)?", text
        )
        if match:
            year, month, day, hour, minute, second = match.groups(default="00")
            try:
                return np.datetime64(f"{year}-{month}-{day}T{hour}:{minute}:{second}", "us")
            except ValueError:
                continue
    return None
