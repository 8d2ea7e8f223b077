"""Files and stores that hold named arrays, seen alike: NetCDF 4 and HDF5, NetCDF 3, Zarr. Nothing is decoded here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.codecs import require_codecs
from nenya.errors import DataError
from nenya.formats import HEAD_BYTES, ZARR_FILES, name_marked
from nenya.granules import inflate

Array = npt.NDArray[Any]
Index = tuple[slice | int, ...]

_HDF5, _NETCDF3, _HDF4 = b"\x89HDF\r\n\x1a\n", b"CDF", b"\x0e\x03\x13\x01"
_CHUNK_CACHE = 32 * 2**20  # bytes for each variable: enough for chunks that hold several times
_INTERNAL = frozenset({"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates",
                       "_nc3_strict", "_NCProperties", "_ChunkSizes"})  # fmt: skip


@dataclass(frozen=True)
class Variable:
    """A named array as it is stored.

    Attributes:
        name: With its groups: ``geophysical_data/sst``.
        shape: Its shape.
        dtype: Its type in native byte order.
        attributes: Text as str, single numbers as NumPy scalars, several as arrays.
        chunks: Shape of what is stored, and unpacked, together; None where any part can be read on its own.
        dimensions: Gives the names of its dimensions.
        read: Gives a part of it, in native byte order; a whole number as index drops the axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    chunks: tuple[int, ...] | None
    dimensions: Callable[[], tuple[str, ...]]
    read: Callable[[Index], Array]

    def text(self, attribute: str) -> str:
        """An attribute in lower case without blanks around it; empty where there is none or it is no text."""
        value = self.attributes.get(attribute)
        return value.strip().lower() if isinstance(value, str) else ""


@dataclass(frozen=True)
class Container:
    """What a file or store holds.

    Attributes:
        variables: By name, in the file's order.
        attributes: Those of the whole.
    """

    variables: Mapping[str, Variable]
    attributes: Mapping[str, Any] = field(default_factory=dict)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return path.is_dir() and any((path / mark).is_file() for mark in ZARR_FILES)


@contextlib.contextmanager
def open_container(path: Path, name: str) -> Iterator[Container]:
    """Open a file or a Zarr store.

    Args:
        path: Where it lies on this machine.
        name: What the user calls it, for messages.

    Yields:
        What it holds; to be read inside the block.

    Raises:
        DataError: It is none of these, or cannot be read.
    """
    with contextlib.ExitStack() as stack:
        with _saying_what_is_wrong(name):
            container = _opened(path, name, stack)
        yield replace(container, variables={key: _guarded(item, name) for key, item in container.variables.items()})


def _opened(path: Path, name: str, stack: contextlib.ExitStack) -> Container:
    if path.is_dir():
        if not is_zarr(path):
            raise DataError(f"{name} is a folder, but not a Zarr store.")
        return _zarr(path)
    start = _first_bytes(path, name)
    if start.startswith(_NETCDF3):
        return _netcdf3(path, name, start, stack)
    if start.startswith(_HDF5) or h5py.is_hdf5(path):
        return _hdf5(path, name, stack)
    if start.startswith(_HDF4):
        raise DataError(f"{name} is an HDF4 file; expected NetCDF or HDF5: convert it (for example by h4toh5).")
    expected = "expected a NetCDF file (3 or 4), HDF5 or a Zarr store"
    marked = name_marked(start)
    if marked is None:
        raise DataError(f"{name} is not a granule: {expected}.")
    raise DataError(f"{name} is not a granule, but {marked[0]}; {expected}. {marked[1]}.")


def _guarded(variable: Variable, name: str) -> Variable:
    """A variable of which a damaged part is told as such; faults of the code that reads it stay what they are."""

    def dimensions() -> tuple[str, ...]:
        with _saying_what_is_wrong(name):
            return variable.dimensions()

    def read(index: Index) -> Array:
        with _saying_what_is_wrong(name):
            return variable.read(index)

    return replace(variable, dimensions=dimensions, read=read)


@contextlib.contextmanager
def _saying_what_is_wrong(name: str) -> Iterator[None]:
    """Turn the many ways in which a damaged file shows into one error."""
    try:
        yield
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AssertionError, EOFError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        low = text.lower()
        if "filter" in low or "plugin" in low or "codec" in low:
            raise DataError(
                f"{name} is packed by a codec that is not installed ({text[:200]}): pip install 'nenya[codecs]'."
            ) from error
        kind = "ends too early" if "truncated" in low or "mmap length" in low else "is damaged or cannot be read"
        raise DataError(f"{name} {kind} ({text[:200]}): get it anew.") from error


def _first_bytes(path: Path, name: str) -> bytes:
    if not os.path.exists(path):
        raise DataError(f"no file at {name}.")
    if not path.is_file():
        raise DataError(f"{name} is not an ordinary file.")
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    if not start:
        raise DataError(f"{name} is empty: get it anew.")
    return start


def _attribute(value: Any) -> Any:  # noqa: ANN401  # attributes are of any type
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "SO":
            words = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in value.flat]
            return " ".join(words)
        value = value.astype(value.dtype.newbyteorder("="))
        return value.reshape(-1)[0] if value.size == 1 else value
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool | int | float):
        return np.array(value)[()]
    if isinstance(value, list | tuple):
        return _attribute(np.array(value))
    return value


def _attributes(items: Any) -> dict[str, Any]:  # noqa: ANN401  # pairs of three libraries
    return {str(name): _attribute(value) for name, value in items if name not in _INTERNAL}


def _hdf5_attributes(item: h5py.HLObject) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in item.attrs:
        if name not in _INTERNAL:
            try:
                found[name] = _attribute(item.attrs[name])
            except (OSError, TypeError, RuntimeError):  # a type that NumPy has not: no attribute that matters here
                continue
    return found


def _hdf5(path: Path, source: str, stack: contextlib.ExitStack) -> Container:
    import h5netcdf

    file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE))
    named: list[h5netcdf.File] = []

    def dimensions(name: str) -> tuple[str, ...]:
        # h5netcdf knows how NetCDF names dimensions; it is slow in everything else, so it is asked for that alone
        if not named:
            named.append(h5netcdf.File(file, "r", phony_dims="access"))
        parent, _, last = name.rpartition("/")
        group = named[0][parent] if parent else named[0]
        return tuple(str(dimension) for dimension in group.variables[last].dimensions)

    variables: dict[str, Variable] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            variables[name] = Variable(
                name, item.shape, item.dtype.newbyteorder("="), _hdf5_attributes(item), item.chunks,
                lambda: dimensions(name), _hdf5_reader(item, source),
            )  # fmt: skip

    file.visititems(note)
    return Container(variables, _hdf5_attributes(file))


def _hdf5_reader(item: h5py.Dataset, source: str) -> Callable[[Index], Array]:
    faster: list[Callable[[Index], Array]] = []

    def read(index: Index) -> Array:
        if not faster:  # looked up when it is needed: most variables are never read
            require_codecs(item, Path(source))
            faster.append(inflate.reader(item) or item.__getitem__)
        return _native(faster[0](index))

    return read


def _native(values: Any) -> Array:  # noqa: ANN401  # an array or a scalar of any type
    array = np.asarray(values)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _netcdf3(path: Path, name: str, start: bytes, stack: contextlib.ExitStack) -> Container:
    from scipy.io import netcdf_file

    if start[3] not in (1, 2):
        raise DataError(f"{name} is NetCDF of kind {start[3]} (CDF-5), which is not read: convert it by `nccopy -4`.")
    # without a memory map: closing a mapped file while an array of it lives warns, and a truncated one kills
    file = stack.enter_context(netcdf_file(path, "r", mmap=False))
    variables: dict[str, Variable] = {}
    for key, item in file.variables.items():
        variables[key] = _netcdf3_variable(key, item)
    return Container(variables, _attributes(file._attributes.items()))


def _zarr(path: Path) -> Container:
    try:
        import xarray
        import zarr  # noqa: F401  # xarray's own message about a missing one names no remedy
    except ImportError as error:
        raise DataError(f"reading a Zarr store needs the package {error.name}: pip install 'nenya[remote]'.") from error
    # what a store tells twice, in one place for speed, is not needed on this machine's own disk
    dataset = xarray.open_dataset(path, engine="zarr", decode_cf=False, chunks=None, cache=False, consolidated=False)
    variables: dict[str, Variable] = {}
    for key, item in dataset.variables.items():
        variables[str(key)] = _zarr_variable(str(key), item)
    return Container(variables, _attributes(dataset.attrs.items()))


def _netcdf3_variable(name: str, item: Any) -> Variable:  # noqa: ANN401  # SciPy has no type information
    return Variable(
        name,
        tuple(item.shape),
        np.dtype(item.data.dtype).newbyteorder("="),
        _attributes(item._attributes.items()),
        None,
        lambda: tuple(item.dimensions),
        lambda index: _native(item.data[index]),
    )


def _zarr_variable(name: str, item: Any) -> Variable:  # noqa: ANN401  # xarray's class of variables is not public
    chunks = item.encoding.get("chunks")
    return Variable(
        name,
        tuple(item.shape),
        item.dtype.newbyteorder("="),
        _attributes(item.attrs.items()),
        tuple(chunks) if chunks else None,
        lambda: tuple(str(dimension) for dimension in item.dims),
        lambda index: _native(item[index].values),
    )
