"""What latents are asked for: labels, and columns of the cutout table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nenya.data.hdf5 import dataset_names, listed
from nenya.errors import DataError
from nenya.evaluation.folds import blocks_of_place_and_time, contiguous_runs, numbered
from nenya.report.columns import Joined
from nenya.report.imagery import Imagery
from nenya.report.inputs import Rows

Ints = npt.NDArray[np.int64]

#: Columns that are predicted where the table has them, and what they are called.
COLUMNS: Mapping[str, str] = {
    "DT": "DT",
    "clear_fraction": "clear fraction",
    "mean_temperature": "mean temperature",
    "lat": "latitude",
}
SEASONS = ("winter", "spring", "summer", "autumn")

#: Columns that are read besides these.
OTHER_COLUMNS = ("UID", "lon", "datetime", "block")

_MOST_CLASSES = 1000


@dataclass(frozen=True)
class Target:
    """One thing to predict.

    Attributes:
        name: What it is called.
        kind: "value" or "class".
        values: Of each row [n]: float64, or classes from 0.
        known: Where there is a value [n].
        classes: Names of the classes.
        unit: Of values; "" if unknown.
    """

    name: str
    kind: Literal["value", "class"]
    values: npt.NDArray[Any]
    known: npt.NDArray[np.bool_]
    classes: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Blocks:
    """Which rows are fitted or tested together.

    Attributes:
        groups: Number of the block of each row [n], from 0.
        told: How they were made, to follow "blocks are".
        by_place: Whether place (and time) made them, or the order in the file alone.
    """

    groups: Ints
    told: str
    by_place: bool


def find_blocks(rows: Rows, table: Joined | None) -> Blocks:
    """Blocks of the table, else of its places and times, else runs of rows that follow each other."""
    columns: Mapping[str, npt.NDArray[Any]] = {} if table is None else table.columns
    why = "no table tells place and time"
    if "block" in columns:
        groups = numbered(columns["block"])
        if groups.max() > 0:
            return Blocks(groups, "the table's blocks of place and time (column block)", by_place=True)
        why = "the table has a single block"
    elif "lat" in columns and "lon" in columns:
        time = columns.get("datetime")
        time = None if time is None or time.dtype.kind != "M" else time
        groups = blocks_of_place_and_time(columns["lat"].astype(np.float64), columns["lon"].astype(np.float64), time)
        if groups.max() > 0:
            size = "5 degrees" if time is None else "5 degrees and 30 days"
            return Blocks(groups, f"cells of {size}, from the table's lat and lon", by_place=True)
        why = "all cutouts lie in one block of 5 degrees and 30 days"
    groups = contiguous_runs(rows.places)
    return Blocks(groups, f"{groups.max() + 1} runs of rows that follow each other in the file: {why}", by_place=False)


def find_targets(rows: Rows, table: Joined | None, labels: Target | None) -> tuple[list[Target], list[str]]:
    """Everything that can be predicted, and what cannot, in words."""
    found = [] if labels is None else [labels]
    notes: list[str] = []
    columns: Mapping[str, npt.NDArray[Any]] = {} if table is None else table.columns
    units: Mapping[str, str] = {} if table is None else table.units
    for column, name in COLUMNS.items():
        if column in columns and columns[column].dtype.kind in "fi":
            values = columns[column].astype(np.float64)
            found.append(Target(name, "value", values, np.isfinite(values), unit=units.get(column, "")))
        elif table is not None:
            notes.append(f"{name} is not predicted: the table has no numbers {column}.")
    if table is not None:
        season = _season(columns)
        if season is None:
            notes.append("the season is not predicted: the table has no instants datetime.")
        else:
            found.append(season)
    kept = []
    for target in found:
        reason = _why_not(target)
        if reason:
            notes.append(f"{target.name} is not predicted: {reason}.")
        else:
            kept.append(target)
    return kept, notes


def _why_not(target: Target) -> str:
    values = target.values[target.known]
    if len(values) < 4:
        return f"only {len(values)} of the cutouts that are looked at have one"
    if (values == values[0]).all():
        one = target.classes[values[0]] if target.classes else f"{values[0]:g}"
        return f"it is the same for all of them ({one})"
    if target.kind == "value" and np.ptp(values) < 1e-9 * np.abs(values).max():
        return "it is all but the same for all of them"
    return ""


def _season(columns: Mapping[str, npt.NDArray[Any]]) -> Target | None:
    """Meteorological season, half a year later where the latitude is south."""
    time = columns.get("datetime")
    if time is None or time.dtype.kind != "M":
        return None
    known = ~np.isnat(time)
    month = np.where(known, time.astype("datetime64[M]").astype(np.int64) % 12, 0)
    season = (month + 1) % 12 // 3
    if "lat" in columns:
        season = np.where(columns["lat"].astype(np.float64) < 0, (season + 2) % 4, season)
    return Target("season", "class", season.astype(np.int64), known, SEASONS)


def read_labels(name: str, rows: Rows, table: Joined | None, imagery: Imagery | None) -> Target:
    """Find labels by the name that was given.

    Args:
        name: A column of the table, or datasets of the cutout file: "{key}_labels", "labels" for `<key>_labels`, or
            the name of those of one data set, as "train_labels".
        rows: Rows of the latents.
        table: The table.
        imagery: The cutouts.

    Raises:
        DataError: There are none of that name, or they cannot be read.
    """
    if table is not None and name in table.columns:
        column = table.columns[name]
        if column.dtype.kind not in "iU":
            raise DataError(
                f"the column {name} of {table.path} holds {column.dtype} or gaps; expected whole numbers or texts, a "
                "class for each cutout."
            )
        return _classes(f"label {name}", column)
    if imagery is None:
        where = "no table was given" if table is None else f"the table {table.path} has no column of that name"
        raise DataError(
            f"there are no labels {name!r}: {where}, and the cutout file is not at hand. Give it with --cutouts."
        )
    there = dataset_names(imagery.path)
    datasets = _datasets(name, rows.keys, there)
    if datasets is None:
        wanted = " and ".join(f"{key}_{name}" for key in rows.keys)
        raise DataError(
            f"there are no labels {name!r}: neither a column of the table nor datasets {wanted} in {imagery.path}; it "
            f"has {listed(list(there))}."
        )
    values = np.empty(len(rows), dtype=np.int64)
    for key, dataset in datasets.items():
        mine = rows.of(key)
        values[mine] = imagery.images[key].labels(dataset)[rows.row[mine]]
    return _classes("label", values)


def _datasets(name: str, keys: tuple[str, ...], there: Mapping[str, object]) -> dict[str, str] | None:
    forms = [name] if "{key}" in name else [f"{{key}}_{name}"]
    forms += [name.replace(key, "{key}", 1) for key in keys if key in name]
    for form in forms:
        datasets = {key: form.replace("{key}", key) for key in keys}
        if all(dataset in there for dataset in datasets.values()):
            return datasets
    return None


def _classes(name: str, values: npt.NDArray[Any]) -> Target:
    names, numbers = np.unique(values, return_inverse=True)
    if len(names) > _MOST_CLASSES:
        raise DataError(f"{name} has {len(names)} different values; expected classes, at most {_MOST_CLASSES}.")
    classes = tuple(str(own) for own in names.tolist())
    return Target(name, "class", numbers.reshape(-1).astype(np.int64), np.ones(len(values), dtype=bool), classes)
