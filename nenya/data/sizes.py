"""The size of the training views over the run: small ones first, which cost less, and larger ones at the end.

A network that is trained with small views and ends with larger ones gets most of what large views throughout would give
in less time (Touvron et al. 2019, arXiv:1906.06423; Tan & Le 2021, arXiv:2104.00298, sec. 4). What is measured of it
would depend on the size of the views, too, so that validation and latents keep one size throughout.
"""

from __future__ import annotations

import logging
import math
from itertools import accumulate

from nenya.data.augment import both_sides
from nenya.params import Params

logger = logging.getLogger(__name__)

Size = tuple[int, int]


def sizes_by_epoch(opt: Params) -> tuple[Size, ...]:
    """The size of the training views in each epoch: (height, width), pixels.

    A stage ends with the epoch that is nearest to the end of its share of the run, the later one of two.

    Args:
        opt: `image_size_schedule`, `epochs`.

    Returns:
        One for each epoch; none without a schedule, where all views have one size.
    """
    stages = opt.image_size_schedule
    if stages is None:
        return ()
    whole = math.fsum(share for _, share in stages)
    ends = [math.floor(opt.epochs * share / whole + 0.5) for share in accumulate(share for _, share in stages)]
    ends[-1] = opt.epochs
    sizes: list[Size] = []
    for (size, share), end in zip(stages, ends, strict=True):
        if end <= len(sizes):
            logger.warning(
                "image_size_schedule: the share %g of views of %s pixels is no whole epoch of %d, so there are none of "
                "them. Give more epochs or another share.", share, _words(both_sides(size)), opt.epochs,
            )  # fmt: skip
        sizes += [both_sides(size)] * (end - len(sizes))
    return tuple(sizes)


def describe(sizes: tuple[Size, ...]) -> str:
    """Say how the size changes: e.g. "32 x 32 px for 4 epochs, then 48 x 48 px for 2 epochs"."""
    stages: list[tuple[Size, int]] = []
    for size in sizes:
        before = stages.pop() if stages and stages[-1][0] == size else (size, 0)
        stages.append((size, before[1] + 1))
    return ", then ".join(
        f"{_words(size)} px for {number} epoch{'' if number == 1 else 's'}" for size, number in stages
    )


def _words(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
