"""The file of latents: a row for each cutout, in the order of the cutout file.

An HDF5 file with a dataset for each set of cutouts, `train` and `valid`, [N, D] in one piece: row i is cutout i of the
dataset of that name, NaN where a cutout cannot be used. Beside each is `<key>_usable` [N], bool. With both spaces in
one file, the datasets are h, and `<key>_z` is z. Attributes of the file tell what they are latents of: see `About`.
Nothing is pickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.contiguous import ContiguousReader
from nenya.data.opening import open_file
from nenya.errors import DataError
from nenya.files import sha256_of

Space = Literal["h", "z", "both"]

HINT = "give the file that `nenya latents` wrote"
_FORMAT = "nenya latents 1"
_TYPES = ("float16", "float32")


@dataclass(frozen=True)
class About:
    """What a file of latents tells of itself, as its attributes of the same names (texts; mappings as JSON).

    Attributes:
        space: "h" (the encoder's features), "z" (the head's normalised output) or "both".
        model: Name of the checkpoint.
        model_digest: SHA-256 of the checkpoint.
        options: The options that it was trained with.
        cutouts: The cutout file, as it was given.
        cutouts_digest: Fingerprint of its pixels, by dataset.
        table: Name and digest of the cutout table, empty where there is none.
        precision: Of the arithmetic: "float32" or "bfloat16".
        views: 1, or 8 where each row is the mean over the flips and quarter turns.
        version: Of Nenya.
    """

    space: Space
    model: str
    model_digest: str
    options: Mapping[str, Any]
    cutouts: str
    cutouts_digest: Mapping[str, str]
    table: Mapping[str, str]
    precision: str
    views: int
    version: str

    def attributes(self) -> dict[str, str]:
        """The attributes of the file."""
        values = {"format": _FORMAT}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            values[field.name] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return values

    @classmethod
    def of(cls, attributes: Mapping[str, str]) -> About:
        """Read the attributes.

        Raises:
            KeyError: One is missing.
            ValueError: One is not what `attributes` writes.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = attributes[field.name]
            values[field.name] = text if field.type == "str" or field.name == "space" else json.loads(text)
        return cls(**values)


class Latents:
    """A file of latents, open for reading.

    Rows are read, never mapped: a file that is cut short, or a disk that fails, is an error and does not end the
    process.

    Args:
        path: The file.

    Attributes:
        path: The file.
        about: What it tells of itself.
        keys: Datasets of cutouts, as "train" and "valid".

    Raises:
        DataError: No such file, or no file of latents.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open_file(self.path, HINT) as file:
            if file.attrs.get("format") != _FORMAT:
                raise DataError(f"{self.path} is no file of latents that this version can read: {HINT}.")
            try:
                self.about = About.of({name: str(value) for name, value in file.attrs.items()})
            except (KeyError, ValueError, TypeError) as error:
                raise DataError(f"{self.path} is damaged: its attributes cannot be read ({error}).") from error
            self.keys = tuple(name.removesuffix("_usable") for name in file if name.endswith("_usable"))
            self._readers = {name: self._reader(file, name) for name in file if not name.endswith("_usable")}
            self._usable = {key: np.asarray(file[f"{key}_usable"], dtype=bool) for key in self.keys}
        for key in self.keys:
            if key not in self._readers or len(self._usable[key]) != len(self._readers[key][0]):
                raise DataError(f"{self.path} is damaged: {key} and {key}_usable do not fit each other.")
        if not self.keys:
            raise DataError(f"{self.path} has no latents: {HINT}.")

    def _reader(self, file: h5py.File, name: str) -> tuple[ContiguousReader, np.dtype[Any], int]:
        dataset = file[name]
        good = isinstance(dataset, h5py.Dataset) and dataset.ndim == 2 and dataset.dtype.name in _TYPES
        try:
            reader = ContiguousReader.of(dataset) if good else None
        except OSError as error:
            raise DataError(f"{self.path} is damaged: {name} cannot be read ({error}).") from error
        if reader is None:
            raise DataError(f"{self.path} is damaged: {name} is not [N, D] of {' or '.join(_TYPES)} in one piece.")
        return reader, dataset.dtype, int(dataset.shape[1])

    def name(self, key: str, space: Literal["h", "z"] | None = None) -> str:
        """The dataset of a key in a space; the one that the file has, or h, by default.

        Raises:
            DataError: The file has no such latents.
        """
        has = self.about.space
        if key not in self.keys:
            raise DataError(f"{self.path} has no latents {key!r}; it has {', '.join(self.keys)}.")
        if space is not None and has not in (space, "both"):
            raise DataError(
                f"{self.path} has latents {has}, not {space}. Make them with `nenya latents --space {space}`."
            )
        return dataset_name(key, space or "h", has)

    def dims(self, key: str, space: Literal["h", "z"] | None = None) -> int:
        """D of a key in a space."""
        return self._readers[self.name(key, space)][2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """How the latents are stored, float16 or float32."""
        return self._readers[self.keys[0]][1]

    def num_rows(self, key: str) -> int:
        """N of a key, usable or not."""
        return len(self._usable[key])

    def usable(self, key: str) -> npt.NDArray[np.bool_]:
        """Which rows are latents [N]; the others are NaN."""
        return self._usable[key]

    def read(self, key: str, start: int, stop: int, space: Literal["h", "z"] | None = None) -> npt.NDArray[Any]:
        """Rows `start` to `stop` as they are stored [stop - start, D]; several threads may read at once.

        Raises:
            DataError: They cannot be read.
        """
        reader, dtype, width = self._readers[self.name(key, space)]
        block = np.empty((stop - start, width), dtype)
        try:
            reader.read_run(start, stop, block)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error}). Copy it again, or make it anew.") from error
        return block

    def digest(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)


def dataset_name(key: str, space: Literal["h", "z"], spaces: Space) -> str:
    """The dataset of a key's latents in a space, in a file of these spaces."""
    return f"{key}_z" if spaces == "both" and space == "z" else key


def create(
    path: Path,
    about: About,
    shapes: Mapping[str, tuple[int, int]],
    dtype: str,
    usable: Mapping[str, npt.NDArray[np.bool_]],
) -> dict[str, int]:
    """Make a file of latents whose rows are still to be written: with the same arguments always the same bytes.

    Args:
        path: The file.
        about: What it tells of itself.
        shapes: [N, D] of each dataset, by its name.
        dtype: "float16" or "float32".
        usable: Which rows are latents, by key.

    Returns:
        Where each dataset begins in the file, bytes.

    Raises:
        OSError: It cannot be written.
    """
    places = {}
    with h5py.File(path, "w", libver="latest", track_order=True) as file:
        file.attrs.update(about.attributes())
        for name, rows in usable.items():
            file.create_dataset(f"{name}_usable", data=rows, track_times=False)
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        creation.set_obj_track_times(False)
        for name, shape in shapes.items():
            space = h5py.h5s.create_simple(shape)
            identifier = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, creation)
            places[name] = identifier.get_offset()
    return places
