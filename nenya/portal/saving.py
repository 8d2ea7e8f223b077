"""A selection to take away: CSV, Parquet, a list of rows, or the cutouts as a file that `nenya train` reads.

What is made goes to a file without a name, which the system removes however its use ends.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from nenya.errors import OptionError
from nenya.portal.atlas import Atlas
from nenya.portal.nameless import nameless_file
from nenya.portal.subset import write_subset
from nenya.portal.work import Stop
from nenya.search.answer import plain, values_of

_BATCH = 20_000  # rows that are read together
_GROUP = 50_000  # rows of a group of Parquet
#: Name and media type of each format.
FORMATS = {
    "csv": ("selection.csv", "text/csv; charset=utf-8"),
    "parquet": ("selection.parquet", "application/vnd.apache.parquet"),
    "rows": ("selection.txt", "text/plain; charset=utf-8"),
    "hdf5": ("selection.h5", "application/x-hdf5"),
}
#: Columns that come first; columns of the table with such names give way.
OWN = ("key", "pp_idx", "US0", "US1")

Numbers = npt.NDArray[np.int64]


def unpack(bitset: bytes, count: int) -> npt.NDArray[np.bool_]:
    """The rows of a bitset [N]: bit i % 8, the least significant first, of byte i // 8.

    Raises:
        OptionError: It has not the bits of so many rows, or none is set.
    """
    if len(bitset) != -(-count // 8):
        raise OptionError(f"found a selection of {len(bitset)} bytes, expected {-(-count // 8)} for {count} rows.")
    chosen = np.unpackbits(np.frombuffer(bitset, np.uint8), bitorder="little")[:count].astype(bool)
    if not chosen.any():
        raise OptionError("nothing is selected.")
    return chosen


def pack(chosen: npt.NDArray[np.bool_]) -> bytes:
    """Rows as a bitset."""
    return np.packbits(chosen, bitorder="little").tobytes()


def require_format(kind: str) -> None:
    """Refuse what is none of `FORMATS`.

    Raises:
        OptionError: It is none.
    """
    if kind not in FORMATS:
        raise OptionError(f"found the format {kind!r}, expected one of {', '.join(FORMATS)}.")


def save(atlas: Atlas, kind: str, chosen: npt.NDArray[np.bool_], stop: Stop) -> IO[bytes]:
    """Write a selection.

    Args:
        atlas: What it is a selection of.
        kind: One of `FORMATS`.
        chosen: Which rows [N].
        stop: Asked between the parts of the work.

    Returns:
        A file without a name, at its beginning.

    Raises:
        OptionError: There is no such format, or the cutouts are not there.
        DataError: A file cannot be read, or there is no room.
    """
    require_format(kind)
    writers: dict[str, Callable[[Atlas, npt.NDArray[np.bool_], IO[bytes], Stop], None]] = {
        "csv": _csv, "parquet": _parquet, "rows": _rows, "hdf5": _hdf5,
    }  # fmt: skip
    with nameless_file() as file:
        writers[kind](atlas, chosen, file, stop)
    return file


def _batches(atlas: Atlas, chosen: npt.NDArray[np.bool_], stop: Stop) -> Iterator[tuple[Numbers, Any]]:
    """The rows that are chosen, and the table's columns of them; in the order of the table, where there is one."""
    if atlas.columns is None:
        numbers = np.flatnonzero(chosen)
        for start in range(0, len(numbers), _BATCH):
            stop.check()
            yield numbers[start : start + _BATCH], None
        return
    for numbers, batch in atlas.columns.batches(atlas.columns.facts.names, stop, _BATCH):
        places = np.flatnonzero(chosen[numbers])
        if len(places):
            yield numbers[places], batch.take(places)


def _own(atlas: Atlas, numbers: Numbers) -> dict[str, Any]:
    keys, rows = atlas.vectors.keys_of(numbers)
    where = atlas.plane.coordinates[numbers]
    return {"key": keys, "pp_idx": rows, "US0": where[:, 0], "US1": where[:, 1]}


def _csv(atlas: Atlas, chosen: npt.NDArray[np.bool_], file: IO[bytes], stop: Stop) -> None:
    import pyarrow
    import pyarrow.csv

    header = True
    for numbers, batch in _batches(atlas, chosen, stop):
        own = _own(atlas, numbers)
        others = [name for name in (batch.schema.names if batch is not None else []) if name not in OWN]
        if header:
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow([*OWN, *others])
            file.write(line.getvalue().encode("utf-8", "replace"))
            header = False
        columns = [_as_text(pyarrow.array(own[name])) for name in OWN]
        columns += [_as_text(batch.column(name)) for name in others]
        names = [str(place) for place in range(len(columns))]
        options = pyarrow.csv.WriteOptions(include_header=False)
        pyarrow.csv.write_csv(pyarrow.record_batch(columns, names), file, options)


def _as_text(values: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """A column as CSV has it: nothing where a value is not known, times as ISO 8601, UTC, lists as texts."""
    import pyarrow
    import pyarrow.compute

    types, compute = pyarrow.types, pyarrow.compute
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if types.is_floating(kind):
        wide = values.cast(pyarrow.float32()) if types.is_float16(kind) else values
        return compute.if_else(compute.is_finite(wide), wide, pyarrow.scalar(None, wide.type))
    if types.is_timestamp(kind) or types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return pyarrow.array([_text_of(value) for value in values_of(values)], pyarrow.string())
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_date(kind):
        return values
    try:
        return values.cast(pyarrow.string())
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        return pyarrow.array([_text_of(value) for value in values_of(values)], pyarrow.string())


def _text_of(value: Any) -> str | None:  # noqa: ANN401  # of any kind
    shown = plain(value)
    return None if shown is None else str(shown)


def _parquet(atlas: Atlas, chosen: npt.NDArray[np.bool_], file: IO[bytes], stop: Stop) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"key": pyarrow.string(), "pp_idx": pyarrow.int64(), "US0": pyarrow.float32(), "US1": pyarrow.float32()}
    with contextlib.ExitStack() as closing:
        writer: Any = None
        waiting: list[Any] = []

        def flush() -> None:
            if waiting:
                writer.write_table(pyarrow.Table.from_batches(waiting))
                waiting.clear()

        for numbers, batch in _batches(atlas, chosen, stop):
            own = _own(atlas, numbers)
            others = [field for field in (batch.schema if batch is not None else []) if field.name not in OWN]
            arrays = [pyarrow.array(own[name], kind, from_pandas=True) for name, kind in kinds.items()]
            arrays += [batch.column(field.name) for field in others]
            if writer is None:
                schema = pyarrow.schema([*(pyarrow.field(name, kind) for name, kind in kinds.items()), *others])
                writer = closing.enter_context(pyarrow.parquet.ParquetWriter(file, schema, compression="zstd"))
            waiting.append(pyarrow.record_batch(arrays, schema=writer.schema))
            if sum(map(len, waiting)) >= _GROUP:
                flush()
        flush()


def _rows(atlas: Atlas, chosen: npt.NDArray[np.bool_], file: IO[bytes], stop: Stop) -> None:
    numbers = np.flatnonzero(chosen)
    for start in range(0, len(numbers), _BATCH):
        stop.check()
        keys, rows = atlas.vectors.keys_of(numbers[start : start + _BATCH])
        lines = (f"{key}:{row}\n" for key, row in zip(keys, rows.tolist(), strict=True))
        file.write("".join(lines).encode())


def _hdf5(atlas: Atlas, chosen: npt.NDArray[np.bool_], file: IO[bytes], stop: Stop) -> None:
    numbers = np.flatnonzero(chosen)
    write_subset(atlas.require_sheets().pixels, atlas.vectors, numbers, file, stop)
