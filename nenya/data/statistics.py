"""What a sample of the pixels shows before anything is learned from them."""

from __future__ import annotations

import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nenya.data.attributes import Meaning
from nenya.data.cutouts import Cutouts
from nenya.data.extremes import Counted, Extreme, count_absurd, find_extremes
from nenya.data.pixels import ends as find_ends
from nenya.errors import DataError

#: At most so many cutouts are looked at, and so many pixels of them, ...
MOST_CUTOUTS, MOST_PIXELS = 256, 2**21
#: ... of which so many are sorted, evenly spaced; smallest and largest are those of all, and of the whole file where
#: that was looked through for missing pixels.
MOST_SORTED = 2**18
#: Of a dataset that is not in memory, cutouts are read at so many places, each place in one piece, and not more bytes.
MOST_PLACES, MOST_BYTES = 16, 64 * 2**20

_NEIGHBOURS = 8  # cutouts at a place of a dataset without chunks
_MOST_CHANNELS = 64  # that are looked at one by one
_MOSTLY = 0.5  # share of cutouts in which a channel is constant that is large


@dataclass(frozen=True)
class Apart:
    """What stands apart in one channel, in the file's numbers.

    Attributes:
        channel: Its number, from 0.
        extremes: Values at the ends.
        absurd_share: Share of other pixels that are too far from all others to be measurements, 0 to 1.
        num_pixels: Valid pixels that were looked at.
        lowest: The smallest number but for the extremes.
        highest: The largest number but for the extremes.
    """

    channel: int
    extremes: tuple[Extreme, ...]
    absurd_share: float
    num_pixels: int
    lowest: float
    highest: float


@dataclass(frozen=True)
class Outside:
    """How the pixels lie to the valid range that the attributes name.

    Attributes:
        low: Its lower end.
        high: Its upper end.
        share: Of the valid pixels outside, 0 to 1, in the unit in which the range is meant.
        unpacked: Whether it seems to be meant after scale_factor and add_offset, against the conventions.
    """

    low: float
    high: float
    share: float
    unpacked: bool


@dataclass(frozen=True)
class Statistics:
    """What a sample of the usable cutouts shows.

    Attributes:
        num_cutouts: Cutouts looked at.
        num_pixels: Pixels looked at.
        minimum: Of the valid pixels, after packing and scale: of all where the file was looked through.
        median: Of the valid pixels.
        maximum: Of the valid pixels.
        missing_share: Share of missing pixels, 0 to 1.
        constant_share: Share of cutouts of which each channel is one value throughout.
        constant_channels: Share of cutouts in which a channel is one value throughout, by its number, where it is
            large though the cutouts are not constant.
        most_frequent: The most frequent pixel value, after packing and scale.
        most_frequent_share: Its share of the valid pixels.
        num_overflowing: Pixels that are finite as stored, and infinite in float32 after packing and scale.
        num_beyond: Pixels that are finite as stored and beyond the range of float32 already: they count as missing.
        largest: Largest magnitude in float32, but for what stands apart.
        apart: What stands apart, of each channel where something does.
        outside: How the pixels lie to the valid range; None without one.
        not_found: Marks that the option `missing` declares and no pixel has.
        remarks: What is odd about attributes and shape, in words.
    """

    num_cutouts: int
    num_pixels: int
    minimum: float
    median: float
    maximum: float
    missing_share: float
    constant_share: float
    constant_channels: dict[int, float]
    most_frequent: float
    most_frequent_share: float
    num_overflowing: int
    num_beyond: int
    largest: float
    apart: tuple[Apart, ...]
    outside: Outside | None
    not_found: tuple[float, ...]
    remarks: tuple[str, ...]


def look_at(images: Cutouts) -> Statistics:
    """Look at an evenly spaced sample of the usable cutouts; always the same one.

    Args:
        images: The cutouts.

    Returns:
        What it shows.

    Raises:
        DataError: The file cannot be read, or is being changed.
    """
    rows = sample_rows(images)
    with ThreadPoolExecutor(images.num_threads, thread_name_prefix="nenya-unpack") as threads:
        stored = torch.from_numpy(images.begin_reading(rows, threads)())
    packing = images.packing
    numbers, pixels, missing = packing.numbers(stored), packing.unpacked(stored), packing.missing(stored)
    if missing is not None and not bool(missing.any()):
        missing = None
    low, high = find_ends(pixels, missing)
    if bool((low > high).any()):
        raise DataError(
            f"{images.path}: cutouts of {images.key!r} had valid pixels a moment ago, and have none now: the file is "
            "being changed. Wait until it is complete."
        )
    counted = Counted.of(_some(pixels.flatten(), None if missing is None else missing.flatten(), MOST_SORTED))
    frequent, frequent_share = counted.most_frequent
    channels = [_apart(numbers, missing, channel, images) for channel in _channels(images)]
    minimum, maximum = float(low.min()), float(high.max())
    if images.ends is not None:
        whole = packing.unpacked(torch.from_numpy(images.ends))
        minimum, maximum = min(minimum, float(whole.min())), max(maximum, float(whole.max()))
    constant = (high <= low).double()
    return Statistics(
        num_cutouts=len(rows),
        num_pixels=stored.numel(),
        minimum=minimum,
        median=counted.median,
        maximum=maximum,
        missing_share=0.0 if missing is None else float(missing.double().mean()),
        constant_share=float(constant.amin(dim=1).mean()),
        constant_channels=_constant_channels(constant),
        most_frequent=frequent,
        most_frequent_share=frequent_share,
        num_overflowing=_count_overflowing(pixels, missing, low, high),
        num_beyond=_count_beyond(numbers),
        largest=_largest(images, channels),
        apart=tuple(channel for channel in channels if channel.extremes or channel.absurd_share),
        outside=_outside(numbers, missing, images.meaning),
        not_found=_not_found(numbers, images),
        remarks=images.remarks,
    )


def sample_rows(images: Cutouts) -> npt.NDArray[np.int64]:
    """Row numbers of the cutouts that are looked at: evenly spaced, and where reading is slow at few places.

    Args:
        images: The cutouts.

    Returns:
        Rising row numbers of usable cutouts.
    """
    usable = images.usable
    most = max(1, min(MOST_CUTOUTS, MOST_PIXELS // int(np.prod(images.shape[1:])), len(usable)))
    length = images.rows_per_read if images.rows_per_read > 1 else _NEIGHBOURS
    places = np.unique(usable // length)
    affordable = max(2, MOST_BYTES // (length * images.row_bytes))
    num_places = min(MOST_PLACES, affordable, len(places), most)
    if images.in_memory or num_places == len(places):
        return usable[np.linspace(0, len(usable) - 1, most).astype(np.int64)]
    chosen = places[np.linspace(0, len(places) - 1, num_places).astype(np.int64)]
    rows = [usable[np.searchsorted(usable, place * length) : np.searchsorted(usable, (place + 1) * length)]
            for place in chosen]  # fmt: skip
    each = -(-most // num_places)
    return np.concatenate([here[np.linspace(0, len(here) - 1, min(each, len(here))).astype(np.int64)] for here in rows])


def all_constant(images: Cutouts) -> bool:
    """Whether every usable cutout of the file is constant; looks until one is not.

    Raises:
        DataError: The file cannot be read.
    """
    rows = images.usable
    step = max(1, MOST_PIXELS // int(np.prod(images.shape[1:])))
    step = -(-step // images.rows_per_read) * images.rows_per_read
    for start in range(0, len(rows), step):
        stored = torch.from_numpy(images.read_stored(rows[start : start + step]))
        low, high = find_ends(images.packing.unpacked(stored), images.packing.missing(stored))
        if bool((high > low).any()):
            return False
    return True


def _channels(images: Cutouts) -> npt.NDArray[np.int64]:
    count = min(images.num_channels, _MOST_CHANNELS)
    return np.linspace(0, images.num_channels - 1, count).astype(np.int64)


def _constant_channels(constant: Tensor) -> dict[int, float]:
    """The channels that are constant [B, C] in most cutouts, beside those that are so as a whole."""
    share, whole = constant.mean(dim=0), float(constant.amin(dim=1).mean())
    return {
        channel: found for channel, found in enumerate(share.tolist()) if found >= max(_MOSTLY, whole + _MOSTLY / 5)
    }


def _not_found(numbers: Tensor, images: Cutouts) -> tuple[float, ...]:
    """Declared marks that none of the numbers is; none where cutouts were left out, which may have had them."""
    if images.num_left_out:
        return ()
    declared = images.packing.marks[len(images.meaning.marks) :]
    numbers = numbers.to(torch.float32 if images.packing.floating else torch.float64)
    return tuple(mark for mark in declared if math.isfinite(mark) and not bool((numbers == mark).any()))


def _some(numbers: Tensor, missing: Tensor | None, most: int) -> npt.NDArray[Any]:
    """Valid ones of so many numbers [n], evenly spaced; all that are valid where those chosen are not."""
    # an odd step is no divisor of a cutout's width, so that all columns are seen
    step = -(-len(numbers) // most) | 1
    if missing is None:
        return np.asarray(numbers[::step])
    some = numbers[::step][~missing[::step]]
    return np.asarray(some if len(some) else numbers[~missing])


def _count_overflowing(pixels: Tensor, missing: Tensor | None, low: Tensor, high: Tensor) -> int:
    """Pixels that are no numbers any more."""
    if bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
        return 0
    overflowing = ~torch.isfinite(pixels)
    return int((overflowing if missing is None else overflowing & ~missing).sum())


def _count_beyond(numbers: Tensor) -> int:
    """Finite numbers that float32 has not."""
    if numbers.dtype != torch.float64:
        return 0
    return int((torch.isfinite(numbers) & ~torch.isfinite(numbers.to(torch.float32))).sum())


def _apart(numbers: Tensor, missing: Tensor | None, channel: int, images: Cutouts) -> Apart:
    """What stands apart in a channel of numbers [B, C, H, W]."""
    here = numbers[:, channel].flatten()
    gaps = None if missing is None else missing[:, channel].flatten()
    valid: npt.NDArray[Any] = np.asarray(here if gaps is None else here[~gaps])
    some = _some(here, gaps, max(1, MOST_SORTED // images.num_channels))
    # the ends are those of all pixels, whichever are sorted
    ends = [valid.min(), valid.max()] if images.ends is None else images.ends[:, channel]
    counted = Counted.of(np.concatenate((some, ends)))
    dtype, packing = images.meaning.dtype, images.packing
    extremes = find_extremes(
        counted,
        zero=-packing.offset / packing.factor,
        ends=(float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)) if dtype.kind in "iu" else (),
    )
    rest = counted.without(extremes)
    return Apart(
        channel,
        tuple(_recounted(extreme, valid) for extreme in extremes),
        count_absurd(rest) / int(counted.counts.sum()),
        len(valid),
        float(rest.values[0]),
        float(rest.values[-1]),
    )


def _recounted(extreme: Extreme, numbers: npt.NDArray[Any]) -> Extreme:
    """An extreme with its count among all numbers instead of those that were sorted."""
    count = sum(int((numbers == value).sum()) for value in extreme.values)
    return dataclasses.replace(extreme, count=count, share=count / len(numbers))


def _largest(images: Cutouts, channels: list[Apart]) -> float:
    """The largest magnitude, after packing and scale, of what does not stand apart."""
    packing = images.packing
    ends = [end for channel in channels for end in (channel.lowest, channel.highest)]
    return max(abs((end * packing.factor + packing.offset) * packing.scale) for end in ends)


def _outside(numbers: Tensor, missing: Tensor | None, meaning: Meaning) -> Outside | None:
    """How the valid pixels lie to the valid range, in the unit in which more of them are inside."""
    if meaning.valid_range is None:
        return None
    low, high = meaning.valid_range
    packed = (numbers if missing is None else numbers[~missing]).to(torch.float64)
    share = _share_outside(packed, low, high)
    if (meaning.factor, meaning.offset) == (1.0, 0.0) or share < 0.5:
        return Outside(low, high, share, unpacked=False)
    unpacked = _share_outside(packed * meaning.factor + meaning.offset, low, high)
    return Outside(low, high, min(share, unpacked), unpacked=unpacked < share)


def _share_outside(numbers: Tensor, low: float, high: float) -> float:
    return float(((numbers < low) | (numbers > high)).double().mean())
