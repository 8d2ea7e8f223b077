"""Figures of a cutout over its valid pixels: mean, extremes, percentiles, DT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nenya.granules.containers import Array
from nenya.granules.packing import Packing

Float = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

INNER = 40  # pixels: side of the part that DT40 looks at


@dataclass(frozen=True)
class Statistics:
    """One entry for each cutout, in the unit of the values, float64; NaN where nothing is valid.

    Attributes:
        mean: Mean of the valid pixels.
        lowest: Smallest.
        highest: Largest.
        t10: 10th percentile.
        t90: 90th percentile.
        dt: t90 - t10.
        dt40: The same difference over the valid pixels of the inner 40 x 40; NaN for smaller cutouts.
    """

    mean: Float
    lowest: Float
    highest: Float
    t10: Float
    t90: Float
    dt: Float
    dt40: Float


def describe(stored: Array, valid: Mask, packing: Packing, historical: bool = False) -> Statistics:
    """Compute the figures of cutouts.

    Args:
        stored: Pixels as stored [n, H, W].
        valid: Which of them are valid [n, H, W].
        packing: What they mean.
        historical: Percentiles as the sorted value at index int(q n), as the historical tables have them, instead of
            linear interpolation between the two nearest (`numpy.percentile`).
    """
    count, height, width = stored.shape
    whole = _Selected.of(stored, valid, packing, historical)
    dt40 = np.full(count, np.nan)
    if min(height, width) >= INNER:
        top, left = (height - INNER) // 2, (width - INNER) // 2
        inner = (slice(None), slice(top, top + INNER), slice(left, left + INNER))
        part = _Selected.of(stored[inner], valid[inner], packing, historical)
        dt40 = part.percentile(0.9) - part.percentile(0.1)
    t10, t90 = whole.percentile(0.1), whole.percentile(0.9)
    return Statistics(
        _mean(stored, valid, whole.number, packing), whole.at(np.zeros_like(whole.number)), whole.at(whole.number - 1),
        t10, t90, t90 - t10, dt40,
    )  # fmt: skip


@dataclass(frozen=True)
class _Selected:
    """Cutouts' valid values, in rising order as far as it is asked for.

    Attributes:
        stored: [n, pixels]: right at the places of the extremes and the percentiles.
        number: Valid pixels of each [n].
        packing: What the stored numbers mean.
        historical: Which percentiles.
    """

    stored: Array
    number: npt.NDArray[np.int64]
    packing: Packing
    historical: bool

    @classmethod
    def of(cls, stored: Array, valid: Mask, packing: Packing, historical: bool) -> _Selected:
        """Bring the valid values in order; the others go to the end."""
        flat, fine = stored.reshape(len(stored), -1), valid.reshape(len(stored), -1)
        number = fine.sum(axis=1)
        if packing.scale < 0:  # rising stored numbers would be falling values
            flat, packing = packing.decode(flat), Packing("float64", 1.0, 0.0, np.nan, packing.unit)
        if not fine.all():
            last = np.nan if flat.dtype.kind == "f" else np.iinfo(flat.dtype).max
            flat = np.where(fine, flat, flat.dtype.type(last))
        elif flat.dtype.kind == "f":  # all have the same places, and finding these is quicker than sorting all
            places = {0, flat.shape[1] - 1}
            for share in (0.1, 0.9):
                below, above, _ = _places(np.array([flat.shape[1]]), share, historical)
                places |= {int(below[0]), int(above[0])}
            return cls(np.partition(flat, sorted(places), axis=1), number, packing, historical)
        # for integers of up to 16 bits, NumPy's stable sort is a radix sort
        small = flat.dtype.kind in "iu" and flat.dtype.itemsize <= 2
        return cls(np.sort(flat, axis=1, kind="stable" if small else None), number, packing, historical)

    def at(self, places: npt.NDArray[np.int64]) -> Float:
        """The values at places of the order; NaN where nothing is valid."""
        values = self.packing.decode(self.stored[np.arange(len(self.number)), np.maximum(places, 0)])
        result: Float = np.where(self.number > 0, values, np.nan)
        return result

    def percentile(self, share: float) -> Float:
        """The percentiles."""
        below, above, weight = _places(self.number, share, self.historical)
        low = self.at(below)
        return low if self.historical else low + (self.at(above) - low) * weight


def _places(
    number: npt.NDArray[np.int64], share: float, historical: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float]:
    """Between which places of the order a percentile lies, and how near to the second."""
    most = np.maximum(number - 1, 0)
    if historical:
        place = np.minimum((share * number).astype(np.int64), most)
        return place, place, np.zeros(len(number))
    exact = share * most
    below = np.floor(exact).astype(np.int64)
    return below, np.minimum(below + 1, most), exact - below


def _mean(stored: Array, valid: Mask, number: npt.NDArray[np.int64], packing: Packing) -> Float:
    known = stored if valid.all() else np.where(valid, stored, stored.dtype.type(0))
    total = known.sum(axis=(1, 2), dtype=np.int64 if packing.is_integer else np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Float = total / number * packing.scale + packing.offset
    return mean
