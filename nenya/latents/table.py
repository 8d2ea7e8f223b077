"""Which row of a cutout table is which latent.

Tables of other origin are read too: a row is known by `pp_type` (1 and 0, or the names of the sets) and `pp_idx`, or by
these names with ``ulmo_`` before them, as the historical code wrote them. Such a table may tell of several files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.errors import DataError
from nenya.latents.store import About

#: How `pp_type` tells a side.
_SIDES: Mapping[object, str] = {1: "train", 0: "valid", "train": "train", "valid": "valid"}
_PREFIXES = ("", "ulmo_")
_BATCH = 2**17  # rows that are read together


def rows_in_table(path: Path, counts: Mapping[str, int], about: About) -> dict[str, npt.NDArray[np.int64]]:
    """Find the row of the table that belongs to each row of the latents.

    Args:
        path: The Parquet file.
        counts: Rows of the latents, by key.
        about: What the latents tell of themselves.

    Returns:
        Rows of the table [N], by key.

    Raises:
        DataError: It cannot be read, or has not exactly one row for each row of the latents.
    """
    names = table.names(path)
    prefix = next((own for own in _PREFIXES if {f"{own}pp_type", f"{own}pp_idx"} <= set(names)), None)
    if prefix is None:
        missing = " and ".join(name for name in ("pp_type", "pp_idx") if name not in names)
        raise DataError(f"{path} does not tell which row is which cutout: it has no column {missing}.")
    kind = _Codes(path, f"{prefix}pp_type")
    index = table.columns(path, [f"{prefix}pp_idx"])[f"{prefix}pp_idx"]
    of_file = np.ones(len(index), dtype=bool)
    if "pp_file" in names:
        files = _Codes(path, "pp_file")
        if len(files.values) > 1:
            of_file = files.which(lambda name: Path(str(name)).name == Path(about.cutouts).name)
    rows = {}
    for key, count in counts.items():
        side = _side(key, about)
        here = np.flatnonzero(kind.which(functools.partial(_is_of, side, key)) & of_file)
        numbers = _numbers(index[here])
        if len(here) != count or not np.array_equal(np.sort(numbers), np.arange(count)):
            raise DataError(
                f"{path} belongs to other cutouts: {key} has {count} rows, and the table "
                f"{len(here)} of that side{' or not the numbers 0 to N - 1 in pp_idx' if len(here) == count else ''}. "
                "Give the table that was written together with the cutouts."
            )
        rows[key] = np.empty(count, dtype=np.int64)
        rows[key][numbers] = here
    return rows


def _is_of(side: str, key: str, value: object) -> bool:
    return isinstance(value, int | float | str) and (_SIDES.get(value) == side or value == key)


class _Codes:
    """A column of few different values as their numbers, since a text for each of ten million rows fills the memory.

    Args:
        path: The table.
        name: The column.

    Attributes:
        values: The different values; None is one where some are not known.
    """

    def __init__(self, path: Path, name: str) -> None:
        import pyarrow

        places: dict[Any, int] = {}
        parts = []
        for batch in table.batches(path, [name], _BATCH):
            try:
                encoded = _as_dictionary(batch.column(name))
            except (pyarrow.ArrowNotImplementedError, TypeError) as error:
                raise DataError("a column of the cutout table holds lists; expected numbers or texts.") from error
            here = [places.setdefault(value, len(places)) for value in [*encoded.dictionary.to_pylist(), None]]
            codes = encoded.indices.fill_null(len(here) - 1).to_numpy(zero_copy_only=False)
            parts.append(np.array(here, np.int32)[codes])
        self._codes = np.concatenate([np.empty(0, np.int32), *parts])
        there = set(np.unique(self._codes).tolist())
        self.values = [value for value, place in places.items() if place in there]
        self._places = places

    def which(self, wanted: Callable[[Any], bool]) -> npt.NDArray[np.bool_]:
        """Which rows have a value that is wanted [n]; each value is asked about once."""
        good = np.array([value is not None and wanted(value) for value in self._places], bool)
        chosen: npt.NDArray[np.bool_] = good[self._codes]
        return chosen


def _as_dictionary(values: Any) -> Any:  # noqa: ANN401  # pyarrow has no type information
    import pyarrow

    return values if pyarrow.types.is_dictionary(values.type) else values.dictionary_encode()


def _side(key: str, about: About) -> str:
    """The side that a table calls a data set by."""
    named = {str(about.options.get(f"{side}_key", side)): side for side in ("valid", "train")}
    return named.get(key, key)


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    try:
        with np.errstate(invalid="ignore"):  # of NaN
            numbers = values.astype(np.int64)
    except (TypeError, ValueError):
        return np.full(len(values), -1, dtype=np.int64)
    return np.where(numbers == values, numbers, -1) if values.dtype.kind == "f" else numbers
