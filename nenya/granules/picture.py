"""`cutouts.png`: where the cutouts of each side are, their DT and clear fraction, and their months."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.coastlines import coastline
from nenya.data.table import Columns
from nenya.drawing import picture

_COLOURS = {1: ("train", "tab:blue"), 0: ("valid", "tab:orange"), -1: ("neither", "0.6")}
_MOST = 20_000  # points on the map


class Sample:
    """Rows for the picture, a fixed number at most: those with the smallest UIDs, which are as good as random."""

    _NAMES = ("UID", "lat", "lon", "pp_type", "DT", "clear_fraction", "datetime")

    def __init__(self) -> None:
        self._rows: dict[str, npt.NDArray[Any]] = {}
        self.total = 0

    def add(self, columns: Columns) -> None:
        """Take rows of the table."""
        self.total += len(columns["UID"])
        rows = {
            name: np.concatenate([self._rows[name], columns[name]]) if self._rows else np.asarray(columns[name])
            for name in self._NAMES
        }
        if len(rows["UID"]) > _MOST:
            kept = np.sort(np.argsort(rows["UID"], kind="stable")[:_MOST])
            rows = {name: values[kept] for name, values in rows.items()}
        self._rows = rows

    @property
    def rows(self) -> dict[str, npt.NDArray[Any]]:
        """The rows."""
        return self._rows


def draw(sample: Sample, unit: str, path: Path) -> None:
    """Draw the picture.

    Args:
        sample: Rows of the table, one at least.
        unit: Of DT.
        path: The PNG file.

    Raises:
        NenyaError: matplotlib cannot be used, or the file cannot be written.
    """
    rows = sample.rows
    with picture(path, (11, 8), 100, layout="constrained") as figure:
        grid = figure.add_gridspec(2, 3, height_ratios=(1.7, 1))
        axes = figure.add_subplot(grid[0, :])
        _map(axes, rows)
        shown = "" if len(rows["UID"]) == sample.total else f", {len(rows['UID'])} of them shown"
        axes.set_title(f"{sample.total} cutouts{shown}")
        for place, (name, label, bins) in enumerate(
            (("DT", f"DT = T90 - T10 [{unit or 'unit unknown'}]", 40), ("clear_fraction", "clear fraction", 25))
        ):
            _histogram(figure.add_subplot(grid[1, place]), rows, name, label, bins)
        _months(figure.add_subplot(grid[1, 2]), rows)


def _sides(rows: dict[str, npt.NDArray[Any]]) -> list[tuple[str, str, npt.NDArray[np.bool_]]]:
    found = [(label, colour, rows["pp_type"] == side) for side, (label, colour) in reversed(_COLOURS.items())]
    return [(label, colour, mine) for label, colour, mine in found if mine.any()]


def _map(axes: Any, rows: dict[str, npt.NDArray[Any]]) -> None:  # noqa: ANN401  # matplotlib's axes
    lines = coastline()
    axes.plot(lines[:, 0], lines[:, 1], color="0.3", linewidth=0.6)
    for label, colour, mine in _sides(rows):
        axes.scatter(rows["lon"][mine], rows["lat"][mine], s=5, color=colour, label=label, linewidths=0)
    span = max(np.ptp(rows["lon"]), np.ptp(rows["lat"]), 2.0)
    margin = 0.1 * span
    west, east = max(-180, rows["lon"].min() - margin), min(180, rows["lon"].max() + margin)
    south, north = max(-90, rows["lat"].min() - margin), min(90, rows["lat"].max() + margin)
    axes.set(xlim=(west, east), ylim=(south, north), xlabel="longitude", ylabel="latitude")
    axes.set_aspect(1 / max(0.2, np.cos(np.radians((south + north) / 2))))
    axes.grid(linewidth=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=3)


def _histogram(axes: Any, rows: dict[str, npt.NDArray[Any]], name: str, label: str, bins: int) -> None:  # noqa: ANN401
    finite = np.isfinite(rows[name])
    edges = np.histogram_bin_edges(rows[name][finite], bins) if finite.any() else bins
    sides = _sides(rows)
    axes.hist([rows[name][mine & finite] for _, _, mine in sides], edges, stacked=True, color=[c for _, c, _ in sides])
    axes.set(xlabel=label, ylabel="cutouts")


def _months(axes: Any, rows: dict[str, npt.NDArray[Any]]) -> None:  # noqa: ANN401
    known = ~np.isnat(rows["datetime"])
    months = rows["datetime"].astype("datetime64[M]").astype(np.int64) % 12 + 1
    sides, bottom = _sides(rows), np.zeros(12)
    for _, colour, mine in sides:
        counts = np.bincount(months[mine & known], minlength=13)[1:13]
        axes.bar(range(1, 13), counts, bottom=bottom, color=colour)
        bottom += counts
    axes.set(xlabel="month" + ("" if known.all() else " (where known)"), xticks=range(1, 13))
