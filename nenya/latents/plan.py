"""What a file of latents is to be, and what of it is there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from nenya import __version__
from nenya.data.cutouts import Cutouts
from nenya.data.table import look_beside
from nenya.errors import DataError, NenyaError, OptionError
from nenya.files import longest_name
from nenya.latents import unfinished
from nenya.latents.encode import Encoder, Name
from nenya.latents.origin import cutouts_digest, describe_machine
from nenya.latents.store import About, Latents, Space, create, dataset_name
from nenya.latents.trained import Trained
from nenya.latents.unfinished import Done
from nenya.machine.device import choose_precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a file of latents is to be.

    Attributes:
        space: "h", "z" or "both".
        dtype: Type of the stored latents.
        keys: Datasets to encode; None for those of the training.
        views: 1, or 8 for the mean over the flips and quarter turns.
    """

    space: Space = "h"
    dtype: Literal["float16", "float32"] = "float32"
    keys: tuple[str, ...] | None = None
    views: Literal[1, 8] = 1

    @property
    def spaces(self) -> tuple[Name, ...]:
        """The spaces to compute."""
        return ("h", "z") if self.space == "both" else (self.space,)


@dataclass(frozen=True)
class Dataset:
    """A dataset of cutouts, and what encodes it."""

    images: Cutouts
    encoder: Encoder


@dataclass(frozen=True)
class Plan:
    """What every process has to know of the file that they write together.

    Attributes:
        wanted: What tells it from other files, as JSON types.
        machine: On what it is computed, in words.
        usable: Which cutouts can be used [N], by name of their latents.
        places: Where each dataset begins in the file, and how long a row of it is, bytes.
        done: Rows that are there already.
    """

    wanted: dict[str, Any]
    machine: str
    usable: dict[str, npt.NDArray[np.bool_]]
    places: dict[str, tuple[int, int]]
    done: Done


def make_plan(
    trained: Trained, source: Path, datasets: Mapping[str, Dataset], wanted: Wanted, out: Path, *, resume: bool
) -> Plan | None:
    """See what is there, and make the file in which the rows get their places.

    Args:
        trained: The model.
        source: The cutout file.
        datasets: Of its cutouts, by name of their latents.
        wanted: What the file is to be.
        out: The file.
        resume: Go on with what is there.

    Returns:
        The plan; None where the file is complete.

    Raises:
        NenyaError: What is there must not be written over, or is something else; the file cannot be made.
    """
    require_free(out, resume=resume)
    unfinished.require_unheld(out)
    usable, shapes = {}, {}
    for name, dataset in datasets.items():
        usable[name] = np.zeros(len(dataset.images), dtype=bool)
        usable[name][dataset.images.usable] = True
        for space in wanted.spaces:
            shapes[dataset_name(name, space, wanted.space)] = len(dataset.images), trained.width(space)
    about = _about(trained, source, datasets, wanted)
    asked = _identity(about, wanted.dtype, usable)
    if out.exists():
        there = Latents(out)
        found = _identity(there.about, there.dtype.name, {key: there.usable(key) for key in there.keys})
        unfinished.require_same(found, asked, out)
        unfinished.clear(out)
        return None
    first = next(iter(datasets.values())).encoder
    asked["device"] = first.device.type
    machine = describe_machine(first.device)
    done = unfinished.earlier(out, asked, machine)
    if done is None:
        done = {}
        _make(out, about, shapes, wanted.dtype, usable)
    return Plan(asked, machine, usable, _places(out, shapes, wanted.dtype), done)


def _make(
    out: Path,
    about: About,
    shapes: Mapping[str, tuple[int, int]],
    dtype: str,
    usable: Mapping[str, npt.NDArray[np.bool_]],
) -> None:
    """Make the file in which rows are to be written, with the disk space of all of them; all of it or nothing."""
    try:
        with unfinished.writing(out):
            unfinished.clear(out)
            out.parent.mkdir(parents=True, exist_ok=True)
            create(unfinished.unfinished_path(out), about, shapes, dtype, usable)
            unfinished.reserve(unfinished.unfinished_path(out))
    except NenyaError:
        with contextlib.suppress(OSError):
            unfinished.clear(out)
        raise


def require_free(out: Path, *, resume: bool) -> None:
    """See that the file can be written without writing over another.

    Raises:
        OptionError: Something is in its place.
    """
    with unfinished.writing(out):  # a folder may be a file, a name too long, also the longest on the way
        out.with_name(longest_name(unfinished.record_path(out, 9999))).exists()
        if out.is_dir():
            raise OptionError(f"--out is {out}, a folder; expected the name of a file, such as {out / 'latents.h5'}.")
        if out.exists() and not resume:
            raise OptionError(f"{out} is there already: choose another --out, or remove it.")
        hidden = unfinished.unfinished_path(out)
        if hidden.exists() and unfinished.records(out) and not resume:
            raise OptionError(
                f"{hidden} holds rows of an earlier run: --resume goes on with them; remove it to begin anew."
            )


def _about(trained: Trained, source: Path, datasets: Mapping[str, Dataset], wanted: Wanted) -> About:
    table = look_beside(source)
    if table is not None and table.digest is None:
        logger.warning("%s: the latents will name no table", table.told)
    first = next(iter(datasets.values())).encoder
    precision = choose_precision(first.precision, first.device)
    return About(
        space=wanted.space,
        model=trained.path.name,
        model_digest=trained.digest,
        options=trained.opt.dict,
        cutouts=str(source),
        cutouts_digest={name: cutouts_digest(dataset.images) for name, dataset in datasets.items()},
        table=(table and table.record) or {},
        precision=str(precision).removeprefix("torch."),
        views=wanted.views,
        version=__version__,
    )


def _identity(about: About, dtype: str, usable: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, Any]:
    """What makes a file of latents another one, as JSON types; the names of model and cutouts do not."""
    rows = {name: [len(which), hashlib.sha256(which.tobytes()).hexdigest()] for name, which in usable.items()}
    return {
        "model": about.model_digest,
        "cutouts": dict(about.cutouts_digest),
        "set of usable cutouts": rows,
        "table": dict(about.table),
        "space": about.space,
        "dtype": dtype,
        "number of views": about.views,
        "precision": about.precision,
        "version of Nenya": about.version,
    }


def _places(out: Path, shapes: Mapping[str, tuple[int, int]], dtype: str) -> dict[str, tuple[int, int]]:
    """Where the rows go, as the unfinished file itself tells."""
    path = unfinished.unfinished_path(out)
    try:
        with h5py.File(path, "r", locking=False) as file:
            places = {}
            for name, shape in shapes.items():
                dataset = file[name]
                if dataset.shape != shape or dataset.dtype != dtype or dataset.id.get_offset() is None:
                    raise OSError(f"{name} is not as it was made")
                places[name] = int(dataset.id.get_offset()), shape[1] * np.dtype(dtype).itemsize
            return places
    except (OSError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it to begin anew.") from error
