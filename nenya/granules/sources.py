"""The granules that a user names: files, folders, patterns, addresses and Zarr stores, in an order of their own."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nenya.errors import DataError
from nenya.files import sha256_of
from nenya.granules.containers import is_zarr

_ENDINGS = (".nc", ".nc4", ".nc3", ".cdf", ".netcdf", ".h5", ".hdf5", ".he5", ".hdf")
FETCHED = ".fetched-"  # how folders of fetched granules begin


@dataclass(frozen=True, order=True)
class Source:
    """A granule as it was named.

    Attributes:
        name: Path or address as given, or found below what was given.
        version: Size and time of change, or what else tells that the content is another.
    """

    name: str
    version: str

    @property
    def key(self) -> str:
        """80 bits, hexadecimal, of name and version."""
        return hashlib.sha256(f"{self.name}\n{self.version}".encode()).hexdigest()[:20]

    @property
    def is_remote(self) -> bool:
        """Whether it has to be fetched."""
        return "://" in self.name

    @property
    def is_in_memory(self) -> bool:
        """Whether it lies in the memory of this process, where others cannot read it."""
        return self.name.startswith("memory://")

    @property
    def filename(self) -> str:
        """Its last part."""
        return self.name.rstrip("/").rpartition("/")[2]


def expand(granules: Iterable[str | os.PathLike[str]]) -> list[Source]:
    """Find all granules that are meant, each once, sorted by name.

    Args:
        granules: Files, folders (all granules below), patterns with ``*``, ``?`` or ``[``, addresses, Zarr stores.

    Raises:
        DataError: One of these means no granule.
    """
    found: dict[str, Source] = {}
    for given in granules:
        text = os.fspath(given)
        for source in _remote(text) if "://" in text else _local(text):
            if not _is_text(source.name):
                raise DataError(f"the name {source.name!r} is not UTF-8, so it cannot stand in the table: rename it.")
            found.setdefault(source.name, source)
    if not found:
        raise DataError("no granules are given: name files, folders, patterns or addresses.")
    return sorted(found.values())


def _is_text(name: str) -> bool:
    """Whether a name has only characters that can be written; bytes that are none are surrogates in it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _local(text: str) -> list[Source]:
    path = Path(text)
    try:
        if not path.exists() and glob.has_magic(text):
            names = sorted(glob.glob(text, recursive=True))
            if not names:
                raise DataError(f"no file fits the pattern {text}.")
            return [source for name in names for source in _local(name)]
        if path.is_dir() and not is_zarr(path):
            return _below(path)
        return [Source(str(path), _version(path))]
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"no file at {text}.") from error
        raise DataError(f"{text} cannot be looked at: {error.strerror}.") from error


def _below(folder: Path) -> list[Source]:
    found = []
    for place, folders, files in os.walk(folder):
        stores = [name for name in folders if is_zarr(Path(place, name))]
        folders[:] = sorted(name for name in folders if name not in stores and not name.startswith("."))
        wanted = stores + [name for name in files if name.lower().endswith(_ENDINGS) and not name.startswith(".")]
        found += [Source(str(Path(place, name)), _version(Path(place, name))) for name in wanted]
    if not found:
        raise DataError(f"no granules below {folder}: expected files ending in {', '.join(_ENDINGS)}, or Zarr stores.")
    return found


def _version(path: Path) -> str:
    """Size and time of change of a file, or of all files of a Zarr store."""
    if not path.is_dir():
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    parts = [(str(file.relative_to(path)), _version(file)) for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def _remote(address: str) -> list[Source]:
    system, path = _file_system(address)
    scheme = address.partition("://")[0]

    def name_of(found: str) -> str:
        return found if "://" in found else f"{scheme}://{found.lstrip('/')}"

    with _reaching(address):
        if glob.has_magic(path) and not system.exists(path):
            paths = sorted(str(found) for found in system.glob(path))
            if not paths:
                raise DataError(f"nothing fits the pattern {address}.")
        elif _is_remote_store(system, path) or path.lower().endswith(_ENDINGS) or not system.isdir(path):
            paths = [path]
        else:
            paths = sorted(str(found) for found in system.find(path) if str(found).lower().endswith(_ENDINGS))
            if not paths:
                raise DataError(f"no granules below {address}: expected names ending in {', '.join(_ENDINGS)}.")
        return [Source(name_of(found), _remote_version(system, found)) for found in paths]


def _is_remote_store(system: Any, path: str) -> bool:  # noqa: ANN401  # fsspec has no type information
    return path.rstrip("/").endswith(".zarr")


def _remote_version(system: Any, path: str) -> str:  # noqa: ANN401
    about = system.info(path)
    told = [str(about[name]) for name in ("size", "ETag", "etag", "LastModified", "mtime", "md5") if about.get(name)]
    return " ".join(told)


def _file_system(address: str) -> tuple[Any, str]:
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError as error:
        raise DataError(f"{address} needs the package fsspec: pip install 'nenya[remote]'.") from error
    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except ImportError as error:  # it names the package of this kind of storage, such as s3fs
        raise DataError(f"{address} needs one more package ({error}): pip install it beside nenya[remote].") from error
    except ValueError as error:
        raise DataError(f"{address}: {error}. Expected an address such as s3://... or https://...") from error


@contextlib.contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"nothing at {address}.") from error
    except ImportError as error:
        raise DataError(f"{address} needs more packages ({error}): pip install 'nenya[remote]'.") from error
    except Exception as error:  # each kind of storage has its own errors
        if isinstance(error, MemoryError):
            raise
        raise DataError(f"{address} cannot be reached ({type(error).__name__}: {str(error)[:200]}).") from error


@contextlib.contextmanager
def at_hand(source: Source, folder: Path) -> Iterator[Path]:
    """Give a granule's path on this machine; what has to be fetched is removed after.

    Args:
        source: The granule.
        folder: Where it is fetched to.

    Raises:
        DataError: It cannot be reached.
    """
    if not source.is_remote:
        yield Path(source.name)
        return
    with tempfile.TemporaryDirectory(prefix=FETCHED, dir=folder) as place:
        target = Path(place) / source.filename
        system, path = _file_system(source.name)
        with _reaching(source.name):
            store = _is_remote_store(system, path)
            system.get(path.rstrip("/") + "/" if store else path, str(target) + ("/" if store else ""), recursive=store)
        yield target


def checksum(path: Path, name: str) -> str:
    """SHA-256 of the content of a file, or of the names and contents in a Zarr store.

    Raises:
        DataError: It cannot be read.
    """
    try:
        if not path.is_dir():
            if path.exists() and not path.is_file():  # a pipe would be waited for, a device may have no end
                raise DataError(f"{name} is not an ordinary file.")
            return sha256_of(path)
        whole = hashlib.sha256()
        for file_path in sorted(file for file in path.rglob("*") if file.is_file()):
            whole.update(f"{file_path.relative_to(path).as_posix()} {checksum(file_path, name)}\n".encode())
        return whole.hexdigest()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}.") from error
