"""HDF5 files: opening one, saying what is wrong with it, and finding a dataset in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from nenya.errors import DataError


def dataset_names(path: str | os.PathLike[str]) -> dict[str, tuple[int, ...]]:
    """The datasets of an HDF5 file and their shapes, by full name without the leading slash.

    Raises:
        DataError: No such file, or not HDF5.
    """
    with looking_into(Path(path)) as file:
        return _names(file)


def has_dataset(path: str | os.PathLike[str], key: str) -> bool:
    """Whether an HDF5 file has a dataset under a key, links included.

    Raises:
        DataError: No such file, or not HDF5.
    """
    with looking_into(Path(path)) as file:
        return isinstance(file.get(key), h5py.Dataset) if key else False


def _names(file: h5py.File) -> dict[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names[name] = item.shape

    file.visititems(note)
    return names


@contextlib.contextmanager
def looking_into(path: Path) -> Iterator[h5py.File]:
    """Open a file to see what is in it; in a damaged one, HDF5 finds that in many ways.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        DataError: No such file, not HDF5, or damaged.
    """
    with open_file(path) as file:
        try:
            yield file
        except DataError:
            raise
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"{path.absolute()}: what is in it cannot be read ({error}). The file is damaged, or of types that "
                "NumPy has not; copy or make it anew."
            ) from error


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    Raises:
        DataError: No such file, or not HDF5.
    """
    if not os.path.exists(path):
        raise DataError(f"no image file at {path.absolute()}: check images_file and data_folder.")
    if path.is_dir():
        raise DataError(f"{path.absolute()} is a folder; expected an HDF5 file: check images_file.")
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{path.absolute()} is not an ordinary file; expected an HDF5 file: check images_file.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        kind = "a damaged HDF5 file" if _has_signature(path) else "not an HDF5 file"
        raise DataError(f"{path.absolute()} cannot be opened: {kind} ({error}).") from error


def _has_signature(path: Path) -> bool:
    try:
        return bool(h5py.is_hdf5(path))
    except OSError:
        return False


def find_dataset(file: h5py.File, key: str, path: Path, wanted: str = "cutouts") -> h5py.Dataset:
    """The dataset under a key.

    Args:
        file: The open file.
        key: Name of the dataset.
        path: The file's path, for the message.
        wanted: "cutouts" or "labels", for the message.

    Raises:
        DataError: There is none; the message lists those that there are.
    """
    item = file.get(key) if key else None
    if isinstance(item, h5py.Dataset):
        return item
    there = ", ".join(f"{name} {shape}" for name, shape in _names(file).items()) or "no datasets at all"
    what = "is a group, not a dataset" if isinstance(item, h5py.Group) else "is not there"
    option = "train_key or valid_key" if wanted == "cutouts" else "label_key (a name with {key} in it serves both sets)"
    raise DataError(f"{path}: dataset {key!r} for the {wanted} {what}. The file holds: {there}. Set {option}.")
