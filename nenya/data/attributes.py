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
_MEANING = (*_MARKS, "scale_factor", "add_offset", "_Unsigned")
_MOST_BYTES = 2**16  # of an attribute that holds a few numbers, perhaps as text
_MOST_TEXTS = 8  # of open length
_Size = tuple[int, int, str]  # of an attribute: values, bytes, and what forbids to read it
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
    def is_plain(self) -> bool:
        """Whether the stored numbers are what they are, and none stands for a missing value."""
        return not self.marks and (self.factor, self.offset) == (1.0, 0.0) and not self.is_reinterpreted

    @property
    def unsigned_bits(self) -> int:
        """Length of the stored numbers where they are signed and stand for unsigned ones of the same bits, else 0."""
        return 8 * self.dtype.itemsize if self.is_reinterpreted and self.dtype.kind == "u" else 0

    def is_gap(self, stored: object, marks: Sequence[float] = ()) -> bool:
        """Whether one stored element, such as HDF5's fill value, reads as a missing pixel.

        Args:
            stored: The element.
            marks: Further numbers that stand for missing values.
        """
        if self.stored.kind not in "fiub":
            return False
        element = np.asarray(stored).astype(self.stored.newbyteorder("=")).reshape(1)
        number = (element.view(self.dtype) if self.is_reinterpreted else element)[0]
        if self.dtype.kind != "f":
            return number.item() in (*self.marks, *marks)
        near = as_stored(number, self.dtype)
        return not math.isfinite(near) or near in {as_stored(mark, self.dtype) for mark in (*self.marks, *marks)}


def as_stored(mark: float, dtype: np.dtype[Any]) -> float:
    """A mark as pixels of a floating-point type have it: rounded to the type, then to float32."""
    with np.errstate(over="ignore"):  # beyond the type's range it is stored as infinity
        return float(np.float64(mark).astype(dtype).astype(np.float32))


def says_meaning(dataset: h5py.Dataset) -> bool:
    """Whether a dataset has attributes that change what its numbers mean."""
    return any(name in dataset.attrs for name in _MEANING)


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
    return _read(_Reader(attributes, lambda name: _size(attributes.get_id(name)), dataset.dtype, where))


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
    return _read(_Reader(attributes, lambda name: _size_of(attributes[name]), stored, where))


def number_type(attributes: Mapping[str, Any], stored: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The type whose numbers the stored bits are, native byte order; see `meaning_of`.

    Raises:
        DataError: ``_Unsigned`` is neither true nor false.
    """
    return _Reader(attributes, lambda name: _size_of(attributes[name]), stored, where).number_type()


def _read(reader: _Reader) -> Meaning:
    stored = reader.stored
    dtype = reader.number_type()
    as_bits = dtype.kind != stored.kind
    factor, offset = reader.number("scale_factor", 1.0, zero_allowed=False), reader.number("add_offset", 0.0)
    remarks: list[str] = []
    marks: list[float] = []
    for name in _MARKS:
        given, nothing = reader.marks(name, dtype)
        remarks += nothing
        for mark in given:
            fitting = fit(mark, dtype)
            if fitting is None:
                packed = _packed(mark, factor, offset, dtype)
                meant = f", unless it is meant in unpacked units: stored as {packed}" if packed is not None else ""
                remarks.append(f"attribute {name} is {mark:g}, which {dtype} has not: it marks nothing{meant}")
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
        factor,
        offset,
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


def _packed(value: float, factor: float, offset: float, dtype: np.dtype[Any]) -> int | None:
    """The stored integer that unpacks to a value; None where there is none, or where nothing is packed."""
    if (factor, offset) == (1.0, 0.0) or not math.isfinite(value) or dtype.kind not in "iu":
        return None
    stored = (value - offset) / factor
    near = round(stored)
    inside = np.iinfo(dtype).min <= near <= np.iinfo(dtype).max
    return near if inside and abs(stored - near) <= 1e-3 else None


def marks_fit(mark: float, meaning: Meaning) -> bool:
    """Whether numbers of a meaning can be a mark that is declared as it is stored."""
    dtype = meaning.dtype
    if dtype.kind != "f":
        return fit(mark, dtype) == mark
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float64(mark).astype(dtype)))


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
        if not marks_fit(mark, meaning):
            fitting = fit(mark, dtype)
            other = f" Its bits as {dtype} are {fitting:g}: is that meant?" if dtype.kind in "iu" and fitting else ""
            raise DataError(
                f"{found}: missing has {mark!r}, a number that {dtype} has not. Expected numbers as they are stored in "
                f"the file, before scale_factor, add_offset and scale.{other}"
            )
    return tuple(missing)


class _Reader:
    """Reads attributes of stored numbers, each complaint with the names of what has them and of the attribute."""

    def __init__(
        self, attributes: Mapping[str, Any], size: Callable[[str], _Size], stored: np.dtype[Any], where: str
    ) -> None:
        self._attributes = attributes
        self._size = size
        self.stored = stored
        self._named = where

    def has(self, name: str) -> bool:
        return name in self._attributes

    def number_type(self) -> np.dtype[Any]:
        """The type whose numbers the stored bits are: ``_Unsigned`` changes the sign of integers."""
        stored = self.stored
        if not self.has("_Unsigned") or stored.kind not in "iu":
            return stored.newbyteorder("=")
        value = self._one("_Unsigned")
        says = {"true": "u", "false": "i", "1": "u", "0": "i"}.get(str(value).strip("\0 ").lower())
        if says is None:
            raise self._complaint("_Unsigned", value, 'expected "true" or "false"')
        return np.dtype(f"{says}{stored.itemsize}")

    def number(self, name: str, default: float, *, zero_allowed: bool = True) -> float:
        """The one number in an attribute, or the default where it is not there."""
        if not self.has(name):
            return default
        number = self._number(name, self._one(name))
        if not math.isfinite(number) or (number == 0 and not zero_allowed):
            raise self._complaint(name, number, f"expected a finite number{'' if zero_allowed else ' other than 0'}")
        return float(number)

    def numbers(self, name: str, most: int) -> list[float]:
        """The numbers in an attribute, which files store as a scalar or as an array; none where it is not there."""
        return [self._number(name, value) for value in self._values(name, most)] if self.has(name) else []

    def marks(self, name: str, dtype: np.dtype[Any]) -> tuple[list[float], list[str]]:
        """The numbers in an attribute of marks, and remarks on what in it is no number, so that it marks nothing."""
        if not self.has(name):
            return [], []
        numbers: list[float] = []
        remarks: list[str] = []
        for value in self._values(name, MOST_MARKS) or [""]:
            try:
                numbers.append(self._number(name, value))
            except DataError:
                empty = isinstance(value, str) and not value.strip("\0 ")
                # what text became in integers is anyone's guess; among floats it is NaN, or nothing
                if not (empty or (isinstance(value, str) and len(value) <= _SHOWN and dtype.kind == "f")):
                    raise
                remarks.append(f"attribute {name} is {'empty' if empty else _shown(value)}: it marks nothing")
        return numbers, remarks

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
                if self.has(name) and (len(numbers) != len(places) or any(map(math.isnan, numbers))):
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
        """What is in an attribute, not more than so many values: that is seen before it is read, and after."""
        count, size, unread = self._size(name)
        self._require_few(name, count, most)
        if unread or size > _MOST_BYTES:
            raise DataError(f"{self._where(name)} is {unread or f'{size} bytes long'}; expected a number. Correct it.")
        values = _flat(self._attributes[name])
        self._require_few(name, len(values), most)
        return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]

    def _one(self, name: str) -> object:
        """The one value in an attribute."""
        values = self._values(name, 1)
        if not values:
            raise self._complaint(name, "empty", "expected a value")
        return values[0]

    def _require_few(self, name: str, count: int, most: int) -> None:
        if count > most:
            expected = "one" if most == 1 else f"at most {most}"
            raise DataError(f"{self._where(name)} has {count} values; expected {expected}.")

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
        return DataError(f"{self._where(name)} is {_shown(value)}; {expected}. Correct or remove it.")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


def _size_of(value: object) -> _Size:
    """`_size` of what is in memory already."""
    return np.size(np.asarray(value)), 0, ""


def _size(attribute: h5py.h5a.AttrID) -> _Size:
    """What an attribute holds, as far as its type tells: an array may be one element, and a list of any length.

    Returns:
        Number of values, bytes, and what it is that had better not be read; empty where it may be.
    """
    count, kind = math.prod(attribute.shape or (0,) * (attribute.shape is None)), attribute.get_type()
    size = count * kind.get_size()
    while isinstance(kind, h5py.h5t.TypeArrayID):
        count *= math.prod(kind.get_array_dims())
        kind = kind.get_super()
    # lists, and text of open length, may all be the same long one in the file
    if isinstance(kind, h5py.h5t.TypeVlenID) and count == 1:
        kind = kind.get_super()
    open_text = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    plain = (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID, h5py.h5t.TypeStringID, h5py.h5t.TypeEnumID)
    odd = "no plain number" if not isinstance(kind, plain) else ""
    return count, size, odd or ("many texts" if open_text and count > _MOST_TEXTS else "")


def _flat(value: object) -> list[Any]:
    """The values in an attribute, one after another: h5py gives arrays of arrays where lengths vary."""
    if isinstance(value, h5py.Empty):
        return []
    values: list[Any] = np.asarray(value).reshape(-1).tolist()
    if any(isinstance(item, np.ndarray) for item in values):
        values = np.concatenate([np.ravel(item) for item in values]).tolist()
    return values
