"""Gaps filled from their surroundings: the biharmonic equation with the known pixels as its boundary.

Source: Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions"; the equations are
those that scikit-image solves, kernels cut off at the edges of the image included.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
_RADIUS = 2  # of the kernel


def inpaint(image: Float, gap: npt.NDArray[np.bool_]) -> Float:
    """Fill the gaps of an image.

    Args:
        image: [H, W], at least 5 x 5; its content in the gaps does not matter.
        gap: Where it has none [H, W]; not everywhere.

    Returns:
        A new image; the known pixels as they were, the others within the range of the known.
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    filled = np.where(gap, 0.0, image)
    if not gap.any():
        return filled
    height, width = image.shape
    rows, columns = np.nonzero(gap)
    number = np.full(image.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    equations, unknowns, weights = [], [], []
    right = np.zeros(len(rows))
    # pixels at the same distance from the edges, as far as the kernel reaches, have the same kernel
    sides = [np.minimum(place, _RADIUS) for place in (rows, height - 1 - rows, columns, width - 1 - columns)]
    shape = (_RADIUS + 1,) * 4
    member = np.ravel_multi_index(sides, shape)
    for code in np.unique(member):
        mine = np.flatnonzero(member == code)
        down, across, weight = _kernel(*(int(side) for side in np.unravel_index(code, shape)))
        y, x = rows[mine, None] + down, columns[mine, None] + across
        other = number[y, x]
        inside = other >= 0
        equations.append(np.broadcast_to(mine[:, None], other.shape)[inside])
        unknowns.append(other[inside])
        weights.append(np.broadcast_to(weight, other.shape)[inside])
        right[mine] = -(filled[y, x] * weight).sum(axis=1)  # zero in the gaps
    matrix = sparse.csc_array(
        (np.concatenate(weights), (np.concatenate(equations), np.concatenate(unknowns))), shape=(len(rows), len(rows))
    )
    known = image[~gap]
    filled[rows, columns] = np.clip(spsolve(matrix, right, permc_spec="MMD_AT_PLUS_A"), known.min(), known.max())
    return filled


@functools.cache
def _kernel(
    above: int, below: int, before: int, after: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float]:
    """Offsets and weights of the discrete biharmonic operator at a pixel with so many neighbours on its sides.

    It is the Laplacian of the Laplacian, with the image reflected at its edges.
    """
    impulse = np.zeros((above + 1 + below, before + 1 + after))
    impulse[above, before] = 1
    weights = _laplacian(_laplacian(impulse))
    y, x = np.nonzero(weights)
    return y - above, x - before, weights[y, x]


def _laplacian(image: Float) -> Float:
    padded = np.pad(image, 1, mode="symmetric")
    result: Float = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]
    return result
