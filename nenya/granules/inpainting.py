"""Gaps filled from their surroundings: the biharmonic equation with the known pixels as its boundary.

Source: Damelin and Hoang 2018, "On surface completion and image inpainting by biharmonic functions"; the equations are
those that scikit-image solves, with the image reflected at its edges.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float = npt.NDArray[np.float64]


def inpaint(image: Float, gap: npt.NDArray[np.bool_]) -> Float:
    """Fill the gaps of an image.

    Args:
        image: [H, W], at least 2 x 2, of any unit; its content in the gaps does not matter.
        gap: Where it has none [H, W]; not everywhere.

    Returns:
        A new image; the known pixels as they were, the others within the range of the known.
    """
    from scipy.sparse.linalg import splu

    filled: Float = np.where(gap, 0.0, image)
    if not gap.any():
        return filled
    unknown = np.flatnonzero(gap)
    laplacian = _laplacian(*image.shape)
    equations = laplacian[unknown] @ laplacian  # of the pixels in the gaps alone: the whole square would be large
    # Symmetric, and positive definite where some pixel is known, so no pivoting; the gaps are small, so no panels.
    factors = splu(
        equations[:, unknown].tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, relax=1, panel_size=1,
        options={"SymmetricMode": True},
    )  # fmt: skip
    solved = factors.solve(-(equations @ filled.ravel()))  # zero in the gaps: what the known pixels give
    known = image[~gap]
    filled[gap] = np.clip(solved, known.min(), known.max())
    return filled


@functools.lru_cache(2)  # a run has one size of windows
def _laplacian(height: int, width: int) -> csr_array:
    """The five-point Laplacian [H W, H W] of an image that is reflected at its edges; symmetric."""
    from scipy import sparse

    def second_difference(length: int) -> sparse.sparray:
        inner = np.r_[-1.0, np.full(length - 2, -2.0), -1.0]  # at an edge the neighbour outside is the pixel itself
        return sparse.diags_array([np.ones(length - 1), inner, np.ones(length - 1)], offsets=[-1, 0, 1])

    down = sparse.kron(second_difference(height), sparse.eye_array(width))
    across = sparse.kron(sparse.eye_array(height), second_difference(width))
    return sparse.csr_array(down + across)
