"""Where latents come from: by what their cutouts, their model and their processor are told from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from nenya.data.cutouts import Cutouts
from nenya.data.hdf5 import dataset_names
from nenya.data.images import ImageFile
from nenya.errors import DataError
from nenya.latents.store import Latents
from nenya.latents.trained import open_cutouts
from nenya.machine import processor
from nenya.models.checkpoints import checkpoint_digest, checkpoints
from nenya.params import Params

_SAMPLE = 64  # cutouts, evenly spaced, the first and the last among them


def cutouts_digest(images: Cutouts) -> str:
    """A fingerprint of cutouts: SHA-256 of their shape, type, and the stored pixels of 64 of them, evenly spaced.

    Options have no part in it. It is quick for any number of cutouts, and so a change in others than these is not seen.

    Raises:
        DataError: They cannot be read.
    """
    digest = hashlib.sha256(f"{images.shape} {images.dtype.str}".encode())
    rows = np.unique(np.linspace(0, len(images) - 1, _SAMPLE).astype(np.int64))
    digest.update(np.ascontiguousarray(images.read_stored(rows)).tobytes())
    return digest.hexdigest()


def open_own(latents: Latents, cutouts: Path, key: str, opt: Params) -> ImageFile:
    """Open the cutouts that some latents were made from.

    Args:
        latents: The latents.
        cutouts: The file.
        key: Which of the latents.
        opt: The options of the model.

    Raises:
        DataError: They cannot be used, or are others.
    """
    name = next((name for name in dataset_names(cutouts) if name.replace("/", "_") == key), key)
    images = open_cutouts(opt, cutouts, name)
    count = latents.num_rows(key)
    advice = "Give the file that they were made from, or make them anew with `nenya latents`."
    if len(images) != count:
        raise DataError(
            f"{cutouts} has {len(images)} cutouts of {name!r}, and {latents.path} has {count} rows: it has other "
            f"cutouts than the latents are of. {advice}"
        )
    if not are_own(latents, images, key):
        raise DataError(
            f"{cutouts} has as many cutouts of {name!r} as {latents.path} has rows, but other ones: their pixels are "
            f"not those that the latents are of. {advice}"
        )
    return images


def are_own(latents: Latents, images: Cutouts, key: str) -> bool:
    """Whether cutouts are those that some latents were made from, as far as the latents tell."""
    if len(images) != latents.num_rows(key):
        return False
    known = latents.about.cutouts_digest.get(key)
    return known is None or cutouts_digest(images) == known


def model_places(latents: Latents) -> list[Path]:
    """Where the checkpoint that made some latents may be: as they name it, beside them, in the folder of its run."""
    named = Path(latents.about.model)
    places = [named, latents.path.with_name(named.name)]
    folder = latents.about.options.get("model_folder")
    if isinstance(folder, str) and folder:
        places.append(Path(folder) / named.name)
    return places


def find_model(latents: Latents, places: Iterable[Path]) -> Path | None:
    """The checkpoint that made some latents, by its digest.

    Args:
        latents: The latents.
        places: Checkpoints and model folders; some may not be there.

    Returns:
        The first that is the one; None where none is.

    Raises:
        CheckpointError: One cannot be read.
    """
    files = [file for place in places for file in (checkpoints(place) if place.is_dir() else [place])]
    there = (file for file in files if file.is_file())
    return next((file for file in there if checkpoint_digest(file) == latents.about.model_digest), None)


def describe_machine(device: torch.device) -> str:
    """Processor or GPU and the version of torch: on what, besides the input, the last bits of a latent depend."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor.name()
    return f"{name}, torch {torch.__version__}"
