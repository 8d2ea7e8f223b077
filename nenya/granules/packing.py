"""Packed pixels: which of them are measured, and what they mean. Integers stay integers until they must be numbers.

Sources: the CF conventions (sections 2.5 and 8.1) and the NetCDF users' guide, appendix B (valid_range, default fill).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data.attributes import Meaning, meaning_of, number_type
from nenya.errors import DataError
from nenya.granules.containers import Array, Variable

Mask = npt.NDArray[np.bool_]

#: What the NetCDF library writes where nothing was written and no fill value was set; none for single bytes.
DEFAULT_FILL = {
    "i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295, "i8": -9223372036854775806,
    "u8": 18446744073709551614, "f4": 9.969209968386869e36, "f8": 9.969209968386869e36,
}  # fmt: skip

_UNITS = {
    "kelvin": r"k|deg(ree)?s?[ _]?k(elvin)?|kelvins?|deg[ _]?kelvin|°k",
    "celsius": r"c|deg(ree)?s?[ _]?c(el[sc]ius)?|cel[sc]ius|(deg(ree)?s?[ _]?)?centigrade|°c",
}  # fmt: skip


def unit_of(text: str) -> str:
    """The unit as Nenya writes it: ``kelvin`` and ``celsius`` however they are spelt, others as found, "" for none."""
    spelt = " ".join(text.strip().split())
    for name, pattern in _UNITS.items():
        if re.fullmatch(pattern, spelt.lower()):
            return name
    return spelt


@dataclass(frozen=True)
class Packing:
    """What the stored numbers of a variable mean.

    Attributes:
        dtype: Their type as NumPy's short name, ``int16``; after ``_Unsigned``.
        scale: value = stored * scale + offset.
        offset: See scale.
        fill: The number that stands for a gap; NaN for floats without a fill value; None where no number is free.
        unit: Of the values; "" where none is known.
    """

    dtype: str
    scale: float
    offset: float
    fill: int | float | None
    unit: str

    @property
    def is_integer(self) -> bool:
        """Whether the stored numbers are integers."""
        return np.dtype(self.dtype).kind in "iu"

    def decode(self, stored: Array) -> npt.NDArray[np.float64]:
        """The values of stored numbers, gaps not looked for, float64."""
        values = stored.astype(np.float64)
        if self.scale != 1.0:
            values *= self.scale
        if self.offset != 0.0:
            values += self.offset
        return values


@dataclass(frozen=True)
class Decoder:
    """Tells which stored numbers of a variable are measurements.

    Attributes:
        packing: What they mean.
        fills: Numbers that stand for gaps.
        lowest: Smallest stored number that counts; -inf for any.
        highest: Largest.
        values: Smallest and largest decoded value that counts; None for any.
        remarks: What is odd about the attributes and does no harm, in words.
    """

    packing: Packing
    fills: tuple[int | float, ...]
    lowest: float
    highest: float
    values: tuple[float, float] | None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, variable: Variable, values: tuple[float, float] | None = None) -> Decoder:
        """Read the attributes of a variable.

        Args:
            variable: The variable.
            values: Smallest and largest decoded value that counts as measured.

        Raises:
            DataError: The attributes make no sense.
        """
        if variable.dtype.kind not in "iuf":
            raise DataError(f"variable {variable.name} holds {variable.dtype}; expected numbers.")
        meaning = meaning_of(variable.attributes, variable.dtype, f"variable {variable.name}")
        dtype = meaning.dtype
        fills = _as_stored(meaning.marks, dtype)
        given = bool(fills)
        if not given and (standard := DEFAULT_FILL.get(f"{dtype.kind}{dtype.itemsize}")) is not None:
            fills = _as_stored([standard], dtype)
        lowest, highest = _stored_range(meaning, variable.name)
        fill: int | float | None = fills[0] if fills else None
        if dtype.kind == "f" and not given:
            fill = math.nan
        unit = unit_of(str(variable.attributes.get("units", "") or ""))
        packing = Packing(dtype.name, meaning.factor, meaning.offset, fill, unit)
        return cls(packing, tuple(dict.fromkeys(fills)), lowest, highest, values, meaning.remarks)

    def measured(self, stored: Array) -> Mask:
        """Which stored numbers are measurements: no fill value, finite, within the valid ranges.

        Args:
            stored: Any shape, of the packing's type.
        """
        if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
            table: Mask = self._table
            return table.take(stored.view(f"u{stored.dtype.itemsize}"))
        return self._by_rule(stored)

    def outside_valid_range(self, stored: Array) -> Mask:
        """Which stored numbers are no gaps, but lie outside the range that the file calls valid."""
        return self.without_valid_range.measured(stored) & ~self.measured(stored)

    @functools.cached_property
    def without_valid_range(self) -> Decoder:
        """The same without the file's valid range."""
        return Decoder(self.packing, self.fills, -math.inf, math.inf, self.values)

    @functools.cached_property
    def _table(self) -> Mask:
        """The answer for each number that the type has, by its bits."""
        dtype = np.dtype(self.packing.dtype)
        every = np.arange(2 ** (8 * dtype.itemsize), dtype=np.uint32).astype(f"u{dtype.itemsize}").view(dtype)
        return self._by_rule(every)

    def _by_rule(self, stored: Array) -> Mask:
        fine: Mask = np.isfinite(stored) if stored.dtype.kind == "f" else np.ones(stored.shape, np.bool_)
        for fill in self.fills:
            if fill == fill:
                fine &= stored != stored.dtype.type(fill)
        if self.lowest > -math.inf:
            fine &= stored >= self.lowest
        if self.highest < math.inf:
            fine &= stored <= self.highest
        if self.values is not None:
            decoded = self.packing.decode(stored)
            fine &= (decoded >= self.values[0]) & (decoded <= self.values[1])
        return fine


def stored_type(variable: Variable) -> np.dtype[Any]:
    """The type of the stored numbers, where ``_Unsigned`` tells that they are not what the file format can say."""
    return number_type(variable.attributes, variable.dtype, f"variable {variable.name}")


def _as_stored(marks: Sequence[float], dtype: np.dtype[Any]) -> list[int | float]:
    """Marks of missing values as the type holds them."""
    if dtype.kind != "f":
        return [int(mark) for mark in marks]
    with np.errstate(over="ignore"):
        return [float(dtype.type(mark)) for mark in marks]


def _stored_range(meaning: Meaning, name: str) -> tuple[float, float]:
    """Smallest and largest stored number that the file calls valid.

    The attributes are of the stored type, or, where they are of the wider type of the scale, of the decoded values.
    """
    if meaning.valid_range is None:
        return -math.inf, math.inf
    is_packed = meaning.dtype.kind in "iu" and (meaning.factor, meaning.offset) != (1.0, 0.0)
    low, high = -math.inf, math.inf
    for side, limit in zip(("low", "high"), meaning.valid_range, strict=True):
        if not math.isfinite(limit):
            continue
        number, edge = limit, side
        if is_packed and isinstance(limit, float):
            number = (limit - meaning.offset) / meaning.factor
            number = round(number) if abs(number - round(number)) < 1e-6 * max(1.0, abs(number)) else number
            edge = side if meaning.factor > 0 else {"low": "high", "high": "low"}[side]
        low, high = (max(low, number), high) if edge == "low" else (low, min(high, number))
    if low > high:
        raise DataError(f"variable {name} has a valid range from {low:g} to {high:g}, which nothing is in.")
    return low, high
