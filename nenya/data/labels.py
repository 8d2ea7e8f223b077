"""Labels of cutouts: one class number each, in a dataset beside them."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from nenya.data.bounds import few
from nenya.data.readers import read_all
from nenya.data.sources import Sources
from nenya.data.unwritten import find_unwritten
from nenya.errors import DataError
from nenya.params import Params

logger = logging.getLogger(__name__)

_ENDS = tuple(2**bits - 1 for bits in (7, 8, 15, 16, 31, 32, 63))  # of integer types
_FAR = 10  # times as large as there are classes
_UNLABELLED = "cutouts without a label would count as one more class, so leave them out"


def read_labels(dataset: h5py.Dataset, path: Path, count: int, cutouts: str) -> npt.NDArray[np.int64]:
    """Read the label of every cutout.

    Args:
        dataset: The open dataset: integers, [N] or [N, 1]; a file of MATLAB has its columns as [1, N].
        path: Its file, for the message.
        count: N.
        cutouts: Name of the dataset of the cutouts, for the message.

    Returns:
        Labels [N], int64.

    Raises:
        DataError: They are not integers from 0, not one for each cutout, or some are marked as missing.
    """
    found = f"{path}: labels {dataset.name[1:]!r} are {dataset.dtype} of shape {dataset.shape}"
    shapes = [(count,), (count, 1)] + ([(1, count)] if "MATLAB_class" in dataset.attrs else [])
    if dataset.shape not in shapes:
        raise DataError(
            f"{found}; expected ({count},), one for each cutout of {cutouts!r}.{_how_to_count(dataset, count)}"
        )
    if dataset.dtype.kind not in "iub":
        raise DataError(f"{found}; expected integers. Number the classes 0, 1, 2, ...{_how_to_number(dataset, path)}")
    with contextlib.closing(Sources(dataset, path)) as sources:
        meaning = sources.meaning
        unwritten = find_unwritten(dataset, sources, "-N" if dataset.shape[0] != count else "N")
    if unwritten is not None:
        rows = np.flatnonzero(unwritten.rows)
        raise DataError(
            f"{found}; {len(rows)} of them (rows {few(rows)}) were never written, and would read as the fill value "
            f"{unwritten.fill}. Expected a class 0, 1, 2, ... for each: {_UNLABELLED}, or write them."
        )
    if (meaning.factor, meaning.offset) != (1.0, 0.0):
        raise DataError(
            f"{found} with scale_factor {meaning.factor:g} and add_offset {meaning.offset:g}; expected class numbers, "
            "which are not measured in a unit. Remove the attributes, or store the numbers that are meant."
        )
    values = read_all(dataset, path).reshape(-1)
    if meaning.is_reinterpreted:
        values = values.astype(values.dtype.newbyteorder("=")).view(meaning.dtype)
    for mark in meaning.marks:
        if marked := int((values == mark).sum()):
            raise DataError(
                f"{found}; {marked} of them are {mark:g}, which marks a missing label (_FillValue or missing_value). "
                f"Expected a class 0, 1, 2, ... for each: {_UNLABELLED}."
            )
    largest = np.iinfo(np.int64).max
    if values.dtype.kind == "u" and values.max() > largest:
        raise DataError(
            f"{found}; {(values > largest).sum()} of them are above {largest}, up to {values.max()}. Expected classes "
            f"0, 1, 2, ...: {_UNLABELLED}."
        )
    labels = values.astype(np.int64)
    if labels.min() < 0:
        raise DataError(f"{found}; {(labels < 0).sum()} of them are negative. Expected classes 0, 1, 2, ...: "
                        f"{_UNLABELLED}.")  # fmt: skip
    if meaning.valid_range is not None:
        low, high = meaning.valid_range
        if outside := int(((labels < low) | (labels > high)).sum()):
            logger.warning(
                "%s: %d of %d labels lie outside their valid range [%g, %g]; they are classes all the same",
                dataset.name[1:], outside, count, low, high,
            )  # fmt: skip
    return labels


def label_dataset(opt: Params, *, valid: bool = False) -> str:
    """Name of the dataset of labels: `label_key` with ``{key}`` filled in, or ``<key>_labels``."""
    key = str(opt.valid_key if valid else opt.train_key)
    if opt.label_key is not None and ("{key}" in opt.label_key or not valid):
        return opt.label_key.replace("{key}", key)
    return f"{key}_labels"


def require_classes(labels: npt.NDArray[np.int64], path: Path, key: str, *, warn_only: bool) -> None:
    """Make sure that there is something to tell apart: with one class, all cutouts are positives of each other.

    A largest label that is far from the others, as marks of missing labels are, is warned about.

    Args:
        labels: Of the usable cutouts [N].
        path: Their file, for the message.
        key: The dataset of labels, for the message.
        warn_only: Warn instead: a validation loss that tells little is no reason to refuse the training.

    Raises:
        DataError: All labels are the same.
    """
    if not len(labels) or (labels != labels[0]).any():
        _doubt_largest(labels, key)
        return
    complaint = (
        f"{path}: all {len(labels)} labels {key!r} of usable cutouts are {labels[0]}; expected at least two classes: "
        'with one, SupCon draws all cutouts to one point. Check label_key, or set ssl_method to "SimCLR".'
    )
    if not warn_only:
        raise DataError(complaint)
    logger.warning(complaint)


def _doubt_largest(labels: npt.NDArray[np.int64], key: str) -> None:
    """Warn where the largest label is likely a mark: the largest number of a type, or one far above the others."""
    classes, counts = np.unique(labels, return_counts=True)
    largest, following = int(classes[-1]), int(classes[-2])
    # a sound set of 256 classes has a class beside its largest
    at_end = largest in _ENDS and largest > following + 1 and largest >= 2 * len(classes)
    if at_end or largest > _FAR * len(classes):
        logger.warning(
            "%s: the largest of the %d classes is %d%s, with %d cutouts; the next one is %d. If it marks cutouts "
            "without a label, leave them out: they would count as one more class",
            key,
            len(classes),
            largest,
            ", the largest number of an integer type" if at_end else "",
            counts[-1],
            following,
        )


def _how_to_number(dataset: h5py.Dataset, path: Path) -> str:
    """How to make integers of whole numbers that are stored as floats, which MATLAB does by itself."""
    if dataset.dtype.kind != "f":
        return ""
    values = read_all(dataset, path)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        return ""
    return " These are whole numbers stored as floats: store them with labels.astype('int64'), in MATLAB int64(labels)."


def _how_to_count(dataset: h5py.Dataset, count: int) -> str:
    """How to make class numbers of what may be one column for each class."""
    if len(dataset.shape) != 2 or dataset.shape[0] != count or dataset.dtype.kind not in "fiub":
        return ""
    return (
        f" If its {dataset.shape[1]} columns are one for each class (one-hot, or scores), store the number of the "
        "largest: labels.argmax(axis=1)."
    )
