"""The data sets of a run: opening training and validation set, and telling them from others."""

from __future__ import annotations

import logging
import re
import zlib

import numpy as np

from nenya.data.findings import heed
from nenya.data.hdf5 import dataset_names, has_dataset, listed
from nenya.data.loaders import ViewLoader, nenya_loader
from nenya.errors import DataError
from nenya.options import did_you_mean
from nenya.params import Params

logger = logging.getLogger(__name__)


def open_loaders(opt: Params) -> tuple[ViewLoader, ViewLoader | None]:
    """The training loader and, where there is a validation set, its loader.

    Raises:
        NenyaError: The data cannot be used, or the two sets have different channels.
    """
    train = nenya_loader(opt)
    if not has_validation(opt):
        heed(train.images, train.statistics)
        return train, None
    valid = nenya_loader(opt, valid=True)
    channels = train.images.num_channels, valid.images.num_channels
    if channels[0] != channels[1]:
        raise DataError(
            f"{train.images.path}: {opt.train_key!r} has {channels[0]} channels, but {opt.valid_key!r} has "
            f"{channels[1]}. Both must have the same: check train_key and valid_key."
        )
    for loader in (train, valid):
        heed(loader.images, loader.statistics)
    return train, valid


def has_validation(opt: Params) -> bool:
    """Whether there is a validation set; a key that the file lacks is a warning."""
    if opt.valid_key is None:
        logger.warning("valid_key is null: training without validation, so without health figures.")
        return False
    if has_dataset(opt.images_path, opt.valid_key):
        if opt.valid_key.strip("/") == opt.train_key.strip("/"):
            logger.warning("valid_key is train_key: the validation figures will be those of the training cutouts.")
        return True
    there = list(dataset_names(opt.images_path))
    logger.warning(
        "%s has no dataset %r (it has %s)%s: training without validation, so without health figures.",
        opt.images_path,
        opt.valid_key,
        listed(there),
        did_you_mean(opt.valid_key, there).rstrip("?"),
    )
    return False


def fingerprint(loader: ViewLoader) -> str:
    """What tells a data set from others, whatever its file is called: all on which its batches depend.

    Shape, type, usable cutouts, labels, some pixels and, for training, how many cutouts are stored together: the order
    rests on it. Reading the pixels opens the file for as long as the loader lives: what is put in its place under the
    same name later is not read.

    Args:
        loader: Of the training or of the validation set.

    Returns:
        One line, for people to compare too.

    Raises:
        DataError: The file cannot be read.
    """
    images = loader.images
    rows = images.usable
    some = rows[np.linspace(0, len(rows) - 1, 16).astype(np.int64)]
    checksum = zlib.crc32(images.read(some).tobytes(), zlib.crc32(rows.tobytes()))
    if loader.labels is not None:
        checksum = zlib.crc32(loader.labels.tobytes(), checksum)
    together = f", read {images.rows_per_read} at a time" if loader.train and images.rows_per_read > 1 else ""
    return f"{len(rows)} usable cutouts of {images.shape} {images.dtype}{together}, checksum {checksum:08x}"


def shape_in(told: str) -> tuple[int, int, int] | None:
    """Channels, height and width of the cutouts that a `fingerprint` tells of; None where it is not one.

    Args:
        told: What a checkpoint has kept.
    """
    match = re.match(r"\d+ usable cutouts of \(\d+, (\d{1,9}), (\d{1,9}), (\d{1,9})\) ", told)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))
