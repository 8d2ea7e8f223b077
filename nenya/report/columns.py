"""The columns of a cutout table that belong to some rows of latents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table as cutout_table
from nenya.data.opening import open_file
from nenya.errors import DataError
from nenya.latents.store import About
from nenya.report.inputs import Rows

#: How `pp_type` tells a side, in tables of ours, of the historical code and of others.
_SIDES: Mapping[object, str] = {1: "train", 0: "valid", "train": "train", "valid": "valid"}

_NAMES = {"pp_type": ("pp_type", "ulmo_pp_type"), "pp_idx": ("pp_idx", "ulmo_pp_idx"), "datetime": ("datetime", "time")}


@dataclass(frozen=True)
class Joined:
    """Columns of a table, of some rows of latents.

    Attributes:
        path: The table.
        digest: SHA-256 of the file.
        names: Every column that the table has.
        columns: Those that were asked for and are there [n]: numbers as float64 (NaN: unknown) or int64, instants as
            datetime64[us], texts as str.
        units: Of some of them.
        inputs_digest: Of the granules, as `nenya cutouts` wrote it; "" in other tables.
    """

    path: Path
    digest: str
    names: tuple[str, ...]
    columns: Mapping[str, npt.NDArray[Any]]
    units: Mapping[str, str]
    inputs_digest: str


def join(path: Path, rows: Rows, about: About, wanted: Sequence[str]) -> Joined:
    """Read what a table says of some rows.

    Args:
        path: The Parquet file.
        rows: Rows of the latents.
        about: What the latents tell of themselves.
        wanted: Columns; those that the table lacks are left out.

    Raises:
        DataError: It cannot be read, or has not exactly one row for each row of the latents.
    """
    table = _open(path)
    names = tuple(table.schema_arrow.names)
    found = {name: next((own for own in _NAMES.get(name, (name,)) if own in names), None) for name in wanted}
    places = _places(table, path, rows, about)
    columns = {name: _values(table, path, own, places) for name, own in found.items() if own is not None}
    units = {name: _unit(table, own) for name, own in found.items() if own is not None}
    metadata = table.schema_arrow.metadata or {}
    origin = metadata.get(b"nenya_inputs_digest", b"").decode("utf-8", "replace")
    return Joined(path, cutout_table.digest(path), names, columns, units, origin)


def require_same_origin(joined: Joined, cutouts: Path) -> None:
    """Refuse a table of other granules than the cutouts are of, though the numbers of their rows agree.

    Raises:
        DataError: It is one.
    """
    with open_file(cutouts) as file:
        origin = str(file.attrs.get("inputs_digest", ""))
    if joined.inputs_digest and origin and joined.inputs_digest != origin:
        raise DataError(
            f"{joined.path} and {cutouts} do not belong together: they were made from other granules or with other "
            "options. Give the table that was written together with the cutouts."
        )


def _open(path: Path) -> Any:  # noqa: ANN401  # pyarrow has no type information
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("reading the cutout table needs pyarrow: pip install 'nenya[granules]'.") from error
    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=False)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"the cutout table {path} cannot be read ({str(error)[:200]}).") from error


def _places(table: Any, path: Path, rows: Rows, about: About) -> npt.NDArray[np.int64]:  # noqa: ANN401
    """Which row of the table belongs to each row of the latents."""
    names = table.schema_arrow.names
    own = {name: next((found for found in _NAMES[name] if found in names), None) for name in ("pp_type", "pp_idx")}
    if missing := [name for name, found in own.items() if found is None]:
        raise DataError(f"{path} does not tell which row is which cutout: it has no column {' and '.join(missing)}.")
    kind, index = _column(table, path, str(own["pp_type"])), _whole(table, path, str(own["pp_idx"]))
    of_file = np.ones(len(index), dtype=bool)
    if "pp_file" in names:  # tables of the historical code may tell of several files
        files = _column(table, path, "pp_file")
        of_file = _is_in(files, lambda name: Path(str(name)).name == Path(about.cutouts).name, all_alike=True)
    places = np.empty(len(rows), dtype=np.int64)
    for key, count in zip(rows.keys, rows.counts, strict=True):
        side = _side(key, about)
        here = np.flatnonzero(_is_in(kind, functools.partial(_is_of, side)) & of_file)
        numbers = _numbers(index[here])
        if len(here) != count or not np.array_equal(np.sort(numbers), np.arange(count)):
            raise DataError(
                f"{path} does not belong to these latents: {key} has {count} rows, and the table "
                f"{len(here)} of that side{' or not the numbers 0 to N - 1 in pp_idx' if len(here) == count else ''}. "
                "Give the table that was written together with the cutouts."
            )
        of_row = np.empty(count, dtype=np.int64)
        of_row[numbers] = here
        mine = rows.of(key)
        places[mine] = of_row[rows.row[mine]]
    return places


def _is_of(side: str, value: object) -> bool:
    return isinstance(value, int | float | str) and _SIDES.get(value) == side


def _is_in(column: Any, wanted: Callable[[Any], bool], *, all_alike: bool = False) -> npt.NDArray[np.bool_]:  # noqa: ANN401
    """Which values of a column are wanted; with `all_alike`, all of them where there is a single one."""
    import pyarrow
    import pyarrow.compute

    try:
        there = pyarrow.compute.unique(column).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"a column of the cutout table holds {column.type}; expected numbers or texts.") from error
    if all_alike and len(there) < 2:
        return np.ones(len(column), dtype=bool)
    chosen = pyarrow.array([value for value in there if wanted(value)], column.type)
    found: npt.NDArray[np.bool_] = pyarrow.compute.is_in(column, value_set=chosen).to_numpy(zero_copy_only=False)
    return found


def _side(key: str, about: About) -> str:
    """The side that a table calls a data set by."""
    named = {str(about.options.get(f"{side}_key", side)): side for side in ("valid", "train")}
    return named.get(key, key)


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    try:
        return values.astype(np.int64)
    except (TypeError, ValueError):
        return np.full(len(values), -1, dtype=np.int64)


def _whole(table: Any, path: Path, name: str) -> npt.NDArray[Any]:  # noqa: ANN401
    return np.asarray(_column(table, path, name).to_numpy(zero_copy_only=False))


def _column(table: Any, path: Path, name: str) -> Any:  # noqa: ANN401
    try:
        return table.read(columns=[name]).column(name)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise DataError(f"the column {name} of {path} cannot be read ({str(error)[:200]}).") from error


def _values(table: Any, path: Path, name: str, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:  # noqa: ANN401
    column = _column(table, path, name).take(places)
    kind = str(column.type)
    if kind.startswith("timestamp"):
        return np.asarray(column.cast("timestamp[us]").to_numpy(zero_copy_only=False)).astype("datetime64[us]")
    values = np.asarray(column.to_numpy(zero_copy_only=False))
    if kind.startswith(("int", "uint")) and column.null_count == 0:
        return values.astype(np.int64)
    if kind.startswith(("int", "uint", "float", "double", "halffloat")):
        return values.astype(np.float64)
    texts = np.array(["" if value is None else str(value) for value in values], dtype=str)
    return _instants(texts) if name in _NAMES["datetime"] else texts


def _instants(texts: npt.NDArray[np.str_]) -> npt.NDArray[Any]:
    """Instants of texts as 2023-04-20T21:56:20; NaT where one is none."""
    found = np.full(len(texts), np.datetime64("NaT", "us"))
    for place, text in enumerate(texts.tolist()):
        try:
            found[place] = np.datetime64(text.strip().removesuffix("Z").removesuffix("+00:00"), "us")
        except ValueError:
            continue
    return found


def _unit(table: Any, name: str) -> str:  # noqa: ANN401
    metadata = table.schema_arrow.field(name).metadata or {}
    return str(metadata.get(b"unit", b"").decode("utf-8", "replace"))
