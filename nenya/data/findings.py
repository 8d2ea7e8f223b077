"""What statistics of the pixels mean for a training, in words: what is refused, warned about, and told."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from nenya.data.cutouts import Cutouts
from nenya.data.extremes import Extreme
from nenya.data.pixels import ends
from nenya.data.statistics import Apart, Outside, Statistics, all_constant
from nenya.errors import DataError

logger = logging.getLogger(__name__)

#: So many constant cutouts are warned about: a few do no harm.
MANY_CONSTANT = 0.05
#: A value that so many pixels have is told.
MANY_EQUAL = 0.1
#: Squares of larger pixels, which batch-norm sums up, come near the end of float32, 3.4e38.
LARGE = 1e17

_MEND_LARGE = "If they mark missing pixels, declare them in missing; else set scale."

_MOST_LINES = 4  # of one kind
_MOST_READ = 256  # cutouts that are read again to see what is wrong with them


def heed(images: Cutouts, statistics: Statistics) -> None:
    """Refuse pixels that cannot be learned from, and warn about those that are likely not what they seem.

    Args:
        images: The cutouts.
        statistics: What a sample of them shows.

    Raises:
        DataError: Pixels overflow, or all cutouts are constant.
    """
    _require_no_overflow(images, statistics)
    if statistics.constant_share == 1 and all_constant(images):
        raise DataError(_constant(images, statistics))
    for line in doubts(images, statistics):
        logger.warning("%s: %s", images.key, line)


def _constant(images: Cutouts, statistics: Statistics) -> str:
    """The complaint about cutouts that are constant, in the file or only after it is read."""
    value = f"{statistics.minimum:g}" if statistics.minimum == statistics.maximum else "one value each"
    found = f"{images.path}: all {len(images.usable)} usable cutouts of {images.key!r} are constant ({value} throughout"
    stored = torch.from_numpy(images.read_stored(images.usable[:_MOST_READ]))
    numbers, missing = images.packing.numbers(stored), images.packing.missing(stored)
    low, high = ends(numbers, missing)
    if not bool((high > low).any()):
        return f"{found}): there is nothing to learn from. Check how the file was made."
    steps = f" after {_steps(images)}" if _steps(images) else ""
    valid = numbers if missing is None else numbers[~missing]
    lowest, highest = valid.min().item(), valid.max().item()
    return (
        f"{found}, rounded to float32{steps}), though the numbers in the file differ, from {lowest!r} to {highest!r}: "
        "float32 has 7 digits, and nothing below 1.4e-45. Store their differences from a mean, or correct "
        "scale_factor, add_offset or scale."
    )


def doubts(images: Cutouts, statistics: Statistics) -> list[str]:
    """What is likely not what it seems, a sentence or two each.

    Args:
        images: The cutouts.
        statistics: What a sample of them shows.
    """
    s = statistics
    lines = list(s.remarks)
    lines += [_mark_line(images, apart, extreme) for apart in s.apart[:_MOST_LINES] for extreme in apart.extremes]
    lines += [_absurd_line(images, apart) for apart in s.apart[:_MOST_LINES] if apart.absurd_share]
    if len(s.apart) > _MOST_LINES:
        lines.append(f"the same in {len(s.apart) - _MOST_LINES} more channels")
    if s.num_beyond:
        lines.append(
            f"{_pixels(s.num_beyond, s.num_pixels)} lie beyond the range of float32 (3.4e38) and count as missing"
        )
    if s.largest >= LARGE:
        lines.append(f"pixels are as large as {s.largest:.3g}; their squares overflow float32: set scale")
    if s.constant_share >= MANY_CONSTANT:
        lines.append(
            f"{_percent(s.constant_share)} of the cutouts looked at are constant: there is nothing to learn from them, "
            "and they look all the same. Leave them out"
        )
    for channel, share in list(s.constant_channels.items())[:_MOST_LINES]:
        lines.append(
            f"channel {channel} is constant in {_percent(share)} of the cutouts looked at: nothing can be learned from "
            "it there. Was it written?"
        )
    if s.outside is not None and s.outside.share:
        lines.append(_outside_line(s.outside))
    return lines


def sum_up(statistics: Statistics) -> str:
    """One line on the pixels: range, median, what is missing, constant or equal, and how many cutouts that rests on."""
    s = statistics
    parts = [f"{s.minimum:.5g} to {s.maximum:.5g}, median {s.median:.5g}"]
    if s.missing_share:
        parts.append(f"{_percent(s.missing_share)} missing")
    if s.not_found:
        parts.append(f"none is {' or '.join(f'{mark:.9g}' for mark in s.not_found)}, which missing declares")
    if s.most_frequent_share >= MANY_EQUAL:
        parts.append(f"{_percent(s.most_frequent_share)} of the pixels are {s.most_frequent:.5g}")
    if s.constant_share:
        parts.append(f"{_percent(s.constant_share)} of the cutouts constant")
    if s.outside is not None and s.outside.unpacked and not s.outside.share:
        parts.append(f"valid range [{s.outside.low:g}, {s.outside.high:g}] seems to be in unpacked units")
    return f"{', '.join(parts)} ({s.num_cutouts} cutout{'' if s.num_cutouts == 1 else 's'} looked at)"


def why_not_finite(images: Cutouts, found: Sequence[tuple[int, float]]) -> str | None:
    """Say what in the pixels makes a loss NaN or infinite; None where it is not the pixels.

    Args:
        images: The cutouts.
        found: Row number of each sample and the largest magnitude in its views, NaN where one is.
    """
    rows = [row for row, largest in found if not math.isfinite(largest)]
    if not rows:
        largest = max((largest for _, largest in found), default=0.0)
        if largest < LARGE:
            return None
        return f"The pixels are finite, but as large as {largest:.3g}: their squares overflow float32. {_MEND_LARGE}"
    unexplained = f"The pixels of samples {rows} are not finite: check these cutouts."
    try:
        stored = torch.from_numpy(images.read_stored(np.array(rows[:_MOST_READ])))
    except DataError:  # the loss is what has to be told
        return unexplained
    missing = images.packing.missing(stored)
    if missing is not None and bool(missing.flatten(2).all(dim=2).any()):
        return f"Samples {rows} have no valid pixel left in some channel: the file has changed since the run began."
    pixels = images.packing.unpacked(stored if missing is None else stored[~missing])
    if overflowing := int((~torch.isfinite(pixels)).sum()):
        return f"{overflowing} pixels of samples {rows} overflow float32 (3.4e38) after {_steps(images)}. {_MEND_LARGE}"
    return (
        f"The pixels of samples {rows} are finite in the file, but so large that computing with them overflows "
        f"float32: from {pixels.min():.6g} to {pixels.max():.6g}. {_MEND_LARGE}"
    )


def _steps(images: Cutouts) -> str:
    """The names of what is done to stored numbers."""
    packing = images.packing
    used = {"scale_factor": packing.factor != 1, "add_offset": packing.offset != 0, "scale": packing.scale != 1}
    return " and ".join(name for name, there in used.items() if there)


def _require_no_overflow(images: Cutouts, statistics: Statistics) -> None:
    if not statistics.num_overflowing:
        return
    marks = [f" {_mark(images, apart, extreme)}." for apart in statistics.apart[:1] for extreme in apart.extremes[:1]]
    raise DataError(
        f"{images.path}: {images.key!r}: {_pixels(statistics.num_overflowing, statistics.num_pixels)} overflow float32 "
        f"(3.4e38) after {_steps(images)}.{''.join(marks)} Lower scale or correct the attribute, or declare in missing "
        "the stored numbers that mark missing pixels."
    )


def _mark(images: Cutouts, apart: Apart, extreme: Extreme) -> str:
    """How many pixels have the values that stand apart."""
    shown = " or ".join(_exactly(value, images) for value in extreme.values)
    stored = " (as stored)" if _is_packed(images) else ""
    if not extreme.count:
        where = f"{_channel(images, apart)}, in cutouts other than those looked at,"
        return f"some pixels{where} are {shown}{stored}, the next value is {extreme.following:.6g}"
    pixels = _pixels(extreme.count, apart.num_pixels, _channel(images, apart))
    return (
        f"{pixels} {'is' if extreme.count == 1 else 'are'} {shown}{stored}, the next value is {extreme.following:.6g}"
    )


def _mark_line(images: Cutouts, apart: Apart, extreme: Extreme) -> str:
    """A warning about values that stand apart: how many, and what to do if they are marks."""
    listed = ", ".join(_exactly(value, images) for value in extreme.values)
    return (
        f"{_mark(images, apart, extreme)}. {_meant_unpacked(images, extreme)}They are learned from as they are; if "
        f'they mark missing pixels, declare them: "missing": [{listed}]'
    )


def _meant_unpacked(images: Cutouts, extreme: Extreme) -> str:
    """Whether an attribute names such a value, in the unit that packing results in: then it marks other pixels."""
    packing = images.packing
    for value in extreme.values:
        unpacked = value * packing.factor + packing.offset
        for mark in images.meaning.marks:
            if mark != value and math.isclose(unpacked, mark, rel_tol=1e-6):
                return (
                    f"After packing that is {mark:g}, as _FillValue or missing_value say, which seem to be in unpacked "
                    f"units, against the CF conventions: pixels stored as {mark:g} count as missing. Correct the "
                    "attribute. "
                )
    return ""


def _absurd_line(images: Cutouts, apart: Apart) -> str:
    return (
        f"{_percent(apart.absurd_share)} of the pixels{_channel(images, apart)} are absurdly far from all others, from "
        f"{apart.lowest:.3g} to {apart.highest:.3g}: are they damaged, or of another type or byte order than the file "
        "says?"
    )


def _channel(images: Cutouts, apart: Apart) -> str:
    return f" of channel {apart.channel}" if images.num_channels > 1 else ""


def _outside_line(outside: Outside) -> str:
    if math.isinf(outside.low):
        limits = f"above valid_max {outside.high:g}"
    elif math.isinf(outside.high):
        limits = f"below valid_min {outside.low:g}"
    else:
        limits = f"outside valid_range [{outside.low:g}, {outside.high:g}]"
    unit = ", which seems to be in unpacked units, against the CF conventions" if outside.unpacked else ""
    return (
        f"{_percent(outside.share)} of the pixels lie {limits}{unit}. They are learned from as they are; numbers that "
        "mark missing pixels are declared in missing"
    )


def _is_packed(images: Cutouts) -> bool:
    return (images.packing.factor, images.packing.offset, images.packing.scale) != (1.0, 0.0, 1.0)


def _exactly(value: float, images: Cutouts) -> str:
    """A stored number with as many digits as it takes to read it back."""
    if images.dtype.kind != "f":
        return str(int(value))
    return str(np.float64(value).astype(images.dtype.newbyteorder("="))).removesuffix(".0")


def _pixels(count: int, total: int, where: str = "") -> str:
    few = count / total < 5e-4
    return f"{count} of {total} pixels{where}" if few else f"{_percent(count / total)} of the pixels{where}"


def _percent(share: float) -> str:
    """A share with two digits, and never rounded to nothing or to all."""
    percent = 100 * share
    if percent <= 0 or percent >= 100:
        return f"{percent:.0f} %"
    digits = max(0, 1 - math.floor(math.log10(percent)))
    text = f"{percent:.{digits}f}"
    return f"over {100 - 10**-digits:.{digits}f} %" if float(text) >= 100 else f"{text} %"
