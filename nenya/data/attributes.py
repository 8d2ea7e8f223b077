"""What a dataset's attributes say its numbers mean, for pixels and labels alike.

The conventions are those of CF (1.11, sections 2.5.1 and 8.1) and of NetCDF, whose classic files have no unsigned types
and say ``_Unsigned`` instead. Marks of missing values and valid ranges are in the domain of the stored numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nenya.errors import DataError

#: An attribute, or the option `missing`, may hold so many marks of missing values: each costs a look at every pixel.
MOST_MARKS = 64

_MARKS = ("_FillValue", "missing_value")
_SHOWN = 60  # characters of an attribute's value in a message


@dataclass(frozen=True)
class Meaning:
    """What the stored numbers of a dataset mean.

    Attributes:
        stored: Type of the numbers in the file.
        dtype: Type of the numbers that the stored bits are, native byte order: another than `stored` where
            ``_Unsigned`` says so.
        marks: Numbers, of `dtype`, that stand for missing values.
        factor: Numbers are multiplied by this first (``scale_factor``),
        offset: then this is added (``add_offset``).
        valid_range: Smallest and largest valid number, as the attributes have them; infinite where they set no limit.
            None without such attributes.
        remarks: What is odd about the attributes and does no harm, in words.
    """

    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    marks: tuple[float, ...] = ()
    factor: float = 1.0
    offset: float = 0.0
    valid_range: tuple[float, float] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def is_reinterpreted(self) -> bool:
        """Whether the bits are read as a type of the other sign."""
        return self.dtype.kind != self.stored.kind

    @property
    def unsigned_bits(self) -> int:
        """Length of the stored numbers where they are signed and stand for unsigned ones of the same bits, else 0."""
        return 8 * self.dtype.itemsize if self.is_reinterpreted and self.dtype.kind == "u" else 0


def read_meaning(dataset: h5py.Dataset, path: Path) -> Meaning:
    """Read the attributes of a dataset of numbers that change what the numbers mean.

    Args:
        dataset: The open dataset, of floats, integers or booleans.
        path: Its file, for the message.

    Returns:
        What its numbers mean.

    Raises:
        DataError: An attribute is not of the kind that the conventions demand, or would make every number the same or
            infinite.
    """
    where = f"{path}: dataset {dataset.name[1:]!r}"
    attributes = dataset.attrs
    # the size of an attribute is seen before it is read
    return _read(_Reader(attributes, lambda name: math.prod(attributes.get_id(name).shape or ()), dataset.dtype, where))


def meaning_of(attributes: Mapping[str, Any], stored: np.dtype[Any], where: str) -> Meaning:
    """The same of attributes that are in memory, whatever they were read from.

    Args:
        attributes: Text, numbers, arrays.
        stored: Type of the stored numbers.
        where: Names what has the attributes, for the message.

    Returns:
        What the numbers mean.

    Raises:
        DataError: As for `read_meaning`.
    """
    return _read(_Reader(attributes, lambda name: np.size(attributes[name]), stored, where))


def number_type(attributes: Mapping[str, Any], stored: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The type whose numbers the stored bits are, native byte order; see `meaning_of`.

    Raises:
        DataError: ``_Unsigned`` is neither true nor false.
    """
    return _Reader(attributes, lambda name: np.size(attributes[name]), stored, where).number_type()


def _read(reader: _Reader) -> Meaning:
    stored = reader.stored
    dtype = reader.number_type()
    as_bits = dtype.kind != stored.kind
    remarks: list[str] = []
    marks: list[float] = []
    for name in _MARKS:
        for mark in reader.numbers(name, MOST_MARKS):
            fitting = fit(mark, dtype)
            if fitting is None:
                remarks.append(f"attribute {name} is {mark:g}, which {dtype} has not: it marks nothing")
                continue
            if fitting != mark and not math.isnan(mark) and not reader.has("_Unsigned"):
                remarks.append(
                    f"attribute {name} is {mark:g}, which {dtype} has not; taken as {fitting:g}, which has its bits"
                )
            marks.append(fitting)
    valid_range, unusable = reader.valid_range(dtype if as_bits else None)
    return Meaning(
        stored,
        dtype,
        tuple(dict.fromkeys(marks)),
        reader.number("scale_factor", 1.0, zero_allowed=False),
        reader.number("add_offset", 0.0),
        valid_range,
        (*remarks, *unusable),
    )


def fit(mark: float, dtype: np.dtype[Any]) -> float | None:
    """The number of a type that a mark stands for: itself, or in an integer type the one that has the same bits.

    Args:
        mark: A number; an `int` is taken exactly.
        dtype: Type of the numbers that it is to mark.

    Returns:
        The number, or None where the type has none.
    """
    if dtype.kind == "f":
        return mark
    if not math.isfinite(mark) or mark != int(mark):
        return None
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    mark, span = int(mark), high - low + 1
    if low <= mark <= high:
        return mark
    if dtype.kind != "b" and -span // 2 <= mark < span:
        return (mark - low) % span + low
    return None


def declared(missing: Sequence[float], meaning: Meaning, found: str) -> tuple[float, ...]:
    """Check the marks of missing pixels that the option `missing` declares.

    Args:
        missing: Numbers, as stored.
        meaning: What the dataset's numbers mean.
        found: Names the dataset, for the message.

    Returns:
        The marks.

    Raises:
        DataError: The dataset's type has no such number, so that it would mark nothing.
    """
    dtype = meaning.dtype
    for mark in missing:
        fitting = fit(mark, dtype)
        with np.errstate(over="ignore"):
            possible = bool(np.isfinite(np.float64(mark).astype(dtype))) if dtype.kind == "f" else fitting == mark
        if not possible:
            other = f" Its bits as {dtype} are {fitting:g}: is that meant?" if dtype.kind in "iu" and fitting else ""
            raise DataError(
                f"{found}: missing has {mark!r}, a number that {dtype} has not. Expected numbers as they are stored in "
                f"the file, before scale_factor, add_offset and scale.{other}"
            )
    return tuple(missing)


class _Reader:
    """Reads attributes of stored numbers, each complaint with the names of what has them and of the attribute."""

    def __init__(
        self, attributes: Mapping[str, Any], count: Callable[[str], int], stored: np.dtype[Any], where: str
    ) -> None:
        self._attributes = attributes
        self._count = count
        self.stored = stored
        self._named = where

    def has(self, name: str) -> bool:
        return name in self._attributes

    def number_type(self) -> np.dtype[Any]:
        """The type whose numbers the stored bits are: ``_Unsigned`` changes the sign of integers."""
        stored = self.stored
        if not self.has("_Unsigned") or stored.kind not in "iu":
            return stored.newbyteorder("=")
        value = self._values("_Unsigned", 1)[0]
        says = {"true": "u", "false": "i", "1": "u", "0": "i"}.get(str(value).strip("\0 ").lower())
        if says is None:
            raise self._complaint("_Unsigned", value, 'expected "true" or "false"')
        return np.dtype(f"{says}{stored.itemsize}")

    def number(self, name: str, default: float, *, zero_allowed: bool = True) -> float:
        """The one number in an attribute, or the default where it is not there."""
        numbers = self.numbers(name, 1)
        if not numbers:
            return default
        if not math.isfinite(numbers[0]) or (numbers[0] == 0 and not zero_allowed):
            raise self._complaint(
                name, numbers[0], f"expected a finite number{'' if zero_allowed else ' other than 0'}"
            )
        return float(numbers[0])

    def numbers(self, name: str, most: int) -> list[float]:
        """The numbers in an attribute, which files store as a scalar or as an array; none where it is not there."""
        return [self._number(name, value) for value in self._values(name, most)] if self.has(name) else []

    def valid_range(self, bits_of: np.dtype[Any] | None) -> tuple[tuple[float, float] | None, list[str]]:
        """The limits of valid numbers, and complaints about what cannot be read as such: nothing depends on them.

        Args:
            bits_of: Type of the numbers where ``_Unsigned`` has changed it: it holds for the limits too.
        """
        limits = [-math.inf, math.inf]
        unusable: list[str] = []
        for name, places in (("valid_range", (0, 1)), ("valid_min", (0,)), ("valid_max", (1,))):
            try:
                numbers = self.numbers(name, len(places))
                if numbers and (len(numbers) != len(places) or any(math.isnan(number) for number in numbers)):
                    raise self._complaint(name, numbers, f"expected {len(places)} numbers")
            except DataError as error:
                unusable.append(f"{error} It is not used.")
                continue
            for place, number in zip(places, numbers, strict=False):
                # a number with a fraction is of the unpacked values, and none of the stored bits
                fitting = fit(number, bits_of) if bits_of is not None and isinstance(number, int) else None
                limits[place] = number if fitting is None else fitting
        return (None if limits == [-math.inf, math.inf] else (limits[0], limits[1])), unusable

    def _values(self, name: str, most: int) -> list[Any]:
        """What is in an attribute, not more than so many values: that is seen before it is read."""
        count = self._count(name)
        if count > most:
            expected = "one" if most == 1 else f"at most {most}"
            raise DataError(f"{self._where(name)} has {count} values; expected {expected}.")
        values = np.asarray(self._attributes[name]).reshape(-1).tolist()
        values = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]
        if not values:
            raise self._complaint(name, "empty", "expected a value")
        return values

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)  # "0.01": against the conventions, but there is one way only to read it
        if isinstance(value, int):
            return value  # exactly, where float64 would round
        if isinstance(value, float | np.floating):
            return float(value)
        raise self._complaint(name, value, "expected a number")

    def _where(self, name: str) -> str:
        return f"{self._named}: attribute {name}"

    def _complaint(self, name: str, value: object, expected: str) -> DataError:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
        return DataError(f"{self._where(name)} is {shown}; {expected}. Correct or remove it.")
