"""Parts become one cutout file, its table, picture and log, with little of one part in memory at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from nenya import __version__
from nenya.data import table
from nenya.drawing import attempt
from nenya.errors import DataError, printable
from nenya.files import atomic_write
from nenya.granules.careful import careful_hdf5
from nenya.granules.compression import ChunkedWriter
from nenya.granules.containers import Array
from nenya.granules.packing import Packing
from nenya.granules.parts import Header, open_pixels, read_header, read_table
from nenya.granules.picture import Sample, draw
from nenya.granules.settings import Settings

_SIDES = {"train": 1, "valid": 0}
#: Endings of what lies beside the cutout file.
BESIDE = (".parquet", ".png", ".log")
_CHUNK_BYTES = 2**18  # of a chunk of cutouts, within 16 to 64 of them
_SLICE_BYTES = 2**24  # of the cutouts of a granule that are in memory at once


@dataclass(frozen=True)
class Written:
    """What came out.

    Attributes:
        cutouts: Rows of the table.
        train: Cutouts for training.
        valid: Cutouts for validation.
        log: A line for each granule.
    """

    cutouts: int
    train: int
    valid: int
    log: list[str]


@dataclass(frozen=True)
class _Part:
    path: Path
    header: Header


class NothingFoundError(DataError):
    """There is nothing in any of the granules that could be looked at."""


def gather(paths: list[Path], failed: dict[str, str], settings: Settings) -> tuple[list[_Part], list[str]]:
    """Read the headers of all parts and see that they fit together.

    Args:
        paths: The part files, in the order of their granules' names.
        failed: Granules that were left out, with the reason.
        settings: How the cutouts were made.

    Returns:
        The parts that have cutouts, and the log.

    Raises:
        DataError: Their units or sizes differ, or there is nothing in any of them.
    """
    lines = {name: f"{name}: left out: {reason}" for name, reason in failed.items()}
    seen: dict[str, str] = {}
    parts, headers = [], []
    for path in paths:
        header = read_header(path)
        if header.checksum in seen:
            first = seen[header.checksum]
            lines[header.name] = f"{header.name}: left out: its content is that of {first}"
            continue
        seen[header.checksum] = header.name
        lines[header.name] = header.line()
        headers.append(header)
        if header.kept:
            parts.append(_Part(path, header))
    require_something(headers, settings)
    require_one_unit({part.header.name: part.header.packing.unit for part in parts})
    return parts, [lines[name] for name in sorted(lines)]


def require_something(headers: list[Header], settings: Settings) -> None:
    """Refuse a run in which not one window could be looked at, or not one pixel is clear.

    Raises:
        DataError: Why.
    """
    if not headers or any(header.windows and header.any_clear for header in headers):
        return
    names = headers[0].name if len(headers) == 1 else f"any of the {len(headers)} granules, {headers[0].name} first"
    if not any(header.windows for header in headers):
        height, width = headers[0].shape
        raise NothingFoundError(
            f"no window of {settings.size} x {settings.size} pixels fits into {names}, which has {height} x {width}: "
            "choose a smaller --size."
        )
    raise NothingFoundError(
        f"not one pixel is clear in {names} (variable {headers[0].variable}). It may be all cloud; else see whether "
        "--variable, --quality, --flags-out and --valid-range are what you mean."
    )


def require_one_unit(units: dict[str, str]) -> None:
    """Refuse a set that mixes units.

    Args:
        units: By granule.

    Raises:
        DataError: They differ.
    """
    if len(set(units.values())) < 2:
        return
    files: dict[str, list[str]] = {}
    for name, unit in units.items():
        files.setdefault(unit or "no unit", []).append(name)
    told = "; ".join(
        f"{unit}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for unit, names in sorted(files.items())
    )
    raise DataError(f"the granules have different units ({told}). Make a cutout file of each.")


def write_all(
    parts: list[_Part], log: list[str], out: Path, folder: Path, settings: Settings, threads: int,
    advance: Callable[[int], None],
) -> Written:  # fmt: skip
    """Write the four files: first aside, in the folder of parts, then each takes its name, the cutout file as the last.

    Args:
        parts: Those that have cutouts.
        log: A line for each granule.
        out: The cutout file.
        folder: On the same disk, held by this run.
        settings: How the cutouts were made.
        threads: That pack chunks.
        advance: Called with the number of cutouts that were written, time after time.

    Raises:
        NenyaError: Something cannot be written; what stood there before is untouched.
    """
    about = {
        "version": __version__,
        "options": settings.as_json(),
        "inputs_digest": hashlib.sha256("\n".join(part.header.checksum for part in parts).encode()).hexdigest(),
        "unit": parts[0].header.packing.unit if parts else "",
    }
    staged = {suffix: folder / f"staged{suffix}" for suffix in (*BESIDE, ".hdf5")}
    sample = Sample()
    counts = _write_table(parts, out, staged[".parquet"], about, sample)
    staged[".png"].unlink(missing_ok=True)  # of a run that was killed
    if parts:
        attempt(lambda: draw(sample, about["unit"], staged[".png"]), out.with_suffix(".png"))
    with atomic_write(staged[".log"]) as path:
        path.write_text("".join(f"{printable(line)}\n" for line in log), encoding="utf-8")
    _write_cutouts(parts, staged[".hdf5"], settings, about, threads, advance)
    for suffix, path in staged.items():
        final = out if suffix == ".hdf5" else out.with_suffix(suffix)
        if path.exists():
            os.replace(path, final)
        else:  # a picture that cannot be drawn; one of other cutouts must not stand in its place
            final.unlink(missing_ok=True)
    return Written(sum(part.header.kept for part in parts), counts["train"], counts["valid"], log)


def _write_table(parts: list[_Part], out: Path, path: Path, about: dict[str, str], sample: Sample) -> dict[str, int]:
    counts = dict.fromkeys(_SIDES, 0)
    with atomic_write(path) as temporary, table.writer(temporary, about) as write:
        for part in parts:
            columns = read_table(part.path)
            number = len(columns["UID"])
            columns["pp_idx"] = np.full(number, -1)
            for side, kind in _SIDES.items():
                mine = columns["pp_type"] == kind
                columns["pp_idx"][mine] = counts[side] + np.arange(int(mine.sum()))
                counts[side] += int(mine.sum())
            header = part.header
            for name, text in (
                ("filename", header.filename), ("source", header.name), ("source_checksum", header.checksum),
                ("pp_file", out.name),
            ):  # fmt: skip
                columns[name] = np.full(number, text)
            columns["block"] = columns["block"].astype(np.str_)
            write(columns)
            sample.add(columns)
    return counts


def _write_cutouts(
    parts: list[_Part],
    path: Path,
    settings: Settings,
    about: dict[str, str],
    threads: int,
    advance: Callable[[int], None],
) -> None:
    packings = {part.header.packing_key: part.header.packing for part in parts}
    shared = next(iter(packings.values())) if len(packings) == 1 else None
    packing = shared or Packing("float32", 1.0, 0.0, float("nan"), about["unit"])
    with atomic_write(path) as temporary, careful_hdf5(temporary) as file, ThreadPoolExecutor(threads) as pool:
        for name, text in about.items():
            file.attrs[name] = text
        file.attrs["variables"] = json.dumps(sorted({part.header.variable for part in parts}))
        for side in _SIDES:
            _write_side(file, side, parts, packing, shared is not None, settings, pool, advance)


def _write_side(
    file: h5py.File,
    side: str,
    parts: list[_Part],
    packing: Packing,
    as_stored: bool,
    settings: Settings,
    pool: ThreadPoolExecutor,
    advance: Callable[[int], None],
) -> None:
    """Write the cutouts of a side, and their masks; nothing where there are none."""
    mine = [part for part in parts if getattr(part.header, side)]
    count = sum(getattr(part.header, side) for part in mine)
    if not count:
        return
    size = mine[0].header.out_size
    dtype = np.dtype(packing.dtype)
    length = int(np.clip(_CHUNK_BYTES // (size * size * dtype.itemsize), 16, 64))
    pixels = ChunkedWriter(file, side, (count, 1, size, size), dtype, length, packing.fill, pool)
    attributes = pixels.dataset.attrs
    if packing.fill is not None:
        attributes["_FillValue"] = dtype.type(packing.fill)
    if packing.is_integer or (packing.scale, packing.offset) != (1.0, 0.0):
        attributes["scale_factor"], attributes["add_offset"] = packing.scale, packing.offset
    attributes["units"] = packing.unit
    masks = None
    if settings.masks:
        masks = ChunkedWriter(file, f"{side}_mask", (count, 1, size, size), np.dtype(np.uint8), length, 0, pool)
    for part in mine:
        with open_pixels(part.path) as stored:
            for rows in _slices(stored[side]):
                values = stored[side][rows]
                pixels.append((values if as_stored else _unpacked(values, part.header.packing))[:, None])
                if masks is not None:
                    masks.append(stored[f"{side}_mask"][rows][:, None])
                advance(len(values))
    pixels.finish()
    if masks is not None:
        masks.finish()


def _slices(stored: h5py.Dataset) -> Iterator[slice]:
    """The rows of a dataset, some at a time: a granule may have more cutouts than fit in memory."""
    length = max(1, _SLICE_BYTES * len(stored) // max(1, stored.nbytes))
    for start in range(0, len(stored), length):
        yield slice(start, start + length)


def _unpacked(stored: Array, packing: Packing) -> npt.NDArray[np.float32]:
    values = packing.decode(stored).astype(np.float32)
    if packing.fill is not None and packing.fill == packing.fill:
        values[stored == stored.dtype.type(packing.fill)] = np.nan
    return values
