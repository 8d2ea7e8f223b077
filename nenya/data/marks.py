"""The option `missing`, which is one for both sets, beside the types of each."""

from __future__ import annotations

import logging

import numpy as np

from nenya.data.attributes import Meaning, marks_fit
from nenya.data.hdf5 import find_dataset, looking_into
from nenya.data.sources import Sources
from nenya.errors import DataError
from nenya.params import Params

logger = logging.getLogger(__name__)


def marks_of(opt: Params, *, valid: bool) -> tuple[float, ...]:
    """The marks of missing pixels that count for one of the sets.

    A mark that the type of its numbers has not marks nothing in it. That is refused by whoever opens the set, but for
    marks that the other set's type has: int16 cutouts for training, uint8 ones for validation.

    Args:
        opt: The options.
        valid: The validation set instead of the training set.
    """
    marks = tuple(opt.missing)
    mine, other = (opt.valid_key, opt.train_key) if valid else (opt.train_key, opt.valid_key)
    if not marks or mine is None or other is None:
        return marks
    try:
        meaning = _meaning(opt, mine)
        unfit = [mark for mark in marks if not marks_fit(mark, meaning)]
        if not unfit:
            return marks
        elsewhere = _meaning(opt, other)
    except DataError:  # which is told with the set that it belongs to
        return marks
    left_out = [mark for mark in unfit if marks_fit(mark, elsewhere)]
    for mark in left_out:
        logger.warning(
            "%s: missing has %.9g, a number that %s has not: it marks pixels of %s only",
            mine, mark, np.dtype(meaning.dtype), other,
        )  # fmt: skip
    return tuple(mark for mark in marks if mark not in left_out)


def _meaning(opt: Params, key: str) -> Meaning:
    path = opt.images_path
    with looking_into(path) as file:
        sources = Sources(find_dataset(file, key, path), path)
        sources.close()
        return sources.meaning
