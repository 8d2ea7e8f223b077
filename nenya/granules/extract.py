"""From one granule to its cutouts and their rows of the table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nenya.errors import DataError
from nenya.granules import filtering, upstream
from nenya.granules.choosing import Chosen, Tally, bands, choose
from nenya.granules.containers import Array, open_container
from nenya.granules.geometry import places
from nenya.granules.granule import Granule, look_at, take
from nenya.granules.packing import Packing
from nenya.granules.settings import Settings
from nenya.granules.split import TRAIN, VALID, Split
from nenya.granules.statistics import Statistics, describe
from nenya.sphere import distance_km, unit_vectors

Mask = npt.NDArray[np.bool_]
Keep = Callable[[str, Array, Array | None], None]

_BATCH_PIXELS = 2**19  # of the windows that are described at once
_NAMES = {TRAIN: "train", VALID: "valid"}


@dataclass
class Extract:
    """What one granule gives.

    Attributes:
        columns: Of the table, without those that only the whole set tells (pp_file, pp_idx); by time, row and column.
        out_size: Side of a cutout, pixels.
        packing: What the pixels mean.
        variable: Name of the variable.
        shape: Rows and columns of the granule.
        tally: What was seen.
        rule: The quality rule in words; "" for none.
        reason: Why there is no cutout; "" where there is one.
        remarks: What is odd about the variable's attributes and does no harm, in words.
    """

    columns: dict[str, npt.NDArray[Any]]
    out_size: int
    packing: Packing
    variable: str
    shape: tuple[int, int]
    tally: Tally
    rule: str = ""
    reason: str = ""
    remarks: tuple[str, ...] = ()


@dataclass
class _Gathered:
    keep: Keep
    columns: dict[str, list[npt.NDArray[Any]]] = field(default_factory=dict)

    def add(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        for name, values in columns.items():
            self.columns.setdefault(name, []).append(values)


def extract(path: Path, source: str, checksum: str, settings: Settings, keep: Keep) -> Extract:
    """Make the cutouts of a granule. Few of them are in memory at a time, as one of the whole globe has very many.

    Args:
        path: Where it lies on this machine.
        source: What the user calls it.
        checksum: Digest of its content.
        settings: How cutouts are made.
        keep: Called with the side, "train" or "valid", some of its cutouts [n, H, W] in the order of the table, gaps as
            fill value, and, where they are asked for, their masks, uint8, 1 where a pixel is measured.

    Returns:
        The table and what was seen; possibly of no cutout, with the reason.

    Raises:
        DataError: It cannot be read, or lacks what the settings ask for.
    """
    with open_container(path, source) as container:
        settings = upstream.fitted(settings, container, source)
        granule = look_at(container, settings, source)
        if settings.max_distance_km is not None and not granule.is_swath:
            raise DataError(f"{source} is a grid, which has no nadir: --max-distance-km is for swaths.")
        tally, gathered = Tally(), _Gathered(keep)
        packing = _out_packing(granule, settings)
        split = Split.of(settings)
        for time in range(len(granule.times)):
            for band, rows in bands(*granule.shape, settings):
                chosen = choose(granule, time, band, rows, settings, tally)
                for batch in _batches(granule, chosen, settings):
                    _describe_batch(granule, time, chosen, batch, settings, split, packing, gathered, checksum)
        levels = granule.levels
        columns = {name: np.concatenate(values) for name, values in gathered.columns.items()}
        return Extract(
            columns,
            settings.out_size,
            packing,
            granule.found.variable.name,
            granule.shape,
            tally,
            "" if levels is None else levels.describe(settings.quality),
            "" if columns else _reason(granule, tally, settings),
            granule.decoder.remarks,
        )


def _batches(granule: Granule, chosen: Chosen, settings: Settings) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of the windows that stay, some at a time."""
    numbers = np.arange(len(chosen.rows))
    if settings.upstream:
        numbers = upstream.choose(chosen, settings, granule.shape[1])
    if settings.max_distance_km is not None and len(numbers):
        numbers = numbers[_nadir_distance(granule, chosen, numbers, settings) <= settings.max_distance_km]
    length = max(1, _BATCH_PIXELS // settings.size**2)
    for start in range(0, len(numbers), length):
        yield numbers[start : start + length]


def _nadir_distance(
    granule: Granule, chosen: Chosen, numbers: npt.NDArray[np.int64], settings: Settings
) -> npt.NDArray[np.float64]:
    """Distance of the windows' centres from the swath's middle column in the same row, kilometres."""
    half = settings.size // 2
    rows, columns = chosen.rows[numbers] + half, chosen.columns[numbers] + half
    middle = np.full(len(rows), granule.shape[1] // 2)
    chosen.coordinates.load_windows(rows, middle, 1)
    points = [
        unit_vectors(latitude[:, 0, 0], longitude[:, 0, 0])
        for latitude, longitude in (chosen.coordinates.windows(rows, where, 1) for where in (columns, middle))
    ]
    return distance_km(points[0], points[1])


def _out_packing(granule: Granule, settings: Settings) -> Packing:
    """What the pixels of the cutouts mean: as in the granule, or plain float32 where values are computed."""
    packing = granule.decoder.packing
    if settings.changes_values or packing.fill is None:
        return Packing("float32", 1.0, 0.0, float("nan"), packing.unit)
    return packing


def _describe_batch(
    granule: Granule,
    time: int,
    chosen: Chosen,
    numbers: npt.NDArray[np.int64],
    settings: Settings,
    split: Split,
    packing: Packing,
    gathered: _Gathered,
    checksum: str,
) -> None:
    """Cut windows out, describe them, and gather rows and pixels."""
    rows, columns, size = chosen.rows[numbers], chosen.columns[numbers], settings.size
    stored, valid = (take(values, rows, columns, size) for values in (chosen.pixels.values, chosen.valid))
    stored, valid, measured, statistics = _prepared(stored, valid, granule.decoder.packing, packing, settings)
    latitude, longitude = chosen.coordinates.windows(rows, columns, size)
    where = places(latitude, longitude, granule.is_swath)
    instant = granule.times[time]
    largest = np.fmax(where.along_km, where.across_km)
    sides = split.sides(latitude, longitude, instant, largest)
    quality = np.full(len(rows), np.nan)
    if chosen.quality is not None:
        levels, clear = take(chosen.quality.values, rows, columns, size), take(chosen.valid, rows, columns, size)
        kind = np.float64 if levels.dtype.kind == "f" else np.int64
        total = np.where(clear, levels, levels.dtype.type(0)).sum(axis=(1, 2), dtype=kind)
        quality = total / clear.sum(axis=(1, 2))
    granule_rows = rows + chosen.first_row
    variable = granule.found.variable.name
    unknown = np.datetime64("NaT", "us")
    gathered.add({
        "UID": np.array([uid(checksum, variable, time, int(row), int(column), size)
                         for row, column in zip(granule_rows, columns, strict=True)], np.int64),
        "row": granule_rows, "col": columns, "lat": where.latitude, "lon": where.longitude,
        "lon_found": where.longitude_found,
        "datetime": np.full(len(rows), unknown if instant is None else instant),
        "clear_fraction": chosen.clear[numbers] / size**2, "field_size": np.full(len(rows), size), "pp_type": sides,
        "mean_temperature": statistics.mean, "Tmin": statistics.lowest, "Tmax": statistics.highest,
        "T10": statistics.t10, "T90": statistics.t90, "DT": statistics.dt, "DT40": statistics.dt40,
        "pixel_along_km": where.along_km, "pixel_across_km": where.across_km, "repeated_lines": where.repeated_lines,
        "quality": quality,
        "block": split.block_names(where.latitude, where.longitude, instant),
        "time_index": np.full(len(rows), time),
    })  # fmt: skip
    for side, name in _NAMES.items():
        mine = sides == side
        if mine.any():
            filled = np.where(valid[mine], stored[mine], stored.dtype.type(packing.fill))
            gathered.keep(name, filled, measured[mine].astype(np.uint8) if settings.masks else None)


def _prepared(
    stored: Array, valid: Mask, source: Packing, out: Packing, settings: Settings
) -> tuple[Array, Mask, Mask, Statistics]:
    """Do with the values what the settings ask for.

    Returns:
        Pixels as they are written, where they have a value, where they were measured, and their figures.
    """
    if not settings.changes_values:
        statistics = describe(stored, valid, source, settings.upstream)
        if out is not source:
            stored = source.decode(stored).astype(np.float32)
        return stored, valid, valid, statistics
    plain = Packing("float64", 1.0, 0.0, float("nan"), source.unit)
    values, measured = np.where(valid, source.decode(stored), 0.0), valid
    if settings.inpaint:
        values, valid = filtering.fill(values, valid), np.ones_like(valid)
    before = describe(values, valid, plain, historical=True) if settings.upstream else None
    if settings.median is not None:
        values = filtering.median(values, valid, settings.median)
    if settings.downscale > 1:
        measured = filtering.shrink(values, measured, settings.downscale)[1]
        values, valid = filtering.shrink(values, valid, settings.downscale)
    statistics = describe(values, valid, plain, settings.upstream)
    if before is not None:  # extremes and percentiles are those of the filled field; mean and DT40 of the final one
        statistics = replace(before, mean=statistics.mean, dt40=statistics.dt40)
    return values.astype(np.float32), valid, measured, statistics


def uid(checksum: str, variable: str, time: int, row: int, column: int, size: int) -> int:
    """The number of a cutout: 63 bits of a hash of the granule's content and the place in it, so at least 0."""
    text = f"nenya cutout 1: {checksum} {variable} {time} {row} {column} {size}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _reason(granule: Granule, tally: Tally, settings: Settings) -> str:
    """Why a granule gives no cutout."""
    height, width = granule.shape
    if not tally.windows:
        return f"it has {height} x {width} pixels, fewer than a window of {settings.size} x {settings.size}"
    if not tally.any_clear:
        return "not one pixel is clear"
    if tally.kept:
        return f"the {tally.kept} windows that are clear enough lie too far from the middle of the swath"
    if tally.placeless:
        return f"the {tally.placeless} windows that are clear enough have pixels without latitude or longitude"
    share = tally.most_clear / settings.size**2
    return f"no window is {settings.min_clear:.0%} clear; the clearest is {_floor(share):.1%} clear"


def _floor(share: float) -> float:
    """A share rounded down to 0.1 %, so that it does not look like enough."""
    return int(share * 1000) / 1000
