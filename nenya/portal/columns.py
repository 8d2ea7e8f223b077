"""The columns of the cutout table as they travel: an array of numbers, times or categories, a value for each latent.

The table is read a part at a time, and nothing of it is kept. What can be no such array (texts that differ in nearly
every row, identifiers, lists, bytes) is of the kind "text": it is told of in the page's table only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.portal.work import Stop
from nenya.progress import RunProgress
from nenya.search.facts import TIMES, Facts, as_times

#: The most categories of a column.
MOST = 200
UNKNOWN = 65535
_FEW = 10  # different whole numbers are categories however few rows there are
_LARGEST_WHOLE = 2**24  # beyond, float32 would make other numbers of identifiers
_BATCH = 2**16  # rows that are read together
_WIRE = {"number": "<f4", "time": "<f8", "category": "<u2"}

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """What a column is.

    Attributes:
        index: Its place.
        name: As the table has it.
        kind: "number", "time", "category" or "text".
        unit: Of its numbers, "" where it has none.
        meaning: In words, "" where the table tells none.
        known: How many latents have a value.
        low: Smallest number, or time in ms since 1970, UTC; None where there is none.
        high: Largest.
        categories: Its categories as texts; None for other kinds.
        values: The same as the table has them.
    """

    index: int
    name: str
    kind: str
    unit: str
    meaning: str
    known: int
    low: float | None
    high: float | None
    categories: tuple[str, ...] | None = None
    values: tuple[Any, ...] = ()

    def about(self) -> dict[str, Any]:
        """What the page is told of it."""
        return {
            "index": self.index, "name": self.name, "kind": self.kind, "unit": self.unit, "meaning": self.meaning,
            "known": self.known, "min": self.low, "max": self.high,
            "categories": None if self.categories is None else list(self.categories),
        }  # fmt: skip


class Columns:
    """The columns of a table.

    Args:
        facts: The table, and which of its rows is which latent.

    Attributes:
        numbers: For each row of the table the number of its latent, -1 where it has none.
        all: The columns.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._file = table.open_table(facts.path, ())
        kind = np.int32 if len(facts.rows) < 2**31 else np.int64
        self.numbers: npt.NDArray[Any] = np.full(self._file.metadata.num_rows, -1, kind)
        self.numbers[facts.rows] = np.arange(len(facts.rows), dtype=kind)
        self.all: list[Column] = []
        with RunProgress(len(facts.names), 0, "columns of the table") as progress:
            for index, field in enumerate(self._file.schema_arrow):
                self.all.append(self._look_at(index, field))
                progress.advance()

    def named(self, name: str) -> Column | None:
        """A column by its name; None where there is none."""
        return next((column for column in self.all if column.name == name), None)

    def batches(self, names: Sequence[str], stop: Stop, rows: int = _BATCH) -> Iterator[tuple[Rows, Any]]:
        """Go through the table.

        Args:
            names: The columns that are read.
            stop: Asked before each batch.
            rows: The most rows of a batch.

        Yields:
            The numbers of the rows that are latents, in the order of the table, and these rows as a
            `pyarrow.RecordBatch`.

        Raises:
            DataError: The table cannot be read, or has changed since it was opened: what was yielded is to be thrown
                away.
        """
        import pyarrow

        self.facts.require_unchanged()

        place = 0
        for batch in table.batches(self.facts.path, names, rows):
            stop.check()
            numbers = self.numbers[place : place + len(batch)].astype(np.int64)
            place += len(batch)
            mine = numbers >= 0
            if mine.all():
                yield numbers, batch
            elif mine.any():
                yield numbers[mine], batch.take(np.flatnonzero(mine))
        self.facts.require_unchanged()
        pyarrow.default_memory_pool().release_unused()  # it keeps what a whole pass has needed

    def wire(self, column: Column, stop: Stop) -> npt.NDArray[Any]:
        """A column as it travels [N]: float32, float64 (ms since 1970, UTC) or uint16, little endian."""
        empty = UNKNOWN if column.kind == "category" else math.nan
        found = np.full(len(self.facts.rows), empty, _WIRE[column.kind])
        for numbers, batch in self.batches([column.name], stop):
            values = batch.column(column.name)
            if column.kind == "category":
                found[numbers] = _codes(values, column.values)
            else:
                found[numbers] = _times(values) if column.kind == "time" else _floats(values)
        return found

    def has_numbers(self, name: str) -> bool:
        """Whether there is a column of numbers of that name."""
        return any(field.name == name and _is_number(field.type) for field in self._file.schema_arrow)

    def pairs(self, one: str, other: str, stop: Stop) -> Iterator[tuple[Rows, Floats, Floats]]:
        """Go through two columns of numbers together: which latents, and the values of both, NaN where not known."""
        for numbers, batch in self.batches([one, other], stop):
            yield numbers, _floats(batch.column(one)), _floats(batch.column(other))

    def fulfilling(self, text: str, stop: Stop) -> npt.NDArray[np.bool_]:
        """Which latents fulfil a condition [N].

        Raises:
            OptionError: It is no condition, names no column, or compares what cannot be compared.
        """
        condition = self.facts.condition(text)
        names = [name for name in condition.columns if name in self.facts.names]
        found = np.zeros(len(self.facts.rows), bool)
        for numbers, batch in self.batches(names or self.facts.names[:1], stop):
            values = {name: self._plain(name, batch) for name in names}
            missing = set(condition.columns) - set(names)
            found[numbers] = condition(values | {name: self._keys_of(numbers) for name in missing})
        return found

    def _keys_of(self, numbers: Rows) -> npt.NDArray[Any]:
        latents = self.facts.vectors.latents
        ends = np.cumsum([latents.num_rows(key) for key in latents.keys])
        return np.array(latents.keys)[np.searchsorted(ends, numbers, side="right")]

    def _plain(self, name: str, batch: Any) -> npt.NDArray[Any]:  # noqa: ANN401  # pyarrow has no type information
        """A column of a batch as conditions take it."""
        column = self.named(name)
        values = table.as_array(batch.column(name))
        return as_times(values) if name in TIMES and column is not None and column.kind == "time" else values

    def _look_at(self, index: int, field: Any) -> Column:  # noqa: ANN401  # pyarrow has no type information
        """Find out what a column is."""
        about = {key.decode("utf-8", "replace"): text.decode("utf-8", "replace")
                 for key, text in (field.metadata or {}).items()}  # fmt: skip
        usual = table.COLUMNS.get(field.name)
        meaning = about.get("meaning", "" if usual is None else usual.meaning)
        for of_kind, look in ((_may_be_time, self._as_time), (_is_text, self._as_text), (_is_number, self._as_number)):
            found = look(field) if of_kind(field.type, field.name) else None
            if found is not None:
                return Column(index, field.name, unit=about.get("unit", ""), meaning=meaning, **found)
        known = sum(len(batch) - batch.column(field.name).null_count for _, batch in self._values(field))
        return Column(index, field.name, "text", about.get("unit", ""), meaning, known, None, None)

    def _values(self, field: Any) -> Iterator[tuple[Rows, Any]]:  # noqa: ANN401  # pyarrow has no type information
        return self.batches([field.name], Stop())

    def _as_time(self, field: Any) -> dict[str, Any] | None:  # noqa: ANN401  # pyarrow has no type information
        ends, known = _Ends(), 0
        for _, batch in self._values(field):
            values = _times(batch.column(field.name))
            if values is None:
                return None
            known += ends.add(values)
        if not known and _is_text(field.type):
            return None
        return {"kind": "time", "known": known, "low": ends.low, "high": ends.high}

    def _as_text(self, field: Any) -> dict[str, Any]:  # noqa: ANN401  # pyarrow has no type information
        different: set[str] = set()
        known, readable = 0, True
        for _, batch in self._values(field):
            values = _decoded(batch.column(field.name))
            known += len(values) - values.null_count
            if readable and len(different) <= MOST:
                try:
                    different |= {value for value in values.unique().to_pylist() if value is not None}
                except UnicodeDecodeError:  # shown with what can be read of them
                    readable = False
        if not readable or len(different) > MOST:
            return {"kind": "text", "known": known, "low": None, "high": None}
        return _categories(sorted(different), known)

    def _as_number(self, field: Any) -> dict[str, Any]:  # noqa: ANN401  # pyarrow has no type information
        ends, known = _Ends(), 0
        different: set[Any] = set()
        for _, batch in self._values(field):
            values = batch.column(field.name)
            known += ends.add(_floats(values))
            if _is_whole(field.type) and len(different) <= MOST:
                different |= {value for value in _decoded(values).unique().to_pylist() if value is not None}
        few = len(different) <= _FEW or len(different) <= min(MOST, known / 4)
        if _is_whole(field.type) and few and different:
            return _categories(sorted(different), known) | {"low": ends.low, "high": ends.high}
        if _is_whole(field.type) and max(abs(ends.low or 0), abs(ends.high or 0)) > _LARGEST_WHOLE:
            return {"kind": "text", "known": known, "low": None, "high": None}
        return {"kind": "number", "known": known, "low": ends.low, "high": ends.high}


class _Ends:
    """The smallest and the largest of many numbers."""

    def __init__(self) -> None:
        self.low: float | None = None
        self.high: float | None = None

    def add(self, values: npt.NDArray[np.float64]) -> int:
        """Take numbers; how many of them are finite."""
        finite = values[np.isfinite(values)]
        if len(finite):
            self.low = float(finite.min() if self.low is None else min(self.low, finite.min()))
            self.high = float(finite.max() if self.high is None else max(self.high, finite.max()))
        return len(finite)


def _categories(values: Sequence[Any], known: int) -> dict[str, Any]:
    names = tuple(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    return {
        "kind": "category", "known": known, "low": None, "high": None, "categories": names, "values": tuple(values),
    }  # fmt: skip


def _codes(values: Any, categories: Sequence[Any]) -> npt.NDArray[np.uint16]:  # noqa: ANN401  # of pyarrow
    """The places of values among categories; `UNKNOWN` where a value is not known."""
    import pyarrow
    import pyarrow.compute

    plain = _decoded(values)
    found = pyarrow.compute.index_in(plain, pyarrow.array(categories, plain.type))
    codes: npt.NDArray[np.uint16] = found.fill_null(UNKNOWN).to_numpy(zero_copy_only=False).astype(np.uint16)
    return codes


def _floats(values: Any) -> npt.NDArray[np.float64]:  # noqa: ANN401  # pyarrow has no type information
    """Numbers; NaN where one is not known, not finite, or too large for float32."""
    import pyarrow

    plain = _decoded(values)
    if pyarrow.types.is_decimal(plain.type) or pyarrow.types.is_boolean(plain.type):
        plain = plain.cast(pyarrow.float64() if pyarrow.types.is_decimal(plain.type) else pyarrow.uint8())
    floats: npt.NDArray[np.float64] = plain.to_numpy(zero_copy_only=False).astype(np.float64)
    floats[~(np.abs(floats) <= np.finfo(np.float32).max)] = np.nan
    return floats


def _times(values: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """Times as ms since 1970, UTC, NaN where not known; None where texts are no times."""
    import pyarrow

    plain = _decoded(values)
    if _is_text_type(plain.type):
        texts = as_times(table.as_array(plain))
        instants = texts if texts.dtype.kind == "M" else None
    else:
        days = pyarrow.types.is_date(plain.type)
        instants = table.as_array(plain.cast(pyarrow.timestamp("ms")) if days else plain)
    if instants is None:
        return None
    return np.where(np.isnat(instants), np.nan, instants.astype("datetime64[us]").astype(np.int64) / 1000)


def _decoded(values: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """An array of a dictionary as the values that it stands for."""
    import pyarrow

    return values.cast(values.type.value_type) if pyarrow.types.is_dictionary(values.type) else values


def _plain_type(kind: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind


def _is_text_type(kind: Any) -> bool:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    types = pyarrow.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_text(kind: Any, _: str = "") -> bool:  # noqa: ANN401  # pyarrow has no type information
    return _is_text_type(_plain_type(kind))


def _is_whole(kind: Any) -> bool:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    plain = _plain_type(kind)
    return bool(pyarrow.types.is_integer(plain) or pyarrow.types.is_boolean(plain))


def _is_number(kind: Any, _: str = "") -> bool:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    plain = _plain_type(kind)
    return bool(_is_whole(plain) or pyarrow.types.is_floating(plain) or pyarrow.types.is_decimal(plain))


def _may_be_time(kind: Any, name: str) -> bool:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    plain = _plain_type(kind)
    texts = name in TIMES and _is_text(kind)
    return bool(pyarrow.types.is_timestamp(plain) or pyarrow.types.is_date(plain) or texts)
