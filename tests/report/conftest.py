"""Files of latents, made without a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nenya.latents import store


def _write_latents(path, train=None, valid=None, space="h", dtype="float32", about=None):
    """Write a file of latents: rows that hold a NaN are not usable; `about` replaces some of what it tells."""
    told = store.About(
        space=space, model="last.pth", model_digest="0" * 64, options={}, cutouts="cutouts.h5", cutouts_digest={},
        table={}, precision="float32", views=1, version="0.1.0",
    )  # fmt: skip
    rows = {key: np.asarray(own, dtype) for key, own in (("train", train), ("valid", valid)) if own is not None}
    usable = {key: np.isfinite(own).all(axis=1) for key, own in rows.items()}
    shapes = {key: own.shape for key, own in rows.items()}
    places = store.create(path, dataclasses.replace(told, **(about or {})), shapes, dtype, usable)
    with path.open("r+b") as file:
        for key, own in rows.items():
            file.seek(places[key])
            file.write(own.tobytes())
    return path


@pytest.fixture
def write_latents():
    """Function (path, train, valid, space, dtype, about) -> path."""
    return _write_latents
