"""Some of the cutouts of a file as a file of their own, with the pixels as they are stored."""

from __future__ import annotations

from typing import IO

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.hdf5 import find_dataset, has_dataset, looking_into
from nenya.data.images import ImageFile
from nenya.data.labels import label_dataset
from nenya.portal.work import Stop
from nenya.search.gallery import Pixels
from nenya.search.vectors import Vectors

_MOST_READ = 16 * 2**20  # bytes of cutouts that are read together
_OF_THE_FILE = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST")  # attributes that tell of other datasets

Numbers = npt.NDArray[np.int64]


def write_subset(pixels: Pixels, vectors: Vectors, numbers: Numbers, file: IO[bytes], stop: Stop) -> None:
    """Write cutouts to an HDF5 file: datasets of the same names and types, their attributes, their labels.

    Axes are in the usual order, N first. Which rows of the source they are is in ``<name>_source_row``.

    Args:
        pixels: The cutouts.
        vectors: Their latents.
        numbers: Which, rising.
        file: An empty file.
        stop: Asked between the parts of the work.

    Raises:
        DataError: The cutouts cannot be read.
        OSError: There is no room.
    """
    chosen: dict[str, Numbers] = {}
    first = 0
    for key in vectors.latents.keys:
        mine = numbers[slice(*np.searchsorted(numbers, [first, first + vectors.latents.num_rows(key)]))] - first
        first += vectors.latents.num_rows(key)
        if len(mine):
            chosen[key] = mine
    with h5py.File(file, "w", libver="latest") as target:
        places = {key: _begin(target, pixels, pixels.files[key], mine) for key, mine in chosen.items()}
    for key, mine in chosen.items():  # past the library, which a full disk would let crash
        file.seek(places[key])
        images = pixels.files[key]
        step = max(1, _MOST_READ // images.row_bytes)
        for start in range(0, len(mine), step):
            stop.check()
            stored = images.read_stored(mine[start : start + step])
            file.write(np.ascontiguousarray(stored.astype(images.dtype, copy=False)).data)


def _begin(target: h5py.File, pixels: Pixels, images: ImageFile, rows: Numbers) -> int:
    """Make the datasets of a key, all but its pixels; where these begin in the file, bytes."""
    path, name = images.path, images.key.strip("/")
    with looking_into(path) as file:
        source = find_dataset(file, images.key, path)
        shape = (len(rows), *(images.shape[1:] if source.ndim == 4 else images.shape[2:]))
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        kind = h5py.h5t.py_create(images.dtype, logical=True)
        space = h5py.h5s.create_simple(shape)
        made = h5py.Dataset(h5py.h5d.create(target.id, name.encode(), kind, space, creation, links))
        for attribute, value in source.attrs.items():
            if attribute not in _OF_THE_FILE and not attribute.startswith("_Netcdf4"):
                made.attrs.create(attribute, value, dtype=source.attrs.get_id(attribute).dtype)
        labels = _labels_of(pixels, name)
        if has_dataset(path, labels):
            values = find_dataset(file, labels, path, wanted="labels")
            if values.shape[:1] == (len(images),):
                target.create_dataset(labels, data=values[()][rows])
    target.create_dataset(f"{name}_source_row", data=rows)
    return int(made.id.get_offset())


def _labels_of(pixels: Pixels, name: str) -> str:
    opt = pixels.options
    of_training = name in (opt.train_key, opt.valid_key)
    return label_dataset(opt, valid=name == opt.valid_key) if of_training else f"{name}_labels"
