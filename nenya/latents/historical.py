"""What scripts of the historical code call to get latents, with its names and meanings.

Two things are other than they were. Cutouts are shown to the network as in its training (crop, resize, demeaning),
which the historical code forgot here; and what a checkpoint says of its own training counts, not the caller's options.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nenya.data.augment import Views
from nenya.data.hdf5 import dataset_names, has_dataset, listed
from nenya.data.pixels import Packing, is_usable
from nenya.errors import DataError
from nenya.latents.encode import encode_blocks, encoding
from nenya.latents.trained import Trained
from nenya.machine.device import choose_device
from nenya.params import Params

logger = logging.getLogger(__name__)

#: Options that decide what the network sees.
_PREPROCESSING = ("random_jitter", "image_size", "demean", "scale", "missing", "max_nodata")
_DEBUG_BATCHES = 2


def model_latents_extract(
    opt: Params,
    data_file: str | os.PathLike[str] | None,
    model_path: str | os.PathLike[str],
    partitions: Sequence[str] = ("train", "valid"),
    allowed_indices: npt.ArrayLike | None = None,
    *,
    remove_module: bool = True,
    in_loader: Iterable[Any] | None = None,
    using_gpu: bool | None = None,
    debug: bool = False,
) -> dict[str, npt.NDArray[np.float32]]:
    """Compute the latents z of cutouts, all in memory; `nenya latents` writes those of any number to a file.

    Args:
        opt: Options; `batch_size_valid` counts for `debug`. Those of the preprocessing are the checkpoint's own, and a
            difference is a warning.
        data_file: The HDF5 file; None with `in_loader`.
        model_path: The checkpoint, ours or a historical one.
        partitions: Datasets of the file; one that it lacks is left out, with a warning.
        allowed_indices: Rows to encode, in this order; None for all.
        remove_module: Without effect: what wrappers add to the names of weights is taken out where it is there.
        in_loader: Batches in place of the file's; the first item of each is cutouts [B, C, H, W].
        using_gpu: Compute on the GPU; None: if there is one.
        debug: Only two batches.

    Returns:
        z [N, D] by partition, float32, of unit length; NaN where a cutout is not usable.

    Raises:
        NenyaError: The checkpoint or the cutouts cannot be used.
    """
    trained = Trained.load(model_path)
    _warn_of_differences(opt, trained)
    trained.move_to(choose_device(using_gpu is not False))
    size = opt.batch_size_valid
    if in_loader is not None:
        some = itertools.islice(in_loader, _DEBUG_BATCHES if debug else None)
        batches = [np.asarray(batch[0], dtype=np.float32) for batch in some]
        if not batches:
            raise DataError("in_loader yields no batches: give the cutouts to encode.")
        latents = _encode(trained, np.concatenate(batches))[0]
        return {partition: latents.copy() for partition in partitions}
    if data_file is None:
        raise DataError("there is neither a data_file nor an in_loader: give the cutouts to encode.")
    found = [partition for partition in partitions if has_dataset(data_file, partition)]
    for partition in partitions:
        if partition not in found:
            there = listed(list(dataset_names(data_file)))
            logger.warning("%s has no dataset %r (it has %s): left out", data_file, partition, there)
    return {
        partition: _partition(trained, Path(data_file), partition, allowed_indices, size, debug) for partition in found
    }


def _partition(
    trained: Trained, file: Path, key: str, allowed: npt.ArrayLike | None, size: int, debug: bool
) -> npt.NDArray[np.float32]:
    images = trained.open(file, key)
    rows = np.arange(len(images)) if allowed is None else np.asarray(allowed, dtype=np.int64).reshape(-1)
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
        raise DataError(f"allowed_indices go from {rows.min()} to {rows.max()}, but {key!r} has {len(images)} cutouts.")
    rows = rows[: _DEBUG_BATCHES * size] if debug else rows
    latents = np.full((len(rows), trained.width("z")), np.nan, np.float32)
    places = np.flatnonzero(np.isin(rows, images.usable))
    encoder = trained.encoder(images.to_float, trained.views(images), ("z",))
    pieces = [places[start : start + encoder.size] for start in range(0, len(places), encoder.size)]
    with encoding(trained.model, encoder.precision, encoder.device) as threads:
        blocks = ((piece, images.read_stored(rows[piece])) for piece in pieces)
        for piece, found in encode_blocks(encoder, blocks, threads):
            latents[piece] = found["z"]
    return latents


def get_latents(
    img: npt.NDArray[Any], model_file: str | os.PathLike[str], opt: Params
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Compute the latents z of one cutout.

    Args:
        img: The cutout, [H, W] or [C, H, W].
        model_file: The checkpoint.
        opt: As for `model_latents_extract`.

    Returns:
        z [1, D], NaN where too much of the cutout is missing, and the cutout as the network saw it, [1, C, h, w]:
        cropped, resized, demeaned.

    Raises:
        NenyaError: The checkpoint or the cutout cannot be used.
    """
    pixels = np.asarray(img, dtype=np.float32)
    if pixels.ndim not in (2, 3):
        raise DataError(f"img has the shape {pixels.shape}; expected one cutout, [H, W] or [C, H, W].")
    trained = Trained.load(model_file)
    _warn_of_differences(opt, trained)
    trained.move_to(choose_device())
    return _encode(trained, pixels.reshape(1, -1, *pixels.shape[-2:]))


def _encode(
    trained: Trained, pixels: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Encode cutouts in memory [N, C, H, W]: z [N, D], and what the network saw."""
    trained.require_shape(pixels.shape[1:], "the cutouts")
    packing = Packing.of(np.float32, trained.opt.missing, 1.0, 0.0, trained.opt.scale)
    views = Views.from_options(trained.opt, *pixels.shape[-2:])
    encoder = trained.encoder(packing.to_float, views, ("z",))
    blocks = [(None, pixels[start : start + encoder.size]) for start in range(0, len(pixels), encoder.size)]
    with encoding(trained.model, encoder.precision, encoder.device) as threads:
        latents = [found["z"] for _, found in encode_blocks(encoder, blocks, threads)]
    seen = [views.plain(packing.to_float(torch.from_numpy(block))).numpy() for _, block in blocks]
    z = np.concatenate(latents)
    missing = packing.missing(torch.from_numpy(pixels))
    if missing is not None:
        few = is_usable(missing.sum(dim=(2, 3)).numpy(), pixels.shape[2] * pixels.shape[3], trained.opt.max_nodata)
        z[~few] = np.nan
    return z, np.concatenate(seen)


def calc_DT(  # noqa: N802  # the historical name
    images: npt.NDArray[Any], random_jitter: Sequence[int], verbose: bool = False
) -> npt.NDArray[np.float64] | float:
    """Compute DT = T90 - T10, percentiles of the central window, which is as large as the crop of training.

    Args:
        images: Cutouts [N, H, W] or [N, C, H, W], of which the first channel counts, or one [H, W].
        random_jitter: Side of the window, pixels, and how far its centre shifts in training, which has no part here.
        verbose: Say which pixels are taken.

    Returns:
        DT [N], in the images' unit; a number for one cutout.

    Raises:
        DataError: The images have another shape, or the window does not fit into them.
    """
    if images.ndim not in (2, 3, 4):
        raise DataError(f"images have the shape {images.shape}; expected [N, H, W], [N, C, H, W] or [H, W].")
    fields = images[:, 0] if images.ndim == 4 else images.reshape(-1, *images.shape[-2:])
    half = random_jitter[0] // 2
    y, x = (side // 2 for side in fields.shape[-2:])
    if not 0 < half <= min(x, y):
        raise DataError(
            f"random_jitter {list(random_jitter)}: no window of {random_jitter[0]} pixels fits around the middle of "
            f"{fields.shape[-2]} x {fields.shape[-1]}: give a side from 2 to {2 * min(x, y)}."
        )
    if verbose:
        logger.info("DT of rows %d to %d, columns %d to %d", y - half, y + half - 1, x - half, x + half - 1)
    window = fields[:, y - half : y + half, x - half : x + half]
    low, high = np.percentile(window, [10.0, 90.0], axis=(1, 2))
    return float(high[0] - low[0]) if images.ndim == 2 else high - low


def _warn_of_differences(opt: Params, trained: Trained) -> None:
    other = [name for name in _PREPROCESSING if getattr(opt, name) != getattr(trained.opt, name)]
    if other:
        logger.warning(
            "%s was trained with another %s than the options given: its own counts", trained.path.name, ", ".join(other)
        )
