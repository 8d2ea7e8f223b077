"""The columns of a cutout table that belong to some rows of latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table as cutout_table
from nenya.data.opening import open_file
from nenya.errors import DataError
from nenya.latents.store import About
from nenya.latents.table import rows_in_table
from nenya.report.inputs import Rows

_NAMES = {"datetime": ("datetime", "time")}


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
    names = tuple(cutout_table.names(path))
    found = {name: next((own for own in _NAMES.get(name, (name,)) if own in names), None) for name in wanted}
    places = _places(path, rows, about)
    units = cutout_table.units(path)
    return Joined(
        path=path, digest=cutout_table.digest(path), names=names,
        columns={name: _values(path, own, places) for name, own in found.items() if own is not None},
        units={name: units[own] for name, own in found.items() if own is not None},
        inputs_digest=cutout_table.about(path).get("inputs_digest", ""),
    )  # fmt: skip


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


def _places(path: Path, rows: Rows, about: About) -> npt.NDArray[np.int64]:
    """Which row of the table belongs to each row of the latents."""
    found = rows_in_table(path, dict(zip(rows.keys, rows.counts, strict=True)), about)
    places = np.empty(len(rows), dtype=np.int64)
    for key, own in found.items():
        mine = rows.of(key)
        places[mine] = own[rows.row[mine]]
    return places


def _values(path: Path, name: str, places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    values = cutout_table.columns(path, [name], places)[name]
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
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
