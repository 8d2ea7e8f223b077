"""The cutout table: a row for each cutout, in the order of the cutout file, as `cutouts.parquet` beside it.

Names are those of the historical tables where there are any. Times are UTC, longitudes -180..180.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data.opening import open_file
from nenya.errors import DataError
from nenya.files import sha256_of

_GROUP = 50_000  # rows that are written, and kept in memory, together
_REQUIRED = ("lat", "lon", "row", "col", "datetime")  # of the historical tables, and of ours

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: NumPy type; "str" for text, "time" for instants in microseconds, UTC.
        unit: Of its values; "" for none.
        meaning: For the documentation and the file.
    """

    kind: str
    unit: str
    meaning: str


#: Every column, in order.
COLUMNS: dict[str, Column] = {
    "UID": Column("int64", "", "stable 64-bit number of the cutout, from the granule's content and the place in it"),
    "filename": Column("str", "", "name of the granule's file"),
    "row": Column("int64", "pixels", "first row of the window in the granule"),
    "col": Column("int64", "pixels", "first column of the window in the granule"),
    "lat": Column("float64", "degrees_north", "latitude of the centre pixel"),
    "lon": Column("float64", "degrees_east", "longitude of the centre pixel, -180..180"),
    "lon_found": Column("float64", "degrees_east", "the same as the granule has it"),
    "datetime": Column("time", "", "time of the granule, UTC; null where the granule tells none"),
    "clear_fraction": Column("float64", "", "share of the window's pixels that are clear, 0..1"),
    "field_size": Column("int64", "pixels", "side of the window in the granule"),
    "pp_file": Column("str", "", "name of the cutout file"),
    "pp_idx": Column("int64", "", "row of the cutout in the dataset of its side; -1 where it is in none"),
    "pp_type": Column("int64", "", "1: train, 0: valid, -1: neither"),
    "mean_temperature": Column("float64", "unit", "mean of the valid pixels"),
    "Tmin": Column("float64", "unit", "smallest valid pixel"),
    "Tmax": Column("float64", "unit", "largest valid pixel"),
    "T10": Column("float64", "unit", "10th percentile of the valid pixels"),
    "T90": Column("float64", "unit", "90th percentile of the valid pixels"),
    "DT": Column("float64", "unit", "T90 - T10"),
    "DT40": Column("float64", "unit", "the same over the inner 40 x 40 pixels"),
    "pixel_along_km": Column("float64", "km", "median size of a pixel from row to row"),
    "pixel_across_km": Column("float64", "km", "median size of a pixel from column to column"),
    "repeated_lines": Column("int64", "", "scan lines of the window that show ground a second time (bow-tie)"),
    "quality": Column("float64", "", "mean quality level of the clear pixels; null where the granule has none"),
    "block": Column("str", "", "block of the split that the centre is in: band, cell, stretch of time"),
    "time_index": Column("int64", "", "number of the time in the granule, from 0"),
    "source": Column("str", "", "the granule as it was given"),
    "source_checksum": Column("str", "", "SHA-256 of the granule's content"),
}


@contextlib.contextmanager
def writer(path: Path, about: Mapping[str, str]) -> Iterator[Callable[[Columns], None]]:
    """Write a table piece by piece.

    Args:
        path: The Parquet file.
        about: Kept as the file's metadata; "unit" is that of the values.

    Yields:
        A function that takes rows: all of `COLUMNS`, of one length.
    """
    import pyarrow
    import pyarrow.parquet

    fields = []
    for name, column in COLUMNS.items():
        kind = {"str": pyarrow.string(), "time": pyarrow.timestamp("us", tz="UTC")}.get(column.kind)
        kind = kind or pyarrow.from_numpy_dtype(np.dtype(column.kind))
        unit = about.get("unit", "") if column.unit == "unit" else column.unit
        fields.append(pyarrow.field(name, kind, metadata={"unit": unit, "meaning": column.meaning}))
    schema = pyarrow.schema(fields, metadata={f"nenya_{key}": value for key, value in about.items()})
    waiting: list[Any] = []

    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as file:

        def flush() -> None:
            if waiting:
                file.write_table(pyarrow.concat_tables(waiting).combine_chunks())
                waiting.clear()

        def add(columns: Columns) -> None:
            arrays = [_arrow(columns[name], field.type) for name, field in zip(COLUMNS, schema, strict=True)]
            waiting.append(pyarrow.table(arrays, schema=schema))
            if sum(len(piece) for piece in waiting) >= _GROUP:
                flush()

        yield add
        flush()


def _arrow(values: npt.NDArray[Any], kind: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    if values.dtype.kind == "U":
        return pyarrow.array(values.tolist(), kind)
    if values.dtype.kind == "M":
        return pyarrow.array(values.astype("datetime64[us]").astype(np.int64), kind, mask=np.isnat(values))
    return pyarrow.array(values, kind, mask=np.isnan(values) if values.dtype.kind == "f" else None)


def read(path: str | os.PathLike[str]) -> dict[str, npt.NDArray[Any]]:
    """Read a table: every column by its name.

    Raises:
        DataError: No such file, or no cutout table.
    """
    table = open_table(Path(path))
    return {name: _column(table, name) for name in table.schema_arrow.names}


def read_arrow(path: str | os.PathLike[str]) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """Read a table as pyarrow has it, with the units and meanings of its columns.

    Raises:
        DataError: As for `read`.
    """
    table = open_table(Path(path))
    with reading(f"the cutout table {path}"):
        return table.read()


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn what pyarrow raises into one error."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{what} cannot be read ({str(error)[:200]}): copy or make it anew.") from error


def names(path: str | os.PathLike[str]) -> list[str]:
    """The columns of a table of any origin.

    Raises:
        DataError: No such file, or no Parquet.
    """
    found = list(open_table(Path(path), required=()).schema_arrow.names)
    if len(set(found)) < len(found):
        raise DataError(f"the cutout table {path} has two columns of one name: rename one of them.")
    return found


def columns(
    path: str | os.PathLike[str], wanted: Sequence[str], rows: npt.NDArray[np.int64] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Read some columns by their names, as `read` gives all, from a table of any origin.

    Args:
        path: The table.
        wanted: Names of columns.
        rows: Which rows [n], from 0, in any order; None for all.

    Raises:
        DataError: No such file, no Parquet, or one of them is not there.
    """
    table = open_table(Path(path), required=())
    return {name: _column(table, name, rows) for name in wanted}


def units(path: str | os.PathLike[str]) -> dict[str, str]:
    """The units of the columns of a table of any origin; "" where it tells none.

    Raises:
        DataError: No such file, or no Parquet.
    """
    schema = open_table(Path(path), required=()).schema_arrow
    return {field.name: (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace") for field in schema}


def batches(path: str | os.PathLike[str], wanted: Sequence[str], rows: int) -> Iterator[Any]:
    """Go through columns of a table of any origin in parts of so many rows at most, each a `pyarrow.RecordBatch`.

    Raises:
        DataError: They cannot be read.
    """
    file = open_table(Path(path), required=())
    with reading(f"the cutout table {path}"):
        for group in range(file.metadata.num_row_groups):  # one reader of all of them keeps what it has read of each
            yield from file.iter_batches(rows, row_groups=[group], columns=list(wanted))


def take(path: str | os.PathLike[str], rows: npt.NDArray[np.int64]) -> Any:  # noqa: ANN401  # no type information
    """Read some rows of a table of any origin, with all columns and what the file tells of them.

    Args:
        path: The table.
        rows: Which rows [n], from 0, in any order, repetition allowed.

    Returns:
        A `pyarrow.Table` of n rows.

    Raises:
        DataError: It cannot be read.
    """
    table = open_table(Path(path), required=())
    ends = np.cumsum([table.metadata.row_group(i).num_rows for i in range(table.metadata.num_row_groups)])
    groups = np.searchsorted(ends, rows, side="right")
    needed = np.unique(groups)
    with reading(f"the cutout table {path}"):
        some = table.read_row_groups(needed.tolist())
    sizes = np.diff(ends, prepend=0)[needed]
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - (ends[needed] - sizes)
    return some.take(rows + first[np.searchsorted(needed, groups)]) if len(needed) else some


def _column(  # the table is pyarrow's, which has no type information
    table: Any,  # noqa: ANN401
    name: str,
    rows: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[Any]:
    """A column of an open table, or some rows of it; instants in microseconds, NaT where there is none.

    Raises:
        DataError: It is not there, or damaged.
    """
    if name not in table.schema_arrow.names:
        raise DataError(f"the cutout table has no column {name}; it has {', '.join(table.schema_arrow.names)}.")
    with reading(f"the column {name} of the cutout table"):
        values = table.read(columns=[name]).column(name)
        values = values if rows is None else values.take(rows)
    return as_array(values)


def as_array(values: Any) -> npt.NDArray[Any]:  # noqa: ANN401  # pyarrow has no type information
    """A column, or a part of one, in NumPy; instants in microseconds, UTC, NaT where there is none.

    What NumPy cannot take (texts that are not UTF-8, times of day in nanoseconds) is there as objects of Python.
    """
    import pyarrow

    if not str(values.type).startswith("timestamp"):
        try:
            plain: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        except pyarrow.ArrowException:
            plain = np.array(as_python(values), object)
        return plain
    return np.asarray(values.cast("timestamp[us]", safe=False).to_numpy(zero_copy_only=False)).astype("datetime64[us]")


def as_python(values: Any) -> list[Any]:  # noqa: ANN401  # pyarrow has no type information
    """A column, or a part of one, as Python has it; None where a value is not known.

    What Python cannot take (years beyond 9999, time zones that are not known, texts that are not UTF-8) is there as
    text.
    """
    import pyarrow

    try:
        plain: list[Any] = values.to_pylist()
    except (ValueError, OverflowError, pyarrow.ArrowException):
        return [_one_as_python(value) for value in values]
    return plain


def _one_as_python(value: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """A value as Python has it, or as text."""
    import pyarrow

    types = pyarrow.types
    try:
        return value.as_py()
    except (ValueError, OverflowError, pyarrow.ArrowException):
        pass
    if types.is_dictionary(value.type):
        return _one_as_python(value.value)
    if types.is_timestamp(value.type):
        return f"{np.datetime64(value.value, value.type.unit)}Z"
    if types.is_date(value.type):
        return str(np.datetime64(value.value, "D" if types.is_date32(value.type) else "ms"))
    if types.is_string(value.type) or types.is_large_string(value.type) or types.is_string_view(value.type):
        return value.as_buffer().to_pybytes().decode("utf-8", "replace")
    return f"a value of type {value.type} that cannot be shown"


def about(path: str | os.PathLike[str]) -> dict[str, str]:
    """What `writer` was given to keep; nothing in tables of other origin.

    Raises:
        DataError: No such file, or no Parquet.
    """
    return _about(open_table(Path(path), required=()))


def _about(table: Any) -> dict[str, str]:  # noqa: ANN401  # pyarrow has no type information
    kept = table.schema_arrow.metadata or {}
    return {
        key.decode("utf-8", "replace")[6:]: value.decode("utf-8", "replace")
        for key, value in kept.items()
        if key.startswith(b"nenya_")
    }


def num_rows(path: str | os.PathLike[str]) -> int:
    """Rows of a table.

    Raises:
        DataError: As for `read`.
    """
    return int(open_table(Path(path)).metadata.num_rows)


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file, by which a checkpoint or latents remember the table.

    Raises:
        DataError: No such file.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DataError(f"the cutout table {path} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True)
class Beside:
    """The table that lies beside a cutout file.

    Attributes:
        path: The table.
        digest: Its digest; None where it is not known to belong to the cutouts.
        told: What was seen, a sentence without its full stop.
    """

    path: Path
    digest: str | None
    told: str

    @property
    def record(self) -> dict[str, str] | None:
        """Name and digest, as a checkpoint keeps them; None where it does not belong to the cutouts."""
        return None if self.digest is None else {"name": self.path.name, "digest": self.digest}


def look_beside(cutouts: str | os.PathLike[str]) -> Beside | None:
    """Look for the table of a cutout file, and see whether it belongs to it.

    Nothing is refused: training needs no table, and a file of that name may be something else.

    Args:
        cutouts: The cutout file, of whatever origin.

    Returns:
        What was found; None where there is no table and none is missed.

    Raises:
        DataError: The cutout file cannot be read.
    """
    path = beside(cutouts)
    with open_file(Path(cutouts)) as file:
        made_with_one = "inputs_digest" in file.attrs
    if not path.exists():
        gone = f"{path.name} is not there, though the cutouts were made together with it"
        return Beside(path, None, gone) if made_with_one else None
    try:
        require_match(path, cutouts)
        return Beside(path, digest(path), f"{path.name}: a row for each cutout")
    except DataError as error:
        return Beside(path, None, str(error).rstrip("."))


def beside(cutouts: str | os.PathLike[str]) -> Path:
    """Where the table of a cutout file is: the same name, ending in .parquet."""
    return Path(cutouts).with_suffix(".parquet")


def require_match(path: str | os.PathLike[str], cutouts: str | os.PathLike[str]) -> None:
    """See that a table belongs to a cutout file: the same run made both, and it has a row for each cutout.

    Args:
        path: The table.
        cutouts: The HDF5 file that `nenya cutouts` wrote.

    Raises:
        DataError: They do not belong together, or one cannot be read.
    """
    table = open_table(Path(path))
    told, columns = _about(table), {name: _column(table, name) for name in ("pp_idx", "pp_type")}
    with open_file(Path(cutouts)) as file:
        of_file = str(file.attrs.get("inputs_digest", "")), str(file.attrs.get("options", ""))
        counts = {1: len(file["train"]) if "train" in file else 0, 0: len(file["valid"]) if "valid" in file else 0}
    if (told.get("inputs_digest", ""), told.get("options", "")) != of_file:
        raise DataError(
            f"{path} and {cutouts} do not belong together: they were made from other granules or with other options. "
            "Use the two files that one run of `nenya cutouts` wrote."
        )
    for side, name in ((1, "train"), (0, "valid")):
        rows = columns["pp_idx"][columns["pp_type"] == side]
        if len(rows) != counts[side]:
            raise DataError(
                f"{path} and {cutouts} do not belong together: the table has {len(rows)} rows for {name}, the file "
                f"{counts[side]} cutouts."
            )
        if not np.array_equal(np.sort(rows), np.arange(counts[side])):
            raise DataError(f"{path} does not tell which row is which cutout: its pp_idx are not 0 to {len(rows) - 1}.")


def open_table(path: Path, required: Sequence[str] = _REQUIRED) -> Any:  # noqa: ANN401  # of pyarrow
    """Open a table that has some columns at least, as a `pyarrow.parquet.ParquetFile`.

    Raises:
        DataError: There is none, or pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("reading the cutout table needs pyarrow: pip install 'nenya[granules]'.") from error
    try:
        table = pyarrow.parquet.ParquetFile(path, memory_map=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"the cutout table {path} cannot be read ({str(error)[:200]}).") from error
    missing = [name for name in required if name not in table.schema_arrow.names]
    if missing:
        raise DataError(f"{path} is no cutout table: it has no column {', '.join(missing)}.")
    return table
