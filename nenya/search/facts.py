"""What the cutout table tells of the rows of a file of latents."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.errors import DataError, OptionError
from nenya.latents.table import rows_in_table
from nenya.search.vectors import Rows, Vectors
from nenya.search.where import Condition, parse
from nenya.sphere import unit_vectors

#: Columns that tell the time; of texts, ISO 8601, UTC.
TIMES = ("datetime", "time")
#: The column that conditions have beside those of the table.
KEY = "key"


class Facts:
    """The table of some latents: its rows by their numbers. Columns are read when they are needed.

    Args:
        path: The cutout table.
        vectors: The latents.

    Attributes:
        path: The table.
        vectors: The latents.
        names: Its columns.
        rows: For each of the latents its row of the table [N].

    Raises:
        DataError: It cannot be read, belongs to other cutouts, or does not tell which row is which cutout.
    """

    def __init__(self, path: str | os.PathLike[str], vectors: Vectors) -> None:
        self.path = Path(path)
        self.vectors = vectors
        self._seen = _stamp(self.path)
        self.names = table.names(self.path)
        _require_match(self.path, vectors)
        self.rows = self._rows_of_table()
        self._columns: dict[str, npt.NDArray[Any]] = {}

    def require_unchanged(self) -> None:
        """See that the file is the one whose rows were found; to be called after something was read of it.

        Raises:
            DataError: It was replaced, changed or taken away since.
        """
        if _stamp(self.path) != self._seen:
            raise DataError(
                f"the cutout table {self.path} has changed since it was opened, so its rows may be others now: start "
                "again."
            )

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column, one value for each of the latents [N]."""
        if name not in self._columns:
            if name == KEY and KEY not in self.names:
                counts = [self.vectors.latents.num_rows(key) for key in self.vectors.latents.keys]
                self._columns[name] = np.repeat(self.vectors.latents.keys, counts)
            else:
                values = table.columns(self.path, [name])[name]
                self.require_unchanged()
                values = values[self.rows]
                self._columns[name] = as_times(values) if name in TIMES else values
        return self._columns[name]

    def take(self, numbers: Rows) -> Any:  # noqa: ANN401  # pyarrow has no type information
        """Rows with all columns, as a `pyarrow.Table`."""
        found = table.take(self.path, self.rows[numbers])
        self.require_unchanged()
        return found

    def condition(self, text: str) -> Condition:
        """Read a condition on the columns, and on ``key``.

        Raises:
            OptionError: It is none, or names another column.
        """
        return parse(text, [*self.names, *([KEY] if KEY not in self.names else [])])

    def fulfilling(self, condition: Condition) -> npt.NDArray[np.bool_]:
        """Which rows fulfil a condition [N].

        Raises:
            OptionError: It compares what cannot be compared.
        """
        return condition({name: self.column(name) for name in condition.columns})

    @property
    def has_places(self) -> bool:
        """Whether the table has numbers for latitude and longitude."""
        return {"lat", "lon"} <= set(self.names) and all(
            self.column(name).dtype.kind in "fiu" for name in ("lat", "lon")
        )

    @property
    def has_times(self) -> bool:
        """Whether the table has times."""
        return any(name in self.names and self.column(name).dtype.kind == "M" for name in TIMES)

    @functools.cached_property
    def places(self) -> npt.NDArray[np.float64]:
        """Centres as unit vectors [N, 3]; NaN where they are not known.

        Raises:
            DataError: The table has no such columns, or texts in them.
        """
        if not self.has_places:
            raise DataError(f"{self.path} has no places: it has no columns lat and lon of numbers.")
        return unit_vectors(self.column("lat").astype(np.float64), self.column("lon").astype(np.float64))

    @functools.cached_property
    def times(self) -> npt.NDArray[np.datetime64]:
        """Times [N], NaT where they are not known.

        Raises:
            DataError: The table has none.
        """
        if not self.has_times:
            raise DataError(f"{self.path} has no times: it has no column datetime that holds them.")
        times = next(self.column(name) for name in TIMES if name in self.names and self.column(name).dtype.kind == "M")
        return times.astype("datetime64[us]", copy=False)

    def _rows_of_table(self) -> Rows:
        """For each of the latents its row of the table."""
        latents = self.vectors.latents
        counts = {key: latents.num_rows(key) for key in latents.keys}
        return np.concatenate(list(rows_in_table(self.path, counts, latents.about).values()))


def _stamp(path: Path) -> tuple[int, int] | None:
    """By what a file is known again without reading it; None where there is none.

    Not by its number in the file system, which some of the network change by themselves.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def as_times(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Texts as the times that they are; as they are where they are none."""
    if values.dtype.kind not in "OU":
        return values
    try:
        texts = [None if value is None else str(value).removesuffix("Z") for value in values]
        return np.array(texts, "datetime64[us]")
    except ValueError:
        return values


def find_table(given: Path | None, vectors: Vectors, needed_for: str | None) -> Facts | None:
    """The table that is given, or the one that lies beside the cutouts or the latents.

    Args:
        given: The table; None to look for it.
        vectors: The latents.
        needed_for: The option that needs it; None where the answer can do without.

    Returns:
        The table; None where there is none and none is needed.

    Raises:
        OptionError: It is needed, and there is none.
        DataError: As for `Facts`.
    """
    if given is not None:
        return Facts(given, vectors)
    about = vectors.latents.about
    name = about.table.get("name", "")
    cutouts = Path(about.cutouts)
    places = [table.beside(cutouts)] if about.cutouts else []
    if name:
        places = [cutouts.with_name(name), vectors.latents.path.with_name(name)]
    there = next((path for path in places if path.exists()), None)
    if there is not None and name:
        return Facts(there, vectors)
    if needed_for is None:
        return None
    if there is not None:  # it was not known to belong to the cutouts: only its user can tell
        raise OptionError(
            f"{needed_for} needs the cutout table, and {vectors.latents.path} does not say which it is. If it is "
            f"{there}, give it: --table {there}."
        )
    looked = f"; it is not at {' or '.join(map(str, places))}" if places else ""
    raise OptionError(f"{needed_for} needs the cutout table{looked}: give it with --table cutouts.parquet.")


def _require_match(path: Path, vectors: Vectors) -> None:
    """See that a table is the one that the latents remember.

    Raises:
        DataError: It is another.
    """
    about = vectors.latents.about
    remembered = about.table.get("digest")
    if remembered is None or table.digest(path) == remembered:
        return
    cutouts = Path(about.cutouts)
    if cutouts.is_file():  # columns may have been added since
        table.require_match(path, cutouts)
        return
    raise DataError(
        f"{path} is another table than {about.table.get('name', 'the one')} that the latents were made with, or has "
        f"changed since, and the cutouts {cutouts} are not there to compare it with: give the table as it was."
    )
