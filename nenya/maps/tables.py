"""The ratios as a table: a row for each map, group and cell that has cutouts."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nenya.files import atomic_write
from nenya.maps.pictures import Sheet
from nenya.maps.ratios import Ratios
from nenya.maps.store import require_pyarrow

KINDS = ("csv", "parquet")


def columns(found: Sequence[tuple[str, Sheet, Sequence[Ratios]]]) -> dict[str, list[Any]]:
    """The table as columns of plain values; None where a group has no cutouts at all.

    Args:
        found: Of each map its class, its grid, and the ratios of the groups.
    """
    names = ("class", "group", "column", "row", "x0", "x1", "y0", "y1", "count", "inside", "ratio", "low", "high")
    table: dict[str, list[Any]] = {name: [] for name in names}
    for name, sheet, ratios in found:
        for one in ratios:
            cells = np.flatnonzero(one.counts > 0)
            row, column = np.divmod(cells, sheet.grid.side)
            table["class"] += [name] * len(cells)
            table["group"] += [one.group.name] * len(cells)
            table["column"] += column.tolist()
            table["row"] += row.tolist()
            for place, edges, index in (("x", sheet.grid.x, column), ("y", sheet.grid.y, row)):
                table[f"{place}0"] += edges[index].tolist()
                table[f"{place}1"] += edges[index + 1].tolist()
            table["count"] += one.counts[cells].tolist()
            table["inside"] += one.inside[cells].tolist()
            for figure in ("ratio", "low", "high"):
                values = getattr(one, figure)[cells]
                table[figure] += [None if np.isnan(value) else value for value in values.tolist()]
    return table


def write(path: Path, found: Sequence[tuple[str, Sheet, Sequence[Ratios]]]) -> None:
    """Write the table, as the name's ending says: .csv or .parquet.

    Raises:
        OptionError: pyarrow is not installed.
        NenyaError: It cannot be written.
    """
    table = columns(found)
    if path.suffix == ".parquet":
        pyarrow = require_pyarrow()
        with atomic_write(path) as temporary:
            pyarrow.parquet.write_table(pyarrow.table(table), temporary, compression="zstd")
        return
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
