"""What may be done with a cutout's values, in this order: fill gaps, median filter, shrink by local means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nenya.granules.inpainting import inpaint

Float = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def fill(values: Float, valid: Mask) -> Float:
    """Fill the gaps of cutouts.

    Args:
        values: [n, H, W].
        valid: [n, H, W], somewhere true in each.

    Returns:
        [n, H, W], a new array.
    """
    filled = values.copy()
    for index in np.flatnonzero(~valid.all(axis=(1, 2))):
        filled[index] = inpaint(values[index], ~valid[index])
    return filled


def median(values: Float, valid: Mask, sides: tuple[int, int]) -> Float:
    """Median filter; at the edges the image is reflected, as in `scipy.ndimage.median_filter`.

    Only valid pixels count; a gap stays what it is.

    Args:
        values: [n, H, W].
        valid: [n, H, W].
        sides: Height and width of the filter, odd numbers of pixels.
    """
    from scipy.ndimage import median_filter

    if valid.all():
        if sides == (3, 1):
            return _median_of_three(values)
        return np.asarray(median_filter(values, size=(1, *sides), mode="reflect"))
    result = values.copy()
    for index in range(len(values)):
        if valid[index].all():
            result[index] = median_filter(values[index], size=sides, mode="reflect")
            continue
        seen = np.where(valid[index], values[index], np.nan)
        around = [side // 2 for side in sides]
        padded = np.pad(seen, [(reach, reach) for reach in around], mode="symmetric")
        neighbours = np.lib.stride_tricks.sliding_window_view(padded, sides)[valid[index]]
        result[index][valid[index]] = np.nanmedian(neighbours.reshape(len(neighbours), -1), axis=1)
    return result


def _median_of_three(values: Float) -> Float:
    """The median of each pixel and the two above and below it."""
    above = np.concatenate([values[:, :1], values[:, :-1]], axis=1)
    below = np.concatenate([values[:, 1:], values[:, -1:]], axis=1)
    low, high = np.minimum(above, below), np.maximum(above, below)
    middle: Float = np.maximum(low, np.minimum(high, values))
    return middle


def shrink(values: Float, valid: Mask, factor: int) -> tuple[Float, Mask]:
    """Replace squares of `factor` x `factor` pixels by the mean of their valid pixels.

    Args:
        values: [n, H, W], both sides multiples of the factor.
        valid: [n, H, W].
        factor: Side of a square.

    Returns:
        The means [n, H / factor, W / factor], and which of them have a valid pixel.
    """
    whole = bool(valid.all())
    known = values if whole else np.where(valid, values, 0.0)
    corners = [(down, across) for down in range(factor) for across in range(factor)]
    total = sum(known[:, down::factor, across::factor] for down, across in corners)
    if whole:
        return np.asarray(total) / factor**2, np.ones(np.shape(total), np.bool_)
    number = sum(valid[:, down::factor, across::factor].astype(np.int64) for down, across in corners)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(total / number), np.asarray(number > 0)
