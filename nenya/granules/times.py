"""Times of a granule, UTC."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from nenya.data.attributes import meaning_of
from nenya.errors import DataError
from nenya.granules.containers import Variable

_NANOSECONDS = {
    "nanosecond": 1, "microsecond": 10**3, "millisecond": 10**6, "second": 10**9, "minute": 60 * 10**9,
    "hour": 3600 * 10**9, "day": 86400 * 10**9, "week": 7 * 86400 * 10**9,
}  # fmt: skip
_SHORT = {"ns": "nanosecond", "us": "microsecond", "ms": "millisecond", "s": "second", "sec": "second",
          "min": "minute", "h": "hour", "hr": "hour", "d": "day", "msec": "millisecond"}  # fmt: skip
_CALENDARS = ("", "standard", "gregorian", "proleptic_gregorian")

Times = npt.NDArray[np.datetime64]


def decode(variable: Variable, source: str) -> Times:
    """The times of a variable such as ``seconds since 1981-01-01``.

    Args:
        variable: Of at most one axis.
        source: The granule's name, for messages.

    Returns:
        [n] in microseconds; NaT where the variable has its fill value.

    Raises:
        DataError: Units or calendar are not understood.
    """
    units = str(variable.attributes.get("units", ""))
    match = re.fullmatch(r"\s*(\w+?)s?\s+since\s+(.+?)\s*", units, re.IGNORECASE)
    unit = match[1].lower() if match else ""
    size = _NANOSECONDS.get(_SHORT.get(unit, _SHORT.get(f"{unit}s", unit)))
    if match is None or size is None:
        raise DataError(
            f"{source}: the time {variable.name} has units {units!r}; expected e.g. seconds since 1981-01-01."
        )
    calendar = variable.text("calendar")
    start = _instant(match[2])
    if calendar not in _CALENDARS or start is None:
        what = f"the calendar {calendar!r}" if calendar not in _CALENDARS else f"the start {match[2]!r}"
        raise DataError(f"{source}: the time {variable.name} has {what}, which is not understood.")
    stored = np.atleast_1d(variable.read((slice(None),) * len(variable.shape)))
    meaning = meaning_of(variable.attributes, variable.dtype, f"{source}: the time {variable.name}")
    stored = stored.view(meaning.dtype)
    missing = ~np.isfinite(stored) if stored.dtype.kind == "f" else np.zeros(stored.shape, np.bool_)
    for mark in meaning.marks:
        missing |= stored == mark
    scale, offset = meaning.factor, meaning.offset
    times = np.full(stored.shape, np.datetime64("NaT", "us"))
    for place in np.flatnonzero(~missing):
        number = stored[place].item()
        if (scale, offset) != (1.0, 0.0):
            number = number * scale + offset
        if abs(number) * size / 1000 < 2**62:
            microseconds = round(number * size / 1000) if isinstance(number, float) else number * size // 1000
            times[place] = start + np.timedelta64(microseconds, "us")
    return times


def _instant(text: str) -> np.datetime64 | None:
    """An instant such as ``1981-01-01 00:00:00 UTC`` or ``2000-1-1T12:00:00.5+02:00``."""
    match = re.fullmatch(
        r"(\d{1,4})-(\d{1,2})-(\d{1,2})(?:[T ]+(\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(\.\d+)?)?)?)?"
        r"\s*(?:Z|UTC|GMT)?\s*(?:([+-])(\d{1,2}):?(\d{2})?)?",
        text.strip(), re.IGNORECASE,
    )  # fmt: skip
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups(default="0")
    try:
        whole = np.datetime64(
            f"{int(year):04d}-{int(month):02d}-{int(day):02d}T{int(hour):02d}:{int(minute):02d}:{int(second):02d}", "us"
        )
    except ValueError:
        return None
    shift = (60 * int(hours) + int(minutes)) * (-1 if sign == "-" else 1)
    return whole + np.timedelta64(round(float(fraction) * 1e6), "us") - np.timedelta64(shift, "m")
