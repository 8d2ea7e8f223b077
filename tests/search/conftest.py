"""Files of latents, written as `nenya latents` writes them."""

import dataclasses

import numpy as np
import pytest

from nenya.latents.store import About, create

ABOUT = About(
    space="h",
    model="last.pth",
    model_digest="0" * 64,
    options={"images_file": "cutouts.h5"},
    cutouts="cutouts.h5",
    cutouts_digest={},
    table={},
    precision="float32",
    views=1,
    version="0.1.0",
)


def write_latents(path, train=None, valid=None, space="h", dtype="float32", about=None, usable=None):
    """Write a file of latents [N, D]; rows that are NaN throughout are not usable unless `usable` says otherwise."""
    about = dataclasses.replace(about or ABOUT, space=space)
    given = {key: np.asarray(values) for key, values in (("train", train), ("valid", valid)) if values is not None}
    marks = {key: ~np.isnan(values.astype(np.float64)).all(axis=1) for key, values in given.items()} | (usable or {})
    stored = dict(given)
    if space == "both":
        stored |= {f"{key}_z": values[:, : max(1, values.shape[1] // 2)] for key, values in given.items()}
    places = create(path, about, {name: values.shape for name, values in stored.items()}, dtype, marks)
    with path.open("r+b") as file:
        for name, values in stored.items():
            file.seek(places[name])
            file.write(np.ascontiguousarray(values, dtype).tobytes())
    return path


@pytest.fixture(name="write_latents")
def _write_latents():
    return write_latents
