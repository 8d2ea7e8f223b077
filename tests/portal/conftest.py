"""Runs to look at: latents, cutouts and a table, as large and as odd as a test asks."""

import dataclasses

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from nenya.params import Params
from nenya.portal.app import Portal
from nenya.portal.atlas import Atlas
from nenya.portal.files import Named
from nenya.portal.guard import Guard
from tests.search.conftest import ABOUT, write_latents

TOKEN = "the-token"
TRAIN, VALID, DIMS, SIDE = 40, 20, 6, 8


def latents_of(count, seed=0):
    """Latents [count, DIMS] of which three in a row are near each other."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(rng.normal(size=(-(-count // 3), DIMS)), 3, axis=0)[:count]
    return (groups + 0.05 * rng.normal(size=groups.shape)).astype(np.float32)


def columns_of(count):
    """Columns as `nenya cutouts` writes the most important ones."""
    number = np.arange(count)
    return {
        "lat": (number % 18) * 10.0 - 85,
        "lon": (number % 36) * 10.0 - 175,
        "datetime": np.datetime64("2020-01-01", "us") + number * np.timedelta64(6, "h"),
        "DT": number / 10.0,
        "row": number % 7 * 64,
    }


def write_table(path, counts, columns, order=None):
    """A cutout table with these columns, its rows in another order than the cutouts'."""
    kinds = np.concatenate([np.full(count, {"train": 1, "valid": 0}[key]) for key, count in counts.items()])
    places = np.concatenate([np.arange(count) for count in counts.values()])
    order = np.random.default_rng(3).permutation(len(kinds)) if order is None else order
    table = pyarrow.table({"pp_type": kinds, "pp_idx": places})
    for name, values in columns.items():
        table = table.append_column(name, values if isinstance(values, pyarrow.Array) else pyarrow.array(values))
    pyarrow.parquet.write_table(table.take(order), path, row_group_size=16)
    return path


def write_run(folder, *, counts=None, columns=None, pixels=None, values=None, shape=(1, SIDE, SIDE), options=None):
    """Write a run.

    Args:
        folder: Where to.
        counts: Cutouts by key.
        columns: Of the table; False for no table.
        pixels: By key [N, C, H, W]; False for no cutouts.
        values: Latents [N, D].
        shape: Of a cutout, where `pixels` are not given.
        options: Of the training.
    """
    counts = {"train": TRAIN, "valid": VALID} if counts is None else counts
    total = sum(counts.values())
    folder.mkdir(exist_ok=True)
    cutouts = folder / "cutouts.h5"
    if pixels is None:
        rng = np.random.default_rng(1)
        pixels = {key: (290 + rng.normal(size=(n, *shape))).astype(np.float32) for key, n in counts.items()}
    if pixels:
        with h5py.File(cutouts, "w") as file:
            for key, fields in pixels.items():
                file[key] = fields
                file[key].attrs["units"] = "K"
    about = dataclasses.replace(
        ABOUT, options=Params.from_dict({"images_file": str(cutouts), **(options or {})}).dict, cutouts=str(cutouts)
    )
    values = latents_of(total) if values is None else values
    ends = np.cumsum([0, *counts.values()])
    parts = {key: values[ends[i] : ends[i + 1]] for i, key in enumerate(counts)}
    write_latents(folder / "latents.h5", **parts, about=about)
    if columns is not False:
        write_table(folder / "cutouts.parquet", counts, columns_of(total) if columns is None else columns)
    return folder


def client_of(run, named=None, **options):
    """A client of a portal that knows the token."""
    app = Guard(Portal(Atlas(run, named or Named())).app(), TOKEN)
    return TestClient(
        app, base_url="http://127.0.0.1:8000", headers={"Authorization": f"Bearer {TOKEN}"}, **options
    )  # fmt: skip


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run with all that there is, shared by all tests."""
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def client(run):
    """A client of its portal."""
    return client_of(run)


def array(response, kind):
    """The numbers of an answer."""
    assert response.status_code == 200, response.text
    return np.frombuffer(response.content, kind)
