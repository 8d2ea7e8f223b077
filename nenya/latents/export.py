"""Latents as a Parquet file, with the columns of the cutout table, for programs that read neither HDF5 nor Nenya."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nenya.data import table
from nenya.errors import DataError, OptionError
from nenya.files import atomic_write
from nenya.latents.store import Latents

_ROWS = 16_384  # in memory together

_MODEL = "nenya_model_digest"  # in the metadata of every such table

#: Datasets of the cutout file -> `pp_type` of the table.
_SIDES = {"train": 1, "valid": 0}


def require_exportable(path: Path, latents: Path, *, resume: bool) -> None:
    """See that a table can be written there.

    Raises:
        OptionError: Its name is none of a table, something is in its place, or pyarrow is missing.
    """
    if path.suffix != ".parquet":
        raise OptionError(f"--export is {path}; expected the name of a Parquet file, such as {latents.stem}.parquet.")
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise OptionError("--export needs pyarrow: pip install 'nenya[granules]'.") from error
    if not path.exists():
        return
    is_own = False
    if resume and path.is_file():  # an earlier run's, which is made again
        with contextlib.suppress(OSError, pyarrow.ArrowException):
            is_own = _MODEL.encode() in (pyarrow.parquet.read_schema(path).metadata or {})
    if not is_own:
        raise OptionError(f"{path} is there already: choose another --export, or remove it.")


def write_table(latents: Path, path: Path) -> None:
    """Write a row for each cutout: where it is, the columns of the cutout table if there is one, the latents.

    `dataset` and `pp_idx` say which cutout a row is. `h` and `z` are lists of one length, float32, null where a cutout
    is not usable. With a table that has lat and lon, `geometry` is the centre as GeoParquet has it.

    Args:
        latents: The file of latents.
        path: The Parquet file.

    Raises:
        NenyaError: The latents or the table cannot be read, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    file = Latents(latents)
    columns = _columns(file)
    with atomic_write(path) as temporary:
        writer: Any = None
        try:
            for key in file.keys:
                order = _order(columns, key, file.num_rows(key), latents)
                for piece in _pieces(file, key, columns, order):
                    if writer is None:
                        writer = pyarrow.parquet.ParquetWriter(temporary, piece.schema, compression="zstd")
                    writer.write_table(piece.cast(writer.schema))
        finally:
            if writer is not None:
                writer.close()


def _columns(file: Latents) -> Any:  # noqa: ANN401  # pyarrow has no type information
    """The cutout table, if the latents name one that is still there."""
    if not file.about.table:
        return None
    path = Path(file.about.cutouts).with_name(file.about.table["name"])
    if table.digest(path) != file.about.table["digest"]:
        raise DataError(f"{path} has changed since the latents were made: make them anew, or bring the table back.")
    return table.read_arrow(path)


def _order(columns: Any, key: str, num_rows: int, latents: Path) -> npt.NDArray[np.int64] | None:  # noqa: ANN401
    """Where in the table each cutout of a dataset is [N]; None where it has no rows for it."""
    if columns is None or key not in _SIDES:
        return None
    sides, places = (columns.column(name).to_numpy() for name in ("pp_type", "pp_idx"))
    mine = np.flatnonzero(sides == _SIDES[key])
    order = mine[np.argsort(places[mine], kind="stable")]
    if len(order) != num_rows:
        raise DataError(f"the table has {len(order)} cutouts of {key!r}, but {latents} has {num_rows}.")
    return order


def _pieces(file: Latents, key: str, columns: Any, order: npt.NDArray[np.int64] | None) -> Iterator[Any]:  # noqa: ANN401
    """The rows of a dataset, some at a time."""
    import pyarrow

    usable = file.usable(key)
    spaces: tuple[Literal["h", "z"], ...] = ("h", "z") if file.about.space == "both" else (file.about.space,)
    for start in range(0, file.num_rows(key), _ROWS):
        stop = min(start + _ROWS, file.num_rows(key))
        arrays: dict[str, Any] = {
            "dataset": pyarrow.array([key] * (stop - start)),
            "pp_idx": pyarrow.array(np.arange(start, stop)),
        }
        metadata = {
            _MODEL: file.about.model_digest,
            "nenya_options": json.dumps(dict(file.about.options)),
        }
        if columns is not None:
            rows = order[start:stop] if order is not None else np.full(stop - start, -1)
            places = pyarrow.array(rows, mask=rows < 0)
            for name in columns.schema.names:
                if name not in arrays:
                    arrays[name] = columns.column(name).take(places).combine_chunks()
            if {"lat", "lon"} <= set(columns.schema.names):
                lon, lat = (arrays[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("lon", "lat"))
                arrays["geometry"] = pyarrow.array(_points(lon, lat), pyarrow.binary())
                metadata["geo"] = json.dumps(_GEO)
        arrays["usable"] = pyarrow.array(usable[start:stop])
        for space in spaces:
            values = file.read(key, start, stop, space).astype(np.float32)
            flat = pyarrow.array(values.reshape(-1))
            arrays[space] = pyarrow.FixedSizeListArray.from_arrays(
                flat, values.shape[1], mask=pyarrow.array(~usable[start:stop])
            )
        units = {} if columns is None else {field.name: field.metadata for field in columns.schema}
        fields = [pyarrow.field(name, array.type, metadata=units.get(name)) for name, array in arrays.items()]
        yield pyarrow.table(list(arrays.values()), schema=pyarrow.schema(fields, metadata=metadata))


#: Of GeoParquet 1.1; without a coordinate system it is longitude and latitude in degrees, OGC:CRS84.
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"]}},
}


def _points(lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64]) -> list[bytes | None]:
    """Points as WKB, little-endian; None where there is no position."""
    good = np.isfinite(lon) & np.isfinite(lat)
    return [struct.pack("<BIdd", 1, 1, x, y) if there else None for x, y, there in zip(lon, lat, good, strict=True)]
