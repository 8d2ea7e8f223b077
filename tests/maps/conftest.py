"""Latents in groups, and their cutout table."""

import dataclasses

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.search.conftest import ABOUT, write_latents

GROUPS = 6


def latents_in_groups(count, dims=32, seed=0, groups=GROUPS):
    """Latents [N, D] around some directions, and the group of each."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(GROUPS, dims))
    group = draw.integers(0, groups, count)
    return (centres[group] + 0.35 * draw.normal(size=(count, dims))).astype(np.float32), group


def write_table(path, counts, seed=0, **columns):
    """A cutout table of the rows of each key: places, times, DT."""
    draw = np.random.default_rng(seed)
    count = sum(counts.values())
    days = draw.integers(0, 3650, count).astype("timedelta64[D]")
    table = {
        "pp_type": np.concatenate([np.full(n, 1 if key == "train" else 0) for key, n in counts.items()]),
        "pp_idx": np.concatenate([np.arange(n) for n in counts.values()]),
        "lat": draw.uniform(-60, 60, count),
        "lon": draw.uniform(-180, 180, count),
        "datetime": (np.datetime64("2003-01-01") + days).astype("datetime64[us]"),
        "DT": draw.uniform(0, 5, count),
    } | columns
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    return path


@pytest.fixture
def make(tmp_path):
    """Makes a file of latents `latents.h5` and its table `cutouts.parquet` in a folder of its own."""

    def make(train=300, valid=60, folder="run", seed=0, dims=32, table=True, about=None, **columns):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        vectors, _ = latents_in_groups(train + valid, dims, seed)
        about = about or dataclasses.replace(ABOUT, table={"name": "cutouts.parquet"})
        path = write_latents(place / "latents.h5", vectors[:train], vectors[train:] if valid else None, about=about)
        if table:
            write_table(place / "cutouts.parquet", {"train": train} | ({"valid": valid} if valid else {}), **columns)
        return path

    return make
